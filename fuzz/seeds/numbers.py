# SPDX-License-Identifier: BSD-3-Clause
"""Little-endian numbers as bytes."""

import struct


def u8(value):
    return struct.pack("<B", value & 0xff)


def u16(value):
    return struct.pack("<H", value & 0xffff)


def u32(value):
    return struct.pack("<I", value & 0xffffffff)


def u64(value):
    return struct.pack("<Q", value & (1 << 64) - 1)
