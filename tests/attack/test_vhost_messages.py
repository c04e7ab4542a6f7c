# SPDX-License-Identifier: BSD-3-Clause
"""Rows W and F over vhost-user: requests of every bad shape, and what comes with them.

REFUSE is an error in the acknowledgement, where the front end asked for one; else the session ends (DROP), since the
front end would go on as if the request had been done."""

import os
import select
import signal
import socket
import struct
import time

import pytest

from pylib import blk, vhost, virtio
from pylib.client import Closed, NoReply
from pylib.events import PATIENCE, Canary, EventFd, wait_until
from pylib.memory import GuestMemory
from pylib.vhost import NEED_REPLY, REPLY, U64, VERSION, P, Req, config, region, slot, state, table
from pylib.vm import BASE, USUAL_FEATURES

REQUESTS = {  # good sizes of payloads, for those that a back end of this kind knows
    Req.SET_FEATURES: 8, Req.SET_VRING_NUM: 8, Req.SET_VRING_ADDR: 40, Req.SET_VRING_BASE: 8, Req.SET_VRING_KICK: 8,
    Req.SET_VRING_CALL: 8, Req.SET_VRING_ERR: 8, Req.SET_PROTOCOL_FEATURES: 8, Req.SET_VRING_ENABLE: 8, Req.SET_MEM_TABLE: 8,
    Req.SET_CONFIG: 12, Req.ADD_MEM_REG: 40, Req.REM_MEM_REG: 40, Req.SET_STATUS: 8, Req.SET_OWNER: 0, Req.RESET_DEVICE: 0,
}


def features(front, wanted=USUAL_FEATURES):
    """Sets what is wanted of what is offered."""
    front.tell(Req.SET_FEATURES, U64.pack(wanted & front.fence() | vhost.F_PROTOCOL_FEATURES))


# --- what is offered ----------------------------------------------------------------------------------------

def test_conformance_features_that_end_at_the_vmm_are_not_offered(front):
    offered = front.fence()
    assert offered & virtio.F_VERSION_1 and offered & virtio.F_RING_PACKED and offered & vhost.F_PROTOCOL_FEATURES
    assert not offered & (virtio.F_RING_RESET | virtio.F_NOTIFICATION_DATA | vhost.F_LOG_ALL)


def test_conformance_every_protocol_feature_that_is_offered_has_its_requests(front):
    assert front.ask(Req.GET_QUEUE_NUM).value == 4
    assert front.ask(Req.GET_MAX_MEM_SLOTS).value >= 32
    assert front.ask(Req.GET_STATUS).value == 0
    assert len(front.ask(Req.GET_CONFIG, config(0, 60)).payload) == 72
    front.tell(Req.RESET_DEVICE)


@pytest.mark.parametrize("request_", [Req.GET_QUEUE_NUM, Req.GET_MAX_MEM_SLOTS, Req.GET_STATUS, Req.GET_CONFIG])
def test_w10_requests_of_protocol_features_that_were_not_set_end_the_session(vhost_server, request_):
    front = vhost_server.connect()
    front.handshake(0)
    front.send(request_, config(0, 8) if request_ == Req.GET_CONFIG else b"")
    assert not front.dropped()


def test_w10_without_protocol_features_a_vring_runs_from_its_kick(vhost_server):
    """And its table of memory comes at once, as from the oldest of front ends."""
    front = vhost_server.connect()
    guest = vhost.VhostGuest(front)
    guest.config = blk.Config(*[0] * 19)
    guest._options = {"features": USUAL_FEATURES, "queues": 1, "queue_size": 64, "packed": False}
    with GuestMemory(1 << 20) as memory:
        front.tell(Req.SET_OWNER)
        guest.space.add(BASE, 1 << 20, memory)
        guest.virtio.features = USUAL_FEATURES & front.fence()
        front.send(Req.SET_FEATURES, U64.pack(guest.virtio.features))
        guest.set_table()
        guest.queues = [vhost.SplitQueue(guest.space, 64)]
        kick, call = guest.event(), guest.event()
        guest.kick_events, guest.queue_events = [kick], [call]
        front.send(Req.SET_VRING_NUM, state(0, 64))
        front.send(Req.SET_VRING_BASE, state(0, 0))
        front.send(Req.SET_VRING_ADDR, vhost.addresses(0, guest.queue))
        front.send(Req.SET_VRING_CALL, U64.pack(0), fds=[call.fd])
        front.send(Req.SET_VRING_KICK, U64.pack(0), fds=[kick.fd])
        guest.assert_works()
        assert guest.stop_vring(0) == 2
    guest.close()


# --- framing ------------------------------------------------------------------------------------------------

def test_w01_a_request_a_byte_at_a_time_is_handled(front):
    for byte in vhost.pack(Req.GET_FEATURES):
        front.send_bytes(bytes([byte]))
        time.sleep(0.001)
    assert front.reply(Req.GET_FEATURES).value
    with GuestMemory(4096) as memory:
        whole = vhost.pack(Req.ADD_MEM_REG, slot(BASE, 4096), flags=VERSION | NEED_REPLY)
        front.send_bytes(whole[:1], [memory.fd])
        for byte in whole[1:]:
            front.send_bytes(bytes([byte]))
        assert front.reply(Req.ADD_MEM_REG).value == 0


def test_w01_many_requests_at_once_are_answered_in_order(front):
    front.send_bytes(b"".join(vhost.pack(request) for request in [Req.GET_QUEUE_NUM, Req.GET_FEATURES, Req.GET_STATUS] * 100))
    for request in [Req.GET_QUEUE_NUM, Req.GET_FEATURES, Req.GET_STATUS] * 100:
        front.reply(request)


def test_w02_a_request_whose_rest_does_not_come_ends_the_session(vhost_server):
    front = vhost_server.connect()
    front.fence()
    front.send_bytes(vhost.pack(Req.SET_FEATURES, bytes(8))[:15])
    assert front.silent(3.0)
    assert not front.dropped(4.0)


def test_w02_each_request_has_its_own_time(vhost_server):
    """The end of one and the beginning of the next come together, for longer than one may take."""
    front = vhost_server.connect()
    request = vhost.pack(Req.GET_FEATURES)
    front.send_bytes(request[:6])
    for _ in range(7):
        assert front.silent(1.0)
        front.send_bytes(request[6:] + request[:6])
        front.reply(Req.GET_FEATURES)
    front.send_bytes(request[6:])
    front.reply(Req.GET_FEATURES)


def test_w02_requests_without_end_leave_others_their_turns(vhost_server):
    """Thousands are there at once, the last of which changes who is told of completions: all that a vring has to do is done long
    before its turn comes."""
    guest = vhost_server.guest(queue_size=1024, features=USUAL_FEATURES & ~virtio.F_EVENT_IDX)
    with EventFd() as late:
        vhost_server.signal(signal.SIGSTOP)
        try:
            for _ in range(300):
                guest.submit(guest.prepare(blk.T_IN, 0, length=512), kick=False)
            guest.kick()
            guest.client.send_bytes(vhost.pack(Req.SET_OWNER) * 2000)
            guest.client.send(Req.SET_VRING_CALL, U64.pack(0), fds=[late.fd])
        finally:
            vhost_server.signal(signal.SIGCONT)
        assert len(guest.queue.wait(300)) == 300
        guest.client.fence()
        assert not late.pending()


def test_w02_a_front_end_that_says_nothing_makes_room_for_the_next(vhost_server):
    idle, next_one = vhost_server.connect(), vhost_server.connect()
    next_one.send(Req.GET_FEATURES)
    assert not idle.dropped(12.0)
    next_one.reply(Req.GET_FEATURES)


def test_w02_a_front_end_that_reads_no_replies_is_not_read_from_and_takes_no_memory(vhost_server):
    front = vhost_server.connect()
    before = vhost_server.resident_bytes()
    front.sock.setblocking(False)
    message, sent = vhost.pack(Req.GET_FEATURES) * 1000, 0
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        try:
            sent += front.sock.send(message)
        except BlockingIOError:
            time.sleep(0.01)
    assert sent < 16 << 20, "the server reads on and on"
    vhost_server.assert_grew_less(before, 4 << 20)
    front.sock.setblocking(True)
    for _ in range(sent // 12):
        front.reply(Req.GET_FEATURES)


@pytest.mark.parametrize("size", [329, 4096, 1 << 20, 0x7FFFFFFF, 0xFFFFFFF4, 0xFFFFFFFF])
def test_w03_a_request_larger_than_any_ends_the_session_at_once(vhost_server, size):
    front = vhost_server.connect()
    before = vhost_server.resident_bytes()
    front.send_bytes(vhost.pack(Req.SET_MEM_TABLE, size=size))
    assert not front.dropped()
    vhost_server.assert_grew_less(before, 1 << 20)


@pytest.mark.parametrize("request_", REQUESTS)
@pytest.mark.parametrize("difference", [-8, -1, 1, 8])
def test_w04_a_payload_of_another_size_than_its_structure_is_refused(front, request_, difference):
    size = REQUESTS[request_] + difference
    if size < 0 or (request_ in (Req.SET_MEM_TABLE, Req.SET_CONFIG) and difference > 0):
        pytest.skip("that is a size that may be")
    fds = [os.open("/dev/null", os.O_RDONLY)] if request_ == Req.ADD_MEM_REG else []
    front.refused(request_, bytes(size), fds=fds)
    for fd in fds:
        os.close(fd)
    front.fence()


@pytest.mark.parametrize("count, regions", [(9, 8), (8, 7), (2, 1), (0xFFFFFFFF, 1), (0x08000001, 1), (1, 0)])
def test_w05_a_table_with_another_count_than_regions_is_refused(front, count, regions):
    with GuestMemory(1 << 16) as memory:
        payload = table(*(region(BASE + i * 4096, 4096) for i in range(regions)), count=count)
        front.refused(Req.SET_MEM_TABLE, payload, fds=[memory.fd] * regions)
    front.fence()


@pytest.mark.parametrize("index", [4, 5, 255, 256, 65535, 65536, 0x10001, 0xFFFFFFFF])
def test_w06_a_vring_that_is_not_there_is_refused(front, index):
    features(front)
    for request in (Req.SET_VRING_NUM, Req.SET_VRING_BASE, Req.SET_VRING_ENABLE):
        front.refused(request, state(index, 1))
    front.refused(Req.SET_VRING_ADDR, struct.pack("<IIQQQQ", index, 0, 0, 0, 0, 0))
    front.fence()


@pytest.mark.parametrize("value", [4, 255, 0x200, 0x10000, 1 << 32, (1 << 64) - 1])
@pytest.mark.parametrize("request_", [Req.SET_VRING_KICK, Req.SET_VRING_CALL, Req.SET_VRING_ERR])
def test_w06_fds_for_a_vring_that_is_not_there_are_refused_and_closed(front, request_, value):
    with EventFd() as event:
        front.refused(request_, U64.pack(value), fds=[event.fd])
    front.fence()


@pytest.mark.parametrize("request_", [0, 6, 7, 19, 20, 23, 26, 30, 33, 41, 44, 255, 65537, 0xFFFFFFFF])
def test_w07_an_unknown_request_is_refused(front, request_):
    front.refused(request_)
    front.fence()


@pytest.mark.parametrize("flags", [0, 2, 3, VERSION | REPLY, VERSION | 16, VERSION | 1 << 31])
def test_w07_wrong_versions_replies_and_unknown_flags_are_refused(front, flags):
    front.send(Req.SET_OWNER, flags=flags | NEED_REPLY)
    assert front.reply(Req.SET_OWNER).value != 0
    front.fence()


@pytest.mark.parametrize("request_", [Req.SET_VRING_NUM, Req.SET_FEATURES, 44])
def test_w07_what_is_refused_without_an_acknowledgement_ends_the_session(vhost_server, request_):
    front = vhost_server.connect()
    front.handshake()
    front.send(request_, U64.pack((1 << 64) - 1))
    assert not front.dropped()


# --- repeated for ever --------------------------------------------------------------------------------------

def test_w12_the_same_requests_for_ever_leave_memory_constant(vhost_server):
    guest = vhost_server.guest()
    windows = guest.space.windows
    spare = guest.client

    def turn(count):
        for i in range(count):
            spare.tell(Req.SET_VRING_NUM, state(1, 64 << i % 3))
            guest.set_table()
            with EventFd() as event:
                spare.tell(Req.SET_VRING_CALL, U64.pack(1), fds=[event.fd])
                spare.tell(Req.SET_VRING_KICK, U64.pack(0), fds=[guest.kick_events[0].fd])
            guest.channel().close()
    turn(100)
    before, fds = vhost_server.resident_bytes(), vhost_server.fd_count()
    turn(1000)
    vhost_server.assert_grew_less(before, 2 << 20)
    assert vhost_server.fd_count() <= fds + 1
    assert len(windows) == 1
    guest.assert_works()


# --- configuration and features -----------------------------------------------------------------------------

@pytest.mark.parametrize("offset, size", [(0, 257), (256, 1), (255, 2), (0xFFFFFFFF, 1), (0xFFFFFFFF, 0xFFFFFFFF), (1, 0xFFFFFFFF)])
def test_w18_configuration_past_its_end_is_an_empty_reply(front, offset, size):
    front.send(Req.GET_CONFIG, vhost.CONFIG.pack(offset, size, 0) + bytes(min(size, 256)))
    assert front.reply(Req.GET_CONFIG).payload == b""
    front.fence()


def test_w18_configuration_behind_the_devices_own_is_zero(front):
    whole = front.ask(Req.GET_CONFIG, config(0, 256)).payload[12:]
    assert whole[60:] == bytes(196) and whole[:8] == (32768).to_bytes(8, "little")
    for offset in range(0, 256, 7):
        assert front.ask(Req.GET_CONFIG, config(offset, 5 if offset < 250 else 1)).payload[12:13] == whole[offset:offset + 1]


@pytest.mark.parametrize("offset, size", [(0, 256), (200, 1), (59, 8), (0xFFFFFFFF, 1), (0xFFFFFFFF, 2)])
def test_w18_a_write_past_the_configuration_is_refused(front, offset, size):
    front.refused(Req.SET_CONFIG, config(offset, size))
    front.refused(Req.SET_CONFIG, vhost.CONFIG.pack(32, 8, 0) + b"x")
    front.fence()


def test_w18_a_write_to_what_is_read_only_is_not_accepted(vhost_server):
    """Nothing is said of it to a front end that does not ask: a guest's write is not worth its session."""
    front = vhost_server.connect()
    front.handshake()
    before = front.ask(Req.GET_CONFIG, config(0, 60)).payload[12:]
    changed = bytes([before[0] ^ 1]) + before[1:]
    front.refused(Req.SET_CONFIG, config(0, 60, changed))
    front.tell(Req.SET_CONFIG, config(0, 60, before))
    front.send(Req.SET_CONFIG, config(0, 60, changed))
    assert front.ask(Req.GET_CONFIG, config(0, 60)).payload[12:] == before


def test_conformance_the_write_cache_is_switched_by_the_configuration_and_stays_over_resets(vhost_guest):
    """A VMM shows its guest what it set last, over resets too: the device must not fall back behind its back."""
    assert vhost_guest.config.writeback == 1
    vhost_guest.virtio.config_write(blk.OFF_WRITEBACK, b"\0")
    assert vhost_guest.virtio.config_read(blk.OFF_WRITEBACK, 1) == b"\0"
    vhost_guest.restart()
    assert vhost_guest.virtio.config_read(blk.OFF_WRITEBACK, 1) == b"\0"
    vhost_guest.client.tell(Req.SET_STATUS, U64.pack(0))
    vhost_guest.set_features()
    vhost_guest.run()
    assert vhost_guest.virtio.config_read(blk.OFF_WRITEBACK, 1) == b"\0"
    vhost_guest.assert_works()


@pytest.mark.parametrize("bit", [3, 24, 26, 38, 40, 41, 63])
def test_w19_a_feature_that_was_not_offered_is_refused(front, bit):
    front.refused(Req.SET_FEATURES, U64.pack(virtio.F_VERSION_1 | 1 << bit))
    features(front)


def test_w19_protocol_features_that_were_not_offered_are_refused(front):
    offered = front.ask(Req.GET_PROTOCOL_FEATURES).value
    for bit in range(64):
        if not offered >> bit & 1:
            front.refused(Req.SET_PROTOCOL_FEATURES, U64.pack(1 << bit))
    front.fence()


def test_w19_other_features_are_refused_while_vrings_run_and_the_same_ones_are_taken(vhost_guest):
    same = U64.pack(vhost_guest.virtio.features | vhost.F_PROTOCOL_FEATURES)
    vhost_guest.client.refused(Req.SET_FEATURES, U64.pack(virtio.F_VERSION_1 | vhost.F_PROTOCOL_FEATURES))
    vhost_guest.client.tell(Req.SET_FEATURES, same)
    vhost_guest.assert_works()


def test_w19_a_driver_without_version_1_is_refused(front):
    front.refused(Req.SET_FEATURES, U64.pack(vhost.F_PROTOCOL_FEATURES))
    front.fence()


# --- connections --------------------------------------------------------------------------------------------

def conversation():
    """The requests of a good start, each with what it takes of fds."""
    yield vhost.pack(Req.GET_FEATURES), 0
    yield vhost.pack(Req.SET_PROTOCOL_FEATURES, U64.pack(P.CONFIG | P.REPLY_ACK)), 0
    yield vhost.pack(Req.SET_OWNER, flags=VERSION | NEED_REPLY), 0
    yield vhost.pack(Req.GET_CONFIG, config(0, 60)), 0
    yield vhost.pack(Req.SET_MEM_TABLE, table(region(BASE, 1 << 20)), flags=VERSION | NEED_REPLY), 1
    yield vhost.pack(Req.SET_VRING_CALL, U64.pack(0), flags=VERSION | NEED_REPLY), 1


@pytest.mark.parametrize("last", range(6))
def test_w20_a_front_end_may_go_at_every_byte_of_every_request(vhost_server, last):
    messages = list(conversation())
    with GuestMemory(1 << 20) as memory, EventFd() as event:
        for cut in range(0, len(messages[last][0]) + 1, 3):
            front = vhost_server.connect()
            for number, (data, fds) in enumerate(messages[:last + 1]):
                fd = [memory.fd if number == 4 else event.fd] if fds else []
                front.send_bytes(data[:cut] if number == last and cut else data, fd)
            front.close()
    vhost_server.assert_fds_back()


def test_w21_a_second_front_end_waits_until_the_first_has_gone(vhost_server):
    first = vhost_server.guest()
    second = vhost_server.connect()
    second.send(Req.GET_FEATURES)
    with pytest.raises(NoReply):
        second.recv_any(0.2)
    first.assert_works()
    first.close()
    second.reply(Req.GET_FEATURES)


def test_p02_a_vmm_that_dies_with_requests_in_flight_leaves_nothing(vhost_server, packed):
    guest = vhost_server.guest(queues=4, packed=packed)
    for queue in range(4):
        for _ in range(16):
            guest.submit(guest.prepare(blk.T_OUT, queue, data=bytes(512), queue=queue), kick=False)
        guest.kick(queue)
    guest.close()
    vhost_server.handed_out.remove(guest)
    vhost_server.assert_fds_back()
    vhost_server.assert_serves()


# --- fds ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("request_, payload, fds", [
    (Req.SET_OWNER, b"", 1), (Req.SET_FEATURES, bytes(8), 1), (Req.SET_VRING_NUM, state(0, 64), 1),
    (Req.SET_VRING_CALL, U64.pack(0), 2), (Req.SET_VRING_CALL, U64.pack(0), 8), (Req.SET_VRING_CALL, U64.pack(0), 9),
    (Req.SET_VRING_CALL, U64.pack(0), 200), (Req.ADD_MEM_REG, slot(BASE, 4096), 2), (Req.SET_MEM_TABLE, table(), 1),
    (Req.SET_VRING_CALL, U64.pack(vhost.NO_FD), 1), (Req.SET_BACKEND_REQ_FD, b"", 2),
])
def test_f01_more_fds_than_the_request_takes_are_closed_and_it_is_refused(front, request_, payload, fds):
    canary = Canary()
    front.refused(request_, payload, fds=[canary.lent] * fds)
    assert canary.returned()
    canary.close()
    front.fence()


@pytest.mark.parametrize("length", range(0, 21, 4))
def test_f02_fds_of_a_request_that_is_cut_off_are_closed(vhost_server, length):
    canary = Canary()
    front = vhost_server.connect()
    front.send_bytes(vhost.pack(Req.SET_VRING_CALL, U64.pack(0))[:max(length, 1)], [canary.lent] * 3)
    front.close()
    assert canary.returned()
    canary.close()


def test_f03_several_blocks_of_fds_are_all_counted(front):
    canary = Canary()
    front.send_bytes(vhost.pack(Req.SET_VRING_CALL, U64.pack(0), flags=VERSION | NEED_REPLY), blocks=[[canary.lent], [canary.lent]])
    assert front.reply(Req.SET_VRING_CALL).value != 0
    assert canary.returned()
    canary.close()


@pytest.mark.parametrize("request_, payload", [
    (Req.SET_VRING_CALL, U64.pack(0)), (Req.SET_VRING_KICK, U64.pack(0)), (Req.SET_VRING_ERR, U64.pack(0)),
    (Req.ADD_MEM_REG, slot(BASE, 4096)), (Req.SET_BACKEND_REQ_FD, b""), (Req.SET_MEM_TABLE, table(region(BASE, 4096))),
])
def test_f04_no_fd_where_one_is_due_is_refused(front, request_, payload):
    front.refused(request_, payload)
    front.fence()


@pytest.mark.parametrize("request_", [Req.SET_VRING_KICK, Req.SET_VRING_CALL, Req.SET_VRING_ERR])
@pytest.mark.parametrize("kind", ["pipe", "file", "directory", "socket"])
def test_f07_something_else_than_an_eventfd_is_refused(front, request_, kind):
    ends = socket.socketpair()
    pipe = os.pipe()
    made = {"pipe": pipe[1], "file": os.open("/dev/null", os.O_RDWR), "directory": os.open("/", os.O_RDONLY),
            "socket": ends[0].fileno()}
    front.refused(request_, U64.pack(0), fds=[made[kind]])
    front.fence()
    for end in ends:
        end.close()
    for fd in (*pipe, made["file"], made["directory"]):
        os.close(fd)


def test_f07_a_full_blocking_eventfd_as_call_does_not_block(vhost_server):
    guest = vhost_server.guest()
    with EventFd(blocking=True, value=(1 << 64) - 2) as full:
        guest.client.tell(Req.SET_VRING_CALL, U64.pack(0), fds=[full.fd])
        for _ in range(10):
            guest.assert_works()


def test_f09_one_eventfd_as_kick_call_and_error_is_harmless(vhost_server):
    guest = vhost_server.guest()
    with EventFd() as event:
        for request in (Req.SET_VRING_CALL, Req.SET_VRING_ERR, Req.SET_VRING_KICK):
            guest.client.tell(request, U64.pack(0), fds=[event.fd])
        guest.kick_events[0] = event
        guest.assert_works()
        cpu = vhost_server.cpu_seconds()
        time.sleep(0.3)
        assert vhost_server.cpu_seconds() - cpu < 0.2, "the queue kicks itself"


def test_f09_our_own_socket_as_the_channel_is_refused_or_harmless(vhost_server):
    front = vhost_server.connect()
    front.handshake()
    try:
        front.acknowledged(Req.SET_BACKEND_REQ_FD, fds=[front.sock.fileno()])
        front.fence()
    except (Closed, NoReply):
        pass


# --- the back end's channel ---------------------------------------------------------------------------------

def test_conformance_a_resized_disk_is_told_on_the_channel(serve, workdir):
    image = workdir.file("disk.img", size=8 << 20)
    server = serve(image, transport="vhost-user")
    guest = server.guest()
    channel = guest.channel()
    os.truncate(image, 16 << 20)
    server.signal(1)  # SIGHUP
    message = channel.recv_any()
    assert (message.request, message.flags & ~NEED_REPLY, message.payload) == (2, VERSION, b"")
    assert blk.parse_config(guest.virtio.config_read(0, 60)).capacity == 32768
    channel.close()
    os.truncate(image, 24 << 20)
    server.signal(1)
    assert wait_until(lambda: blk.parse_config(guest.virtio.config_read(0, 60)).capacity == 49152)
    guest.assert_works()


def test_w02_a_channel_that_is_not_read_is_not_waited_for(serve, workdir):
    image = workdir.file("disk.img", size=8 << 20)
    server = serve(image, transport="vhost-user")
    guest = server.guest()
    channel = guest.channel()
    for i in range(300):
        os.truncate(image, (8 << 20) + 4096 * (i + 1))
        server.signal(1)
        guest.client.fence()
    guest.assert_works()
    assert select.select([channel.sock], [], [], PATIENCE)[0]
    channel.close()


def test_f09_our_own_socket_as_the_channel_is_refused_when_it_comes(vhost_server):
    """Not when something arrives on it, which may be a reply of ours."""
    with vhost_server.connect() as front:
        front.handshake()
        front.refused(Req.SET_BACKEND_REQ_FD, fds=[front.sock.fileno()])
        front.fence()
