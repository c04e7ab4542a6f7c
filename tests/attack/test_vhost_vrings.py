# SPDX-License-Identifier: BSD-3-Clause
"""Rows R over vhost-user: the life of vrings, and the log of what is in flight (R25, W13, W14)."""

import os
import signal
import struct

import pytest

from pylib import blk, vhost, virtio
from pylib.events import EventFd, wait_until
from pylib.memory import GuestMemory
from pylib.ring import INDIRECT
from pylib.vhost import INFLIGHT, U64, P, Req, state
from pylib.vm import BASE


# --- where a vring stands -----------------------------------------------------------------------------------

def test_r20_a_vring_that_is_stopped_goes_on_where_it_stood(vhost_guest):
    for turn in range(200):
        vhost_guest.write(turn, bytes([turn + 1]) * 512)
        base = vhost_guest.stop_vring(0)
        vhost_guest.start_vring(0, base)
        assert vhost_guest.read(turn, 1) == bytes([turn + 1]) * 512


def test_r20_requests_wait_while_a_vring_is_disabled_and_none_is_lost(vhost_guest):
    vhost_guest.client.tell(Req.SET_VRING_ENABLE, state(0, 0))
    vhost_guest.client.tell(Req.SET_VRING_ENABLE, state(0, 0))
    request = vhost_guest.submit(vhost_guest.prepare(blk.T_OUT, 5, data=b"\x11" * 512))
    assert not vhost_guest.queue.wait(1, 0.1)
    vhost_guest.client.tell(Req.SET_VRING_ENABLE, state(0, 1))
    assert vhost_guest.finish(request).status == blk.S_OK
    vhost_guest.client.tell(Req.SET_VRING_ENABLE, state(0, 1))
    vhost_guest.assert_works()


def test_r20_a_kick_before_the_start_is_not_lost(vhost_server, packed):
    guest = vhost_server.guest(packed=packed, run=False)
    guest.queue.clear()
    request = guest.submit(guest.prepare(blk.T_OUT, 5, data=b"\x22" * 512))
    guest.start_vring(0, 0x80008000 if packed else 0)
    assert guest.finish(request).status == blk.S_OK


def test_r20_get_vring_base_waits_for_what_is_in_flight(serve, image, packed):
    owner, waiter = serve(image), serve(image, transport="vhost-user")
    owner.guest().assert_works()
    guest = waiter.guest(packed=packed)
    requests = [guest.submit(guest.prepare(blk.T_IN, i, length=512)) for i in range(4)]
    base = guest.stop_vring(0)  # gives up on what waits for the image's lock
    assert base == (0x800C800C if packed else 4)
    done = dict(guest.queue.wait(4))
    assert sorted(done) == sorted(request.head for request in requests)
    assert owner.stop() == 0
    guest.start_vring(0, base)
    assert guest.read(3, 1) == (3).to_bytes(8, "little") * 64


def test_r20_reset_device_stops_everything_and_begins_anew(vhost_guest):
    vhost_guest.assert_works()
    vhost_guest.client.tell(Req.RESET_DEVICE)
    request = vhost_guest.submit(vhost_guest.prepare(blk.T_IN, 0, length=512))
    assert not vhost_guest.queue.wait(1, 0.1), "a reset device takes requests"
    assert request.head >= 0
    vhost_guest.set_features()
    vhost_guest.run()
    vhost_guest.assert_works()


@pytest.mark.parametrize("number", [0, 1025, 65536, 65536 + 64, 1 << 31])
def test_r17_sizes_that_cannot_be_are_refused(front, number):
    front.refused(Req.SET_VRING_NUM, state(0, number))


def test_r17_a_split_vring_of_an_odd_size_does_not_run_and_a_packed_one_does(vhost_server, packed):
    guest = vhost_server.guest(packed=packed, run=False)
    guest.queues = [type(guest.queue)(guest.space, 24)]
    guest.run()
    if packed:
        guest.assert_works()
    else:
        guest.assert_broken()


def test_r17_vrings_may_be_as_long_as_qemu_makes_them(vhost_server, packed):
    guest = vhost_server.guest(packed=packed, queue_size=1024)
    guest.assert_works()


def test_r17_a_live_vring_keeps_its_size_place_and_position(vhost_guest):
    client, queue = vhost_guest.client, vhost_guest.queue
    client.refused(Req.SET_VRING_NUM, state(0, 32))
    client.refused(Req.SET_VRING_BASE, state(0, 7))
    moved = vhost.ADDRESSES.pack(0, 0, BASE + vhost.USER, BASE + vhost.USER, BASE + vhost.USER, 0)
    client.refused(Req.SET_VRING_ADDR, moved)
    client.tell(Req.SET_VRING_NUM, state(0, queue.size))
    client.tell(Req.SET_VRING_ADDR, vhost.addresses(0, queue))
    client.refused(Req.SET_VRING_ADDR, vhost.addresses(0, queue, flags=1))  # the dirty log is not offered
    vhost_guest.assert_works()


@pytest.mark.parametrize("missing", ["features", "size", "addresses", "memory"])
def test_r18_a_vring_that_is_not_set_up_does_not_start(front, missing):
    guest = vhost.VhostGuest(front)
    guest._options = {"features": virtio.F_VERSION_1, "packed": False}
    with GuestMemory(1 << 20) as memory, EventFd() as kick:
        if missing == "memory":
            guest.space.add(BASE, 1 << 20, memory)
        else:
            guest.add_memory(BASE, 1 << 20, memory=memory)
        queue = vhost.SplitQueue(guest.space, 64)
        if missing != "features":
            guest.set_features()
        if missing != "size":
            front.tell(Req.SET_VRING_NUM, state(0, 64))
        if missing != "addresses":
            front.tell(Req.SET_VRING_ADDR, vhost.addresses(0, queue))
        front.tell(Req.SET_VRING_ENABLE, state(0, 1))
        front.refused(Req.SET_VRING_KICK, U64.pack(0), fds=[kick.fd])
    front.fence()


@pytest.mark.parametrize("base", [0x80008001, 0x80018000, 0x00008000, 0x00010001 << 6])
def test_r17_a_packed_base_with_two_positions_or_outside_the_ring_never_runs(vhost_server, base):
    guest = vhost_server.guest(packed=True, run=False)
    if base >> 16 != base & 0xFFFF:
        guest.client.refused(Req.SET_VRING_BASE, state(0, base))
    else:
        guest.start_vring(0, base)
        guest.assert_broken()
        guest.stop_vring(0)
    guest.run()
    guest.assert_works()


# --- kicks --------------------------------------------------------------------------------------------------

def test_f09_a_kick_that_counts_down_without_end_breaks_its_vring_and_keeps_nobody_awake(vhost_server, packed):
    """EFD_SEMAPHORE with the highest count: a read takes 1 of it."""
    guest = vhost_server.guest(packed=packed)
    with EventFd((1 << 64) - 2, semaphore=True) as endless, EventFd(200, semaphore=True) as ends:
        guest.client.tell(Req.SET_VRING_KICK, U64.pack(0), fds=[endless.fd])
        guest.assert_broken()
        before = vhost_server.cpu_seconds()
        assert guest.client.silent(0.3)
        assert vhost_server.cpu_seconds() - before < 0.2, "the server spins on an eventfd that never empties"
        guest.kick_events[0], kick = ends, guest.kick_events[0]  # a reasonable count is taken
        guest.restart()
        assert wait_until(lambda: not ends.pending())
        guest.assert_works()
        guest.kick_events[0] = kick


# --- breaking -----------------------------------------------------------------------------------------------

def test_r01_a_broken_vring_is_told_by_its_error_fd_and_others_go_on(vhost_server, packed):
    guest = vhost_server.guest(queues=2, packed=packed)
    guest.queues[0].put_chain((BASE, 17, INDIRECT))  # no table is 17 bytes long
    guest.kick(0)
    guest.assert_broken()
    guest.write(3, b"\x33" * 512, queue=1)
    guest.restart()
    guest.assert_works()
    assert not guest.broken, "the error fd tells of what has been mended"
    assert not guest.virtio.status & virtio.NEEDS_RESET


# --- the log of what is in flight ---------------------------------------------------------------------------

def get_inflight(guest, queues=1, size=64):
    reply = guest.client.ask(Req.GET_INFLIGHT_FD, INFLIGHT.pack(0, 0, queues, size))
    assert len(reply.fds) == 1
    return reply.payload, reply.fds[0]


@pytest.mark.parametrize("queues, size", [(65535, 65535), (5, 64), (0, 64), (4, 0), (4, 1025), (1, 32769)])
def test_w13_a_log_for_more_than_there_is_ends_the_session_before_memory_is_taken(vhost_server, queues, size):
    guest = vhost_server.guest()
    before = vhost_server.resident_bytes()
    guest.client.send(Req.GET_INFLIGHT_FD, INFLIGHT.pack(0, 0, queues, size))
    assert not guest.client.dropped()
    vhost_server.assert_grew_less(before, 1 << 20)


def test_w14_logs_asked_for_again_and_again_leave_nothing(vhost_guest, vhost_server):
    vhost_guest.stop_vring(0)

    def turn(count):
        for _ in range(count):
            payload, fd = get_inflight(vhost_guest, 4, 256)
            vhost_guest.client.tell(Req.SET_INFLIGHT_FD, payload, fds=[fd])
            os.close(fd)
    turn(50)
    before, fds = vhost_server.resident_bytes(), vhost_server.fd_count()
    turn(500)
    vhost_server.assert_grew_less(before, 1 << 20)
    assert vhost_server.fd_count() == fds


@pytest.mark.parametrize("change", ["short file", "offset past the end", "size too small", "sum wraps", "pipe", "odd offset"])
def test_r25_memory_that_is_shorter_than_said_is_refused(vhost_guest, change):
    vhost_guest.stop_vring(0)
    payload, fd = get_inflight(vhost_guest)
    size, offset, queues, entries = INFLIGHT.unpack(payload)
    pipe = os.pipe()
    with GuestMemory(4096, seal=None) as other:
        sent = {"short file": other.fd, "pipe": pipe[0]}.get(change, fd)
        if change == "short file":
            os.ftruncate(other.fd, 64)
        said = {"offset past the end": (size, 1 << 40), "size too small": (64, 0), "sum wraps": (size, (1 << 64) - 64),
                "odd offset": (size - 8, 8)}.get(change, (size, offset))
        vhost_guest.client.refused(Req.SET_INFLIGHT_FD, INFLIGHT.pack(*said, queues, entries), fds=[sent])
    for end in (fd, *pipe):
        os.close(end)
    vhost_guest.run()
    vhost_guest.assert_works()


def test_r25_a_log_given_for_split_rings_is_too_small_for_packed_ones(vhost_server):
    """What a vring takes of it follows from the features, which may be set anew after it was given."""
    guest = vhost_server.guest(queues=4, queue_size=1024, run=False)
    payload, fd = get_inflight(guest, 4, 1024)
    guest.client.tell(Req.SET_INFLIGHT_FD, payload, fds=[fd])
    os.close(fd)
    guest._options.update(features=guest._options["features"] | virtio.F_RING_PACKED, packed=True)
    guest.set_features()
    guest.queues[3] = vhost.PackedQueue(guest.space, 1024, event_idx=True)
    with pytest.raises(AssertionError, match="SET_VRING_ENABLE is refused"):
        guest.start_vring(3, 0x80008000)
    payload, fd = get_inflight(guest, 4, 1024)
    guest.client.tell(Req.SET_INFLIGHT_FD, payload, fds=[fd])
    os.close(fd)
    guest.start_vring(3, 0x80008000)
    guest.write(5, b"\x55" * 512, queue=3)
    assert guest.read(5, 1, queue=3) == b"\x55" * 512


class EarlyLog(vhost.VhostGuest):
    """A guest whose front end has the log made, and gives it, before it says which features there are: the specification asks for
    protocol features alone."""

    def set_features(self):
        payload, self.log = get_inflight(self, 4, 64)
        self.client.tell(Req.SET_INFLIGHT_FD, payload, fds=[self.log])
        self.log_bytes = INFLIGHT.unpack(payload)[0]
        super().set_features()


def test_r25_a_log_may_be_made_and_given_before_the_features(vhost_server, packed):
    with EarlyLog.boot(vhost_server.path, packed=packed, queues=4) as guest:
        for queue in range(4):
            guest.write(queue, bytes([queue + 1]) * 512, queue=queue)
        assert any(os.pread(guest.log, guest.log_bytes, 0)), "the log that was given is not used"
        os.close(guest.log)


def test_r25_the_log_does_not_change_under_a_running_vring(vhost_guest):
    payload, fd = get_inflight(vhost_guest)
    vhost_guest.client.refused(Req.SET_INFLIGHT_FD, payload, fds=[fd])
    os.close(fd)
    vhost_guest.assert_works()


@pytest.mark.parametrize("fill", [b"\xff", b"\x01", b"\x80", None])
def test_r25_a_hostile_log_breaks_the_vring_or_is_taken_for_new(vhost_server, packed, fill):
    """Random bytes, or all ones, in every field: nothing is believed."""
    for seed in range(12):
        guest = vhost_server.guest(packed=packed, run=False)
        payload, fd = get_inflight(guest)
        size = INFLIGHT.unpack(payload)[0]
        junk = bytearray(fill * size if fill else os.urandom(size))
        if seed % 2:  # a version and a number of entries that are good
            junk[:8] = bytes(8)
            struct.pack_into("<HH", junk, 8, 1, 64)
        os.pwrite(fd, bytes(junk), 0)
        guest.client.tell(Req.SET_INFLIGHT_FD, payload, fds=[fd])
        guest.run()
        request = guest.submit(guest.prepare(blk.T_OUT, 1, data=bytes(512)))
        assert wait_until(lambda: guest.broken or guest.queue.given_back()), request
        os.close(fd)
        guest.close()
        vhost_server.handed_out.remove(guest)


def go_on(guest, client, payload, fd):
    """A new session of the same guest, at a back end that knows nothing of it."""
    guest.client.close()
    guest.client = client
    windows, guest.space.windows = guest.space.windows, []
    for window in windows:
        guest.add_memory(window.iova, window.size, memory=window.memory, offset=window.offset)
    guest.set_features()
    client.tell(Req.SET_INFLIGHT_FD, payload, fds=[fd])
    guest.start_vring(0, 0x80008000 if guest.queue.packed else 0)


@pytest.mark.parametrize("end", ["kill", "stop", "disconnect"])
def test_p01_what_was_in_flight_is_done_by_the_next_back_end(serve, image, packed, end):
    """Requests wait for the image's lock in a back end that is killed, or ends in order, or whose front end goes. Who is next does
    them, each once, and none has failed."""
    owner = serve(image)
    owner.guest().assert_works()
    first = serve(image, transport="vhost-user")
    if end == "kill":
        first.may_die_by = (signal.SIGKILL,)
    guest = first.guest(packed=packed, protocol=~P.STATUS)
    guest.stop_vring(0)
    payload, fd = get_inflight(guest)
    guest.client.tell(Req.SET_INFLIGHT_FD, payload, fds=[fd])
    guest.run()
    requests = [guest.submit(guest.prepare(blk.T_OUT, 100 + i, data=bytes([i + 1]) * 512)) for i in range(16)]
    assert not guest.queue.wait(1, 0.2)
    second = first
    if end == "disconnect":
        guest.client.close()
    else:
        if end == "kill":
            first.kill()
        else:
            assert first.stop() == 0
        second = serve(image, transport="vhost-user")
    assert owner.stop() == 0

    client = second.connect()
    client.handshake()
    go_on(guest, client, payload, fd)
    done = guest.queue.wait(16)
    assert sorted(head for head, _ in done) == sorted(request.head for request in requests), "each once"
    for i, request in enumerate(requests):
        assert guest.result(request, 1).status == blk.S_OK
        assert guest.read(100 + i, 1) == bytes([i + 1]) * 512
    os.close(fd)
    guest.close()


def test_r01_a_broken_vring_is_told_once(serve, image, packed):
    """A change of the configuration afterwards is another matter; the next break is told again."""
    server = serve(image, transport="vhost-user")
    guest = server.guest(packed=packed)
    channel = guest.channel()
    for _ in range(2):
        guest.queue.put_chain((BASE, 17, INDIRECT))
        guest.kick()
        guest.assert_broken()
        guest.error_events[0].clear()
        for number in range(2):
            os.truncate(image, (9 + number) << 20)
            server.signal(signal.SIGHUP)
            message = channel.recv_any()  # that the configuration has changed; there is nothing else to say
            channel.send_bytes(vhost.pack(message.request, U64.pack(0), flags=vhost.VERSION | vhost.REPLY))
            guest.client.fence()
            assert not guest.error_events[0].pending()
        guest.restart()
    guest.assert_works()
    channel.close()


@pytest.mark.parametrize("way", ["stopped", "stopped and given the log", "disabled"])
def test_p01_a_vring_that_is_stopped_fails_nothing_that_was_not_begun(serve, image, packed, way):
    """As QEMU's `stop` does it, while requests wait for the image's lock: they stay in flight in the log, and are done when the vring
    goes on."""
    owner = serve(image)
    owner.guest().assert_works()
    guest = serve(image, transport="vhost-user").guest(packed=packed)
    guest.stop_vring(0)
    payload, fd = get_inflight(guest)
    guest.client.tell(Req.SET_INFLIGHT_FD, payload, fds=[fd])
    guest.run()
    requests = [guest.submit(guest.prepare(blk.T_OUT, 100 + i, data=bytes([i + 1]) * 512)) for i in range(16)]
    assert not guest.queue.wait(1, 0.2)
    for _ in range(3):
        if way == "disabled":
            guest.client.tell(Req.SET_VRING_ENABLE, state(0, 0))
            guest.client.tell(Req.SET_VRING_ENABLE, state(0, 1))
        else:
            base = guest.stop_vring(0)
            if way != "stopped":
                guest.client.tell(Req.SET_INFLIGHT_FD, payload, fds=[fd])
            guest.start_vring(0, base)
        assert not guest.queue.given_back()
    assert owner.stop() == 0
    done = guest.queue.wait(16)
    assert sorted(head for head, _ in done) == sorted(request.head for request in requests), "each once"
    for i, request in enumerate(requests):
        assert guest.result(request, 1).status == blk.S_OK
        assert guest.read(100 + i, 1) == bytes([i + 1]) * 512
    os.close(fd)


def test_p01_a_vring_that_begins_anew_forgets_what_was_left(serve, image, packed):
    """A guest that is reset in the meantime has other rings in the same place."""
    owner = serve(image)
    owner.guest().assert_works()
    guest = serve(image, transport="vhost-user").guest(packed=packed)
    guest.stop_vring(0)
    payload, fd = get_inflight(guest)
    guest.client.tell(Req.SET_INFLIGHT_FD, payload, fds=[fd])
    guest.run()
    for i in range(4):
        guest.submit(guest.prepare(blk.T_OUT, 100 + i, data=bytes([i + 1]) * 512))
    assert not guest.queue.wait(1, 0.2)
    guest.restart()
    assert owner.stop() == 0
    guest.assert_works()
    assert not guest.broken
    os.close(fd)
