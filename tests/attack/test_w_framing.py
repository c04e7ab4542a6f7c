# SPDX-License-Identifier: BSD-3-Clause
"""Rows W1 to W3, W20, W21: messages in pieces, sizes that lie, sessions that end anywhere, a second client."""

import select
import socket
import statistics
import struct
import threading
import time

import pytest

from pylib import blk, wire
from pylib.client import Client, Closed
from pylib.events import EventFd, wait_until
from pylib.memory import GuestMemory
from pylib.server import Server, Workdir
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


# --- W2: deadlines. All clients below stall at the same time, each at a server of its own. ---------------------

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


@pytest.fixture(scope="module")
def stalled():
    """Runs all stalls at once, about 11 s: {name: (seconds until the drop or None, clean, seconds of a neighbour's I/O,
    seconds until the same server served a fresh client)}."""
    folder = Workdir()
    servers, clients, outcome = {}, {}, {}
    neighbour = Server(folder, "ram:16M").start()
    worst_io = 0.0
    try:
        for name in STALLS:
            servers[name] = Server(folder, "ram:16M").start()
        with neighbour.guest_kind.boot(neighbour.path) as guest:
            began = {}
            for name, (handshake, raw, _) in STALLS.items():
                clients[name] = Client.connect(servers[name].path)
                if handshake:
                    clients[name].handshake()
                began[name] = time.monotonic()
                clients[name].send_bytes(raw)
            waiting = Client.connect(servers["silence before VERSION"].path)
            waiting.send(Cmd.VERSION, wire.version(wire.OUR_CAPS))
            end = time.monotonic() + wire.HANDSHAKE_DEADLINE_S + 1.5
            next_drip = time.monotonic() + 1
            while time.monotonic() < end:
                before = time.monotonic()
                guest.assert_works()
                worst_io = max(worst_io, time.monotonic() - before)
                if time.monotonic() >= next_drip and "a dripping body" not in outcome:
                    next_drip += 1
                    try:
                        clients["a dripping body"].send_bytes(b"x")
                    except OSError:
                        pass
                for name, client in clients.items():
                    if name in outcome:
                        continue
                    if not client.silent(0.005):
                        try:
                            clean = not any(not m.is_error for m in client.dropped(0.5))
                        except AssertionError:
                            clean = False
                        outcome[name] = (time.monotonic() - began[name], clean)
                if len(outcome) == len(STALLS) - 1 and time.monotonic() > end - 1:
                    break
        patience = None
        try:
            patience = not waiting.recv(timeout=1).is_error
        finally:
            waiting.close()
        for client in clients.values():
            client.close()
        for server in servers.values():
            server.finish()
        neighbour.finish()
        yield {"outcome": outcome, "worst_io": worst_io, "waiting_was_served": patience}
    finally:
        for server in [*servers.values(), neighbour]:
            server.kill()
        folder.remove()


@pytest.mark.parametrize("name", [name for name, stall in STALLS.items() if stall[2] is not None])
def test_w02_stalled_peer_is_dropped_at_its_deadline(stalled, name):
    deadline = STALLS[name][2]
    assert name in stalled["outcome"], f"{name}: not dropped after {wire.HANDSHAKE_DEADLINE_S + 1} s"
    seconds, clean = stalled["outcome"][name]
    assert deadline - 0.5 <= seconds <= deadline + 1.5, f"{name}: dropped after {seconds:.2f} s, {deadline} s is said"
    assert clean, f"{name}: the session didn't end by an orderly end of file"


def test_w02_idle_session_between_messages_has_no_deadline(stalled):
    assert "silence after VERSION" not in stalled["outcome"]


def test_w02_neighbours_io_does_not_feel_a_stalled_peer(stalled):
    assert stalled["worst_io"] < 0.5, f"a verified write and read took {stalled['worst_io']:.3f} s"


def test_w02_client_in_the_backlog_is_served_when_the_silent_one_is_dropped(stalled):
    assert stalled["waiting_was_served"] is True


def test_w02_peer_that_never_reads_its_replies_does_not_stop_an_orderly_end(server):
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
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < 5


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
    if times:
        assert statistics.median(times) < 0.010, f"a new client waits {statistics.median(times) * 1000:.1f} ms"
    assert not times or max(times) < 1.0, f"one client waited {max(times):.2f} s"


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
