# SPDX-License-Identifier: BSD-3-Clause
"""What of a file the page cache has, and how it comes to have all or nothing of it."""

import ctypes
import mmap
import os

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
LIBC.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]


def share(path):
    """Of the file's pages, those that are there: 0 to 1."""
    fd = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(fd).st_size
        pages = ctypes.create_string_buffer((size + mmap.PAGESIZE - 1) // mmap.PAGESIZE)
        address = LIBC.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
        if address == ctypes.c_void_p(-1).value:
            raise OSError(ctypes.get_errno(), f"mmap of {path}")
        refused = LIBC.mincore(address, size, pages)
        LIBC.munmap(address, size)
        if refused:
            raise OSError(ctypes.get_errno(), f"mincore of {path}")
    finally:
        os.close(fd)
    there = pages.raw
    return sum(page & 1 for page in there) / len(there)


def fill(path):
    """Reads all of it."""
    with open(path, "rb", buffering=0) as file:
        while file.read(1 << 20):
            pass


def empty(path):
    """Writes back what is dirty, and lets go of all."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)
