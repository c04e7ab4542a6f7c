// SPDX-License-Identifier: BSD-3-Clause
// What a request means for a file: which I/O it begins with, what follows that, and how it ends.
#include "backend/block/file.h"
#include "base/check.h"
#include "base/log.h"

#include <errno.h>
#include <linux/falloc.h>
#include <string.h>

static bool cannot(int64_t result)
{
    return result == -EOPNOTSUPP || result == -ENOSYS;
}

static bool changes_data(enum sdc_block_op op)
{
    return op == SDC_BLOCK_WRITE || op == SDC_BLOCK_WRITE_ZEROES;
}

// From here on the image takes no writes. Said once.
static void fail_file(struct sdc_file *file, int64_t result)
{
    if (!atomic_exchange(&file->failed, true))
        sdc_log(SDC_LOG_ERROR,
                "%s: a flush failed (%s), written data may be lost; writes and flushes fail until the "
                "image is opened again",
                file->path, strerror((int)-result));
}

void sdc_file_finish(struct sdc_block_request *request, int result)
{
    struct sdc_file_request *state = sdc_file_state(request);
    struct sdc_file_queue *queue = state->queue;
    void *bounce = state->bounce;
    // A dsync write is a write and a flush; with EIO nobody can tell which of them failed. Direct I/O leaves
    // nothing in the page cache that could be lost.
    bool direct = queue->file->memory_align != 0;
    if (result == -EIO && !direct && changes_data(request->op) && request->flags & SDC_BLOCK_FUA)
        fail_file(queue->file, result);
    sdc_block_finish(&queue->finisher, request, result);
    if (bounce)
        sdc_file_bounce_give(queue, bounce);
}

// --- flush ---

static void flush(struct sdc_block_request *request)
{
    struct sdc_file_request *state = sdc_file_state(request);
    state->io.op = SDC_IO_FDATASYNC;
    sdc_loop_io(state->queue->base.loop, &state->io);
}

static void flush_done(struct sdc_block_request *request, int64_t result)
{
    if (result < 0)
        fail_file(sdc_file_state(request)->queue->file, result);
    sdc_file_finish(request, result < 0 ? -EIO : 0);
}

// --- discard and zeroes ---

static void allocate(struct sdc_block_request *request, int mode)
{
    struct sdc_file_request *state = sdc_file_state(request);
    state->io.op = SDC_IO_FALLOCATE;
    state->io.mode = mode | FALLOC_FL_KEEP_SIZE;
    state->io.offset = request->offset;
    state->io.size = request->size;
    sdc_loop_io(state->queue->base.loop, &state->io);
}

static void discard(struct sdc_block_request *request)
{
    if (request->size == 0 ||
        atomic_load_explicit(&sdc_file_state(request)->queue->file->no_punch, memory_order_relaxed))
        sdc_file_finish(request, 0);
    else
        allocate(request, FALLOC_FL_PUNCH_HOLE);
}

// The cheapest way that the file system has not refused yet.
static void zero(struct sdc_block_request *request)
{
    struct sdc_file *file = sdc_file_state(request)->queue->file;
    bool punch =
        request->flags & SDC_BLOCK_UNMAP && !atomic_load_explicit(&file->no_punch, memory_order_relaxed);
    if (request->size == 0)
        sdc_file_finish(request, 0);
    else if (punch)
        allocate(request, FALLOC_FL_PUNCH_HOLE);
    else if (!atomic_load_explicit(&file->no_zero_range, memory_order_relaxed))
        allocate(request, FALLOC_FL_ZERO_RANGE);
    else
        sdc_file_transfer(request);
}

static void allocate_done(struct sdc_block_request *request, int64_t result)
{
    struct sdc_file_request *state = sdc_file_state(request);
    if (cannot(result)) {
        bool punch = state->io.mode & FALLOC_FL_PUNCH_HOLE;
        atomic_store_explicit(punch ? &state->queue->file->no_punch : &state->queue->file->no_zero_range,
                              true, memory_order_relaxed);
        if (request->op == SDC_BLOCK_DISCARD)
            sdc_file_finish(request, 0);
        else
            zero(request);
    } else if (result == 0 && request->op == SDC_BLOCK_WRITE_ZEROES && request->flags & SDC_BLOCK_FUA) {
        flush(request);
    } else {
        sdc_file_finish(request, (int)result);
    }
}

// --- the whole ---

static void io_done(struct sdc_io *io)
{
    struct sdc_file_request *state = sdc_container(io, struct sdc_file_request, io);
    struct sdc_block_request *request = sdc_container(state, struct sdc_block_request, backend);
    if (io->result == -EINTR || (io->result == -EAGAIN && state->retries++ < SDC_FILE_RETRIES)) {
        sdc_loop_io(state->queue->base.loop, io);
        return;
    }
    state->retries = 0;
    if (io->result == -EAGAIN)
        io->result = -EIO; // it did not get through, and nobody above would try it once more
    switch (io->op) {
    case SDC_IO_READ:
    case SDC_IO_WRITE:
        sdc_file_transfer_done(request, io->result);
        break;
    case SDC_IO_FDATASYNC:
        flush_done(request, io->result);
        break;
    case SDC_IO_FALLOCATE:
        allocate_done(request, io->result);
        break;
    }
}

static int check(struct sdc_file *file, const struct sdc_block_request *request)
{
    int ret = sdc_block_check(request, atomic_load_explicit(&file->size, memory_order_relaxed),
                              file->info.block_size, file->info.read_only);
    if (ret < 0)
        return ret;
    return request->op != SDC_BLOCK_READ && atomic_load_explicit(&file->failed, memory_order_relaxed) ? -EIO
                                                                                                      : 0;
}

bool sdc_file_prepare(struct sdc_file_queue *queue, struct sdc_block_request *request)
{
    struct sdc_file_request *state = sdc_file_state(request);
    *state = (struct sdc_file_request){.queue = queue, .io = {.file = queue->number, .done = io_done}};
    int ret = check(queue->file, request);
    if (ret < 0)
        sdc_block_finish(&queue->finisher, request, ret);
    return ret == 0;
}

void sdc_file_start(struct sdc_file_queue *queue, struct sdc_block_request *request)
{
    if (!sdc_file_prepare(queue, request))
        return;
    switch (request->op) {
    case SDC_BLOCK_READ:
    case SDC_BLOCK_WRITE:
        sdc_file_transfer(request);
        break;
    case SDC_BLOCK_FLUSH:
        flush(request);
        break;
    case SDC_BLOCK_DISCARD:
        discard(request);
        break;
    case SDC_BLOCK_WRITE_ZEROES:
        zero(request);
        break;
    }
}
