# SPDX-License-Identifier: BSD-3-Clause
"""A proxy between a vhost-user front end and a real back end, which meddles with one thing: for tests of who has to find that.

`meddle(request, payload, fds)` sees each message of the front end's, and may change the list of fds and the memory behind them."""

import array
import mmap
import os
import select
import socket
import struct
import threading
from contextlib import suppress

from .vhost import HEADER, INFLIGHT, Req


def close(fds):
    for fd in fds:
        with suppress(OSError):
            os.close(fd)


class Half:
    """One direction."""

    def __init__(self, source, sink):
        self.source, self.sink = source, sink
        self.data, self.fds = b"", []

    def receive(self):
        data, fds, _, _ = socket.recv_fds(self.source, 1 << 16, 64)
        self.data, self.fds = self.data + data, self.fds + fds
        return bool(data)

    def send(self, data):
        fds, self.fds = self.fds, []
        try:
            while data:
                control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
                data = data[self.sink.sendmsg([data], control):]
                close(fds)
                fds = []
        finally:
            close(fds)

    def pass_on(self, meddle):
        """Whole messages to meddle, where there is one; what is none goes on as it is."""
        while meddle and len(self.data) >= HEADER.size:
            request, _, size = HEADER.unpack_from(self.data)
            if size > 4096:
                break
            if len(self.data) < HEADER.size + size:
                return
            message, self.data = self.data[:HEADER.size + size], self.data[HEADER.size + size:]
            meddle(request, message[HEADER.size:], self.fds)
            self.send(message)
        if not meddle or len(self.data) >= HEADER.size:
            data, self.data = self.data, b""
            self.send(data)


class Relay:
    """Listens at `path` for clients of the back end at `behind`."""

    def __init__(self, path, behind, meddle):
        self.behind, self.meddle = str(behind), meddle
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(8)
        self.wake = os.eventfd(0)
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        os.eventfd_write(self.wake, 1)
        self.thread.join()
        self.listener.close()
        os.close(self.wake)

    def run(self):
        while self.wake not in select.select([self.listener, self.wake], [], [])[0]:
            front, _ = self.listener.accept()
            with front, socket.socket(socket.AF_UNIX) as back, suppress(OSError):
                back.connect(self.behind)
                self.serve(Half(front, back), Half(back, front))

    def serve(self, down, up):
        try:
            while True:
                ready = select.select([down.source, up.source, self.wake], [], [])[0]
                if self.wake in ready:
                    return
                for half in (down, up):
                    if half.source in ready:
                        if not half.receive():
                            return
                        half.pass_on(self.meddle if half is down else None)
        finally:
            close(down.fds + up.fds)


# --- what to do to the log of what is in flight ---

VERSION_AT, LAST_BATCH_AT, USED_AT, OLD_FREE_AT, OLD_USED_AT = 8, 12, 14, 14, 18
SPLIT_ENTRIES, SPLIT_ENTRY, PACKED_ENTRIES, PACKED_ENTRY, COUNTER = 16, 16, 32, 32, 8


class Log:
    """Meddles with the log that a back end is given: how(bytes of it, whether it is a packed ring's, entries)."""

    def __init__(self, packed, how):
        self.packed, self.how = packed, how

    def __call__(self, request, payload, fds):
        if request != Req.SET_INFLIGHT_FD or len(fds) != 1:
            return
        size, offset, _, entries = INFLIGHT.unpack(payload)
        with mmap.mmap(fds[0], offset + size) as log:
            if log[offset + VERSION_AT]:
                with memoryview(log)[offset:] as region:
                    self.how(region, self.packed, entries)


def lost(log, _packed, _entries):
    """As who does not look into it at all."""
    log[:] = bytes(len(log))


def _entries_of(packed, count):
    head, step = (PACKED_ENTRIES, PACKED_ENTRY) if packed else (SPLIT_ENTRIES, SPLIT_ENTRY)
    return range(head, head + count * step, step)


def last_batch_done_twice(log, packed, _entries):
    """As who does not look at the last batch: what is in flight by the log is done again."""
    if packed:
        log[LAST_BATCH_AT:LAST_BATCH_AT + 2] = log[OLD_FREE_AT:OLD_FREE_AT + 2]  # free_head
        log[OLD_USED_AT - 2:OLD_USED_AT] = log[OLD_USED_AT:OLD_USED_AT + 2]  # used_idx
    else:
        log[USED_AT:USED_AT + 2] = struct.pack("<H", 3)


def last_batch_forgotten(log, packed, _entries):
    """As who takes the last batch for done, though it is not used yet."""
    if packed:
        log[OLD_FREE_AT:OLD_FREE_AT + 2] = log[LAST_BATCH_AT:LAST_BATCH_AT + 2]
        log[OLD_USED_AT:OLD_USED_AT + 2] = log[OLD_USED_AT - 2:OLD_USED_AT]
        return
    head = struct.unpack_from("<H", log, LAST_BATCH_AT)[0]
    for _ in range(3):
        log[SPLIT_ENTRIES + head * SPLIT_ENTRY] = 0
        head = struct.unpack_from("<H", log, SPLIT_ENTRIES + head * SPLIT_ENTRY + 6)[0]


def other_order(log, packed, entries):
    """Counters that say another order."""
    for at in _entries_of(packed, entries):
        if log[at]:
            struct.pack_into("<Q", log, at + COUNTER, 1000 - struct.unpack_from("<Q", log, at + COUNTER)[0])
