# SPDX-License-Identifier: BSD-3-Clause
"""Counts events of running threads by perf_event_open(2)."""

import ctypes
import os
import struct

NR_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}
FLAG_INHERIT = 1 << 1
PERF_FLAG_FD_CLOEXEC = 8


def known():
    """Whether the system call's number is known for this machine."""
    return os.uname().machine in NR_PERF_EVENT_OPEN


def tids_of(pid):
    """The threads that the process has now."""
    return [int(tid) for tid in os.listdir(f"/proc/{pid}/task")]


class Counter:
    """Events of some threads, and of what they start, from now on. Each of `attrs` is a struct perf_event_attr."""

    def __init__(self, attrs, tids):
        libc = ctypes.CDLL(None, use_errno=True)
        self.fds = []
        for attr in attrs:
            attr = ctypes.create_string_buffer(attr, len(attr))
            for tid in tids:
                fd = libc.syscall(ctypes.c_long(NR_PERF_EVENT_OPEN[os.uname().machine]), attr, ctypes.c_int(tid), ctypes.c_int(-1),
                                  ctypes.c_int(-1), ctypes.c_ulong(PERF_FLAG_FD_CLOEXEC))
                if fd < 0:
                    raise OSError(ctypes.get_errno(), f"perf_event_open for thread {tid}")
                self.fds.append(fd)

    def end(self):
        """Returns the number of events and stops counting."""
        total = sum(struct.unpack("=Q", os.read(fd, 8))[0] for fd in self.fds)
        for fd in self.fds:
            os.close(fd)
        self.fds = []
        return total
