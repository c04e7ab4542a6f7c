// SPDX-License-Identifier: BSD-3-Clause
// GET_REGION_IO_FDS: eventfds that stand for writes to a region.
#include "client/vfio_client.h"

#include "base/check.h"
#include "os/fd.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    ENTRIES_ROOM = 64,     // that we ask for at first
    REPLY_MAX = 1 << 20,   // bytes: more is not believed
    SHADOW_SIZE = 48,      // of libvfio-user's entries, each with a place for a shadow behind `padding`
    SHADOW_DATAMATCH = 40, // where theirs have it
};

static int broken(const struct sdc_vfio_client *client, uint32_t index, const char *what,
                  struct sdc_error *err)
{
    return sdc_error_set(err, -EPROTO, SDC_FAULT_PEER,
                         "%s: eventfds of region %" PRIu32 ": the server's reply %s", client->name, index,
                         what);
}

static int ask(struct sdc_vfio_client *client, uint32_t index, uint32_t room, struct sdc_vfio_reply *reply,
               struct sdc_vfu_region_io_fds *head, struct sdc_error *err)
{
    *head = (struct sdc_vfu_region_io_fds){.argsz = room, .index = index};
    struct sdc_vfio_command command = {.command = SDC_VFU_GET_REGION_IO_FDS,
                                       .head = head,
                                       .head_size = sizeof *head};
    int ret = sdc_vfio_client_do(client, &command, sizeof *head, reply, err);
    if (ret < 0)
        return ret;
    memcpy(head, reply->payload, sizeof *head);
    if (head->index == index)
        return 0;
    sdc_vfio_reply_release(reply);
    return broken(client, index, "is about another region", err);
}

// Asks with room for a few entries, and if there are more, for as many as there are.
static int ask_for_all(struct sdc_vfio_client *client, uint32_t index, struct sdc_vfio_reply *reply,
                       struct sdc_vfu_region_io_fds *head, struct sdc_error *err)
{
    uint32_t room = sizeof *head + ENTRIES_ROOM * SHADOW_SIZE;
    int ret = ask(client, index, room, reply, head, err);
    if (ret < 0 || head->argsz <= room)
        return ret;
    sdc_vfio_reply_release(reply);
    if (head->argsz > REPLY_MAX)
        return broken(client, index, "wants room for more than 1 MiB", err);
    room = head->argsz;
    ret = ask(client, index, room, reply, head, err);
    if (ret < 0 || head->argsz <= room)
        return ret;
    sdc_vfio_reply_release(reply);
    return broken(client, index, "wants room for more than it said before", err);
}

// Reads one entry, of 40 or 48 bytes.
static void read_entry(const uint8_t *from, size_t stride, struct sdc_vfu_ioeventfd *entry)
{
    memcpy(entry, from, sizeof *entry);
    if (stride == SHADOW_SIZE)
        memcpy(&entry->datamatch, from + SHADOW_DATAMATCH, sizeof entry->datamatch);
}

static int take_entries(struct sdc_vfio_client *client, const struct sdc_vfio_region *region,
                        const struct sdc_vfio_reply *reply, size_t stride, uint32_t count,
                        struct sdc_vfio_ioeventfds *list, struct sdc_error *err)
{
    const uint8_t *at = (const uint8_t *)reply->payload + sizeof(struct sdc_vfu_region_io_fds);
    for (uint32_t i = 0; i < count; i++, at += stride) {
        struct sdc_vfu_ioeventfd entry;
        read_entry(at, stride, &entry);
        if (entry.type != SDC_VFU_IO_FD_IOEVENTFD)
            continue;
        if (entry.fd_index >= reply->fds_count)
            return broken(client, region->index, "has an entry whose fd did not come", err);
        if (!sdc_within(entry.offset, entry.size, region->size))
            return broken(client, region->index, "has an entry outside the region", err);
        bool match = entry.flags & SDC_VFU_IOEVENTFD_DATAMATCH;
        list->entries[list->count++] = (struct sdc_vfio_ioeventfd){
            .offset = entry.offset,
            .size = entry.size,
            .match = match,
            .datamatch = match ? entry.datamatch : 0,
            .fd = reply->fds[entry.fd_index],
        };
    }
    return 0;
}

int sdc_vfio_client_ioeventfds(struct sdc_vfio_client *client, const struct sdc_vfio_region *region,
                               struct sdc_vfio_ioeventfds *list, struct sdc_error *err)
{
    struct sdc_vfu_region_io_fds head;
    struct sdc_vfio_reply reply;
    *list = (struct sdc_vfio_ioeventfds){0};
    int ret = ask_for_all(client, region->index, &reply, &head, err);
    if (ret < 0)
        return ret;
    size_t size = reply.size - sizeof head, stride = sizeof(struct sdc_vfu_ioeventfd);
    if (size != head.count * (uint64_t)stride)
        stride = SHADOW_SIZE;
    if (size != head.count * (uint64_t)stride)
        ret = broken(client, region->index, "has another number of entries than it says", err);
    else if (!(list->entries = calloc(head.count + (size_t)1, sizeof *list->entries)))
        ret = sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "%s: no memory for %" PRIu32 " eventfds",
                            client->name, head.count);
    if (ret == 0)
        ret = take_entries(client, region, &reply, stride, head.count, list, err);
    memcpy(list->fds, reply.fds, sizeof list->fds);
    list->fds_count = reply.fds_count;
    reply.fds_count = 0;
    sdc_vfio_reply_release(&reply);
    if (ret < 0)
        sdc_vfio_ioeventfds_release(list);
    return ret;
}

void sdc_vfio_ioeventfds_release(struct sdc_vfio_ioeventfds *list)
{
    for (unsigned i = 0; i < list->fds_count; i++)
        sdc_fd_close(&list->fds[i]);
    free(list->entries);
    *list = (struct sdc_vfio_ioeventfds){0};
}
