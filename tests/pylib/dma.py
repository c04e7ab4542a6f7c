# SPDX-License-Identifier: BSD-3-Clause
"""Answers the server's DMA_READ and DMA_WRITE for memory that was mapped without an fd, honestly or not."""

from . import wire
from .wire import Cmd


class DmaResponder:
    """Hooks into a client. `spoil(message, reply bytes)` may return other bytes, several messages, or b'' for none."""

    def __init__(self, client, space, *, spoil=None):
        self.client = client
        self.space = space
        self.spoil = spoil
        self.reads = []  # (address, count) as they were asked
        self.writes = []
        client.on_command = self

    def __call__(self, message):
        assert message.cmd in (Cmd.DMA_READ, Cmd.DMA_WRITE), f"a command that no server may send: {message}"
        assert not message.fds, f"a DMA command carries fds: {message}"
        addr, count = wire.parse_dma_rw(message.payload)
        assert count <= wire.MAX_DATA_XFER, f"{count} bytes in one message: more than was negotiated"
        if message.cmd == Cmd.DMA_READ:
            assert len(message.payload) == 16, f"DMA_READ with a payload of {len(message.payload)}"
            self.reads.append((addr, count))
            data = self.space.read(addr, count)
        else:
            assert len(message.payload) == 16 + count, f"DMA_WRITE of {count} with a payload of {len(message.payload)}"
            self.writes.append((addr, count))
            if count:
                self.space.write(addr, message.payload[16:])
            data = b""
        reply = wire.pack(message.cmd, wire.dma_rw_reply(addr, count, data), msg_id=message.msg_id,
                          flags=wire.TYPE_REPLY)
        if self.spoil is not None:
            reply = self.spoil(message, reply)
        if reply and not message.flags & wire.NO_REPLY:
            self.client.send_bytes(reply)

    @property
    def asked(self):
        return len(self.reads) + len(self.writes)
