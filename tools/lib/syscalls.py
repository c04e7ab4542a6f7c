# SPDX-License-Identifier: BSD-3-Clause
"""Counts system calls of running processes by the raw_syscalls:sys_enter tracepoint: far cheaper than strace."""

import ctypes
import os
import struct
from pathlib import Path

TRACEPOINT = Path("/sys/kernel/tracing/events/raw_syscalls/sys_enter/id")
NR_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}
PERF_TYPE_TRACEPOINT = 2
ATTR_SIZE = 64  # PERF_ATTR_SIZE_VER0
FLAG_INHERIT = 1 << 1
PERF_FLAG_FD_CLOEXEC = 8


def unavailable():
    """Why calls cannot be counted here, or None."""
    if os.uname().machine not in NR_PERF_EVENT_OPEN:
        return f"counting system calls is not known for {os.uname().machine}"
    try:
        TRACEPOINT.read_text()
    except OSError as error:
        return f"{TRACEPOINT}: {error.strerror} (be root; mount -t tracefs nodev /sys/kernel/tracing)"
    return None


class Counter:
    """Calls made by some threads, and by what they start, from now on."""

    def __init__(self, tids):
        libc = ctypes.CDLL(None, use_errno=True)
        # perf_event_attr: type, size, config, sample period and type, read format, flags; zeroes to the size.
        event = int(TRACEPOINT.read_text())
        attr = struct.pack("=IIQQQQQ", PERF_TYPE_TRACEPOINT, ATTR_SIZE, event, 0, 0, 0, FLAG_INHERIT)
        attr = ctypes.create_string_buffer(attr.ljust(ATTR_SIZE, b"\0"), ATTR_SIZE)
        self.fds = []
        for tid in tids:
            fd = libc.syscall(ctypes.c_long(NR_PERF_EVENT_OPEN[os.uname().machine]), attr, ctypes.c_int(tid),
                              ctypes.c_int(-1), ctypes.c_int(-1), ctypes.c_ulong(PERF_FLAG_FD_CLOEXEC))
            if fd < 0:
                raise OSError(ctypes.get_errno(), f"perf_event_open for thread {tid}")
            self.fds.append(fd)

    def end(self):
        """Returns the number of calls and stops counting."""
        total = sum(struct.unpack("=Q", os.read(fd, 8))[0] for fd in self.fds)
        for fd in self.fds:
            os.close(fd)
        self.fds = []
        return total


def of_process(pid):
    """All threads that the process has now, and those that they start."""
    return Counter([int(tid) for tid in os.listdir(f"/proc/{pid}/task")])


def of_children():
    """What the calling thread starts from now on (and the few calls that the thread makes itself)."""
    return Counter([0])
