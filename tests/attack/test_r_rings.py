# SPDX-License-Identifier: BSD-3-Clause
"""Rows R1 to R7, R9 to R14, R17 to R20: split rings whose contents or registers lie."""

import os
import random
import struct
import threading
import time

import pytest

from pylib import blk, ring, virtio, wire
from pylib.events import wait_until
from pylib.ring import INDIRECT, NEXT, WRITE, Segment
from pylib.vm import BASE, USUAL_FEATURES

ADDR = 0x4000_0000
SIZE = 0x10000


def offer_and_break(guest, *heads):
    """Offers raw heads; the device has to BREAK, answer messages, and be healed by a reset."""
    guest.queue.offer(*heads)
    guest.kick()
    guest.assert_broken()
    guest.client.fence()
    assert not guest.queue.take(), "something was given back of a broken queue"
    guest.recover()


# --- R1 -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("head", [64, 65, 0x7FFF, 0x8000, 0xFFFF])
def test_r01_head_beyond_the_queue_breaks_the_device(guest, head):
    offer_and_break(guest, head)


def test_r01_head_beyond_a_queue_smaller_than_its_maximum_breaks_the_device(server):
    """The bound is the size that was set, not the largest possible."""
    guest = server.guest(queue_size=8)
    offer_and_break(guest, 8)


def test_r01_good_requests_before_the_bad_head_are_completed_or_not_but_never_mixed(guest):
    request = guest.prepare(blk.T_IN, 0, length=512)
    guest.submit(request, kick=False)
    guest.queue.offer(0x4321)
    guest.kick()
    guest.assert_broken()
    for head, _ in guest.queue.take():
        assert head == request.head
    guest.recover()


# --- R2, R3 -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("following", [64, 65, 0x8000, 0xFFFF])
def test_r02_next_beyond_the_table_breaks_the_device(guest, following):
    guest.queue.set_desc(0, BASE, 16, NEXT, following)
    offer_and_break(guest, 0)


@pytest.mark.parametrize("following", [3, 4, 0xFFFF])
def test_r02_next_beyond_an_indirect_table_breaks_the_device(guest, following):
    table = guest.space.alloc(48, 16)
    guest.space.write(table, ring.desc(BASE, 16, NEXT, 1) + ring.desc(BASE, 512, NEXT | WRITE, following)
                      + ring.desc(BASE, 1, WRITE))
    guest.queue.set_desc(0, table, 48, INDIRECT)
    offer_and_break(guest, 0)


@pytest.mark.parametrize("length", [1, 2, 3, 64])
def test_r03_chain_that_is_a_cycle_breaks_the_device(guest, length):
    for i in range(length):
        guest.queue.set_desc(i, BASE + 16 * i, 16, NEXT, (i + 1) % length)
    offer_and_break(guest, 0)


def test_r03_cycle_of_zero_length_descriptors_breaks_the_device(guest):
    """A bound on bytes alone would never be reached."""
    guest.queue.set_desc(0, BASE, 0, NEXT, 1)
    guest.queue.set_desc(1, BASE, 0, NEXT, 0)
    offer_and_break(guest, 0)


def test_r03_cycle_behind_a_good_start_breaks_the_device(guest):
    header = guest.space.alloc(16)
    guest.space.write(header, blk.header(blk.T_OUT, 0))
    guest.queue.set_desc(0, header, 16, NEXT, 1)
    guest.queue.set_desc(1, BASE, 512, NEXT, 2)
    guest.queue.set_desc(2, BASE, 512, NEXT, 1)
    offer_and_break(guest, 0)


def test_r03_cycle_in_an_indirect_table_breaks_the_device(guest):
    table = guest.space.alloc(32, 16)
    guest.space.write(table, ring.desc(BASE, 16, NEXT, 1) + ring.desc(BASE, 16, NEXT, 0))
    guest.queue.set_desc(0, table, 32, INDIRECT)
    offer_and_break(guest, 0)


# --- R4 -----------------------------------------------------------------------------------------------------

def test_r04_chain_changed_into_a_cycle_after_submission_is_not_walked_again(serve, image):
    guest = serve(image).guest(memory=16 << 20)
    requests = [guest.prepare(blk.T_IN, 256 * i, length=1 << 17) for i in range(16)]
    for request in requests:
        guest.submit(request, kick=False)
    guest.kick(posted=True)
    for i in range(64):
        guest.queue.set_desc(i, BASE, 16, NEXT, i)
    done = dict(guest.queue.wait(16, 3))
    if guest.broken:  # the descriptors were read after they had changed
        guest.recover()
        return
    for request in requests:
        assert request.head in done
        if guest.space.read(request.status_addr, 1)[0] == blk.S_OK:
            assert guest.space.read(request.data, 8) == request.sector.to_bytes(8, "little")


def test_r04_descriptors_scribbled_over_all_the_time_break_at_worst(guest):
    """A second thread of the guest changes the table while the device works."""
    rng = random.Random(4)
    for _ in range(40):
        for i in range(16):
            guest.submit(guest.prepare(blk.T_IN, i, length=512), kick=False)
        guest.kick(posted=True)
        for _ in range(200):
            guest.queue.set_desc(rng.randrange(64), rng.choice([BASE, rng.getrandbits(64), 0]), rng.getrandbits(32),
                                 rng.getrandbits(3), rng.getrandbits(16))
        guest.client.fence()
        guest.space.release(guest.space.windows[0].iova + (1 << 20))
        guest.restart()
    guest.assert_works()


# --- R5 -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("indirect", [False, True])
@pytest.mark.parametrize("count", [100, 254, 255, 256, 257, 500, 1000])
def test_r05_chain_of_many_descriptors_works_or_fails_and_never_overruns(serve, count, indirect):
    guest = serve("ram:16M", "--queue-size=1024").guest(queue_size=1024)
    data = os.urandom(512 * count)
    addr = guest.space.alloc(512 * count, 512)
    guest.space.write(addr, data)
    for kind, writable in ((blk.T_OUT, False), (blk.T_IN, True)):
        request = guest.prepare(kind, 0)
        parts = [Segment(addr + 512 * i, 512, writable) for i in range(count)]
        guest.submit(request, [Segment(request.header, 16), *parts, Segment(request.status_addr, 1, True)],
                     indirect=indirect)
        assert wait_until(lambda: guest.queue.used_idx() != guest.queue.last_used or guest.broken)
        if guest.broken:
            assert count > guest.config.seg_max, f"seg_max is {guest.config.seg_max}, and {count} segments break it"
            guest.recover()
            return
        status = guest.finish(request).status
        if count <= guest.config.seg_max:
            assert status == blk.S_OK
        else:
            assert status in (blk.S_OK, blk.S_IOERR, blk.S_UNSUPP)
            if status != blk.S_OK:
                guest.assert_works()
                return
        if kind == blk.T_OUT:
            guest.space.fill(addr, 512 * count, 0)
    assert guest.space.read(addr, 512 * count) == data


def test_r05_indirect_table_larger_than_the_queue_works_or_breaks(server):
    """A driver must not make it so (2.7.5.3.1), and old ones do."""
    guest = server.guest(queue_size=4)
    data = guest.space.alloc(512 * 8, 512)
    request = guest.prepare(blk.T_IN, 0)
    guest.submit(request, [Segment(request.header, 16), *(Segment(data + 512 * i, 512, True) for i in range(8)),
                           Segment(request.status_addr, 1, True)], indirect=True)
    assert wait_until(lambda: guest.queue.used_idx() != guest.queue.last_used or guest.broken)
    if guest.broken:
        guest.recover()


# --- R6 -----------------------------------------------------------------------------------------------------

def good_table(guest, kind=blk.T_IN):
    header, data, status = guest.space.alloc(16), guest.space.alloc(512, 512), guest.space.alloc(1, 1)
    guest.space.write(header, blk.header(kind, 0))
    return ring.indirect_table([Segment(header, 16), Segment(data, 512, kind == blk.T_IN), Segment(status, 1, True)])


@pytest.mark.parametrize("length", [0, 1, 15, 17, 47, 49, 0xFFFFFFFF, 0xFFFFFFF0, 0x80000000, 16 * 32769, 16 << 20])
def test_r06_indirect_table_of_a_bad_length_breaks_the_device(guest, length):
    table = guest.space.alloc(4096, 16)
    guest.space.write(table, good_table(guest))
    guest.queue.set_desc(0, table, length, INDIRECT)
    offer_and_break(guest, 0)


def test_r06_nested_indirect_table_breaks_the_device(guest):
    inner, outer = guest.space.alloc(64, 16), guest.space.alloc(64, 16)
    guest.space.write(inner, good_table(guest))
    guest.space.write(outer, ring.desc(inner, 48, INDIRECT))
    guest.queue.set_desc(0, outer, 16, INDIRECT)
    offer_and_break(guest, 0)


def test_r06_indirect_table_that_holds_itself_breaks_the_device(guest):
    table = guest.space.alloc(64, 16)
    guest.space.write(table, ring.desc(table, 16, INDIRECT))
    guest.queue.set_desc(0, table, 16, INDIRECT)
    offer_and_break(guest, 0)


def test_r06_indirect_descriptor_with_next_breaks_the_device(guest):
    table = guest.space.alloc(64, 16)
    guest.space.write(table, good_table(guest))
    guest.queue.set_desc(0, table, 48, INDIRECT | NEXT, 1)
    guest.queue.set_desc(1, BASE, 1, WRITE)
    offer_and_break(guest, 0)


def test_r06_indirect_descriptor_behind_others_of_a_chain_works_or_breaks(guest):
    """2.7.5.3: a chain may end in a table; most drivers never do it."""
    header, data, status = guest.space.alloc(16), guest.space.alloc(512, 512), guest.space.alloc(1, 1)
    guest.space.write(header, blk.header(blk.T_IN, 0))
    guest.space.write(status, bytes([blk.NOT_SET]))
    table = guest.space.alloc(32, 16)
    guest.space.write(table, ring.indirect_table([Segment(data, 512, True), Segment(status, 1, True)]))
    guest.queue.set_desc(0, header, 16, NEXT, 1)
    guest.queue.set_desc(1, table, 32, INDIRECT)
    guest.queue.offer(0)
    guest.kick()
    assert wait_until(lambda: guest.queue.used_idx() != guest.queue.last_used or guest.broken)
    if not guest.broken:
        assert guest.queue.take()[0][0] == 0
        assert guest.space.read(status, 1)[0] == blk.S_OK


def test_r06_indirect_descriptor_that_was_not_negotiated_breaks_the_device(server):
    guest = server.guest(features=USUAL_FEATURES & ~virtio.F_INDIRECT_DESC)
    table = guest.space.alloc(64, 16)
    guest.space.write(table, good_table(guest))
    guest.queue.set_desc(0, table, 48, INDIRECT)
    offer_and_break(guest, 0)


def test_r06_indirect_table_across_the_edge_of_memory_breaks_the_device(guest):
    """Two of its three descriptors lie in guest memory."""
    end = BASE + (4 << 20)
    guest.space.write(end - 32, good_table(guest)[:32])
    guest.queue.set_desc(0, end - 32, 48, INDIRECT)
    offer_and_break(guest, 0)


def test_r06_indirect_table_across_the_edge_of_two_regions_works_or_breaks(guest):
    guest.add_memory(ADDR, SIZE)
    guest.add_memory(ADDR + SIZE, SIZE)
    raw = good_table(guest)
    guest.space.windows[1].memory.write(SIZE - 24, raw[:24])
    guest.space.windows[2].memory.write(0, raw[24:])
    guest.queue.set_desc(0, ADDR + SIZE - 24, 48, INDIRECT)
    guest.queue.offer(0)
    guest.kick()
    assert wait_until(lambda: guest.queue.used_idx() != guest.queue.last_used or guest.broken)
    if not guest.broken:
        assert guest.queue.take() == [(0, 513)]


@pytest.mark.parametrize("addr", [0, 0xDEAD_0000, wire.U64_MAX - 15, wire.U64_MAX - 47])
def test_r06_indirect_table_that_is_no_memory_breaks_the_device(guest, addr):
    guest.queue.set_desc(0, addr, 48, INDIRECT)
    offer_and_break(guest, 0)


# --- R7 -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("lengths", [(0x8000_0000, 0x8000_0000), (0xFFFF_FE00, 0x200), (0xFFFF_FFFF, 0xFFFF_FFFF),
                                     (0xC000_0000, 0xC000_0000, 0xC000_0000)])
@pytest.mark.parametrize("kind", [blk.T_IN, blk.T_OUT])
def test_r07_lengths_that_sum_above_four_gigabytes_break_the_device(guest, kind, lengths):
    """All of it lies in (sparse) guest memory: the sum alone is what is wrong."""
    fd = os.memfd_create("sparse", os.MFD_CLOEXEC)
    os.ftruncate(fd, 8 << 30)
    guest.client.dma_map(1 << 40, 8 << 30, fd=fd)
    os.close(fd)
    header, status = guest.space.alloc(16), guest.space.alloc(1, 1)
    guest.space.write(header, blk.header(kind, 0))
    flags = WRITE if kind == blk.T_IN else 0
    guest.queue.set_desc(0, header, 16, NEXT, 1)
    for i, length in enumerate(lengths):
        guest.queue.set_desc(1 + i, 1 << 40, length, NEXT | flags, 2 + i)
    guest.queue.set_desc(1 + len(lengths), status, 1, WRITE)
    offer_and_break(guest, 0)


# --- R9, R10 ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("jump", [65, 100, 0x8000, 0xFFFF])
def test_r09_available_index_that_jumps_by_more_than_the_queue_breaks_the_device(guest, jump):
    guest.queue.set_avail_idx(guest.queue.avail_idx + jump)
    guest.kick()
    guest.assert_broken()
    guest.client.fence()
    guest.recover()


def test_r09_available_index_that_goes_back_breaks_the_device(guest):
    guest.read(0, 1)
    guest.read(0, 1)
    guest.queue.set_avail_idx(guest.queue.avail_idx - 1)
    guest.kick()
    guest.assert_broken()
    guest.recover()


def test_r09_jump_of_exactly_the_queue_size_is_a_full_queue(guest):
    """64 heads of one descriptor each; they are no requests, but the queue is as the driver may fill it."""
    for i in range(64):
        guest.queue.set_desc(i, BASE + 0x3000, 1, WRITE)
        guest.queue.put_avail(i)
    guest.queue.set_avail_idx()
    guest.kick()
    done = guest.queue.wait(64)
    assert sorted(head for head, _ in done) == list(range(64)) or guest.broken
    guest.recover()


def test_r10_same_head_many_times_in_flight_breaks_or_completes_but_no_more_than_was_offered(serve, image):
    """In flight are never more than the queue's size, however often a head is offered."""
    guest = serve(image).guest(queue_size=4, memory=16 << 20)
    request = guest.prepare(blk.T_IN, 0, length=1 << 20)
    guest.submit(request, kick=False)
    offered = 1
    for _ in range(50):
        guest.queue.offer(*[request.head] * 3)
        offered += 3
        guest.kick(posted=True)
        if guest.broken:
            break
        guest.client.fence()
    wait_until(lambda: guest.broken or guest.queue.used_idx() == offered & 0xFFFF, 2)
    assert guest.broken or guest.queue.used_idx() == offered & 0xFFFF
    assert guest.queue.used_idx() <= offered
    guest.recover()


def test_r10_all_slots_hold_the_same_head(guest):
    request = guest.prepare(blk.T_IN, 3, length=512)
    head = guest.queue.build(guest.segments(request, writable=True))
    guest.queue.offer(*[head] * 64)
    guest.kick()
    assert wait_until(lambda: guest.broken or guest.queue.used_idx() == 64)
    guest.recover()


# --- R11, R12: read once. The recorder of a test build sees a second read; here the effect is looked for --------

def test_r11_r12_header_and_lengths_that_flip_all_the_time_never_mix(serve):
    """Sector and type alternate between two good values: whatever the device took, it took once."""
    guest = serve("ram:16M").guest()
    guest.write(0, b"\x0A" * 512)
    guest.write(1, b"\x0B" * 512)
    request = guest.prepare(blk.T_IN, 0, length=512)
    headers = [blk.header(blk.T_IN, 0), blk.header(blk.T_IN, 1), blk.header(blk.T_IN, 1 << 60), blk.header(0xFFFF, 0)]
    stop = threading.Event()

    def flip():
        while not stop.is_set():
            for header in headers:
                guest.space.write(request.header, header)
    thread = threading.Thread(target=flip)
    thread.start()
    try:
        for _ in range(150):
            guest.space.write(request.data, b"\xA5" * 512)
            guest.submit(request)
            result = guest.finish(request)
            assert result.status in (blk.S_OK, blk.S_IOERR, blk.S_UNSUPP)
            if result.status == blk.S_OK:
                assert result.data in (b"\x0A" * 512, b"\x0B" * 512)
    finally:
        stop.set()
        thread.join()


# --- R13 ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("scribble", [0, 1, 0x1234, 0xFFFF])
def test_r13_used_ring_and_index_rewritten_by_the_driver_are_ignored(guest, scribble):
    for _ in range(3):
        guest.read(0, 1)
    expected = guest.queue.last_used
    guest.space.write(guest.queue.used_addr, struct.pack("<HH", 0xFFFF, scribble) + b"\xFF" * 8 * 64)
    request = guest.prepare(blk.T_IN, 0, length=512)
    guest.submit(request)
    assert wait_until(lambda: guest.queue.used_idx() == (expected + 1) & 0xFFFF), \
        f"used index {guest.queue.used_idx()}, the device's own is {expected + 1}"
    assert guest.queue.used_elem(expected) == (request.head, 513)


# --- R14 ----------------------------------------------------------------------------------------------------

EVENT_IDX = USUAL_FEATURES | virtio.F_EVENT_IDX


def test_r14_event_index_interrupts_exactly_where_it_was_asked_for(server):
    guest = server.guest(features=EVENT_IDX)
    assert guest.virtio.features & virtio.F_EVENT_IDX, "EVENT_IDX isn't offered"
    event = guest.queue_events[0]
    for index in range(20):
        ask = index % 4 == 3
        guest.queue.set_used_event(index if ask else index + 2)
        guest.read(0, 1)
        assert bool(event.wait(2.0 if ask else 0.01)) is ask, f"at index {index}"


@pytest.mark.parametrize("distance", [0x7FFF, 0x8000, 0xFFFE])
def test_r14_far_away_event_index_does_not_stop_the_queue(server, distance):
    guest = server.guest(features=EVENT_IDX)
    guest.queue.set_used_event(distance)
    for _ in range(8):
        guest.read(0, 1)
    guest.queue.set_used_event(guest.queue.last_used)
    guest.read(0, 1)
    assert guest.queue_events[0].wait()


def test_r14_no_interrupt_is_lost_when_the_indices_wrap_at_65536(server):
    """In batches of 60 up to the wrap; every batch's last completion has to interrupt."""
    guest = server.guest(features=EVENT_IDX, queue_size=256)
    queue, event = guest.queue, guest.queue_events[0]
    request = guest.prepare(blk.T_FLUSH)
    heads = [queue.build(guest.segments(request, writable=False)) for _ in range(80)]
    queue.chains = {}
    total = 0
    while total < 65536 + 800:
        queue.set_used_event(queue.last_used + 79)
        queue.offer(*heads)
        guest.kick(posted=True)
        assert event.wait(5.0), f"no interrupt for the batch that ends at {total + 80}"
        done = queue.wait(80)
        assert len(done) == 80
        total += 80
        if total % 8000 == 0:
            guest.client.fence()


def test_r14_device_asks_for_kicks_by_its_own_event_index(server):
    """avail_event is the device's word on when it wants to be kicked; a driver that honours it loses nothing."""
    guest = server.guest(features=EVENT_IDX)
    for _ in range(300):
        old = guest.queue.avail_idx
        request = guest.prepare(blk.T_IN, 0, length=512)
        guest.submit(request, kick=False)
        if ring.need_event(guest.queue.avail_event(), guest.queue.avail_idx, old):
            guest.kick(posted=True)
        assert guest.finish(request).status == blk.S_OK
        guest.space.release(guest.space.windows[0].iova + (1 << 20))


def test_r14_used_flag_says_when_kicks_are_wanted_without_event_index(guest):
    for _ in range(300):
        request = guest.prepare(blk.T_IN, 0, length=512)
        guest.submit(request, kick=False)
        if not guest.queue.used_flags() & ring.USED_NO_NOTIFY:
            guest.kick(posted=True)
        assert guest.finish(request).status == blk.S_OK
        guest.space.release(guest.space.windows[0].iova + (1 << 20))


def test_r14_no_interrupt_flag_of_the_driver_is_honoured(guest):
    guest.queue.set_avail_flags(ring.AVAIL_NO_INTERRUPT)
    guest.read(0, 1)
    assert not guest.queue_events[0].wait(0.05)
    guest.queue.set_avail_flags(0)
    guest.read(0, 1)
    assert guest.queue_events[0].wait()


# --- R17 ----------------------------------------------------------------------------------------------------

def test_r17_size_and_addresses_of_a_live_queue_do_not_change(guest):
    before = {name: guest.virtio.get(name) for name in ("queue_size", "queue_desc", "queue_driver", "queue_device")}
    guest.virtio.set("queue_select", 0)
    for name, value in (("queue_size", 2), ("queue_size", 0), ("queue_size", 0xFFFF), ("queue_desc", 0xDEAD_0000),
                        ("queue_driver", 0x1), ("queue_device", wire.U64_MAX)):
        guest.virtio.set(name, value)
        assert guest.virtio.get(name) == before[name], f"{name} of a live queue was changed"
        guest.assert_works()


def test_r17_enable_cannot_be_taken_back_by_writing_zero(guest):
    """4.1.4.3.2: a driver must not; only a reset ends a queue."""
    guest.virtio.set("queue_select", 0)
    guest.virtio.set("queue_enable", 0)
    guest.client.fence()
    assert not guest.broken
    guest.assert_works()


def test_r17_feature_select_and_queue_select_of_a_running_device_are_only_selects(guest):
    for select in range(0, 70):
        guest.virtio.set("queue_select", select)
        guest.virtio.set("device_feature_select", select)
    guest.assert_works()


# --- R18, R19 -----------------------------------------------------------------------------------------------

def boot_with_rings(server, *, queue_size=64, **places):
    """A device whose ring addresses are given by offset from BASE; not yet kicked."""
    guest = server.guest(driver_ok=False, queue_size=queue_size)
    guest.virtio.reset()
    assert guest.virtio.negotiate(USUAL_FEATURES)
    guest.virtio.set("config_msix_vector", 0)
    for name, addr in places.items():
        setattr(guest.queue, name, addr)
    guest.virtio.setup_queue(0, guest.queue, vector=1)
    guest.virtio.driver_ok()
    return guest


END = BASE + (4 << 20)


@pytest.mark.parametrize("name, addr", [
    ("desc_addr", END - 1008), ("desc_addr", END), ("desc_addr", 0), ("desc_addr", wire.U64_MAX - 15),
    ("avail_addr", END - 128), ("avail_addr", END), ("avail_addr", wire.U64_MAX - 1),
    ("used_addr", END - 512), ("used_addr", END - 4), ("used_addr", 0xDEAD_0000), ("used_addr", wire.U64_MAX - 3),
])
def test_r18_ring_that_does_not_lie_in_memory_over_its_full_length_breaks_the_device(server, name, addr):
    guest = boot_with_rings(server, **{name: addr})
    guest.kick()
    guest.assert_broken()
    guest.client.fence()


def test_r18_rings_that_overlap_each_other_and_their_data_stay_inside_their_memory(server):
    place = BASE + 0x100000
    guest = boot_with_rings(server, desc_addr=place, avail_addr=place, used_addr=place)
    guest.space.write(place, bytes(range(1, 256)) * 4)
    for _ in range(20):
        guest.kick()
    guest.client.fence()
    guest.client.reset()


def test_r18_data_that_lies_on_the_rings_stays_inside_their_memory(guest):
    """The disk's contents become descriptors: hostile, but no more than any other descriptor."""
    guest.write(0, bytes(range(256)) * 4)
    for target in (guest.queue.desc_addr, guest.queue.avail_addr, guest.queue.used_addr):
        request = guest.prepare(blk.T_IN, 0)
        guest.submit(request, [Segment(request.header, 16), Segment(target, 512, True),
                               Segment(request.status_addr, 1, True)])
        time.sleep(0.01)
        guest.kick()
        guest.client.fence()
        guest.restart()
    guest.assert_works()


@pytest.mark.parametrize("name, odd", [("desc_addr", 1), ("desc_addr", 8), ("avail_addr", 1), ("used_addr", 1),
                                       ("used_addr", 2)])
def test_r19_ring_at_an_odd_address_works_or_breaks(server, name, odd):
    place = BASE + 0x200000
    guest = boot_with_rings(server, **{name: place + odd})
    if name == "desc_addr":
        guest.queue.space.write(place, bytes(4096))
    request = guest.prepare(blk.T_IN, 0, length=512)
    guest.kick()
    if wait_until(lambda: guest.broken, 0.05):
        return
    if name == "desc_addr":
        guest.submit(request)
        wait_until(lambda: guest.broken or guest.queue.used_idx(), 1)
        assert guest.broken or guest.finish(request).status == blk.S_OK
    guest.client.fence()


@pytest.mark.parametrize("odd", [1, 3, 7])
def test_r19_header_data_and_status_at_odd_addresses_work(guest, odd):
    for kind in (blk.T_OUT, blk.T_IN):
        header, data, status = (guest.space.alloc(32, 16) + odd, guest.space.alloc(1040, 16) + odd,
                                guest.space.alloc(16, 16) + odd)
        guest.space.write(header, blk.header(kind, 4))
        guest.space.write(status, bytes([blk.NOT_SET]))
        if kind == blk.T_OUT:
            guest.space.write(data, bytes(range(256)) * 4)
        guest.queue.add([Segment(header, 16), Segment(data, 1024, kind == blk.T_IN), Segment(status, 1, True)])
        guest.kick()
        assert guest.queue.wait(1)
        assert guest.space.read(status, 1)[0] == blk.S_OK
    assert guest.space.read(data, 1024) == bytes(range(256)) * 4


def test_r19_odd_addresses_work_with_direct_io(serve, image):
    guest = serve(image, "--direct").guest()
    data = guest.space.alloc(8192, 4096) + 5
    request = guest.prepare(blk.T_IN, 8)
    guest.submit(request, [Segment(request.header, 16), Segment(data, 100, True), Segment(data + 100, 924, True),
                           Segment(request.status_addr, 1, True)])
    assert guest.finish(request).status == blk.S_OK
    assert guest.space.read(data, 1024) == (8).to_bytes(8, "little") * 64 + (9).to_bytes(8, "little") * 64


# --- R20 ----------------------------------------------------------------------------------------------------

def test_r20_enable_twice_is_idempotent(guest):
    guest.virtio.set("queue_select", 0)
    guest.virtio.set("queue_enable", 1)
    guest.assert_works()


def test_r20_kick_before_enable_and_before_driver_ok_is_ignored(server):
    guest = server.guest(driver_ok=False)
    guest.virtio.reset()
    guest.kick()
    assert guest.virtio.negotiate(USUAL_FEATURES)
    guest.kick()
    guest.virtio.set("config_msix_vector", 0)
    guest.virtio.setup_queue(0, guest.queue, vector=1)
    request = guest.prepare(blk.T_IN, 0, length=512)
    guest.submit(request)
    assert not guest.queue.wait(1, 0.05), "a request was served before DRIVER_OK"
    guest.virtio.driver_ok()
    guest.kick()
    assert guest.finish(request).status == blk.S_OK


def test_r20_requests_offered_before_driver_ok_are_served_without_another_kick(server):
    """SeaBIOS and others fill the ring first; a queue has to look when it starts."""
    guest = server.guest(driver_ok=False)
    request = guest.prepare(blk.T_IN, 0, length=512)
    guest.submit(request, kick=False)
    guest.virtio.driver_ok()
    assert guest.queue.wait(1, 1.0), "the ring isn't looked at when the queue starts"


@pytest.mark.parametrize("how", ["status", "message", "both"])
def test_r20_reset_with_io_in_flight_is_drained_first(serve, image, how):
    """After the reset not a byte of guest memory changes, and the used ring is left alone."""
    guest = serve(image).guest(memory=8 << 20)
    for _ in range(5):
        for i in range(20):
            guest.submit(guest.prepare(blk.T_IN, 256 * i, length=1 << 17), kick=False)
        guest.kick(posted=True)
        if how in ("status", "both"):
            guest.virtio.reset()
        if how in ("message", "both"):
            guest.client.reset()
            assert guest.virtio.status == 0
        memory = guest.memories[0]
        memory.write(0, b"\xEE" * memory.size)
        time.sleep(0.01)
        assert memory.read(0, memory.size).count(0xEE) == memory.size, "written after the reset"
        guest.space.release(guest.queue.used_addr + 4096)
        if how != "status":
            guest.pci.set_command(6)
            guest.pci.enable_msix()
        guest.restart()
        guest.assert_works()


def test_r20_reset_twice_and_reset_of_a_reset_device_are_idempotent(guest):
    for _ in range(5):
        guest.virtio.reset()
        guest.client.reset()
        guest.client.reset()
        guest.virtio.reset()
    assert guest.virtio.status == 0


def test_r20_two_hundred_quick_restarts_with_requests_in_between(guest):
    for turn in range(200):
        guest.submit(guest.prepare(blk.T_IN, 0, length=512))
        if turn % 3:
            guest.queue.take()
        guest.virtio.reset()
        guest.space.release(BASE + (1 << 20))
        guest.restart()
    guest.assert_works()


def test_r20_reset_message_keeps_regions_and_interrupt_fds(guest):
    guest.client.reset()
    guest.pci.set_command(6)
    guest.pci.enable_msix()
    guest.restart()
    guest.read(0, 1)
    assert guest.queue_events[0].wait(), "the eventfd is gone after a reset"


def test_r20_queue_reset_feature_resets_one_queue_or_is_not_offered(server):
    guest = server.guest(features=USUAL_FEATURES | virtio.F_RING_RESET)
    if not guest.virtio.features & virtio.F_RING_RESET:
        guest.virtio.set("queue_select", 0)
        guest.virtio.set("queue_reset", 1)
        guest.assert_works()
        return
    guest.virtio.set("queue_select", 0)
    guest.virtio.set("queue_reset", 1)
    assert wait_until(lambda: guest.virtio.get("queue_reset") == 0)
    assert guest.virtio.get("queue_enable") == 0
    guest.queue.clear()
    guest.virtio.setup_queue(0, guest.queue, vector=1)
    guest.assert_works()


# --- many at once ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("seed", range(6))
def test_r_random_rings_break_at_worst_and_a_reset_heals_them(server, seed):
    """Seeded garbage in table, ring and indirect tables, near to what is valid."""
    rng = random.Random(seed)
    guest = server.guest(features=USUAL_FEATURES | (virtio.F_EVENT_IDX if seed & 1 else 0))
    for _ in range(30):
        for index in range(64):
            addr = rng.choice([BASE + rng.randrange(4 << 20), END - rng.randrange(64), rng.getrandbits(64), BASE])
            length = rng.choice([16, 512, 1, 48, rng.randrange(8192), rng.getrandbits(32)])
            guest.queue.set_desc(index, addr, length, rng.choice([0, 1, 1, 2, 3, 3, 4, rng.getrandbits(16)]),
                                 rng.choice([rng.randrange(64), rng.randrange(64), rng.getrandbits(16)]))
        guest.queue.offer(*[rng.choice([rng.randrange(64), rng.randrange(64), rng.getrandbits(16)])
                            for _ in range(rng.randrange(1, 65))])
        guest.kick(posted=True)
        guest.client.fence()
        guest.virtio.reset()
        guest.memories[0].write(0, bytes(guest.memories[0].size))
        guest.bring_up()
    guest.assert_works()


def test_r_break_of_one_queue_leaves_the_other_devices_alone(serve):
    victim, other = serve("ram:16M"), serve("ram:16M")
    good = other.guest()
    bad = victim.guest(queues=1)
    bad.queue.offer(0xFFFF)
    bad.kick()
    bad.assert_broken()
    good.assert_works()
