# SPDX-License-Identifier: BSD-3-Clause
"""Rows W1 to W3, W20, W21: messages in pieces, sizes that lie, sessions that end anywhere, a second client."""

import os
import select
import socket
import struct
import threading
import time
from contextlib import suppress

import pytest

from pylib import blk, wire
from pylib.cards import Cards
from pylib.client import Client, Closed
from pylib.events import PATIENCE, EventFd, TooSlow, timed, wait_until, within
from pylib.memory import GuestMemory
from pylib.server import Workdir
from pylib.wire import Cmd

# --- W1 -----------------------------------------------------------------------------------------------------


def drip(client, raw, pause=0.0):
    for i in range(len(raw)):
        client.send_bytes(raw[i:i + 1])
        if pause:
            time.sleep(pause)


def test_w01_version_sent_one_byte_at_a_time_is_answered(server):
    client = server.connect()
    drip(client, wire.pack(Cmd.VERSION, wire.version(wire.OUR_CAPS), msg_id=5), 0.0005)
    reply = client.reply_to(5)
    assert not reply.is_error
    client.fence()


@pytest.mark.parametrize("name", sorted(wire.well_formed()))
def test_w01_message_sent_one_byte_at_a_time_gets_the_same_answer_as_in_one_piece(client, name):
    cmd, payload = wire.well_formed()[name]
    whole = client.exchange(cmd, payload)
    if cmd == Cmd.DMA_MAP:
        client.dma_unmap(0x1000_0000, 0x10000)
    drip(client, wire.pack(cmd, payload, msg_id=0x700))
    pieces = client.reply_to(0x700)
    assert (pieces.flags, pieces.errno, pieces.payload) == (whole.flags, whole.errno, whole.payload)
    client.fence()


def test_w01_fd_that_comes_with_a_later_byte_of_its_message_is_not_lost(client):
    """A client may send header and body by two calls and attach the fd to either."""
    with GuestMemory(0x10000) as memory:
        raw = wire.pack(Cmd.DMA_MAP, wire.dma_map(0x1000_0000, 0x10000), msg_id=9)
        client.send_bytes(raw[:16])
        time.sleep(0.02)
        client.send_bytes(raw[16:], fds=[memory.fd])
        assert not client.reply_to(9).is_error
    client.fence()


def test_w01_large_write_split_at_awkward_places_arrives_whole(guest):
    """A REGION_WRITE's body in several reads, with another message glued to its end."""
    raw = wire.pack(Cmd.REGION_WRITE, wire.region_write(wire.CONFIG, wire.ROM, b"\0"), msg_id=1)
    raw += wire.pack(Cmd.REGION_READ, wire.region_read(wire.CONFIG, 0, 4096), msg_id=2)
    raw += wire.pack(Cmd.GET_INFO, wire.device_info(), msg_id=3)
    for cut in (1, 15, 16, 17, 31, 32, 33, 34, 50, 64, len(raw) - 1):
        guest.client.send_bytes(raw[:cut])
        time.sleep(0.002)
        guest.client.send_bytes(raw[cut:])
        replies = [guest.client.recv() for _ in range(3)]
        assert [reply.msg_id for reply in replies] == [1, 2, 3]
        assert not any(reply.is_error for reply in replies)


def test_w01_slow_header_leaves_the_io_of_the_same_session_going(guest):
    """Half a header is kept as a cursor: the queue still works, because nobody waits for the other half."""
    request = guest.prepare(blk.T_IN, 0, length=512)
    guest.submit(request, kick=False)
    notify = wire.pack(Cmd.REGION_WRITE, wire.region_write(wire.BAR4, 0x3000, b"\0\0"), flags=wire.NO_REPLY)
    guest.client.send_bytes(notify + wire.pack(Cmd.GET_INFO, wire.device_info(), msg_id=77)[:7])
    assert guest.finish(request).status == blk.S_OK
    guest.client.send_bytes(wire.pack(Cmd.GET_INFO, wire.device_info(), msg_id=77)[7:])
    assert guest.client.reply_to(77).msg_id == 77


# --- W2: deadlines. All clients below stall at the same time, each at a card of its own in one process. ---------------------

PARTIAL_HEADER = wire.pack(Cmd.GET_INFO, wire.device_info())[:9]
HEADER_ONLY = wire.pack(Cmd.REGION_WRITE, size=16 + 16 + 4096)
HALF_BODY = wire.pack(Cmd.REGION_WRITE, wire.region_write(wire.CONFIG, 0, b"", count=4096), size=16 + 16 + 4096)
STALLS = {
    # name: (handshake first, bytes, deadline in seconds). VERSION itself has the handshake's.
    "half a header": (True, PARTIAL_HEADER, wire.PARTIAL_DEADLINE_S),
    "a header and no body": (True, HEADER_ONLY, wire.PARTIAL_DEADLINE_S),
    "half a body": (True, HALF_BODY, wire.PARTIAL_DEADLINE_S),
    "a dripping body": (True, HEADER_ONLY, wire.PARTIAL_DEADLINE_S),
    "half a VERSION": (False, wire.pack(Cmd.VERSION, wire.version({}))[:20], wire.PARTIAL_DEADLINE_S),
    "silence before VERSION": (False, b"", wire.HANDSHAKE_DEADLINE_S),
    "silence after VERSION": (True, b"", None),
}


class Stalls:
    """Runs them all at once, about 11 s, while a guest of the same loop goes on."""

    def __init__(self, folder):
        self.seconds = {}  # until a stalled client was dropped
        self.unclean = set()
        self.turns = 0     # of the guest's, until the first was dropped
        device = os.environ.get("SIDECARD_DEVICE", "virtio-blk")
        self.server = Cards(folder, [{"socket": str(folder.path / f"c{number}"), "device": device, "backend": "ram:16M"}
                                     for number in range(len(STALLS) + 1)]).start()

    def run(self):
        guest = self.server.guest_of(len(STALLS))
        began, clients = {}, {}
        for number, (name, (handshake, raw, _)) in enumerate(STALLS.items()):
            clients[name] = Client.connect(self.server.path_of(self.server.cards[number]))
            if handshake:
                clients[name].handshake()
            began[name] = time.monotonic()
            clients[name].send_bytes(raw)
        self.waiting = Client.connect(self.server.path_of(self.server.cards[list(STALLS).index("silence before VERSION")]))
        self.waiting.send(Cmd.VERSION, wire.version(wire.OUR_CAPS))
        end, drips = time.monotonic() + PATIENCE, 1
        while len(self.seconds) < len(STALLS) - 1 and time.monotonic() < end:
            guest.assert_works()
            self.turns += not self.seconds
            if time.monotonic() >= began["a dripping body"] + drips and "a dripping body" not in self.seconds:
                drips += 1
                with suppress(OSError):
                    clients["a dripping body"].send_bytes(b"x")
            for name, client in clients.items():
                if name not in self.seconds and not client.silent(0.005):
                    self.seconds[name] = time.monotonic() - began[name]
                    try:
                        if not all(message.is_error for message in client.dropped()):
                            self.unclean.add(name)
                    except AssertionError:
                        self.unclean.add(name)
        self.waiting_was_served = not self.waiting.recv().is_error
        for client in [*clients.values(), self.waiting]:
            client.close()
        return self


@timed
def stall_all(folder):
    stalls = Stalls(folder)
    try:
        stalls.run()
        stalls.server.finish()
    finally:
        stalls.server.kill()
    late = [name for name, seconds in stalls.seconds.items() if seconds > STALLS[name][2] + 1.5]
    if late or stalls.turns < 10:
        raise TooSlow(f"a neighbour wrote and read {stalls.turns} times, and these were dropped late: {late}")
    return stalls


@pytest.fixture(scope="module")
def stalled():
    folder = Workdir()
    yield stall_all(folder)
    folder.remove()


@pytest.mark.parametrize("name", [name for name, stall in STALLS.items() if stall[2] is not None])
def test_w02_stalled_peer_is_dropped_at_its_deadline(stalled, name):
    deadline = STALLS[name][2]
    assert name in stalled.seconds, f"{name}: not dropped"
    assert stalled.seconds[name] >= deadline - 0.5, f"{name}: dropped after {stalled.seconds[name]:.2f} s, {deadline} s is said"
    assert name not in stalled.unclean, f"{name}: the session didn't end by an orderly end of file"


def test_w02_idle_session_between_messages_has_no_deadline(stalled):
    assert "silence after VERSION" not in stalled.seconds


def test_w02_neighbours_io_does_not_feel_a_stalled_peer(stalled):
    assert stalled.turns >= 10


def test_w02_client_in_the_backlog_is_served_when_the_silent_one_is_dropped(stalled):
    assert stalled.waiting_was_served


@timed
def test_w02_peer_that_never_reads_its_replies_does_not_stop_an_orderly_end(serve):
    server = serve()
    client = server.client()
    client.sock.setblocking(False)
    before = server.resident_bytes()
    request = wire.pack(Cmd.REGION_READ, wire.region_read(wire.CONFIG, 0, 4096))
    sent = 0
    end = time.monotonic() + 3
    while sent < (16 << 20) and time.monotonic() < end:
        try:
            sent += client.sock.send(request * 64)
        except BlockingIOError:
            if not wait_until(lambda: writable(client.sock), 0.3):
                break
    server.assert_grew_less(before, 128 << 20)
    with within(5):
        assert server.stop() == 0


def writable(sock):
    return bool(select.select([], [sock], [], 0)[1])


def test_w02_peer_that_reads_its_replies_late_gets_all_of_them(client):
    """Pipelined: 2000 reads of 4096 bytes (8 MiB of replies) are asked for before the first is read."""
    count = 2000
    raw = b"".join(wire.pack(Cmd.REGION_READ, wire.region_read(wire.CONFIG, 0, 4096), msg_id=i) for i in range(count))
    writer = threading.Thread(target=client.send_bytes, args=(raw,))
    writer.start()
    time.sleep(0.1)
    for i in range(count):
        reply = client.recv()
        assert (reply.msg_id, reply.is_error, len(reply.payload)) == (i, False, 16 + 4096)
    writer.join()
    client.fence()


# --- W3 -----------------------------------------------------------------------------------------------------

BAD_SIZES = [0, 1, 15, wire.MAX_MESSAGE + 1, 1 << 24, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFF]


@pytest.mark.parametrize("size", BAD_SIZES)
def test_w03_msg_size_below_the_header_or_above_the_limit_drops_the_session(server, size):
    client = server.client()
    before = server.resident_bytes()
    client.send(Cmd.REGION_WRITE, size=size)
    client.dropped()
    server.assert_grew_less(before, 8 << 20)


@pytest.mark.parametrize("size", BAD_SIZES)
def test_w03_msg_size_out_of_bounds_in_version_drops_the_session(server, size):
    client = server.connect()
    client.send(Cmd.VERSION, size=size)
    client.dropped()


def test_w03_bad_msg_size_with_more_bytes_behind_it_still_ends_by_end_of_file(server):
    """What is unread must be read out before the close: else the peer gets ECONNRESET and QEMU aborts."""
    client = server.client()
    client.send_bytes(wire.pack(Cmd.GET_INFO, size=3) + b"z" * 3000)
    client.dropped()


def test_w03_largest_message_is_taken(client):
    """1 MiB of data in one message is inside the limit; the region isn't that large, so it is refused, not dropped."""
    client.refused(Cmd.REGION_WRITE, wire.region_write(wire.CONFIG, 0, b"\0" * wire.MAX_DATA_XFER))
    client.fence()


# --- W20 ----------------------------------------------------------------------------------------------------

def samples_with_fds():
    """{name: (raw bytes, number of fds)} for a session after VERSION."""
    out = {name: (wire.pack(cmd, payload), 0) for name, (cmd, payload) in wire.well_formed().items()}
    out["reset"] = (wire.pack(Cmd.RESET), 0)
    out["dma_map_fd"] = (out["dma_map"][0], 1)
    out["set_irqs_fds"] = (wire.pack(Cmd.SET_IRQS, wire.set_irqs(
        wire.IRQ_MSIX, wire.DATA_EVENTFD | wire.ACTION_TRIGGER, 0, 2)), 2)
    out["unknown"] = (wire.pack(99, b"12345678"), 0)
    return out


@pytest.mark.parametrize("name", ["version", *sorted(samples_with_fds())])
def test_w20_closing_after_every_byte_of_a_message_leaks_nothing(server, name):
    memory, event = GuestMemory(0x10000), EventFd()
    version = wire.pack(Cmd.VERSION, wire.version(wire.OUR_CAPS))
    raw, fds = (version, 0) if name == "version" else samples_with_fds()[name]
    times = []
    for cut in range(len(raw) + 1):
        began = time.monotonic()
        client = Client.connect(server.path)
        if name != "version":
            client.handshake()
            times.append(time.monotonic() - began)
        if cut:
            lent = [] if not fds else [memory.fd] if fds == 1 else [event.fd, event.fd]
            client.send_bytes(raw[:cut], fds=lent)
        client.close()
    memory.close()
    event.close()
    server.assert_fds_back()
    assert not times or min(times) < 0.010, f"new clients wait {min(times) * 1000:.1f} ms and longer"


def test_w20_shutting_down_one_direction_ends_the_session(server):
    client = server.client()
    client.sock.shutdown(socket.SHUT_WR)
    client.dropped()
    client = server.client()
    client.send(Cmd.GET_INFO, wire.device_info())
    client.sock.shutdown(socket.SHUT_RD)
    time.sleep(0.02)
    server.assert_alive()


def test_w20_closing_with_unread_replies_and_requests_in_flight_leaks_nothing(server):
    for depth in (1, 7, 32):
        guest = server.guest(queue_size=128)
        for i in range(depth):
            guest.submit(guest.prepare(blk.T_IN, i, length=512), kick=False)
        guest.client.send(Cmd.REGION_WRITE, wire.region_write(wire.BAR4, 0x3000, b"\0\0"))
        for _ in range(20):
            guest.client.send(Cmd.REGION_READ, wire.region_read(wire.CONFIG, 0, 4096))
        server.close_clients()
    server.assert_fds_back()


def test_w20_reset_connection_by_linger_is_an_ordinary_end(server):
    client = server.client()
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.send(Cmd.REGION_READ, wire.region_read(wire.CONFIG, 0, 256))
    client.close()


# --- W21 ----------------------------------------------------------------------------------------------------

def test_w21_second_client_waits_until_the_first_is_gone_and_nothing_is_mixed(server):
    first = server.client()
    second = server.connect()
    second.send(Cmd.VERSION, wire.version(wire.OUR_CAPS), msg_id=0x2222)
    for _ in range(20):
        first.fence()
    try:
        silent = second.silent(0.1)
        if not silent:
            second.dropped()  # refused at once is as good as queued
            return
    except Closed:
        return
    first.close()
    reply = second.recv()
    assert reply.msg_id == 0x2222 and not reply.is_error
    second.fence()


def test_w21_second_client_connects_while_the_first_ones_io_drains(serve, image):
    """The first client vanishes with 32 reads of 128 KiB in flight; the second one boots at once, on a clean device."""
    server = serve(image)
    first = server.guest(memory=8 << 20, queue_size=128)
    for i in range(32):
        first.submit(first.prepare(blk.T_IN, i * 256, length=128 << 10), kick=False)
    first.kick(posted=True)
    first.client.close()
    second = server.guest()
    assert second.virtio.status & 0x40 == 0
    assert second.read(7, 1) == (7).to_bytes(8, "little") * 64
    server.close_clients()


def test_w21_many_clients_in_the_backlog_are_served_one_after_another(server):
    waiting = [server.connect() for _ in range(4)]
    for number, client in enumerate(waiting):
        client.send(Cmd.VERSION, wire.version(wire.OUR_CAPS), msg_id=number)
    for number, client in enumerate(waiting):
        try:
            reply = client.recv()
        except Closed:
            assert number > 0, "the first of them has to be served"
            continue
        assert reply.msg_id == number
        client.fence()
        client.close()
