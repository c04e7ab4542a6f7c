// SPDX-License-Identifier: BSD-3-Clause
// A virtio disk as it lies in its configuration space and in memory: bits, offsets and numbers of virtio 1.2, section 5.2. Everything is
// little-endian. Nothing here makes a system call.
#pragma once

#include <stdint.h>

enum {
    SDC_VIRTIO_BLK_SECTOR = 512, // bytes: the unit of addresses, whatever the block size
};

// --- features (5.2.3) ---

#define SDC_VIRTIO_BLK_F_SIZE_MAX     (UINT64_C(1) << 1)
#define SDC_VIRTIO_BLK_F_SEG_MAX      (UINT64_C(1) << 2)
#define SDC_VIRTIO_BLK_F_RO           (UINT64_C(1) << 5)
#define SDC_VIRTIO_BLK_F_BLK_SIZE     (UINT64_C(1) << 6)
#define SDC_VIRTIO_BLK_F_FLUSH        (UINT64_C(1) << 9)
#define SDC_VIRTIO_BLK_F_TOPOLOGY     (UINT64_C(1) << 10)
#define SDC_VIRTIO_BLK_F_CONFIG_WCE   (UINT64_C(1) << 11)
#define SDC_VIRTIO_BLK_F_MQ           (UINT64_C(1) << 12)
#define SDC_VIRTIO_BLK_F_DISCARD      (UINT64_C(1) << 13)
#define SDC_VIRTIO_BLK_F_WRITE_ZEROES (UINT64_C(1) << 14)

// --- the configuration space (5.2.4): offsets ---

enum {
    SDC_VIRTIO_BLK_CAPACITY = 0, // 8 bytes, sectors
    SDC_VIRTIO_BLK_SIZE_MAX = 8,
    SDC_VIRTIO_BLK_SEG_MAX = 12,
    SDC_VIRTIO_BLK_BLK_SIZE = 20,
    SDC_VIRTIO_BLK_PHYSICAL_BLOCK_EXP = 24, // 1 byte
    SDC_VIRTIO_BLK_MIN_IO_SIZE = 26,        // 2 bytes, blocks
    SDC_VIRTIO_BLK_OPT_IO_SIZE = 28,        // blocks
    SDC_VIRTIO_BLK_WRITEBACK = 32,          // 1 byte
    SDC_VIRTIO_BLK_NUM_QUEUES = 34,         // 2 bytes
    SDC_VIRTIO_BLK_MAX_DISCARD_SECTORS = 36,
    SDC_VIRTIO_BLK_MAX_DISCARD_SEG = 40,
    SDC_VIRTIO_BLK_DISCARD_ALIGNMENT = 44, // sectors
    SDC_VIRTIO_BLK_MAX_WRITE_ZEROES_SECTORS = 48,
    SDC_VIRTIO_BLK_MAX_WRITE_ZEROES_SEG = 52,
    SDC_VIRTIO_BLK_WRITE_ZEROES_MAY_UNMAP = 56, // 1 byte
    SDC_VIRTIO_BLK_CONFIG_SIZE = 60,
};

// --- requests (5.2.6): a header, data, and a status byte at the end of what the device writes ---

enum sdc_virtio_blk_type {
    SDC_VIRTIO_BLK_T_IN = 0,
    SDC_VIRTIO_BLK_T_OUT = 1,
    SDC_VIRTIO_BLK_T_FLUSH = 4,
    SDC_VIRTIO_BLK_T_GET_ID = 8,
    SDC_VIRTIO_BLK_T_DISCARD = 11,
    SDC_VIRTIO_BLK_T_WRITE_ZEROES = 13,
};

enum {
    SDC_VIRTIO_BLK_S_OK = 0,
    SDC_VIRTIO_BLK_S_IOERR = 1,
    SDC_VIRTIO_BLK_S_UNSUPP = 2,
};

enum {
    SDC_VIRTIO_BLK_HEADER = 16,   // bytes: type, reserved (4 each), sector (8)
    SDC_VIRTIO_BLK_RANGE = 16,    // bytes of a segment of DISCARD and WRITE_ZEROES: sector (8), sectors, flags (4 each)
    SDC_VIRTIO_BLK_UNMAP = 1,     // the flag of a segment
    SDC_VIRTIO_BLK_ID_BYTES = 20, // that GET_ID brings
};
