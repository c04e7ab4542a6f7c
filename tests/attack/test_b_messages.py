# SPDX-License-Identifier: BSD-3-Clause
"""Row B3 where the completion is a message: the client's reply to a DMA_READ or DMA_WRITE comes twice, late, or when the request
that it was for has been given up."""

import pytest

from pylib import blk

from .test_w_message_dma import REMOTE, SIZE, RemoteGuest, need_message_dma


@pytest.fixture
def remote(server):
    made = RemoteGuest(server)
    need_message_dma(made)
    return made


def ask(remote, kind):
    """Begins a request whose first DMA message stays unanswered; gives the replies that are owed, which grow."""
    owed = []
    remote.dma.spoil = lambda message, reply: owed.append(reply) or b""
    guest = remote.guest
    guest.space.write(REMOTE, b"\x3C" * 4096)
    guest.submit(guest.prepare(kind, 40, length=4096, data_addr=REMOTE), kick=False)
    guest.kick(posted=True)
    guest.client.serve_commands(lambda: owed)
    assert owed, "the server has asked for nothing"
    return owed


GIVE_UPS = {
    "device reset message": lambda guest: guest.client.reset(),
    "status 0": lambda guest: guest.virtio.set("device_status", 0),
}


@pytest.mark.parametrize("kind", [blk.T_IN, blk.T_OUT])
@pytest.mark.parametrize("name", sorted(GIVE_UPS))
def test_b03_reply_to_a_dma_message_after_its_request_was_given_up_is_taken_and_thrown_away(remote, name, kind):
    guest = remote.guest
    guest.write(40, b"\x11" * 4096)
    owed = ask(remote, kind)
    GIVE_UPS[name](guest)
    remote.dma.spoil = None
    guest.client.send_bytes(b"".join(owed))
    guest.client.serve_commands(lambda: False, 0.1)
    guest.client.fence()
    guest.restart()
    assert guest.read(40, 8) == b"\x11" * 4096, "a request that was given up has written"
    assert remote.do(blk.T_IN, 40, REMOTE, length=4096) == blk.S_OK


def test_b03_reply_to_a_dma_message_after_the_memory_was_unmapped_completes_the_write_or_fails_it_whole(remote):
    """The unmap does not wait for the client's own reply, and the request is still the driver's."""
    guest = remote.guest
    guest.write(40, b"\x11" * 4096)
    owed = ask(remote, blk.T_OUT)
    guest.client.dma_unmap(REMOTE, SIZE)
    remote.dma.spoil = None
    guest.client.send_bytes(owed[0])
    done = guest.client.serve_commands(lambda: guest.queue.take())
    assert len(done) == 1, "the request hangs"
    assert guest.read(40, 8) in (b"\x11" * 4096, b"\x3C" * 4096)
    guest.client.dma_map(REMOTE, SIZE)
    assert remote.do(blk.T_IN, 40, REMOTE, length=4096) == blk.S_OK


@pytest.mark.parametrize("kind", [blk.T_IN, blk.T_OUT])
def test_b03_second_reply_to_a_dma_message_ends_the_session_and_no_other(server, remote, kind):
    owed = ask(remote, kind)
    remote.guest.client.send_bytes(owed[0] + owed[0])
    remote.guest.client.on_command = lambda message: None
    remote.guest.client.dropped(clean=False)
    server.guest().assert_works()


def test_b03_reply_that_comes_late_is_the_right_requests(remote):
    """It is held while requests of mapped memory begin and end."""
    guest = remote.guest
    guest.write(40, b"\x44" * 4096)
    owed = ask(remote, blk.T_IN)
    late = guest.queue.used_idx()
    for turn in range(50):
        guest.write(100 + turn, bytes([turn]) * 512)
    assert guest.queue.used_idx() == (late + 50) & 0xFFFF
    remote.dma.spoil = None
    guest.client.send_bytes(owed[0])
    done = guest.client.serve_commands(lambda: guest.queue.take())
    assert len(done) == 1 and done[0][1] == 4097
    assert guest.space.read(REMOTE, 4096) == b"\x44" * 4096
