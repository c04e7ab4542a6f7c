# SPDX-License-Identifier: BSD-3-Clause
"""The raw client over a socketpair: what goes out, what comes in, and what it refuses to take for good."""

import os
import socket

import pytest

from . import wire
from .client import Client, Closed, NoReply, Refused
from .dma import DmaResponder
from .events import Canary, EventFd
from .memory import AddressSpace, GuestMemory
from .wire import Cmd


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    ours.settimeout(2)
    theirs.settimeout(2)
    client = Client(ours, timeout=0.5)
    yield client, theirs
    client.close()
    theirs.close()


def reply(cmd, payload=b"", msg_id=1, **kwargs):
    kwargs.setdefault("flags", wire.TYPE_REPLY)
    return wire.pack(cmd, payload, msg_id=msg_id, **kwargs)


def test_send_writes_one_message_and_counts_ids(pair):
    client, theirs = pair
    assert client.send(Cmd.RESET) == 1
    assert client.send(Cmd.GET_INFO, b"abcd") == 2
    assert theirs.recv(100) == wire.pack(Cmd.RESET, msg_id=1) + wire.pack(Cmd.GET_INFO, b"abcd", msg_id=2)


def test_fds_travel_with_the_first_byte_and_in_separate_blocks(pair):
    client, theirs = pair
    with EventFd() as one, EventFd() as two:
        client.send(Cmd.SET_IRQS, b"", fds=[one.fd, two.fd])
        client.send_bytes(b"x", blocks=[[one.fd], [two.fd]])
        _, fds, _, _ = socket.recv_fds(theirs, 16, 8)
        assert len(fds) == 2
        os.eventfd_write(fds[0], 3)
        assert one.wait() == 3
        for fd in fds:
            os.close(fd)
        _, fds, _, _ = socket.recv_fds(theirs, 1, 8)
        assert len(fds) == 2
        for fd in fds:
            os.close(fd)


def test_fds_of_a_reply_arrive_with_their_message_only(pair):
    client, theirs = pair
    with EventFd() as event:
        theirs.sendall(reply(Cmd.GET_INFO, b"x" * 16, msg_id=1))
        socket.send_fds(theirs, [reply(Cmd.GET_REGION_INFO, b"y" * 32, msg_id=2)], [event.fd])
        assert client.recv().fds == []
        message = client.recv()
        assert len(message.fds) == 1
        os.close(message.fds[0])


def test_replies_are_matched_by_id_and_others_kept(pair):
    client, theirs = pair
    theirs.sendall(reply(Cmd.RESET, msg_id=7) + reply(Cmd.RESET, msg_id=5))
    assert client.reply_to(5).msg_id == 5
    assert client.reply_to(7).msg_id == 7


def test_a_reply_in_pieces_is_put_together(pair):
    client, theirs = pair
    raw = reply(Cmd.GET_INFO, b"0123456789abcdef")
    theirs.sendall(raw[:5])
    with pytest.raises(NoReply):
        client.recv(timeout=0.05)
    theirs.sendall(raw[5:])
    assert client.recv().payload == b"0123456789abcdef"


def test_an_error_reply_raises_and_is_a_good_refusal(pair):
    client, theirs = pair
    theirs.sendall(reply(Cmd.RESET, flags=wire.TYPE_REPLY | wire.ERROR, errno=22))
    with pytest.raises(Refused) as caught:
        client.call(Cmd.RESET)
    assert caught.value.errno == 22
    theirs.sendall(reply(Cmd.RESET, msg_id=2, flags=wire.TYPE_REPLY | wire.ERROR, errno=22))
    assert client.refused(Cmd.RESET, errnos=(22,)) == 22


@pytest.mark.parametrize("bad", [
    reply(Cmd.RESET),
    reply(Cmd.RESET, flags=wire.TYPE_REPLY | wire.ERROR, errno=0),
    reply(Cmd.RESET, b"payload", flags=wire.TYPE_REPLY | wire.ERROR, errno=22),
    reply(Cmd.RESET, flags=wire.TYPE_REPLY | wire.ERROR, errno=17),
], ids=["no error", "no errno", "with a payload", "another errno"])
def test_refused_does_not_take_anything_else_for_a_refusal(pair, bad):
    client, theirs = pair
    theirs.sendall(bad)
    with pytest.raises(AssertionError):
        client.refused(Cmd.RESET, errnos=(22,))


def test_dropped_wants_an_orderly_end_of_file():
    ours, theirs = socket.socketpair()
    client = Client(ours, timeout=0.3)
    theirs.close()
    assert client.dropped() == []
    client.close()


def test_dropped_tells_a_reset_connection_from_an_orderly_end():
    ours, theirs = socket.socketpair()
    client = Client(ours, timeout=0.3)
    client.send(Cmd.RESET)
    theirs.close()  # with unread input: ECONNRESET at the other end
    with pytest.raises(AssertionError, match="unread input"):
        client.dropped()
    client.close()


def test_dropped_fails_while_the_session_is_open(pair):
    client, _ = pair
    with pytest.raises(AssertionError, match="still open"):
        client.dropped(0.05)


def test_end_of_file_inside_a_message_is_told(pair):
    client, theirs = pair
    theirs.sendall(reply(Cmd.RESET)[:9])
    theirs.shutdown(socket.SHUT_WR)
    with pytest.raises(Closed) as caught:
        client.recv()
    assert caught.value.clean and len(caught.value.partial) == 9


def test_fence_finds_a_second_reply_to_one_request(pair):
    client, theirs = pair
    theirs.sendall(reply(Cmd.RESET, msg_id=1) + reply(Cmd.RESET, msg_id=1))
    client.call(Cmd.RESET)
    theirs.sendall(reply(Cmd.GET_INFO, b"x" * 16, msg_id=2))
    with pytest.raises(AssertionError, match="another message"):
        client.fence()


def test_dma_responder_reads_and_writes_guest_memory(pair):
    client, theirs = pair
    with GuestMemory(8192) as memory:
        space = AddressSpace()
        space.add(0x10000, 8192, memory)
        space.write(0x10100, b"payload!")
        responder = DmaResponder(client, space)
        theirs.sendall(wire.pack(Cmd.DMA_READ, wire.dma_rw_reply(0x10100, 8), msg_id=9)
                       + wire.pack(Cmd.DMA_WRITE, wire.dma_rw_reply(0x10200, 3, b"abc"), msg_id=10))
        client.serve_commands(lambda: responder.asked == 2)
        assert theirs.recv(1000) == (
            wire.pack(Cmd.DMA_READ, wire.dma_rw_reply(0x10100, 8, b"payload!"), msg_id=9, flags=wire.TYPE_REPLY)
            + wire.pack(Cmd.DMA_WRITE, wire.dma_rw_reply(0x10200, 3), msg_id=10, flags=wire.TYPE_REPLY))
        assert space.read(0x10200, 3) == b"abc"


def test_a_canary_sings_only_when_every_copy_of_it_is_closed():
    canary = Canary()
    copy = os.dup(canary.lent)
    assert not canary.returned(0.02)
    os.close(copy)
    assert canary.returned(0.5)
    canary.close()


def test_eventfd_waits_counts_and_can_start_full():
    with EventFd() as event:
        assert event.wait(0.01) == 0
        event.signal(2)
        assert event.pending() and event.wait() == 2 and not event.pending()
    with EventFd((1 << 64) - 2, blocking=True) as full:
        assert full.wait() == (1 << 64) - 2
