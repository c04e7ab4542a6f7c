// SPDX-License-Identifier: BSD-3-Clause
// Behind an IOMMU: with VIRTIO_F_ACCESS_PLATFORM all addresses of the driver's, those of vrings too, are the IOMMU's, and the front end
// says one by one which of its own they stand for. The entries are a table of regions of their own, from which maps are published that
// are partial: what a queue misses there it wants, we ask the front end for it over its channel, and its updates come as requests of its
// own.
//
// One question is on its way at a time. What a front end does not answer waits, and keeps nothing else waiting: a queue that stops drops
// what it wants.
#include "transport/vhost_user/session.h"

#include "base/check.h"
#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

enum { ACCESS_ALL = SDC_ACCESS_READ | SDC_ACCESS_WRITE };
static_assert((int)SDC_ACCESS_READ == SDC_VHOST_ACCESS_READ && (int)SDC_ACCESS_WRITE == SDC_VHOST_ACCESS_WRITE, "one stands for the other");

static struct vhu_session *session_of(struct vhu_iotlb *iotlb)
{
    return sdc_container(iotlb, struct vhu_session, iotlb);
}

static enum sdc_access access_of(const struct sdc_transfer *want)
{
    return want->write ? SDC_ACCESS_WRITE : SDC_ACCESS_READ;
}

// --- what queues want ---

static void append(struct vhu_iotlb *iotlb, struct sdc_transfer *want)
{
    struct sdc_transfer **link = &iotlb->wants;

    while (*link)
        link = &(*link)->next;
    want->next = NULL;
    *link = want;
}

static void want_begin(struct sdc_remote *remote, struct sdc_transfer *want)
{
    struct vhu_iotlb *iotlb = sdc_container(remote, struct vhu_iotlb, remote);

    append(iotlb, want);
    vhu_session_step(session_of(iotlb));
}

void vhu_iotlb_init(struct vhu_iotlb *iotlb, struct sdc_loop *loop)
{
    iotlb->remote = (struct sdc_remote){.home = loop, .begin = want_begin};
}

// Ends the wants of which `ended` says so, with what it says.
static void end_wants(struct vhu_iotlb *iotlb, bool (*ended)(struct vhu_iotlb *iotlb, struct sdc_transfer *want), int result)
{
    for (struct sdc_transfer **link = &iotlb->wants, *want = *link; want; want = *link) {
        if (ended(iotlb, want)) {
            *link = want->next;
            sdc_transfer_finish(want, result);
        } else {
            link = &want->next;
        }
    }
}

static bool is_dropped(struct vhu_iotlb *iotlb, struct sdc_transfer *want)
{
    (void)iotlb;
    return atomic_load_explicit(&want->dropped, memory_order_relaxed);
}

void vhu_iotlb_forget_dropped(struct vhu_session *session)
{
    end_wants(&session->iotlb, is_dropped, -ECANCELED);
}

// The first address of [iova, iova + size) that the table has not for this access, or the end.
static uint64_t first_missing(const struct vhu_iotlb *iotlb, uint64_t iova, uint64_t size, enum sdc_access access)
{
    while (size > 0) {
        const struct sdc_region *region = sdc_regions_find(&iotlb->table.regions, iova);
        if (!region || !(region->access & (uint32_t)access))
            return iova;
        uint64_t length = sdc_min(size, region->size - (iova - region->iova));
        iova += length;
        size -= length;
    }
    return iova;
}

static uint64_t missing_of(const struct vhu_iotlb *iotlb, const struct sdc_transfer *want)
{
    return first_missing(iotlb, want->iova, want->size, access_of(want));
}

static bool is_there(struct vhu_iotlb *iotlb, struct sdc_transfer *want)
{
    return missing_of(iotlb, want) == want->iova + want->size;
}

// Whether what was asked for is what keeps this one waiting.
static bool waits_for_asked(struct vhu_iotlb *iotlb, struct sdc_transfer *want)
{
    return missing_of(iotlb, want) == iotlb->asked && access_of(want) == iotlb->asked_access;
}

static bool any_want(struct vhu_iotlb *iotlb, bool (*which)(struct vhu_iotlb *iotlb, struct sdc_transfer *want))
{
    for (struct sdc_transfer *want = iotlb->wants; want; want = want->next) {
        if (which(iotlb, want))
            return true;
    }
    return false;
}

// --- asking ---

// Wants take turns.
static void ask_next(struct vhu_iotlb *iotlb)
{
    struct sdc_transfer *want = iotlb->wants;

    if (!want)
        return;
    iotlb->wants = want->next;
    if (++want->outstanding > SDC_LIMIT_IOTLB_ASKS) {
        sdc_transfer_finish(want, -EFAULT);
        return;
    }
    append(iotlb, want);
    iotlb->asking = true;
    iotlb->said = iotlb->answered = iotlb->denied = false;
    iotlb->asked = missing_of(iotlb, want);
    iotlb->asked_access = access_of(want);
    vhu_channel_tell(session_of(iotlb));
}

bool vhu_iotlb_say(struct vhu_session *session, struct sdc_vhost_iotlb *message)
{
    struct vhu_iotlb *iotlb = &session->iotlb;

    if (!iotlb->asking || iotlb->said)
        return false;
    iotlb->said = true;
    *message = (struct sdc_vhost_iotlb){
        .iova = iotlb->asked,
        .permissions = iotlb->asked_access == SDC_ACCESS_WRITE ? SDC_VHOST_ACCESS_WRITE : SDC_VHOST_ACCESS_READ,
        .type = SDC_VHOST_IOTLB_MISS,
    };
    return true;
}

void vhu_iotlb_unsay(struct vhu_session *session)
{
    session->iotlb.said = false;
}

// The update, if there was one, was sent before the answer: it is among what has come on the other socket by now.
void vhu_iotlb_said(struct vhu_session *session)
{
    if (!session->iotlb.asking || !session->iotlb.said)
        return;
    session->iotlb.answered = true;
    vhu_session_step(session);
}

void vhu_iotlb_read_all(struct vhu_session *session)
{
    session->iotlb.denied |= session->iotlb.answered;
}

static void settle_asked(struct vhu_iotlb *iotlb)
{
    if (!iotlb->asking)
        return;
    if (iotlb->denied)
        end_wants(iotlb, waits_for_asked, -EFAULT);
    if (!any_want(iotlb, waits_for_asked))
        iotlb->asking = false;
}

void vhu_iotlb_run(struct vhu_session *session)
{
    struct vhu_iotlb *iotlb = &session->iotlb;

    vhu_iotlb_forget_dropped(session);
    if (!iotlb->on || sdc_virtio_core_busy(session->card->core))
        return;
    if (any_want(iotlb, is_there)) {
        // Its queue is to have the map when it hears of it.
        if (iotlb->changed && vhu_publish(session) < 0) {
            vhu_session_close(session, "no memory for translations");
            return;
        }
        end_wants(iotlb, is_there, 0);
    }
    settle_asked(iotlb);
    if (!iotlb->asking)
        ask_next(iotlb);
}

// --- entries ---

// Takes out every entry of which a part lies in the range, whole: what was wanted of it is asked for again. How many, or -ENOMEM.
static int take_out(struct vhu_iotlb *iotlb, uint64_t first, uint64_t last)
{
    const struct sdc_region *region;
    int count = 0;

    while ((region = sdc_regions_past(&iotlb->table.regions, first)) != NULL && region->iova <= last) {
        int rc = sdc_region_table_remove(&iotlb->table, region->iova, region->size);
        if (rc < 0)
            return rc;
        count++;
    }
    iotlb->changed |= count > 0;
    return count;
}

// What the front end has at the size bytes from user on, which may lie in several of its regions: one piece after the other.
static const struct sdc_region *piece_of(const struct vhu_session *session, uint64_t user)
{
    return sdc_regions_find(&session->memory.table.regions, user);
}

static bool is_shown(const struct vhu_session *session, uint64_t user, uint64_t size)
{
    uint64_t end;

    if (!sdc_add(user, size, &end))
        return false;
    while (user < end) {
        const struct sdc_region *region = piece_of(session, user);
        if (!region)
            return false;
        user = region->iova + region->size;
    }
    return true;
}

// Whether the table has it as the message says.
static bool is_known(const struct vhu_session *session, const struct sdc_vhost_iotlb *message)
{
    const struct sdc_region *region = sdc_regions_find(&session->iotlb.table.regions, message->iova);
    const struct sdc_region *piece = piece_of(session, message->user_address);

    return region && region->iova == message->iova && region->size == message->size && region->access == message->permissions &&
           region->host == piece->host + (message->user_address - piece->iova);
}

static int add(struct vhu_session *session, const struct sdc_vhost_iotlb *message)
{
    uint64_t user = message->user_address, iova = message->iova, left = message->size;

    while (left > 0) {
        const struct sdc_region *piece = piece_of(session, user);
        uint64_t offset = user - piece->iova;
        struct sdc_region entry = {.iova = iova,
                                   .size = sdc_min(left, piece->size - offset),
                                   .host = piece->host + offset,
                                   .access = message->permissions,
                                   .mapping = piece->mapping};
        int rc = sdc_region_table_add(&session->iotlb.table, &entry);
        if (rc < 0)
            return rc;
        session->iotlb.changed = true;
        user += entry.size;
        iova += entry.size;
        left -= entry.size;
    }
    return 0;
}

// What a request took away is nobody's any more.
static bool taken_away(struct vhu_session *session)
{
    if (session->memory.maps_alive > 1)
        return false;
    if (vhu_reply_u64(session, 0) < 0)
        vhu_session_close(session, "no memory for a reply");
    return true;
}

static int take_away(struct vhu_session *session)
{
    int rc = vhu_publish(session);
    if (rc < 0)
        return rc;
    session->waiting = taken_away;
    return VHU_LATER;
}

// Whoever replaces an entry has not said before that it is void: nobody uses the old one either when we answer.
static int update(struct vhu_session *session, const struct sdc_vhost_iotlb *message)
{
    struct vhu_iotlb *iotlb = &session->iotlb;
    uint64_t end;

    if (message->size == 0 || !sdc_add(message->iova, message->size, &end) || message->permissions & ~ACCESS_ALL ||
        !is_shown(session, message->user_address, message->size))
        return -EINVAL;
    // An answer it is in any case: what it does not allow is denied.
    if (iotlb->asking && iotlb->asked - message->iova < message->size)
        iotlb->denied = true;
    if (is_known(session, message))
        return 0;
    bool full = iotlb->table.regions.count >= SDC_LIMIT_IOTLB_ENTRIES;
    int gone = full ? take_out(iotlb, 0, UINT64_MAX) : take_out(iotlb, message->iova, end - 1);
    int rc = gone < 0 || message->permissions == 0 ? 0 : add(session, message);
    if (gone < 0 || rc < 0)
        return gone < 0 ? gone : rc;
    return gone > 0 ? take_away(session) : 0;
}

// Of [0, 2^64), whose size fits in no number, the size is 0.
static int invalidate(struct vhu_session *session, const struct sdc_vhost_iotlb *message)
{
    uint64_t last = message->iova + message->size - 1;

    if (last < message->iova || (message->size == 0 && message->iova != 0))
        return -EINVAL;
    int gone = take_out(&session->iotlb, message->iova, last);
    // Older maps have nothing that the table had not: they outlast no invalidation.
    return gone > 0 ? take_away(session) : gone;
}

static int deny(struct vhu_session *session, const struct sdc_vhost_iotlb *message)
{
    struct vhu_iotlb *iotlb = &session->iotlb;

    if (iotlb->asking && iotlb->asked - message->iova < sdc_max(message->size, 1))
        iotlb->denied = true;
    return 0;
}

int vhu_iotlb_msg(struct vhu_session *session, struct vhu_message *message)
{
    struct sdc_vhost_iotlb iotlb;
    int rc = -EINVAL;

    memcpy(&iotlb, message->payload, sizeof iotlb);
    if (!session->iotlb.on)
        rc = -EPROTO;
    else if (iotlb.type == SDC_VHOST_IOTLB_UPDATE)
        rc = update(session, &iotlb);
    else if (iotlb.type == SDC_VHOST_IOTLB_INVALIDATE)
        rc = invalidate(session, &iotlb);
    else if (iotlb.type == SDC_VHOST_IOTLB_ACCESS_FAIL)
        rc = deny(session, &iotlb);
    if (rc < 0)
        sdc_log_peer("%s: refused IOTLB message %u of %#" PRIx64 " + %#" PRIx64 " at %#" PRIx64, session->options->name, iotlb.type,
                     (uint64_t)iotlb.iova, (uint64_t)iotlb.size, (uint64_t)iotlb.user_address);
    return rc == VHU_LATER ? rc : vhu_reply_u64(session, rc < 0 ? (uint64_t)-rc : 0);
}

// --- on and off ---

// Every region of the front end's is found by its own address instead of the guest's, which means nothing behind an IOMMU, or again by
// the guest's.
static int find_by_user(struct vhu_session *session, bool by_user)
{
    struct sdc_region_table next = {.generation = session->memory.table.generation};
    int rc = 0;

    for (unsigned i = 0; rc == 0 && i < session->slots_count; i++) {
        const struct sdc_vhost_region *slot = &session->slots[i];
        uint64_t at = by_user ? slot->guest_address : slot->user_address;
        struct sdc_region region = *sdc_regions_find(&session->memory.table.regions, at);
        region.iova = by_user ? slot->user_address : slot->guest_address;
        rc = sdc_region_table_add(&next, &region);
    }
    sdc_region_table_clear(rc == 0 ? &session->memory.table : &next);
    if (rc == 0)
        session->memory.table = next;
    return rc;
}

int vhu_iotlb_turn(struct vhu_session *session, bool on)
{
    if (session->iotlb.on == on)
        return 0;
    int rc = find_by_user(session, on);
    if (rc < 0)
        return rc;
    session->iotlb.on = on;
    sdc_region_table_clear(&session->iotlb.table);
    return vhu_publish(session);
}

void vhu_iotlb_flush(struct vhu_session *session)
{
    if (session->iotlb.table.regions.count == 0)
        return;
    sdc_region_table_clear(&session->iotlb.table);
    if (vhu_publish(session) < 0)
        vhu_session_close(session, "no memory for a table of none");
}
