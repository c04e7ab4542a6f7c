# SPDX-License-Identifier: BSD-3-Clause
"""What the clients in the field send, in their order and with their quirks: QEMU, Cloud Hypervisor, SPDK."""

import errno
import json
import os
import socket
import struct

import pytest

from pylib import blk, pci, virtio, wire
from pylib.client import Client
from pylib.memory import GuestMemory
from pylib.vm import BASE, Guest
from pylib.wire import Cmd

RAM = 4 << 20


# --- QEMU -----------------------------------------------------------------------------------------------------

@pytest.fixture
def qemu(server):
    """A client after QEMU 11.1's VERSION."""
    client = server.connect()
    client.handshake(text=wire.QEMU_CAPS_TEXT)
    return client


def test_qemu_version_reply_is_0_0_and_no_longer_than_the_request(server):
    client = server.connect()
    msg_id = client.send(Cmd.VERSION, wire.version(text=wire.QEMU_CAPS_TEXT))
    reply = client.reply_to(msg_id)
    assert reply.size <= 214, f"{reply.size} bytes: QEMU says 'reply larger than recv buffer'"
    major, minor, text = wire.parse_version(reply.payload)
    assert (major, minor) == (0, 0)
    assert text.endswith(b"\0")
    capabilities = json.loads(text[:-1])["capabilities"]
    assert capabilities["max_msg_fds"] == 16
    assert 4096 < capabilities.get("max_data_xfer_size", 1 << 20) <= 64 << 20
    assert set(capabilities) <= {"pgsizes", "max_msg_fds", "max_dma_maps", "max_data_xfer_size", "migration",
                                 "write_multiple"}


def test_qemu_order_of_messages_from_realize_to_a_running_guest(server):
    client = server.connect()
    guest = Guest(client)
    server.handed_out.append(guest)
    client.handshake(text=wire.QEMU_CAPS_TEXT)
    memory = GuestMemory(16 << 20)
    guest.memories.append(memory)
    # 2: all of memory at once, pipelined, some of it without an fd (ROMs, flash), some read-only.
    maps = [(0, 0xA0000, 0, 3, True), (0xC0000, 0x10000, 0xC0000, 1, True), (0x100000, 15 << 20, 0x100000, 3, True),
            (0xFFFC0000, 0x40000, 0, 1, False)]
    for number, (addr, size, offset, flags, with_fd) in enumerate(maps):
        client.send(Cmd.DMA_MAP, wire.dma_map(addr, size, offset=offset, flags=flags),
                    fds=[memory.fd] if with_fd else [], msg_id=100 + number)
    for number in range(len(maps)):
        reply = client.recv()
        assert (reply.msg_id, reply.is_error, reply.size) == (100 + number, False, 16)
    # 3, 4, 5: information.
    info = client.device_info()
    assert (info.num_regions, info.num_irqs) == (9, 5)
    sizes = {index: client.region_info(index).size for index in (0, 1, 2, 3, 4, 5, 7)}
    assert sizes[7] == 4096
    client.irq_info(wire.IRQ_ERR)
    # 6: the whole config space in one message, then words of it.
    config = client.read_region(wire.CONFIG, 0, 4096)
    assert config[:4] == bytes.fromhex("f41a4210")
    client.write_uint(wire.CONFIG, pci.ROM_BAR, 4, 0xFFFFF800)
    assert client.read_uint(wire.CONFIG, pci.ROM_BAR, 4) == 0, "a ROM BAR without a ROM"
    client.write_uint(wire.CONFIG, pci.ROM_BAR, 4, 0)
    for bar in range(6):
        client.read_uint(wire.CONFIG, pci.BAR + 4 * bar, 4)
    # 7, 8: interrupts.
    assert client.irq_info(wire.IRQ_MSIX).count == 2
    if client.read_uint(wire.CONFIG, pci.INT_PIN, 1):
        guest.connect_interrupts("intx", 0)
    if client.irq_info(wire.IRQ_ERR).count:
        client.set_irq_eventfds(wire.IRQ_ERR, [guest.event()])
    # 9: machine reset.
    client.disable_irqs(wire.IRQ_INTX)
    client.write_uint(wire.CONFIG, pci.COMMAND, 2, 0)
    assert info.flags & wire.INFO_RESET
    client.reset()
    client.set_irq_eventfds(wire.IRQ_INTX, [guest.intx_event])
    for bar in range(6):
        client.write_uint(wire.CONFIG, pci.BAR + 4 * bar, 4, 0)
    # 10: the firmware's PAM games: one region becomes several and comes back.
    client.dma_unmap(0xC0000, 0x10000)
    client.dma_map(0xC0000, 0x10000, fd=memory.fd, offset=0xC0000, flags=3)
    client.dma_unmap(0xC0000, 0x10000)
    client.dma_map(0xC0000, 0x8000, fd=memory.fd, offset=0xC0000, flags=1)
    client.dma_map(0xC8000, 0x8000, fd=memory.fd, offset=0xC8000, flags=3)
    # 11: the guest's driver: MSI-X a vector at a time, posted notifications.
    client.disable_irqs(wire.IRQ_INTX)
    guest.intx_event = None
    vectors = [guest.event(), guest.event()]
    guest.virtio.discover()
    guest.pci.set_command(pci.COMMAND_MEMORY | pci.COMMAND_MASTER | pci.COMMAND_INTX_DISABLE)
    guest.pci.enable_msix()
    for _ in range(3):
        client.set_irq_eventfds(wire.IRQ_MSIX, vectors[:1], start=0)
    client.set_irq_eventfds(wire.IRQ_MSIX, vectors[1:], start=1)
    guest.config_event, guest.queue_events = vectors[0], vectors[1:]
    guest.space.add(0x100000, 15 << 20, memory, offset=0x100000)
    guest._options = {"features": virtio.F_VERSION_1 | blk.F_FLUSH, "queues": 1, "queue_size": 64, "interrupts": "msix"}
    guest.bring_up()
    request = guest.prepare(blk.T_IN, 0, length=512)
    guest.submit(request, kick=False)
    guest.kick(posted=True)
    assert guest.finish(request).status == blk.S_OK
    assert vectors[1].wait()
    # The driver leaves: NONE, count 0.
    client.disable_irqs(wire.IRQ_MSIX)
    client.fence()


def test_qemu_posted_bar_writes_get_no_reply(server):
    client = server.connect()
    client.handshake(text=wire.QEMU_CAPS_TEXT)
    for _ in range(20):
        client.write_uint(wire.BAR4, 0x3000, 2, 0, posted=True)
        client.write_uint(wire.BAR4, 22, 2, 0, posted=True)
    client.fence()


def test_qemu_write_multi_is_served_if_it_was_promised_and_refused_if_not(qemu):
    promised = json.loads(wire.parse_version(qemu.handshake_reply)[2][:-1])["capabilities"].get("write_multiple", False)
    writes = [(wire.BAR4, 8, struct.pack("<I", 1)), (wire.BAR4, 0, struct.pack("<I", 1))]
    reply = qemu.exchange(Cmd.REGION_WRITE_MULTI, wire.region_write_multi(writes))
    assert reply.is_error is not promised
    if promised:
        assert reply.payload == struct.pack("=Q", 2)
        assert qemu.read_uint(wire.BAR4, 0, 4) == 1 and qemu.read_uint(wire.BAR4, 8, 4) == 1
        qemu.send(Cmd.REGION_WRITE_MULTI, wire.region_write_multi(writes), flags=wire.NO_REPLY)
    qemu.fence()


def test_qemu_pending_input_is_read_out_before_the_close(server):
    """ECONNRESET makes QEMU abort: also when the server is told to end while requests are on their way."""
    client = server.connect()
    client.handshake(text=wire.QEMU_CAPS_TEXT)
    client.send_bytes(wire.pack(Cmd.GET_INFO, wire.device_info()) * 50)
    assert server.stop() == 0
    client.dropped()


def test_qemu_without_shared_memory_maps_all_of_it_without_fds(qemu):
    for addr, size, flags in ((0, 0xA0000, 3), (0x100000, 1 << 30, 3), (0xFFFC0000, 0x40000, 1), (1 << 32, 1 << 36, 3)):
        qemu.dma_map(addr, size, flags=flags)
    qemu.fence()


# --- Cloud Hypervisor ---------------------------------------------------------------------------------------------

@pytest.fixture
def hypervisor(server):
    """A client after Cloud Hypervisor's VERSION: minor 1, no pgsizes."""
    client = server.connect()
    client.handshake(minor=1, text=wire.CH_CAPS_TEXT)
    return client


def test_ch_version_reply_has_capabilities_and_a_nul(server):
    client = server.connect()
    major, minor, text = client.handshake(minor=1, text=wire.CH_CAPS_TEXT)
    assert major == 0 and minor in (0, 1)
    assert text.endswith(b"\0")
    capabilities = json.loads(text[:-1])["capabilities"]
    for key, value in capabilities.items():
        assert key in ("max_msg_fds", "max_data_xfer_size", "migration")
        if key == "migration":
            assert "pgsize" in value
        else:
            assert 0 < value <= wire.U32_MAX


def test_ch_device_info_with_argsz_32_is_answered_by_16_bytes(hypervisor):
    payload = hypervisor.call(Cmd.GET_INFO, wire.device_info(argsz=32))
    info = wire.parse_device_info(payload)
    assert info.flags & wire.INFO_PCI


def test_ch_region_info_replies_are_exactly_48_bytes(hypervisor):
    for index in range(wire.NUM_REGIONS):
        reply = hypervisor.exchange(Cmd.GET_REGION_INFO, wire.region_info(index))
        assert not reply.is_error and reply.size == 48 and not reply.fds
        info = wire.parse_region_info(reply.payload)
        assert info.argsz == 32 and not info.flags & wire.REGION_CAPS, "no region of a sleeping card is mappable"


def test_ch_intx_count_is_zero_and_others_get_one(server, hypervisor):
    assert hypervisor.irq_info(wire.IRQ_INTX).count == 0
    assert hypervisor.irq_info(wire.IRQ_MSIX).count == 2
    hypervisor.close()
    assert server.client().irq_info(wire.IRQ_INTX).count == 1


PADDED = {
    "region read past the end": (Cmd.REGION_READ, wire.region_read(wire.CONFIG, 5000, 4), 16 + 16 + 4),
    "region read of an unknown region": (Cmd.REGION_READ, wire.region_read(77, 0, 8), 16 + 16 + 8),
    "region write past the end": (Cmd.REGION_WRITE, wire.region_write(wire.BAR4, 1 << 20, b"1234"), 32),
    "unmap of nothing": (Cmd.DMA_UNMAP, wire.dma_unmap(0x1000, 0x1000), 40),
    "device info with a small argsz": (Cmd.GET_INFO, wire.device_info(argsz=4), 32),
    "interrupt info out of range": (Cmd.GET_IRQ_INFO, wire.irq_info(9), 32),
    "region info out of range": (Cmd.GET_REGION_INFO, wire.region_info(99), 48),
}


@pytest.mark.parametrize("name", sorted(PADDED))
def test_ch_error_replies_are_padded_to_the_size_of_the_good_one(hypervisor, name):
    """Its read_exact would wait for the rest for ever, with the client's lock held."""
    cmd, payload, size = PADDED[name]
    reply = hypervisor.exchange(cmd, payload)
    hypervisor.check_refusal(reply, padded=True)
    assert reply.size == size
    hypervisor.fence()


@pytest.mark.parametrize("name", sorted(PADDED))
def test_ch_padding_is_for_ch_only(client, name):
    cmd, payload, _ = PADDED[name]
    client.refused(cmd, payload)


def test_ch_error_replies_without_a_payload_stay_a_header(hypervisor):
    hypervisor.refused(Cmd.DMA_MAP, wire.dma_map(1, 1))
    hypervisor.refused(Cmd.SET_IRQS, wire.set_irqs(9, wire.DATA_NONE | wire.ACTION_TRIGGER, 0, 0))
    hypervisor.fence()


@pytest.mark.parametrize("minor, text, is_ch", [
    (0, wire.CH_CAPS_TEXT, False),
    (1, b'{"capabilities":{"pgsizes":4096,"max_msg_fds":1}}\0', False),
    (1, b'{"capabilities":{"max_msg_fds":1}}\0', True),
])
def test_ch_is_known_by_minor_1_without_pgsizes(server, minor, text, is_ch):
    client = server.connect()
    client.handshake(minor=minor, text=text)
    assert (client.irq_info(wire.IRQ_INTX).count == 0) is is_ch


def test_ch_whole_life_of_a_device(server):
    """Its order: info, regions, resets if the flag says no (inverted), config walk, maps, BAR sizing, all vectors."""
    client = server.connect()
    guest = Guest(client)
    server.handed_out.append(guest)
    client.handshake(minor=1, text=wire.CH_CAPS_TEXT)
    info = wire.parse_device_info(client.call(Cmd.GET_INFO, wire.device_info(argsz=32)))
    for index in range(info.num_regions):
        client.region_info(index)
    client.reset()
    guest.virtio.discover()
    assert client.read_uint(wire.CONFIG, 0x100, 4) in (0,), "CH walks extended capabilities without a loop guard"
    count = client.irq_info(wire.IRQ_MSIX).count
    guest.add_memory(BASE, RAM)
    for bar in range(6):
        guest.pci.size_bar(bar)
    guest.pci.set_command(pci.COMMAND_MEMORY | pci.COMMAND_MASTER)
    guest.connect_interrupts("msix", count - 1)
    guest._options = {"features": virtio.F_VERSION_1, "queues": 1, "queue_size": 64, "interrupts": "msix"}
    guest.bring_up()
    guest.assert_works()
    client.disable_irqs(wire.IRQ_MSIX)
    assert client.exchange(Cmd.DMA_UNMAP, wire.dma_unmap(BASE, RAM)).size == 40
    client.sock.shutdown(socket.SHUT_RDWR)


def test_ch_sends_sixteen_eventfds_although_it_was_told_less(serve):
    """max_msg_fds 1 in its proposal; batches of 16 all the same."""
    server = serve("ram:16M", "--queues=31")
    client = server.connect()
    client.handshake(minor=1, text=wire.CH_CAPS_TEXT)
    assert client.irq_info(wire.IRQ_MSIX).count == 32
    guest = Guest(client)
    server.handed_out.append(guest)
    events = [guest.event() for _ in range(32)]
    client.set_irq_eventfds(wire.IRQ_MSIX, events[:16], start=0)
    client.set_irq_eventfds(wire.IRQ_MSIX, events[16:], start=16)


# --- SPDK ---------------------------------------------------------------------------------------------------------

def test_spdk_speaks_without_json_with_id_zero_and_argsz_4064(server):
    client = server.connect()
    raw = wire.pack(Cmd.VERSION, wire.version(None), msg_id=0)
    assert len(raw) == 20
    client.send_bytes(raw)
    reply = client.recv()
    assert not reply.is_error and reply.msg_id == 0 and reply.size < 4096
    for index in range(wire.NUM_REGIONS):
        payload = wire.region_info(index, argsz=4064).ljust(4064, b"\0")
        client.send_bytes(wire.pack(Cmd.GET_REGION_INFO, payload, msg_id=0))
        reply = client.recv()
        assert not reply.is_error and reply.size <= 16 + 4064
        assert wire.parse_region_info(reply.payload).index == index
    client.fence()


def test_spdk_maps_and_unmaps_with_an_fd_each(server):
    guest = server.guest(handshake={"capabilities": None})
    with GuestMemory(RAM) as memory:
        addr = 0x7F00_0000_0000
        guest.client.call(Cmd.DMA_MAP, wire.dma_map(addr, RAM), fds=[memory.fd])
        payload = guest.client.call(Cmd.DMA_UNMAP, wire.dma_unmap(addr, RAM), fds=[memory.fd])
        assert len(payload) == 24
    guest.assert_works()


def test_spdk_gets_every_reply_in_one_read(server):
    """It reads the header, and then the payload by one read() without a loop."""
    client = server.client()
    for _ in range(50):
        client.send(Cmd.REGION_READ, wire.region_read(wire.CONFIG, 0, 4096), msg_id=0)
        assert len(client.sock.recv(16, socket.MSG_WAITALL)) == 16
        assert len(client.sock.recv(16 + 4096)) == 16 + 4096


def test_polling_driver_without_any_interrupt_works(server):
    guest = server.guest(interrupts=None)
    guest.write(0, b"\x01" * 512)
    assert guest.read(0, 1) == b"\x01" * 512


# --- others ---------------------------------------------------------------------------------------------------------

def test_unknown_or_reserved_map_flags_are_refused_and_mmap_with_an_fd_is_accepted(client):
    with GuestMemory(0x10000) as memory:
        client.dma_map(0x10000, 0x10000, fd=memory.fd, flags=wire.MAP_RW | wire.MAP_MMAP)
        client.refused(Cmd.DMA_MAP, wire.dma_map(0x20000, 0x10000, flags=wire.MAP_RW | wire.MAP_FILE_IO),
                       fds=[memory.fd], errnos=(errno.ENOTSUP,))
        client.refused(Cmd.DMA_MAP, wire.dma_map(0x20000, 0x10000, flags=wire.MAP_RW | 16), fds=[memory.fd])


def test_client_through_a_socketpair_is_no_different_from_one_through_a_path(server):
    """A client that got its connected socket from somebody else (libvirt passes fds)."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(str(server.path))
    passed = socket.socket(fileno=os.dup(sock.fileno()))
    sock.close()
    client = Client(passed)
    server.handed_out.append(client)
    client.handshake()
    client.fence()
