// SPDX-License-Identifier: BSD-3-Clause
// A guest whose VMM does more than share its memory: logs what a device writes, translates its addresses, sends notifications as messages.
#include "cli/check/stage.h"

#include "base/check.h"
#include "os/fd.h"
#include "os/memfd.h"

#include <string.h>

enum { LOG_PAGE = 4096, LOG_BYTES = 64 << 10, ROUNDS = 8 };

// --- the log of a migration ---

struct log {
    uint8_t *bits;
    int fd;
};

static bool is_marked(const struct log *log, uint64_t guest)
{
    uint64_t page = guest / LOG_PAGE;

    return __atomic_load_n(&log->bits[page / 8], __ATOMIC_SEQ_CST) & 1 << page % 8;
}

static void open_log(struct sdc_check_stage *stage, struct sdc_check *check, struct log *log)
{
    struct sdc_check_vhost *vhost = &stage->bed.vhost;
    struct sdc_check_vhost_message reply;
    const uint64_t area[2] = {LOG_BYTES, 0};
    void *bits = NULL;

    const struct sdc_check_bed_wishes wishes = {.features = SDC_CHECK_RINGS, .protocol = ~SDC_VHOST_PROTOCOL_F_INBAND_NOTIFICATIONS};
    sdc_check_stage_open_as(stage, check, wishes, SDC_CHECK_STAGE_DATA);
    sdc_check_vhost_needs(vhost, SDC_VHOST_PROTOCOL_F_LOG_SHMFD, "LOG_SHMFD");
    if (!(stage->bed.offered & SDC_VHOST_F_LOG_ALL))
        sdc_check_not_offered(check, "VHOST_F_LOG_ALL is not offered");
    log->fd = sdc_memfd_new("check-log", LOG_BYTES);
    if (log->fd < 0 || sdc_fd_map(log->fd, LOG_BYTES, true, &bits) < 0)
        sdc_check_skip(check, "the tester has no memory for a log");
    log->bits = bits;
    sdc_check_bed_run_queues(&stage->bed, 1, 64);
    sdc_check_vhost_send(vhost, &(struct sdc_check_vhost_request){.request = SDC_VHOST_SET_LOG_BASE,
                                                                  .payload = area,
                                                                  .size = sizeof area,
                                                                  .fds = &log->fd,
                                                                  .fds_count = 1});
    if (sdc_check_vhost_receive(vhost, &reply, sdc_check_patience(check)) != SDC_CHECK_VHOST_DONE ||
        reply.header.request != SDC_VHOST_SET_LOG_BASE)
        sdc_check_fail(check, "SET_LOG_BASE has to be answered");
}

// Logging is begun and ended while the ring runs.
static void set_logging(struct sdc_check_stage *stage, bool on)
{
    struct sdc_check_bed *bed = &stage->bed;
    struct sdc_vhost_vring_addr addr = sdc_check_bed_vhost_addresses(bed, 0);

    addr.flags = on ? SDC_VHOST_VRING_F_LOG : 0;
    addr.log = bed->queues[0].ring.device_iova;
    sdc_check_vhost_set_u64(&bed->vhost, SDC_VHOST_SET_FEATURES,
                            bed->features | (bed->vhost.features & SDC_VHOST_F_PROTOCOL_FEATURES) | (on ? SDC_VHOST_F_LOG_ALL : 0));
    sdc_check_vhost_do(&bed->vhost, &(struct sdc_check_vhost_request){
                                        .request = SDC_VHOST_SET_VRING_ADDR, .payload = &addr, .size = sizeof addr});
}

static void logged(struct sdc_check *check)
{
    struct sdc_check_stage stage;
    struct log log;

    open_log(&stage, check, &log);
    for (unsigned i = 0; i < ROUNDS; i++) {
        set_logging(&stage, true);
        memset(log.bits, 0, LOG_BYTES);
        sdc_check_stage_read(&stage, 0, i % SDC_CHECK_CUTS, false);
        const uint64_t data = sdc_check_request_data_iova(&stage.request);
        const uint64_t end = data + sdc_check_request_written(&stage.bed, 0, &stage.request);
        for (uint64_t at = data; at < end; at = (at | (LOG_PAGE - 1)) + 1)
            sdc_check_that(check, is_marked(&log, at), "each page of a buffer that the device has written to has to be marked in the log");
        sdc_check_that(check, is_marked(&log, stage.bed.queues[0].ring.device_iova),
                       "with VHOST_VRING_F_LOG the page of the used ring has to be marked in the log");
        set_logging(&stage, false);
        memset(log.bits, 0, LOG_BYTES);
        sdc_check_stage_read(&stage, 0, i % SDC_CHECK_CUTS, false);
        if (is_marked(&log, data))
            sdc_check_note(check, "pages are marked in the log though logging was ended");
    }
}

// --- an IOMMU ---

static void translated(struct sdc_check *check, uint64_t layout)
{
    struct sdc_check_stage stage;
    struct sdc_check_crowd crowd;

    sdc_check_stage_open_as(&stage, check, (struct sdc_check_bed_wishes){.features = layout | SDC_CHECK_RINGS, .iommu = true},
                            SDC_CHECK_STAGE_DATA);
    sdc_check_crowd_new(&stage, &crowd, 16);
    sdc_check_bed_run_queues(&stage.bed, 1, 64);
    for (unsigned i = 0; i < ROUNDS; i++) {
        sdc_check_stage_read(&stage, 0, i % SDC_CHECK_CUTS, i % 2 && sdc_check_stage_has(&stage, SDC_VIRTIO_F_INDIRECT_DESC));
        sdc_check_crowd_wave(&stage, 0, &crowd, i % 2);
    }
}

// What was known of an address is not known any more: the back end has to ask again, and goes on.
static void invalidated(struct sdc_check *check)
{
    struct sdc_check_stage stage;

    sdc_check_stage_open_as(&stage, check, (struct sdc_check_bed_wishes){.features = SDC_CHECK_RINGS, .iommu = true}, SDC_CHECK_STAGE_DATA);
    sdc_check_bed_run_queues(&stage.bed, 1, 64);
    for (unsigned i = 0; i < ROUNDS; i++) {
        const struct sdc_client_memory *memory = &stage.bed.memory;
        struct sdc_vhost_iotlb gone = {.iova = memory->iova, .size = memory->size, .type = SDC_VHOST_IOTLB_INVALIDATE};
        uint64_t value = 1;
        sdc_check_stage_read(&stage, 0, SDC_CHECK_CUT_PLAIN, false);
        struct sdc_check_vhost *vhost = &stage.bed.vhost;
        while (vhost->iotlb_owed > 0)
            sdc_check_vhost_fence(vhost);
        sdc_check_vhost_ask(vhost,
                            &(struct sdc_check_vhost_request){.request = SDC_VHOST_IOTLB_MSG, .payload = &gone, .size = sizeof gone},
                            &value, sizeof value);
        sdc_check_that(check, value == 0, "the back end has to acknowledge an invalidation with zero");
    }
    sdc_check_stage_read(&stage, 0, SDC_CHECK_CUT_PLAIN, false);
}

// --- notifications as messages ---

static void in_band(struct sdc_check *check, uint64_t layout)
{
    struct sdc_check_stage stage;
    struct sdc_check_crowd crowd;

    sdc_check_stage_open_as(&stage, check, (struct sdc_check_bed_wishes){.features = layout | SDC_CHECK_RINGS, .in_band = true},
                            SDC_VIRTIO_BLK_SECTOR);
    sdc_check_crowd_new(&stage, &crowd, 16);
    sdc_check_bed_run_queues(&stage.bed, 1, 64);
    for (unsigned i = 0; i < ROUNDS; i++) {
        sdc_check_bed_called(&stage.bed, 0, 0);
        sdc_check_ring_calls(&stage.bed.queues[0].ring, SDC_CHECK_CALLS_ALWAYS, 0);
        sdc_check_crowd_wave(&stage, 0, &crowd, true);
        sdc_check_that(check, sdc_check_bed_called(&stage.bed, 0, sdc_check_patience(check)),
                       "what was used has to be told of by a VRING_CALL on the back end's channel");
        sdc_check_stage_read(&stage, 0, SDC_CHECK_CUT_PLAIN, false);
    }
}

SDC_CHECK_BOTH(translated)
SDC_CHECK_BOTH(in_band)

static const struct sdc_check_test tests[] = {
    {"log/marked", "vhost-user, Migration", SDC_CHECK_REQUESTS, logged},
    {"iotlb-split/translated", "vhost-user, IOMMU support", SDC_CHECK_REQUESTS, split_translated},
    {"iotlb-packed/translated", "vhost-user, IOMMU support", SDC_CHECK_REQUESTS, packed_translated},
    {"iotlb/invalidated", "vhost-user, IOMMU support", SDC_CHECK_REQUESTS, invalidated},
    {"in-band-split/requests", "vhost-user, In-band notifications", SDC_CHECK_REQUESTS, split_in_band},
    {"in-band-packed/requests", "vhost-user, In-band notifications", SDC_CHECK_REQUESTS, packed_in_band},
};

const struct sdc_check_table sdc_check_vhost_guest = {tests, SDC_COUNT(tests)};
