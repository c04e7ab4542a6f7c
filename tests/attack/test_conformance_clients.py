# SPDX-License-Identifier: BSD-3-Clause
"""Single things that clients in the field rely on. Their whole connections, byte for byte, are in test_replays.py."""

import errno
import json
import os
import socket
import struct

import pytest

from pylib import wire
from pylib.client import Client
from pylib.memory import GuestMemory
from pylib.wire import Cmd

# --- QEMU -----------------------------------------------------------------------------------------------------

@pytest.fixture
def qemu(server):
    """A client after QEMU 11.1's VERSION."""
    client = server.connect()
    client.handshake(text=wire.QEMU_CAPS_TEXT)
    return client


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


# --- Cloud Hypervisor ---------------------------------------------------------------------------------------------

@pytest.fixture
def hypervisor(server):
    """A client after Cloud Hypervisor's VERSION: minor 1, no pgsizes."""
    client = server.connect()
    client.handshake(minor=1, text=wire.CH_CAPS_TEXT)
    return client


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


# --- others ---------------------------------------------------------------------------------------------------------

def test_polling_driver_without_any_interrupt_works(server):
    guest = server.guest(interrupts=None)
    guest.write(0, b"\x01" * 512)
    assert guest.read(0, 1) == b"\x01" * 512


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
