# SPDX-License-Identifier: BSD-3-Clause
"""The three ways in which a queue waits (serve --poll), as its driver sees them: who has to be notified, who says so, who sleeps."""

import os

import pytest

from pylib import blk, ring, vhost, virtio, wire
from pylib.dma import DmaResponder
from pylib.events import EventFd, wait_until
from pylib.pci_guest import BASE
from pylib.packed import AT_DESC, DISABLE, ENABLE
from pylib.vhost import U64, Req, state
from pylib.vm import USUAL_FEATURES, Guest
from pylib.wire import Cmd

TRANSPORTS = ["vfio-user", "vhost-user"]
EVENT_IDX = USUAL_FEATURES | virtio.F_EVENT_IDX


@pytest.fixture(params=TRANSPORTS)
def boot(request, serve):
    """boot(*options of serve, **those of the guest): a server and its guest, over each transport."""
    def start(*options, **kwargs):
        server = serve("ram:16M", *options, transport=request.param)
        return server, server.guest(**kwargs)
    return start


def wants_kicks(guest, queue=0):
    """Whether the device asks for a notification of the next request."""
    queue = guest.queues[queue]
    if guest.virtio.features & virtio.F_RING_PACKED:
        word, flags = queue.device_event()
        assert flags in (ENABLE, DISABLE, AT_DESC)
        return flags == ENABLE or (flags == AT_DESC and word == queue.next_avail.word())
    if queue.event_idx:
        return queue.avail_event() == queue.avail_idx
    return not queue.used_flags() & ring.USED_NO_NOTIFY


def unkicked(guest, queue=0):
    request = guest.prepare(blk.T_IN, 3, length=512, queue=queue)
    return guest.submit(request, kick=False)


def assert_spins(server):
    used = server.cpu_seconds()
    assert wait_until(lambda: server.cpu_seconds() - used >= 0.05), "it sleeps"


# --- always -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("features", [USUAL_FEATURES, EVENT_IDX], ids=["flags", "event index"])
def test_who_always_polls_needs_no_notification(boot, packed, features):
    server, guest = boot("--poll=always", features=features, packed=packed)
    assert wait_until(lambda: not wants_kicks(guest))
    for _ in range(20):
        mark = guest.space.mark()
        assert guest.finish(unkicked(guest)).status == blk.S_OK
        assert not wants_kicks(guest)
        guest.space.release(mark)
    assert_spins(server)


@pytest.mark.parametrize("threads", [1, 2])
def test_queues_of_a_loop_that_always_poll_all_get_on(boot, packed, threads):
    _, guest = boot("--poll=always", "--queues=4", f"--threads={threads}", queues=4, packed=packed)
    guest.reuse = False
    for _ in range(10):
        requests = [unkicked(guest, queue) for queue in (2, 0, 3, 1)]
        for request in requests:
            assert guest.finish(request).status == blk.S_OK


@pytest.mark.parametrize("loop", ["io_uring", "epoll"])
def test_messages_interrupts_and_the_end_find_a_loop_that_spins(boot, loop):
    server, guest = boot("--poll=always", f"--loop={loop}")
    for sector in range(10):
        guest.client.fence()
        guest.write(sector, bytes([sector]) * 512)
        assert guest.read(sector, 1) == bytes([sector]) * 512
    assert wait_until(lambda: guest.queue_events[0].pending())
    server.close_clients()
    assert server.stop() == 0


def test_who_always_polls_sleeps_without_a_driver(boot, packed):
    server, guest = boot("--poll=always", packed=packed)
    guest.assert_works()
    guest.close()
    server.assert_comes_to_rest()
    server.guest(packed=packed).assert_works()


def test_reset_ends_the_polling_and_leaves_the_driver_told(serve, packed):
    """Whoever goes on with the ring may be somebody who sleeps."""
    server = serve("ram:16M", "--poll=always")
    guest = server.guest(packed=packed, features=USUAL_FEATURES | virtio.F_RING_RESET)
    guest.assert_works()
    assert not wants_kicks(guest)
    guest.reset_queue()
    assert wants_kicks(guest)
    server.assert_comes_to_rest()
    guest.enable_queue()
    assert guest.finish(unkicked(guest)).status == blk.S_OK
    guest.virtio.reset()
    server.assert_comes_to_rest()


def test_vring_that_stops_leaves_the_driver_told(serve, packed):
    server = serve("ram:16M", "--poll=always", transport="vhost-user")
    guest = server.guest(packed=packed)
    guest.assert_works()
    guest.stop_vring(0)
    assert wants_kicks(guest)
    server.assert_comes_to_rest()


def test_ring_that_breaks_while_it_is_looked_at_is_not_looked_at_again(boot, packed):
    server, guest = boot("--poll=always", packed=packed)
    guest.assert_works()
    if packed:
        guest.queue.put_chain((BASE, 17, ring.INDIRECT))  # no table is 17 bytes long
    else:
        guest.queue.set_avail_idx(guest.queue.avail_idx + 1000)
    guest.assert_broken()
    server.assert_comes_to_rest()
    guest.recover()
    guest.assert_works()


@pytest.mark.parametrize("mode", ["adaptive", "always"])
def test_ring_in_remote_memory_is_never_polled(serve, packed, mode):
    """Always: what is looked at is the register of its notifications."""
    server = serve("ram:16M", f"--poll={mode}")
    guest = Guest(server.client())
    server.handed_out.append(guest)
    DmaResponder(guest.client, guest.space)
    guest.start(remote=True, packed=packed)

    def finish(request):
        done = []
        assert guest.client.serve_commands(lambda: done.extend(guest.queue.take()) or done)
        assert guest.result(request, done[0][1]).status == blk.S_OK
        assert not guest.client.serve_commands(lambda: False, 0.2)  # what it does before it sleeps
    finish(guest.submit(guest.prepare(blk.T_IN, 3, length=512)))
    request = unkicked(guest)
    if mode == "adaptive":
        server.assert_comes_to_rest()
    assert not guest.client.serve_commands(lambda: False, 0.1)
    assert guest.space.read(request.status_addr, 1)[0] == blk.NOT_SET
    guest.kick(posted=True)
    finish(request)
    if mode == "adaptive":
        server.assert_comes_to_rest()


# --- notification registers as memory ------------------------------------------------------------------------------

PAGE, BELLS = 4096, 0x3000


def notify_page(client):
    """What of BAR 4 may be mapped: (offset, size, memory), or None."""
    return client.map_region(wire.BAR4)


@pytest.mark.parametrize("mode", ["never", "adaptive"])
def test_registers_whose_writes_would_be_missed_are_not_mappable(serve, mode):
    client = serve("ram:16M", f"--poll={mode}").client()
    assert notify_page(client) is None


def test_page_of_notifications_is_all_that_may_be_mapped(serve):
    server = serve("ram:16M", "--poll=always", "--queues=1024")
    guest = server.guest(queues=2)
    offset, size, page = notify_page(guest.client)
    assert (offset, size) == (BELLS, PAGE)
    for index in range(9):
        if index != wire.BAR4:
            assert wire.parse_region_info(guest.client.call(Cmd.GET_REGION_INFO, wire.region_info(index))).flags & wire.REGION_MMAP == 0
    # Whatever is written there, nothing happens but what would have happened anyway; and messages reach the same registers.
    page[:] = os.urandom(PAGE)
    guest.assert_works()
    guest.kick(1)
    assert not guest.broken
    page.close()


def test_next_client_gets_a_page_of_its_own(serve):
    server = serve("ram:16M", "--poll=always")
    first = server.guest()
    _, _, page = notify_page(first.client)
    page[:4] = b"mine"
    first.close()
    second = server.guest()
    _, _, other = notify_page(second.client)
    assert b"mine" not in other[:]
    page[:4] = b"more"
    assert b"more" not in other[:]
    page.close()
    other.close()


def test_write_to_the_page_wakes_a_ring_that_is_not_polled(serve, packed):
    server = serve("ram:16M", "--poll=always")
    guest = Guest(server.client())
    server.handed_out.append(guest)
    _, _, page = notify_page(guest.client)
    DmaResponder(guest.client, guest.space)
    guest.start(remote=True, packed=packed)
    for size in (2, 4, 2):
        assert not guest.client.serve_commands(lambda: False, 0.1)
        request = unkicked(guest)
        assert not guest.client.serve_commands(lambda: False, 0.1)
        page[:size] = bytes(size)
        done = []
        assert guest.client.serve_commands(lambda: done.extend(guest.queue.take()) or done)
        assert guest.result(request, done[0][1]).status == blk.S_OK
    page.close()


# --- adaptive and never -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("features", [USUAL_FEATURES, EVENT_IDX], ids=["flags", "event index"])
@pytest.mark.parametrize("mode", ["never", "adaptive"])
def test_idle_queue_wants_to_be_told_and_sleeps(boot, packed, mode, features):
    server, guest = boot(f"--poll={mode}", "--poll-max-us=10000" if mode == "adaptive" else "--queues=1", features=features,
                         packed=packed)
    for _ in range(50):
        guest.assert_works()
    assert wait_until(lambda: wants_kicks(guest)), "it sleeps, and nobody will wake it"
    server.assert_comes_to_rest()
    assert guest.finish(guest.submit(guest.prepare(blk.T_IN, 3, length=512))).status == blk.S_OK


@pytest.mark.parametrize("mode", ["never", "adaptive"])
@pytest.mark.parametrize("stack", ["delay,read=1h", "limit,bw=1,burst=1ms"])
def test_queue_sleeps_while_requests_wait_in_a_filter(serve, packed, mode, stack):
    server = serve(f"{stack}:ram:16M", f"--poll={mode}")
    server.check_service = False
    guest = server.guest(packed=packed)
    for sector in range(4):
        guest.submit(guest.prepare(blk.T_IN, sector, length=512))
    guest.client.fence()
    server.assert_comes_to_rest()
    assert wants_kicks(guest)
    guest.restart()


def test_adaptive_queue_finds_what_comes_while_it_looks(boot, packed):
    """Requests that are made known only as the device asks for it; some of them it need not be told of."""
    _, guest = boot("--poll-max-us=10000", packed=packed)
    untold = 0
    for _ in range(300):
        mark = guest.space.mark()
        request = unkicked(guest)
        if wants_kicks_of(guest, request):
            guest.kick()
        else:
            untold += 1
        assert guest.finish(request).status == blk.S_OK
        guest.space.release(mark)
    assert untold > 0


def wants_kicks_of(guest, request):
    """After it was made available: what the driver has to look at then."""
    assert request
    if guest.virtio.features & virtio.F_RING_PACKED:
        return guest.queue.device_event()[1] != DISABLE
    return not guest.queue.used_flags() & ring.USED_NO_NOTIFY


def assert_has_to_be_told(guest):
    for _ in range(5):
        guest.client.fence()  # the last kick may have come after its request was found
    request = unkicked(guest)
    for _ in range(5):
        guest.client.fence()
    assert guest.space.read(request.status_addr, 1)[0] == blk.NOT_SET, "nobody has told it"
    guest.kick()
    assert guest.finish(request).status == blk.S_OK


def test_who_never_polls_has_to_be_told(boot, packed):
    _, guest = boot("--poll=never", packed=packed)
    guest.assert_works()
    assert wait_until(lambda: wants_kicks(guest))
    assert_has_to_be_told(guest)


# --- a vring without an fd ----------------------------------------------------------------------------------------

def test_vring_without_an_eventfd_for_kicks_is_polled(serve, packed):
    guest = serve("ram:16M", "--poll=always", transport="vhost-user").guest(packed=packed)
    guest.assert_works()
    base = guest.stop_vring(0)
    guest.client.tell(Req.SET_VRING_BASE, state(0, base))
    guest.client.acknowledged(Req.SET_VRING_KICK, U64.pack(vhost.NO_FD))
    for _ in range(10):
        assert guest.finish(unkicked(guest)).status == blk.S_OK
    # and it may be given one afterwards
    event = EventFd()
    guest.client.tell(Req.SET_VRING_KICK, U64.pack(0), fds=[event.fd])
    event.signal()
    assert guest.finish(unkicked(guest)).status == blk.S_OK
    event.close()


@pytest.mark.parametrize("mode", ["never", "adaptive"])
def test_vring_without_an_eventfd_for_kicks_is_polled_in_every_mode(serve, mode, packed):
    guest = serve("ram:16M", f"--poll={mode}", transport="vhost-user").guest(packed=packed)
    guest.assert_works()
    # While it runs, and when it starts.
    for start in (False, True):
        if start:
            guest.client.tell(Req.SET_VRING_BASE, state(0, guest.stop_vring(0)))
        guest.client.acknowledged(Req.SET_VRING_KICK, U64.pack(vhost.NO_FD))
        for _ in range(10):
            assert guest.finish(unkicked(guest)).status == blk.S_OK
        guest.client.tell(Req.SET_VRING_KICK, U64.pack(0), fds=[guest.kick_events[0].fd])
        guest.assert_works()
    if mode == "never":
        assert_has_to_be_told(guest)  # where it is, it sleeps again
