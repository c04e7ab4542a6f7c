# SPDX-License-Identifier: BSD-3-Clause
"""The PCI function: information, config space, capabilities, BAR sizing, INTx and MSI-X."""

import os
import signal
import struct

import pytest

from pylib import blk, pci, virtio, wire
from pylib.events import wait_until
from pylib.vm import USUAL_FEATURES
from pylib.wire import Cmd


@pytest.fixture
def function(client):
    return pci.PciFunction(client)


# --- information ------------------------------------------------------------------------------------------------

def test_device_info_says_pci_reset_nine_regions_five_interrupts(client):
    payload = client.call(Cmd.GET_INFO, wire.device_info())
    info = wire.parse_device_info(payload)
    assert (info.argsz, info.flags, info.num_regions, info.num_irqs) == (16, wire.INFO_RESET | wire.INFO_PCI, 9, 5)


def test_region_info_has_the_layout_that_is_documented(client):
    sizes = {0: 0, 3: 0, 4: 0x4000, 5: 0, 6: 0, 7: 0x1000, 8: 0}
    for index in range(9):
        info = client.region_info(index)
        assert info.index == index
        assert info.argsz == 32 and not info.flags & (wire.REGION_MMAP | wire.REGION_CAPS)
        if index in sizes:
            assert info.size == sizes[index], f"region {index}"
        if info.size:
            assert info.flags & 3 == wire.REGION_READABLE | wire.REGION_WRITABLE
            assert info.size & (info.size - 1) == 0 and info.size >= 4096
    assert client.region_info(wire.BAR1).size >= 4096 and client.region_info(wire.BAR2).size >= 4096


@pytest.mark.parametrize("queues", [1, 4, 64])
def test_irq_info_has_a_vector_for_each_queue_and_one_for_the_configuration(serve, queues):
    client = serve("ram:16M", f"--queues={queues}").client()
    counts = [client.irq_info(index) for index in range(5)]
    assert counts[wire.IRQ_MSIX].count == queues + 1
    assert counts[wire.IRQ_MSIX].flags & wire.IRQ_INFO_EVENTFD
    assert counts[wire.IRQ_INTX].count == 1
    assert counts[wire.IRQ_INTX].flags & 7 == 7, "INTx is eventfd, maskable, automasked"
    assert counts[wire.IRQ_MSI].count == 0
    assert pci.PciFunction(client).msix()[0] == queues + 1


def test_io_fds_request_is_answered_or_refused_whole(client):
    reply = client.exchange(Cmd.GET_REGION_IO_FDS, wire.region_io_fds(wire.BAR4))
    if reply.is_error:
        client.check_refusal(reply)
    else:
        assert len(reply.payload) >= 16
    client.refused(Cmd.GET_REGION_IO_FDS, wire.region_io_fds(99))
    client.refused(Cmd.GET_REGION_IO_FDS, wire.region_io_fds(wire.BAR4, flags=1))
    client.fence()


# --- header -------------------------------------------------------------------------------------------------------

def test_header_names_a_modern_virtio_block_device(function):
    config = function.config()
    vendor, device = struct.unpack_from("<HH", config, 0)
    assert (vendor, device) == (0x1AF4, 0x1042)
    assert config[pci.REVISION] >= 1, "revision 0 is the transitional device's"
    assert config[pci.CLASS + 2] == 0x01, "mass storage"
    assert config[pci.HEADER_TYPE] & 0x7F == 0
    assert struct.unpack_from("<H", config, pci.SUBSYS_ID)[0] >= 0x40
    assert config[pci.INT_PIN] == 1
    assert struct.unpack_from("<H", config, pci.STATUS)[0] & pci.STATUS_CAPS


def test_config_space_reads_the_same_in_every_size(client):
    whole = client.read_region(wire.CONFIG, 0, 4096)
    assert b"".join(client.read_region(wire.CONFIG, at, 1) for at in range(256)) == whole[:256]
    assert b"".join(client.read_region(wire.CONFIG, at, 2) for at in range(0, 256, 2)) == whole[:256]
    assert b"".join(client.read_region(wire.CONFIG, at, 4) for at in range(0, 4096, 4)) == whole
    assert client.read_region(wire.CONFIG, 1, 255) == whole[1:256]


def test_read_only_fields_of_the_header_ignore_writes(client, function):
    before = function.config(0, 64)
    for at in (*range(0, 4), *range(6, 12), *range(13, 16), *range(0x28, 0x30), 0x34, *range(0x35, 0x3C), 0x3D):
        client.write_region(wire.CONFIG, at, b"\xFF")
    after = function.config(0, 64)
    for at in (*range(0, 4), *range(8, 12), 14, *range(0x2C, 0x30), 0x34, 0x3D):
        assert after[at] == before[at], f"config byte {at:#x} was changed"


def test_command_and_interrupt_line_are_writable_and_reset_clears_command(client, function):
    function.set_command(pci.COMMAND_MEMORY | pci.COMMAND_MASTER | pci.COMMAND_INTX_DISABLE)
    function.write(pci.INT_LINE, 1, 0x0A)
    assert function.read(pci.COMMAND, 2) == pci.COMMAND_MEMORY | pci.COMMAND_MASTER | pci.COMMAND_INTX_DISABLE
    assert function.read(pci.INT_LINE, 1) == 0x0A
    function.write(pci.COMMAND, 2, 0xFFFF)
    assert function.read(pci.COMMAND, 2) & 0xF800 == 0, "reserved bits of the command register"
    client.reset()
    assert function.read(pci.COMMAND, 2) == 0


@pytest.mark.parametrize("bar, size, wide", [(0, 0, False), (1, None, False), (2, None, False), (3, 0, False),
                                             (4, 0x4000, True)])
def test_bar_sizing_by_config_space_agrees_with_the_regions(client, function, bar, size, wide):
    found, low, is_wide = function.size_bar(bar)
    assert found == client.region_info(bar).size
    if size is not None:
        assert found == size
    assert is_wide is wide
    assert low & 1 == 0, "memory BARs"


def test_bars_keep_addresses_and_hide_the_bits_below_their_size(client, function):
    function.write(pci.BAR + 16, 4, 0xFEDC_BA98)
    function.write(pci.BAR + 20, 4, 0x0000_0012)
    assert function.read(pci.BAR + 16, 4) & ~0xF == 0xFEDC_8000
    assert function.read(pci.BAR + 20, 4) == 0x12
    function.write(pci.BAR + 4, 4, 0xC123_4567)
    assert function.read(pci.BAR + 4, 4) & ~0xF == 0xC123_4567 & ~(client.region_info(1).size - 1)
    client.read_region(wire.BAR4, 0, 4)  # regions are reached by number, wherever the BAR points


def test_bar_sizing_in_bytes_and_words_works(function):
    for at in range(4):
        function.write(pci.BAR + 16 + at, 1, 0xFF)
    assert function.read(pci.BAR + 16, 4) & ~0xF == 0xFFFF_C000
    function.write(pci.BAR + 16, 2, 0)
    assert function.read(pci.BAR + 16, 4) & ~0xF == 0xFFFF_0000


# --- capabilities -----------------------------------------------------------------------------------------------

def test_capability_list_begins_with_msix_and_has_pm_pcie_and_five_vendor_ones(function):
    caps = function.capabilities()
    assert caps[0].id == pci.CAP_MSIX, f"first is {caps[0].id:#x}: Cloud Hypervisor walks to MSI-X on each config read"
    kinds = [cap.id for cap in caps]
    assert pci.CAP_PM in kinds and pci.CAP_PCIE in kinds
    vendor = [cap.raw[3] for cap in caps if cap.id == pci.CAP_VENDOR]
    assert sorted(vendor) == [virtio.CFG_COMMON, virtio.CFG_NOTIFY, virtio.CFG_ISR, virtio.CFG_DEVICE, virtio.CFG_PCI]
    assert all(cap.at % 4 == 0 for cap in caps)


def test_vendor_capabilities_point_to_the_documented_places(client):
    found = virtio.VirtioPci(client).discover().structures
    assert (found[virtio.CFG_COMMON].bar, found[virtio.CFG_COMMON].offset) == (4, 0x0000)
    assert (found[virtio.CFG_ISR].bar, found[virtio.CFG_ISR].offset) == (4, 0x1000)
    assert (found[virtio.CFG_DEVICE].bar, found[virtio.CFG_DEVICE].offset) == (4, 0x2000)
    assert (found[virtio.CFG_NOTIFY].bar, found[virtio.CFG_NOTIFY].offset) == (4, 0x3000)
    assert found[virtio.CFG_NOTIFY].multiplier == 4
    assert found[virtio.CFG_COMMON].length >= 56
    assert found[virtio.CFG_DEVICE].length >= blk.CONFIG_SIZE
    for where in found.values():
        if where.bar == 4:
            assert where.offset + where.length <= 0x4000 and where.offset % 4 == 0


def test_msix_table_and_pba_lie_in_bars_of_their_own_and_fit(client, function):
    vectors, table_bar, table, pba_bar, pba, _ = function.msix()
    assert (table_bar, pba_bar) == (1, 2)
    assert table % 4096 == 0 and pba % 4096 == 0
    assert table + 16 * vectors <= client.region_info(table_bar).size
    assert pba + (vectors + 63) // 64 * 8 <= client.region_info(pba_bar).size


def test_msix_control_lets_the_driver_write_enable_and_mask_only(function):
    at = function.capability(pci.CAP_MSIX).at + 2
    before = function.read(at, 2)
    function.write(at, 2, 0xFFFF)
    assert function.read(at, 2) == before | pci.MSIX_ENABLE | pci.MSIX_MASKALL
    function.write(at, 2, 0)
    assert function.read(at, 2) == before & 0x07FF


def test_pcie_capability_is_an_endpoint_without_wild_bits(function):
    cap = function.capability(pci.CAP_PCIE)
    flags = struct.unpack_from("<H", cap.raw, 2)[0]
    assert flags & 0xF in (1, 2), "capability version"
    assert flags >> 4 & 0xF in (0, 9), "endpoint, or integrated endpoint"


def test_power_management_state_can_be_written_and_read_back(function):
    cap = function.capability(pci.CAP_PM)
    assert struct.unpack_from("<H", cap.raw, 2)[0] & 7 in (2, 3)
    assert function.read(cap.at + 4, 2) & 3 == 0
    function.write(cap.at + 4, 2, 3)
    assert function.read(cap.at + 4, 2) & 3 in (0, 3)
    function.write(cap.at + 4, 2, 0)
    assert function.read(cap.at + 4, 2) & 3 == 0


def test_function_level_reset_by_the_pcie_capability_resets_the_device_if_it_is_announced(guest):
    cap = guest.pci.capability(pci.CAP_PCIE)
    if not struct.unpack_from("<I", cap.raw, 4)[0] >> 28 & 1:
        pytest.skip("no function-level reset is announced")
    guest.pci.write(cap.at + 8, 2, guest.pci.read(cap.at + 8, 2) | 0x8000)
    assert wait_until(lambda: guest.virtio.status == 0)
    guest.pci.set_command(6)
    guest.pci.enable_msix()
    guest.restart()
    guest.assert_works()


def test_config_window_reads_and_writes_the_bars(client):
    driver = virtio.VirtioPci(client).discover()
    at = driver.structures[virtio.CFG_PCI].at

    def window(offset, length):
        client.write_uint(wire.CONFIG, at + 4, 1, 4)
        client.write_uint(wire.CONFIG, at + 8, 4, offset)
        client.write_uint(wire.CONFIG, at + 12, 4, length)
    for offset, length in ((18, 2), (0x2000, 4), (0x2004, 4), (0x2014, 4), (0x2022, 2)):
        window(offset, length)
        assert client.read_uint(wire.CONFIG, at + 16, length) == client.read_uint(4, offset, length), hex(offset)
    window(20, 1)
    client.write_uint(wire.CONFIG, at + 16, 1, virtio.ACKNOWLEDGE)
    assert driver.status == virtio.ACKNOWLEDGE
    window(0, 4)
    client.write_uint(wire.CONFIG, at + 16, 4, 1)
    assert driver.get("device_feature_select") == 1


def test_config_window_can_notify(guest):
    request = guest.prepare(blk.T_IN, 0, length=512)
    guest.submit(request, kick=False)
    at = guest.virtio.structures[virtio.CFG_PCI].at
    guest.pci.write(at + 4, 1, 4)
    guest.pci.write(at + 8, 4, 0x3000)
    guest.pci.write(at + 12, 4, 2)
    guest.pci.write(at + 16, 2, 0)
    assert guest.finish(request).status == blk.S_OK


# --- interrupts ---------------------------------------------------------------------------------------------------

def test_msix_interrupts_go_to_the_vector_of_the_queue(serve):
    guest = serve("ram:16M", "--queues=4").guest(queues=4)
    for index in range(4):
        guest.read(0, 1, queue=index)
        assert guest.queue_events[index].wait()
        assert not any(event.pending() for event in [guest.config_event, *guest.queue_events])


def test_msix_two_queues_may_share_a_vector(serve):
    guest = serve("ram:16M", "--queues=2").guest(queues=2, driver_ok=False)
    guest.virtio.reset()
    assert guest.virtio.negotiate(USUAL_FEATURES)
    for index in range(2):
        guest.queues[index].clear()
        guest.virtio.setup_queue(index, guest.queues[index], vector=1)
    guest.virtio.driver_ok()
    for index in range(2):
        guest.read(0, 1, queue=index)
        assert guest.queue_events[0].wait()


def test_msix_vector_none_means_no_interrupt(guest):
    guest.virtio.set("queue_select", 0)
    guest.virtio.set("queue_msix_vector", virtio.NO_VECTOR)
    assert guest.virtio.get("queue_msix_vector") == virtio.NO_VECTOR
    guest.read(0, 1)
    assert not guest.queue_events[0].wait(0.05)


def test_msix_trigger_by_the_client_signals_its_own_eventfd(guest):
    """SET_IRQS with NONE or BOOL data and TRIGGER is a loopback test of VFIO."""
    guest.client.call(Cmd.SET_IRQS, wire.set_irqs(wire.IRQ_MSIX, wire.DATA_NONE | wire.ACTION_TRIGGER, 1, 1))
    assert guest.queue_events[0].wait()
    guest.client.call(Cmd.SET_IRQS, wire.set_irqs(wire.IRQ_MSIX, wire.DATA_BOOL | wire.ACTION_TRIGGER, 0, 2, b"\1\0"))
    assert guest.config_event.wait()
    assert not guest.queue_events[0].pending()


@pytest.mark.parametrize("flags", [0, wire.DATA_NONE, wire.ACTION_TRIGGER, wire.DATA_NONE | wire.DATA_BOOL | 32,
                                   wire.DATA_NONE | wire.ACTION_MASK | wire.ACTION_UNMASK, 1 << 6 | 33, 1 << 31 | 33,
                                   0xFFFFFFFF])
def test_set_irqs_wants_exactly_one_kind_of_data_and_one_action(client, flags):
    client.refused(Cmd.SET_IRQS, wire.set_irqs(wire.IRQ_MSIX, flags, 0, 1, b"\1"))
    client.fence()


def test_disabling_a_range_of_vectors_leaves_the_others(serve):
    """Another server's loop ends at count where start + count is meant."""
    guest = serve("ram:16M", "--queues=4").guest(queues=4)
    guest.client.call(Cmd.SET_IRQS, wire.set_irqs(wire.IRQ_MSIX, wire.DATA_EVENTFD | wire.ACTION_TRIGGER, 2, 2))
    for index in range(4):
        guest.read(0, 1, queue=index)
        assert bool(guest.queue_events[index].wait(0.5 if index in (0, 3) else 0.05)) is (index in (0, 3)), index


def test_disabling_msix_leaves_the_intx_eventfd(guest):
    intx = guest.event()
    guest.client.set_irq_eventfds(wire.IRQ_INTX, [intx])
    guest.client.disable_irqs(wire.IRQ_MSIX)
    guest.pci.enable_msix(False)
    guest.virtio.reset()
    guest._options["interrupts"] = "intx"
    guest.config_event = None
    guest.intx_event = intx
    guest.bring_up()
    guest.read(0, 1)
    assert intx.wait()


def test_intx_is_masked_by_itself_until_the_client_unmasks_it(server):
    guest = server.guest(interrupts="intx")
    guest.read(0, 1)
    assert guest.intx_event.wait()
    assert guest.virtio.isr() & 1
    assert guest.virtio.isr() == 0, "reading ISR clears it"
    guest.read(0, 1)
    assert not guest.intx_event.wait(0.05), "INTx fired again before UNMASK"
    guest.client.unmask_irq(wire.IRQ_INTX)
    assert guest.intx_event.wait(), "the level is still high: UNMASK has to fire"
    assert guest.virtio.isr() & 1
    guest.client.unmask_irq(wire.IRQ_INTX)
    assert not guest.intx_event.wait(0.05), "the level is low: nothing may fire"
    guest.read(0, 1)
    assert guest.intx_event.wait()


def test_intx_masked_by_the_client_stays_silent(server):
    guest = server.guest(interrupts="intx")
    guest.client.mask_irq(wire.IRQ_INTX)
    guest.read(0, 1)
    assert not guest.intx_event.wait(0.05)
    guest.client.unmask_irq(wire.IRQ_INTX)
    assert guest.intx_event.wait()


def test_intx_disabled_in_the_command_register_stays_silent(server):
    guest = server.guest(interrupts="intx")
    guest.pci.set_command(pci.COMMAND_MEMORY | pci.COMMAND_MASTER | pci.COMMAND_INTX_DISABLE)
    guest.read(0, 1)
    assert not guest.intx_event.wait(0.05)
    assert guest.pci.read(pci.STATUS, 2) & pci.STATUS_INTX, "the status shows the pending interrupt all the same"


def test_intx_for_the_configuration_sets_the_second_isr_bit(serve, workdir):
    image = workdir.file("disk", 1 << 20)
    server = serve(image)
    guest = server.guest(interrupts="intx")
    os.truncate(image, 2 << 20)
    server.signal(signal.SIGHUP)
    assert guest.intx_event.wait()
    assert guest.virtio.isr() & 2
