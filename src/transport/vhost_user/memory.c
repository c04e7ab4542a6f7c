// SPDX-License-Identifier: BSD-3-Clause
// Guest memory: a table at once, or region by region. Each region has the guest's address, by which descriptors name it, and the front
// end's own, by which vrings do. Behind an IOMMU they go by neither, and regions are found by the front end's addresses alone (iotlb.c).
#include "transport/vhost_user/session.h"

#include "base/check.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

bool vhu_translate(const struct vhu_session *session, uint64_t user, uint64_t size, uint64_t *guest)
{
    for (unsigned i = 0; i < session->slots_count; i++) {
        const struct sdc_vhost_region *slot = &session->slots[i];
        if (user >= slot->user_address && sdc_within(user - slot->user_address, size, slot->size)) {
            *guest = slot->guest_address + (user - slot->user_address);
            return true;
        }
    }
    return false;
}

// --- taking a new table over ---

// The card uses the newest map, and what used older ones has ended.
static bool memory_taken(struct vhu_session *session)
{
    if (session->memory.maps_alive > 1 || session->memory.windows_leaving > 0)
        return false;
    return vhu_finish(session);
}

int vhu_publish(struct vhu_session *session)
{
    struct vhu_iotlb *iotlb = &session->iotlb;
    struct sdc_map *map = sdc_guest_memory_publish_other(&session->memory, iotlb->on ? &iotlb->table : &session->memory.table);
    if (!map)
        return -ENOMEM;
    map->partial = iotlb->on;
    map->remote = iotlb->on ? &iotlb->remote : NULL;
    iotlb->changed = false;
    sdc_virtio_core_set_map(session->card->core, map);
    return 0;
}

// What was translated to memory that is shown no more is void; of other translations nothing is lost, they are asked for again.
static int take_over(struct vhu_session *session)
{
    sdc_region_table_clear(&session->iotlb.table);
    int rc = vhu_publish(session);
    if (rc < 0)
        return rc;
    session->waiting = memory_taken;
    return VHU_LATER;
}

// --- regions ---

static bool overlaps(const struct sdc_vhost_region *a, const struct sdc_vhost_region *b)
{
    return a->user_address < b->user_address + b->size && b->user_address < a->user_address + a->size;
}

// What the front end has shown, or is showing: at most as many slots as there is room for.
struct shown {
    struct sdc_region_table *table;
    struct sdc_vhost_region *slots;
    unsigned count;
    unsigned max;
};

static uint64_t place_of(const struct vhu_session *session, const struct sdc_vhost_region *slot)
{
    return session->iotlb.on ? slot->user_address : slot->guest_address;
}

static int add(struct vhu_session *session, struct shown *shown, const struct sdc_vhost_region *slot, int fd)
{
    struct sdc_region region = {
        .iova = place_of(session, slot), .size = slot->size, .access = SDC_ACCESS_READ | SDC_ACCESS_WRITE};
    uint64_t end;

    if (slot->size > SDC_LIMIT_DMA_REGION_BYTES || !sdc_add(slot->user_address, slot->size, &end))
        return -EINVAL;
    if (shown->count == shown->max)
        return -ENOSPC;
    for (unsigned i = 0; i < shown->count; i++) {
        if (overlaps(slot, &shown->slots[i]))
            return -EEXIST;
    }
    int rc = slot->size > 0 ? sdc_guest_memory_find(&session->memory, fd, slot->mmap_offset, &region) : -EINVAL;
    if (rc == 0)
        rc = sdc_region_table_add(shown->table, &region);
    sdc_mapping_unref(region.mapping);
    if (rc == 0)
        shown->slots[shown->count++] = *slot;
    return rc;
}

// A table that is refused leaves the one before as it was.
int vhu_set_mem_table(struct vhu_session *session, struct vhu_message *message)
{
    struct sdc_vhost_region said[SDC_VHOST_MEM_TABLE_MAX], slots[SDC_VHOST_MEM_TABLE_MAX];
    struct sdc_region_table next = {.generation = session->memory.table.generation};
    struct shown shown = {.table = &next, .slots = slots, .max = SDC_VHOST_MEM_TABLE_MAX};
    struct sdc_vhost_mem_table table;
    int rc = 0;

    memcpy(&table, message->payload, sizeof table);
    if (table.num_regions > SDC_VHOST_MEM_TABLE_MAX || table.num_regions != (uint32_t)message->fds_count ||
        message->header.size < sizeof table + table.num_regions * sizeof *said)
        return -EINVAL;
    memcpy(said, message->payload + sizeof table, table.num_regions * sizeof *said);
    for (uint32_t i = 0; rc == 0 && i < table.num_regions; i++)
        rc = add(session, &shown, &said[i], message->fds[i]);
    if (rc < 0) {
        sdc_region_table_clear(&next);
        return rc;
    }
    sdc_region_table_clear(&session->memory.table);
    session->memory.table = next;
    memcpy(session->slots, slots, shown.count * sizeof *slots);
    session->slots_count = shown.count;
    return take_over(session);
}

int vhu_get_max_mem_slots(struct vhu_session *session, struct vhu_message *message)
{
    (void)message;
    return vhu_reply_u64(session, SDC_LIMIT_VHOST_SLOTS);
}

int vhu_add_mem_reg(struct vhu_session *session, struct vhu_message *message)
{
    struct sdc_vhost_mem_reg reg;

    memcpy(&reg, message->payload, sizeof reg);
    struct shown shown = {.table = &session->memory.table, .slots = session->slots, .count = session->slots_count,
                          .max = SDC_LIMIT_VHOST_SLOTS};
    int rc = add(session, &shown, &reg.region, message->fds[0]);
    session->slots_count = shown.count;
    if (rc < 0 || session->iotlb.on) // no translation leads there yet
        return rc;
    return take_over(session);
}

int vhu_rem_mem_reg(struct vhu_session *session, struct vhu_message *message)
{
    struct sdc_vhost_mem_reg reg;

    memcpy(&reg, message->payload, sizeof reg);
    for (unsigned i = 0; i < session->slots_count; i++) {
        const struct sdc_vhost_region *slot = &session->slots[i];
        if (slot->guest_address != reg.region.guest_address || slot->user_address != reg.region.user_address ||
            slot->size != reg.region.size)
            continue;
        int rc = sdc_region_table_remove(&session->memory.table, place_of(session, slot), slot->size);
        if (rc < 0)
            return rc;
        session->slots[i] = session->slots[--session->slots_count];
        return take_over(session);
    }
    return -ENOENT;
}
