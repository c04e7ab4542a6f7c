# SPDX-License-Identifier: BSD-3-Clause
"""What stands behind the rings of backend.py: a small disk, and an entropy device. Each is made to be wrong by a `fault`, too.

A device has virtio `features`, a configuration space, `serve`, which does a request, and a state that is saved and loaded."""

import os
import struct

from . import blk

F_TOPOLOGY = 1 << 10
QUEUES, SECTORS = 2, 4096
RANGE = struct.Struct("<QII")
MAGIC = b"a disk's state\n"


class Impossible(Exception):
    """A request that is none."""


class Disk:
    """Reads, writes, discards. Answers are (data for the beginning of what may be written, or None; the last byte; bytes that count as
    written)."""

    features = (F_TOPOLOGY | blk.F_SEG_MAX | blk.F_BLK_SIZE | blk.F_FLUSH | blk.F_MQ | blk.F_DISCARD | blk.F_WRITE_ZEROES |
                blk.F_CONFIG_WCE)

    def __init__(self, fault):
        self.fault = fault
        self.store = bytearray(b"".join(i.to_bytes(8, "little") * 64 for i in range(SECTORS)))
        self.capacity, self.writeback = SECTORS, 1

    def config(self):
        return blk.CONFIG.pack(self.capacity, 0, 64, 0, 0, 0, 512, 0, 0, 0, 0, self.writeback, QUEUES,
                               1 << 16, 1, 1, 1 << 16, 1, 1).ljust(256, b"\0")

    def set_config(self, offset, data):
        """False: that cannot be written."""
        if self.fault == "lets the capacity be written" and (offset, len(data)) == (0, 8):
            self.capacity = int.from_bytes(data, "little")
            return True
        if (offset, len(data)) != (blk.OFF_WRITEBACK, 1):
            return False
        self.writeback = data[0]
        return True

    def save(self):
        return MAGIC + bytes([self.writeback]) * 1000

    def load(self, state):
        """Whether it was one."""
        if self.fault == "takes any state":
            return True
        if len(state) != len(MAGIC) + 1000 or not state.startswith(MAGIC) or self.fault == "does not take its own state":
            return False
        self.writeback = state[-1]
        return True

    def serve(self, out, room):
        if len(out) < 16 or not room:
            raise Impossible
        data, status = self.request(out, room - 1)
        return data if status == blk.S_OK else None, status, room

    def request(self, out, room):
        kind, _, sector = struct.unpack_from("<IIQ", out)
        store, size = self.store, len(self.store)
        data = out[16:]
        if kind == blk.T_IN:
            fits = room % 512 == 0 and sector * 512 + room <= size
            return (bytes(store[sector * 512:sector * 512 + room]), blk.S_OK) if fits else (bytes(room), blk.S_IOERR)
        if kind == blk.T_OUT:
            if len(data) % 512 or sector * 512 + len(data) > size:
                return b"", blk.S_IOERR
            if self.fault == "forgets the last sector of long writes" and len(data) > 512:
                data = data[:-512]
            store[sector * 512:sector * 512 + len(data)] = data
        elif kind in (blk.T_DISCARD, blk.T_WRITE_ZEROES) and len(data) == RANGE.size:
            sector, count, flags = RANGE.unpack(data)
            if flags & ~(kind == blk.T_WRITE_ZEROES) and self.fault != "takes unknown flags":
                return b"", blk.S_UNSUPP
            if (sector + count) * 512 > size:
                return b"", blk.S_IOERR
            if kind == blk.T_WRITE_ZEROES and self.fault != "writes no zeroes":
                store[sector * 512:(sector + count) * 512] = bytes(count * 512)
        elif kind == blk.T_GET_ID:
            return b"backend".ljust(room, b"\0"), blk.S_OK
        elif kind != blk.T_FLUSH:
            return bytes(room), blk.S_UNSUPP
        return b"", blk.S_OK


class Entropy:
    """Random bytes, up to 4096 at once."""

    features = 0

    def __init__(self, fault):
        self.fault = fault

    def config(self):
        return bytes(256)

    def set_config(self, offset, data):
        return False

    def save(self):
        return b""

    def load(self, state):
        return not state

    def serve(self, out, room):
        if out or not room:
            raise Impossible
        count = 0 if self.fault == "gives nothing" else min(room, 4096)
        return None if self.fault == "only says that it gives" else os.urandom(count), None, count
