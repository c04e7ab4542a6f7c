# SPDX-License-Identifier: BSD-3-Clause
"""virtio-blk's request header, statuses, features and configuration (virtio 1.2, section 5.2)."""

import struct
from dataclasses import dataclass

SECTOR = 512

T_IN = 0
T_OUT = 1
T_FLUSH = 4
T_GET_ID = 8
T_DISCARD = 11
T_WRITE_ZEROES = 13

S_OK = 0
S_IOERR = 1
S_UNSUPP = 2
NOT_SET = 0xEE  # what we put into the status byte beforehand

F_SIZE_MAX = 1 << 1
F_SEG_MAX = 1 << 2
F_GEOMETRY = 1 << 4
F_RO = 1 << 5
F_BLK_SIZE = 1 << 6
F_FLUSH = 1 << 9
F_TOPOLOGY = 1 << 10
F_CONFIG_WCE = 1 << 11
F_MQ = 1 << 12
F_DISCARD = 1 << 13
F_WRITE_ZEROES = 1 << 14

ID_BYTES = 20
WZ_UNMAP = 1


def header(kind, sector=0, ioprio=0):
    return struct.pack("<IIQ", kind & 0xFFFFFFFF, ioprio, sector & (2**64 - 1))


def discard_segment(sector, count, flags=0):
    return struct.pack("<QII", sector & (2**64 - 1), count & 0xFFFFFFFF, flags)


@dataclass
class Config:
    capacity: int
    size_max: int
    seg_max: int
    cylinders: int
    heads: int
    sectors: int
    blk_size: int
    physical_block_exp: int
    alignment_offset: int
    min_io_size: int
    opt_io_size: int
    writeback: int
    num_queues: int
    max_discard_sectors: int
    max_discard_seg: int
    discard_sector_alignment: int
    max_write_zeroes_sectors: int
    max_write_zeroes_seg: int
    write_zeroes_may_unmap: int


CONFIG = struct.Struct("<QIIHBBIBBHIBxHIIIIIB3x")
CONFIG_SIZE = CONFIG.size
OFF_CAPACITY = 0
OFF_WRITEBACK = 32


def parse_config(data):
    return Config(*CONFIG.unpack(data[:CONFIG_SIZE]))
