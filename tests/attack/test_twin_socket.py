# SPDX-License-Identifier: BSD-3-Clause
"""The twin socket: what the server asks (DMA_READ, DMA_WRITE) goes over a socket of its own, if the client offers that.

Rows W8, W20 and F1 there: whatever comes over the second socket reaches no further than over the first."""

import json
import os
import socket
import stat

import pytest

from pylib import blk, wire
from pylib.client import Client, Closed, NoReply
from pylib.dma import DmaResponder
from pylib.events import PATIENCE, Canary, wait_until
from pylib.memory import GuestMemory
from pylib.vm import Guest
from pylib.wire import Cmd

REMOTE = 0x4000_0000
SIZE = 8 << 20
TWIN = {"capabilities": wire.TWIN_CAPS}


class TwinGuest:
    """Rings in shared memory, data in memory without an fd, the server's commands on the twin socket."""

    def __init__(self, server, *, spoil=None, handshake=None, **options):
        self.guest = server.guest(handshake=handshake or TWIN, **options)
        self.client, self.twin = self.guest.client, self.guest.client.twin
        assert self.twin is not None, "no twin socket came with VERSION's reply"
        memory = GuestMemory(SIZE)
        self.guest.memories.append(memory)
        self.client.dma_map(REMOTE, SIZE)
        self.guest.space.add(REMOTE, SIZE, memory)
        self.dma = DmaResponder(self.twin, self.guest.space, spoil=spoil)

    def offer(self, kind, addr=REMOTE, *, data=b"", length=0):
        request = self.guest.prepare(kind, 3, data=data, length=length, data_addr=addr)
        if data:
            self.guest.space.write(addr, data)
        self.guest.submit(request)
        return request

    def do(self, kind, addr=REMOTE, *, data=b"", length=0, timeout=PATIENCE):
        """The status, or None if it didn't come back."""
        request = self.offer(kind, addr, data=data, length=length)
        done = []
        self.twin.serve_commands(lambda: done.extend(self.guest.queue.take()) or done, timeout)
        return self.guest.result(request, done[0][1]).status if done else None

    def assert_works(self):
        data = os.urandom(5000 * 512)
        assert self.do(blk.T_OUT, REMOTE + 0x123, data=data) == blk.S_OK
        assert self.do(blk.T_IN, REMOTE + 0x400000, length=len(data)) == blk.S_OK
        assert self.guest.space.read(REMOTE + 0x400000, len(data)) == data

    def wait_for_command(self):
        """A request is made and its first command read, but not answered."""
        self.offer(blk.T_IN, length=512)
        return self.twin.recv_any()


@pytest.fixture
def twin(server):
    return TwinGuest(server)


# --- VERSION ------------------------------------------------------------------------------------------------------

def test_twin_socket_comes_with_versions_reply(server):
    client = server.client(**TWIN)
    capabilities = json.loads(client.handshake_reply[4:-1])["capabilities"]
    assert capabilities["twin_socket"] == {"supported": True, "fd_index": 0}
    assert len(client.handshake_reply) - 4 <= 194, "QEMU takes no more"
    assert stat.S_ISSOCK(os.fstat(client.twin.sock.fileno()).st_mode)
    assert client.twin.sock.type == socket.SOCK_STREAM and client.twin.sock.family == socket.AF_UNIX
    client.fence()
    assert client.twin.silent(0.02), "the server has nothing to ask yet"


@pytest.mark.parametrize("proposal", [{}, {"twin_socket": {}}, {"twin_socket": {"supported": False}},
                                      {"twin_socket": {"fd_index": 0}}, {"max_msg_fds": 16}])
def test_twin_socket_that_was_not_offered_does_not_come(server, proposal):
    client = server.client(capabilities=proposal)
    assert client.twin is None
    assert "twin_socket" not in json.loads(client.handshake_reply[4:-1])["capabilities"] or "twin_socket" in proposal
    client.fence()


@pytest.mark.parametrize("text", [b'"twin_socket":{"supported":1}', b'"twin_socket":{"supported":"yes"}',
                                  b'"twin_socket":{"fd_index":-1}', b'"twin_socket":{"fd_index":"0"}',
                                  b'"twin_socket":[]', b'"twin_socket":true', b'"twin_socket":null'])
def test_w09_bad_twin_socket_is_refused(server, text):
    client = server.connect()
    client.refused(Cmd.VERSION, wire.version(text=b'{"capabilities":{' + text + b"}}\0"))


def test_client_of_minor_one_with_a_twin_socket_is_not_taken_for_cloud_hypervisor(server):
    client = server.client(capabilities={"max_msg_fds": 1, "twin_socket": {"supported": True}}, minor=1)
    assert client.twin is not None
    assert client.irq_info(wire.IRQ_INTX).count == 1
    client.refused(Cmd.GET_REGION_INFO, wire.region_info(99))  # and its errors are not padded


def test_version_without_reply_makes_no_twin_socket(server):
    client = server.connect()
    assert wait_until(lambda: server.fd_count() > server.baseline)  # it was let in
    before = server.fd_count()
    client.send(Cmd.VERSION, wire.version(wire.TWIN_CAPS), flags=wire.NO_REPLY)
    try:
        pytest.fail(f"a reply to NO_REPLY: {client.recv(timeout=0.1)}")
    except (NoReply, Closed):
        pass
    assert server.fd_count() <= before


def test_server_without_fds_goes_on_without_a_twin_socket(serve):
    server = serve()
    limit = server.fd_limit()
    client = server.connect()
    assert wait_until(lambda: server.fd_count() > server.baseline)
    server.limit_fds(max(server.fds()) + 1)
    client.handshake(wire.TWIN_CAPS)
    server.limit_fds(limit)
    assert client.twin is None
    client.fence()


def test_server_keeps_one_end_only(server):
    client = server.client(**TWIN)
    client.fence()
    with_twin = server.fd_count()
    client.close()
    assert wait_until(lambda: server.fd_count() <= server.baseline)
    server.client().fence()
    assert server.fd_count() == with_twin - 1


# --- commands -----------------------------------------------------------------------------------------------------

def test_w11_everything_is_asked_over_the_twin_socket(twin):
    for _ in range(3):
        twin.assert_works()
    assert twin.dma.asked > 0
    assert twin.client.silent(0.02), "a command came over the main socket"


def test_rings_and_data_in_remote_memory_work_over_the_twin_socket(server, packed):
    guest = Guest(server.connect())
    server.handed_out.append(guest)
    guest.client.handshake(wire.TWIN_CAPS)
    DmaResponder(guest.client.twin, guest.space)
    guest.start(remote=True, packed=packed)
    for _ in range(5):
        request = guest.prepare(blk.T_IN, 0, length=8192)
        guest.submit(request)
        done = []
        assert guest.client.twin.serve_commands(lambda: done.extend(guest.queue.take()) or done)
        assert guest.result(request, done[0][1]).status == blk.S_OK


def test_client_that_answers_on_the_twin_is_not_waited_for_on_the_main_socket(twin):
    """What the twin socket is for: a command that stands unanswered delays no message."""
    command = twin.wait_for_command()
    for _ in range(10):
        twin.client.fence()
    twin.client.reset()  # one that waits is refused in the end (EBUSY)
    twin.client.dma_unmap(REMOTE, SIZE)
    # the late answer is good for nothing, and no offence
    addr, count = wire.parse_dma_rw(command.payload)
    twin.twin.send_bytes(wire.pack(command.cmd, wire.dma_rw_reply(addr, count, bytes(
        count if command.cmd == Cmd.DMA_READ else 0)), msg_id=command.msg_id, flags=wire.TYPE_REPLY))
    twin.client.fence()


def test_w01_replies_in_any_pieces(server):
    twin = TwinGuest(server)

    def pieces(_, reply):
        for at in range(0, len(reply), 7):
            twin.twin.sock.send(reply[at:at + 7])
        return b""
    twin.dma.spoil = pieces
    assert twin.do(blk.T_OUT, data=os.urandom(4096)) == blk.S_OK
    assert twin.do(blk.T_IN, length=4096) == blk.S_OK


@pytest.mark.parametrize("number", [1, 19, 0xFFFFFFFF])
def test_w08_error_reply_fails_the_request(twin, number):
    twin.assert_works()
    twin.dma.spoil = lambda m, r: wire.pack(m.cmd, msg_id=m.msg_id, flags=wire.TYPE_REPLY | wire.ERROR, errno=number)
    assert twin.do(blk.T_IN, length=512) == blk.S_IOERR
    twin.dma.spoil = None
    twin.assert_works()


# --- hostile ------------------------------------------------------------------------------------------------------

def forged(command, how):
    addr, count = wire.parse_dma_rw(command.payload)
    good = wire.dma_rw_reply(addr, count, bytes(count if command.cmd == Cmd.DMA_READ else 0))
    reply = {"msg_id": command.msg_id, "flags": wire.TYPE_REPLY}
    return {
        "a command": wire.pack(Cmd.GET_INFO, wire.device_info()),
        "a command the server sends": wire.pack(Cmd.DMA_READ, wire.dma_rw_reply(addr, 1)),
        "another id": wire.pack(command.cmd, good, **{**reply, "msg_id": command.msg_id ^ 0x4000}),
        "another command's reply": wire.pack(Cmd.GET_INFO, good, **reply),
        "a reply of type 2": wire.pack(command.cmd, good, **{**reply, "flags": 2}),
        "unknown flags": wire.pack(command.cmd, good, **{**reply, "flags": wire.TYPE_REPLY | 0x80}),
        "a size below the header": wire.pack(command.cmd, good, size=15, **reply),
        "a size of all ones": wire.pack(command.cmd, good, size=wire.U32_MAX, **reply),
        "a size above the limit": wire.pack(command.cmd, good, size=wire.MAX_MESSAGE + 1, **reply),
        "too much": wire.pack(command.cmd, good + bytes(100), **reply),
        "half of it": wire.pack(command.cmd, good[:8], **reply),
        "twice": wire.pack(command.cmd, good, **reply) * 2,
        "zeroes": bytes(64),
    }[how]


@pytest.mark.parametrize("how", ["a command", "a command the server sends", "another id", "another command's reply",
                                 "a reply of type 2", "unknown flags", "a size below the header", "a size of all ones",
                                 "a size above the limit", "too much", "half of it", "twice", "zeroes"])
def test_w08_anything_else_on_the_twin_socket_drops_the_session(twin, how):
    command = twin.wait_for_command()
    twin.twin.send_bytes(forged(command, how))
    twin.client.dropped()


def test_w07_reply_on_the_main_socket_drops_the_session(twin):
    command = twin.wait_for_command()
    addr, count = wire.parse_dma_rw(command.payload)
    twin.client.send_bytes(wire.pack(command.cmd, wire.dma_rw_reply(addr, count, bytes(count)), msg_id=command.msg_id,
                                     flags=wire.TYPE_REPLY))
    twin.client.dropped()


@pytest.mark.parametrize("how", ["a command", "zeroes"])
def test_bytes_before_anything_was_asked_drop_the_session(server, how):
    client = server.client(**TWIN)
    client.twin.send_bytes(bytes(64) if how == "zeroes" else wire.pack(Cmd.GET_INFO, wire.device_info()))
    client.dropped()


def test_w02_half_a_reply_drops_the_session_in_time(twin):
    command = twin.wait_for_command()
    twin.twin.send_bytes(wire.pack(command.cmd, bytes(8), msg_id=command.msg_id, flags=wire.TYPE_REPLY, size=32))
    twin.client.fence()
    twin.client.dropped()


def test_f01_fds_with_a_reply_are_closed(twin):
    canary = Canary()
    command = twin.wait_for_command()
    addr, count = wire.parse_dma_rw(command.payload)
    twin.twin.send_bytes(wire.pack(command.cmd, wire.dma_rw_reply(addr, count), msg_id=command.msg_id,
                                   flags=wire.TYPE_REPLY), fds=[canary.lent] * 20)
    canary.hand_over()
    assert canary.returned()
    canary.close()


def test_w20_client_that_closes_the_twin_socket_keeps_the_rest(twin):
    """It can't be asked any more: what needs that fails, and nothing else."""
    twin.assert_works()
    twin.twin.close()
    for _ in range(3):
        request = twin.offer(blk.T_IN, length=512)
        assert twin.guest.finish(request).status == blk.S_IOERR
    twin.guest.assert_works()
    assert twin.client.silent(0.02), "a command came over the main socket"
    twin.client.fence()


def test_w20_twin_socket_closed_with_a_command_unanswered_fails_the_request(twin):
    request = twin.offer(blk.T_IN, length=512)
    twin.twin.recv_any()
    twin.twin.close()
    assert twin.guest.finish(request).status == blk.S_IOERR
    twin.guest.assert_works()


@pytest.mark.parametrize("cut", [1, 15, 16, 31, 32, 100])
def test_w20_twin_socket_closed_inside_a_reply(twin, cut):
    request = twin.offer(blk.T_OUT, data=bytes(512))
    first = twin.twin.recv_any()
    addr, count = wire.parse_dma_rw(first.payload)
    if first.cmd == Cmd.DMA_WRITE and count == 0:  # the question for the layout
        twin.twin.send_bytes(wire.pack(first.cmd, wire.dma_rw_reply(addr, 0), msg_id=first.msg_id, flags=wire.TYPE_REPLY))
        first = twin.twin.recv_any()
        addr, count = wire.parse_dma_rw(first.payload)
    reply = wire.pack(first.cmd, wire.dma_rw_reply(addr, count, bytes(count)), msg_id=first.msg_id, flags=wire.TYPE_REPLY)
    twin.twin.send_bytes(reply[:cut])
    twin.twin.close()
    assert twin.guest.finish(request).status == blk.S_IOERR
    twin.guest.assert_works()


def test_w20_rings_in_remote_memory_break_when_the_twin_socket_goes(server, packed):
    guest = Guest(server.connect())
    server.handed_out.append(guest)
    guest.client.handshake(wire.TWIN_CAPS)
    DmaResponder(guest.client.twin, guest.space)
    guest.start(remote=True, packed=packed)
    guest.client.twin.close()
    guest.submit(guest.prepare(blk.T_IN, 0, length=512))
    assert wait_until(lambda: guest.broken), "neither a completion nor NEEDS_RESET"
    guest.client.fence()


def test_w20_main_socket_closed_with_the_twin_open_ends_the_session(server):
    twin = TwinGuest(server)
    twin.offer(blk.T_IN, length=512)
    twin.client.sock.close()
    # everything else stays open: the server notices all the same, and lets the next one in
    server.client().fence()
    with pytest.raises(Closed):
        while True:
            twin.twin.recv_any()


def test_next_session_has_a_twin_socket_of_its_own(server):
    first = TwinGuest(server)
    first.assert_works()
    old = Client(first.twin.sock.dup())
    first.guest.close()
    second = TwinGuest(server)
    second.assert_works()
    with pytest.raises((Closed, BrokenPipeError, ConnectionResetError)):
        for _ in range(10):
            old.send_bytes(bytes(64))
            old.recv_any(0.05)
    second.assert_works()
    old.close()


def test_w08_reset_takes_back_what_the_twin_socket_has_not_begun_to_send(server, packed):
    """What lies in the socket is the client's. What the server has yet to send would come when the memory is others'."""
    twin = TwinGuest(server, packed=packed, handshake={"capabilities": {**wire.TWIN_CAPS, "max_data_xfer_size": 65536}})
    assert twin.do(blk.T_IN, length=512) == blk.S_OK
    for number in range(2):
        twin.offer(blk.T_IN, REMOTE + number * (3 << 20), length=3 << 20)
    assert wait_until(lambda: not twin.twin.silent(0.01)), "it never wrote"
    for _ in range(50):
        twin.client.fence()  # turns, in which it prepares as much as it may
    twin.guest.virtio.reset()
    written = []
    twin.twin.on_command = written.append
    twin.twin.serve_commands(lambda: False, 0.3)
    came = sum(wire.parse_dma_rw(message.payload)[1] for message in written)
    assert 0 < came < 1 << 20, f"{came} bytes came that the reset made void"
    for message in written:  # and they can still be answered
        twin.twin.send_bytes(wire.pack(message.cmd, message.payload[:16], msg_id=message.msg_id, flags=wire.TYPE_REPLY))
    twin.client.fence()
    twin.twin.on_command = twin.dma
    twin.guest.bring_up()
    twin.assert_works()
