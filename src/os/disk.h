// SPDX-License-Identifier: BSD-3-Clause
// Disk images and block devices: opening them, their size and shape, and locking them against other
// processes.
#pragma once

#include <sidecard/error.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sdc_disk_shape {
    bool block_device;
    uint64_t size;                // bytes
    uint32_t logical_block_size;  // bytes: of a block device; 512 for files
    uint32_t physical_block_size; // bytes: of the device, or the file system's blocks
    uint32_t optimal_io_size;     // bytes, 0: unknown
    uint32_t discard_granularity; // bytes, 0: cannot discard
    bool discard_zeroes;          // holes can be made, which read as zeroes: of a file that is open for writing
    uint32_t direct_offset_align; // bytes: offsets and lengths of direct I/O; 0: no direct I/O asked for
    uint32_t direct_memory_align; // bytes: addresses
};

// Opens a regular file or block device, close-on-exec. The fd or a negative errno, with *err filled.
int sdc_disk_open(const char *path, bool read_only, struct sdc_error *err);
// Switches fd to direct I/O. 0, -EINVAL when the file system has none, or another negative errno.
int sdc_disk_set_direct(int fd);
// Measures. Alignments are those of direct I/O if fd is switched to it. 0 or a negative errno.
int sdc_disk_measure(int fd, struct sdc_disk_shape *shape);
// Bytes, as of now.
int sdc_disk_size(int fd, uint64_t *size);
// Reads up to size bytes at offset. Before direct I/O. Bytes or a negative errno.
int64_t sdc_disk_peek(int fd, uint64_t offset, void *buffer, size_t size);

// Locks size bytes at offset, with size 0 all that is there or will be: for writing (nobody else may have any of it locked) or for
// reading (nobody else for writing). It belongs to the open file, so it ends with unlock, or when the kernel has finished with the last
// reference to that. 0, -EAGAIN (another process, or another open file, has it), or a negative errno (the file system keeps no locks).
int sdc_disk_lock(int fd, uint64_t offset, uint64_t size, bool writing);
void sdc_disk_unlock(int fd, uint64_t offset, uint64_t size);

// size bytes of zeroes that cannot be written to, page-aligned. They take no memory. Ends with sdc_unmap.
int sdc_disk_map_zeroes(size_t size, void **base);
// size bytes of our own memory, page-aligned. Ends with sdc_unmap.
int sdc_disk_map_buffer(size_t size, void **base);
