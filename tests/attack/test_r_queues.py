# SPDX-License-Identifier: BSD-3-Clause
"""Rows R14, R17 to R20: event indices, live queues, where rings may lie, and the life of a queue."""

import time

import pytest

from pylib import blk, ring, virtio, wire
from pylib.events import PATIENCE, wait_until
from pylib.ring import Segment
from pylib.vm import BASE, USUAL_FEATURES

# --- R14 ----------------------------------------------------------------------------------------------------

EVENT_IDX = USUAL_FEATURES | virtio.F_EVENT_IDX
END = BASE + (4 << 20)  # of a guest's usual memory


def test_r14_event_index_interrupts_exactly_where_it_was_asked_for(server):
    guest = server.guest(features=EVENT_IDX)
    assert guest.virtio.features & virtio.F_EVENT_IDX, "EVENT_IDX isn't offered"
    event = guest.queue_events[0]
    for index in range(20):
        ask = index % 4 == 3
        guest.queue.set_used_event(index if ask else index + 2)
        guest.read(0, 1)
        assert bool(event.wait(PATIENCE if ask else 0.01)) is ask, f"at index {index}"


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
        assert event.wait(), f"no interrupt for the batch that ends at {total + 80}"
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
    if name == "desc_addr":
        guest.submit(request)
        assert wait_until(lambda: guest.broken or guest.queue.used_idx())
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
    assert guest.queue.wait(1), "the ring isn't looked at when the queue starts"


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
