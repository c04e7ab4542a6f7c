# SPDX-License-Identifier: BSD-3-Clause
"""The driver's side of a virtio packed ring (virtio 1.2, section 2.8), honest or not.

Beside what every queue has (see ring.Queue): `put_raw` writes descriptors at the ring's next places whatever they say,
`set_desc` anywhere, and `ask_at`, `ask_always`, `ask_never` fill the driver's event suppression structure.

The names of the three areas are the split ring's, since the registers are the same: `desc_addr` is the ring itself,
`avail_addr` the driver's event suppression structure, `used_addr` the device's.
"""

import struct

from .ring import DESC_SIZE, INDIRECT, NEXT, WRITE, Queue

DESC = struct.Struct("<QIHH")
FLAGS_AT = 14  # in a descriptor

AVAIL = 1 << 7
USED = 1 << 15

ENABLE, DISABLE, AT_DESC = 0, 1, 2  # event suppression
EVENT_SIZE = 4
WRAP = 1 << 15


def desc(addr, length, buffer_id=0, flags=0):
    """One descriptor as bytes, its fields in their order in memory."""
    return DESC.pack(addr & (2**64 - 1), length & 0xFFFFFFFF, buffer_id & 0xFFFF, flags & 0xFFFF)


def available(wrap):
    """The two flags of a descriptor that the driver gives to the device, on a lap whose wrap counter is `wrap`."""
    return AVAIL if wrap else USED


def used(wrap):
    """The two flags of a descriptor that the device gives back."""
    return AVAIL | USED if wrap else 0


class Position:
    """A place in the ring and the wrap counter of the lap it is on."""

    def __init__(self, size, index=0, wrap=True):
        self.size = size
        self.index = index
        self.wrap = wrap

    def copy(self):
        return Position(self.size, self.index, self.wrap)

    def step(self, count=1):
        for _ in range(count):
            self.index += 1
            if self.index == self.size:
                self.index = 0
                self.wrap = not self.wrap

    def ahead(self, count):
        other = self.copy()
        other.step(count)
        return other

    def word(self):
        """As event suppression structures hold it."""
        return self.index | (WRAP if self.wrap else 0)

    def __eq__(self, other):
        return self.word() == other.word()

    def __repr__(self):
        return f"{self.index}{'+' if self.wrap else '-'}"


class PackedQueue(Queue):
    packed = True

    def __init__(self, space, size, *, event_idx=False, desc_addr=None, avail_addr=None, used_addr=None):
        self.space = space
        self.size = size
        self.event_idx = event_idx
        self.desc_addr = space.alloc(DESC_SIZE * size, 4096) if desc_addr is None else desc_addr
        self.avail_addr = space.alloc(EVENT_SIZE, 4096) if avail_addr is None else avail_addr
        self.used_addr = space.alloc(EVENT_SIZE, 4096) if used_addr is None else used_addr
        self._start()

    def _start(self):
        self.next_avail = Position(self.size)
        self.next_used = Position(self.size)
        self.free = list(range(self.size - 1, -1, -1))  # buffer ids
        self.room = self.size  # entries of the ring that are the driver's
        self.chains = {}  # buffer id -> how many entries it takes
        self.unoffered = {}  # buffer id -> its first entry and the flags that will make it available

    def clear(self):
        """As a driver leaves it before the device starts."""
        self.space.write(self.desc_addr, bytes(DESC_SIZE * self.size))
        self.space.write(self.avail_addr, bytes(EVENT_SIZE))
        self.space.write(self.used_addr, bytes(EVENT_SIZE))
        self._start()

    # --- raw -------------------------------------------------------------------------------------------------

    def set_desc(self, index, addr, length, flags=0, buffer_id=0):
        self.space.write(self.desc_addr + DESC_SIZE * index, desc(addr, length, buffer_id, flags))

    def get_desc(self, index):
        """(address, length, buffer id, flags)"""
        return DESC.unpack(self.space.read(self.desc_addr + DESC_SIZE * index, DESC_SIZE))

    def get_flags(self, index):
        return self.space.u16(self.desc_addr + DESC_SIZE * index + FLAGS_AT)

    def set_flags(self, index, flags):
        self.space.put_u16(self.desc_addr + DESC_SIZE * index + FLAGS_AT, flags)

    def write_raw(self, *descs):
        """Writes (address, length, flags, buffer id) at the ring's next places; the first one's flags stay as they
        are. Gives its index and the flags that make it available."""
        first = self.next_avail.copy()
        first_flags = 0
        for count, (addr, length, flags, buffer_id) in enumerate(descs):
            flags |= available(self.next_avail.wrap)
            at = self.desc_addr + DESC_SIZE * self.next_avail.index
            self.space.write(at, desc(addr, length, buffer_id)[:FLAGS_AT])
            if count == 0:
                first_flags = flags
            else:
                self.set_flags(self.next_avail.index, flags)
            self.next_avail.step()
        return first.index, first_flags

    def put_raw(self, *descs):
        """As write_raw, and makes them available. The queue counts on the last one's buffer id to come back."""
        buffer_id = descs[-1][3]
        self.chains[buffer_id] = len(descs)
        self.room -= len(descs)
        if buffer_id in self.free:
            self.free.remove(buffer_id)
        self.set_flags(*self.write_raw(*descs))

    def put_chain(self, *descs, buffer_id=0):
        """Descriptors (address, length, flags) as one chain, however wrong, made available; NEXT isn't added."""
        self.put_raw(*((addr, length, flags, buffer_id) for addr, length, flags in descs))
        return buffer_id

    # --- events ----------------------------------------------------------------------------------------------

    def set_driver_event(self, word, flags):
        self.space.put_u16(self.avail_addr, word)
        self.space.put_u16(self.avail_addr + 2, flags)

    def ask_always(self):
        self.set_driver_event(0, ENABLE)

    def ask_never(self):
        self.set_driver_event(0, DISABLE)

    def ask_at(self, position):
        """An interrupt when the device has used the entry at `position`."""
        self.set_driver_event(position.word(), AT_DESC)

    def device_event(self):
        """(position word, flags) of the structure that the device writes."""
        return self.space.u16(self.used_addr), self.space.u16(self.used_addr + 2)

    def kick_due(self, entries):
        """Whether the device wants to be told of the last `entries` that were made available."""
        word, flags = self.device_event()
        if flags != AT_DESC:
            return flags != DISABLE
        index, wrap = word & ~WRAP, bool(word & WRAP)
        position = self.next_avail.copy()
        for _ in range(entries):  # backwards over what was made available
            if position.index == 0:
                position = Position(self.size, self.size - 1, not position.wrap)
            else:
                position = Position(self.size, position.index - 1, position.wrap)
            if (position.index, position.wrap) == (index, wrap):
                return True
        return False

    # --- honest ----------------------------------------------------------------------------------------------

    def position(self):
        return self.next_avail.word()

    @staticmethod
    def indirect_table(segments):
        """A good indirect table as bytes: from end to end, without NEXT (2.8.7)."""
        return b"".join(desc(seg.addr, seg.length, 0, WRITE if seg.writable else 0) for seg in segments)

    @staticmethod
    def raw_desc(addr, length, flags):
        return desc(addr, length, 0, flags)

    def build(self, segments, *, indirect=False):
        """Writes a chain at the ring's next places and gives its buffer id; it isn't offered yet."""
        if indirect:
            table = self.space.alloc(DESC_SIZE * len(segments), 16)
            self.space.write(table, self.indirect_table(segments))
            parts = [(table, DESC_SIZE * len(segments), INDIRECT)]
        else:
            parts = [(seg.addr, seg.length, WRITE if seg.writable else 0) for seg in segments]
        assert self.room >= len(parts), f"{len(parts)} descriptors wanted, {self.room} are free"
        buffer_id = self.free.pop()
        last = len(parts) - 1
        self.unoffered[buffer_id] = self.write_raw(*(
            (addr, length, flags | (NEXT if i < last else 0), buffer_id)
            for i, (addr, length, flags) in enumerate(parts)))
        self.chains[buffer_id] = len(parts)
        self.room -= len(parts)
        return buffer_id

    def offer(self, *buffer_ids):
        for buffer_id in buffer_ids:
            self.set_flags(*self.unoffered.pop(buffer_id))

    def given_back(self):
        flags = self.get_flags(self.next_used.index)
        return flags & (AVAIL | USED) == used(self.next_used.wrap)

    def take(self):
        done = []
        while self.given_back():
            _, length, buffer_id, _ = self.get_desc(self.next_used.index)
            assert buffer_id in self.chains, f"the device gives back the buffer {buffer_id}, which it hasn't got"
            count = self.chains.pop(buffer_id)
            self.next_used.step(count)
            self.room += count
            if buffer_id < self.size:
                self.free.append(buffer_id)
            done.append((buffer_id, length))
        return done
