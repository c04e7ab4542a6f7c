# SPDX-License-Identifier: BSD-3-Clause
"""Answers the server's DMA_READ and DMA_WRITE for memory that was mapped without an fd, honestly or not."""

import struct

from . import wire
from .memory import GuestMemory
from .wire import Cmd

# How clients lay DMA messages out. COUNT_32: QEMU 10.1, whose data stands behind a count of 32 bits, with four bytes at the
# end that mean nothing, and whose DMA_WRITE is answered by a header. TABLE: the count of a DMA_WRITE's reply has 32 bits,
# as the specification's table says.
COUNT_64, COUNT_32, TABLE = "64", "32", "table"


class DmaResponder:
    """Hooks into a client. `spoil(message, reply bytes)` may return other bytes, several messages, or b'' for none.
    Replies to what `hold(command, address, count)` is true for are kept until `release`; `refuse` is an errno for all."""

    def __init__(self, client, space, *, spoil=None, layout=COUNT_64, hold=None):
        self.client = client
        self.space = space
        self.spoil = spoil
        self.layout = layout
        self.hold = hold
        self.held = []
        self.refuse = None
        self.reads = []  # (address, count) as they were asked
        self.writes = []
        client.on_command = self

    def __call__(self, message):
        assert message.cmd in (Cmd.DMA_READ, Cmd.DMA_WRITE), f"a command that no server may send: {message}"
        assert not message.fds, f"a DMA command carries fds: {message}"
        addr, count = self.parse(message.payload)
        assert count <= wire.MAX_DATA_XFER, f"{count} bytes in one message: more than was negotiated"
        if self.refuse is not None:
            self.client.send_bytes(wire.pack(message.cmd, msg_id=message.msg_id, flags=wire.TYPE_REPLY | wire.ERROR,
                                             errno=self.refuse))
            return
        if message.cmd == Cmd.DMA_READ:
            assert len(message.payload) == 16, f"DMA_READ with a payload of {len(message.payload)}"
            self.reads.append((addr, count))
            payload = self.read_reply(addr, count)
        else:
            assert len(message.payload) == 16 + count, f"DMA_WRITE of {count} with a payload of {len(message.payload)}"
            self.writes.append((addr, count))
            if count:
                self.space.write(addr, message.payload[self.data_at:self.data_at + count])
            payload = self.write_reply(addr, count)
        reply = wire.pack(message.cmd, payload, msg_id=message.msg_id, flags=wire.TYPE_REPLY)
        if self.spoil is not None:
            reply = self.spoil(message, reply)
        if self.hold is not None and self.hold(message.cmd, addr, count):
            self.held.append(reply)
        elif reply and not message.flags & wire.NO_REPLY:
            self.client.send_bytes(reply)

    def release(self):
        """Sends what was held, and holds nothing any more."""
        self.hold = None
        held, self.held = self.held, []
        for reply in held:
            self.client.send_bytes(reply)

    @property
    def data_at(self):
        return 12 if self.layout == COUNT_32 else 16

    def parse(self, payload):
        if self.layout == COUNT_32:
            return struct.unpack_from("=QI", payload)
        return wire.parse_dma_rw(payload)

    def read_reply(self, addr, count):
        data = self.space.read(addr, count)
        if self.layout == COUNT_32:
            return struct.pack("=QI", addr, count) + data + b"\xDD" * 4
        return wire.dma_rw_reply(addr, count, data)

    def write_reply(self, addr, count):
        if self.layout == COUNT_32:
            return b""
        if self.layout == TABLE:
            return struct.pack("=QI", addr, count)
        return wire.dma_rw_reply(addr, count)

    @property
    def asked(self):
        return len(self.reads) + len(self.writes)


class Mirror:
    """A VMM whose guest has a BAR of the device at `address`: DMA there becomes accesses of the device's own registers, sent before the
    reply that is owed. `dma`: who answers for the guest's memory without an fd."""

    def __init__(self, guest, dma, bar, address, size):
        self.bar, self.address, self.size = bar, address, size
        self.accesses = 0
        memory = GuestMemory(size)
        guest.memories.append(memory)
        guest.client.dma_map(address, size)
        guest.space.add(address, size, memory)
        dma.spoil = self.spoil

    def spoil(self, message, reply):
        addr, count = wire.parse_dma_rw(message.payload)
        if not self.address <= addr < self.address + self.size:
            return reply
        out = []
        for at in range(0, count, 4):
            self.accesses += 1
            offset = addr - self.address + at
            if message.cmd == Cmd.DMA_WRITE:
                data = message.payload[16 + at:16 + min(at + 4, count)]
                out.append(wire.pack(Cmd.REGION_WRITE, wire.region_write(self.bar, offset, data), flags=wire.NO_REPLY))
            else:
                out.append(wire.pack(Cmd.REGION_READ, wire.region_read(self.bar, offset, min(4, count - at)), msg_id=0x7B00))
        return b"".join(out) + reply
