# SPDX-License-Identifier: BSD-3-Clause
"""The driver's side of a virtio split ring (virtio 1.2, section 2.7), honest or not.

The raw verbs (`set_desc`, `put_avail`, `set_avail_idx`) write whatever they are told; `add` builds a good chain from
segments and keeps a free list; `take` collects what the device has given back.
"""

import struct
import time
from dataclasses import dataclass

from .events import PATIENCE

DESC = struct.Struct("<QIHH")
DESC_SIZE = DESC.size
NEXT = 1
WRITE = 2
INDIRECT = 4

AVAIL_NO_INTERRUPT = 1
USED_NO_NOTIFY = 1


@dataclass(frozen=True)
class Segment:
    """One piece of a buffer: `writable` means by the device."""

    addr: int
    length: int
    writable: bool = False


def desc(addr, length, flags=0, following=0):
    """One descriptor as bytes."""
    return DESC.pack(addr & (2**64 - 1), length & 0xFFFFFFFF, flags & 0xFFFF, following & 0xFFFF)


def indirect_table(segments):
    """A good indirect table as bytes."""
    out = bytearray()
    for i, seg in enumerate(segments):
        last = i == len(segments) - 1
        out += desc(seg.addr, seg.length, (0 if last else NEXT) | (WRITE if seg.writable else 0), 0 if last else i + 1)
    return bytes(out)


def need_event(event, new, old):
    """Virtio 1.2, 2.7.10.1: did the index pass the one asked for?"""
    return (new - event - 1) & 0xFFFF < (new - old) & 0xFFFF


class Queue:
    """What tests may ask of a queue of either format: `build` writes a good chain and gives what names it (its head, or
    its buffer id), `offer` makes it available, `add` does both; `put_chain` offers a chain that is good or not;
    `given_back` and `take` see what the device has used."""

    packed = False
    in_order = False  # VIRTIO_F_IN_ORDER was negotiated

    def position(self):
        """What a notification with data says (2.9): where the next chain will be put, and on which lap."""
        raise NotImplementedError

    def add(self, segments, *, indirect=False):
        head = self.build(segments, indirect=indirect)
        self.offer(head)
        return head

    def wait(self, count=1, timeout=PATIENCE):
        """Takes until `count` heads came back or time is up; gives what came."""
        done = []
        end = time.monotonic() + timeout
        pause = 0.0
        while len(done) < count:
            got = self.take()
            if got:
                done += got
                continue
            if time.monotonic() >= end:
                break
            time.sleep(pause)
            pause = 0.0005
        return done


class SplitQueue(Queue):
    def __init__(self, space, size, *, event_idx=False, desc_addr=None, avail_addr=None, used_addr=None):
        self.space = space
        self.size = size
        self.event_idx = event_idx
        self.desc_addr = space.alloc(DESC_SIZE * size, 4096) if desc_addr is None else desc_addr
        self.avail_addr = space.alloc(6 + 2 * size, 4096) if avail_addr is None else avail_addr
        self.used_addr = space.alloc(6 + 8 * size, 4096) if used_addr is None else used_addr
        self.avail_idx = 0
        self.last_used = 0
        self.free = list(range(size - 1, -1, -1))
        self.chains = {}  # head -> descriptors of the chain

    def clear(self):
        """As a driver leaves it before the device starts."""
        self.space.write(self.desc_addr, bytes(DESC_SIZE * self.size))
        self.space.write(self.avail_addr, bytes(6 + 2 * self.size))
        self.space.write(self.used_addr, bytes(6 + 8 * self.size))
        self.avail_idx = 0
        self.last_used = 0
        self.free = list(range(self.size - 1, -1, -1))
        self.chains = {}

    # --- raw -------------------------------------------------------------------------------------------------

    def set_desc(self, index, addr, length, flags=0, following=0):
        self.space.write(self.desc_addr + DESC_SIZE * index, desc(addr, length, flags, following))

    def get_desc(self, index):
        return DESC.unpack(self.space.read(self.desc_addr + DESC_SIZE * index, DESC_SIZE))

    def put_avail(self, head, slot=None):
        """Writes a head into the next slot without publishing it."""
        if slot is None:
            slot = self.avail_idx
            self.avail_idx = (self.avail_idx + 1) & 0xFFFF
        self.space.put_u16(self.avail_addr + 4 + 2 * (slot % self.size), head)

    def set_avail_idx(self, value=None):
        """Publishes; a given value also becomes our own idea of the index."""
        if value is not None:
            self.avail_idx = value & 0xFFFF
        self.space.put_u16(self.avail_addr + 2, self.avail_idx)

    def offer(self, *heads):
        """Puts heads into the available ring and publishes them at once."""
        for head in heads:
            self.put_avail(head)
        self.set_avail_idx()

    def set_avail_flags(self, flags):
        self.space.put_u16(self.avail_addr, flags)

    def set_used_event(self, value):
        self.space.put_u16(self.avail_addr + 4 + 2 * self.size, value)

    def avail_event(self):
        return self.space.u16(self.used_addr + 4 + 8 * self.size)

    def used_flags(self):
        return self.space.u16(self.used_addr)

    def used_idx(self):
        return self.space.u16(self.used_addr + 2)

    def used_elem(self, index):
        at = self.used_addr + 4 + 8 * (index % self.size)
        return self.space.u32(at), self.space.u32(at + 4)

    def put_chain(self, *descs):
        """Descriptors (address, length, flags) from the table's start, each naming the one behind it, offered."""
        for index, (addr, length, flags) in enumerate(descs):
            self.set_desc(index, addr, length, flags, index + 1)
        self.offer(0)
        return 0

    # --- honest ----------------------------------------------------------------------------------------------

    def position(self):
        return self.avail_idx

    @staticmethod
    def indirect_table(segments):
        return indirect_table(segments)

    @staticmethod
    def raw_desc(addr, length, flags):
        """One descriptor of an indirect table, as bytes."""
        return desc(addr, length, flags)

    def build(self, segments, *, indirect=False):
        """Writes a chain into free descriptors and gives its head; it isn't offered yet."""
        if indirect:
            table = self.space.alloc(DESC_SIZE * len(segments), 16)
            self.space.write(table, indirect_table(segments))
            head = self.free.pop()
            self.set_desc(head, table, DESC_SIZE * len(segments), INDIRECT)
            self.chains[head] = [head]
            return head
        assert len(self.free) >= len(segments), f"{len(segments)} descriptors wanted, {len(self.free)} are free"
        taken = [self.free.pop() for _ in segments]
        for i, seg in enumerate(segments):
            last = i == len(segments) - 1
            flags = (0 if last else NEXT) | (WRITE if seg.writable else 0)
            self.set_desc(taken[i], seg.addr, seg.length, flags, 0 if last else taken[i + 1])
        self.chains[taken[0]] = taken
        return taken[0]

    def given_back(self):
        """Whether there is something to take."""
        return self.used_idx() != self.last_used

    def take(self):
        """[(head, length)] of what the device has given back since the last call."""
        done = []
        idx = self.used_idx()
        while self.last_used != idx:
            head, length = self.used_elem(self.last_used)
            self.last_used = (self.last_used + 1) & 0xFFFF
            chain = self.chains.pop(head, [])
            if self.in_order:  # 2.7.5: descriptors are used in the order of the table, round and round
                self.free[:0] = reversed(chain)
            else:
                self.free.extend(reversed(chain))
            done.append((head, length))
        return done
