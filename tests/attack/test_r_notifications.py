# SPDX-License-Identifier: BSD-3-Clause
"""Notifications (virtio 1.2, 2.9 and 4.1.5.2) with VIRTIO_F_NOTIFICATION_DATA and without, right and wrong ones, for rings
of both formats; and the feature VIRTIO_F_ORDER_PLATFORM, which changes nothing that can be seen."""

import random

import pytest

from pylib import blk, virtio
from pylib.vm import USUAL_FEATURES

DATA = USUAL_FEATURES | virtio.F_NOTIFICATION_DATA
NOTIFY = 0x3000  # in BAR 4
SERVE_OPTIONS = ["--poll=never"]  # what a queue that looks without being told would find


@pytest.fixture
def guest(server, packed):
    return server.guest(features=DATA, packed=packed)


@pytest.fixture
def plain(server, packed):
    """Without the feature."""
    return server.guest(packed=packed)


@pytest.fixture
def driver(client):
    return virtio.VirtioPci(client).discover()


def offered_by(client):
    return virtio.VirtioPci(client).discover().device_features()


def let_it_run(guest):
    """As many turns as the device may need to see what there is to see, and sleep again."""
    for _ in range(5):
        guest.client.fence()


def offer(guest, queue=0):
    """A request that the device has not been told of."""
    let_it_run(guest)
    return guest.submit(guest.prepare(blk.T_IN, 0, length=512, queue=queue), kick=False)


def assert_asleep(guest, request):
    """The device has not looked; a good notification wakes it."""
    let_it_run(guest)
    assert not guest.queues[request.queue].given_back(), "the device took that for a notification"
    guest.kick(request.queue)
    assert guest.finish(request).status == blk.S_OK
    assert not guest.broken


# --- what is offered ----------------------------------------------------------------------------------------------

def test_features_are_offered(client):
    offered = offered_by(client)
    assert offered & virtio.F_NOTIFICATION_DATA
    assert offered & virtio.F_ORDER_PLATFORM
    assert not offered & virtio.F_NOTIF_CONFIG_DATA


def test_notification_structure_has_room_for_the_data(serve):
    """4.1.4.4.1: aligned to 4 bytes, a multiplier that is a power of two and a multiple of 4, 4 bytes for each queue."""
    guest = serve("ram:16M", "--queues=1024").guest(features=DATA, queues=1, queue_size=8)
    where = guest.virtio.structures[virtio.CFG_NOTIFY]
    assert where.offset % 4 == 0
    assert where.multiplier >= 4 and where.multiplier & (where.multiplier - 1) == 0
    for index in (0, 1, 1023):
        guest.virtio.set("queue_select", index)
        assert guest.virtio.get("queue_notify_off") * where.multiplier + 4 <= where.length
    guest.virtio.set("queue_select", 0)
    guest.assert_works()


@pytest.mark.parametrize("extra", [virtio.F_ORDER_PLATFORM, virtio.F_NOTIFICATION_DATA,
                                   virtio.F_ORDER_PLATFORM | virtio.F_NOTIFICATION_DATA | virtio.F_EVENT_IDX])
def test_features_may_be_accepted_in_any_combination(server, packed, extra):
    guest = server.guest(features=USUAL_FEATURES | extra, packed=packed)
    assert guest.virtio.features & extra == extra
    for _ in range(70):
        guest.assert_works()


def test_configuration_data_for_notifications_is_not_taken(driver):
    """A driver that accepts the bit though it was not offered."""
    assert not driver.negotiate(virtio.F_VERSION_1 | virtio.F_NOTIF_CONFIG_DATA, exact=True)
    driver.set("queue_select", 0)
    assert driver.get("queue_notify_data") == 0


# --- good ones ----------------------------------------------------------------------------------------------------

def test_notifications_with_data_work_over_many_laps(server, packed):
    guest = server.guest(features=DATA, packed=packed, queue_size=8)
    for _ in range(100):
        guest.assert_works()


def test_notifications_reach_their_queues(serve, packed):
    guest = serve("ram:16M", *SERVE_OPTIONS, "--queues=3").guest(features=DATA, packed=packed, queues=3)
    requests = [offer(guest, index) for index in range(3)]
    for index in (2, 0, 1):
        assert not any(queue.given_back() for queue in guest.queues)
        guest.kick(index)
        assert guest.finish(requests[index]).status == blk.S_OK


# --- data that is wrong -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("position", [0, 1, 2, 0x3F, 0x40, 0x7FFF, 0x8000, 0x8001, 0xFFFF])
def test_data_that_lies_changes_nothing(guest, position):
    """It is a hint, whatever it says: what is in the ring is done, and nothing else."""
    for _ in range(3):
        request = offer(guest)
        guest.virtio.notify(0, position=position)
        assert guest.finish(request).status == blk.S_OK
    for _ in range(10):
        guest.virtio.notify(0, position=position)  # though there is nothing
    assert not guest.broken
    guest.assert_works()


def test_a_thousand_random_notifications_with_data(guest):
    rng = random.Random(38)
    mark = guest.space.mark()
    for turn in range(1000):
        if turn % 10 == 0:
            guest.space.release(mark)
            request = offer(guest)
            guest.kick(posted=True)
        guest.virtio.notify(0, position=rng.randrange(0x10000), posted=True)
        if turn % 10 == 9:
            assert guest.finish(request).status == blk.S_OK
    assert not guest.broken


# --- sizes and numbers that are wrong -----------------------------------------------------------------------------

def test_sixteen_bits_wake_the_queue_also_where_data_was_negotiated(guest):
    """Not what 4.1.5.2 wants, and said clearly enough."""
    request = offer(guest)
    guest.virtio.notify(0, size=2)
    assert guest.finish(request).status == blk.S_OK


def test_thirty_two_bits_wake_the_queue_also_where_data_was_not_negotiated(plain):
    request = offer(plain)
    plain.virtio.notify(0, size=4, position=0x1234)
    assert plain.finish(request).status == blk.S_OK


@pytest.mark.parametrize("size", [1, 8])
@pytest.mark.parametrize("features", [USUAL_FEATURES, DATA], ids=["plain", "data"])
def test_other_sizes_are_no_notifications(server, features, size):
    guest = server.guest(features=features)
    request = offer(guest)
    guest.virtio.notify(0, size=size)
    assert_asleep(guest, request)


@pytest.mark.parametrize("number", [1, 2, 64, 0x8000, 0xFFFF])
@pytest.mark.parametrize("features", [USUAL_FEATURES, DATA], ids=["plain", "data"])
def test_register_of_one_queue_with_the_number_of_another_is_ignored(serve, features, number):
    guest = serve("ram:16M", *SERVE_OPTIONS, "--queues=2").guest(features=features, queues=2)
    request = offer(guest)
    guest.virtio.notify(0, value=number)
    assert not guest.queues[1].given_back()
    assert_asleep(guest, request)


def test_number_counts_in_its_sixteen_bits_alone(guest):
    """The data is not taken for a part of it."""
    request = offer(guest)
    guest.virtio.notify(0, value=0xFFFF_0000)
    assert guest.finish(request).status == blk.S_OK


@pytest.mark.parametrize("size", [2, 4])
def test_registers_of_queues_that_are_not_there_are_ignored(guest, size):
    for index in (1, 2, 1023):
        guest.client.write_uint(4, NOTIFY + 4 * index, size, index)
    assert not guest.broken
    guest.assert_works()


def test_half_of_a_register_is_no_notification(plain):
    """The upper two bytes of queue 0's register."""
    request = offer(plain)
    plain.client.write_uint(4, NOTIFY + 2, 2, 0)
    assert_asleep(plain, request)


def test_notification_before_the_queue_is_enabled_is_ignored(server, packed):
    guest = server.guest(features=DATA, packed=packed, driver_ok=False)
    request = offer(guest)
    guest.kick()
    guest.client.fence()
    assert not guest.queue.given_back()
    guest.virtio.driver_ok()
    assert guest.finish(request).status == blk.S_OK
