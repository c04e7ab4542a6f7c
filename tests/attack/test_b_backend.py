# SPDX-License-Identifier: BSD-3-Clause
"""Rows B1, B3, B5, B7, B8, B9: what the disk behind the card does wrong. The program is the real one and its I/O goes to a real
file, over io_uring and over epoll; a library that is loaded before its own (pylib/faults.c) makes single I/Os fail, fall short, or
stay in the kernel until the test lets them go."""

import errno
import os
import resource
import signal
import time

import pytest

from pylib import blk, faults, virtio, wire
from pylib.events import PATIENCE, wait_until
from pylib.faults import ALLOCATE, FLUSH, READ, WRITE
from pylib.memory import GuestMemory
from pylib.ring import Segment
from pylib.vm import BASE, USUAL_FEATURES

M = 1 << 20
IMAGE = 8 * M
FEATURES_WITH_RESET = USUAL_FEATURES | virtio.F_RING_RESET


def pattern(sector):
    """What `image` holds there."""
    return sector.to_bytes(8, "little") * 64


@pytest.fixture
def disk(faulty_disk):
    return faulty_disk


@pytest.fixture
def start(serve, disk, loop_kind, image):
    """start(options) serves the image over this kind of loop, with the faulty disk under it."""
    def begin(*options):
        server = serve(image, f"--loop={loop_kind}", *options)
        assert disk.loaded, "the faulty disk is not under the program"
        return server
    return begin


# Each operation as a request, with what it asks of the file; the sectors differ from one to the next.
OPERATIONS = {
    "read": (READ, lambda guest: guest.do(blk.T_IN, 100, length=8192)),
    "write": (WRITE, lambda guest: guest.do(blk.T_OUT, 200, data=b"\xB1" * 8192)),
    "flush": (FLUSH, lambda guest: guest.do(blk.T_FLUSH)),
    "discard": (ALLOCATE, lambda guest: guest.do(blk.T_DISCARD, data=blk.discard_segment(300, 16))),
    "zeroes": (ALLOCATE, lambda guest: guest.do(blk.T_WRITE_ZEROES, data=blk.discard_segment(400, 16))),
    "unmapping zeroes": (ALLOCATE, lambda guest: guest.do(blk.T_WRITE_ZEROES,
                                                          data=blk.discard_segment(500, 16, blk.WZ_UNMAP))),
}


# --- B1: errors and short I/O -------------------------------------------------------------------------------

@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("name", sorted(set(OPERATIONS) - {"flush"}))  # whose errors are B5
def test_b01_error_of_the_disk_fails_the_request_and_only_it(start, disk, name, number):
    guest = start().guest()
    op, do = OPERATIONS[name]
    disk.fail(op, number)
    assert do(guest).status == blk.S_IOERR
    assert disk.hits(op) == 1
    assert do(guest).status == blk.S_OK
    guest.flush()
    assert not guest.broken


@pytest.mark.parametrize("number", [errno.EINTR, errno.EAGAIN])
@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_b01_operation_that_has_to_be_tried_again_is(start, disk, image, name, number):
    guest = start().guest()
    op, do = OPERATIONS[name]
    disk.fail(op, number, times=7)
    result = do(guest)
    assert result.status == blk.S_OK and disk.hits(op) == 7
    if name == "read":
        assert result.data == b"".join(pattern(100 + i) for i in range(16))
    content = image.read_bytes()
    assert (content[200 * 512:216 * 512] == b"\xB1" * 8192) is (name == "write")
    assert (content[400 * 512:416 * 512] == bytes(8192)) is (name == "zeroes")


def test_b01_disk_that_says_try_again_for_ever_fails_the_request(start, disk):
    guest = start().guest()
    disk.fail(READ, errno.EAGAIN, times=faults.FOREVER)
    assert guest.do(blk.T_IN, 0, length=512).status == blk.S_IOERR
    assert disk.hits(READ) < 10000
    disk.clear(READ)
    guest.assert_works()


@pytest.mark.parametrize("options, most", [((), 1), ((), 700), ((), 5000), (("--direct",), 512)])
def test_b01_short_reads_are_continued_to_the_last_byte(start, disk, options, most):
    guest = start(*options).guest()
    disk.shorten(READ, most, times=faults.FOREVER)
    length = 4 * 512 if most == 1 else 40 * 512
    request = guest.prepare(blk.T_IN, 1000, length=length + 64)
    # Three buffers, and the short ends lie inside of them.
    at, parts = request.data, [length // 4, length // 2, length // 4]
    segments = [Segment(request.header, 16)]
    for part in parts:
        segments.append(Segment(at, part, True))
        at += part
    guest.submit(request, [*segments, Segment(request.status_addr, 1, True)])
    result = guest.finish(request)
    assert result.status == blk.S_OK and result.used == length + 1
    assert result.data == b"".join(pattern(1000 + i) for i in range(length // 512)) + b"\xA5" * 64
    assert disk.hits(READ) >= length // most


@pytest.mark.parametrize("options, most", [((), 1), ((), 700), ((), 5000), (("--direct",), 512), (("--write-cache=off",), 300)])
def test_b01_short_writes_are_continued_to_the_last_byte(start, disk, image, options, most):
    guest = start(*options).guest()
    disk.shorten(WRITE, most, times=faults.FOREVER)
    data = os.urandom(4 * 512 if most == 1 else 40 * 512)
    guest.write(1000, data)
    assert disk.hits(WRITE) >= len(data) // most
    content = image.read_bytes()
    assert content[1000 * 512:1000 * 512 + len(data)] == data
    assert content[999 * 512:1000 * 512] == pattern(999)
    after = 1000 + len(data) // 512
    assert content[after * 512:(after + 1) * 512] == pattern(after)


@pytest.mark.parametrize("op, request_type", [(READ, blk.T_IN), (WRITE, blk.T_OUT)])
def test_b01_error_behind_a_short_transfer_fails_the_whole_request(start, disk, op, request_type):
    guest = start().guest()
    disk.fail(op, errno.EIO, then=True)
    disk.shorten(op, 4096)
    assert guest.do(request_type, 64, data=b"\x11" * 16384).status == blk.S_IOERR
    assert disk.hits(op) == 2
    guest.assert_works()


@pytest.mark.parametrize("op, kind_of_request, data", [(READ, blk.T_IN, b""), (WRITE, blk.T_OUT, b"\x22" * 4096)])
def test_b01_disk_that_moves_nothing_fails_the_request(start, disk, op, kind_of_request, data):
    """Zero bytes, and no error: there is no end of the file there."""
    guest = start().guest()
    disk.shorten(op, 0, times=faults.FOREVER)
    assert guest.do(kind_of_request, 10, data=data, length=4096).status == blk.S_IOERR
    disk.clear(op)
    guest.assert_works()


def test_b01_full_file_system_fails_writes_and_heals_when_there_is_room(serve, loop_kind, tmp_path):
    """No fault library: a sparse image on a small tmpfs that something else fills up."""
    mount = tmp_path / "small"
    mount.mkdir()
    if os.geteuid() != 0 or os.system(f"mount -t tmpfs -o size=1M none {mount} 2>/dev/null") != 0:
        pytest.skip("mounting a small file system takes root")
    try:
        path = mount / "disk"
        path.touch()
        os.truncate(path, IMAGE)
        filler = mount / "filler"
        server = serve(path, f"--loop={loop_kind}")
        guest = server.guest(memory=8 * M)
        filler.write_bytes(bytes(1 << 19))
        assert guest.do(blk.T_OUT, 0, data=b"\x01" * M).status == blk.S_IOERR
        assert guest.read(0, 1) in (b"\x01" * 512, bytes(512))
        filler.unlink()
        guest.write(0, b"\x02" * (M // 2))
        assert guest.read(M // 1024 - 1, 1) == b"\x02" * 512
        guest.close()
        server.finish()
    finally:
        os.system(f"umount -l {mount}")


def test_b01_image_cut_off_under_the_server_fails_what_is_gone(serve, loop_kind, image):
    server = serve(image, f"--loop={loop_kind}")
    guest = server.guest()
    os.truncate(image, M)
    assert guest.do(blk.T_IN, 4 * M // 512, length=4096).status == blk.S_IOERR
    assert guest.do(blk.T_IN, M // 512 - 4, length=4096).status == blk.S_IOERR
    assert guest.read(8, 1) == pattern(8)
    os.truncate(image, IMAGE)


def test_b01_limit_of_the_file_size_fails_the_write_and_does_not_kill_the_server(serve, loop_kind, image):
    """RLIMIT_FSIZE: the kernel answers EFBIG and sends SIGXFSZ, whose default is the end of the process."""
    server = serve(image, f"--loop={loop_kind}")
    guest = server.guest()
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (M, resource.RLIM_INFINITY))
    assert guest.do(blk.T_OUT, 4 * M // 512, data=b"\x05" * 4096).status == blk.S_IOERR
    server.assert_alive()
    guest.write(0, b"\x06" * 4096)
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    guest.write(4 * M // 512, b"\x07" * 4096)


@pytest.mark.parametrize("op, request_type", [(READ, blk.T_IN), (WRITE, blk.T_OUT)])
def test_b01_one_of_several_requests_that_went_as_one_io_fails_alone(start, disk, op, request_type):
    guest = start().guest()
    disk.fail(op, errno.EIO, times=2)  # all of them together, then one
    requests = [guest.prepare(request_type, 8 * i, length=4096) if op == READ else
                guest.prepare(request_type, 8 * i, data=bytes([i + 1]) * 4096) for i in range(8)]
    for request in requests:
        guest.submit(request, kick=False)
    guest.kick()
    assert len(guest.queue.wait(8)) == 8
    good = [i for i, request in enumerate(requests) if guest.result(request, 0).status == blk.S_OK]
    assert len(good) == 7
    assert disk.hits(op) == 2
    for i in good:
        assert guest.read(8 * i, 1) == (pattern(8 * i) if op == READ else bytes([i + 1]) * 512)


# --- B3: completions that come late, or when nobody waits any more ------------------------------------------

# What the guest gives up while its I/O is in the kernel: how it asks, and how it sees that it is done.
GIVE_UPS = {
    "queue reset": (lambda guest: (guest.virtio.set("queue_select", 0), guest.virtio.set("queue_reset", 1)),
                    lambda guest: guest.virtio.get("queue_reset") == 0),
    "device reset": (lambda guest: guest.virtio.set("device_status", 0),
                     lambda guest: guest.virtio.get("device_status") == 0),
}


@pytest.mark.parametrize("merged", [False, True], ids=["apart", "merged"])
@pytest.mark.parametrize("name", sorted(GIVE_UPS))
def test_b03_completion_after_the_request_was_given_up_is_waited_for_and_told_to_nobody_twice(start, disk, loop_kind, name, merged):
    """Given up it is not cancelled: the kernel may write into the guest's buffer until it ends, so the reset is over then."""
    guest = start().guest(features=FEATURES_WITH_RESET)
    ask, is_over = GIVE_UPS[name]
    disk.hold(READ)
    requests = list(fill(guest, 0, 8, length=4096, apart=1 if merged else 2).values())
    guest.kick()
    in_kernel = 1 if merged else 8 if loop_kind == "io_uring" else 4  # a thread each
    assert wait_until(lambda: disk.hits(READ) == in_kernel)
    ask(guest)
    assert not wait_until(lambda: is_over(guest), 0.3), "the reset is over while the kernel has I/O of the queue"
    disk.open_gate()
    assert wait_until(lambda: is_over(guest))
    # Each of them was done at most once, before the reset was over, and nothing comes after it.
    heads = [head for head, _ in guest.queue.take()]
    assert len(heads) == len(set(heads)) and set(heads) <= {request.head for request in requests}
    before = guest.space.windows[0].memory.read(0, 4 * M)
    time.sleep(0.05)
    assert guest.space.windows[0].memory.read(0, 4 * M) == before
    if name == "queue reset":
        guest.enable_queue()
    else:
        guest.bring_up()
    guest.assert_works()


def test_b03_completion_that_comes_late_is_the_right_requests(start, disk):
    """One I/O is held while hundreds of others begin and end, so that whatever is reused has been."""
    guest = start().guest()
    disk.hold(READ, times=1)
    late = guest.submit(guest.prepare(blk.T_IN, 77, length=512))
    assert wait_until(lambda: disk.hits(READ) == 1)
    for turn in range(200):
        assert guest.read(turn, 1) == pattern(turn)
    disk.open_gate()
    result = guest.finish(late)
    assert result.status == blk.S_OK and result.data == pattern(77)


def test_b03_error_that_comes_late_is_the_right_requests(start, disk):
    guest = start().guest()
    disk.hold(WRITE, times=1)
    late = guest.submit(guest.prepare(blk.T_OUT, 77, data=b"\x77" * 512))
    assert wait_until(lambda: disk.hits(WRITE) == 1)
    disk.fail(READ, errno.EIO, times=3)
    for _ in range(3):
        assert guest.do(blk.T_IN, 5, length=512).status == blk.S_IOERR
    assert guest.read(77, 1) == pattern(77)
    disk.open_gate()
    assert guest.finish(late).status == blk.S_OK
    assert guest.read(77, 1) == b"\x77" * 512


# --- B5: a flush that failed --------------------------------------------------------------------------------

@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_b05_flush_that_failed_once_fails_writes_and_flushes_until_the_image_is_opened_again(start, serve, disk, loop_kind, image,
                                                                                             number):
    """The kernel reports a lost page once; the next fsync would succeed without it."""
    server = start()
    server.check_service = False  # it serves reads only, from here on
    guest = server.guest()
    guest.write(3, b"\x03" * 512)
    disk.fail(FLUSH, number)
    assert guest.do(blk.T_FLUSH).status == blk.S_IOERR

    def stays_failed(guest):
        assert guest.do(blk.T_FLUSH).status == blk.S_IOERR
        assert guest.do(blk.T_OUT, 4, data=b"\x04" * 512).status == blk.S_IOERR
        assert guest.discard(0, 8) == blk.S_IOERR
        assert guest.discard(0, 8, blk.T_WRITE_ZEROES) == blk.S_IOERR
        assert guest.read(3, 1) == b"\x03" * 512
        assert guest.read(4, 1) == pattern(4)
    stays_failed(guest)
    guest.restart()
    stays_failed(guest)
    guest.close()
    stays_failed(server.guest())
    assert disk.hits(FLUSH) == 1, "nobody asks a disk that has lost data to flush again"
    assert server.stderr().count("a flush failed") == 1
    server.close_clients()
    assert server.stop() == 0
    again = serve(image, f"--loop={loop_kind}").guest()
    again.write(4, b"\x04" * 512)
    again.flush()


def test_b05_durable_write_that_failed_fails_the_disk_too(start, disk):
    server = start("--write-cache=off")
    server.check_service = False
    guest = server.guest()
    disk.fail(WRITE, errno.EIO)
    assert guest.do(blk.T_OUT, 4, data=b"\x04" * 512).status == blk.S_IOERR
    assert guest.do(blk.T_OUT, 4, data=b"\x04" * 512).status == blk.S_IOERR
    assert guest.read(5, 1) == pattern(5)
    assert disk.hits(WRITE) == 1


def test_b05_other_queues_and_threads_see_the_failed_flush(start, disk):
    server = start("--queues=4", "--threads=2")
    server.check_service = False
    guest = server.guest(queues=4)
    guest.reuse = False
    disk.fail(FLUSH, errno.EIO)
    assert guest.do(blk.T_FLUSH, queue=3).status == blk.S_IOERR
    for queue in range(4):
        assert guest.do(blk.T_OUT, 4, data=b"\x04" * 512, queue=queue).status == blk.S_IOERR
        assert guest.read(5, 1, queue=queue) == pattern(5)


# --- B7: io_uring itself ------------------------------------------------------------------------------------

ABOUT_IO_URING = pytest.mark.parametrize("loop_kind", ["io_uring"], indirect=True)


def fill(guest, queue, count, length=512, apart=2):
    """Offers so many reads in one go; {head: request}. None is behind another on the disk, so that each is an I/O; with apart=1
    each is, and they are merged."""
    requests = {}
    for i in range(count):
        request = guest.prepare(blk.T_IN, apart * i * (length // 512) % (IMAGE // 512 - 64), length=length, queue=queue)
        guest.submit(request, kick=False, indirect=True)
        requests[request.head] = request
    return requests


def all_come_back_once(guest, requests, timeout=PATIENCE):
    """requests: {queue: {head: request}}."""
    for queue, of_queue in requests.items():
        done = guest.queues[queue].wait(len(of_queue), timeout)
        assert len(done) == len(of_queue), f"{len(done)} of {len(of_queue)} requests of queue {queue} came back"
        assert {head for head, _ in done} == set(of_queue), "a request came back twice"
        for request in of_queue.values():
            result = guest.result(request, 0)
            assert result.status == blk.S_OK
            assert result.data[:512] == pattern(request.sector)
        assert not guest.queues[queue].wait(1, 0.02), "more came back than was offered"


def test_b07_more_requests_than_the_submission_queue_has_room_for_end_each_once(start):
    """1,024 in one turn; the ring of each loop has 256 places."""
    guest = start("--queue-size=1024").guest(queue_size=1024, memory=16 * M)
    requests = {0: fill(guest, 0, 1024)}
    guest.kick()
    all_come_back_once(guest, requests)


@ABOUT_IO_URING
def test_b07_more_completions_than_the_completion_queue_has_room_for_are_not_lost(start, disk):
    """5,120 cached reads in one turn, which end as they are handed over. The ring has 4,096 places, the kernel keeps the rest."""
    guest = start("--queues=20", "--queue-size=256").guest(queues=20, queue_size=256, memory=32 * M)
    requests = {queue: fill(guest, queue, 256) for queue in range(20)}
    where = guest.virtio.structures[virtio.CFG_NOTIFY]
    kicks = [wire.region_write(where.bar, where.offset + guest.virtio.notify_offsets[queue] * where.multiplier,
                               queue.to_bytes(2, "little")) for queue in range(20)]
    guest.client.send_bytes(b"".join(wire.pack(wire.Cmd.REGION_WRITE, kick, flags=wire.NO_REPLY) for kick in kicks))
    all_come_back_once(guest, requests)
    if disk.instrumented and not disk.overflows:
        pytest.skip("the instrumented server was too slow for the kernel to have more than room")
    assert disk.overflows, "all of them had room in the ring: this test has tested nothing"
    guest.assert_works()


@ABOUT_IO_URING
def test_b07_thousands_of_requests_that_end_at_the_same_moment_end_each_once(start, disk):
    guest = start("--queues=6", "--queue-size=1024").guest(queues=6, queue_size=1024, memory=32 * M)
    disk.hold(READ)
    requests = {queue: fill(guest, queue, 1024) for queue in range(6)}
    for queue in range(6):
        guest.kick(queue, posted=True)
    assert wait_until(lambda: disk.hits(READ) == 6144), f"{disk.hits(READ)} I/Os are in the kernel"
    disk.open_gate()
    all_come_back_once(guest, requests)
    guest.assert_works()


@ABOUT_IO_URING
@pytest.mark.parametrize("number", [errno.ENOMEM, errno.EAGAIN, errno.EBUSY, errno.EINTR])
def test_b07_kernel_without_memory_for_a_submission_is_asked_again(start, disk, number):
    guest = start("--queue-size=1024").guest(queue_size=1024, memory=16 * M)
    requests = {0: fill(guest, 0, 1024)}
    disk.refuse_submissions(number, 20)
    guest.kick()
    all_come_back_once(guest, requests)
    assert disk.refused_submissions == 20
    guest.assert_works()


def test_b07_cancel_that_races_with_the_event_ends_each_watch_once(start):
    """Sessions come and go with input on the way: each is a watch that is cancelled while its event may be there already."""
    server = start()
    for turn in range(150):
        client = server.connect()
        client.send_bytes(wire.pack(wire.Cmd.VERSION, wire.version(wire.OUR_CAPS), msg_id=turn))
        if turn % 3:
            client.send_bytes(wire.pack(wire.Cmd.GET_INFO, wire.device_info()) * (turn % 7))
        if turn % 2:
            client.recv()
        client.close()
    server.guest().assert_works()


def test_b07_reset_races_with_completions_and_no_request_ends_twice(start):
    guest = start("--queue-size=256").guest(queue_size=256, memory=16 * M)
    for turn in range(25):
        mark = guest.space.mark()
        fill(guest, 0, 64 + turn, length=4096, apart=1 + turn % 2)
        guest.kick(posted=True)
        guest.virtio.reset()
        used = guest.queue.used_idx()
        assert used <= 64 + turn
        time.sleep(0.001)
        assert guest.queue.used_idx() == used, "a request came back after the reset"
        guest.space.release(mark)
        guest.bring_up()
    guest.assert_works()


# --- B8: the end, while I/O is in the kernel ----------------------------------------------------------------

def hold_reads(guest, disk, count=4, data_addr=None, merged=False):
    """So many reads, as one I/O or each by itself."""
    disk.hold(READ)
    for i in range(count):
        where = {} if data_addr is None else {"data_addr": data_addr + 4096 * i}
        guest.submit(guest.prepare(blk.T_IN, (8 if merged else 16) * i, length=4096, **where), kick=False)
    guest.kick()
    assert wait_until(lambda: disk.hits(READ) == (1 if merged else count))


@pytest.mark.parametrize("merged", [False, True], ids=["apart", "merged"])
def test_b08_unmap_with_io_in_the_kernel_is_busy_until_it_ends(start, disk, merged):
    guest = start().guest()
    window = guest.add_memory(BASE + (1 << 30), M)
    hold_reads(guest, disk, data_addr=window.iova, merged=merged)
    guest.client.refused(wire.Cmd.DMA_UNMAP, wire.dma_unmap(window.iova, window.size), errnos=[errno.EBUSY])
    disk.open_gate()
    assert len(guest.queue.wait(4)) == 4
    assert window.memory.read(0, 512) == pattern(0)
    guest.remove_memory(window)
    window.memory.write(0, bytes(M))
    guest.assert_works()
    assert not any(window.memory.read(0, M)), "written after the unmap"


def test_b08_session_that_ends_with_io_in_the_kernel_keeps_its_memory_until_that_has_ended(start, disk):
    """The next client is let in when the device is as new; until then it waits, and is not refused."""
    server = start()
    guest = server.guest()
    memory = guest.memories[0]
    keep = GuestMemory(memory.size, seal=None, fd=os.dup(memory.fd))
    hold_reads(guest, disk)
    guest.close()
    mapped = f"/proc/{server.pid}/maps"
    time.sleep(0.2)
    with open(mapped, encoding="utf-8") as maps:
        assert "memfd:guest-memory" in maps.read(), "the kernel may still write there"
    disk.open_gate()

    def is_gone():
        with open(mapped, encoding="utf-8") as maps:
            return "memfd:guest-memory" not in maps.read()
    assert wait_until(is_gone)
    before = keep.read(0, keep.size)
    server.guest().assert_works()
    assert keep.read(0, keep.size) == before
    keep.close()


def test_b08_next_client_waits_for_io_in_the_kernel_and_is_served_then(start, disk):
    server = start()
    guest = server.guest()
    hold_reads(guest, disk)
    guest.close()
    client = server.connect()
    msg_id = client.send(wire.Cmd.VERSION, wire.version(wire.OUR_CAPS))
    assert client.silent(0.3)
    disk.open_gate()
    assert not client.reply_to(msg_id).is_error


@pytest.mark.parametrize("options", [(), ("--threads=2", "--queues=2"), ("--direct",)])
def test_b08_server_that_is_told_to_end_waits_for_io_in_the_kernel(start, disk, options):
    server = start(*options)
    guest = server.guest(queues=2 if "--queues=2" in options else 1)
    hold_reads(guest, disk)
    server.signal(signal.SIGTERM)
    time.sleep(0.3)
    assert server.alive, "it ended, and the kernel still writes into the guest's memory"
    disk.open_gate()
    assert server.process.wait(PATIENCE) == 0
    server.exit_status = 0


def test_b08_killed_server_takes_its_io_with_it_and_the_next_one_finds_the_image_free(start, serve, disk, loop_kind, image):
    server = start()
    server.may_die_by = (signal.SIGKILL,)
    guest = server.guest()
    hold_reads(guest, disk)
    server.kill()
    disk.open_gate()
    serve(image, f"--loop={loop_kind}").guest().assert_works()


# --- B9: what the kernel does not take ----------------------------------------------------------------------

def test_b09_misaligned_buffers_are_bounced_for_direct_io(start, disk, image):
    """Buffers at odd addresses and of odd lengths, more of them at a time than there are bounce buffers."""
    guest = start("--direct", "--queue-size=256").guest(queue_size=256, memory=16 * M)
    data = os.urandom(9 * 512)
    requests = []
    for i in range(40):
        request = guest.prepare(blk.T_OUT, 64 * i, data=data, data_addr=guest.space.alloc(8192, 512) + 1 + i)
        guest.space.write(request.data, data)
        cut = 1 + 97 * i % (len(data) - 2)
        guest.submit(request, [Segment(request.header, 16), Segment(request.data, cut),
                               Segment(request.data + cut, len(data) - cut), Segment(request.status_addr, 1, True)], kick=False)
        requests.append(request)
    guest.kick()
    assert len(guest.queue.wait(40)) == 40
    assert all(guest.space.read(request.status_addr, 1) == b"\0" for request in requests)
    content = image.read_bytes()
    for i in range(40):
        assert content[64 * i * 512:64 * i * 512 + len(data)] == data
        assert content[(64 * i + 9) * 512:(64 * i + 10) * 512] == pattern(64 * i + 9)
    assert guest.read(64 * 39, 9) == data


@pytest.mark.parametrize("options", [(), ("--direct",)])
@pytest.mark.parametrize("request_type", [blk.T_IN, blk.T_OUT])
def test_b09_memory_that_goes_away_under_the_io_fails_the_request(start, options, request_type):
    """The guest's file is cut off: the kernel meets pages that are not there (EFAULT) half-way through the transfer."""
    guest = start(*options).guest()
    window = guest.add_memory(BASE + (1 << 30), M, seal=None)
    os.ftruncate(window.memory.fd, M // 2)
    request = guest.prepare(request_type, 64)
    guest.submit(request, [Segment(request.header, 16), Segment(window.iova + M // 2 - 8192, 16384, request_type == blk.T_IN),
                           Segment(request.status_addr, 1, True)])
    assert guest.finish(request).status == blk.S_IOERR
    guest.submit(guest.prepare(request_type, 64, length=4096, data_addr=window.iova))
    assert len(guest.queue.wait(1)) == 1, "what is still there works"
    guest.remove_memory(window)
    guest.assert_works()


@pytest.mark.parametrize("request_type, op", [(blk.T_IN, READ), (blk.T_OUT, WRITE)])
def test_b09_fault_of_the_kernel_half_way_fails_the_request(start, disk, request_type, op):
    guest = start().guest()
    disk.fail(op, errno.EFAULT, then=True)
    disk.shorten(op, 1000)
    assert guest.do(request_type, 32, data=b"\x42" * 8192).status == blk.S_IOERR
    assert disk.hits(op) == 2
    guest.assert_works()
