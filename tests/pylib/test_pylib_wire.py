# SPDX-License-Identifier: BSD-3-Clause
"""The message builders against byte counts of the specification."""

import struct

import pytest

from . import blk, wire
from .wire import Cmd


def test_header_is_sixteen_bytes_in_the_order_of_the_specification():
    raw = wire.pack(Cmd.DMA_MAP, b"ab", msg_id=0x1234, flags=wire.NO_REPLY, errno=5)
    assert raw == struct.pack("<HHIII", 0x1234, 2, 18, 0x10, 5) + b"ab"


def test_header_can_lie_about_its_size():
    assert wire.unpack_header(wire.pack(Cmd.VERSION, b"xyz", size=7)[:16]).size == 7


@pytest.mark.parametrize("payload, size", [
    (wire.version(), 4), (wire.dma_map(0, 0), 32), (wire.dma_unmap(0, 0), 24), (wire.device_info(), 16),
    (wire.region_info(0), 32), (wire.region_io_fds(0), 16), (wire.irq_info(0), 16),
    (wire.set_irqs(0, 0, 0, 0), 20), (wire.region_read(0, 0, 0), 16), (wire.region_write(0, 0, b"123"), 19),
    (wire.region_write_multi([(0, 0, b"1")]), 32), (wire.dma_rw_reply(1, 2), 16), (wire.device_feature(1), 8),
])
def test_payloads_have_the_sizes_of_the_specification(payload, size):
    assert len(payload) == size


def test_version_without_capabilities_has_no_json_and_with_them_ends_in_nul():
    assert wire.version(None, major=1, minor=2) == b"\1\0\2\0"
    assert wire.version({}).endswith(b'{"capabilities": {}}\0')
    assert len(wire.QEMU_CAPS_TEXT) + 4 + wire.HEADER_SIZE == 214


def test_values_beyond_64_bits_wrap_as_a_hostile_client_would_send_them():
    assert wire.dma_map(-1, -4096)[16:] == struct.pack("<QQ", 2**64 - 1, 2**64 - 4096)


def test_replies_are_parsed_field_by_field():
    assert wire.parse_device_info(struct.pack("<IIII", 16, 3, 9, 5)) == wire.DeviceInfo(16, 3, 9, 5)
    info = wire.parse_region_info(struct.pack("<IIIIQQ", 32, 3, 4, 0, 0x4000, 0))
    assert (info.index, info.size, info.flags) == (4, 0x4000, 3)
    assert wire.parse_irq_info(struct.pack("<IIII", 16, 1, 2, 9)).count == 9


def test_block_structures_have_the_sizes_of_virtio():
    assert len(blk.header(blk.T_OUT, 5)) == 16
    assert len(blk.discard_segment(1, 2)) == 16
    assert blk.CONFIG_SIZE == 60
    raw = bytearray(60)
    struct.pack_into("<H", raw, 34, 7)
    struct.pack_into("<I", raw, 36, 99)
    raw[32], raw[56] = 1, 1
    config = blk.parse_config(bytes(raw))
    assert (config.num_queues, config.max_discard_sectors, config.writeback) == (7, 99, 1)
    assert config.write_zeroes_may_unmap == 1
