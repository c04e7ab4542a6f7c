# SPDX-License-Identifier: BSD-3-Clause
"""Rows R1 to R4, R9, R10, R13, R15, R16, R18, R19 for packed rings: what they may do that split ones cannot, and lies
in them.

Requests of every layout, indirect tables and lengths are in test_r_requests.py and test_r_rings.py, for both formats.
"""

import os
import random

import pytest

from pylib import blk, virtio, wire
from pylib.events import PATIENCE, wait_until
from pylib.packed import AT_DESC, AVAIL, USED
from pylib.ring import INDIRECT, NEXT, WRITE, Segment
from pylib.vm import BASE, USUAL_FEATURES

END = BASE + (4 << 20)  # of a guest's usual memory
NOWHERE = 0xDEAD_0000


@pytest.fixture
def guest(server):
    return server.guest(packed=True)


def break_and_heal(guest):
    guest.kick()
    guest.assert_broken()
    guest.client.fence()
    assert not guest.queue.given_back(), "something was given back of a broken queue"
    guest.recover()


def answered(guest, timeout=PATIENCE):
    """The chain that was offered came back, or the device is broken."""
    assert wait_until(lambda: guest.queue.given_back() or guest.broken, timeout), \
        f"the queue is wedged: nothing comes back, status {guest.virtio.status:#x}"
    return not guest.broken


def read_chain(guest, sector=0):
    """(Request, its three descriptors): a good read of one sector."""
    request = guest.prepare(blk.T_IN, sector, length=512)
    return request, ((request.header, 16, NEXT), (request.data, 512, NEXT | WRITE), (request.status_addr, 1, WRITE))


# --- R1: buffer ids ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("buffer_id", [0, 63, 64, 65, 0x7FFF, 0x8000, 0xFFFF])
def test_r01_buffer_ids_are_the_drivers_own_affair(guest, buffer_id):
    """2.8.1: an id is echoed, whatever it is; nothing is indexed by it."""
    for turn in range(3):
        guest.write(turn, bytes([0x20 + turn]) * 512)
        request, descs = read_chain(guest, turn)
        guest.queue.put_chain(*descs, buffer_id=buffer_id)
        guest.kick()
        assert guest.queue.wait(1) == [(buffer_id, 513)]
        assert guest.space.read(request.data, 512) == bytes([0x20 + turn]) * 512


def test_r01_id_of_a_chain_is_its_last_descriptors(guest):
    """2.8.6: the id of the others is reserved."""
    _, descs = read_chain(guest)
    guest.queue.put_raw(*((*desc, buffer_id) for desc, buffer_id in zip(descs, (0xFFFF, 7, 9))))
    guest.kick()
    assert guest.queue.wait(1) == [(9, 513)]


def test_r01_id_of_an_indirect_chain_is_its_descriptors_in_the_ring(guest):
    _, descs = read_chain(guest)
    table = guest.space.alloc(48, 16)
    guest.space.write(table, b"".join(guest.queue.raw_desc(addr, length, flags & WRITE)
                                      for addr, length, flags in descs))
    guest.queue.put_chain((table, 48, INDIRECT), buffer_id=0x1234)
    guest.kick()
    assert guest.queue.wait(1) == [(0x1234, 513)]


# --- R2, R3: chains that do not end -----------------------------------------------------------------------------

@pytest.mark.parametrize("size", [1, 2, 3, 64])
@pytest.mark.parametrize("length", [0, 16])
def test_r03_ring_full_of_next_breaks_the_device(server, size, length):
    """A chain that comes round to its own start. With lengths of zero no bound on bytes would end it."""
    guest = server.guest(packed=True, queue_size=size)
    guest.queue.put_chain(*((BASE, length, NEXT) for _ in range(size)))
    break_and_heal(guest)


def test_r03_ring_full_of_next_breaks_the_device_from_any_place_in_it(server):
    guest = server.guest(packed=True, queue_size=5)
    for start in range(5):
        for _ in range(start):
            guest.do(blk.T_FLUSH, indirect=True)
        guest.queue.put_chain(*((BASE, 16, NEXT) for _ in range(5)))
        break_and_heal(guest)
        guest.restart()


def test_r02_next_into_entries_that_were_not_made_available_works_or_breaks(guest):
    guest.queue.put_chain((BASE, 16, NEXT))
    guest.kick()
    answered(guest)
    guest.recover()


def test_r02_next_into_an_indirect_table_works_or_breaks(guest):
    """2.8.8: only the first and only descriptor of a chain may be a table."""
    request, descs = read_chain(guest)
    table = guest.space.alloc(32, 16)
    guest.space.write(table, guest.queue.raw_desc(request.data, 512, WRITE)
                      + guest.queue.raw_desc(request.status_addr, 1, WRITE))
    guest.queue.put_chain(descs[0], (table, 32, INDIRECT))
    guest.kick()
    answered(guest)
    guest.recover()


# --- R4 ---------------------------------------------------------------------------------------------------------

def test_r04_descriptors_scribbled_over_all_the_time_break_at_worst(guest):
    rng = random.Random(40)
    for _ in range(40):
        for i in range(16):
            guest.submit(guest.prepare(blk.T_IN, i, length=512), kick=False)
        guest.kick(posted=True)
        for _ in range(200):
            guest.queue.set_desc(rng.randrange(64), rng.choice([BASE, rng.getrandbits(64), 0]), rng.getrandbits(32),
                                 rng.getrandbits(3) | rng.choice([0, AVAIL, USED, AVAIL | USED]), rng.getrandbits(16))
        guest.client.fence()
        guest.space.release(guest.space.windows[0].iova + (1 << 20))
        guest.restart()
    guest.assert_works()


# --- R9, R10: more than there is ----------------------------------------------------------------------------------

def test_r10_id_that_is_in_flight_already_breaks_the_device(stuck_guest):
    owner, guest = stuck_guest(packed=True)
    for _ in range(2):
        _, descs = read_chain(guest)
        guest.queue.put_chain(*descs, buffer_id=5)
    guest.kick()
    guest.assert_broken()
    assert owner.stop() == 0
    guest.recover()


def test_r10_same_id_many_times_breaks_or_completes_each(guest):
    """It may be reused as soon as it came back, and the device may be quick."""
    for _ in range(20):
        guest.queue.put_chain(*read_chain(guest)[1], buffer_id=5)
    guest.kick()
    index = (guest.queue.next_used.index + 57) % 64  # of the last one
    assert wait_until(lambda: guest.broken or guest.queue.get_flags(index) & USED)
    guest.recover()


@pytest.mark.parametrize("size", [2, 3, 4])
def test_r09_more_chains_than_the_ring_has_entries_break_the_device(stuck_guest, size):
    """The ring is full of reads that don't end; then the first entries are made available once more."""
    owner, guest = stuck_guest(packed=True, queue_size=size, features=USUAL_FEATURES | virtio.F_EVENT_IDX)
    for i in range(size):
        guest.submit(guest.prepare(blk.T_IN, i, length=512), indirect=True, kick=False)
    guest.kick()
    expected = (guest.queue.next_avail.word(), AT_DESC)
    assert wait_until(lambda: guest.queue.device_event() == expected), "the device doesn't say that it has taken all"
    table, length, _, flags = guest.queue.get_desc(0)
    assert flags & (AVAIL | USED) == AVAIL
    guest.queue.set_desc(0, table, length, INDIRECT | USED, 0x100)
    guest.kick()
    guest.assert_broken()
    assert owner.stop() == 0
    guest.recover()


# --- R13 --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("flags", [0, AVAIL | USED, 0xFFFF & ~AVAIL])
def test_r13_used_descriptors_rewritten_by_the_driver_are_ignored(guest, flags):
    """The device knows by itself where it writes next, and reads no used descriptor back. None of them is available on
    the first lap."""
    for _ in range(3):
        guest.read(0, 1)
    at = guest.queue.next_used.copy()
    for index in range(64):
        guest.queue.set_desc(index, 0x123456789, 0xFFFFFFFF, flags, 0xFFFF)
    guest.kick()
    guest.client.fence()
    request = guest.prepare(blk.T_IN, 0, length=512)
    guest.submit(request)
    assert wait_until(lambda: guest.queue.get_desc(at.index)[:3] == (request.header, 513, request.head)), \
        f"at {at} stands {guest.queue.get_desc(at.index)}"
    assert not guest.broken


def test_r13_device_event_structure_rewritten_by_the_driver_is_ignored(guest):
    for word in (0, 0xFFFF, 0x8000, 0x1234):
        guest.space.put_u16(guest.queue.used_addr, word)
        guest.space.put_u16(guest.queue.used_addr + 2, word)
        guest.assert_works()


# --- R15: sizes and places ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 9, 63, 64, 100])
def test_r15_rings_of_any_size_go_round_many_times(server, size):
    """Chains of three, which end at the ring's end, run over it, or fill it whole, as the size has it; and tables."""
    guest = server.guest(packed=True, queue_size=size)
    for turn in range(4 * size + 8):
        data = os.urandom(512)
        guest.write(turn % 50, data, indirect=size < 3 or turn % 4 == 3)
        assert guest.read(turn % 50, 1) == data
    assert guest.queue.room == size


@pytest.mark.parametrize("size", [3, 4, 8, 17])
def test_r15_chain_spans_the_whole_ring(server, size):
    """From every place of it, so that the chain runs over the ring's end anywhere."""
    guest = server.guest(packed=True, queue_size=size)
    data = os.urandom(512 * (size - 2))
    for start in range(size):
        for kind, writable in ((blk.T_OUT, False), (blk.T_IN, True)):
            request = guest.prepare(kind, 7, data=data if kind == blk.T_OUT else b"", length=len(data))
            parts = [Segment(request.data + 512 * i, 512, writable) for i in range(size - 2)]
            guest.submit(request, [Segment(request.header, 16), *parts, Segment(request.status_addr, 1, True)])
            result = guest.finish(request)
            assert (result.status, result.used) == (blk.S_OK, (len(data) if writable else 0) + 1)
            assert result.data == data, f"from entry {start}"
        guest.flush(indirect=True)


@pytest.mark.parametrize("size, before", [(8, 5), (8, 2), (3, 0), (7, 4), (7, 1)])
def test_r15_chain_ends_exactly_at_the_rings_end(server, size, before):
    guest = server.guest(packed=True, queue_size=size)
    for _ in range(before):
        guest.flush(indirect=True)
    while guest.queue.next_avail.index != size - 3:
        guest.flush(indirect=True)
    guest.write(1, b"\x33" * 512)
    assert (guest.queue.next_avail.index, guest.queue.next_avail.wrap) == (0, False)
    assert guest.read(1, 1) == b"\x33" * 512
    guest.assert_works()


@pytest.mark.parametrize("flags", [NEXT, 0x7F78, NEXT | 0x7FF8])
def test_r15_next_and_reserved_flags_in_an_indirect_table_mean_nothing(guest, flags):
    """2.8.8: WRITE alone counts there, and the table is used from end to end, also behind one without NEXT."""
    guest.write(0, b"\x44" * 512)
    request, descs = read_chain(guest)
    table = guest.space.alloc(48, 16)
    guest.space.write(table, b"".join(guest.queue.raw_desc(addr, length, one & WRITE | flags)
                                      for addr, length, one in descs))
    guest.queue.put_chain((table, 48, INDIRECT))
    guest.kick()
    assert guest.queue.wait(1) == [(0, 513)]
    assert guest.space.read(request.data, 512) == b"\x44" * 512


def set_size(driver, size):
    driver.set("queue_select", 0)
    driver.set("queue_size", size)
    return driver.get("queue_size")


def test_r15_sizes_that_are_no_power_of_two_are_taken_by_a_packed_ring_only(client):
    driver = virtio.VirtioPci(client).discover()
    assert driver.negotiate(virtio.F_VERSION_1 | virtio.F_RING_PACKED)
    largest = set_size(driver, 0)
    assert largest > 0, "a queue of size 0"
    for size in (3, 1, largest - 1, largest, 5):
        assert set_size(driver, size) == size
    for size in (0, largest + 1, 0x8001, 0xFFFF):
        assert set_size(driver, size) == 5, f"a size of {size} is taken"
    assert driver.negotiate(virtio.F_VERSION_1)
    assert set_size(driver, 3) == largest
    assert set_size(driver, 4) == 4


def test_r15_size_three_that_was_set_for_packed_and_is_used_split_breaks_the_device(server):
    """The features may still change before FEATURES_OK; the size came before."""
    guest = server.guest(driver_ok=False)
    driver = guest.virtio
    driver.reset()
    driver.status = virtio.ACKNOWLEDGE | virtio.DRIVER
    driver.set_driver_features(virtio.F_VERSION_1 | virtio.F_RING_PACKED)
    size = set_size(driver, 3)
    driver.set_driver_features(virtio.F_VERSION_1)
    driver.status = virtio.ACKNOWLEDGE | virtio.DRIVER | virtio.FEATURES_OK
    if size == 3:
        for name, value in (("queue_desc", guest.queue.desc_addr), ("queue_driver", guest.queue.avail_addr),
                            ("queue_device", guest.queue.used_addr), ("queue_enable", 1), ("config_msix_vector", 0)):
            driver.set(name, value)
        driver.driver_ok()
        guest.kick()
        guest.assert_broken()
    guest.recover()


def test_r15_packed_is_offered_or_not_as_the_option_says(serve):
    for setting, offered in (("on", True), ("off", False)):
        driver = virtio.VirtioPci(serve("ram:16M", f"--packed={setting}").client()).discover()
        assert bool(driver.device_features() & virtio.F_RING_PACKED) is offered
        accepted = driver.negotiate(virtio.F_VERSION_1 | virtio.F_RING_PACKED, exact=True)
        assert accepted is offered


# --- R16: bad chains ------------------------------------------------------------------------------------------------

BAD_CHAINS = {
    "no memory": [(NOWHERE, 16, NEXT), (NOWHERE, 512, NEXT | WRITE), (NOWHERE, 1, WRITE)],
    "header outside memory": [(NOWHERE, 16, NEXT), (BASE + 0x300000, 512, NEXT | WRITE), (BASE + 0x310000, 1, WRITE)],
    "status outside memory": [(BASE + 0x300000, 16, NEXT), (NOWHERE, 1, WRITE)],
    "data runs off memory": [(BASE + 0x300000, 16, NEXT), (END - 100, 512, NEXT | WRITE), (BASE + 0x310000, 1, WRITE)],
    "address wraps": [(BASE + 0x300000, 16, NEXT), (wire.U64_MAX - 15, 512, NEXT | WRITE),
                      (BASE + 0x310000, 1, WRITE)],
    "readable behind writable": [(BASE + 0x300000, 16, NEXT), (BASE + 0x310000, 512, NEXT | WRITE),
                                 (BASE + 0x300000, 16, 0)],
    "nothing writable": [(BASE + 0x300000, 16, NEXT), (BASE + 0x310000, 512, 0)],
    "nothing readable": [(BASE + 0x310000, 512, WRITE)],
    "all empty": [(BASE, 0, NEXT), (BASE, 0, NEXT | WRITE), (BASE, 0, WRITE)],
    "empty at zero": [(0, 0, 0)],
    "header cut short": [(BASE + 0x300000, 15, NEXT), (BASE + 0x310000, 1, WRITE)],
    "four gigabytes": [(BASE, 0xFFFFFFFF, NEXT), (BASE, 0xFFFFFFFF, NEXT), (BASE + 0x310000, 1, WRITE)],
    "empty table": [(BASE, 0, INDIRECT)],
    "table outside memory": [(NOWHERE, 48, INDIRECT)],
    "table in the middle": [(BASE + 0x300000, 16, NEXT), (BASE + 0x200000, 32, NEXT | INDIRECT),
                            (BASE + 0x310000, 1, WRITE)],
}


@pytest.mark.parametrize("bad", BAD_CHAINS.values(), ids=BAD_CHAINS.keys())
@pytest.mark.parametrize("indirect", [False, True])
def test_r16_bad_chain_is_given_back_or_breaks_and_never_wedges_the_queue(server, bad, indirect):
    """Three of them with a good request behind each. A device that doesn't move past a bad chain stops here."""
    guest = server.guest(packed=True, queue_size=16)
    for _ in range(3):
        descs = bad
        if indirect:
            table = guest.space.alloc(16 * len(bad), 16)
            guest.space.write(table, b"".join(guest.queue.raw_desc(*desc) for desc in bad))
            descs = [(table, 16 * len(bad), INDIRECT)]
        guest.queue.put_chain(*descs, buffer_id=15)
        guest.kick()
        if not answered(guest):
            break
        done = guest.queue.take()
        assert [head for head, _ in done] == [15]
        assert done[0][1] <= sum(length for _, length, flags in bad if flags & WRITE)
        guest.assert_works()
    guest.recover()


def test_r16_bad_chain_between_good_ones_leaves_them_whole_or_breaks(guest):
    guest.write(0, b"\x55" * 512)
    requests = []
    for turn in range(6):
        request = guest.prepare(blk.T_IN, 0, length=512)
        requests.append(guest.submit(request, kick=False))
        guest.queue.put_chain((NOWHERE, 16, NEXT), (NOWHERE, 1, WRITE), buffer_id=1000 + turn)
    guest.kick()
    done = dict(guest.queue.wait(12))
    for request in requests:
        assert request.head in done or guest.broken
        if request.head in done:
            assert guest.result(request, done[request.head]).data == b"\x55" * 512
    guest.recover()


# --- R18, R19 -------------------------------------------------------------------------------------------------------

def boot_with_rings(server, *, queue_size=64, **places):
    guest = server.guest(packed=True, driver_ok=False, queue_size=queue_size)
    guest.virtio.reset()
    assert guest.virtio.negotiate(USUAL_FEATURES | virtio.F_RING_PACKED | virtio.F_EVENT_IDX)
    guest.virtio.set("config_msix_vector", 0)
    for name, addr in places.items():
        setattr(guest.queue, name, addr)
    guest.virtio.setup_queue(0, guest.queue, vector=1)
    guest.virtio.driver_ok()
    return guest


@pytest.mark.parametrize("name, addr", [
    ("desc_addr", END - 1008), ("desc_addr", END), ("desc_addr", 0), ("desc_addr", wire.U64_MAX - 15),
    ("avail_addr", END), ("avail_addr", END - 2), ("avail_addr", wire.U64_MAX - 3), ("avail_addr", NOWHERE),
    ("used_addr", END), ("used_addr", END - 2), ("used_addr", wire.U64_MAX - 3), ("used_addr", NOWHERE),
])
def test_r18_area_that_does_not_lie_in_memory_over_its_full_length_breaks_the_device(server, name, addr):
    guest = boot_with_rings(server, **{name: addr})
    guest.kick()
    guest.assert_broken()
    guest.client.fence()


def test_r18_areas_at_the_very_end_of_memory_work(server):
    guest = boot_with_rings(server, desc_addr=END - 1024, avail_addr=END - 1028, used_addr=END - 1032)
    guest.queue.ask_always()
    for _ in range(40):
        guest.assert_works()


def test_r18_event_structures_that_lie_in_the_ring_stay_inside_their_memory(server):
    place = BASE + 0x100000
    guest = boot_with_rings(server, desc_addr=place, avail_addr=place, used_addr=place + 4)
    guest.space.write(place, bytes(range(1, 256)) * 4)
    for _ in range(20):
        guest.kick()
    guest.client.fence()
    guest.client.reset()


@pytest.mark.parametrize("name, odd", [("desc_addr", 1), ("desc_addr", 8), ("avail_addr", 1), ("avail_addr", 2),
                                       ("used_addr", 1), ("used_addr", 2)])
def test_r19_area_at_an_odd_address_works_or_breaks(server, name, odd):
    guest = boot_with_rings(server, **{name: BASE + 0x200000 + odd})
    guest.kick()
    guest.queue.ask_always()
    request = guest.submit(guest.prepare(blk.T_IN, 0, length=512))
    answered(guest)
    assert guest.broken or guest.finish(request).status == blk.S_OK


# --- many at once ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("seed", range(6))
def test_r_random_packed_rings_break_at_worst_and_a_reset_heals_them(server, seed):
    rng = random.Random(100 + seed)
    size = rng.choice([3, 7, 64, 64])
    guest = server.guest(packed=True, queue_size=size,
                         features=USUAL_FEATURES | (virtio.F_EVENT_IDX if seed & 1 else 0))
    for _ in range(30):
        for index in range(size):
            addr = rng.choice([BASE + rng.randrange(4 << 20), END - rng.randrange(64), rng.getrandbits(64), BASE])
            length = rng.choice([16, 512, 1, 48, rng.randrange(8192), rng.getrandbits(32)])
            flags = rng.choice([0, 1, 1, 2, 3, 3, 4, rng.getrandbits(16)])
            flags ^= rng.choice([AVAIL, AVAIL, AVAIL, USED])
            guest.queue.set_desc(index, addr, length, flags, rng.choice([rng.randrange(size), rng.getrandbits(16)]))
        guest.queue.set_driver_event(rng.getrandbits(16), rng.choice([AT_DESC, rng.getrandbits(16)]))
        guest.kick(posted=True)
        guest.client.fence()
        guest.virtio.reset()
        guest.memories[0].write(0, bytes(guest.memories[0].size))
        guest.bring_up()
    guest.assert_works()
