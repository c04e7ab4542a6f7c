// SPDX-License-Identifier: BSD-3-Clause
#include "cli/check/request.h"

#include "base/bytes.h"
#include "base/check.h"

#include <inttypes.h>
#include <string.h>

enum {
    GUARD = 64,
    HEADER = 16,
    RANGE = 16,
    ID_BYTES = 20,
    POISON = 0xa5,
    GUARD_BYTE = 0x5a,
    TELLING = 16, // bytes that are not by chance what they were before
};

// --- a request's memory ---

static bool has_range(const struct sdc_check_request *request)
{
    return request->type == SDC_VIRTIO_BLK_T_DISCARD || request->type == SDC_VIRTIO_BLK_T_WRITE_ZEROES;
}

static bool device_writes(const struct sdc_check_request *request)
{
    return request->form || request->type == SDC_VIRTIO_BLK_T_IN || request->type == SDC_VIRTIO_BLK_T_GET_ID;
}

static uint32_t head_size(const struct sdc_check_request *request)
{
    return request->form ? request->form->out_size : HEADER;
}

static uint32_t status_size(const struct sdc_check_request *request)
{
    return request->form ? 0 : 1;
}

static uint8_t *head_of(const struct sdc_check_request *request)
{
    return request->memory + GUARD;
}

static uint8_t *end_of(const struct sdc_check_request *request)
{
    return sdc_check_request_data(request) + request->size + status_size(request);
}

const struct sdc_check_form *sdc_check_form_of(const struct sdc_check *check)
{
    if (check->target->has & SDC_CHECK_BLK)
        return NULL;
    return check->options->request ? &check->options->form : &sdc_check_entropy;
}

void sdc_check_request_new(struct sdc_check_bed *bed, uint32_t room, struct sdc_check_request *request)
{
    *request = (struct sdc_check_request){.form = sdc_check_form_of(bed->check), .room = room};
    request->memory =
        sdc_check_bed_take(bed, GUARD + (uint64_t)head_size(request) + room + status_size(request) + GUARD, &request->iova);
    request->table = sdc_check_bed_take(bed, SDC_CHECK_PIECES_MAX * SDC_CHECK_DESC_BYTES, &request->table_iova);
}

uint8_t *sdc_check_request_data(const struct sdc_check_request *request)
{
    return head_of(request) + head_size(request);
}

uint8_t sdc_check_request_status(const struct sdc_check_request *request)
{
    return sdc_check_request_data(request)[request->size];
}

uint64_t sdc_check_request_header_iova(const struct sdc_check_request *request)
{
    return request->iova + GUARD;
}

uint64_t sdc_check_request_data_iova(const struct sdc_check_request *request)
{
    return request->iova + GUARD + head_size(request);
}

uint64_t sdc_check_request_status_iova(const struct sdc_check_request *request)
{
    return sdc_check_request_data_iova(request) + request->size;
}

static void prepare_disk(struct sdc_check_request *request)
{
    uint8_t *head = head_of(request), *data = sdc_check_request_data(request);

    if (has_range(request))
        request->size = RANGE;
    else if (request->type == SDC_VIRTIO_BLK_T_GET_ID)
        request->size = ID_BYTES;
    else if (request->type == SDC_VIRTIO_BLK_T_FLUSH)
        request->size = 0;
    sdc_put32(head, request->type);
    sdc_put32(head + 4, 0);
    sdc_put64(head + 8, has_range(request) || request->type == SDC_VIRTIO_BLK_T_FLUSH ? 0 : request->sector);
    if (has_range(request)) {
        sdc_put64(data, request->sector);
        sdc_put32(data + 8, request->sectors);
        sdc_put32(data + 12, request->flags);
    }
    data[request->size] = SDC_CHECK_DISK_UNTOUCHED;
}

void sdc_check_request_prepare(struct sdc_check_request *request)
{
    if (request->form)
        memcpy(head_of(request), request->form->out, request->form->out_size);
    else
        prepare_disk(request);
    if (device_writes(request))
        memset(sdc_check_request_data(request), POISON, request->size);
    memset(request->memory, GUARD_BYTE, GUARD);
    memset(end_of(request), GUARD_BYTE, GUARD);
}

// --- cutting ---

const char *sdc_check_cut_name(enum sdc_check_cut cut)
{
    static const char *const names[SDC_CHECK_CUTS] = {"header, data and status in one descriptor each", "pieces of odd sizes",
                                                      "data in many pieces", "data and its neighbour in one descriptor"};

    return names[cut];
}

struct cutter {
    struct sdc_check_piece *pieces;
    unsigned count;
};

// Appends [iova, iova + size) in pieces of `step` bytes.
static void cut_evenly(struct cutter *cutter, uint64_t iova, uint64_t size, uint64_t step, uint16_t flags)
{
    for (uint64_t done = 0; done < size; done += step)
        cutter->pieces[cutter->count++] = (struct sdc_check_piece){
            .iova = iova + done, .size = (uint32_t)sdc_min(step, size - done), .flags = flags};
}

// Pieces of 1, 7, 511, 1, ... bytes; what is left when `most` are nearly used up goes into the last.
static void cut_oddly(struct cutter *cutter, uint64_t iova, uint64_t size, unsigned most, uint16_t flags)
{
    static const uint32_t steps[] = {1, 7, 511, 1, 3, 1021};

    for (unsigned i = 0; size > 0; i++) {
        uint64_t step = i + 1 >= most ? size : sdc_min(size, steps[i % SDC_COUNT(steps)]);
        cut_evenly(cutter, iova, step, step, flags);
        iova += step;
        size -= step;
    }
}

unsigned sdc_check_request_cut(const struct sdc_check_request *request, const struct sdc_check_disk *disk, enum sdc_check_cut cut,
                               unsigned most, struct sdc_check_piece *pieces)
{
    const uint16_t data_flags = device_writes(request) ? SDC_CHECK_DESC_WRITE : 0;
    const uint32_t head = head_size(request), status = status_size(request);
    const uint64_t header = sdc_check_request_header_iova(request), data = header + head, size = request->size;
    const uint64_t for_data = sdc_min(sdc_min(most, SDC_CHECK_PIECES_MAX) - sdc_min(most, head + 2), disk->seg_max);
    struct cutter cutter = {.pieces = pieces};

    if (cut == SDC_CHECK_CUT_JOINED && size > 0 && size + head <= disk->size_max) {
        bool with_status = device_writes(request);
        cut_evenly(&cutter, header, with_status ? head : head + size, head + size, 0);
        cut_evenly(&cutter, with_status ? data : data + size, with_status ? size + status : status, size + 1, SDC_CHECK_DESC_WRITE);
        return cutter.count;
    }
    bool odd = cut == SDC_CHECK_CUT_BYTES && most > head + 2;
    cut_evenly(&cutter, header, head, odd ? 1 : head, 0);
    if (size > 0 && odd)
        cut_oddly(&cutter, data, size, (unsigned)sdc_max(for_data, 1), data_flags);
    else if (size > 0 && cut == SDC_CHECK_CUT_MANY && for_data > 1)
        cut_evenly(&cutter, data, size, sdc_max((size + for_data - 1) / for_data, 1), data_flags);
    else
        cut_evenly(&cutter, data, size, sdc_min(size, disk->size_max), data_flags);
    cut_evenly(&cutter, data + size, status, 1, SDC_CHECK_DESC_WRITE);
    return cutter.count;
}

void sdc_check_request_three(struct sdc_check_bed *bed, const struct sdc_check_request *request, const struct sdc_check_disk *disk,
                             struct sdc_check_piece *pieces)
{
    unsigned count = sdc_check_request_cut(request, disk, SDC_CHECK_CUT_PLAIN, 3, pieces);

    while (count < 3) {
        unsigned longest = count == 2 && pieces[1].size >= pieces[0].size;
        if (pieces[longest].size < 2)
            sdc_check_skip(bed->check, "the request is too short to be cut in three");
        memmove(&pieces[longest + 1], &pieces[longest], (count - longest) * sizeof *pieces);
        pieces[longest].size /= 2;
        pieces[longest + 1].iova += pieces[longest].size;
        pieces[longest + 1].size -= pieces[longest].size;
        count++;
    }
}

// --- doing ---

bool sdc_check_request_add(struct sdc_check_bed *bed, uint16_t queue, struct sdc_check_request *request, const struct sdc_check_disk *disk,
                          enum sdc_check_cut cut, bool indirect)
{
    struct sdc_check_piece pieces[SDC_CHECK_PIECES_MAX];
    struct sdc_check_ring *ring = &bed->queues[queue].ring;
    // 2.7.5.3.1: a chain is no longer than the queue, with a table too.
    unsigned count = sdc_check_request_cut(request, disk, cut, ring->config.size, pieces);

    if (indirect) {
        sdc_check_ring_table(ring, request->table, pieces, count);
        pieces[0] = (struct sdc_check_piece){
            .iova = request->table_iova, .size = count * SDC_CHECK_DESC_BYTES, .flags = SDC_CHECK_DESC_INDIRECT};
        count = 1;
    }
    request->id = sdc_check_ring_add(ring, pieces, count);
    return request->id >= 0;
}

static bool all_bytes(const uint8_t *at, size_t size, uint8_t value)
{
    for (size_t i = 0; i < size; i++)
        if (at[i] != value)
            return false;
    return true;
}

// --- judging ---

// 2.7.8.2: at most as many bytes as it has written; where it has not read to the end that is not all.
static void judge_length(struct sdc_check_bed *bed, uint16_t queue, const struct sdc_check_request *request, uint8_t status)
{
    uint32_t written = bed->queues[queue].ring.written[request->id];
    uint32_t room = (device_writes(request) ? request->size : 0) + status_size(request);

    if (written == SDC_CHECK_WRITTEN_ALL || written == room)
        return;
    sdc_check_came(bed->check, "request type %" PRIu32 ", used length %" PRIu32 "; it has %" PRIu32 " bytes that the device may write",
                   request->type, written, room);
    if (written > room)
        sdc_check_fail(bed->check, "the device must write at least as many bytes as the used length says");
    if (status == SDC_VIRTIO_BLK_S_OK && !request->form)
        sdc_check_note(bed->check,
                       "the used length of a request of type %" PRIu32 " is %" PRIu32 " bytes, though %" PRIu32
                       " were written: the driver is to ignore what lies behind it",
                       request->type, written, room);
}

static bool guards_hold(const struct sdc_check_request *request)
{
    const uint8_t *head = head_of(request);
    bool head_holds = request->form ? memcmp(head, request->form->out, request->form->out_size) == 0 : sdc_get32(head) == request->type;

    return head_holds && all_bytes(request->memory, GUARD, GUARD_BYTE) && all_bytes(end_of(request), GUARD, GUARD_BYTE);
}

void sdc_check_request_guards(struct sdc_check_bed *bed, const struct sdc_check_request *request)
{
    if (!guards_hold(request))
        sdc_check_fail(bed->check, "the device must not write to memory that is not in the chain, or that it may only read");
}

bool sdc_check_request_untouched(const struct sdc_check_request *request)
{
    if (device_writes(request) && !all_bytes(sdc_check_request_data(request), request->size, POISON))
        return false;
    return request->form || sdc_check_request_status(request) == SDC_CHECK_DISK_UNTOUCHED;
}

uint32_t sdc_check_request_written(const struct sdc_check_bed *bed, uint16_t queue, const struct sdc_check_request *request)
{
    return request->form ? bed->queues[queue].ring.written[request->id] : request->size + status_size(request);
}

// 5.4.6.2: some bytes, if not as many as there is room for.
static void judge_form(struct sdc_check_bed *bed, uint16_t queue, const struct sdc_check_request *request)
{
    uint32_t written = bed->queues[queue].ring.written[request->id];

    sdc_check_sent(bed->check, "a request with %" PRIu32 " bytes that the device reads, and %" PRIu32 " that it may write",
                   request->form->out_size, request->size);
    sdc_check_request_guards(bed, request);
    sdc_check_came(bed->check, "used length %" PRIu32, written);
    judge_length(bed, queue, request, SDC_VIRTIO_BLK_S_OK);
    if (!request->form->any_size || written == SDC_CHECK_WRITTEN_ALL)
        return;
    sdc_check_that(bed->check, written > 0, "the device must place one or more random bytes into the buffer");
    sdc_check_that(bed->check, written < TELLING || !all_bytes(sdc_check_request_data(request), written, POISON),
                   "the device must have written the bytes that the used length says");
}

void sdc_check_request_judge(struct sdc_check_bed *bed, uint16_t queue, const struct sdc_check_request *request, int status)
{
    if (request->form) {
        judge_form(bed, queue, request);
        return;
    }
    const uint8_t got = sdc_check_request_status(request);

    sdc_check_sent(bed->check, "a request of type %" PRIu32 ", sector %" PRIu64 ", %" PRIu32 " bytes of data", request->type,
                   request->sector, request->size);
    sdc_check_request_guards(bed, request);
    sdc_check_came(bed->check, "status %u%s", got, got == SDC_CHECK_DISK_UNTOUCHED ? " (untouched)" : "");
    if (got > SDC_VIRTIO_BLK_S_UNSUPP)
        sdc_check_fail(bed->check, "the status of a request that was used is 0 (OK), 1 (IOERR) or 2 (UNSUPP)");
    if (status >= 0 && got != status)
        sdc_check_fail(bed->check, "the request has to end with status %d", status);
    judge_length(bed, queue, request, got);
}

void sdc_check_request_do(struct sdc_check_bed *bed, uint16_t queue, struct sdc_check_request *request, const struct sdc_check_disk *disk,
                          enum sdc_check_cut cut, bool indirect)
{
    sdc_check_request_prepare(request);
    if (!sdc_check_request_add(bed, queue, request, disk, cut, indirect))
        sdc_check_skip(bed->check, "a request does not fit into a ring of %u entries", bed->queues[queue].ring.config.size);
    sdc_check_bed_show(bed, queue);
    sdc_check_bed_wait(bed, queue, request->id);
    sdc_check_request_judge(bed, queue, request, SDC_VIRTIO_BLK_S_OK);
}
