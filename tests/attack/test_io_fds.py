# SPDX-License-Identifier: BSD-3-Clause
"""GET_REGION_IO_FDS: eventfds for the queues' notification addresses, which a client gives to KVM and may do anything with."""

import errno
import fcntl
import os
import struct
import threading

import pytest

from pylib import blk, virtio, wire
from pylib.client import NoReply
from pylib.dma import DmaResponder
from pylib.events import wait_until
from pylib.vm import USUAL_FEATURES, Guest
from pylib.wire import Cmd

NOTIFY = 0x3000
ENTRY = 40
SERVE_OPTIONS = ["--poll=never"]  # what a queue that looks without being told would find


def boot(server, queues, **options):
    """A guest whose requests share no memory."""
    guest = server.guest(queues=queues, **options)
    guest.reuse = False
    return guest


def take(guest, region=wire.BAR4, **kwargs):
    """The reply and its eventfds, which are closed with the guest."""
    info, events = guest.client.region_io_fds(region, **kwargs)
    guest._events.extend(events)
    return info, events


def kicked_read(guest, event, queue=0, signals=1):
    """A request whose kick goes by the eventfd alone."""
    mark = guest.space.mark()
    request = guest.prepare(blk.T_IN, 0, length=512, queue=queue)
    guest.submit(request, kick=False)
    event.signal(signals)
    result = guest.finish(request)
    if guest.reuse:
        guest.space.release(mark)
    assert result.status == blk.S_OK


# --- the reply ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("queues", [1, 4, 16])
def test_one_entry_and_one_fd_for_each_queues_notification_address(serve, queues):
    guest = serve("ram:16M", f"--queues={queues}").guest(queues=queues)
    info, events = take(guest)
    assert (info.argsz, info.flags, info.index, info.count) == (16 + ENTRY * queues, 0, wire.BAR4, queues)
    assert len(events) == queues
    structure = guest.virtio.structures[virtio.CFG_NOTIFY]
    for number, entry in enumerate(info.entries):
        assert entry.offset == structure.offset + guest.virtio.notify_offsets[number] * structure.multiplier
        assert entry.fd_index == number
        assert (entry.size, entry.type, entry.flags, entry.padding, entry.datamatch) == (0, 0, 0, 0, 0)


def test_fds_are_eventfds(guest):
    _, events = take(guest)
    for event in events:
        assert os.readlink(f"/proc/self/fd/{event.fd}") == "anon_inode:[eventfd]"


@pytest.mark.parametrize("region", [0, 1, 2, 3, 5, 6, 7, 8])
def test_region_without_notifications_has_no_entries(guest, region):
    info, events = take(guest, region)
    assert (info.argsz, info.flags, info.index, info.count, events) == (16, 0, region, 0, [])


@pytest.mark.parametrize("argsz", [16, 17, 55])
def test_short_argsz_gets_the_fixed_part_and_learns_how_much_to_bring(guest, argsz):
    info, events = take(guest, argsz=argsz)
    assert (info.argsz, info.flags, info.index, info.count, events) == (16 + ENTRY, 0, wire.BAR4, 0, [])
    info, events = take(guest, argsz=info.argsz)
    assert info.count == len(events) == 1


BAD = {
    "region 9": wire.region_io_fds(9, argsz=4096),
    "region of all ones": wire.region_io_fds(wire.U32_MAX, argsz=4096),
    "flags": wire.region_io_fds(wire.BAR4, argsz=4096, flags=1),
    "flags of all ones": wire.region_io_fds(wire.BAR4, argsz=4096, flags=wire.U32_MAX),
    "a count": wire.region_io_fds(wire.BAR4, argsz=4096, count=1),
    "argsz 0": wire.region_io_fds(wire.BAR4, argsz=0),
    "argsz 15": wire.region_io_fds(wire.BAR4, argsz=15),
    "argsz above 1 MiB": wire.region_io_fds(wire.BAR4, argsz=(1 << 20) + 1),
    "argsz of all ones": wire.region_io_fds(wire.BAR4, argsz=wire.U32_MAX),
}


@pytest.mark.parametrize("name", sorted(BAD))
def test_bad_request_is_refused(client, name):
    client.refused(Cmd.GET_REGION_IO_FDS, BAD[name], errnos=(errno.EINVAL,))
    client.fence()


def test_request_with_an_fd_is_refused_and_the_fd_is_closed(client):
    with open("/dev/null", "rb") as null:
        client.refused(Cmd.GET_REGION_IO_FDS, wire.region_io_fds(wire.BAR4, argsz=4096), fds=[null.fileno()],
                       errnos=(errno.EINVAL,))
    client.fence()


@pytest.mark.parametrize("takes", [1, 3, 8, 9, 64, 1000])
def test_no_more_fds_than_the_client_takes_and_the_other_queues_work_by_messages(serve, takes):
    guest = boot(serve("ram:16M", "--queues=8"), 8, handshake={"capabilities": {"max_msg_fds": takes}})
    info, events = take(guest)
    assert info.count == len(events) == min(takes, 8)
    for queue in range(8):
        if queue < len(events):
            kicked_read(guest, events[queue], queue)
        guest.do(blk.T_IN, 0, length=512, queue=queue)


def test_client_without_capabilities_gets_one_fd(serve):
    guest = boot(serve("ram:16M", "--queues=2"), 2, handshake={"capabilities": None})
    info, events = take(guest)
    assert info.count == len(events) == 1


def test_reply_has_sixty_four_fds_at_most(serve):
    guest = boot(serve("ram:16M", "--queues=100"), 2, handshake={"capabilities": {"max_msg_fds": 1000}})
    info, events = take(guest)
    assert info.count == len(events) == 64
    kicked_read(guest, events[1], 1)


def test_no_reply_sends_no_fds_with_the_next_one(guest):
    guest.client.send(Cmd.GET_REGION_IO_FDS, wire.region_io_fds(wire.BAR4, argsz=4096), flags=wire.NO_REPLY)
    reply = guest.client.exchange(Cmd.GET_INFO, wire.device_info())
    assert reply.fds == []
    kicked_read(guest, take(guest)[1][0])


def test_asked_again_it_is_the_same_eventfd(guest):
    _, first = take(guest)
    _, second = take(guest)
    first[0].signal()
    kicked_read(guest, second[0])
    kicked_read(guest, first[0])


def test_fds_come_with_their_own_reply_among_others(guest):
    """Pipelined: replies before and behind carry none."""
    client = guest.client
    request = wire.pack(Cmd.GET_REGION_IO_FDS, wire.region_io_fds(wire.BAR4, argsz=4096), msg_id=0x7001)
    info = [wire.pack(Cmd.GET_INFO, wire.device_info(), msg_id=0x7000 + number) for number in (0, 2, 3)]
    client.send_bytes(info[0] + request + info[1] + info[2])
    for msg_id in range(0x7000, 0x7004):
        reply = client.reply_to(msg_id)
        assert len(reply.fds) == (msg_id == 0x7001), f"{reply}"
        for fd in reply.fds:
            os.close(fd)


# --- kicks --------------------------------------------------------------------------------------------------------

def test_signal_is_a_kick(server, packed):
    guest = server.guest(packed=packed)
    _, events = take(guest)
    for _ in range(20):
        kicked_read(guest, events[0])
        guest.read(0, 1)  # and messages go on


def test_signal_is_a_kick_with_notification_data_too(server, packed):
    """What the driver writes then is a hint, which an eventfd does not carry."""
    guest = server.guest(packed=packed, features=USUAL_FEATURES | virtio.F_NOTIFICATION_DATA)
    assert guest.virtio.features & virtio.F_NOTIFICATION_DATA
    _, events = take(guest)
    for _ in range(5):
        kicked_read(guest, events[0])
        guest.read(0, 1)


def test_each_queue_has_its_own(serve, packed):
    guest = boot(serve("ram:16M", *SERVE_OPTIONS, "--queues=4", "--threads=2"), 4, packed=packed)
    _, events = take(guest)
    for queue in (3, 1, 0, 2) * 4:
        kicked_read(guest, events[queue], queue)
    # the others' don't reach it
    request = guest.prepare(blk.T_IN, 0, length=512, queue=2)
    guest.submit(request, kick=False)
    for queue in (0, 1, 3):
        events[queue].signal()
        kicked_read(guest, events[queue], queue)
    assert guest.space.read(request.status_addr, 1)[0] == blk.NOT_SET
    events[2].signal()
    assert guest.finish(request).status == blk.S_OK


def test_asked_for_before_the_queues_start(server, packed):
    """As QEMU's machine would: at realize."""
    guest = server.guest(packed=packed, driver_ok=False)
    _, events = take(guest)
    events[0].signal()  # for nobody
    guest.virtio.driver_ok()
    kicked_read(guest, events[0])


def test_asked_for_while_requests_are_in_flight(stuck_guest, packed):
    owner, guest = stuck_guest(packed=packed)
    request = guest.submit(guest.prepare(blk.T_IN, 0, length=512))
    _, events = take(guest)
    more = guest.prepare(blk.T_IN, 0, length=512)
    guest.submit(more, kick=False)
    events[0].signal()
    owner.stop()
    done = dict(guest.queue.wait(2))
    assert set(done) == {request.head, more.head}


def test_resets_keep_the_eventfd(server, packed):
    guest = server.guest(packed=packed, features=USUAL_FEATURES | virtio.F_RING_RESET)
    _, events = take(guest)
    kicked_read(guest, events[0])
    guest.restart()
    kicked_read(guest, events[0])
    guest.reset_queue()
    events[0].signal()  # for nobody
    guest.enable_queue()
    kicked_read(guest, events[0])
    guest.client.reset()
    events[0].signal(5)
    guest.pci.set_command(6)
    guest.pci.enable_msix()
    guest.bring_up()
    kicked_read(guest, events[0])


def test_memory_that_goes_and_comes_back_keeps_the_eventfd(server, packed):
    guest = server.guest(packed=packed)
    _, events = take(guest)
    window = guest.space.windows[0]
    guest.client.dma_unmap(window.iova, window.size)
    events[0].signal()
    guest.client.dma_map(window.iova, window.size, fd=window.memory.fd)
    kicked_read(guest, events[0])


def test_signal_reaches_rings_in_remote_memory(server, packed):
    guest = Guest(server.client())
    server.handed_out.append(guest)
    DmaResponder(guest.client, guest.space)
    guest.start(remote=True, packed=packed)
    _, events = take(guest)
    for _ in range(3):
        request = guest.prepare(blk.T_IN, 0, length=512)
        guest.submit(request, kick=False)
        events[0].signal()
        done = []
        assert guest.client.serve_commands(lambda: done.extend(guest.queue.take()) or done)
        assert guest.result(request, done[0][1]).status == blk.S_OK


def test_broken_queue_takes_signals_and_a_reset_heals_it(guest):
    _, events = take(guest)
    guest.space.put_u16(guest.queue.avail_addr + 2, 999)
    events[0].signal()
    guest.assert_broken()
    for _ in range(10):
        events[0].signal()
    guest.recover()
    kicked_read(guest, events[0])


# --- what a client may do with its copy ---------------------------------------------------------------------------

def test_any_count_is_one_kick(guest):
    _, events = take(guest)
    for count in (1, 2, 255, 1 << 32, (1 << 64) - 2):
        kicked_read(guest, events[0], signals=count)


def test_client_that_closes_its_copies_is_served_by_messages(guest):
    _, events = take(guest)
    kicked_read(guest, events[0])
    for event in events:
        event.close()
    guest.assert_works()


def test_client_that_makes_the_eventfd_block_blocks_nobody(guest):
    """O_NONBLOCK belongs to the open file, which the client shares: it may clear it and take the count before the server."""
    _, events = take(guest)
    fcntl.fcntl(events[0].fd, fcntl.F_SETFL, 0)
    stop = threading.Event()

    def steal():
        while not stop.is_set():
            try:
                os.preadv(events[0].fd, [bytearray(8)], -1, os.RWF_NOWAIT)
            except OSError:
                pass
            events[0].signal()
    thief = threading.Thread(target=steal)
    thief.start()
    try:
        for _ in range(200):
            guest.client.fence()
            guest.read(0, 1)
    finally:
        stop.set()
        thief.join()
    guest.assert_works()


def test_client_that_spins_on_the_eventfd_is_answered_and_so_is_the_other_queue(serve):
    guest = boot(serve("ram:16M", "--queues=2", "--threads=2"), 2)
    _, events = take(guest)
    stop = threading.Event()

    def spin():
        while not stop.is_set():
            events[0].signal()
    spinner = threading.Thread(target=spin)
    spinner.start()
    try:
        for _ in range(20):
            guest.client.fence()
            guest.read(0, 1, queue=0)
            guest.read(0, 1, queue=1)
    finally:
        stop.set()
        spinner.join()


def test_signalled_and_left_alone_the_server_sleeps(server, guest):
    _, events = take(guest)
    kicked_read(guest, events[0], signals=1 << 40)
    before = server.cpu_seconds()
    guest.client.silent(0.3)
    assert server.cpu_seconds() - before < 0.2, "the server spins on a signalled eventfd"


def test_f09_kick_eventfd_as_the_same_queues_interrupt_is_harmless(server):
    guest = server.guest()
    _, events = take(guest)
    guest.client.set_irq_eventfds(wire.IRQ_MSIX, events, start=1)
    for _ in range(10):
        guest.read(0, 1)
        kicked_read(guest, events[0])
    before = server.cpu_seconds()
    guest.client.silent(0.3)
    assert server.cpu_seconds() - before < 0.2, "an interrupt kicks the queue that interrupts"


# --- the end ------------------------------------------------------------------------------------------------------

def test_eventfd_of_an_earlier_session_reaches_nobody(server):
    """Its queue is the next client's: the old copy must not kick it. (That the fds are closed is what `server` checks.)"""
    first = server.guest()
    _, old = first.client.region_io_fds(wire.BAR4)
    kicked_read(first, old[0])
    first.close()
    second = server.guest()
    try:
        _, new = take(second)
        request = second.prepare(blk.T_IN, 0, length=512)
        second.submit(request, kick=False)
        for _ in range(5):
            old[0].signal()
            second.client.fence()
        assert second.space.read(request.status_addr, 1)[0] == blk.NOT_SET, "an old session's eventfd kicks"
        assert old[0].pending(), "the server still reads an old session's eventfd"
        new[0].signal()
        assert second.finish(request).status == blk.S_OK
    finally:
        old[0].close()


def test_client_that_goes_under_load_leaves_nothing_watched(serve):
    server = serve("ram:16M", "--queues=4", "--threads=2")
    for _ in range(5):
        guest = boot(server, 4)
        _, events = guest.client.region_io_fds(wire.BAR4)
        for queue in range(4):
            guest.submit(guest.prepare(blk.T_IN, 0, length=4096, queue=queue), kick=False)
            events[queue].signal()
        guest.close()
        server.assert_fds_back()
        for event in events:
            event.close()


# --- fds that nobody takes ----------------------------------------------------------------------------------------

def test_client_that_leaves_fds_unread_gets_no_more_until_it_takes_them(serve):
    """Fds in a socket count against the server's user for the kernel: one client must not use that up."""
    guest = boot(serve("ram:16M", "--queues=16"), 1)
    client = guest.client
    ids = [client.send(Cmd.GET_REGION_IO_FDS, wire.region_io_fds(wire.BAR4, argsz=4096)) for _ in range(50)]
    fds, refused = 0, 0
    for msg_id in ids:
        reply = client.reply_to(msg_id)
        if reply.is_error:
            refused += client.check_refusal(reply, errnos=(errno.EBUSY,)) == errno.EBUSY
        else:
            assert len(reply.fds) == 16
        fds += len(reply.fds)
        for fd in reply.fds:
            os.close(fd)
    assert fds + refused * 16 == 50 * 16
    assert refused > 0 and fds >= 64, f"{refused} of 50 were refused, {fds} fds came"
    kicked_read(guest, take(guest)[1][0])


def test_server_without_fds_offers_those_that_it_has(serve):
    server = serve("ram:16M", "--queues=16")
    guest = boot(server, 16)
    limit = server.fd_limit()
    server.limit_fds(max(server.fds()) + 4)
    info, events = take(guest)
    server.limit_fds(limit)
    assert info.count == len(events) < 16
    for queue, event in enumerate(events):
        kicked_read(guest, event, queue)
    info, events = take(guest)
    assert info.count == len(events) == 16
    for queue, event in enumerate(events):
        kicked_read(guest, event, queue)


def test_longest_reply_has_the_size_that_it_says_and_comes_once(serve):
    client = serve("ram:16M", "--queues=64").client(capabilities={"max_msg_fds": 64})
    reply = client.exchange(Cmd.GET_REGION_IO_FDS, wire.region_io_fds(wire.BAR4, argsz=1 << 20))
    assert reply.size == 16 + 16 + 64 * ENTRY and len(reply.fds) == 64
    assert struct.unpack_from("=I", reply.payload)[0] == 16 + 64 * ENTRY
    for fd in reply.fds:
        os.close(fd)
    try:
        client.recv(timeout=0.05)
        pytest.fail("a second reply")
    except NoReply:
        pass


def test_first_signal_may_follow_the_reply_at_once(server, packed):
    for _ in range(10):
        guest = server.guest(packed=packed)
        _, events = guest.client.region_io_fds(wire.BAR4)
        try:
            kicked_read(guest, events[0])
        finally:
            events[0].close()
        guest.close()
        assert wait_until(lambda: server.fd_count() <= server.baseline)
