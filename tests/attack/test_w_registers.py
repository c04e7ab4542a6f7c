# SPDX-License-Identifier: BSD-3-Clause
"""Rows W15 to W19: register accesses of odd sizes and places, selects out of range, feature bits not offered."""

import random

import pytest

from pylib import blk, pci, virtio, wire
from pylib.client import Refused
from pylib.wire import Cmd

BAR4_SIZE = 0x4000
COMMON, ISR, DEVICE, NOTIFY = 0x0000, 0x1000, 0x2000, 0x3000


@pytest.fixture
def driver(client):
    return virtio.VirtioPci(client).discover()


# --- W15 ----------------------------------------------------------------------------------------------------

def byte_by_byte(client, region, offset, count):
    return b"".join(client.read_region(region, offset + i, 1) for i in range(count))


@pytest.mark.parametrize("size", [3, 5, 6, 7, 9, 12, 31, 64])
@pytest.mark.parametrize("offset", [COMMON, COMMON + 1, COMMON + 0x12, DEVICE, DEVICE + 3, DEVICE + 0x14])
def test_w15_register_read_of_odd_size_or_place_is_split_or_refused(client, size, offset):
    try:
        got = client.read_region(wire.BAR4, offset, size)
    except Refused:
        client.fence()
        return
    assert got == byte_by_byte(client, wire.BAR4, offset, size)


@pytest.mark.parametrize("offset, size", [
    (COMMON, 4095), (COMMON, 4096), (DEVICE, 4095), (DEVICE - 1, 2), (DEVICE - 2, 4), (ISR - 3, 8), (NOTIFY - 1, 3),
    (0x38, 4095), (BAR4_SIZE - 1, 1), (0, BAR4_SIZE), (1, BAR4_SIZE - 2), (COMMON + 0x3E, 4)])
def test_w15_register_read_across_a_blocks_edge_is_split_or_refused(client, offset, size):
    reply = client.exchange(Cmd.REGION_READ, wire.region_read(wire.BAR4, offset, size))
    if reply.is_error:
        client.check_refusal(reply)
    else:
        assert len(reply.payload) == 16 + size
    client.fence()


@pytest.mark.parametrize("size", [3, 5, 6, 7, 16, 4095])
@pytest.mark.parametrize("offset", [COMMON + 8, COMMON + 0x11, DEVICE, ISR, NOTIFY, NOTIFY + 1, DEVICE - 2])
def test_w15_register_write_of_odd_size_or_place_is_split_or_refused(client, offset, size):
    reply = client.exchange(Cmd.REGION_WRITE, wire.region_write(wire.BAR4, offset, b"\0" * size))
    if reply.is_error:
        client.check_refusal(reply)
    client.fence()


@pytest.mark.parametrize("region", [wire.BAR4, wire.BAR1, wire.BAR2, wire.CONFIG])
def test_w15_read_past_the_regions_end_is_refused(client, region):
    size = client.region_info(region).size
    for offset, count in ((size, 1), (size - 1, 2), (size - 4, 8), (size + 4096, 4), (0, size + 1)):
        client.refused(Cmd.REGION_READ, wire.region_read(region, offset, count))
        client.refused(Cmd.REGION_WRITE, wire.region_write(region, offset, b"\0" * count))
    client.fence()


@pytest.mark.parametrize("region", [wire.BAR0, wire.BAR3, wire.BAR5, wire.ROM, wire.VGA])
def test_w15_access_to_a_region_of_size_zero_is_refused(client, region):
    assert client.region_info(region).size == 0
    client.refused(Cmd.REGION_READ, wire.region_read(region, 0, 4))
    client.refused(Cmd.REGION_WRITE, wire.region_write(region, 0, b"\0" * 4))


def test_w15_region_access_of_zero_bytes_is_answered_without_data_or_refused(client):
    for region in (wire.CONFIG, wire.BAR4):
        for cmd in (Cmd.REGION_READ, Cmd.REGION_WRITE):
            reply = client.exchange(cmd, wire.region_read(region, 0, 0))
            if reply.is_error:
                client.check_refusal(reply)
            else:
                assert len(reply.payload) in (0, 16)
    client.fence()


def test_w15_thousand_random_register_accesses_leave_the_device_usable(guest):
    """Seeded: every offset, sizes from 0 to 64, reads and writes, in all regions; only a reset must help afterwards."""
    rng = random.Random(15)
    raw = b""
    for i in range(1000):
        region = rng.choice([wire.BAR4, wire.BAR4, wire.BAR4, wire.BAR1, wire.BAR2, wire.CONFIG, rng.randrange(10)])
        offset = rng.choice([rng.randrange(64), DEVICE + rng.randrange(64), rng.randrange(BAR4_SIZE),
                             rng.getrandbits(64)])
        size = rng.choice([1, 2, 4, 8, rng.randrange(65)])
        if rng.random() < 0.5:
            raw += wire.pack(Cmd.REGION_READ, wire.region_read(region, offset, size), msg_id=i)
        else:
            raw += wire.pack(Cmd.REGION_WRITE, wire.region_write(region, offset, rng.randbytes(size)), msg_id=i)
    guest.client.send_bytes(raw)
    for i in range(1000):
        assert guest.client.recv().msg_id == i
    guest.client.fence()
    guest.client.reset()
    guest.pci.set_command(pci.COMMAND_MEMORY | pci.COMMAND_MASTER)
    guest.pci.enable_msix()
    guest.restart()
    guest.assert_works()


# --- W16 ----------------------------------------------------------------------------------------------------

def test_w16_notify_register_by_message_is_handled_plainly(guest):
    """Other servers assert that this page is always mapped by the client."""
    for size in (1, 2, 4):
        guest.client.read_region(wire.BAR4, NOTIFY, size)
    request = guest.prepare(blk.T_IN, 0, length=512)
    guest.submit(request, kick=False)
    guest.virtio.notify(0, size=4)
    assert guest.finish(request).status == blk.S_OK


@pytest.mark.parametrize("value", [1, 2, 64, 0xFFFF])
def test_w16_notify_of_a_queue_that_is_not_there_is_ignored(guest, value):
    guest.client.write_uint(wire.BAR4, NOTIFY, 2, value)
    guest.client.write_uint(wire.BAR4, NOTIFY + 4 * value if 4 * value < 0x1000 else NOTIFY + 0xFFC, 2, value)
    assert not guest.broken
    guest.assert_works()


def test_w16_msix_table_and_pba_by_message_are_handled_plainly(client):
    device = pci.PciFunction(client)
    vectors, table_bar, table, pba_bar, pba, _ = device.msix()
    assert client.read_region(pba_bar, pba, 8) == b"\0" * 8
    entry = bytes.fromhex("0010e0fe 00000000 21400000 01000000")
    client.write_region(table_bar, table, entry)
    assert client.read_region(table_bar, table, 16) in (entry, b"\0" * 16, b"\0" * 12 + b"\1\0\0\0")
    client.write_region(pba_bar, pba, b"\xFF" * 8)
    assert client.read_region(pba_bar, pba, 8) == b"\0" * 8, "pending bits are read-only"
    assert vectors >= 2


# --- W17 ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("select", [2, 3, 31, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFF])
def test_w17_feature_select_out_of_range_reads_zero_and_ignores_writes(driver, select):
    driver.reset()
    driver.status = virtio.ACKNOWLEDGE | virtio.DRIVER
    driver.set_driver_features(virtio.F_VERSION_1)
    driver.set("device_feature_select", select)
    assert driver.get("device_feature") == 0
    driver.set("driver_feature_select", select)
    driver.set("driver_feature", 0xFFFFFFFF)
    assert driver.get("driver_feature") == 0
    driver.status = virtio.ACKNOWLEDGE | virtio.DRIVER | virtio.FEATURES_OK
    assert driver.status & virtio.FEATURES_OK, "a write to no feature word has changed one"


@pytest.mark.parametrize("select", [1, 2, 63, 64, 1024, 0x7FFF, 0xFFFF])
def test_w17_queue_select_out_of_range_reads_zero_and_ignores_writes(driver, select):
    """The device has one queue."""
    assert driver.negotiate()
    assert driver.get("num_queues") == 1
    driver.set("queue_select", select)
    assert driver.get("queue_size") == 0
    assert driver.get("queue_enable") == 0
    driver.set("queue_size", 16)
    driver.set("queue_desc", 0x1000)
    driver.set("queue_enable", 1)
    assert driver.get("queue_size") == 0
    assert driver.get("queue_enable") == 0
    assert driver.get("queue_desc") == 0
    driver.set("queue_select", 0)
    assert driver.get("queue_enable") == 0, "queue 0 was enabled in place of a queue that isn't there"
    assert not driver.status & virtio.NEEDS_RESET


@pytest.mark.parametrize("vector", [2, 3, 0x7FF, 0xFFFE])
def test_w17_interrupt_vector_out_of_range_is_not_taken(driver, vector):
    """One queue: vectors 0 and 1. What can't be given reads back as 'none' (4.1.5.1.2)."""
    assert driver.negotiate()
    driver.set("queue_select", 0)
    driver.set("queue_msix_vector", vector)
    assert driver.get("queue_msix_vector") == virtio.NO_VECTOR
    driver.set("config_msix_vector", vector)
    assert driver.get("config_msix_vector") == virtio.NO_VECTOR


def test_w17_read_only_registers_ignore_writes(driver):
    assert driver.negotiate()
    driver.set("queue_select", 0)
    for name in ("device_feature", "num_queues", "config_generation", "queue_notify_off"):
        before = driver.get(name)
        driver.set(name, ~before)
        assert driver.get(name) == before, name


@pytest.mark.parametrize("size", [0, 3, 63, 65, 1025, 0x8001, 0xFFFF])
def test_w17_queue_size_that_is_no_power_of_two_or_too_large_is_not_run(serve, size):
    server = serve("ram:16M", "--queue-size=64")
    guest = server.guest(queue_size=64, driver_ok=False)
    guest.virtio.reset()
    assert guest.virtio.negotiate(virtio.F_VERSION_1)
    guest.virtio.set("queue_select", 0)
    guest.virtio.set("queue_size", size)
    taken = guest.virtio.get("queue_size")
    assert 1 <= taken <= 64 and taken & (taken - 1) == 0, f"queue size {size} was taken as {taken}"


# --- W18 ----------------------------------------------------------------------------------------------------

def test_w18_device_configuration_past_its_end_reads_zero_and_ignores_writes(client, driver):
    for offset, size in ((DEVICE + 0x80, 4), (DEVICE + 0x100, 4), (DEVICE + 0xFFC, 4), (DEVICE + 0xFFF, 1)):
        client.write_region(wire.BAR4, offset, b"\xFF" * size)
        assert client.read_region(wire.BAR4, offset, size) == b"\0" * size
    capacity = driver.config_read(0, 8)
    client.write_region(wire.BAR4, DEVICE, b"\xFF" * 8)
    assert driver.config_read(0, 8) == capacity, "capacity is read-only"


@pytest.mark.parametrize("offset", [COMMON + 0x40, COMMON + 0x100, COMMON + 0xFFC, ISR + 4, ISR + 0xFFC])
def test_w18_hole_behind_a_register_block_reads_zero_and_ignores_writes(client, offset):
    assert client.read_region(wire.BAR4, offset, 4) == b"\0" * 4
    client.write_region(wire.BAR4, offset, b"\xFF" * 4)
    assert client.read_region(wire.BAR4, offset, 4) == b"\0" * 4


def test_w18_msix_table_beyond_its_last_entry_reads_zero_and_ignores_writes(client):
    device = pci.PciFunction(client)
    vectors, table_bar, table, _, _, _ = device.msix()
    size = client.region_info(table_bar).size
    for at in (table + 16 * vectors, table + 16 * vectors + 12, size - 16, size - 4):
        if at + 4 <= size:
            client.write_region(table_bar, at, b"\xFF" * 4)
            assert client.read_region(table_bar, at, 4) == b"\0" * 4


@pytest.mark.parametrize("offset, size", [(0xFFE, 2), (0xFFC, 4), (0xFFF, 1), (0x100, 4), (0x100, 3840), (255, 2)])
def test_w18_unused_config_space_reads_zero(client, offset, size):
    """All ones at 0x100 would send a client that walks extended capabilities round for ever."""
    if offset >= 0x100:
        assert client.read_region(wire.CONFIG, offset, size) == b"\0" * size
    client.write_region(wire.CONFIG, offset, b"\xFF" * min(size, 64))
    if offset >= 0x100:
        assert client.read_region(wire.CONFIG, offset, size) == b"\0" * size


@pytest.mark.parametrize("offset, length", [(0x2000, 4), (0, 0xFFFFFFFF), (0xFFFFFFFF, 4), (0xFFFFFFFC, 8),
                                            (0x3FFF, 4), (0x4000, 4), (0, 3), (0, 0), (1, 4)])
@pytest.mark.parametrize("bar", [4, 0, 1, 3, 5, 6, 7, 255])
def test_w18_config_window_with_wild_values_reads_something_and_harms_nothing(client, driver, bar, offset, length):
    """The PCI_CFG capability is a second way to the BARs (4.1.4.9)."""
    window = driver.structures.get(virtio.CFG_PCI)
    assert window is not None, "no VIRTIO_PCI_CAP_PCI_CFG"
    client.write_uint(wire.CONFIG, window.at + 4, 1, bar)
    client.write_uint(wire.CONFIG, window.at + 8, 4, offset)
    client.write_uint(wire.CONFIG, window.at + 12, 4, length)
    client.read_region(wire.CONFIG, window.at + 16, 4)
    client.write_region(wire.CONFIG, window.at + 16, b"\0\0\0\0")
    client.fence()


# --- W19 ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("bit", [0, 3, 7, 8, 16, 23, 24, 27, 30, 31, 34, 35, 37, 39, 41, 49, 50, 63])
def test_w19_feature_bit_that_was_not_offered_is_refused(driver, bit):
    offered = driver.device_features()
    if offered >> bit & 1:
        pytest.skip(f"bit {bit} is offered")
    assert not driver.negotiate(virtio.F_VERSION_1 | 1 << bit, exact=True), f"FEATURES_OK with unoffered bit {bit}"
    assert driver.negotiate(virtio.F_VERSION_1), "a refused negotiation leaves a mark"


def test_w19_all_ones_as_features_are_refused(driver):
    assert not driver.negotiate(wire.U64_MAX, exact=True)


def test_w19_features_without_version_1_are_refused(driver):
    assert not driver.negotiate(0, exact=True)
    assert not driver.negotiate(blk.F_FLUSH, exact=True)


def test_w19_feature_words_written_while_running_change_nothing(guest):
    guest.virtio.set_driver_features(wire.U64_MAX)
    guest.virtio.set_driver_features(0)
    assert guest.virtio.status & virtio.FEATURES_OK
    assert not guest.broken
    guest.assert_works()


def test_w19_the_same_features_again_while_running_are_harmless(guest):
    guest.virtio.set_driver_features(guest.virtio.features)
    guest.virtio.driver_ok()
    guest.assert_works()


def test_w19_status_bits_cannot_be_set_by_the_driver_that_are_the_devices(driver):
    assert driver.negotiate()
    driver.status = virtio.ACKNOWLEDGE | virtio.DRIVER | virtio.FEATURES_OK | virtio.NEEDS_RESET
    assert not driver.status & virtio.NEEDS_RESET


def test_w19_features_ok_before_driver_or_driver_ok_before_features_ok_do_not_wedge(driver, client):
    for status in (virtio.DRIVER_OK, virtio.FEATURES_OK, 0xFF, virtio.FAILED, virtio.ACKNOWLEDGE | virtio.DRIVER_OK):
        driver.reset()
        driver.status = status
        client.fence()
    assert driver.negotiate()
