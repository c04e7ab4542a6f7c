// SPDX-License-Identifier: BSD-3-Clause
// The messages of vhost-user as they lie in a stream: host-endian structures, as the specification has them
// (docs/interop/vhost-user.rst in QEMU), and the numbers in them. Nothing here makes a system call.
#pragma once

#include <assert.h>
#include <stdint.h>

// Front end to back end.
enum sdc_vhost_request {
    SDC_VHOST_GET_FEATURES = 1,
    SDC_VHOST_SET_FEATURES = 2,
    SDC_VHOST_SET_OWNER = 3,
    SDC_VHOST_RESET_OWNER = 4,
    SDC_VHOST_SET_MEM_TABLE = 5,
    SDC_VHOST_SET_LOG_BASE = 6,
    SDC_VHOST_SET_LOG_FD = 7,
    SDC_VHOST_SET_VRING_NUM = 8,
    SDC_VHOST_SET_VRING_ADDR = 9,
    SDC_VHOST_SET_VRING_BASE = 10,
    SDC_VHOST_GET_VRING_BASE = 11,
    SDC_VHOST_SET_VRING_KICK = 12,
    SDC_VHOST_SET_VRING_CALL = 13,
    SDC_VHOST_SET_VRING_ERR = 14,
    SDC_VHOST_GET_PROTOCOL_FEATURES = 15,
    SDC_VHOST_SET_PROTOCOL_FEATURES = 16,
    SDC_VHOST_GET_QUEUE_NUM = 17,
    SDC_VHOST_SET_VRING_ENABLE = 18,
    SDC_VHOST_SEND_RARP = 19,
    SDC_VHOST_NET_SET_MTU = 20,
    SDC_VHOST_SET_BACKEND_REQ_FD = 21,
    SDC_VHOST_IOTLB_MSG = 22,
    SDC_VHOST_SET_VRING_ENDIAN = 23,
    SDC_VHOST_GET_CONFIG = 24,
    SDC_VHOST_SET_CONFIG = 25,
    SDC_VHOST_CREATE_CRYPTO_SESSION = 26,
    SDC_VHOST_CLOSE_CRYPTO_SESSION = 27,
    SDC_VHOST_POSTCOPY_ADVISE = 28,
    SDC_VHOST_POSTCOPY_LISTEN = 29,
    SDC_VHOST_POSTCOPY_END = 30,
    SDC_VHOST_GET_INFLIGHT_FD = 31,
    SDC_VHOST_SET_INFLIGHT_FD = 32,
    SDC_VHOST_GPU_SET_SOCKET = 33,
    SDC_VHOST_RESET_DEVICE = 34,
    SDC_VHOST_VRING_KICK = 35,
    SDC_VHOST_GET_MAX_MEM_SLOTS = 36,
    SDC_VHOST_ADD_MEM_REG = 37,
    SDC_VHOST_REM_MEM_REG = 38,
    SDC_VHOST_SET_STATUS = 39,
    SDC_VHOST_GET_STATUS = 40,
    SDC_VHOST_GET_SHARED_OBJECT = 41,
    SDC_VHOST_SET_DEVICE_STATE_FD = 42,
    SDC_VHOST_CHECK_DEVICE_STATE = 43,
    SDC_VHOST_REQUESTS, // one past the last
};

// Back end to front end, over the socket of SET_BACKEND_REQ_FD.
enum sdc_vhost_backend_request {
    SDC_VHOST_BACKEND_IOTLB_MSG = 1,
    SDC_VHOST_BACKEND_CONFIG_CHANGE_MSG = 2,
    SDC_VHOST_BACKEND_VRING_HOST_NOTIFIER_MSG = 3,
    SDC_VHOST_BACKEND_VRING_CALL = 4,
    SDC_VHOST_BACKEND_VRING_ERR = 5,
};

// In the virtio feature bits: the front end and the back end talk about protocol features.
#define SDC_VHOST_F_PROTOCOL_FEATURES (UINT64_C(1) << 30)
#define SDC_VHOST_F_LOG_ALL (UINT64_C(1) << 26)

#define SDC_VHOST_PROTOCOL_F_MQ                    (UINT64_C(1) << 0)
#define SDC_VHOST_PROTOCOL_F_LOG_SHMFD             (UINT64_C(1) << 1)
#define SDC_VHOST_PROTOCOL_F_RARP                  (UINT64_C(1) << 2)
#define SDC_VHOST_PROTOCOL_F_REPLY_ACK             (UINT64_C(1) << 3)
#define SDC_VHOST_PROTOCOL_F_MTU                   (UINT64_C(1) << 4)
#define SDC_VHOST_PROTOCOL_F_BACKEND_REQ           (UINT64_C(1) << 5)
#define SDC_VHOST_PROTOCOL_F_CROSS_ENDIAN          (UINT64_C(1) << 6)
#define SDC_VHOST_PROTOCOL_F_CRYPTO_SESSION        (UINT64_C(1) << 7)
#define SDC_VHOST_PROTOCOL_F_PAGEFAULT             (UINT64_C(1) << 8)
#define SDC_VHOST_PROTOCOL_F_CONFIG                (UINT64_C(1) << 9)
#define SDC_VHOST_PROTOCOL_F_BACKEND_SEND_FD       (UINT64_C(1) << 10)
#define SDC_VHOST_PROTOCOL_F_HOST_NOTIFIER         (UINT64_C(1) << 11)
#define SDC_VHOST_PROTOCOL_F_INFLIGHT_SHMFD        (UINT64_C(1) << 12)
#define SDC_VHOST_PROTOCOL_F_RESET_DEVICE          (UINT64_C(1) << 13)
#define SDC_VHOST_PROTOCOL_F_INBAND_NOTIFICATIONS  (UINT64_C(1) << 14)
#define SDC_VHOST_PROTOCOL_F_CONFIGURE_MEM_SLOTS   (UINT64_C(1) << 15)
#define SDC_VHOST_PROTOCOL_F_STATUS                (UINT64_C(1) << 16)
#define SDC_VHOST_PROTOCOL_F_DEVICE_STATE          (UINT64_C(1) << 19)

// sdc_vhost_header.flags
enum {
    SDC_VHOST_VERSION_MASK = 3,
    SDC_VHOST_VERSION = 1,
    SDC_VHOST_REPLY = 1 << 2,
    SDC_VHOST_NEED_REPLY = 1 << 3,
};

struct sdc_vhost_header {
    uint32_t request;
    uint32_t flags;
    uint32_t size; // bytes of the payload
};
static_assert(sizeof(struct sdc_vhost_header) == 12, "as on the wire");

// A vring and a number: its size, its base, whether it is enabled.
struct sdc_vhost_vring_state {
    uint32_t index;
    uint32_t num;
};
static_assert(sizeof(struct sdc_vhost_vring_state) == 8, "as on the wire");

enum { SDC_VHOST_VRING_F_LOG = 1 << 0 };

// Addresses are the front end's own, or IOVAs once VIRTIO_F_ACCESS_PLATFORM is negotiated.
struct sdc_vhost_vring_addr {
    uint32_t index;
    uint32_t flags;
    uint64_t descriptor;
    uint64_t used;
    uint64_t available;
    uint64_t log; // a guest address
};
static_assert(sizeof(struct sdc_vhost_vring_addr) == 40, "as on the wire");

// The base of a packed ring, in a vring state's num: two positions of 15 bits and their wrap counters.
enum { SDC_VHOST_PACKED_WRAP = 1 << 15, SDC_VHOST_PACKED_USED_SHIFT = 16 };

// SET_VRING_KICK, SET_VRING_CALL, SET_VRING_ERR carry this in 64 bits: the vring's index, and whether an fd comes with it.
enum { SDC_VHOST_VRING_INDEX = 0xff, SDC_VHOST_VRING_NO_FD = 1 << 8 };

struct sdc_vhost_region {
    uint64_t guest_address;
    uint64_t size; // bytes
    uint64_t user_address;
    uint64_t mmap_offset; // bytes into the fd
};
static_assert(sizeof(struct sdc_vhost_region) == 32, "as on the wire");

enum { SDC_VHOST_MEM_TABLE_MAX = 8 };

// SET_MEM_TABLE: a count, and so many regions, each with an fd.
struct sdc_vhost_mem_table {
    uint32_t num_regions;
    uint32_t padding;
};
static_assert(sizeof(struct sdc_vhost_mem_table) == 8, "as on the wire");

// ADD_MEM_REG, REM_MEM_REG.
struct sdc_vhost_mem_reg {
    uint64_t padding;
    struct sdc_vhost_region region;
};
static_assert(sizeof(struct sdc_vhost_mem_reg) == 40, "as on the wire");

enum { SDC_VHOST_IOTLB_MISS = 1, SDC_VHOST_IOTLB_UPDATE = 2, SDC_VHOST_IOTLB_INVALIDATE = 3, SDC_VHOST_IOTLB_ACCESS_FAIL = 4 };
enum { SDC_VHOST_ACCESS_READ = 1, SDC_VHOST_ACCESS_WRITE = 2 };

struct sdc_vhost_iotlb {
    uint64_t iova;
    uint64_t size; // bytes
    uint64_t user_address;
    uint8_t permissions;
    uint8_t type;
    uint8_t padding[6];
};
static_assert(sizeof(struct sdc_vhost_iotlb) == 32, "as on the wire");

enum { SDC_VHOST_CONFIG_WRITABLE = 0, SDC_VHOST_CONFIG_MIGRATION = 1, SDC_VHOST_CONFIG_MAX = 256 };

// GET_CONFIG, SET_CONFIG; size bytes follow.
struct sdc_vhost_config {
    uint32_t offset;
    uint32_t size; // bytes, at most SDC_VHOST_CONFIG_MAX
    uint32_t flags;
};
static_assert(sizeof(struct sdc_vhost_config) == 12, "as on the wire");

// GET_INFLIGHT_FD, SET_INFLIGHT_FD.
struct sdc_vhost_inflight {
    uint64_t mmap_size;   // bytes
    uint64_t mmap_offset; // bytes into the fd
    uint16_t num_queues;
    uint16_t queue_size;
    uint8_t padding[4];
};
static_assert(sizeof(struct sdc_vhost_inflight) == 24, "as on the wire");

// SET_DEVICE_STATE_FD, and what is answered in 64 bits: an error number, and whether no fd of the back end's own comes with it.
enum { SDC_VHOST_STATE_SAVE = 0, SDC_VHOST_STATE_LOAD = 1 }; // direction
enum { SDC_VHOST_STATE_STOPPED = 0 };                        // phase
enum { SDC_VHOST_STATE_ERROR = 0xff, SDC_VHOST_STATE_NO_FD = 1 << 8 };

struct sdc_vhost_device_state {
    uint32_t direction;
    uint32_t phase;
};
static_assert(sizeof(struct sdc_vhost_device_state) == 8, "as on the wire");

enum { SDC_VHOST_FDS_MAX = 8 }; // in one message
