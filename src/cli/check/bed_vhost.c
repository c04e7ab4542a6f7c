// SPDX-License-Identifier: BSD-3-Clause
// A bed's vhost-user half.
#include "cli/check/bed.h"

#include "base/check.h"
#include "os/fd.h"

#include <inttypes.h>
#include <string.h>

// What we know how to use. Notifications in band have tests of their own; a log has too.
#define PROTOCOL_FEATURES                                                                                                        \
    (SDC_VHOST_PROTOCOL_F_MQ | SDC_VHOST_PROTOCOL_F_REPLY_ACK | SDC_VHOST_PROTOCOL_F_CONFIG | SDC_VHOST_PROTOCOL_F_BACKEND_REQ | \
     SDC_VHOST_PROTOCOL_F_INFLIGHT_SHMFD | SDC_VHOST_PROTOCOL_F_RESET_DEVICE | SDC_VHOST_PROTOCOL_F_CONFIGURE_MEM_SLOTS |        \
     SDC_VHOST_PROTOCOL_F_STATUS)

// What guests' addresses and the front end's are apart, so that one taken for the other is found out.
#define USER_OFFSET UINT64_C(0x7f0000000000)
#define NO_ADDRESS (UINT64_C(1) << 50)

static bool has(const struct sdc_check_bed *bed, uint64_t protocol_feature)
{
    return (bed->vhost.protocol & protocol_feature) != 0;
}

// --- opening ---

struct sdc_vhost_region sdc_check_bed_vhost_region(const struct sdc_check_bed *bed)
{
    // Behind an IOMMU nobody is to use guest addresses.
    uint64_t guest = bed->memory.iova + (bed->iommu ? NO_ADDRESS : 0);

    return (struct sdc_vhost_region){
        .guest_address = guest, .size = bed->memory.size, .user_address = bed->memory.iova + bed->user_offset};
}

static void show_memory(struct sdc_check_bed *bed)
{
    struct {
        struct sdc_vhost_mem_table table;
        struct sdc_vhost_region region;
    } whole = {.table = {.num_regions = 1}, .region = sdc_check_bed_vhost_region(bed)};
    struct sdc_vhost_mem_reg one = {.region = whole.region};
    bool slots = has(bed, SDC_VHOST_PROTOCOL_F_CONFIGURE_MEM_SLOTS);

    sdc_check_vhost_do(&bed->vhost, &(struct sdc_check_vhost_request){
                                        .request = slots ? SDC_VHOST_ADD_MEM_REG : SDC_VHOST_SET_MEM_TABLE,
                                        .payload = slots ? (const void *)&one : &whole,
                                        .size = slots ? sizeof one : sizeof whole,
                                        .fds = &bed->memory.fd,
                                        .fds_count = 1,
                                    });
}

static void bring_up(struct sdc_check_bed *bed)
{
    const uint8_t begun = SDC_VIRTIO_S_ACKNOWLEDGE | SDC_VIRTIO_S_DRIVER;
    uint64_t protocol = bed->bare ? 0 : bed->vhost.features & SDC_VHOST_F_PROTOCOL_FEATURES;

    sdc_check_bed_vhost_status(bed, SDC_VIRTIO_S_ACKNOWLEDGE);
    sdc_check_bed_vhost_status(bed, begun);
    sdc_check_vhost_set_u64(&bed->vhost, SDC_VHOST_SET_FEATURES, bed->features | protocol);
    sdc_check_bed_vhost_status(bed, begun | SDC_VIRTIO_S_FEATURES_OK);
}

// A back end does not say how large a ring may be. Where it acknowledges, it is asked.
static void find_ring_max(struct sdc_check_bed *bed)
{
    struct sdc_vhost_vring_state state = {.num = SDC_CHECK_VHOST_RING_MAX};
    const struct sdc_check_vhost_request request = {.request = SDC_VHOST_SET_VRING_NUM, .payload = &state, .size = sizeof state};

    while (has(bed, SDC_VHOST_PROTOCOL_F_REPLY_ACK) && state.num > 1 && sdc_check_vhost_try(&bed->vhost, &request) != SDC_CHECK_VHOST_DONE)
        state.num /= 2;
    bed->ring_max = (uint16_t)state.num;
}

// --- the back end's channel ---

enum { PAGE = 4096 };

// The IOMMU translates an address of the driver's to the front end's own, a page at a time.
static void translate(struct sdc_check_bed *bed, const struct sdc_vhost_iotlb *miss)
{
    const struct sdc_client_memory *memory = &bed->memory;
    uint64_t page = miss->iova & ~(uint64_t)(PAGE - 1);
    struct sdc_vhost_iotlb update = {.iova = page,
                                     .size = PAGE,
                                     .user_address = page + bed->user_offset,
                                     .permissions = SDC_VHOST_ACCESS_READ | SDC_VHOST_ACCESS_WRITE,
                                     .type = SDC_VHOST_IOTLB_UPDATE};

    if (page - memory->iova >= memory->size)
        return; // nothing is sent for an address that is not mapped
    sdc_check_vhost_send(&bed->vhost, &(struct sdc_check_vhost_request){
                                          .request = SDC_VHOST_IOTLB_MSG, .payload = &update, .size = sizeof update});
    bed->vhost.iotlb_owed++;
}

static void asked(struct sdc_check_vhost *vhost, const struct sdc_check_vhost_message *message)
{
    struct sdc_check_bed *bed = vhost->owner;
    struct sdc_vhost_iotlb iotlb;
    struct sdc_vhost_vring_state state;

    if (message->header.request == SDC_VHOST_BACKEND_IOTLB_MSG && message->header.size == sizeof iotlb) {
        memcpy(&iotlb, message->payload, sizeof iotlb);
        if (iotlb.type == SDC_VHOST_IOTLB_MISS)
            translate(bed, &iotlb);
    } else if (message->header.request == SDC_VHOST_BACKEND_VRING_CALL && message->header.size == sizeof state) {
        memcpy(&state, message->payload, sizeof state);
        sdc_check_that(bed->check, bed->in_band && state.index < SDC_CHECK_QUEUES_MAX && bed->queues[state.index].started,
                       "VRING_CALL is for a vring that runs, where notifications are in band");
        sdc_eventfd_signal(bed->queues[state.index].call_fd);
    }
}

// Connects and agrees on everything but features.
static void shake(struct sdc_check_bed *bed)
{
    const struct sdc_check_bed_wishes *wishes = &bed->wishes;
    uint64_t protocol = wishes->protocol ? wishes->protocol : PROTOCOL_FEATURES;

    sdc_check_vhost_connect(&bed->vhost, bed->check);
    if (bed->bare) {
        sdc_check_vhost_fence(&bed->vhost);
        sdc_check_vhost_do(&bed->vhost, &(struct sdc_check_vhost_request){.request = SDC_VHOST_SET_OWNER});
    } else {
        sdc_check_vhost_shake(&bed->vhost, protocol | (bed->in_band ? SDC_VHOST_PROTOCOL_F_INBAND_NOTIFICATIONS : 0));
    }
    if (bed->in_band)
        sdc_check_vhost_needs(&bed->vhost, SDC_VHOST_PROTOCOL_F_INBAND_NOTIFICATIONS, "INBAND_NOTIFICATIONS");
    bed->offered = bed->vhost.features & ~SDC_VHOST_F_PROTOCOL_FEATURES;
    bed->features = bed->offered & (wishes->features | SDC_VIRTIO_F_VERSION_1 | (bed->iommu ? SDC_VIRTIO_F_ACCESS_PLATFORM : 0));
    if (bed->iommu && !(bed->features & SDC_VIRTIO_F_ACCESS_PLATFORM))
        sdc_check_not_offered(bed->check, "VIRTIO_F_ACCESS_PLATFORM is not offered");
    if (bed->iommu)
        sdc_check_vhost_needs(&bed->vhost, SDC_VHOST_PROTOCOL_F_BACKEND_REQ, "BACKEND_REQ");
    if (bed->iommu || bed->in_band)
        sdc_check_vhost_open_channel(&bed->vhost, asked, bed);
    uint64_t count = has(bed, SDC_VHOST_PROTOCOL_F_MQ) ? sdc_check_vhost_ask_u64(&bed->vhost, SDC_VHOST_GET_QUEUE_NUM) : 1;
    bed->queues_max = (uint16_t)sdc_min(count, SDC_VHOST_VRING_INDEX + 1);
}

void sdc_check_bed_vhost_open(struct sdc_check_bed *bed, const struct sdc_check_bed_wishes *wishes)
{
    bed->wishes = *wishes;
    bed->user_offset = USER_OFFSET;
    bed->bare = wishes->bare;
    bed->iommu = wishes->iommu;
    bed->in_band = wishes->in_band;
    shake(bed);
    bring_up(bed);
    find_ring_max(bed);
    show_memory(bed);
}

void sdc_check_bed_vhost_reconnect(struct sdc_check_bed *bed)
{
    sdc_check_vhost_close(&bed->vhost);
    bed->inflight_shown = false;
    for (unsigned i = 0; i < SDC_CHECK_QUEUES_MAX; i++)
        bed->queues[i].started = false;
    shake(bed);
    bring_up(bed);
    show_memory(bed);
}

// --- configuration, status ---

// Read from its beginning, as front ends do: there are back ends that know no offset (a test of its own, config/offset, is about that).
void sdc_check_bed_vhost_config(struct sdc_check_bed *bed, uint32_t offset, void *data, uint32_t size)
{
    struct {
        struct sdc_vhost_config head;
        uint8_t bytes[SDC_VHOST_CONFIG_MAX];
    } message = {.head = {.size = offset + size}};
    uint32_t whole = (uint32_t)sizeof message.head + offset + size;

    sdc_check_vhost_needs(&bed->vhost, SDC_VHOST_PROTOCOL_F_CONFIG, "CONFIG");
    sdc_check_vhost_ask(&bed->vhost, &(struct sdc_check_vhost_request){.request = SDC_VHOST_GET_CONFIG, .payload = &message, .size = whole},
                        &message, whole);
    memcpy(data, message.bytes + offset, size);
}

void sdc_check_bed_vhost_status(struct sdc_check_bed *bed, uint8_t status)
{
    if (has(bed, SDC_VHOST_PROTOCOL_F_STATUS))
        sdc_check_vhost_set_u64(&bed->vhost, SDC_VHOST_SET_STATUS, status);
}

// --- vrings ---

struct sdc_vhost_vring_addr sdc_check_bed_vhost_addresses(const struct sdc_check_bed *bed, uint16_t index)
{
    const struct sdc_check_ring *ring = &bed->queues[index].ring;
    const uint64_t offset = bed->iommu ? 0 : bed->user_offset; // behind an IOMMU a ring address is an IOVA

    return (struct sdc_vhost_vring_addr){
        .index = index,
        .descriptor = ring->desc_iova + offset,
        .used = ring->device_iova + offset,
        .available = ring->driver_iova + offset,
    };
}

void sdc_check_bed_vhost_make_inflight(struct sdc_check_bed *bed)
{
    struct sdc_vhost_inflight area = {.num_queues = bed->queues_max, .queue_size = bed->ring_max};
    struct sdc_check_vhost_message reply;

    if (!has(bed, SDC_VHOST_PROTOCOL_F_INFLIGHT_SHMFD) || bed->inflight_fd >= 0)
        return;
    sdc_check_vhost_send(&bed->vhost, &(struct sdc_check_vhost_request){
                                          .request = SDC_VHOST_GET_INFLIGHT_FD, .payload = &area, .size = sizeof area});
    sdc_check_vhost_reply(&bed->vhost, SDC_VHOST_GET_INFLIGHT_FD, sizeof area, &reply);
    sdc_check_that(bed->check, reply.fds_count == 1, "GET_INFLIGHT_FD has to bring one file descriptor of a shared buffer");
    memcpy(&bed->inflight, reply.payload, sizeof bed->inflight);
    bed->inflight_fd = reply.fds[0];
}

static void show_inflight(struct sdc_check_bed *bed)
{
    sdc_check_bed_vhost_make_inflight(bed);
    if (bed->inflight_fd < 0 || bed->inflight_shown)
        return;
    sdc_check_vhost_do(&bed->vhost, &(struct sdc_check_vhost_request){.request = SDC_VHOST_SET_INFLIGHT_FD,
                                                                      .payload = &bed->inflight,
                                                                      .size = sizeof bed->inflight,
                                                                      .fds = &bed->inflight_fd,
                                                                      .fds_count = 1});
    bed->inflight_shown = true;
}

void sdc_check_bed_vhost_start(struct sdc_check_bed *bed, uint16_t index, uint32_t base)
{
    struct sdc_check_queue *queue = &bed->queues[index];
    struct sdc_vhost_vring_addr addr = sdc_check_bed_vhost_addresses(bed, index);

    show_inflight(bed);
    sdc_check_vhost_set_state(&bed->vhost, SDC_VHOST_SET_VRING_NUM, index, queue->ring.config.size);
    sdc_check_vhost_set_state(&bed->vhost, SDC_VHOST_SET_VRING_BASE, index, base);
    sdc_check_vhost_do(&bed->vhost, &(struct sdc_check_vhost_request){
                                        .request = SDC_VHOST_SET_VRING_ADDR, .payload = &addr, .size = sizeof addr});
    if (!bed->in_band) {
        sdc_check_vhost_set_fd(&bed->vhost, SDC_VHOST_SET_VRING_CALL, index, queue->call_fd);
        sdc_check_vhost_set_fd(&bed->vhost, SDC_VHOST_SET_VRING_ERR, index, queue->err_fd);
        sdc_check_vhost_set_fd(&bed->vhost, SDC_VHOST_SET_VRING_KICK, index, queue->kick_fd);
    }
    if (!bed->bare && bed->vhost.features & SDC_VHOST_F_PROTOCOL_FEATURES)
        sdc_check_vhost_set_state(&bed->vhost, SDC_VHOST_SET_VRING_ENABLE, index, 1);
    queue->started = true;
}

uint32_t sdc_check_bed_vhost_stop(struct sdc_check_bed *bed, uint16_t index)
{
    struct sdc_vhost_vring_state state = {.index = index};

    bed->queues[index].started = false;
    sdc_check_vhost_ask(&bed->vhost,
                        &(struct sdc_check_vhost_request){
                            .request = SDC_VHOST_GET_VRING_BASE, .payload = &state, .size = sizeof state},
                        &state, sizeof state);
    sdc_check_that(bed->check, state.index == index, "the reply to GET_VRING_BASE has to be about vring %u", index);
    return state.num;
}

void sdc_check_bed_vhost_stop_all(struct sdc_check_bed *bed)
{
    for (uint16_t i = 0; i < SDC_CHECK_QUEUES_MAX; i++)
        if (bed->queues[i].started)
            sdc_check_bed_vhost_stop(bed, i);
}

void sdc_check_bed_vhost_reset(struct sdc_check_bed *bed)
{
    sdc_check_bed_vhost_stop_all(bed);
    if (has(bed, SDC_VHOST_PROTOCOL_F_RESET_DEVICE))
        sdc_check_vhost_do(&bed->vhost, &(struct sdc_check_vhost_request){.request = SDC_VHOST_RESET_DEVICE});
    sdc_check_bed_vhost_status(bed, 0);
    bring_up(bed);
}
