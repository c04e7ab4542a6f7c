// SPDX-License-Identifier: BSD-3-Clause
// The messages of vfio-user as they lie in a stream: host-endian structures, as the specification has them
// (docs/interop/vfio-user.rst in QEMU), and the numbers in them. Nothing here makes a system call.
#pragma once

#include <assert.h>
#include <stdint.h>

enum sdc_vfu_command {
    SDC_VFU_VERSION = 1,
    SDC_VFU_DMA_MAP = 2,
    SDC_VFU_DMA_UNMAP = 3,
    SDC_VFU_GET_INFO = 4,
    SDC_VFU_GET_REGION_INFO = 5,
    SDC_VFU_GET_REGION_IO_FDS = 6,
    SDC_VFU_GET_IRQ_INFO = 7,
    SDC_VFU_SET_IRQS = 8,
    SDC_VFU_REGION_READ = 9,
    SDC_VFU_REGION_WRITE = 10,
    SDC_VFU_DMA_READ = 11,
    SDC_VFU_DMA_WRITE = 12,
    SDC_VFU_RESET = 13,
    SDC_VFU_REGION_WRITE_MULTI = 15,
    SDC_VFU_DEVICE_FEATURE = 16,
    SDC_VFU_MIG_DATA_READ = 17,
    SDC_VFU_MIG_DATA_WRITE = 18,
    SDC_VFU_COMMANDS, // one past the last
};

// sdc_vfu_header.flags
enum {
    SDC_VFU_TYPE_MASK = 0xf,
    SDC_VFU_TYPE_COMMAND = 0,
    SDC_VFU_TYPE_REPLY = 1,
    SDC_VFU_NO_REPLY = 1 << 4,
    SDC_VFU_ERROR = 1 << 5,
    SDC_VFU_FLAGS_KNOWN = SDC_VFU_TYPE_MASK | SDC_VFU_NO_REPLY | SDC_VFU_ERROR,
};

struct sdc_vfu_header {
    uint16_t msg_id; // the sender's; may repeat
    uint16_t cmd;    // enum sdc_vfu_command
    uint32_t msg_size; // bytes, with this header
    uint32_t flags;
    uint32_t error; // errno, if flags has ERROR
};
static_assert(sizeof(struct sdc_vfu_header) == 16, "as on the wire");

// VERSION, both ways; JSON text with a NUL follows, or nothing.
struct sdc_vfu_version {
    uint16_t major;
    uint16_t minor;
};
static_assert(sizeof(struct sdc_vfu_version) == 4, "as on the wire");

enum {
    SDC_VFU_MAP_READ = 1 << 0,
    SDC_VFU_MAP_WRITE = 1 << 1,
    SDC_VFU_MAP_MMAP = 1 << 2,    // not in the specification: sent by libvfio-user's clients
    SDC_VFU_MAP_FILE_IO = 1 << 3, // likewise
};

struct sdc_vfu_dma_map {
    uint32_t argsz;
    uint32_t flags;
    uint64_t offset; // bytes into the fd
    uint64_t address;
    uint64_t size; // bytes
};
static_assert(sizeof(struct sdc_vfu_dma_map) == 32, "as on the wire");

enum {
    SDC_VFU_UNMAP_DIRTY_BITMAP = 1 << 0,
    SDC_VFU_UNMAP_ALL = 1 << 1,
};

struct sdc_vfu_dma_unmap {
    uint32_t argsz;
    uint32_t flags;
    uint64_t address;
    uint64_t size; // bytes
};
static_assert(sizeof(struct sdc_vfu_dma_unmap) == 24, "as on the wire");

enum {
    SDC_VFU_DEVICE_RESET = 1 << 0,
    SDC_VFU_DEVICE_PCI = 1 << 1,
};

struct sdc_vfu_device_info {
    uint32_t argsz;
    uint32_t flags;
    uint32_t num_regions;
    uint32_t num_irqs;
};
static_assert(sizeof(struct sdc_vfu_device_info) == 16, "as on the wire");

enum {
    SDC_VFU_REGION_READABLE = 1 << 0,
    SDC_VFU_REGION_WRITABLE = 1 << 1,
    SDC_VFU_REGION_MMAP = 1 << 2,
    SDC_VFU_REGION_CAPS = 1 << 3,
};

struct sdc_vfu_region_info {
    uint32_t argsz;
    uint32_t flags;
    uint32_t index;
    uint32_t cap_offset;
    uint64_t size;   // bytes
    uint64_t offset; // of an mmap of the fd
};
static_assert(sizeof(struct sdc_vfu_region_info) == 32, "as on the wire");

enum { SDC_VFU_CAP_SPARSE_MMAP = 1 };

// Heads each entry of the capability chain behind a region info.
struct sdc_vfu_cap_header {
    uint16_t id;
    uint16_t version;
    uint32_t next; // offset from the start of the region info, 0: last
};
struct sdc_vfu_cap_sparse_mmap {
    struct sdc_vfu_cap_header header;
    uint32_t nr_areas; // this many struct sdc_vfu_mmap_area follow
    uint32_t reserved;
};
struct sdc_vfu_mmap_area {
    uint64_t offset;
    uint64_t size;
};
static_assert(sizeof(struct sdc_vfu_cap_sparse_mmap) == 16, "as on the wire");

// GET_REGION_IO_FDS. `count` entries follow the reply; entry i's fd is number fd_index of those that come with the message.
struct sdc_vfu_region_io_fds {
    uint32_t argsz;
    uint32_t flags; // 0
    uint32_t index; // region
    uint32_t count; // entries; 0 in the request
};
static_assert(sizeof(struct sdc_vfu_region_io_fds) == 16, "as on the wire");

enum { SDC_VFU_IO_FD_IOEVENTFD = 0, SDC_VFU_IO_FD_IOREGIONFD = 1 };

// Flags of an ioeventfd: those of KVM_IOEVENTFD.
enum { SDC_VFU_IOEVENTFD_DATAMATCH = 1 << 0 };

struct sdc_vfu_ioeventfd {
    uint64_t offset; // into the region
    uint64_t size;   // bytes of the access; 0: any
    uint32_t fd_index;
    uint32_t type; // SDC_VFU_IO_FD_IOEVENTFD
    uint32_t flags;
    uint32_t padding;
    uint64_t datamatch;
};
static_assert(sizeof(struct sdc_vfu_ioeventfd) == 40, "as on the wire");

enum {
    SDC_VFU_IRQ_EVENTFD = 1 << 0,
    SDC_VFU_IRQ_MASKABLE = 1 << 1,
    SDC_VFU_IRQ_AUTOMASKED = 1 << 2,
    SDC_VFU_IRQ_NORESIZE = 1 << 3,
};

struct sdc_vfu_irq_info {
    uint32_t argsz;
    uint32_t flags;
    uint32_t index;
    uint32_t count;
};
static_assert(sizeof(struct sdc_vfu_irq_info) == 16, "as on the wire");

enum {
    SDC_VFU_IRQ_DATA_NONE = 1 << 0,
    SDC_VFU_IRQ_DATA_BOOL = 1 << 1,
    SDC_VFU_IRQ_DATA_EVENTFD = 1 << 2,
    SDC_VFU_IRQ_DATA_MASK = 7,
    SDC_VFU_IRQ_ACTION_MASK = 1 << 3, // the action that masks
    SDC_VFU_IRQ_ACTION_UNMASK = 1 << 4,
    SDC_VFU_IRQ_ACTION_TRIGGER = 1 << 5,
    SDC_VFU_IRQ_ACTIONS = 7 << 3,
};

// One byte for each of count interrupts follows with DATA_BOOL.
struct sdc_vfu_set_irqs {
    uint32_t argsz;
    uint32_t flags;
    uint32_t index;
    uint32_t start;
    uint32_t count;
};
static_assert(sizeof(struct sdc_vfu_set_irqs) == 20, "as on the wire");

// REGION_READ, REGION_WRITE; data follows a write and a read's reply.
struct sdc_vfu_region_access {
    uint64_t offset;
    uint32_t region;
    uint32_t count; // bytes
};
static_assert(sizeof(struct sdc_vfu_region_access) == 16, "as on the wire");

// REGION_WRITE_MULTI: a count, which is also the reply, and so many writes of up to 8 bytes.
struct sdc_vfu_write_multi {
    uint64_t wr_cnt;
};
struct sdc_vfu_write {
    uint64_t offset;
    uint32_t region;
    uint32_t count; // bytes
    uint8_t data[8];
};
static_assert(sizeof(struct sdc_vfu_write) == 24, "as on the wire");

// DMA_READ, DMA_WRITE (server to client); data follows a write and a read's reply.
struct sdc_vfu_dma_access {
    uint64_t address;
    uint64_t count; // bytes
};
static_assert(sizeof(struct sdc_vfu_dma_access) == 16, "as on the wire");

// DEVICE_FEATURE: data follows a SET, and the reply to a GET. flags is a feature's number and what is wanted of it.
struct sdc_vfu_device_feature {
    uint32_t argsz;
    uint32_t flags;
};
static_assert(sizeof(struct sdc_vfu_device_feature) == 8, "as on the wire");

enum {
    SDC_VFU_FEATURE_MASK = 0xffff,
    SDC_VFU_FEATURE_GET = 1 << 16,
    SDC_VFU_FEATURE_SET = 1 << 17,
    SDC_VFU_FEATURE_PROBE = 1 << 18,
};

enum sdc_vfu_feature {
    SDC_VFU_FEATURE_MIGRATION = 1,
    SDC_VFU_FEATURE_MIG_DEVICE_STATE = 2,
    SDC_VFU_FEATURE_DMA_LOGGING_START = 6,
    SDC_VFU_FEATURE_DMA_LOGGING_STOP = 7,
    SDC_VFU_FEATURE_DMA_LOGGING_REPORT = 8,
};

// MIG_DATA_READ, MIG_DATA_WRITE; data follows a write and a read's reply.
struct sdc_vfu_mig_data {
    uint32_t argsz;
    uint32_t size; // of the data, bytes
};
static_assert(sizeof(struct sdc_vfu_mig_data) == 8, "as on the wire");
