// SPDX-License-Identifier: BSD-3-Clause
#include "wire/names.h"

#include "base/check.h"
#include "wire/vfio_user.h"
#include "wire/vhost_user.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

// --- virtio ---

enum {
    NET = 1,
    BLK = 2,
    CONSOLE = 3,
    BALLOON = 5,
    SCSI = 8,
    NINEP = 9,
    GPU = 16,
    VSOCK = 19,
    CRYPTO = 20,
    IOMMU = 23,
    MEM = 24,
    FS = 26,
    PMEM = 27,
    I2C = 34,
    GPIO = 41,
};

static const struct {
    const char *name;
    const char *title;
} devices[] = {
    [NET] = {"net", "network card"},
    [BLK] = {"blk", "block device"},
    [CONSOLE] = {"console", "console"},
    [4] = {"rng", "entropy source"},
    [BALLOON] = {"balloon", "memory balloon"},
    [6] = {"iomem", "I/O memory"},
    [7] = {"rpmsg", "remote processor messages"},
    [SCSI] = {"scsi", "SCSI host"},
    [NINEP] = {"9p", "9P transport"},
    [10] = {"wlan", "wireless network card"},
    [11] = {"rproc-serial", "remote processor console"},
    [12] = {"caif", "CAIF"},
    [13] = {"balloon2", "memory balloon"},
    [GPU] = {"gpu", "graphics card"},
    [17] = {"clock", "clock"},
    [18] = {"input", "input device"},
    [VSOCK] = {"vsock", "socket device"},
    [CRYPTO] = {"crypto", "crypto device"},
    [21] = {"signal", "signal distribution"},
    [22] = {"pstore", "persistent store"},
    [IOMMU] = {"iommu", "IOMMU"},
    [MEM] = {"mem", "memory device"},
    [25] = {"sound", "sound card"},
    [FS] = {"fs", "file system"},
    [PMEM] = {"pmem", "persistent memory"},
    [28] = {"rpmb", "replay protected memory block"},
    [29] = {"hwsim", "simulated wireless network card"},
    [30] = {"video-encoder", "video encoder"},
    [31] = {"video-decoder", "video decoder"},
    [32] = {"scmi", "SCMI"},
    [33] = {"nitro-secmod", "Nitro security module"},
    [I2C] = {"i2c", "I2C adapter"},
    [35] = {"watchdog", "watchdog"},
    [36] = {"can", "CAN controller"},
    [38] = {"params", "parameter server"},
    [39] = {"audio-policy", "audio policy"},
    [40] = {"bt", "Bluetooth"},
    [GPIO] = {"gpio", "GPIO"},
    [42] = {"rdma", "RDMA"},
};

const char *sdc_virtio_device_name(unsigned device)
{
    return device < SDC_COUNT(devices) ? devices[device].name : NULL;
}

const char *sdc_virtio_device_title(unsigned device)
{
    return device < SDC_COUNT(devices) ? devices[device].title : NULL;
}

unsigned sdc_virtio_device_number(const char *name)
{
    for (unsigned i = 0; i < SDC_COUNT(devices); i++) {
        if (devices[i].name && strcmp(devices[i].name, name) == 0)
            return i;
    }
    return 0;
}

// Bits that belong to all devices (virtio 1.2, 6; 6.3 for what legacy devices had).
static const char *const any[64] = {
    [24] = "NOTIFY_ON_EMPTY", [27] = "ANY_LAYOUT",         [28] = "INDIRECT_DESC", [29] = "EVENT_IDX",
    [32] = "VERSION_1",       [33] = "ACCESS_PLATFORM",    [34] = "RING_PACKED",   [35] = "IN_ORDER",
    [36] = "ORDER_PLATFORM",  [37] = "SR_IOV",             [38] = "NOTIFICATION_DATA",
    [39] = "NOTIF_CONFIG_DATA", [40] = "RING_RESET",       [41] = "ADMIN_VQ",
};

static const char *const net[64] = {
    "CSUM", "GUEST_CSUM", "CTRL_GUEST_OFFLOADS", "MTU", NULL, "MAC", "GSO", "GUEST_TSO4", "GUEST_TSO6", "GUEST_ECN", "GUEST_UFO",
    "HOST_TSO4", "HOST_TSO6", "HOST_ECN", "HOST_UFO", "MRG_RXBUF", "STATUS", "CTRL_VQ", "CTRL_RX", "CTRL_VLAN", "CTRL_RX_EXTRA",
    "GUEST_ANNOUNCE", "MQ", "CTRL_MAC_ADDR",
    [51] = "HASH_TUNNEL", [52] = "VQ_NOTF_COAL", [53] = "NOTF_COAL", [54] = "GUEST_USO4", [55] = "GUEST_USO6", [56] = "HOST_USO",
    [57] = "HASH_REPORT", [59] = "GUEST_HDRLEN", [60] = "RSS", [61] = "RSC_EXT", [62] = "STANDBY", [63] = "SPEED_DUPLEX",
};
static const char *const blk[64] = {
    "BARRIER", "SIZE_MAX", "SEG_MAX", NULL, "GEOMETRY", "RO", "BLK_SIZE", "SCSI", NULL, "FLUSH", "TOPOLOGY", "CONFIG_WCE", "MQ", "DISCARD",
    "WRITE_ZEROES", "LIFETIME", "SECURE_ERASE", "ZONED",
};
static const char *const console[64] = {"SIZE", "MULTIPORT", "EMERG_WRITE"};
static const char *const balloon[64] = {"MUST_TELL_HOST", "STATS_VQ", "DEFLATE_ON_OOM", "FREE_PAGE_HINT", "PAGE_POISON", "REPORTING"};
static const char *const scsi[64] = {"INOUT", "HOTPLUG", "CHANGE", "T10_PI"};
static const char *const ninep[64] = {"MOUNT_TAG"};
static const char *const gpu[64] = {"VIRGL", "EDID", "RESOURCE_UUID", "RESOURCE_BLOB", "CONTEXT_INIT"};
static const char *const vsock[64] = {"STREAM", "SEQPACKET"};
static const char *const crypto[64] = {"REVISION_1", "CIPHER_STATELESS_MODE", "HASH_STATELESS_MODE", "MAC_STATELESS_MODE",
                                       "AEAD_STATELESS_MODE"};
static const char *const iommu[64] = {"INPUT_RANGE", "DOMAIN_RANGE", "MAP_UNMAP", "BYPASS", "PROBE", "MMIO", "BYPASS_CONFIG"};
static const char *const mem[64] = {"ACPI_PXM", "UNPLUGGED_INACCESSIBLE"};
static const char *const fs[64] = {"NOTIFICATION"};
static const char *const pmem[64] = {"SHMEM_REGION"};
static const char *const i2c[64] = {"ZERO_LENGTH_REQUEST"};
static const char *const gpio[64] = {"IRQ"};

static const char *const *const features[] = {
    [NET] = net, [BLK] = blk, [CONSOLE] = console, [BALLOON] = balloon, [SCSI] = scsi, [NINEP] = ninep, [GPU] = gpu, [VSOCK] = vsock,
    [CRYPTO] = crypto, [IOMMU] = iommu, [MEM] = mem, [FS] = fs, [PMEM] = pmem, [I2C] = i2c, [GPIO] = gpio,
};

const char *sdc_virtio_feature_name(unsigned device, unsigned bit)
{
    if (bit >= SDC_COUNT(any))
        return NULL;
    if (any[bit])
        return any[bit];
    return device < SDC_COUNT(features) && features[device] ? features[device][bit] : NULL;
}

const char *sdc_virtio_status_name(unsigned context, unsigned bit)
{
    static const char *const names[] = {"ACKNOWLEDGE", "DRIVER", "DRIVER_OK", "FEATURES_OK", NULL, NULL, "NEEDS_RESET", "FAILED"};

    (void)context;
    return bit < SDC_COUNT(names) ? names[bit] : NULL;
}

// --- vhost-user ---

const char *sdc_vhost_feature_name(unsigned device, unsigned bit)
{
    uint64_t mask = bit < 64 ? UINT64_C(1) << bit : 0;

    if (mask == SDC_VHOST_F_LOG_ALL)
        return "LOG_ALL";
    if (mask == SDC_VHOST_F_PROTOCOL_FEATURES)
        return "PROTOCOL_FEATURES";
    return sdc_virtio_feature_name(device, bit);
}

const char *sdc_vhost_protocol_feature_name(unsigned context, unsigned bit)
{
    static const char *const names[] = {
        "MQ", "LOG_SHMFD", "RARP", "REPLY_ACK", "MTU", "BACKEND_REQ", "CROSS_ENDIAN", "CRYPTO_SESSION", "PAGEFAULT", "CONFIG",
        "BACKEND_SEND_FD", "HOST_NOTIFIER", "INFLIGHT_SHMFD", "RESET_DEVICE", "INBAND_NOTIFICATIONS", "CONFIGURE_MEM_SLOTS", "STATUS",
        "XEN_MMAP", "SHARED_OBJECT", "DEVICE_STATE",
    };

    (void)context;
    return bit < SDC_COUNT(names) ? names[bit] : NULL;
}

const char *sdc_vhost_request_name(uint32_t request, char buffer[SDC_NAME_SIZE])
{
    static const char *const names[SDC_VHOST_REQUESTS] = {
        [SDC_VHOST_GET_FEATURES] = "GET_FEATURES",
        [SDC_VHOST_SET_FEATURES] = "SET_FEATURES",
        [SDC_VHOST_SET_OWNER] = "SET_OWNER",
        [SDC_VHOST_RESET_OWNER] = "RESET_OWNER",
        [SDC_VHOST_SET_MEM_TABLE] = "SET_MEM_TABLE",
        [SDC_VHOST_SET_LOG_BASE] = "SET_LOG_BASE",
        [SDC_VHOST_SET_LOG_FD] = "SET_LOG_FD",
        [SDC_VHOST_SET_VRING_NUM] = "SET_VRING_NUM",
        [SDC_VHOST_SET_VRING_ADDR] = "SET_VRING_ADDR",
        [SDC_VHOST_SET_VRING_BASE] = "SET_VRING_BASE",
        [SDC_VHOST_GET_VRING_BASE] = "GET_VRING_BASE",
        [SDC_VHOST_SET_VRING_KICK] = "SET_VRING_KICK",
        [SDC_VHOST_SET_VRING_CALL] = "SET_VRING_CALL",
        [SDC_VHOST_SET_VRING_ERR] = "SET_VRING_ERR",
        [SDC_VHOST_GET_PROTOCOL_FEATURES] = "GET_PROTOCOL_FEATURES",
        [SDC_VHOST_SET_PROTOCOL_FEATURES] = "SET_PROTOCOL_FEATURES",
        [SDC_VHOST_GET_QUEUE_NUM] = "GET_QUEUE_NUM",
        [SDC_VHOST_SET_VRING_ENABLE] = "SET_VRING_ENABLE",
        [SDC_VHOST_SEND_RARP] = "SEND_RARP",
        [SDC_VHOST_NET_SET_MTU] = "NET_SET_MTU",
        [SDC_VHOST_SET_BACKEND_REQ_FD] = "SET_BACKEND_REQ_FD",
        [SDC_VHOST_IOTLB_MSG] = "IOTLB_MSG",
        [SDC_VHOST_SET_VRING_ENDIAN] = "SET_VRING_ENDIAN",
        [SDC_VHOST_GET_CONFIG] = "GET_CONFIG",
        [SDC_VHOST_SET_CONFIG] = "SET_CONFIG",
        [SDC_VHOST_CREATE_CRYPTO_SESSION] = "CREATE_CRYPTO_SESSION",
        [SDC_VHOST_CLOSE_CRYPTO_SESSION] = "CLOSE_CRYPTO_SESSION",
        [SDC_VHOST_POSTCOPY_ADVISE] = "POSTCOPY_ADVISE",
        [SDC_VHOST_POSTCOPY_LISTEN] = "POSTCOPY_LISTEN",
        [SDC_VHOST_POSTCOPY_END] = "POSTCOPY_END",
        [SDC_VHOST_GET_INFLIGHT_FD] = "GET_INFLIGHT_FD",
        [SDC_VHOST_SET_INFLIGHT_FD] = "SET_INFLIGHT_FD",
        [SDC_VHOST_GPU_SET_SOCKET] = "GPU_SET_SOCKET",
        [SDC_VHOST_RESET_DEVICE] = "RESET_DEVICE",
        [SDC_VHOST_VRING_KICK] = "VRING_KICK",
        [SDC_VHOST_GET_MAX_MEM_SLOTS] = "GET_MAX_MEM_SLOTS",
        [SDC_VHOST_ADD_MEM_REG] = "ADD_MEM_REG",
        [SDC_VHOST_REM_MEM_REG] = "REM_MEM_REG",
        [SDC_VHOST_SET_STATUS] = "SET_STATUS",
        [SDC_VHOST_GET_STATUS] = "GET_STATUS",
        [SDC_VHOST_GET_SHARED_OBJECT] = "GET_SHARED_OBJECT",
        [SDC_VHOST_SET_DEVICE_STATE_FD] = "SET_DEVICE_STATE_FD",
        [SDC_VHOST_CHECK_DEVICE_STATE] = "CHECK_DEVICE_STATE",
    };

    if (request < SDC_VHOST_REQUESTS && names[request])
        return names[request];
    snprintf(buffer, SDC_NAME_SIZE, "request %" PRIu32, request);
    return buffer;
}

// --- vfio-user ---

const char *sdc_vfu_command_name(uint16_t command, char buffer[SDC_NAME_SIZE])
{
    static const char *const names[SDC_VFU_COMMANDS] = {
        [SDC_VFU_VERSION] = "VERSION",
        [SDC_VFU_DMA_MAP] = "DMA_MAP",
        [SDC_VFU_DMA_UNMAP] = "DMA_UNMAP",
        [SDC_VFU_GET_INFO] = "DEVICE_GET_INFO",
        [SDC_VFU_GET_REGION_INFO] = "DEVICE_GET_REGION_INFO",
        [SDC_VFU_GET_REGION_IO_FDS] = "DEVICE_GET_REGION_IO_FDS",
        [SDC_VFU_GET_IRQ_INFO] = "DEVICE_GET_IRQ_INFO",
        [SDC_VFU_SET_IRQS] = "DEVICE_SET_IRQS",
        [SDC_VFU_REGION_READ] = "REGION_READ",
        [SDC_VFU_REGION_WRITE] = "REGION_WRITE",
        [SDC_VFU_DMA_READ] = "DMA_READ",
        [SDC_VFU_DMA_WRITE] = "DMA_WRITE",
        [SDC_VFU_RESET] = "DEVICE_RESET",
        [SDC_VFU_REGION_WRITE_MULTI] = "REGION_WRITE_MULTI",
        [SDC_VFU_DEVICE_FEATURE] = "DEVICE_FEATURE",
        [SDC_VFU_MIG_DATA_READ] = "MIG_DATA_READ",
        [SDC_VFU_MIG_DATA_WRITE] = "MIG_DATA_WRITE",
    };

    if (command < SDC_VFU_COMMANDS && names[command])
        return names[command];
    snprintf(buffer, SDC_NAME_SIZE, "command %u", command);
    return buffer;
}

const char *sdc_vfu_region_name(uint32_t index)
{
    static const char *const names[] = {"bar0", "bar1", "bar2", "bar3", "bar4", "bar5", "rom", "config", "vga"};

    return index < SDC_COUNT(names) ? names[index] : NULL;
}

const char *sdc_vfu_irq_name(uint32_t index)
{
    static const char *const names[] = {"intx", "msi", "msix", "err", "req"};

    return index < SDC_COUNT(names) ? names[index] : NULL;
}

const char *sdc_vfu_feature_name(unsigned feature)
{
    static const char *const names[] = {
        [SDC_VFU_FEATURE_MIGRATION] = "migration",
        [SDC_VFU_FEATURE_MIG_DEVICE_STATE] = "migration device state",
        [SDC_VFU_FEATURE_DMA_LOGGING_START] = "DMA logging start",
        [SDC_VFU_FEATURE_DMA_LOGGING_STOP] = "DMA logging stop",
        [SDC_VFU_FEATURE_DMA_LOGGING_REPORT] = "DMA logging report",
    };

    return feature < SDC_COUNT(names) ? names[feature] : NULL;
}
