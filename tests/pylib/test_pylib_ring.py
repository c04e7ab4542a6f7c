# SPDX-License-Identifier: BSD-3-Clause
"""Memory and the split ring: layouts byte by byte, against virtio 1.2, section 2.7."""

import os
import struct

import pytest

from . import ring
from .memory import AddressSpace, GuestMemory
from .ring import Segment, SplitQueue


@pytest.fixture
def space():
    with GuestMemory(1 << 20) as memory:
        space = AddressSpace()
        space.add(0x100000, 1 << 20, memory)
        yield space


def device_gives_back(queue, head, length):
    """What a device does: element first, then the index."""
    idx = queue.used_idx()
    at = queue.used_addr + 4 + 8 * (idx % queue.size)
    queue.space.put_u32(at, head)
    queue.space.put_u32(at + 4, length)
    queue.space.put_u16(queue.used_addr + 2, idx + 1)


def test_memory_with_shrink_seal_cannot_be_made_smaller():
    with GuestMemory(8192) as memory:
        with pytest.raises(PermissionError):
            os.ftruncate(memory.fd, 4096)
    with GuestMemory(8192, seal=None) as memory:
        os.ftruncate(memory.fd, 4096)


def test_memory_is_shared_through_its_fd():
    with GuestMemory(8192) as memory:
        memory.write(100, b"hello")
        assert os.pread(memory.fd, 5, 100) == b"hello"


def test_address_space_finds_windows_and_honours_their_offsets():
    with GuestMemory(8192) as memory:
        space = AddressSpace()
        space.add(0x40000, 4096, memory, offset=4096)
        space.write(0x40010, b"xyz")
        assert memory.read(4096 + 0x10, 3) == b"xyz"
        with pytest.raises(AssertionError):
            space.read(0x40FFF, 2)


def test_alloc_aligns_and_stays_inside_the_first_window(space):
    assert space.alloc(1, 1) == 0x100000
    assert space.alloc(16, 4096) == 0x101000
    with pytest.raises(AssertionError):
        space.alloc(2 << 20)


def test_scalars_are_little_endian(space):
    space.put_u16(0x100000, 0x1234)
    space.put_u32(0x100004, 0x89ABCDEF)
    space.put_u64(0x100008, 1 << 63)
    assert space.read(0x100000, 16) == struct.pack("<HxxIQ", 0x1234, 0x89ABCDEF, 1 << 63)


def test_a_chain_is_laid_out_as_virtio_says(space):
    queue = SplitQueue(space, 8)
    head = queue.add([Segment(0x1000, 16), Segment(0x2000, 512, True), Segment(0x3000, 1, True)])
    first = queue.get_desc(head)
    assert first[:3] == (0x1000, 16, ring.NEXT)
    second = queue.get_desc(first[3])
    assert second[:3] == (0x2000, 512, ring.NEXT | ring.WRITE)
    assert queue.get_desc(second[3]) == (0x3000, 1, ring.WRITE, 0)
    assert space.u16(queue.avail_addr + 2) == 1
    assert space.u16(queue.avail_addr + 4) == head
    assert len(queue.free) == 5


def test_an_indirect_chain_takes_one_descriptor(space):
    queue = SplitQueue(space, 4)
    head = queue.add([Segment(0x1000, 16), Segment(0x2000, 1, True)], indirect=True)
    addr, length, flags, _ = queue.get_desc(head)
    assert (length, flags) == (32, ring.INDIRECT)
    assert space.read(addr, 32) == ring.desc(0x1000, 16, ring.NEXT, 1) + ring.desc(0x2000, 1, ring.WRITE, 0)


def test_take_returns_what_the_device_gave_and_frees_the_chain(space):
    queue = SplitQueue(space, 4)
    head = queue.add([Segment(0x1000, 16), Segment(0x2000, 1, True)])
    assert queue.take() == []
    device_gives_back(queue, head, 513)
    assert queue.wait(1) == [(head, 513)]
    assert len(queue.free) == 4


def test_indices_wrap_at_65536_and_slots_at_the_ring_size(space):
    queue = SplitQueue(space, 4)
    queue.avail_idx = queue.last_used = 0xFFFF
    space.put_u16(queue.used_addr + 2, 0xFFFF)
    head = queue.add([Segment(0x1000, 1, True)])
    assert space.u16(queue.avail_addr + 2) == 0
    assert space.u16(queue.avail_addr + 4 + 2 * 3) == head
    device_gives_back(queue, head, 1)
    assert queue.take() == [(head, 1)]
    assert queue.last_used == 0


def test_raw_verbs_write_what_they_are_told(space):
    queue = SplitQueue(space, 4)
    queue.put_avail(0xFFFF, slot=2)
    queue.set_avail_idx(1000)
    assert space.u16(queue.avail_addr + 4 + 4) == 0xFFFF
    assert space.u16(queue.avail_addr + 2) == 1000
    queue.set_used_event(77)
    assert space.u16(queue.avail_addr + 4 + 2 * 4) == 77


@pytest.mark.parametrize("event, new, old, due", [
    (0, 1, 0, True), (1, 1, 0, False), (0, 2, 1, False), (0xFFFF, 0, 0xFFFF, True), (5, 10, 0, True),
    (0x8000, 1, 0, False),
])
def test_need_event_is_the_formula_of_the_specification(event, new, old, due):
    assert ring.need_event(event, new, old) is due
