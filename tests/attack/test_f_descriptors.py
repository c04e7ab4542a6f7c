# SPDX-License-Identifier: BSD-3-Clause
"""Rows F1 to F10: file descriptors that are too many, of the wrong kind, or that change under the server."""

import errno
import fcntl
import mmap
import os
import select
import signal
import socket
import time

import pytest

from pylib import blk, wire
from pylib.client import Client, Closed, NoReply
from pylib.events import Canary, EventFd, wait_until
from pylib.memory import GuestMemory
from pylib.ring import Segment
from pylib.wire import Cmd

SIZE = 0x10000
ADDR = 0x2000_0000
TRIGGER = wire.DATA_EVENTFD | wire.ACTION_TRIGGER


@pytest.fixture
def canaries():
    """canaries(n): pipes of which the write ends are lent; all must be closed by the server at the end."""
    made = []

    def make(count):
        fresh = [Canary() for _ in range(count)]
        made.extend(fresh)
        return fresh
    yield make
    try:
        for canary in made:
            assert canary.returned(), "an fd that came with a refused message is still open in the server"
    finally:
        for canary in made:
            canary.close()


@pytest.fixture
def memory():
    with GuestMemory(SIZE) as memory:
        yield memory


# --- F1, F4 -------------------------------------------------------------------------------------------------

NO_FD_COMMANDS = {name: sample for name, sample in wire.well_formed().items()
                  if name not in ("dma_map", "dma_unmap", "set_irqs")}
NO_FD_COMMANDS["reset"] = (Cmd.RESET, b"")
NO_FD_COMMANDS["unknown"] = (99, b"")


@pytest.mark.parametrize("count", [1, 3, 16])
@pytest.mark.parametrize("name", sorted(NO_FD_COMMANDS))
def test_f01_fds_with_a_command_that_takes_none_are_closed_and_it_is_refused(client, canaries, name, count):
    lent = canaries(count)
    client.refused(*NO_FD_COMMANDS[name], fds=[canary.lent for canary in lent])
    client.fence()


@pytest.mark.parametrize("count", [2, 16])
def test_f01_dma_map_with_more_than_one_fd_is_refused(client, memory, canaries, count):
    extra = canaries(count - 1)
    client.refused(Cmd.DMA_MAP, wire.dma_map(ADDR, SIZE), fds=[memory.fd, *(canary.lent for canary in extra)])
    client.dma_map(ADDR, SIZE, fd=memory.fd)


@pytest.mark.parametrize("count", [2, 16])
def test_f01_set_irqs_with_more_fds_than_its_count_is_refused(client, canaries, count):
    extra = canaries(count - 1)
    with EventFd() as event:
        client.refused(Cmd.SET_IRQS, wire.set_irqs(wire.IRQ_MSIX, TRIGGER, 0, 1),
                       fds=[event.fd, *(canary.lent for canary in extra)])
    client.fence()


def test_f01_set_irqs_without_eventfd_data_takes_no_fd(client, canaries):
    lent = canaries(1)
    client.refused(Cmd.SET_IRQS, wire.set_irqs(wire.IRQ_MSIX, wire.DATA_NONE | wire.ACTION_TRIGGER, 0, 1),
                   fds=[lent[0].lent])


def test_f01_version_with_an_fd_is_refused(server, canaries):
    client = server.connect()
    client.refused(Cmd.VERSION, wire.version(wire.OUR_CAPS), fds=[canaries(1)[0].lent])


@pytest.mark.parametrize("count", [17, 64, 253])
def test_f01_more_fds_than_any_message_may_have_are_closed(server, canaries, count):
    client = server.client()
    lent = canaries(count)
    client.send(Cmd.DMA_MAP, wire.dma_map(ADDR, SIZE), fds=[canary.lent for canary in lent])
    try:
        client.check_refusal(client.recv())
        client.fence()
    except Closed as closed:
        assert closed.clean
    for canary in lent:
        assert canary.returned()


@pytest.mark.parametrize("position", ["first", "second"])
def test_f01_fds_with_each_of_two_pipelined_messages_belong_to_their_own(client, memory, canaries, position):
    """One read may hold both messages: fds of one must not be taken for the other's."""
    lent = canaries(1)[0].lent
    good = wire.pack(Cmd.DMA_MAP, wire.dma_map(ADDR, SIZE), msg_id=1)
    bad = wire.pack(Cmd.GET_INFO, wire.device_info(), msg_id=2)
    if position == "first":
        client.send_bytes(good, fds=[memory.fd])
        client.send_bytes(bad, fds=[lent])
    else:
        client.send_bytes(bad, fds=[lent])
        client.send_bytes(good, fds=[memory.fd])
    assert not client.reply_to(1).is_error
    client.check_refusal(client.reply_to(2))
    client.fence()


def test_f04_set_irqs_with_eventfd_data_and_fewer_fds_than_its_count_is_refused(serve):
    client = serve("ram:16M", "--queues=4").client()
    with EventFd() as event:
        for count, fds in ((2, 1), (5, 3), (5, 4)):
            client.refused(Cmd.SET_IRQS, wire.set_irqs(wire.IRQ_MSIX, TRIGGER, 0, count), fds=[event.fd] * fds,
                           errnos=(errno.EINVAL,))
    client.fence()


def test_f04_no_fd_with_eventfd_data_takes_the_eventfds_away(guest):
    """Zero fds are 'de-assign', as in VFIO; nothing is signalled afterwards."""
    event = guest.queue_events[0]
    guest.client.call(Cmd.SET_IRQS, wire.set_irqs(wire.IRQ_MSIX, TRIGGER, 1, 1))
    guest.read(0, 1)
    assert not event.wait(0.05)
    guest.client.set_irq_eventfds(wire.IRQ_MSIX, [event], start=1)
    guest.read(0, 1)
    assert event.wait()


@pytest.mark.parametrize("flags", [wire.MAP_RW | wire.MAP_MMAP, wire.MAP_RW | wire.MAP_FILE_IO,
                                   wire.MAP_RW | wire.MAP_MMAP | wire.MAP_FILE_IO])
def test_f04_dma_map_that_announces_a_file_and_has_none_is_refused(client, flags):
    client.refused(Cmd.DMA_MAP, wire.dma_map(ADDR, SIZE, flags=flags))
    client.fence()


def test_f04_dma_map_with_file_io_only_is_answered_not_supported(client, memory):
    client.refused(Cmd.DMA_MAP, wire.dma_map(ADDR, SIZE, flags=wire.MAP_RW | wire.MAP_FILE_IO), fds=[memory.fd],
                   errnos=(errno.ENOTSUP,))


def test_f04_dma_unmap_with_an_fd_is_accepted_and_the_fd_closed(client, memory, canaries):
    """SPDK's client does so."""
    client.dma_map(ADDR, SIZE, fd=memory.fd)
    payload = client.call(Cmd.DMA_UNMAP, wire.dma_unmap(ADDR, SIZE), fds=[canaries(1)[0].lent])
    assert len(payload) == 24


# --- F2, F3 -------------------------------------------------------------------------------------------------

def test_f02_fds_of_a_message_that_is_never_finished_are_closed(server, canaries):
    lent = canaries(3)
    client = server.client()
    raw = wire.pack(Cmd.DMA_MAP, wire.dma_map(ADDR, SIZE))
    client.send_bytes(raw[:20], fds=[canary.lent for canary in lent])
    time.sleep(0.02)
    client.close()


def test_f02_fds_that_come_in_several_pieces_of_one_message_are_all_counted(server, canaries):
    """Five fds with each of five pieces are 25, and more than 16."""
    client = server.client()
    raw = wire.pack(Cmd.DMA_MAP, wire.dma_map(ADDR, SIZE))
    lent = canaries(25)
    pieces = [raw[0:4], raw[4:16], raw[16:20], raw[20:40], raw[40:]]
    for i, piece in enumerate(pieces):
        client.send_bytes(piece, fds=[canary.lent for canary in lent[5 * i:5 * i + 5]])
        time.sleep(0.005)
    try:
        client.check_refusal(client.recv())
    except Closed:
        pass
    for canary in lent:
        assert canary.returned()


def test_f02_fds_with_a_header_of_a_bad_size_are_closed_by_the_drop(server, canaries):
    client = server.client()
    client.send_bytes(wire.pack(Cmd.DMA_MAP, size=5), fds=[canary.lent for canary in canaries(4)])
    client.dropped()


@pytest.mark.parametrize("blocks", [(1, 1), (2, 3), (8, 8), (1, 1, 1, 1)])
def test_f03_several_rights_blocks_in_one_message_are_all_counted_and_closed(client, canaries, blocks):
    lists = [[canary.lent for canary in canaries(count)] for count in blocks]
    msg_id = client.fresh_id()
    raw = wire.pack(Cmd.GET_INFO, wire.device_info(), msg_id=msg_id)
    client.send_bytes(raw, blocks=lists)
    client.check_refusal(client.reply_to(msg_id))
    client.fence()


def test_f03_two_blocks_of_one_eventfd_each_are_two_eventfds(client):
    with EventFd() as one, EventFd() as two:
        msg_id = client.fresh_id()
        raw = wire.pack(Cmd.SET_IRQS, wire.set_irqs(wire.IRQ_MSIX, TRIGGER, 0, 2), msg_id=msg_id)
        client.send_bytes(raw, blocks=[[one.fd], [two.fd]])
        assert not client.reply_to(msg_id).is_error


# --- F5 -----------------------------------------------------------------------------------------------------

def not_memory(kind, workdir):
    """An fd that is no guest memory, and what else has to be closed."""
    if kind == "pipe":
        read, write = os.pipe()
        return read, [write]
    if kind == "socket":
        one, two = socket.socketpair()
        return one.detach(), [two.detach()]
    if kind == "directory":
        return os.open(workdir.path, os.O_RDONLY | os.O_DIRECTORY), []
    if kind == "O_PATH":
        with GuestMemory(SIZE) as memory:
            return os.open(f"/proc/self/fd/{memory.fd}", os.O_PATH), []
    if kind == "eventfd":
        return os.eventfd(0), []
    if kind == "null device":
        return os.open("/dev/null", os.O_RDWR), []
    if kind == "zero device":
        return os.open("/dev/zero", os.O_RDWR), []
    if kind == "proc file":
        return os.open("/proc/self/mem", os.O_RDWR), []
    if kind == "epoll":
        with select.epoll() as poller:
            return os.dup(poller.fileno()), []
    raise ValueError(kind)


@pytest.mark.parametrize("kind", ["pipe", "socket", "directory", "O_PATH", "eventfd", "null device", "zero device",
                                  "proc file", "epoll"])
@pytest.mark.parametrize("option", [None, "--allow-file-memory"])
def test_f05_fd_that_is_no_memory_is_refused(serve, workdir, kind, option):
    client = serve("ram:16M", *([option] if option else [])).client()
    fd, others = not_memory(kind, workdir)
    try:
        client.refused(Cmd.DMA_MAP, wire.dma_map(ADDR, 4096), fds=[fd])
        client.fence()
    finally:
        for each in (fd, *others):
            os.close(each)


def file_system_of(path):
    """The type of the file system under path, by the longest mount point."""
    best = ("", "")
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        for line in mounts:
            _, point, kind = line.split()[:3]
            if (str(path) + "/").startswith(point.rstrip("/") + "/") and len(point) >= len(best[0]):
                best = (point, kind)
    return best[1]


@pytest.fixture
def plain_file():
    """A file that isn't on tmpfs, and so can be truncated under its user."""
    for folder in ("/var/tmp", os.path.dirname(__file__)):
        if file_system_of(folder) not in ("tmpfs", "ramfs", "devtmpfs", "hugetlbfs"):
            path = os.path.join(folder, f"sdc-plain-{os.getpid()}")
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            os.unlink(path)
            os.ftruncate(fd, SIZE)
            yield fd
            os.close(fd)
            return
    pytest.skip("every folder here is on tmpfs")


def test_f05_plain_file_as_memory_is_refused(client, plain_file):
    client.refused(Cmd.DMA_MAP, wire.dma_map(ADDR, SIZE), fds=[plain_file])


def test_f05_plain_file_as_memory_is_accepted_when_it_is_allowed(serve, plain_file):
    guest = serve("ram:16M", "--allow-file-memory").guest()
    guest.client.dma_map(ADDR, SIZE, fd=plain_file)
    os.pwrite(plain_file, b"\x3C" * 512, 4096)
    request = guest.prepare(blk.T_OUT, 1, length=512)
    segments = guest.segments(request, writable=False)
    segments[1] = Segment(ADDR + 4096, 512)
    guest.submit(request, segments)
    assert guest.finish(request).status == blk.S_OK
    assert guest.read(1, 1) == b"\x3C" * 512


def test_f05_file_on_tmpfs_is_accepted_as_memory(client):
    if file_system_of("/dev/shm") != "tmpfs":
        pytest.skip("/dev/shm isn't tmpfs here")
    path = f"/dev/shm/sdc-{os.getpid()}"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    os.unlink(path)
    os.ftruncate(fd, SIZE)
    try:
        client.dma_map(ADDR, SIZE, fd=fd)
    finally:
        os.close(fd)


def test_f05_hugetlb_memfd_is_accepted_as_memory(client):
    try:
        fd = os.memfd_create("huge", os.MFD_CLOEXEC | os.MFD_HUGETLB)
        os.ftruncate(fd, 2 << 20)
        mmap.mmap(fd, 2 << 20).close()
    except OSError as error:
        pytest.skip(f"no huge pages here: {error}")
    client.dma_map(ADDR, 2 << 20, fd=fd)
    os.close(fd)


@pytest.mark.parametrize("flags, mode", [(wire.MAP_RW, os.O_RDONLY), (wire.MAP_WRITE, os.O_RDONLY),
                                         (wire.MAP_RW, os.O_WRONLY)])
def test_f05_fd_that_is_not_open_for_what_the_map_says_is_refused(client, memory, flags, mode):
    fd = os.open(f"/proc/self/fd/{memory.fd}", mode | os.O_CLOEXEC)
    try:
        client.refused(Cmd.DMA_MAP, wire.dma_map(ADDR, SIZE, flags=flags), fds=[fd])
        client.fence()
    finally:
        os.close(fd)


def test_f05_read_only_fd_for_a_read_only_map_is_accepted(client, memory):
    fd = os.open(f"/proc/self/fd/{memory.fd}", os.O_RDONLY | os.O_CLOEXEC)
    client.dma_map(ADDR, SIZE, fd=fd, flags=wire.MAP_READ)
    os.close(fd)


def test_f05_write_sealed_memory_is_refused_for_a_writable_map(client):
    fd = os.memfd_create("sealed", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, SIZE)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK)
    try:
        client.refused(Cmd.DMA_MAP, wire.dma_map(ADDR, SIZE), fds=[fd])
        client.fence()
    finally:
        os.close(fd)


@pytest.mark.parametrize("offset, size", [(0, SIZE + 4096), (4096, SIZE), (SIZE, 4096), (1 << 40, 4096)])
def test_f05_file_shorter_than_the_map_is_refused(client, memory, offset, size):
    """Another server accepts it, and dies of SIGBUS later."""
    client.refused(Cmd.DMA_MAP, wire.dma_map(ADDR, size, offset=offset), fds=[memory.fd])
    client.fence()


# --- F6 -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("what", ["the data", "the rings"])
def test_f06_shrinking_the_memory_under_the_server_hurts_no_one_else(serve, what):
    """Without F_SEAL_SHRINK the peer can make any access a SIGBUS: this process may die of it, and alone."""
    victim, neighbour = serve("ram:16M"), serve("ram:16M")
    victim.may_die_by = (signal.SIGBUS, signal.SIGABRT)
    other = neighbour.guest()
    guest = victim.guest(seal=None)
    window = guest.add_memory(ADDR, SIZE, seal=None)
    request = guest.prepare(blk.T_IN, 0, length=512, data_addr=ADDR)
    guest.submit(request, kick=False)
    os.ftruncate(window.memory.fd if what == "the data" else guest.memories[0].fd, 0)
    try:
        guest.kick(posted=True)
        if what == "the data":
            wait_until(lambda: guest.queue.given_back() or not victim.alive)
            if guest.queue.given_back():
                assert guest.space.read(request.status_addr, 1)[0] == blk.S_IOERR
        else:
            guest.client.silent(0.3)
    except (BrokenPipeError, ConnectionResetError):
        pass
    other.assert_works()
    guest.client.close()
    guest.memories.clear()  # closing the mapping is fine, reading it isn't
    if victim.alive:
        victim.assert_fds_back()
    else:
        victim.finish()
        again = serve("ram:16M", socket=victim.path)  # the stale socket file is taken over
        again.guest().assert_works()


@pytest.mark.parametrize("seal", ["shrink", "all", None])
def test_f06_memory_with_and_without_seals_is_accepted(server, seal):
    server.guest(seal=seal).assert_works()


# --- F7 -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("blocking", [True, False])
def test_f07_full_eventfd_as_interrupt_never_blocks_the_device(guest, blocking):
    full = guest.event(value=(1 << 64) - 2, blocking=blocking)
    guest.client.set_irq_eventfds(wire.IRQ_MSIX, [full], start=1)
    for sector in range(20):
        guest.write(sector, bytes([sector]) * 512)
    guest.client.fence()
    assert guest.read(7, 1) == b"\7" * 512


@pytest.mark.parametrize("index", [wire.IRQ_INTX, wire.IRQ_MSIX])
@pytest.mark.parametrize("kind", ["pipe", "socket", "directory", "null device", "file", "O_PATH", "epoll"])
def test_f07_interrupt_fd_that_is_no_eventfd_is_refused(client, workdir, kind, index):
    if kind == "file":
        fd, others = os.open(workdir.file("f", 4096), os.O_RDWR), []
    else:
        fd, others = not_memory(kind, workdir)
    try:
        client.refused(Cmd.SET_IRQS, wire.set_irqs(index, TRIGGER, 0, 1), fds=[fd])
        client.fence()
    finally:
        for each in (fd, *others):
            os.close(each)


def test_f07_one_bad_fd_among_good_ones_is_refused_as_a_whole(guest, canaries):
    """Vector 1 keeps the eventfd that it had."""
    with EventFd() as fresh:
        guest.client.refused(Cmd.SET_IRQS, wire.set_irqs(wire.IRQ_MSIX, TRIGGER, 0, 2),
                             fds=[fresh.fd, canaries(1)[0].lent])
        guest.read(0, 1)
        assert guest.queue_events[0].wait()
        assert not fresh.pending()


# --- F8 -----------------------------------------------------------------------------------------------------

def test_f08_every_fd_of_the_server_is_closed_on_exec(server):
    before = set(server.fds())
    guest = server.guest()
    guest.assert_works()
    for fd, what in server.fds().items():
        if fd > 2:
            origin = "before any client" if fd in before else "with a client"
            assert server.fd_flags(fd) & os.O_CLOEXEC, f"fd {fd} ({what}), opened {origin}, survives an exec"


def test_f08_memory_fds_are_closed_once_they_are_mapped(client, server, memory):
    count = server.fd_count()
    for i in range(50):
        client.dma_map(ADDR + i * SIZE, SIZE, fd=memory.fd)
    assert server.fd_count() <= count + 1, "an fd is kept for each region"


# --- F9 -----------------------------------------------------------------------------------------------------

def test_f09_one_eventfd_for_every_vector_is_harmless(guest):
    one = guest.event()
    guest.client.set_irq_eventfds(wire.IRQ_MSIX, [one, one])
    guest.read(0, 1)
    assert one.wait()


def test_f09_the_same_eventfd_for_intx_and_msix_is_harmless(guest):
    one = guest.event()
    guest.client.set_irq_eventfds(wire.IRQ_INTX, [one])
    guest.client.set_irq_eventfds(wire.IRQ_MSIX, [one, one])
    guest.read(0, 1)
    assert one.wait()
    guest.client.disable_irqs(wire.IRQ_MSIX)
    guest.client.set_irq_eventfds(wire.IRQ_MSIX, [one, one])
    guest.read(0, 1)
    assert one.wait()


def test_f09_our_own_socket_is_refused_as_interrupt_and_as_memory(client):
    client.refused(Cmd.SET_IRQS, wire.set_irqs(wire.IRQ_MSIX, TRIGGER, 0, 1), fds=[client.sock.fileno()])
    client.refused(Cmd.DMA_MAP, wire.dma_map(ADDR, 4096), fds=[client.sock.fileno()])
    client.fence()


def test_f09_session_whose_own_socket_was_sent_still_ends_when_the_client_closes(server):
    """A copy of our end that the server kept would hold the connection open for ever."""
    client = server.client()
    client.refused(Cmd.SET_IRQS, wire.set_irqs(wire.IRQ_MSIX, TRIGGER, 0, 1), fds=[client.sock.fileno()])
    client.close()
    server.assert_fds_back()


def test_f09_same_memory_fd_in_many_regions_is_one_file(guest):
    memory = guest.memories[0]
    for i in range(1, 5):
        guest.client.dma_map(ADDR + i * (4 << 20), 4 << 20, fd=memory.fd)
    guest.write(2, b"\x44" * 512)
    request = guest.prepare(blk.T_IN, 2, length=512)
    alias = request.data - guest.space.windows[0].iova + ADDR + 3 * (4 << 20)
    segments = guest.segments(request, writable=True)
    segments[1] = Segment(alias, 512, True)
    guest.submit(request, segments)
    assert guest.finish(request).data == b"\x44" * 512


def test_f09_eventfds_replaced_a_thousand_times_do_not_pile_up(client, server):
    count = None
    for i in range(1000):
        with EventFd() as event:
            client.set_irq_eventfds(wire.IRQ_MSIX, [event], start=i % 2)
        if i == 10:
            count = server.fd_count()
    assert server.fd_count() <= count


# --- F10 ----------------------------------------------------------------------------------------------------

def starve(server):
    """No further fd can be had in the server: its limit becomes the lowest free number."""
    fds = server.fds()
    server.limit_fds(next(number for number in range(len(fds) + 1) if number not in fds))


def test_f10_no_fd_left_at_accept_does_not_spin_and_is_logged_once(server):
    old = server.fd_limit()
    starve(server)
    quiet = len(server.stderr().splitlines())
    clients = [Client.connect(server.path) for _ in range(3)]
    try:
        for client in clients:
            try:
                client.send(Cmd.VERSION, wire.version(wire.OUR_CAPS))
            except BrokenPipeError:
                pass  # accepted by the reserve fd, and closed
        before = server.cpu_seconds()
        time.sleep(0.6)
        assert server.cpu_seconds() - before < 0.25, "the server spins while it has no fds"
        lines = len(server.stderr().splitlines()) - quiet
        assert lines <= 4, f"{lines} lines in the log for one condition:\n{server.stderr()}"
    finally:
        server.limit_fds(old)
        for client in clients:
            client.close()
    assert wait_until(lambda: _served(server)), "no client is served after fds are there again"


def _served(server):
    try:
        with server.guest_kind.boot(server.path) as guest:
            guest.assert_works()
        return True
    except (OSError, Closed, NoReply):
        return False


def test_f10_no_fd_left_for_a_message_refuses_it_and_the_session_lives(server):
    """The kernel cuts the control data; the message came without the fd that is due."""
    client = server.client()
    client.fence()
    old = server.fd_limit()
    with EventFd() as event:
        starve(server)
        try:
            client.send(Cmd.SET_IRQS, wire.set_irqs(wire.IRQ_MSIX, TRIGGER, 0, 1), fds=[event.fd])
            try:
                client.check_refusal(client.recv())
                dropped = False
            except Closed as closed:
                assert closed.clean
                dropped = True
        finally:
            server.limit_fds(old)
        if not dropped:
            client.set_irq_eventfds(wire.IRQ_MSIX, [event])
            client.fence()


def test_f10_memory_map_without_fds_left_does_not_become_a_remote_one(server):
    """The fd that was cut off isn't the same as none: the client believes the memory to be mapped."""
    client = server.client()
    client.fence()
    old = server.fd_limit()
    with GuestMemory(SIZE) as memory:
        starve(server)
        try:
            client.send(Cmd.DMA_MAP, wire.dma_map(ADDR, SIZE), fds=[memory.fd])
            try:
                client.check_refusal(client.recv())
            except Closed as closed:
                assert closed.clean
        finally:
            server.limit_fds(old)
