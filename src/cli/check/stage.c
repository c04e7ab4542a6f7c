// SPDX-License-Identifier: BSD-3-Clause
#include "cli/check/stage.h"

#include "base/check.h"

#include <inttypes.h>

enum { MEMORY = 32 << 20 };

static void open_disk(struct sdc_check_stage *stage)
{
    sdc_check_disk_read(&stage->bed, &stage->disk);
    if (stage->disk.sectors < SDC_CHECK_STAGE_DATA / SDC_VIRTIO_BLK_SECTOR)
        sdc_check_skip(stage->bed.check, "the disk has %" PRIu64 " sectors; %d are needed", stage->disk.sectors,
                       SDC_CHECK_STAGE_DATA / SDC_VIRTIO_BLK_SECTOR);
    // Requests are of whole blocks: whether a disk takes less than one is the affair of one test, disk/part-of-a-block.
    stage->block = stage->disk.block_sectors * SDC_VIRTIO_BLK_SECTOR;
}

static void open_form(struct sdc_check_stage *stage)
{
    stage->disk = (struct sdc_check_disk){
        .sectors = UINT64_MAX, .block_sectors = 1, .size_max = UINT32_MAX, .seg_max = SDC_CHECK_PIECES_MAX, .queues = 1};
    stage->block = SDC_CHECK_STAGE_SMALL;
}

void sdc_check_stage_open_as(struct sdc_check_stage *stage, struct sdc_check *check, struct sdc_check_bed_wishes wishes, uint32_t data)
{
    uint64_t packed = wishes.features & SDC_VIRTIO_F_RING_PACKED;

    if (!sdc_check_form_of(check))
        wishes.features |= SDC_CHECK_BLK_FEATURES;
    wishes.memory = MEMORY;
    sdc_check_bed_open(&stage->bed, check, &wishes);
    if (packed && !sdc_check_stage_has(stage, packed))
        sdc_check_not_offered(check, "VIRTIO_F_RING_PACKED is not offered");
    if (sdc_check_form_of(check))
        open_form(stage);
    else
        open_disk(stage);
    sdc_check_stage_request(stage, data, &stage->request);
}

void sdc_check_stage_request(struct sdc_check_stage *stage, uint32_t data, struct sdc_check_request *request)
{
    const struct sdc_check_form *form = sdc_check_form_of(stage->bed.check);

    if (form && !form->any_size)
        data = form->in_size;
    else if (!form)
        data = (data + stage->block - 1) / stage->block * stage->block;
    sdc_check_request_new(&stage->bed, data, request);
    request->type = SDC_VIRTIO_BLK_T_IN;
    request->size = data;
}

unsigned sdc_check_stage_entries(const struct sdc_check_stage *stage)
{
    struct sdc_check_piece pieces[SDC_CHECK_PIECES_MAX];

    return sdc_check_request_cut(&stage->request, &stage->disk, SDC_CHECK_CUT_PLAIN, SDC_CHECK_PIECES_MAX, pieces);
}

void sdc_check_stage_open(struct sdc_check_stage *stage, struct sdc_check *check, uint64_t features, uint32_t data)
{
    sdc_check_stage_open_as(stage, check, (struct sdc_check_bed_wishes){.features = features}, data);
}

void sdc_check_stage_needs(const struct sdc_check_stage *stage, uint64_t feature, const char *name)
{
    if (!sdc_check_stage_has(stage, feature))
        sdc_check_not_offered(stage->bed.check, "VIRTIO_F_%s is not offered", name);
}

void sdc_check_stage_read(struct sdc_check_stage *stage, uint16_t queue, enum sdc_check_cut cut, bool indirect)
{
    sdc_check_request_do(&stage->bed, queue, &stage->request, &stage->disk, cut, indirect);
}

void sdc_check_crowd_new(struct sdc_check_stage *stage, struct sdc_check_crowd *crowd, unsigned count)
{
    const unsigned blocks = (unsigned)sdc_max(SDC_CHECK_STAGE_DATA / stage->block, 1);

    crowd->count = (unsigned)sdc_min(count, SDC_CHECK_CROWD_MAX);
    for (unsigned i = 0; i < crowd->count; i++) {
        sdc_check_stage_request(stage, stage->block, &crowd->requests[i]);
        crowd->requests[i].sector = (uint64_t)(i % blocks) * stage->disk.block_sectors;
        crowd->requests[i].id = -1;
    }
}

unsigned sdc_check_crowd_add(struct sdc_check_stage *stage, uint16_t queue, struct sdc_check_crowd *crowd, bool indirect)
{
    unsigned added = 0;

    while (added < crowd->count) {
        struct sdc_check_request *request = &crowd->requests[added];
        sdc_check_request_prepare(request);
        if (!sdc_check_request_add(&stage->bed, queue, request, &stage->disk, SDC_CHECK_CUT_PLAIN, indirect))
            break;
        added++;
    }
    return added;
}

unsigned sdc_check_crowd_wave(struct sdc_check_stage *stage, uint16_t queue, struct sdc_check_crowd *crowd, bool polled)
{
    unsigned added = sdc_check_crowd_add(stage, queue, crowd, sdc_check_stage_has(stage, SDC_VIRTIO_F_INDIRECT_DESC));

    sdc_check_sent(stage->bed.check, "%u requests at once", added);
    sdc_check_bed_show(&stage->bed, queue);
    sdc_check_bed_wait_all(&stage->bed, queue, polled);
    for (unsigned i = 0; i < added; i++)
        sdc_check_request_judge(&stage->bed, queue, &crowd->requests[i], SDC_VIRTIO_BLK_S_OK);
    return added;
}
