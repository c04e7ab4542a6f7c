# SPDX-License-Identifier: BSD-3-Clause
"""Counts system calls of running processes by the raw_syscalls:sys_enter tracepoint: far cheaper than strace."""

import os
import struct
from pathlib import Path

from . import perf_events

TRACEPOINT = Path("/sys/kernel/tracing/events/raw_syscalls/sys_enter/id")
PERF_TYPE_TRACEPOINT = 2
ATTR_SIZE = 64  # PERF_ATTR_SIZE_VER0


def unavailable():
    """Why calls cannot be counted here, or None."""
    if not perf_events.known():
        return f"counting system calls is not known for {os.uname().machine}"
    try:
        TRACEPOINT.read_text()
    except OSError as error:
        return f"{TRACEPOINT}: {error.strerror} (be root; mount -t tracefs nodev /sys/kernel/tracing)"
    return None


def counter(tids):
    # perf_event_attr: type, size, config, sample period and type, read format, flags; zeroes to the size.
    event = int(TRACEPOINT.read_text())
    attr = struct.pack("=IIQQQQQ", PERF_TYPE_TRACEPOINT, ATTR_SIZE, event, 0, 0, 0, perf_events.FLAG_INHERIT)
    return perf_events.Counter([attr.ljust(ATTR_SIZE, b"\0")], tids)


def of_process(pid):
    """All threads that the process has now, and those that they start."""
    return counter(perf_events.tids_of(pid))


def of_children():
    """What the calling thread starts from now on (and the few calls that the thread makes itself)."""
    return counter([0])
