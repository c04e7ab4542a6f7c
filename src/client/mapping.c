// SPDX-License-Identifier: BSD-3-Clause
// Parts of a region as memory of ours, through the fd that came with its description.
#include "client/vfio_client.h"

#include "base/check.h"
#include "os/fd.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

// All of a region can be mapped if no areas are named.
static bool may_map(const struct sdc_vfio_region *region, uint64_t offset, uint64_t size)
{
    if (!region->mappable || region->fd < 0 || size == 0 || !sdc_within(offset, size, region->size))
        return false;
    for (uint32_t i = 0; i < region->areas_count; i++) {
        const struct sdc_vfio_area *area = &region->areas[i];
        if (offset >= area->offset && sdc_within(offset - area->offset, size, area->size))
            return true;
    }
    return region->areas_count == 0;
}

int sdc_vfio_region_map(const struct sdc_vfio_region *region, uint64_t offset, uint64_t size,
                        struct sdc_vfio_mapping *mapping, struct sdc_error *err)
{
    struct sdc_file_identity file;
    uint64_t begin, end;
    *mapping = (struct sdc_vfio_mapping){0};
    if (!may_map(region, offset, size))
        return sdc_error_set(err, -ENOTSUP, SDC_FAULT_PEER,
                             "region %" PRIu32 ": %" PRIu64 " bytes at 0x%" PRIx64 " cannot be mapped",
                             region->index, size, offset);
    int ret = sdc_fd_identify(region->fd, &file);
    if (ret < 0 || file.kind == SDC_MEMORY_FILE_OTHER)
        return sdc_error_set(err, -EPROTO, SDC_FAULT_PEER,
                             "region %" PRIu32 ": the fd that the server sent is no memory", region->index);
    if (!sdc_add(region->fd_offset, offset, &begin) || !sdc_add(begin, size, &end) || end > file.size)
        return sdc_error_set(err, -EPROTO, SDC_FAULT_PEER,
                             "region %" PRIu32 ": the server's file has %" PRIu64 " bytes, too few for %" PRIu64
                             " at 0x%" PRIx64 " of it",
                             region->index, file.size, size, region->fd_offset);
    // Whole pages of the file's own size, so that they can be unmapped.
    uint64_t skip = begin % file.page_size, last = (skip + size - 1) / file.page_size;
    uint64_t pages_size = (last + 1) * file.page_size;
    ret = sdc_fd_map_part(region->fd, begin - skip, pages_size, region->writable, &mapping->pages);
    if (ret < 0)
        return sdc_error_set(err, ret, SDC_FAULT_HOST,
                             "region %" PRIu32 ": cannot map %" PRIu64 " bytes at 0x%" PRIx64 ": %s",
                             region->index, size, offset, strerror(-ret));
    mapping->pages_size = pages_size;
    mapping->data = (uint8_t *)mapping->pages + skip;
    mapping->size = size;
    return 0;
}

void sdc_vfio_region_unmap(struct sdc_vfio_mapping *mapping)
{
    if (mapping->pages)
        sdc_unmap(mapping->pages, mapping->pages_size);
    *mapping = (struct sdc_vfio_mapping){0};
}
