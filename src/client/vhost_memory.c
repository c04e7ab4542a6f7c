// SPDX-License-Identifier: BSD-3-Clause
// Memory that the back end is shown: region by region where it can (CONFIGURE_MEM_SLOTS), else all of it each time
// (SET_MEM_TABLE).
#include "client/vhost_client.h"

#include "base/check.h"
#include "os/fd.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static int show_table(struct sdc_vhost_client *client, struct sdc_error *err)
{
    struct sdc_vhost_mem_table table = {.num_regions = client->regions_count};
    struct sdc_vhost_message message;
    uint32_t size = client->regions_count * (uint32_t)sizeof *client->regions;

    sdc_vhost_fill(&message, SDC_VHOST_SET_MEM_TABLE, &table, sizeof table);
    memcpy(message.payload + sizeof table, client->regions, size);
    message.header.size += size;
    message.fds_count = client->regions_count;
    memcpy(message.fds, client->region_fds, message.fds_count * sizeof *message.fds);
    return sdc_vhost_tell(client, &message, err);
}

static int show_region(struct sdc_vhost_client *client, uint32_t request, const struct sdc_vhost_region *region, int fd,
                       struct sdc_error *err)
{
    struct sdc_vhost_mem_reg one = {.region = *region};
    struct sdc_vhost_message message;

    sdc_vhost_fill(&message, request, &one, sizeof one);
    if (fd >= 0)
        message.fds[message.fds_count++] = fd;
    return sdc_vhost_tell(client, &message, err);
}

static bool by_slots(const struct sdc_vhost_client *client)
{
    return sdc_vhost_has(client, SDC_VHOST_PROTOCOL_F_CONFIGURE_MEM_SLOTS);
}

int sdc_vhost_show_memory(struct sdc_vhost_client *client, struct sdc_error *err)
{
    int ret = 0;

    if (!by_slots(client))
        return client->regions_count > 0 ? show_table(client, err) : 0;
    for (unsigned i = 0; ret == 0 && i < client->regions_count; i++)
        ret = show_region(client, SDC_VHOST_ADD_MEM_REG, &client->regions[i], client->region_fds[i], err);
    return ret;
}

static int check(const struct sdc_vhost_client *client, const struct sdc_vhost_client_region *region, struct sdc_error *err)
{
    uint64_t end, most = sdc_min(client->session.mem_slots, SDC_VHOST_CLIENT_REGIONS);

    if (region->size == 0 || !sdc_add(region->guest_address, region->size, &end) ||
        !sdc_add(region->user_address, region->size, &end) || !sdc_add(region->offset, region->size, &end))
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "no such memory: %" PRIu64 " bytes at 0x%" PRIx64, region->size,
                             region->guest_address);
    if (client->regions_count >= most)
        return sdc_error_set(err, -ENOSPC, SDC_FAULT_PEER, "%s: the back end keeps %" PRIu64 " regions of memory", client->name,
                             most);
    for (unsigned i = 0; i < client->regions_count; i++) {
        const struct sdc_vhost_region *other = &client->regions[i];
        if (region->guest_address < other->guest_address + other->size && other->guest_address < region->guest_address + region->size)
            return sdc_error_set(err, -EEXIST, SDC_FAULT_USER, "%" PRIu64 " bytes at 0x%" PRIx64 " overlap other memory",
                                 region->size, region->guest_address);
    }
    return 0;
}

// Makes a place for one more at the end of the list.
static int grow(struct sdc_vhost_client *client)
{
    size_t count = client->regions_count + 1;
    struct sdc_vhost_region *regions = realloc(client->regions, count * sizeof *regions);
    if (regions)
        client->regions = regions;
    int *fds = regions ? realloc(client->region_fds, count * sizeof *fds) : NULL;
    if (fds)
        client->region_fds = fds;
    return fds ? 0 : -ENOMEM;
}

static void forget(struct sdc_vhost_client *client, unsigned at)
{
    sdc_fd_close(&client->region_fds[at]);
    client->regions_count--;
    memmove(&client->regions[at], &client->regions[at + 1], (client->regions_count - at) * sizeof *client->regions);
    memmove(&client->region_fds[at], &client->region_fds[at + 1], (client->regions_count - at) * sizeof *client->region_fds);
}

int sdc_vhost_client_map(struct sdc_vhost_client *client, const struct sdc_vhost_client_region *region,
                         struct sdc_error *err)
{
    int ret = check(client, region, err);
    if (ret < 0)
        return ret;
    int fd = sdc_fd_duplicate(region->fd);
    ret = fd < 0 ? fd : grow(client);
    if (ret < 0) {
        sdc_fd_close(&fd);
        return sdc_error_set(err, ret, SDC_FAULT_HOST, "%s: cannot keep one more region of memory: %s", client->name,
                             strerror(-ret));
    }
    unsigned at = client->regions_count++;
    client->region_fds[at] = fd;
    client->regions[at] = (struct sdc_vhost_region){.guest_address = region->guest_address,
                                                    .size = region->size,
                                                    .user_address = region->user_address,
                                                    .mmap_offset = region->offset};
    ret = by_slots(client) ? show_region(client, SDC_VHOST_ADD_MEM_REG, &client->regions[at], fd, err)
                           : show_table(client, err);
    if (ret < 0)
        forget(client, at);
    return ret;
}

int sdc_vhost_client_unmap(struct sdc_vhost_client *client, uint64_t guest_address, uint64_t size, struct sdc_error *err)
{
    unsigned at = 0;

    while (at < client->regions_count &&
           (client->regions[at].guest_address != guest_address || client->regions[at].size != size))
        at++;
    if (at == client->regions_count)
        return sdc_error_set(err, -ENOENT, SDC_FAULT_USER, "%" PRIu64 " bytes at 0x%" PRIx64 " are not mapped", size,
                             guest_address);
    struct sdc_vhost_region region = client->regions[at];
    forget(client, at);
    if (by_slots(client))
        return show_region(client, SDC_VHOST_REM_MEM_REG, &region, -1, err);
    return show_table(client, err);
}
