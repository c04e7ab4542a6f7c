# SPDX-License-Identifier: BSD-3-Clause
"""Rows R1 to R7, R9 to R13: rings whose contents lie; split ones, and packed ones where the two differ little."""

import os
import random
import struct
import threading

import pytest

from pylib import blk, ring, virtio, wire
from pylib.events import wait_until
from pylib.ring import INDIRECT, NEXT, WRITE, Segment
from pylib.vm import BASE, USUAL_FEATURES

ADDR = 0x4000_0000
SIZE = 0x10000
END = BASE + (4 << 20)  # of a guest's usual memory


def offer_and_break(guest, *heads):
    """Offers raw heads; the device has to BREAK, answer messages, and be healed by a reset."""
    guest.queue.offer(*heads)
    guest.kick()
    guest.assert_broken()
    guest.client.fence()
    assert not guest.queue.take(), "something was given back of a broken queue"
    guest.recover()


def put_and_break(guest, *descs):
    """As offer_and_break, with one chain of raw descriptors (address, length, flags) on a ring of either format."""
    guest.queue.put_chain(*descs)
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
    wait_until(lambda: guest.queue.used_idx() == 16 or guest.broken)
    done = dict(guest.queue.take())
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
def test_r05_chain_of_many_descriptors_works_or_fails_and_never_overruns(serve, count, indirect, packed):
    guest = serve("ram:16M", "--queue-size=1024").guest(queue_size=1024, packed=packed)
    data = os.urandom(512 * count)
    addr = guest.space.alloc(512 * count, 512)
    guest.space.write(addr, data)
    for kind, writable in ((blk.T_OUT, False), (blk.T_IN, True)):
        request = guest.prepare(kind, 0)
        parts = [Segment(addr + 512 * i, 512, writable) for i in range(count)]
        guest.submit(request, [Segment(request.header, 16), *parts, Segment(request.status_addr, 1, True)],
                     indirect=indirect)
        assert wait_until(lambda: guest.queue.given_back() or guest.broken)
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


def test_r05_indirect_table_larger_than_the_queue_works_or_breaks(server, packed):
    """A driver must not make it so (2.7.5.3.1, 2.8.8), and old ones do."""
    guest = server.guest(queue_size=4, packed=packed)
    data = guest.space.alloc(512 * 8, 512)
    request = guest.prepare(blk.T_IN, 0)
    guest.submit(request, [Segment(request.header, 16), *(Segment(data + 512 * i, 512, True) for i in range(8)),
                           Segment(request.status_addr, 1, True)], indirect=True)
    assert wait_until(lambda: guest.queue.given_back() or guest.broken)
    if guest.broken:
        guest.recover()


# --- R6 -----------------------------------------------------------------------------------------------------

def good_table(guest, kind=blk.T_IN):
    header, data, status = guest.space.alloc(16), guest.space.alloc(512, 512), guest.space.alloc(1, 1)
    guest.space.write(header, blk.header(kind, 0))
    return guest.queue.indirect_table([Segment(header, 16), Segment(data, 512, kind == blk.T_IN),
                                       Segment(status, 1, True)])


@pytest.mark.parametrize("length", [0, 1, 15, 17, 47, 49, 0xFFFFFFFF, 0xFFFFFFF0, 0x80000000, 16 * 32769, 16 << 20])
def test_r06_indirect_table_of_a_bad_length_breaks_the_device(either, length):
    table = either.space.alloc(4096, 16)
    either.space.write(table, good_table(either))
    put_and_break(either, (table, length, INDIRECT))


def test_r06_nested_indirect_table_breaks_the_device(either):
    inner, outer = either.space.alloc(64, 16), either.space.alloc(64, 16)
    either.space.write(inner, good_table(either))
    either.space.write(outer, either.queue.raw_desc(inner, 48, INDIRECT))
    put_and_break(either, (outer, 16, INDIRECT))


def test_r06_indirect_table_that_holds_itself_breaks_the_device(either):
    table = either.space.alloc(64, 16)
    either.space.write(table, either.queue.raw_desc(table, 16, INDIRECT))
    put_and_break(either, (table, 16, INDIRECT))


def test_r06_indirect_descriptor_with_next_breaks_the_device(either):
    table = either.space.alloc(64, 16)
    either.space.write(table, good_table(either))
    put_and_break(either, (table, 48, INDIRECT | NEXT), (BASE, 1, WRITE))


def test_r06_indirect_descriptor_behind_others_of_a_chain_works_or_breaks(either):
    """2.7.5.3: a split ring's chain may end in a table; most drivers never do it. 2.8.8 forbids it in a packed one."""
    header, data, status = either.space.alloc(16), either.space.alloc(512, 512), either.space.alloc(1, 1)
    either.space.write(header, blk.header(blk.T_IN, 0))
    either.space.write(status, bytes([blk.NOT_SET]))
    table = either.space.alloc(32, 16)
    either.space.write(table, either.queue.indirect_table([Segment(data, 512, True), Segment(status, 1, True)]))
    either.queue.put_chain((header, 16, NEXT), (table, 32, INDIRECT))
    either.kick()
    assert wait_until(lambda: either.queue.given_back() or either.broken)
    if not either.broken:
        assert either.queue.take()[0][0] == 0
        assert either.space.read(status, 1)[0] == blk.S_OK


def test_r06_indirect_descriptor_that_was_not_negotiated_breaks_the_device(server, packed):
    guest = server.guest(features=USUAL_FEATURES & ~virtio.F_INDIRECT_DESC, packed=packed)
    table = guest.space.alloc(64, 16)
    guest.space.write(table, good_table(guest))
    put_and_break(guest, (table, 48, INDIRECT))


def test_r06_indirect_table_across_the_edge_of_memory_breaks_the_device(either):
    """Two of its three descriptors lie in guest memory."""
    end = BASE + (4 << 20)
    either.space.write(end - 32, good_table(either)[:32])
    put_and_break(either, (end - 32, 48, INDIRECT))


def test_r06_indirect_table_across_the_edge_of_two_regions_works_or_breaks(either):
    either.add_memory(ADDR, SIZE)
    either.add_memory(ADDR + SIZE, SIZE)
    raw = good_table(either)
    either.space.windows[1].memory.write(SIZE - 24, raw[:24])
    either.space.windows[2].memory.write(0, raw[24:])
    either.queue.put_chain((ADDR + SIZE - 24, 48, INDIRECT))
    either.kick()
    assert wait_until(lambda: either.queue.given_back() or either.broken)
    if not either.broken:
        assert either.queue.take() == [(0, 513)]


@pytest.mark.parametrize("addr", [0, 0xDEAD_0000, wire.U64_MAX - 15, wire.U64_MAX - 47])
def test_r06_indirect_table_that_is_no_memory_breaks_the_device(either, addr):
    put_and_break(either, (addr, 48, INDIRECT))


# --- R7 -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("lengths", [(0x8000_0000, 0x8000_0000), (0xFFFF_FE00, 0x200), (0xFFFF_FFFF, 0xFFFF_FFFF),
                                     (0xC000_0000, 0xC000_0000, 0xC000_0000)])
@pytest.mark.parametrize("kind", [blk.T_IN, blk.T_OUT])
def test_r07_lengths_that_sum_above_four_gigabytes_break_the_device(either, kind, lengths):
    """All of it lies in (sparse) guest memory: the sum alone is what is wrong."""
    fd = os.memfd_create("sparse", os.MFD_CLOEXEC)
    os.ftruncate(fd, 8 << 30)
    either.client.dma_map(1 << 40, 8 << 30, fd=fd)
    os.close(fd)
    header, status = either.space.alloc(16), either.space.alloc(1, 1)
    either.space.write(header, blk.header(kind, 0))
    flags = WRITE if kind == blk.T_IN else 0
    put_and_break(either, (header, 16, NEXT), *((1 << 40, length, NEXT | flags) for length in lengths),
                  (status, 1, WRITE))


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
    wait_until(lambda: guest.broken or guest.queue.used_idx() == offered & 0xFFFF)
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

def test_r11_r12_header_and_lengths_that_flip_all_the_time_never_mix(serve, packed):
    """Sector and type alternate between two good values: whatever the device took, it took once."""
    guest = serve("ram:16M").guest(packed=packed)
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
