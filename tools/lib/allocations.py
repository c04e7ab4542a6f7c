# SPDX-License-Identifier: BSD-3-Clause
"""Counts a running process's calls of malloc and its like, by uprobes on libc: nothing is put into the process beforehand."""

import ctypes
import os
import re
import struct
from pathlib import Path

from . import perf_events

UPROBE = Path("/sys/bus/event_source/devices/uprobe/type")
ATTR_SIZE = 72  # PERF_ATTR_SIZE_VER1: up to config2
NAMES = {b"malloc", b"calloc", b"realloc", b"posix_memalign", b"aligned_alloc", b"memalign"}
PT_LOAD, SHT_DYNSYM = 1, 11


def unavailable():
    """Why they cannot be counted here, or None."""
    if not perf_events.known():
        return f"counting allocations is not known for {os.uname().machine}"
    return None if UPROBE.exists() and os.geteuid() == 0 else "that takes root, and a kernel with uprobes"


def libc_of(pid):
    found = re.search(r"(/\S*/libc\.so\S*)", Path(f"/proc/{pid}/maps").read_text(encoding="utf-8"))
    if not found:
        raise OSError(0, f"process {pid} has no libc that is shared")
    return found.group(1)


def offsets(path):
    """Where in the file the functions begin (ELF64)."""
    image = Path(path).read_bytes()
    segments_at, sections_at = struct.unpack_from("<QQ", image, 32)
    segment_size, segments, section_size, sections = struct.unpack_from("<HHHH", image, 54)
    loads = []
    for index in range(segments):
        kind, _, offset, address, _, size = struct.unpack_from("<IIQQQQ", image, segments_at + index * segment_size)
        if kind == PT_LOAD:
            loads.append((address, offset, size))
    headers = [struct.unpack_from("<IIQQQQIIQQ", image, sections_at + index * section_size) for index in range(sections)]
    found = set()
    for _, kind, _, _, offset, size, link, _, _, each in headers:
        if kind != SHT_DYNSYM:
            continue
        names_at = headers[link][4]
        for at in range(offset, offset + size, each):
            name, _, _, section, value, _ = struct.unpack_from("<IBBHQQ", image, at)
            end = image.index(b"\0", names_at + name)
            if section and image[names_at + name:end] in NAMES:
                found.update(value - address + start for address, start, length in loads if address <= value < address + length)
    return sorted(found)


def of_process(pid):
    """All threads of a process, from now on."""
    path = libc_of(pid)
    name = ctypes.create_string_buffer(path.encode())
    kind = int(UPROBE.read_text(encoding="ascii"))
    attrs = [struct.pack("=IIQQQQQIIQQ", kind, ATTR_SIZE, 0, 0, 0, 0, perf_events.FLAG_INHERIT, 0, 0, ctypes.addressof(name), offset)
             for offset in offsets(path)]
    return perf_events.Counter(attrs, perf_events.tids_of(pid))
