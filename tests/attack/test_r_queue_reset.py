# SPDX-License-Identifier: BSD-3-Clause
"""VIRTIO_F_RING_RESET (virtio 1.2, 2.6.1 and 4.1.4.3): the reset of one queue, for rings of both formats."""

import os
import time

import pytest

from pylib import blk, virtio
from pylib.events import wait_until
from pylib.ring import INDIRECT
from pylib.vm import BASE, USUAL_FEATURES

RESET = USUAL_FEATURES | virtio.F_RING_RESET
M = 1 << 20


@pytest.fixture
def guest(server, packed):
    return server.guest(features=RESET, packed=packed)


@pytest.fixture
def two(serve, image, packed):
    """two(...): a guest with two queues of an image."""
    def boot(*options, queue_size=64, **kwargs):
        return serve(image, "--queues=2", *options).guest(features=RESET, packed=packed, queues=2,
                                                          queue_size=queue_size, memory=16 * M, **kwargs)
    return boot


def register(guest, name, index=0):
    guest.virtio.set("queue_select", index)
    return guest.virtio.get(name)


def replace_queue(guest, index, size):
    """A ring of another size at other addresses; not enabled yet."""
    old = guest.queues[index]
    guest.queues[index] = type(old)(guest.space, size, event_idx=old.event_idx)
    guest.queues[index].clear()
    return guest.queues[index]


def assert_unhurt(guest):
    """The reset of a queue is the device's daily work: no NEEDS_RESET, and the status stays."""
    assert guest.virtio.status == 0xF
    assert guest.config_event.clear() == 0, "a configuration interrupt"


# --- registers ----------------------------------------------------------------------------------------------------

def test_ring_reset_is_offered(client):
    assert virtio.VirtioPci(client).discover().device_features() & virtio.F_RING_RESET


def test_queue_reset_reads_zero_while_nothing_is_reset(server, packed):
    """4.1.4.3.1: after the device's reset, once the queue is enabled, and after the queue's reset."""
    guest = server.guest(features=RESET, packed=packed, driver_ok=False)
    guest.virtio.reset()
    assert register(guest, "queue_reset") == 0
    guest.bring_up()
    assert register(guest, "queue_reset") == 0
    guest.assert_works()
    guest.reset_queue()
    assert register(guest, "queue_reset") == 0
    assert register(guest, "queue_enable") == 0
    guest.enable_queue()
    assert (register(guest, "queue_reset"), register(guest, "queue_enable")) == (0, 1)
    guest.assert_works()
    assert_unhurt(guest)


def test_write_without_the_feature_negotiated_is_ignored(server, packed):
    guest = server.guest(features=USUAL_FEATURES, packed=packed)
    guest.read(0, 1)
    for value in (1, 0xFFFF):
        guest.virtio.set("queue_select", 0)
        guest.virtio.set("queue_reset", value)
        assert guest.virtio.get("queue_reset") == 0
        assert guest.virtio.get("queue_enable") == 1
        guest.assert_works()
    assert_unhurt(guest)


@pytest.mark.parametrize("value", [0, 2, 3, 0xFFFE, 0xFFFF])
def test_only_a_one_resets(guest, value):
    """4.1.4.3.2: a driver writes no other value."""
    guest.read(0, 1)
    guest.virtio.set("queue_select", 0)
    guest.virtio.set("queue_reset", value)
    if guest.virtio.get("queue_enable") == 1:
        guest.assert_works()
    assert guest.virtio.get("queue_reset") == 0
    assert_unhurt(guest)


def test_reset_of_a_queue_that_does_not_exist_is_ignored(guest):
    for index in (1, 2, 63, 64, 0x7FFF, 0xFFFF):
        guest.virtio.set("queue_select", index)
        guest.virtio.set("queue_reset", 1)
        assert guest.virtio.get("queue_reset") == 0
    assert register(guest, "queue_enable") == 1
    guest.assert_works()
    assert_unhurt(guest)


def test_reset_of_a_queue_that_was_never_enabled_harms_nothing(serve, packed):
    guest = serve("ram:16M", "--queues=3").guest(features=RESET, packed=packed, queues=2)
    for _ in range(3):
        guest.reset_queue(2)
        assert register(guest, "queue_enable", 2) == 0
    for index in range(2):
        guest.write(index, bytes([index + 1]) * 512, queue=index)
    assert_unhurt(guest)
    guest.queues.append(type(guest.queue)(guest.space, 16))
    guest.queues[2].clear()
    guest.virtio.setup_queue(2, guest.queues[2])
    guest.write(2, b"\x03" * 512, queue=2)
    assert guest.read(2, 1, queue=2) == b"\x03" * 512


def test_reset_twice_and_of_a_reset_queue_is_idempotent(guest):
    for _ in range(3):
        guest.virtio.set("queue_select", 0)
        guest.virtio.set("queue_reset", 1)
        guest.virtio.set("queue_reset", 1)
        assert wait_until(lambda: guest.virtio.get("queue_reset") == 0)
        assert guest.virtio.get("queue_enable") == 0
    assert_unhurt(guest)
    guest.enable_queue()
    guest.assert_works()


def test_reset_before_driver_ok_takes_the_queue_back(server, packed):
    guest = server.guest(features=RESET, packed=packed, driver_ok=False)
    guest.reset_queue()
    assert register(guest, "queue_enable") == 0
    guest.enable_queue()
    guest.virtio.driver_ok()
    guest.assert_works()
    assert_unhurt(guest)


def test_queue_that_was_reset_before_driver_ok_does_not_start_with_it(server, packed):
    guest = server.guest(features=RESET, packed=packed, driver_ok=False)
    guest.submit(guest.prepare(blk.T_IN, 0, length=512))
    guest.reset_queue()
    guest.virtio.driver_ok()
    guest.kick()
    guest.client.fence()
    assert not guest.queue.wait(1, 0.05)
    assert_unhurt(guest)


# --- a new life ---------------------------------------------------------------------------------------------------

def test_positions_and_wrap_counters_start_anew(server, packed):
    guest = server.guest(features=RESET, packed=packed, queue_size=4)
    for turn in range(9):
        for _ in range(turn):
            guest.flush(indirect=True)
        guest.reset_queue()
        guest.enable_queue()
        guest.assert_works()
    assert_unhurt(guest)


@pytest.mark.parametrize("features", [RESET, RESET | virtio.F_EVENT_IDX], ids=["plain", "event index"])
def test_queue_comes_back_with_another_size_and_other_addresses(server, packed, features):
    guest = server.guest(features=features, packed=packed)
    for size in [4, 64, 8, 3, 61, 128] if packed else [4, 64, 8, 128]:
        old = guest.queue
        guest.reset_queue()
        guest.space.write(old.desc_addr, b"\xEE" * 16 * old.size)
        guest.space.write(old.used_addr, b"\xEE" * 4)
        replace_queue(guest, 0, size)
        guest.virtio.setup_queue(0, guest.queue, vector=1)
        for name, value in (("queue_size", size), ("queue_desc", guest.queue.desc_addr),
                            ("queue_driver", guest.queue.avail_addr), ("queue_device", guest.queue.used_addr)):
            assert guest.virtio.get(name) == value
        for _ in range(5):
            guest.assert_works()
        assert guest.space.read(old.desc_addr, 16 * old.size) == b"\xEE" * 16 * old.size
        assert guest.space.read(old.used_addr, 4) == b"\xEE" * 4
    assert_unhurt(guest)


def test_size_and_addresses_of_a_reset_queue_may_be_changed_and_of_a_live_one_not(guest):
    guest.reset_queue()
    for name, value in (("queue_size", 16), ("queue_desc", 0x1234_5678_9ABC_D000), ("queue_driver", 0xFFFF_FFFF_0000),
                        ("queue_device", 0x7_0000_1000), ("queue_msix_vector", 0)):
        guest.virtio.set(name, value)
        assert guest.virtio.get(name) == value, name
    guest.enable_queue()
    guest.virtio.set("queue_size", 16)
    assert guest.virtio.get("queue_size") == guest.queue.size
    guest.assert_works()


def test_bad_addresses_after_a_reset_break_the_device(guest):
    """As on the first enable."""
    guest.reset_queue()
    guest.queue.clear()
    before, guest.queue.desc_addr = guest.queue.desc_addr, 0xDEAD_0000
    guest.virtio.setup_queue(0, guest.queue, vector=1)
    guest.kick()
    guest.assert_broken()
    guest.queue.desc_addr = before
    guest.recover()


def test_requests_that_were_offered_before_the_queue_is_enabled_are_served_without_a_kick(guest):
    guest.reset_queue()
    guest.queue.clear()
    request = guest.submit(guest.prepare(blk.T_IN, 0, length=512), kick=False)
    guest.virtio.setup_queue(0, guest.queue, vector=1)
    assert guest.finish(request).status == blk.S_OK


def test_interrupts_come_after_the_reset_by_the_vector_that_is_set_then(serve, packed):
    guest = serve("ram:16M", "--queues=2").guest(features=RESET, packed=packed, queues=2)
    guest.reset_queue(1)
    guest.queues[1].clear()
    guest.virtio.setup_queue(1, guest.queues[1], vector=1)
    for event in guest.queue_events:
        event.clear()
    guest.read(0, 1, queue=1)
    assert guest.queue_events[0].wait()
    assert not guest.queue_events[1].pending()


def test_kick_of_a_reset_queue_is_ignored(guest):
    request = guest.prepare(blk.T_IN, 0, length=512)
    guest.reset_queue()
    guest.queue.clear()
    guest.submit(request)
    for _ in range(5):
        guest.kick()
    assert not guest.queue.wait(1, 0.05), "a queue that was reset serves a request"
    assert_unhurt(guest)
    guest.virtio.setup_queue(0, guest.queue, vector=1)
    assert guest.finish(request).status == blk.S_OK


# --- beside others, with requests in flight -------------------------------------------------------------------------

@pytest.mark.parametrize("options", [(), ("--direct",), ("--threads=2",)], ids=["", "direct", "threads"])
def test_reset_with_requests_in_flight_drains_them_while_the_other_queue_goes_on(two, options):
    """Once queue_reset reads 0, not a byte of the queue's memory changes."""
    guest = two(*options)
    guest.reuse = False
    first = guest.space.alloc(8 * M, 4096)
    for turn in range(6):
        rings = [guest.queues[0].desc_addr, guest.queues[0].avail_addr, guest.queues[0].used_addr]
        for i in range(20):
            guest.submit(guest.prepare(blk.T_IN, 256 * i, length=1 << 17, data_addr=first + (i << 17)), kick=False)
        guest.kick(0, posted=True)
        others = [guest.submit(guest.prepare(blk.T_IN, 1000 + i, length=512, queue=1)) for i in range(3)]
        guest.reset_queue(0)
        for place in rings:
            guest.space.write(place, b"\xEE" * 4)
        guest.space.write(first, b"\xEE" * (20 << 17))
        done = dict(guest.queues[1].wait(3))
        for i, request in enumerate(others):
            assert done[request.head] == 513
            assert guest.space.read(request.data, 8) == (1000 + i).to_bytes(8, "little")
        time.sleep(0.01)
        assert guest.space.read(first, 20 << 17).count(0xEE) == 20 << 17, f"turn {turn}: written after the reset"
        assert all(guest.space.read(place, 4) == b"\xEE" * 4 for place in rings)
        assert guest.read(77 + turn, 1, queue=1) == (77 + turn).to_bytes(8, "little") * 64
        replace_queue(guest, 0, 64 if turn % 2 else 128)
        guest.virtio.setup_queue(0, guest.queues[0], vector=1)
        assert guest.read(5, 1) == (5).to_bytes(8, "little") * 64
    assert_unhurt(guest)


def test_reset_while_requests_do_not_end_gives_up_those_that_wait_and_ends(stuck_guest, packed):
    """They wait for a lock; kicks, reads of queue_reset and a second reset come meanwhile. queue_reset reads 1 or 0."""
    owner, guest = stuck_guest(packed=packed, features=RESET)
    for i in range(5):
        guest.submit(guest.prepare(blk.T_IN, 8 * i, length=512))
    guest.client.fence()
    guest.virtio.set("queue_select", 0)
    guest.virtio.set("queue_reset", 1)
    for _ in range(5):
        guest.kick()
        assert guest.virtio.get("queue_reset") in (0, 1)
    assert wait_until(lambda: guest.virtio.get("queue_reset") == 0)
    assert guest.virtio.get("queue_enable") == 0
    memory = guest.memories[0]
    memory.write(0, b"\xEE" * memory.size)
    assert owner.stop() == 0
    time.sleep(0.05)
    assert memory.read(0, memory.size).count(0xEE) == memory.size, "written after the reset"
    assert_unhurt(guest)
    guest.enable_queue()
    guest.assert_works()


def test_reset_of_the_device_may_follow_that_of_a_queue_at_once(guest):
    for turn in range(50):
        for i in range(turn % 4):
            guest.submit(guest.prepare(blk.T_IN, i, length=4096), kick=False)
        guest.kick(posted=True)
        guest.virtio.set("queue_select", 0)
        guest.virtio.set("queue_reset", 1)
        if turn % 2:
            guest.client.reset()
            guest.pci.set_command(6)
            guest.pci.enable_msix()
        guest.virtio.reset()
        assert register(guest, "queue_reset") == 0
        guest.space.release(BASE + M)
        guest.bring_up()
    guest.assert_works()


def test_enable_right_after_the_reset_without_waiting_works_or_is_ignored(guest):
    """4.1.4.3.2: the driver has to wait for queue_reset to read 0; one that doesn't hurts itself at most."""
    for turn in range(50):
        guest.submit(guest.prepare(blk.T_IN, turn, length=4096))
        guest.virtio.set("queue_select", 0)
        guest.virtio.set("queue_reset", 1)
        guest.virtio.set("queue_enable", 1)
        guest.kick(posted=True)
        assert wait_until(lambda: guest.virtio.get("queue_reset") == 0)
        assert guest.virtio.get("queue_enable") in (0, 1)
        guest.reset_queue()
        guest.space.release(BASE + M)
        guest.enable_queue()
    guest.assert_works()
    guest.virtio.reset()


def test_two_hundred_quick_resets_with_requests_in_between(two):
    guest = two("--threads=2", queue_size=16)
    guest.reuse = False
    mark = guest.space.mark()
    for turn in range(200):
        index = turn % 2
        guest.submit(guest.prepare(blk.T_IN, turn, length=4096, queue=index), kick=turn % 3 > 0)
        guest.reset_queue(index)
        guest.enable_queue(index)
        if turn % 20 == 19:
            guest.space.release(mark)
            assert guest.read(turn, 1, queue=1 - index) == turn.to_bytes(8, "little") * 64
    assert_unhurt(guest)


# --- memory and breaks ----------------------------------------------------------------------------------------------

def test_memory_of_a_reset_queue_may_go_away_for_ever(two):
    guest = two()
    window = guest.add_memory(1 << 40, M)
    guest.reset_queue(1)
    queue = guest.queues[1]
    queue.desc_addr, queue.avail_addr, queue.used_addr = (window.iova + at for at in (0, 0x10000, 0x20000))
    guest.enable_queue(1)
    assert guest.read(9, 1, queue=1) == (9).to_bytes(8, "little") * 64
    guest.reset_queue(1)
    guest.remove_memory(window)
    for _ in range(3):
        assert guest.read(11, 1) == (11).to_bytes(8, "little") * 64
        guest.kick(1)
    assert_unhurt(guest)
    replace_queue(guest, 1, 8)
    guest.enable_queue(1)
    assert guest.read(9, 1, queue=1) == (9).to_bytes(8, "little") * 64


def test_reset_of_a_queue_does_not_heal_a_broken_device(guest):
    """2.1.2: NEEDS_RESET stands until the device is reset."""
    guest.queue.put_chain((0xDEAD_0000, 48, INDIRECT))
    guest.kick()
    guest.assert_broken()
    guest.reset_queue()
    assert guest.broken
    guest.enable_queue()
    assert guest.broken
    guest.recover()


def test_reset_is_not_remembered_over_a_reset_of_the_device_without_the_feature(server, packed):
    guest = server.guest(features=RESET, packed=packed)
    guest.reset_queue()
    guest._options["features"] = USUAL_FEATURES | (virtio.F_RING_PACKED if packed else 0)
    guest.restart()
    guest.virtio.set("queue_select", 0)
    guest.virtio.set("queue_reset", 1)
    assert guest.virtio.get("queue_enable") == 1
    data = os.urandom(512)
    guest.write(3, data)
    assert guest.read(3, 1) == data
