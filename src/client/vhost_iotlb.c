// SPDX-License-Identifier: BSD-3-Clause
// A device behind an IOMMU: the front end's table of translations. The back end asks on its channel for what it misses, and is answered
// with an update, a request of the front end's own: when the reply that is due has come, since replies come in the order of the requests.
#include "client/vhost_client.h"

#include "base/check.h"

#include <sidecard/virtio.h>

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { PAGE = 4096 };

static bool holds(const struct sdc_vhost_client_entry *entry, uint64_t iova)
{
    return iova - entry->iova < entry->size;
}

// The first entry that ends behind iova: they are sorted.
static unsigned find(const struct sdc_vhost_client *client, uint64_t iova)
{
    unsigned low = 0;

    for (unsigned count = client->entries_count; count > 0;) {
        unsigned half = count / 2;
        const struct sdc_vhost_client_entry *entry = &client->entries[low + half];
        if (entry->iova + entry->size <= iova) {
            low += half + 1;
            count -= half + 1;
        } else {
            count = half;
        }
    }
    return low;
}

// --- messages, under lock ---

// Sends it and waits for the answer, which there is in any case. -EIO: refused.
static int say(struct sdc_vhost_client *client, const struct sdc_vhost_iotlb *iotlb, struct sdc_error *err)
{
    struct sdc_vhost_message message;
    uint64_t result = 0;

    sdc_vhost_fill(&message, SDC_VHOST_IOTLB_MSG, iotlb, sizeof *iotlb);
    message.header.flags |= SDC_VHOST_NEED_REPLY;
    int ret = sdc_vhost_send(client, &message, err);
    if (ret == 0)
        ret = sdc_vhost_receive(client, SDC_VHOST_IOTLB_MSG, &message, err);
    if (ret < 0)
        return ret;
    sdc_vhost_close_fds(&message);
    memcpy(&result, message.payload, sizeof result);
    if (message.header.size == sizeof result && result == 0)
        return 0;
    return sdc_error_set(err, -EIO, SDC_FAULT_PEER, "%s: the back end refuses a translation of 0x%" PRIx64, client->name,
                         (uint64_t)iotlb->iova);
}

// The page that holds what was missed; nothing if there is none, or not for that.
static int update(struct sdc_vhost_client *client, const struct sdc_vhost_iotlb *miss, struct sdc_error *err)
{
    unsigned at = find(client, miss->iova);
    const struct sdc_vhost_client_entry *entry = at < client->entries_count ? &client->entries[at] : NULL;

    if (!entry || !holds(entry, miss->iova) || miss->permissions & ~entry->access || miss->permissions == 0)
        return -EFAULT;
    uint64_t offset = (miss->iova - entry->iova) & ~(uint64_t)(PAGE - 1);
    struct sdc_vhost_iotlb iotlb = {
        .iova = entry->iova + offset,
        .size = sdc_min(PAGE, entry->size - offset),
        .user_address = entry->user_address + offset,
        .permissions = (uint8_t)entry->access,
        .type = SDC_VHOST_IOTLB_UPDATE,
    };
    return say(client, &iotlb, err);
}

int sdc_vhost_answer_missed(struct sdc_vhost_client *client, struct sdc_error *err)
{
    while (client->missed_pending && client->failure.code == 0) {
        struct sdc_vhost_message message = client->missed;
        struct sdc_vhost_iotlb iotlb;
        memcpy(&iotlb, message.payload, sizeof iotlb);
        client->missed_pending = false; // another may come while this one is answered
        int ret = update(client, &iotlb, NULL);
        if (client->failure.code == 0)
            sdc_vhost_answer(client, &message, ret < 0 ? (uint64_t)-ret : 0, NULL);
    }
    return sdc_vhost_failed(client, err);
}

static bool is_behind(const struct sdc_vhost_client *client)
{
    return (client->accepted & SDC_VIRTIO_F_ACCESS_PLATFORM) != 0;
}

// --- the caller's ---

static int add(struct sdc_vhost_client *client, const struct sdc_vhost_client_entry *entry)
{
    unsigned at = find(client, entry->iova);

    if (at < client->entries_count && client->entries[at].iova < entry->iova + entry->size)
        return -EEXIST;
    struct sdc_vhost_client_entry *entries = realloc(client->entries, (client->entries_count + 1) * sizeof *entries);
    if (!entries)
        return -ENOMEM;
    client->entries = entries;
    memmove(&entries[at + 1], &entries[at], (client->entries_count - at) * sizeof *entries);
    entries[at] = *entry;
    client->entries_count++;
    return 0;
}

int sdc_vhost_client_translate(struct sdc_vhost_client *client, const struct sdc_vhost_client_entry *entry, struct sdc_error *err)
{
    uint64_t end;

    if (entry->size == 0 || (entry->iova | entry->size) % PAGE != 0 || !sdc_add(entry->iova, entry->size, &end) ||
        !sdc_add(entry->user_address, entry->size, &end) || entry->access == 0 ||
        entry->access & ~(uint32_t)(SDC_VHOST_ACCESS_READ | SDC_VHOST_ACCESS_WRITE))
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "no such translation: %" PRIu64 " bytes at 0x%" PRIx64, entry->size,
                             entry->iova);
    pthread_mutex_lock(&client->lock);
    int ret = add(client, entry);
    pthread_mutex_unlock(&client->lock);
    if (ret == -EEXIST)
        return sdc_error_set(err, ret, SDC_FAULT_USER, "%" PRIu64 " bytes at 0x%" PRIx64 " overlap another translation", entry->size,
                             entry->iova);
    return ret == 0 ? 0 : sdc_error_set(err, ret, SDC_FAULT_HOST, "%s: no memory for one more translation", client->name);
}

static int invalidate(struct sdc_vhost_client *client, uint64_t iova, uint64_t size, struct sdc_error *err)
{
    struct sdc_vhost_iotlb iotlb = {.iova = iova, .size = size, .type = SDC_VHOST_IOTLB_INVALIDATE};
    int ret = is_behind(client) ? say(client, &iotlb, err) : 0;
    int answered = sdc_vhost_answer_missed(client, ret == 0 ? err : NULL);

    return ret < 0 ? ret : answered;
}

int sdc_vhost_client_invalidate(struct sdc_vhost_client *client, uint64_t iova, uint64_t size, struct sdc_error *err)
{
    pthread_mutex_lock(&client->lock);
    int ret = invalidate(client, iova, size, err);
    pthread_mutex_unlock(&client->lock);
    return ret;
}

int sdc_vhost_client_untranslate(struct sdc_vhost_client *client, uint64_t iova, uint64_t size, struct sdc_error *err)
{
    int ret = -ENOENT;

    pthread_mutex_lock(&client->lock);
    unsigned at = find(client, iova);
    if (at < client->entries_count && client->entries[at].iova == iova && client->entries[at].size == size) {
        client->entries_count--;
        memmove(&client->entries[at], &client->entries[at + 1], (client->entries_count - at) * sizeof *client->entries);
        ret = invalidate(client, iova, size, err);
    } else {
        sdc_error_set(err, ret, SDC_FAULT_USER, "%" PRIu64 " bytes at 0x%" PRIx64 " are not translated", size, iova);
    }
    pthread_mutex_unlock(&client->lock);
    return ret;
}
