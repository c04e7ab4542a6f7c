// SPDX-License-Identifier: BSD-3-Clause
// The ram backend: a disk in this process's memory. Memory is taken when a page is first written and given
// back by discard.
#include "backend/block/block.h"
#include "backend/block/immediate.h"
#include "base/check.h"
#include "base/line.h"
#include "base/parse.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    PAGE = 4096,
    AHEAD = 1024, // bytes
};

struct ram_block {
    struct sdc_immediate base;
    unsigned char *memory;
};

// Gives the whole pages of [at, at + size) back; they read as zeroes afterwards. The rest, at both ends, is
// zeroed.
static void give_back(unsigned char *at, uint64_t size)
{
    uint64_t before = -(uintptr_t)at & (PAGE - 1);
    uint64_t pages = size > before ? (size - before) & ~(uint64_t)(PAGE - 1) : 0;
    if (pages == 0 || madvise(at + before, pages, MADV_DONTNEED) < 0) {
        memset(at, 0, size);
        return;
    }
    memset(at, 0, before);
    memset(at + before + pages, 0, size - before - pages);
}

// The first lines of what will be read come while the request before is copied; behind them the processor sees by itself where this goes.
static void announce(struct sdc_immediate *disk, const struct sdc_block_request *request)
{
    const unsigned char *at = ((struct ram_block *)disk)->memory + request->offset;
    if (request->op != SDC_BLOCK_READ || !sdc_within(request->offset, request->size, disk->info.size))
        return;
    for (uint64_t i = 0; i < sdc_min(request->size, AHEAD); i += SDC_LINE)
        sdc_prefetch(at + i);
}

static void execute(struct sdc_immediate *disk, const struct sdc_block_request *request)
{
    unsigned char *at = ((struct ram_block *)disk)->memory + request->offset;
    switch (request->op) {
    case SDC_BLOCK_READ:
        for (uint32_t i = 0; i < request->spans_count; at += request->spans[i++].size)
            memcpy(request->spans[i].base, at, request->spans[i].size);
        break;
    case SDC_BLOCK_WRITE:
        for (uint32_t i = 0; i < request->spans_count; at += request->spans[i++].size)
            memcpy(at, request->spans[i].base, request->spans[i].size);
        break;
    case SDC_BLOCK_DISCARD:
        give_back(at, request->size);
        break;
    case SDC_BLOCK_WRITE_ZEROES:
        if (request->flags & SDC_BLOCK_UNMAP)
            give_back(at, request->size);
        else
            memset(at, 0, request->size);
        break;
    case SDC_BLOCK_FLUSH:
        break;
    }
}

static void close_block(struct sdc_block *block)
{
    struct ram_block *ram = (struct ram_block *)block;
    munmap(ram->memory, ram->base.info.size);
    free(ram);
}

static const struct sdc_block_ops ops = {
    .name = "ram", .info = sdc_immediate_info, .queue_open = sdc_immediate_queue_open, .close = close_block};

int sdc_block_open_ram(uint64_t size, const struct sdc_block_open_options *options, struct sdc_block **block,
                       struct sdc_error *err)
{
    struct ram_block *made = calloc(1, sizeof *made);
    if (!made)
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "out of memory for a backend");
    made->memory =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (made->memory == MAP_FAILED) {
        int code = -errno;
        char text[32];
        free(made);
        return sdc_error_set(err, code, SDC_FAULT_USER,
                             "ram: cannot have %s of address space (%s); use a smaller size",
                             sdc_format_size(size, text), strerror(-code));
    }
    uint32_t block_size = options->block_size ? options->block_size : 512;
    made->base.base.ops = &ops;
    made->base.execute = execute;
    made->base.announce = announce;
    made->base.info = (struct sdc_block_info){.size = size,
                                              .block_size = block_size,
                                              .physical_block_size = PAGE,
                                              .discard_granularity = PAGE,
                                              .discard_zeroes = true,
                                              .read_only = options->read_only};
    *block = &made->base.base;
    return 0;
}
