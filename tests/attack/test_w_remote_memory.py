# SPDX-License-Identifier: BSD-3-Clause
"""Guests none of whose memory is shared, as QEMU's with memory-backend-ram: rows W8, W11, D6, P6 and R3 where rings, tables,
and data are all reached by DMA_READ and DMA_WRITE."""

import errno
import os

import pytest

from pylib import blk, dma, pci, virtio, wire
from pylib.dma import DmaResponder
from pylib.events import PATIENCE
from pylib.memory import GuestMemory
from pylib.ring import Segment
from pylib.vm import BASE, Guest
from pylib.wire import Cmd

M = 1 << 20
MEMORY = 4 << 20
DATA = 0x4000_0000  # a second window


class FarGuest:
    """A guest whose memory has no fd, with a second window of `data` bytes."""

    def __init__(self, server, *, data=4 << 20, layout=dma.COUNT_64, capabilities=None, **options):
        self.guest = Guest(server.client(**({"capabilities": capabilities} if capabilities else {})))
        server.handed_out.append(self.guest)
        self.client, self.space = self.guest.client, self.guest.space
        self.dma = DmaResponder(self.client, self.space, layout=layout)
        self.guest.start(memory=MEMORY, remote=True, **options)
        self.data = self.guest.add_memory(DATA, data, remote=True)

    @property
    def queue(self):
        return self.guest.queues[0]

    def offer(self, kind, sector=0, *, data=b"", length=0, data_addr=None, segments=None, indirect=None, queue=0):
        request = self.guest.prepare(kind, sector, data=data, length=length, data_addr=data_addr, queue=queue)
        if data:
            self.space.write(request.data, data)
        self.guest.submit(request, segments(request) if segments else None, indirect=indirect, kick=False)
        self.guest.kick(queue, posted=True)
        return request

    def finish(self, request, timeout=PATIENCE):
        """Its status; anything else that comes back is an error."""
        done = []
        self.client.serve_commands(lambda: done.extend(self.guest.queues[request.queue].take()) or done, timeout)
        assert done, "the request was not completed in time"
        assert [head for head, _ in done] == [request.head], f"head {request.head} is due, the device gave back {done}"
        return self.space.read(request.status_addr, 1)[0]

    def do(self, kind, sector=0, **kwargs):
        return self.finish(self.offer(kind, sector, **kwargs))

    def assert_works(self, sector=8, size=5 * 512, at=None):
        data = os.urandom(size)
        mark = self.space.mark()
        assert self.do(blk.T_OUT, sector, data=data, data_addr=at) == blk.S_OK
        if at is not None:
            self.space.fill(at, size, 0xA5)
        request = self.offer(blk.T_IN, sector, length=size, data_addr=at)
        assert self.finish(request) == blk.S_OK
        assert self.space.read(request.data, size) == data, "what was written isn't what is read"
        self.space.release(mark)

    def hold(self, predicate, timeout=PATIENCE):
        """Goes on until the server has asked for something that predicate holds back."""
        self.dma.hold = predicate
        assert self.client.serve_commands(lambda: self.dma.held, timeout), "the server never asked for it"

    def unmap(self, *windows):
        """A server that waits for messages of its own refuses it in the end (EBUSY); one that asks for anything in there
        from now on fails the test."""
        for window in windows:
            self.guest.remove_memory(window)

    def map(self, window):
        self.client.dma_map(window.iova, window.size)
        self.space.windows.insert(0 if window.iova == BASE else 1, window)

    @property
    def rings(self):
        return self.space.find(BASE)


@pytest.fixture
def far(server, packed):
    return FarGuest(server, packed=packed)


# --- layouts and pieces -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("layout", [dma.COUNT_64, dma.COUNT_32, dma.TABLE])
def test_w11_each_layout_of_dma_messages_moves_the_exact_bytes(server, packed, layout):
    far = FarGuest(server, packed=packed, layout=layout)
    for size in (512, 1536, 65536, 65536 + 512, 1 << 20, (1 << 20) + 512):
        far.assert_works(size=size, at=DATA + 0x123)
        assert far.space.read(DATA + 0x123 + size, 8) == bytes(8), "bytes behind the buffer were written"


@pytest.mark.parametrize("layout", [dma.COUNT_64, dma.COUNT_32])
@pytest.mark.parametrize("limit", [4096, 4099, 65537])
def test_w11_messages_keep_to_a_limit_that_divides_nothing(server, packed, limit, layout):
    far = FarGuest(server, packed=packed, layout=layout,
                   capabilities={"max_data_xfer_size": limit, "max_msg_fds": 8})
    far.assert_works(size=300 * 512, at=DATA + 3)
    assert max(count for _, count in far.dma.reads + far.dma.writes) <= limit


def test_w11_the_layout_is_asked_for_with_no_byte_at_stake(server, packed):
    far = FarGuest(server, packed=packed)
    far.assert_works()
    assert far.dma.writes[0][1] == 0, "the first message was not an empty DMA_WRITE"
    assert all(count for _, count in far.dma.writes[1:]), "it was asked again"


def test_w11_the_server_asks_again_after_a_refusal(far):
    """QEMU while bus mastering is off: ENODEV to everything."""
    far.assert_works()
    far.dma.refuse = errno.ENODEV
    far.guest.kick(posted=True)
    assert far.client.serve_commands(lambda: far.guest.broken), "the ring can't be read"
    far.dma.refuse = None
    far.guest.restart()
    far.assert_works()


def test_w08_no_byte_is_written_before_the_first_is_asked_for_politely(server, packed):
    """The very first transfer fails: nothing was assumed about the layout, and the next transfer asks again."""
    guest = Guest(server.client())
    server.handed_out.append(guest)
    responder = DmaResponder(guest.client, guest.space)
    responder.refuse = errno.ENODEV
    guest.start(memory=MEMORY, remote=True, packed=packed)
    assert guest.client.serve_commands(lambda: guest.broken), "the ring can't be read"
    responder.refuse = None
    guest.restart()
    request = guest.prepare(blk.T_IN, 0, length=512)
    guest.submit(request, kick=False)
    guest.kick(posted=True)
    done = guest.client.serve_commands(guest.queue.take)
    assert done and guest.result(request, done[0][1]).status == blk.S_OK


# --- the reboot of a guest --------------------------------------------------------------------------------------

def reset_by_machine(far):
    """What QEMU sends when the machine is reset; the server's DMA is refused meanwhile, for bus mastering is off."""
    client = far.client
    client.disable_irqs(wire.IRQ_MSIX)
    client.disable_irqs(wire.IRQ_INTX)
    far.guest.pci.set_command(0)
    far.dma.refuse = errno.ENODEV
    client.reset()
    for bar in range(6):
        client.write_uint(wire.CONFIG, 0x10 + 4 * bar, 4, 0)


def flip_memory(far, rounds=3):
    """As when firmware turns PAM registers: all is unmapped, and mapped again in other pieces."""
    for _ in range(rounds):
        far.client.dma_unmap(BASE, MEMORY)
        for at, size in ((0, 0x8000), (0x8000, 0x1000), (0x9000, MEMORY - 0x9000)):
            far.client.dma_map(BASE + at, size)
        for at, size in ((0, 0x8000), (0x8000, 0x1000), (0x9000, MEMORY - 0x9000)):
            far.client.dma_unmap(BASE + at, size)
        far.client.dma_map(BASE, MEMORY)


def boot_firmware(far):
    """A driver of split rings that is told of nothing: it looks at the used index, as SeaBIOS."""
    far.guest.virtio.reset()
    far.guest.queues = []
    far.guest._options.update(interrupts="none", packed=False, features=virtio.F_VERSION_1)
    far.guest.bring_up()


def test_w08_reboot_on_the_same_session_with_requests_in_flight(far, packed):
    options = dict(far.guest._options)
    for busy in (False, True):
        if busy:
            far.offer(blk.T_IN, length=4096)
            far.hold(lambda command, addr, count: True)
        reset_by_machine(far)
        flip_memory(far)
        far.dma.refuse = None
        if busy:
            far.dma.release()  # replies to what the reset made void
        far.guest.pci.set_command(pci.COMMAND_MEMORY | pci.COMMAND_MASTER)
        boot_firmware(far)
        far.assert_works()
        flip_memory(far)  # the firmware's queue is enabled
        far.assert_works()
        far.guest.virtio.reset()
        far.guest.queues = []
        far.guest._options = dict(options)
        far.guest.connect_interrupts("msix", 1)
        far.guest.bring_up()
        far.assert_works()
        assert not far.guest.broken


# --- memory that is taken back while messages are out ------------------------------------------------------------

def test_w08_unmap_of_everything_while_a_read_is_unanswered_puts_the_request_aside(far):
    for held in ("index", "table", "header"):
        request = far.offer(blk.T_OUT, 4, data=held.encode() * 512)
        wanted = {"index": lambda c, a, n: n == 2, "table": lambda c, a, n: c == Cmd.DMA_READ and n > 2,
                  "header": lambda c, a, n: a == request.header}[held]
        far.hold(wanted)
        rings = far.rings
        far.unmap(rings, far.data)
        assert far.client.silent(0.1), "the server asks for memory that was taken back"
        far.map(rings)
        far.map(far.data)
        far.dma.release()  # what came too late is not looked at
        assert far.finish(request) == blk.S_OK
        far.assert_works()


def test_w08_unmap_of_everything_while_a_write_is_unanswered_writes_it_again(far):
    request = far.offer(blk.T_IN, 4, length=4096, data_addr=DATA + 64)
    far.hold(lambda command, addr, count: addr == DATA + 64)
    rings = far.rings
    far.unmap(rings, far.data)
    far.space.windows[:] = [rings, far.data]
    far.space.fill(DATA + 64, 4096, 0xA5)
    far.client.dma_map(rings.iova, rings.size)
    far.client.dma_map(far.data.iova, far.data.size)
    far.dma.release()
    assert far.finish(request) == blk.S_OK
    assert far.space.read(DATA + 64, 4096) != b"\xA5" * 4096
    far.assert_works()


def test_d06_nothing_is_written_where_memory_was_taken_back_and_the_request_fails(far):
    request = far.offer(blk.T_IN, 4, length=4096, data_addr=DATA + 64)
    far.hold(lambda command, addr, count: addr == request.header)
    far.unmap(far.data)  # any message for it fails the test
    far.dma.release()
    assert far.finish(request) == blk.S_IOERR
    far.assert_works()


def test_d06_nothing_is_read_where_memory_was_taken_back_and_the_request_fails(far):
    """The data is in many pieces, of which only the first has been asked for."""
    request = far.offer(blk.T_OUT, 4, data=bytes(1 << 20), data_addr=DATA)
    far.hold(lambda command, addr, count: DATA <= addr < DATA + (1 << 20))
    far.unmap(far.data)
    far.dma.release()
    assert far.finish(request) == blk.S_IOERR
    far.assert_works()


def test_w08_reset_makes_void_what_was_not_sent(far):
    """After the reset's answer no message for what was before it comes, however much was waiting."""
    for reset in (far.guest.virtio.reset, far.client.reset):
        for number in range(8):
            far.offer(blk.T_OUT, number, data=bytes(1 << 18), data_addr=DATA + number * (1 << 18))
        far.hold(lambda command, addr, count: addr >= DATA)
        reset()  # refused in the end (EBUSY), if it waits for messages of the server's own
        far.dma.release()
        asked = far.dma.asked
        far.client.fence()
        assert far.client.silent(0.1) and far.dma.asked == asked, "it goes on asking for what the reset made void"
        if reset == far.client.reset:
            far.guest.pci.set_command(pci.COMMAND_MEMORY | pci.COMMAND_MASTER)
            far.guest.connect_interrupts("msix", 1)
        far.guest.bring_up()
        far.assert_works()


def test_w08_queue_reset_waits_for_no_message(server, packed):
    far = FarGuest(server, packed=packed, features=virtio.F_VERSION_1 | virtio.F_RING_RESET | blk.F_FLUSH)
    for wanted in (lambda c, a, n: n == 2, lambda c, a, n: a >= DATA):
        far.offer(blk.T_IN, 4, length=4096, data_addr=DATA)
        far.hold(wanted)
        far.guest.reset_queue()
        far.dma.release()
        far.guest.enable_queue()
        far.assert_works()


@pytest.mark.parametrize("wrong", ["size", "address", "twice"])
def test_w08_wrong_reply_to_a_forgotten_question_drops_the_session(far, wrong):
    request = far.offer(blk.T_OUT, 4, data=bytes(4096))
    far.hold(lambda command, addr, count: addr == request.header)
    far.guest.virtio.reset()
    good = far.dma.held[0]
    far.client.send_bytes({"size": good[:4] + (len(good) - 1).to_bytes(4, "little") + good[8:-1],
                           "address": good[:16] + b"\xFF" + good[17:], "twice": good + good}[wrong])
    far.client.on_command = lambda message: None
    far.client.dropped()


def test_w08_good_reply_to_a_forgotten_question_is_taken(far):
    request = far.offer(blk.T_OUT, 4, data=bytes(4096))
    far.hold(lambda command, addr, count: addr == request.header)
    far.guest.virtio.reset()
    far.dma.release()
    far.client.fence()
    far.guest.bring_up()
    far.assert_works()


def test_w08_disconnect_with_questions_open_leaves_nothing(far, server):
    far.offer(blk.T_OUT, 4, data=bytes(1 << 18), data_addr=DATA)
    far.hold(lambda command, addr, count: addr >= DATA)
    far.guest.close()
    server.handed_out.remove(far.guest)
    server.assert_serves()


def test_w08_queues_on_other_threads_reach_it_and_outlast_resets_and_unmaps(serve, packed):
    """The second queue's transfers go from its thread to the first one's and back."""
    far = FarGuest(serve("ram:16M", "--queues=3", "--threads=2"), packed=packed, queues=3)
    for round in range(6):
        data = [os.urandom(20000 // 512 * 512) for _ in far.guest.queues]
        mark = far.space.mark()
        writes = [far.offer(blk.T_OUT, 100 * n, data=data[n], queue=n) for n in range(3)]
        assert [far.finish(request) for request in writes] == [blk.S_OK] * 3
        reads = [far.offer(blk.T_IN, 100 * n, length=len(data[n]), queue=n) for n in range(3)]
        far.hold(lambda command, addr, count: command == (Cmd.DMA_WRITE if round % 2 else Cmd.DMA_READ))
        if round < 3:
            far.guest.virtio.reset()
            far.dma.release()
            far.guest.bring_up()
        else:
            rings = far.rings
            far.unmap(rings)
            far.map(rings)
            far.dma.release()
            assert [far.finish(request) for request in reads] == [blk.S_OK] * 3
            assert [far.space.read(request.data, request.length) for request in reads] == data
        far.space.release(mark)


# --- what the kernel does --------------------------------------------------------------------------------------

def far_from(guest):
    """The stuck guest's second window is remote; its rings are shared."""
    far = FarGuest.__new__(FarGuest)
    far.guest, far.client, far.space = guest, guest.client, guest.space
    far.data = guest.add_memory(DATA, 1 << 20, remote=True)
    far.dma = DmaResponder(guest.client, guest.space)
    return far


def test_d06_unmap_waits_for_no_disk_that_works_in_memory_of_the_servers(stuck_guest, packed):
    """The same I/O holds an unmap up for 4 s when it is done in the guest's memory: test_d_unmap_busy.py."""
    owner, guest = stuck_guest(packed=packed)
    far = far_from(guest)
    request = far.offer(blk.T_IN, 4, length=4096, data_addr=DATA)
    assert far.client.silent(0.1), "the whole request is bounced, but its header is shared"
    rings = far.rings
    far.unmap(rings, far.data)
    far.client.dma_map(rings.iova, rings.size, fd=rings.memory.fd)
    far.space.windows.insert(0, rings)
    far.map(far.data)
    assert owner.stop() == 0
    assert far.finish(request) == blk.S_OK


def test_p06_many_small_commands_behind_one_that_waits_cost_no_more_than_their_number(serve, image):
    """125,000 are read while an unmap waits for the disk and a question of the server's for its answer."""
    owner, waiter = serve(image), serve(image)
    owner.guest().assert_works()
    guest = waiter.guest()
    far = far_from(guest)
    guest.add_memory(0x9000_0000, M)
    guest.submit(guest.prepare(blk.T_IN, 4, length=4096, data_addr=0x9000_0000))  # holds the unmap up
    assert far.client.silent(0.1)
    far.offer(blk.T_OUT, 4, data=bytes(4096), data_addr=DATA)
    far.hold(lambda command, addr, count: addr == DATA)
    far.client.send(Cmd.DMA_UNMAP, wire.dma_unmap(0x9000_0000, M))
    far.client.send_bytes(wire.pack(99, flags=wire.NO_REPLY, msg_id=0) * 125000)
    before = waiter.cpu_seconds()
    assert far.client.recv_any().errno == errno.EBUSY
    far.client.fence()
    assert waiter.cpu_seconds() - before < 0.6
    assert owner.stop() == 0


# --- limits ----------------------------------------------------------------------------------------------------

BOUNCE = 8 << 20        # SDC_LIMIT_BOUNCE
QUEUE_BOUNCE = 16 << 20  # SDC_LIMIT_QUEUE_BOUNCE


@pytest.fixture
def wide(serve, packed):
    server = serve("ram:64M")
    far = FarGuest(server, packed=packed, data=64 << 20)
    far.server = server
    return far


def test_p06_request_up_to_the_limit_of_a_bounce_works(wide):
    wide.assert_works(size=BOUNCE - 512, at=DATA)


@pytest.mark.parametrize("kind", [blk.T_IN, blk.T_OUT])
def test_p06_request_above_the_limit_of_a_bounce_fails_with_a_status(wide, kind):
    size = BOUNCE + 512
    request = wide.offer(kind, 0, data_addr=DATA, **({"length": size} if kind == blk.T_IN else {"data": bytes(size)}))
    assert wide.finish(request) == blk.S_IOERR
    moved = sum(count for addr, count in wide.dma.reads + wide.dma.writes if addr >= DATA)
    assert moved < 16, f"{moved} bytes of its data were moved all the same"
    wide.assert_works()


def test_p06_queue_takes_no_more_than_it_may_bounce_until_some_is_given_back(wide):
    size = 6 << 20
    requests = [wide.offer(blk.T_IN, 0, length=size, data_addr=DATA + number * size) for number in range(5)]
    wide.hold(lambda command, addr, count: addr >= DATA)

    def begun():
        return sum(any(addr == r.header for addr, _ in wide.dma.reads) for r in requests)
    wide.client.serve_commands(lambda: begun() == QUEUE_BOUNCE // size + 1)
    wide.client.serve_commands(lambda: False, 0.2)
    assert begun() == QUEUE_BOUNCE // size + 1, f"{begun()} requests of 6 MiB were begun at once"
    wide.dma.release()
    done = []
    wide.client.serve_commands(lambda: done.extend(wide.queue.take()) or len(done) == 5)
    assert sorted(head for head, _ in done) == sorted(r.head for r in requests)
    for request in requests:
        assert wide.space.read(request.status_addr, 1)[0] == blk.S_OK


def test_p06_memory_stays_bounded_when_nothing_is_answered_and_all_is_reset(wide):
    wide.assert_works(size=BOUNCE - 512, at=DATA)
    before = wide.server.resident_bytes()
    for _ in range(40):
        wide.offer(blk.T_OUT, 0, data=bytes(BOUNCE - 512), data_addr=DATA)
        wide.offer(blk.T_OUT, 0, data_addr=DATA, length=BOUNCE - 512)
        wide.dma.hold = lambda command, addr, count: addr >= DATA
        wide.client.serve_commands(lambda: wide.dma.held, 0.3)
        wide.guest.virtio.reset()
        wide.guest.bring_up()
    wide.server.assert_grew_less(before, 48 << 20)


def test_p05_long_tables_take_few_messages_in_whatever_order(far, packed):
    """A table of 2000 descriptors, walked forwards, and backwards where the format lets a driver choose."""
    count, size = 2000, 512
    data = os.urandom(count * size)
    for backwards in ((False,) if packed else (False, True)):
        def spread(request):
            parts = [Segment(request.header, 16)]
            parts += [Segment(DATA + i * size, size) for i in range(count)]
            return parts + [Segment(request.status_addr, 1, True)]
        far.space.write(DATA, data)
        request = far.guest.prepare(blk.T_OUT, 16, length=0)
        table = far.space.mark()
        far.guest.submit(request, spread(request), indirect=True, kick=False)
        if backwards:
            reverse_table(far, request)
        asked = len(far.dma.reads)
        far.guest.kick(posted=True)
        assert far.finish(request) == blk.S_OK
        tables = [at for at, _ in far.dma.reads[asked:] if table <= at < table + 16 * (count + 2) + 64]
        assert len(tables) <= 24, f"{len(tables)} messages for one table"
        request = far.offer(blk.T_IN, 16, length=count * size, data_addr=DATA)
        assert far.finish(request) == blk.S_OK
        assert far.space.read(DATA, count * size) == data


def reverse_table(far, request):
    """The same chain with its descriptors from the table's end to its beginning, but for the first."""
    addr, length, _, _ = far.queue.get_desc(request.head)
    number = length // 16
    table = [far.space.read(addr + 16 * i, 16) for i in range(number)]
    turned = [table[0]] + table[:0:-1]
    for i, desc in enumerate(turned):
        where = lambda n: 0 if n == 0 else number - n
        flags = int.from_bytes(desc[12:14], "little")
        following = int.from_bytes(desc[14:16], "little")
        if flags & 1:
            desc = desc[:14] + where(following).to_bytes(2, "little")
        far.space.write(addr + 16 * i, desc)


def test_r03_cycle_in_a_table_in_remote_memory_breaks_the_device(far, packed):
    if packed:
        pytest.skip("a packed ring's table has no NEXT")
    request = far.guest.prepare(blk.T_OUT, 16, data=bytes(512))
    far.guest.submit(request, indirect=True, kick=False)
    addr, _, _, _ = far.queue.get_desc(request.head)
    far.space.put_u16(addr + 16 + 14, 0)
    far.guest.kick(posted=True)
    assert far.client.serve_commands(lambda: far.guest.broken)
    far.guest.restart()
    far.assert_works()


def test_d03_buffer_in_many_pieces_of_memory_is_one_buffer(server, packed):
    """Each page a region of its own, none beside its neighbour in the file; then more of them than one system call takes."""
    pages = 1500
    guest = server.guest(packed=packed)
    memory = GuestMemory(2 * pages * 4096)
    guest.memories.append(memory)
    for page in range(pages):
        offset = 2 * (pages - 1 - page) * 4096
        guest.client.dma_map(DATA + page * 4096, 4096, fd=memory.fd, offset=offset)
    for count in (17, 64, pages):
        data = os.urandom(count * 4096)
        for page in range(count):
            memory.write(2 * (pages - 1 - page) * 4096, data[page * 4096:(page + 1) * 4096])
        for kind in (blk.T_OUT, blk.T_IN):
            request = guest.prepare(kind, 0, length=count * 4096, data_addr=DATA)
            guest.submit(request)
            done = guest.queue.wait(1)
            assert done and guest.space.read(request.status_addr, 1)[0] == blk.S_OK, f"{count} pieces"
            if kind == blk.T_OUT:
                memory.write(0, bytes(memory.size))
        assert all(memory.read(2 * (pages - 1 - page) * 4096, 4096) == data[page * 4096:(page + 1) * 4096]
                   for page in range(count))
        assert all(memory.read((2 * page + 1) * 4096, 4096) == bytes(4096) for page in range(pages)), "bytes between"
