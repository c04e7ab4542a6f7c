# SPDX-License-Identifier: BSD-3-Clause
"""Rows W8 and W11 where the server itself asks: guest memory mapped without an fd, reached by DMA_READ and DMA_WRITE.

A server that doesn't reach such memory has to fail or break cleanly; then the rows that need its requests are skipped.
"""

import os

import pytest

from pylib import blk, wire
from pylib.dma import DmaResponder
from pylib.events import PATIENCE, wait_until
from pylib.memory import GuestMemory
from pylib.vm import BASE, Guest
from pylib.wire import Cmd

REMOTE = 0x4000_0000
SIZE = 8 << 20


class RemoteGuest:
    """A guest with rings in mapped memory and a second, remote window for data."""

    def __init__(self, server, **handshake):
        self.guest = server.guest(handshake=handshake)
        self.memory = GuestMemory(SIZE)
        self.guest.memories.append(self.memory)
        self.guest.client.dma_map(REMOTE, SIZE)
        self.guest.space.add(REMOTE, SIZE, self.memory)
        self.dma = DmaResponder(self.guest.client, self.guest.space)

    def do(self, kind, sector, data_addr, *, data=b"", length=0, timeout=PATIENCE):
        """A request with its data in remote memory; its status, or None if it didn't come back."""
        guest = self.guest
        request = guest.prepare(kind, sector, data=data, length=length, data_addr=data_addr)
        if data:
            guest.space.write(data_addr, data)
        guest.submit(request, kick=False)
        guest.kick(posted=True)
        done = []

        def finished():
            done.extend(guest.queue.take())
            return done
        guest.client.serve_commands(finished, timeout)
        return guest.result(request, done[0][1]).status if done else None


@pytest.fixture
def remote(server):
    return RemoteGuest(server)


def need_message_dma(remote):
    if remote.do(blk.T_IN, 0, REMOTE, length=512) != blk.S_OK and not remote.dma.asked:
        pytest.skip("this server doesn't reach memory without an fd by messages")


def test_w08_request_into_memory_without_an_fd_ends_with_a_status(remote):
    status = remote.do(blk.T_IN, 0, REMOTE, length=512)
    assert status is not None or remote.guest.broken, "the request hangs"
    if status is not None and not remote.dma.asked:
        assert status in (blk.S_IOERR, blk.S_UNSUPP)


def test_w08_rings_in_memory_without_an_fd_work_or_break_the_device(server, packed):
    """QEMU with memory-backend-ram maps all of its memory like this."""
    guest = Guest(server.client())  # set up by hand: the rings' memory has no fd
    server.handed_out.append(guest)
    responder = DmaResponder(guest.client, guest.space)
    guest.start(remote=True, packed=packed)
    request = guest.prepare(blk.T_IN, 0, length=512)
    guest.submit(request, kick=False)
    guest.kick(posted=True)
    done = []
    guest.client.serve_commands(lambda: done.extend(guest.queue.take()) or done, 5.0 if responder.asked else 1.0)
    if responder.asked:
        assert done, "the server asked for memory by messages and then lost the request"
        assert guest.result(request, done[0][1]).status == blk.S_OK
    else:
        assert done or wait_until(lambda: guest.broken), "neither a completion nor NEEDS_RESET"


def test_w11_message_dma_moves_the_exact_bytes_at_any_length(remote):
    need_message_dma(remote)
    for sectors in (1, 3, 2047, 2048, 2049, 5000):
        data = os.urandom(sectors * 512)
        assert remote.do(blk.T_OUT, 9, REMOTE + 0x1234, data=data) == blk.S_OK
        remote.guest.space.write(REMOTE + 0x300000, b"\xCC" * (len(data) + 32))
        assert remote.do(blk.T_IN, 9, REMOTE + 0x300010, length=len(data)) == blk.S_OK
        assert remote.guest.space.read(REMOTE + 0x300010, len(data)) == data
        assert remote.guest.space.read(REMOTE + 0x300000, 16) == b"\xCC" * 16
        assert remote.guest.space.read(REMOTE + 0x300010 + len(data), 16) == b"\xCC" * 16


@pytest.mark.parametrize("limit", [4096, 5000])
def test_w11_message_dma_is_split_by_the_clients_limit_with_a_remainder(server, limit):
    remote = RemoteGuest(server, capabilities={"max_data_xfer_size": limit, "max_msg_fds": 8})
    need_message_dma(remote)
    data = os.urandom(24 * 512)
    assert remote.do(blk.T_OUT, 9, REMOTE + 7, data=data) == blk.S_OK
    assert remote.do(blk.T_IN, 9, REMOTE + 0x10007, length=len(data)) == blk.S_OK
    assert remote.guest.space.read(REMOTE + 0x10007, len(data)) == data
    assert max(count for _, count in remote.dma.reads + remote.dma.writes) <= limit


SPOILERS = {
    "an unknown id": lambda m, r: wire.pack(m.cmd, r[16:], msg_id=m.msg_id ^ 0x5555, flags=wire.TYPE_REPLY),
    "another command": lambda m, r: wire.pack(Cmd.GET_INFO, r[16:], msg_id=m.msg_id, flags=wire.TYPE_REPLY),
    "a header only": lambda m, r: wire.pack(m.cmd, msg_id=m.msg_id, flags=wire.TYPE_REPLY),
    "half its payload": lambda m, r: wire.pack(m.cmd, r[16:16 + (len(r) - 16) // 2], msg_id=m.msg_id,
                                               flags=wire.TYPE_REPLY),
    "too much data": lambda m, r: wire.pack(m.cmd, r[16:] + b"\xEE" * 4096, msg_id=m.msg_id, flags=wire.TYPE_REPLY),
    "another address": lambda m, r: wire.pack(m.cmd, b"\xFF" * 8 + r[24:], msg_id=m.msg_id, flags=wire.TYPE_REPLY),
    "another count": lambda m, r: wire.pack(m.cmd, r[16:24] + b"\xFF" * 8 + r[32:], msg_id=m.msg_id,
                                            flags=wire.TYPE_REPLY),
    "a second copy": lambda m, r: r + r,
}


@pytest.mark.parametrize("name", sorted(SPOILERS))
def test_w08_dma_reply_of_the_wrong_shape_drops_the_session(remote, name):
    need_message_dma(remote)
    guest = remote.guest
    remote.dma.spoil = SPOILERS[name]
    guest.submit(guest.prepare(blk.T_IN, 0, length=512, data_addr=REMOTE), kick=False)
    guest.kick(posted=True)
    before = remote.dma.asked
    guest.client.serve_commands(lambda: remote.dma.asked > before)
    guest.client.on_command = lambda message: None
    guest.client.dropped(clean=False)


@pytest.mark.parametrize("number", [1, 19, 4095, 0x7FFFFFFF, 0xFFFFFFFF])
def test_w08_dma_error_reply_with_any_errno_fails_the_request(remote, number):
    need_message_dma(remote)
    remote.dma.spoil = lambda m, r: wire.pack(m.cmd, msg_id=m.msg_id, flags=wire.TYPE_REPLY | wire.ERROR, errno=number)
    assert remote.do(blk.T_IN, 0, REMOTE, length=512) == blk.S_IOERR
    remote.dma.spoil = None
    assert remote.do(blk.T_IN, 0, REMOTE, length=512) == blk.S_OK


def test_w08_requests_of_the_client_cross_the_servers_dma_request(remote):
    need_message_dma(remote)
    crossings = []

    def cross(message, reply):
        crossings.append(wire.pack(Cmd.GET_INFO, wire.device_info(), msg_id=0x7A00 + len(crossings)))
        return crossings[-1] + reply
    remote.dma.spoil = cross
    assert remote.do(blk.T_IN, 0, REMOTE, length=512) == blk.S_OK
    for number in range(len(crossings)):
        assert remote.guest.client.reply_to(0x7A00 + number).cmd == Cmd.GET_INFO


def test_w08_unmap_and_reset_while_a_dma_request_is_unanswered_do_not_wait_for_it(remote):
    """The client may hold the very lock that would answer (DESIGN: unmap waits for no message of our own)."""
    need_message_dma(remote)
    guest = remote.guest
    remote.dma.spoil = lambda m, r: b""
    before = remote.dma.asked
    guest.submit(guest.prepare(blk.T_IN, 0, length=512, data_addr=REMOTE), kick=False)
    guest.kick(posted=True)
    guest.client.serve_commands(lambda: remote.dma.asked > before)
    guest.client.dma_unmap(REMOTE, SIZE)  # one that waits is refused in the end (EBUSY)
    guest.client.reset()


def test_w08_region_access_is_answered_before_the_dma_message_that_it_sets_off(remote):
    need_message_dma(remote)
    guest = remote.guest
    guest.submit(guest.prepare(blk.T_IN, 0, length=512, data_addr=REMOTE), kick=False)
    msg_id = guest.client.send(Cmd.REGION_WRITE, wire.region_write(wire.BAR4, 0x3000, b"\0\0"))
    first = guest.client.recv_any()
    assert first.is_reply and first.msg_id == msg_id, f"a DMA message overtook the reply: {first}"
    guest.client.serve_commands(lambda: guest.queue.take())


def test_w08_two_remote_windows_at_the_bases_do_not_confuse_the_map(remote):
    """BASE has an fd, REMOTE hasn't: a request whose data crosses neither touches the right one."""
    status = remote.do(blk.T_OUT, 3, BASE + 0x200000, data=b"\x77" * 512)
    assert status == blk.S_OK
    assert remote.dma.asked == 0
