// SPDX-License-Identifier: BSD-3-Clause
// What the device says that it has: DEVICE_GET_INFO, regions and their mappable areas, ioeventfds, interrupts.
#include "cli/check/vfio.h"

#include "base/check.h"
#include "os/fd.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define INFO "vfio-user, VFIO_USER_DEVICE_GET_INFO"
#define REGION_INFO "vfio-user, VFIO_USER_DEVICE_GET_REGION_INFO"
#define IO_FDS "vfio-user, VFIO_USER_DEVICE_GET_REGION_IO_FDS"
#define IRQ_INFO "vfio-user, VFIO_USER_DEVICE_GET_IRQ_INFO"

enum {
    PCI_REGIONS = 9, // linux/vfio.h, VFIO_PCI_NUM_REGIONS
    PCI_IRQS = 5,
    CAPABILITIES_MAX = 16, // of a region
    ROOM = 65536,          // bytes of a reply
    PAGE = 4096,
};

static uint32_t min32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

// --- DEVICE_GET_INFO ---

static void info_form(struct sdc_check *check)
{
    struct sdc_check_vfio vfio;
    sdc_check_vfio_open(&vfio, check);
    struct sdc_vfu_device_info info = sdc_check_vfio_info(&vfio);
    sdc_check_that(check, info.argsz == sizeof info, "argsz in the reply is the size of the full reply payload, 16");
    sdc_check_that(check, (info.flags & ~(uint32_t)(SDC_VFU_DEVICE_RESET | SDC_VFU_DEVICE_PCI)) == 0, "there are two flags, RESET and PCI");
    sdc_check_that(check, info.flags & SDC_VFU_DEVICE_PCI, "this version of the protocol only supports PCI devices");
    sdc_check_that(check, info.num_regions >= PCI_REGIONS, "num_regions is equal to, or higher than, VFIO_PCI_NUM_REGIONS (9)");
    if (info.num_irqs < PCI_IRQS)
        sdc_check_note(check, "num_irqs is %" PRIu32 "; linux/vfio.h numbers 5 for PCI", info.num_irqs);
    struct sdc_vfu_device_info again = sdc_check_vfio_info(&vfio);
    sdc_check_that(check, memcmp(&info, &again, sizeof info) == 0, "the same device is asked twice: it is still the same");
}

static void info_argsz(struct sdc_check *check)
{
    static const uint32_t larger[] = {32, 4096, UINT32_MAX}, smaller[] = {0, 8, 15};
    struct sdc_check_vfio vfio;
    sdc_check_vfio_open(&vfio, check);
    for (size_t i = 0; i < SDC_COUNT(larger); i++) {
        struct sdc_vfu_device_info info = {.argsz = larger[i]};
        struct sdc_check_command command = {.command = SDC_VFU_GET_INFO, .payload = &info, .size = sizeof info};
        struct sdc_check_reply reply;
        sdc_check_vfio_do(&vfio, &command, sizeof info, &reply);
        memcpy(&info, reply.payload, sizeof info);
        sdc_check_that(check, info.argsz == sizeof info, "argsz in the reply is the size of the full reply payload, 16");
    }
    sdc_check_section(check, "vfio-user, Message sizes");
    for (size_t i = 0; i < SDC_COUNT(smaller); i++) {
        struct sdc_vfu_device_info info = {.argsz = smaller[i]};
        struct sdc_check_command command = {.command = SDC_VFU_GET_INFO, .payload = &info, .size = sizeof info};
        if (!sdc_check_vfio_open_question(&vfio, &command, "an argsz that is smaller than the fixed reply"))
            return;
    }
    sdc_check_vfio_fence(&vfio);
}

// --- regions ---

// GET_REGION_INFO with room for everything. The reply's fds are open.
static struct sdc_vfu_region_info whole_region(struct sdc_check_vfio *vfio, uint32_t index, uint32_t argsz, struct sdc_check_reply *reply)
{
    struct sdc_vfu_region_info info = {.argsz = argsz, .index = index};
    struct sdc_check_command command = {.command = SDC_VFU_GET_REGION_INFO, .payload = &info, .size = sizeof info};
    struct sdc_check *check = vfio->check;
    sdc_check_vfio_do_at_least(vfio, &command, sizeof info, reply);
    memcpy(&info, reply->payload, sizeof info);
    sdc_check_that(check, info.index == index, "index in the reply is that of the region");
    sdc_check_that(check, info.argsz >= sizeof info, "argsz in the reply is the size of the structure and of its capabilities");
    sdc_check_that(check, reply->size <= argsz, "argsz is the maximum size of the reply payload");
    sdc_check_that(check, argsz < info.argsz || reply->size == info.argsz, "where there is room for it, the reply has all that argsz says");
    return info;
}

static uint32_t regions_of(struct sdc_check_vfio *vfio)
{
    return min32(sdc_check_vfio_info(vfio).num_regions, SDC_CHECK_REGIONS_MAX);
}

static void regions_form(struct sdc_check *check)
{
    const uint32_t known = SDC_VFU_REGION_READABLE | SDC_VFU_REGION_WRITABLE | SDC_VFU_REGION_MMAP | SDC_VFU_REGION_CAPS;
    struct sdc_check_vfio vfio;
    sdc_check_vfio_open(&vfio, check);
    uint32_t count = regions_of(&vfio);
    for (uint32_t i = 0; i < count; i++) {
        struct sdc_check_reply reply;
        struct sdc_vfu_region_info info = whole_region(&vfio, i, ROOM, &reply);
        sdc_check_that(check, (info.flags & ~known) == 0, "there are four flags, READ, WRITE, MMAP and CAPS");
        sdc_check_that(check, !(info.flags & SDC_VFU_REGION_MMAP) || reply.fds_count > 0,
                       "when the flag MMAP is set, the reply includes a file descriptor");
        sdc_check_that(check, (info.flags & SDC_VFU_REGION_MMAP) || reply.fds_count == 0,
                       "a file descriptor comes with the flag MMAP, and it is not set for region %" PRIu32, i);
        sdc_check_that(check, !(info.flags & SDC_VFU_REGION_MMAP) || info.size > 0, "a region without bytes cannot be mapped");
    }
}

static void config_region(struct sdc_check *check)
{
    struct sdc_check_vfio vfio;
    sdc_check_vfio_open(&vfio, check);
    struct sdc_vfu_region_info info = sdc_check_vfio_region(&vfio, SDC_CHECK_REGION_CONFIG);
    sdc_check_that(check, info.size == 256 || info.size == 4096, "PCI's configuration space has 256 or 4096 bytes");
    sdc_check_that(check, (info.flags & SDC_VFU_REGION_READABLE) && (info.flags & SDC_VFU_REGION_WRITABLE),
                   "the configuration space can be read and written");
}

static void no_such_region(struct sdc_check *check)
{
    struct sdc_check_vfio vfio;
    sdc_check_vfio_open(&vfio, check);
    uint32_t count = sdc_check_vfio_info(&vfio).num_regions;
    const uint32_t indices[] = {count, count + 1, UINT32_C(0x10000), UINT32_MAX};
    for (size_t i = 0; i < SDC_COUNT(indices); i++) {
        struct sdc_vfu_region_info info = {.argsz = sizeof info, .index = indices[i]};
        sdc_check_vfio_refused(&vfio,
                               &(struct sdc_check_command){.command = SDC_VFU_GET_REGION_INFO, .payload = &info, .size = sizeof info},
                               "DEVICE_GET_INFO named num_regions regions: there is no information about another");
    }
}

// With room for the structure alone: the fixed part, and how much room there would have to be.
static void region_argsz(struct sdc_check *check)
{
    static const uint32_t smaller[] = {0, 16, 31};
    struct sdc_check_vfio vfio;
    sdc_check_vfio_open(&vfio, check);
    sdc_check_section(check, "vfio-user, Message sizes");
    uint32_t count = regions_of(&vfio);
    for (uint32_t i = 0; i < count; i++) {
        struct sdc_check_reply whole, fixed;
        struct sdc_vfu_region_info all = whole_region(&vfio, i, ROOM, &whole);
        struct sdc_vfu_region_info info = whole_region(&vfio, i, sizeof info, &fixed);
        sdc_check_that(check, info.argsz == all.argsz, "argsz in the reply is the size that is needed, whatever there was room for");
        sdc_check_that(check, info.size == all.size && info.offset == all.offset, "size and offset of a region don't depend on argsz");
        for (unsigned j = 0; j < fixed.fds_count; j++)
            sdc_fd_close(&fixed.fds[j]);
        for (unsigned j = 0; j < whole.fds_count; j++)
            sdc_fd_close(&whole.fds[j]);
    }
    for (size_t i = 0; i < SDC_COUNT(smaller); i++) {
        struct sdc_vfu_region_info info = {.argsz = smaller[i], .index = SDC_CHECK_REGION_CONFIG};
        struct sdc_check_command command = {.command = SDC_VFU_GET_REGION_INFO, .payload = &info, .size = sizeof info};
        if (!sdc_check_vfio_open_question(&vfio, &command, "an argsz that is smaller than the fixed reply"))
            return;
    }
}

// Maps bytes of a region's fd and touches the first and the last: a file that has not so many ends the test with SIGBUS.
static void touch(struct sdc_check *check, int fd, const struct sdc_vfu_region_info *info, uint64_t offset, uint64_t size)
{
    uint64_t start, end;
    void *base;
    sdc_check_that(check, size > 0 && sdc_add(offset, size, &end) && end <= info->size,
                   "a mappable area lies in its region (0x%" PRIx64 " bytes at 0x%" PRIx64 ", of 0x%" PRIx64 ")", size, offset, info->size);
    sdc_check_that(check, sdc_add(info->offset, offset, &start) && start % PAGE == 0,
                   "the offset is one that can be given to mmap(), a multiple of pages (0x%" PRIx64 " + 0x%" PRIx64 ")", info->offset,
                   offset);
    int ret = sdc_fd_map_part(fd, start, size, info->flags & SDC_VFU_REGION_WRITABLE, &base);
    sdc_check_that(check, ret == 0, "the fd can be mapped at offset + area's offset (mmap: %s)", strerror(-ret));
    volatile const uint8_t *bytes = base;
    (void)bytes[0];
    (void)bytes[size - 1];
    sdc_unmap(base, size);
}

static void sparse_areas(struct sdc_check *check, const struct sdc_vfu_region_info *info, const struct sdc_check_reply *reply, uint32_t at)
{
    struct sdc_vfu_cap_sparse_mmap sparse;
    sdc_check_that(check, sdc_within(at, sizeof sparse, reply->size), "the capability lies in the reply");
    memcpy(&sparse, reply->payload + at, sizeof sparse);
    sdc_check_that(check, sparse.header.version == 1, "the version of the capability SPARSE_MMAP is 1");
    sdc_check_that(check, info->flags & SDC_VFU_REGION_MMAP, "SPARSE_MMAP is for regions that can be mapped");
    sdc_check_that(check, sparse.nr_areas <= (reply->size - at - sizeof sparse) / 16, "nr_areas is the number of areas that follow");
    for (uint32_t i = 0; i < sparse.nr_areas; i++) {
        uint64_t area[2];
        memcpy(area, reply->payload + at + sizeof sparse + i * sizeof area, sizeof area);
        if (area[1] > 0)
            touch(check, reply->fds[0], info, area[0], area[1]);
    }
}

// Walks a region's capabilities. True if SPARSE_MMAP is among them.
static bool walk_capabilities(struct sdc_check *check, const struct sdc_vfu_region_info *info, const struct sdc_check_reply *reply)
{
    bool sparse = false;
    unsigned seen = 0;
    for (uint32_t at = info->cap_offset; at != 0; seen++) {
        struct sdc_vfu_cap_header header;
        sdc_check_that(check, seen < CAPABILITIES_MAX, "the list of capabilities has an end");
        sdc_check_that(check, at >= sizeof *info && sdc_within(at, sizeof header, reply->size),
                       "cap_offset and next are relative to the beginning of the structure, and lie behind it and in the reply");
        memcpy(&header, reply->payload + at, sizeof header);
        if (header.id == SDC_VFU_CAP_SPARSE_MMAP) {
            sparse_areas(check, info, reply, at);
            sparse = true;
        }
        at = header.next;
    }
    return sparse;
}

static void mappable_areas(struct sdc_check *check)
{
    struct sdc_check_vfio vfio;
    bool any = false;
    sdc_check_vfio_open(&vfio, check);
    uint32_t count = regions_of(&vfio);
    for (uint32_t i = 0; i < count; i++) {
        struct sdc_check_reply reply;
        struct sdc_vfu_region_info info = whole_region(&vfio, i, ROOM, &reply);
        bool mappable = info.flags & SDC_VFU_REGION_MMAP;
        bool sparse = (info.flags & SDC_VFU_REGION_CAPS) && walk_capabilities(check, &info, &reply);
        sdc_check_that(check, !(info.flags & SDC_VFU_REGION_CAPS) || info.cap_offset != 0,
                       "the flag CAPS says that there are capabilities");
        sdc_check_that(check, !mappable || reply.fds_count > 0, "when the flag MMAP is set, the reply includes a file descriptor");
        if (mappable && !sparse)
            touch(check, reply.fds[0], &info, 0, info.size);
        any = any || mappable;
    }
    if (!any)
        sdc_check_not_offered(check, "no region can be mapped");
}

// --- ioeventfds ---

static bool io_fds_of(struct sdc_check_vfio *vfio, uint32_t index, uint64_t region_size)
{
    struct sdc_vfu_region_io_fds list = {.argsz = ROOM, .index = index};
    struct sdc_check_command command = {.command = SDC_VFU_GET_REGION_IO_FDS, .payload = &list, .size = sizeof list};
    struct sdc_check *check = vfio->check;
    struct sdc_check_reply reply;
    uint16_t id = sdc_check_vfio_send(vfio, &command);
    if (sdc_check_vfio_answer(vfio, id, command.command, &reply) != SDC_CHECK_DONE)
        return false;
    sdc_check_that(check, reply.size >= sizeof list, "the reply has at least the fixed part");
    memcpy(&list, reply.payload, sizeof list);
    sdc_check_that(check, list.index == index && list.flags == 0, "index in the reply is that of the region, flags is zero");
    if (list.count == 0)
        return false;
    size_t entry_size = (reply.size - sizeof list) / list.count;
    sdc_check_that(check, list.argsz == reply.size && entry_size * list.count + sizeof list == reply.size,
                   "argsz is the size of the structure and of the array of sub-regions");
    sdc_check_that(check, entry_size == sizeof(struct sdc_vfu_ioeventfd),
                   "a sub-region has 40 bytes: offset, size, fd_index, type, flags, padding, datamatch (there are %zu)", entry_size);
    sdc_check_that(check, reply.fds_count > 0, "the reply includes at least one file descriptor");
    for (uint32_t i = 0; i < list.count; i++) {
        struct sdc_vfu_ioeventfd entry;
        memcpy(&entry, reply.payload + sizeof list + i * sizeof entry, sizeof entry);
        sdc_check_that(check, entry.fd_index < reply.fds_count, "fd_index is the index of an fd that came with the reply");
        sdc_check_that(check, entry.type <= SDC_VFU_IO_FD_IOREGIONFD, "a sub-region is an ioeventfd or an ioregionfd");
        sdc_check_that(check, sdc_within(entry.offset, entry.size, region_size), "a sub-region lies in its region");
        sdc_check_that(check, entry.type != SDC_VFU_IO_FD_IOEVENTFD || sdc_fd_is_eventfd(reply.fds[entry.fd_index]),
                       "the fd of an ioeventfd is an eventfd");
    }
    return true;
}

static void io_fds(struct sdc_check *check)
{
    struct sdc_check_vfio vfio;
    bool any = false;
    sdc_check_vfio_open(&vfio, check);
    uint32_t count = regions_of(&vfio);
    for (uint32_t i = 0; i < count; i++)
        any = io_fds_of(&vfio, i, sdc_check_vfio_region(&vfio, i).size) || any;
    if (!any)
        sdc_check_not_offered(check, "no region has I/O fds");
}

static void io_fds_refused(struct sdc_check *check)
{
    struct sdc_check_vfio vfio;
    sdc_check_vfio_open(&vfio, check);
    uint32_t count = sdc_check_vfio_info(&vfio).num_regions;
    const struct sdc_vfu_region_io_fds bad[] = {{ROOM, 0, count, 0}, {ROOM, 0, UINT32_MAX, 0}};
    for (size_t i = 0; i < SDC_COUNT(bad); i++)
        sdc_check_vfio_refused(
            &vfio, &(struct sdc_check_command){.command = SDC_VFU_GET_REGION_IO_FDS, .payload = &bad[i], .size = sizeof bad[i]},
            "DEVICE_GET_INFO named num_regions regions: another has no I/O fds");
    const struct sdc_vfu_region_io_fds odd[] = {{ROOM, 1, 0, 0}, {ROOM, 0, 0, 1}, {0, 0, 0, 0}, {15, 0, 0, 0}};
    for (size_t i = 0; i < SDC_COUNT(odd); i++) {
        struct sdc_check_command command = {.command = SDC_VFU_GET_REGION_IO_FDS, .payload = &odd[i], .size = sizeof odd[i]};
        if (!sdc_check_vfio_open_question(&vfio, &command, "flags or a count that are not zero, or an argsz that is too small"))
            return;
    }
}

// --- interrupts ---

static void irqs_form(struct sdc_check *check)
{
    const uint32_t known = SDC_VFU_IRQ_EVENTFD | SDC_VFU_IRQ_MASKABLE | SDC_VFU_IRQ_AUTOMASKED | SDC_VFU_IRQ_NORESIZE;
    struct sdc_check_vfio vfio;
    sdc_check_vfio_open(&vfio, check);
    uint32_t count = min32(sdc_check_vfio_info(&vfio).num_irqs, SDC_CHECK_REGIONS_MAX);
    for (uint32_t i = 0; i < count; i++) {
        struct sdc_vfu_irq_info info = sdc_check_vfio_irq(&vfio, i);
        sdc_check_that(check, info.argsz == sizeof info, "argsz in the reply is the size of the full reply payload, 16");
        sdc_check_that(check, info.index == i, "index in the reply is that of the interrupt type");
        sdc_check_that(check, (info.flags & ~known) == 0, "there are four flags, EVENTFD, MASKABLE, AUTOMASKED and NORESIZE");
        if ((info.flags & SDC_VFU_IRQ_AUTOMASKED) && !(info.flags & SDC_VFU_IRQ_MASKABLE))
            sdc_check_fail(check, "what masks itself has to take UNMASK, which is what MASKABLE says");
        sdc_check_that(check, i != SDC_CHECK_IRQ_INTX || info.count <= 1, "a PCI function has at most one INTx interrupt");
        sdc_check_that(check, i != SDC_CHECK_IRQ_MSIX || info.count <= 2048, "MSI-X has at most 2048 vectors");
    }
}

static void no_such_irq(struct sdc_check *check)
{
    static const uint32_t smaller[] = {0, 8, 15};
    struct sdc_check_vfio vfio;
    sdc_check_vfio_open(&vfio, check);
    uint32_t count = sdc_check_vfio_info(&vfio).num_irqs;
    const uint32_t indices[] = {count, count + 1, UINT32_C(0x10000), UINT32_MAX};
    for (size_t i = 0; i < SDC_COUNT(indices); i++) {
        struct sdc_vfu_irq_info info = {.argsz = sizeof info, .index = indices[i]};
        sdc_check_vfio_refused(&vfio,
                               &(struct sdc_check_command){.command = SDC_VFU_GET_IRQ_INFO, .payload = &info, .size = sizeof info},
                               "DEVICE_GET_INFO named num_irqs types of interrupts: there is no information about another");
    }
    sdc_check_section(check, "vfio-user, Message sizes");
    for (size_t i = 0; i < SDC_COUNT(smaller); i++) {
        struct sdc_vfu_irq_info info = {.argsz = smaller[i]};
        struct sdc_check_command command = {.command = SDC_VFU_GET_IRQ_INFO, .payload = &info, .size = sizeof info};
        if (!sdc_check_vfio_open_question(&vfio, &command, "an argsz that is smaller than the fixed reply"))
            return;
    }
}

static const struct sdc_check_test tests[] = {
    {"device-info/form", INFO, 0, info_form},
    {"device-info/argsz", INFO, 0, info_argsz},
    {"region-info/form", REGION_INFO, 0, regions_form},
    {"region-info/config-region", REGION_INFO, SDC_CHECK_PCI, config_region},
    {"region-info/no-such-region", REGION_INFO, 0, no_such_region},
    {"region-info/argsz", REGION_INFO, 0, region_argsz},
    {"region-info/mappable-areas", REGION_INFO, 0, mappable_areas},
    {"region-io-fds/form", IO_FDS, 0, io_fds},
    {"region-io-fds/refused", IO_FDS, 0, io_fds_refused},
    {"irq-info/form", IRQ_INFO, 0, irqs_form},
    {"irq-info/no-such-irq", IRQ_INFO, 0, no_such_irq},
};

const struct sdc_check_table sdc_check_vfio_device = {tests, SDC_COUNT(tests)};
