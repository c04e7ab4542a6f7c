# SPDX-License-Identifier: BSD-3-Clause
"""Guest memory: memfds with or without seals, and an address space made of windows into them.

Ring indices are written with one store, through a view of their own size, because the other side reads them at the same
time: struct.pack_into would clear the bytes first.
"""

import fcntl
import mmap
import os
import struct
import sys
from dataclasses import dataclass

assert sys.byteorder == "little", "these tests write virtio's little-endian rings with native stores"

PAGE = 4096
U16 = struct.Struct("@H")
U32 = struct.Struct("@I")
U64 = struct.Struct("@Q")


class GuestMemory:
    """A memfd and its mapping. seal: 'shrink' (cannot be made smaller), 'all', or None (the peer may be robbed)."""

    def __init__(self, size, *, seal="shrink", name="guest-memory", fd=None):
        self.size = size
        if fd is None:
            fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            os.ftruncate(fd, size)
        self.fd = fd
        if seal == "shrink":
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        elif seal == "all":
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        elif seal is not None:
            raise ValueError(seal)
        self.map = mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)

    def read(self, offset, count):
        assert 0 <= offset and offset + count <= self.size, f"test reads [{offset:#x}, +{count}) of {self.size:#x}"
        return self.map[offset:offset + count]

    def write(self, offset, data):
        assert 0 <= offset and offset + len(data) <= self.size, \
            f"test writes [{offset:#x}, +{len(data)}) of {self.size:#x}"
        self.map[offset:offset + len(data)] = data

    def close(self):
        if self.fd >= 0:
            self.map.close()
            os.close(self.fd)
            self.fd = -1

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


@dataclass
class Window:
    iova: int
    size: int
    memory: GuestMemory
    offset: int
    flags: int = 3

    def holds(self, iova, count):
        return self.iova <= iova and iova + count <= self.iova + self.size


class AddressSpace:
    """What the guest believes its memory to be; also hands out addresses from the first window."""

    def __init__(self):
        self.windows = []
        self._next = None
        self._end = None

    def add(self, iova, size, memory, offset=0, flags=3):
        window = Window(iova, size, memory, offset, flags)
        self.windows.append(window)
        if self._next is None:
            self._next, self._end = iova, iova + size
        return window

    def remove(self, window):
        self.windows.remove(window)

    def find(self, iova, count=1):
        for window in self.windows:
            if window.holds(iova, count):
                return window
        raise AssertionError(f"the test itself touches [{iova:#x}, +{count}), which no window of it holds")

    def read(self, iova, count):
        window = self.find(iova, count)
        return window.memory.read(window.offset + iova - window.iova, count)

    def write(self, iova, data):
        window = self.find(iova, len(data))
        window.memory.write(window.offset + iova - window.iova, data)

    def fill(self, iova, count, byte):
        self.write(iova, bytes([byte]) * count)

    def _scalar(self, layout, iova):
        window = self.find(iova, layout.size)
        return layout.unpack_from(window.memory.map, window.offset + iova - window.iova)[0]

    def _put(self, layout, iova, value):
        window = self.find(iova, layout.size)
        offset = window.offset + iova - window.iova
        if offset % layout.size:
            layout.pack_into(window.memory.map, offset, value)
            return
        with memoryview(window.memory.map) as whole, whole.cast(layout.format[-1]) as numbers:
            numbers[offset // layout.size] = value

    def u16(self, iova):
        return self._scalar(U16, iova)

    def u32(self, iova):
        return self._scalar(U32, iova)

    def u64(self, iova):
        return self._scalar(U64, iova)

    def put_u16(self, iova, value):
        self._put(U16, iova, value & 0xFFFF)

    def put_u32(self, iova, value):
        self._put(U32, iova, value & 0xFFFFFFFF)

    def put_u64(self, iova, value):
        self._put(U64, iova, value & 0xFFFFFFFFFFFFFFFF)

    def alloc(self, size, align=16):
        """An address inside the first window; never given back (a test is short)."""
        iova = (self._next + align - 1) & ~(align - 1)
        assert iova + size <= self._end, f"the test's guest memory is used up ({size} bytes wanted)"
        self._next = iova + size
        return iova

    def mark(self):
        """The allocator's position, for `release`."""
        return self._next

    def release(self, mark):
        self._next = mark
