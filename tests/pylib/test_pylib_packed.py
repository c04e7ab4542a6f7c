# SPDX-License-Identifier: BSD-3-Clause
"""The packed ring: layouts byte by byte and the two wrap counters, against virtio 1.2, section 2.8."""

import struct

import pytest

from . import packed
from .memory import AddressSpace, GuestMemory
from .packed import AVAIL, USED, PackedQueue, Position
from .ring import INDIRECT, NEXT, WRITE, Segment


@pytest.fixture
def space():
    with GuestMemory(1 << 20) as memory:
        space = AddressSpace()
        space.add(0x100000, 1 << 20, memory)
        yield space


class Device:
    """The device's half, as 2.8.1 tells it: only positions and flags."""

    def __init__(self, queue):
        self.queue = queue
        self.avail = Position(queue.size)
        self.used = Position(queue.size)

    def take(self):
        """(buffer id, entries, [descriptor]) of the next chain, or None."""
        flags = self.queue.get_flags(self.avail.index)
        if bool(flags & AVAIL) != self.avail.wrap or bool(flags & USED) == self.avail.wrap:
            return None
        chain = []
        while True:
            chain.append(self.queue.get_desc(self.avail.index))
            self.avail.step()
            if not chain[-1][3] & NEXT:
                return chain[-1][2], len(chain), chain

    def give(self, buffer_id, entries, length):
        flags = AVAIL | USED if self.used.wrap else 0
        self.queue.set_desc(self.used.index, 0, length, flags, buffer_id)
        self.used.step(entries)


def test_a_descriptor_has_its_id_before_its_flags():
    assert packed.desc(0x1122334455667788, 0x99AABBCC, 0xDDEE, 0xFF01) == bytes.fromhex(
        "8877665544332211 ccbbaa99 eedd 01ff".replace(" ", ""))


def test_a_chain_is_laid_out_as_virtio_says(space):
    queue = PackedQueue(space, 8)
    buffer_id = queue.add([Segment(0x1000, 16), Segment(0x2000, 512, True), Segment(0x3000, 1, True)])
    assert queue.get_desc(0) == (0x1000, 16, buffer_id, NEXT | AVAIL)
    assert queue.get_desc(1) == (0x2000, 512, buffer_id, NEXT | WRITE | AVAIL)
    assert queue.get_desc(2) == (0x3000, 1, buffer_id, WRITE | AVAIL)
    assert queue.get_desc(3) == (0, 0, 0, 0)
    assert queue.room == 5


def test_a_chain_that_was_built_is_hidden_until_it_is_offered(space):
    queue = PackedQueue(space, 4)
    device = Device(queue)
    buffer_id = queue.build([Segment(0x1000, 16), Segment(0x2000, 1, True)])
    assert device.take() is None
    queue.offer(buffer_id)
    assert device.take()[:2] == (buffer_id, 2)


def test_an_indirect_chain_takes_one_descriptor_and_its_table_has_no_next(space):
    queue = PackedQueue(space, 4)
    buffer_id = queue.add([Segment(0x1000, 16), Segment(0x2000, 1, True)], indirect=True)
    addr, length, got, flags = queue.get_desc(0)
    assert (length, got, flags) == (32, buffer_id, INDIRECT | AVAIL)
    assert space.read(addr, 32) == struct.pack("<QIHHQIHH", 0x1000, 16, 0, 0, 0x2000, 1, 0, WRITE)
    assert queue.room == 3


def test_flags_on_the_second_lap_are_the_other_way_round(space):
    queue = PackedQueue(space, 2)
    device = Device(queue)
    for lap_flags in (AVAIL, USED, AVAIL, USED):
        for index in range(2):
            queue.add([Segment(0x1000, 1, True)])
            assert queue.get_flags(index) == WRITE | lap_flags
            device.give(*device.take()[:2], 1)
            assert len(queue.take()) == 1


@pytest.mark.parametrize("size, lengths", [(1, [1]), (3, [2]), (3, [3, 1]), (4, [3]), (5, [3, 1, 2]), (7, [3, 4, 2])])
def test_chains_of_any_length_go_round_rings_of_any_size(space, size, lengths):
    queue = PackedQueue(space, size)
    device = Device(queue)
    for turn in range(10 * size):
        count = lengths[turn % len(lengths)]
        buffer_id = queue.add([Segment(0x1000 * (i + 1), turn + 1) for i in range(count)])
        got, entries, chain = device.take()
        assert (got, entries, [d[0] for d in chain]) == (buffer_id, count, [0x1000 * (i + 1) for i in range(count)])
        assert device.take() is None
        assert queue.take() == []
        device.give(got, entries, turn)
        assert queue.take() == [(buffer_id, turn)]
        assert queue.room == size and sorted(queue.free) == list(range(size))


def test_out_of_order_completions_are_told_apart_by_their_ids(space):
    """The device writes where its own position is, whatever the chain's place was."""
    queue = PackedQueue(space, 5)
    device = Device(queue)
    for _ in range(7):
        long = queue.add([Segment(0x1000, 1), Segment(0x2000, 1), Segment(0x3000, 1)])
        short = queue.add([Segment(0x4000, 1)])
        taken = [device.take(), device.take()]
        for buffer_id, entries, _ in reversed(taken):
            device.give(buffer_id, entries, entries)
        assert queue.take() == [(short, 1), (long, 3)]


def test_middle_descriptors_of_an_earlier_lap_are_not_taken_for_used_ones(space):
    queue = PackedQueue(space, 4)
    device = Device(queue)
    for _ in range(3):
        buffer_id = queue.add([Segment(0x1000, 1)] * 4)
        assert queue.take() == []
        device.give(*device.take()[:2], 0)
        assert queue.take() == [(buffer_id, 0)]
        assert not queue.given_back() and device.take() is None


def test_what_was_not_in_flight_is_an_error(space):
    queue = PackedQueue(space, 4)
    queue.add([Segment(0x1000, 1)])
    Device(queue).give(3, 1, 0)
    with pytest.raises(AssertionError):
        queue.take()


def test_a_full_ring_takes_no_more(space):
    queue = PackedQueue(space, 3)
    queue.add([Segment(0x1000, 1)] * 2)
    with pytest.raises(AssertionError):
        queue.add([Segment(0x1000, 1)] * 2)


def test_raw_chains_are_written_as_they_are_told_and_taken_back(space):
    queue = PackedQueue(space, 4)
    device = Device(queue)
    queue.put_raw((0x1000, 5, NEXT | 0x1000, 7), (0x2000, 6, WRITE, 0xFFFF))
    assert queue.get_desc(0) == (0x1000, 5, 7, NEXT | 0x1000 | AVAIL)
    assert queue.get_desc(1) == (0x2000, 6, 0xFFFF, WRITE | AVAIL)
    device.give(*device.take()[:2], 9)
    assert queue.take() == [(0xFFFF, 9)]
    assert len(queue.free) == 4 and queue.room == 4


def test_event_structures_hold_position_wrap_and_flags(space):
    queue = PackedQueue(space, 8)
    queue.ask_at(Position(8, 5, True))
    assert space.read(queue.avail_addr, 4) == struct.pack("<HH", 0x8005, 2)
    queue.ask_at(Position(8, 5, False))
    assert space.read(queue.avail_addr, 4) == struct.pack("<HH", 5, 2)
    queue.ask_never()
    assert space.u16(queue.avail_addr + 2) == 1
    queue.ask_always()
    assert space.u16(queue.avail_addr + 2) == 0


@pytest.mark.parametrize("word, flags, entries, due", [
    (0, 0, 1, True), (0, 1, 1, False),
    (0x8000, 2, 1, True), (0x8000, 2, 2, True), (0x8001, 2, 1, False), (0, 2, 1, False),
])
def test_kicks_are_due_as_the_device_says(space, word, flags, entries, due):
    """One or two entries from the ring's start."""
    queue = PackedQueue(space, 4)
    for _ in range(entries):
        queue.add([Segment(0x1000, 1)])
    space.write(queue.used_addr, struct.pack("<HH", word, flags))
    assert queue.kick_due(entries) is due


@pytest.mark.parametrize("word, due", [(0x8002, False), (0x8003, True), (0x0000, True), (0x0001, False),
                                       (0x8000, False), (0x0003, False)])
def test_kicks_are_due_by_position_across_the_rings_end(space, word, due):
    """Entries 3 of the first lap and 0 of the second."""
    queue = PackedQueue(space, 4)
    queue.next_avail = Position(4, 3)
    queue.add([Segment(0x1000, 1)] * 2)
    space.write(queue.used_addr, struct.pack("<HH", word, 2))
    assert queue.kick_due(2) is due


def test_clear_starts_at_the_first_lap(space):
    queue = PackedQueue(space, 2)
    for _ in range(2):
        queue.add([Segment(0x1000, 1)])
    queue.clear()
    assert (queue.next_avail, queue.next_used) == (Position(2), Position(2))
    assert space.read(queue.desc_addr, 32) == bytes(32)
    assert queue.room == 2 and len(queue.free) == 2 and not queue.chains
