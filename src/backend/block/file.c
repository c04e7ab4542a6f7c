// SPDX-License-Identifier: BSD-3-Clause
// The file backend: opening an image, and what can be said of it.
#include "backend/block/file.h"

#include "backend/block/block.h"
#include "base/check.h"
#include "base/limits.h"
#include "base/log.h"
#include "os/disk.h"
#include "os/fd.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static void info(struct sdc_block *block, struct sdc_block_info *out)
{
    struct sdc_file *file = (struct sdc_file *)block;
    *out = file->info;
    out->size = atomic_load_explicit(&file->size, memory_order_relaxed);
    out->discard_zeroes = out->discard_zeroes && !atomic_load_explicit(&file->no_punch, memory_order_relaxed);
}

static int refresh(struct sdc_block *block)
{
    struct sdc_file *file = (struct sdc_file *)block;
    uint64_t size;
    int ret = sdc_disk_size(file->fd, &size);
    if (ret < 0)
        return ret;
    if (size % file->info.block_size != 0) {
        sdc_log(SDC_LOG_WARNING,
                "%s: its size of %" PRIu64
                " bytes is not a multiple of the block size %u; the rest is not shown",
                file->path, size, file->info.block_size);
        size -= size % file->info.block_size;
    }
    return atomic_exchange(&file->size, size) != size;
}

static void close_file(struct sdc_block *block)
{
    struct sdc_file *file = (struct sdc_file *)block;
    sdc_fd_close(&file->fd);
    if (file->zeroes)
        sdc_unmap(file->zeroes, SDC_FILE_ZEROES);
    pthread_mutex_destroy(&file->lock.mutex);
    free(file->path);
    free(file);
}

static const struct sdc_block_ops ops = {
    .name = "file", .info = info, .queue_open = sdc_file_queue_open, .refresh = refresh, .close = close_file};

// --- opening ---

static int check_format(const struct sdc_file *file, struct sdc_error *err)
{
    const char *format = sdc_file_probe(file->fd);
    if (!format)
        return 0;
    return sdc_error_set(err, -EMEDIUMTYPE, SDC_FAULT_HOST,
                         "%s begins like a %s image, and images have to be raw; convert it "
                         "with: qemu-img convert -O raw %s %s.raw, or add --raw if it is raw all the same",
                         file->path, format, file->path, file->path);
}

static int check_block_size(const struct sdc_file *file, const struct sdc_disk_shape *shape,
                            struct sdc_error *err)
{
    uint32_t block_size = file->info.block_size;
    if (block_size < shape->logical_block_size)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_HOST,
                             "%s: the device's blocks are %u bytes, --block-size=%u is too "
                             "small; leave it out",
                             file->path, shape->logical_block_size, block_size);
    if (block_size < shape->direct_offset_align)
        return sdc_error_set(
            err, -EINVAL, SDC_FAULT_HOST,
            "%s: direct I/O goes in steps of %u bytes here, the block size is "
            "%u; leave out --direct, or add --block-size=%u if the guest's partitions are made for it",
            file->path, shape->direct_offset_align, block_size, shape->direct_offset_align);
    return 0;
}

static int check_size(const struct sdc_file *file, const struct sdc_disk_shape *shape, struct sdc_error *err)
{
    uint32_t block_size = file->info.block_size;
    if (shape->size == 0 && shape->block_device)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_HOST, "%s: the device is empty; is a medium in it?",
                             file->path);
    if (shape->size == 0)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_HOST,
                             "%s is empty; give it a size with: truncate -s 10G %s", file->path, file->path);
    if (shape->size % block_size == 0)
        return 0;
    if (shape->block_device)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_HOST,
                             "%s: %" PRIu64 " bytes are not a multiple of the block size %u; "
                             "leave out --block-size",
                             file->path, shape->size, block_size);
    return sdc_error_set(err, -EINVAL, SDC_FAULT_HOST,
                         "%s: %" PRIu64 " bytes are not a multiple of the block size %u; fill "
                         "it up with: truncate -s %%%u %s",
                         file->path, shape->size, block_size, block_size, file->path);
}

static int set_direct(const struct sdc_file *file, struct sdc_error *err)
{
    int ret = sdc_disk_set_direct(file->fd);
    if (ret == -EINVAL)
        return sdc_error_set(err, ret, SDC_FAULT_HOST,
                             "%s: its file system has no direct I/O; leave out --direct", file->path);
    if (ret < 0)
        return sdc_error_set(err, ret, SDC_FAULT_HOST, "%s: cannot switch to direct I/O: %s", file->path,
                             strerror(-ret));
    return 0;
}

static void describe(struct sdc_file *file, const struct sdc_disk_shape *shape,
                     const struct sdc_block_open_options *options)
{
    uint32_t block_size = options->block_size ? options->block_size : shape->logical_block_size;
    file->info = (struct sdc_block_info){
        .block_size = block_size,
        .physical_block_size = (uint32_t)sdc_max(shape->physical_block_size, block_size),
        .optimal_io_size = shape->optimal_io_size,
        .discard_granularity =
            shape->discard_granularity ? (uint32_t)sdc_max(shape->discard_granularity, block_size) : 0,
        .discard_zeroes = shape->discard_zeroes,
        .read_only = options->read_only,
        .volatile_cache = !options->read_only,
    };
    atomic_init(&file->size, shape->size);
    file->memory_align = shape->direct_memory_align;
    file->length_align = shape->direct_offset_align;
}

// The format is looked at before direct I/O, which could not read so little.
static int open_image(struct sdc_file *file, const struct sdc_block_open_options *options,
                      struct sdc_error *err)
{
    file->fd = sdc_disk_open(file->path, options->read_only, err);
    if (file->fd < 0)
        return file->fd;
    int ret = options->raw ? 0 : check_format(file, err);
    if (ret == 0 && options->direct)
        ret = set_direct(file, err);
    if (ret < 0)
        return ret;
    struct sdc_disk_shape shape;
    ret = sdc_disk_measure(file->fd, &shape);
    if (ret < 0)
        return sdc_error_set(err, ret, SDC_FAULT_HOST, "%s: cannot find out its size: %s", file->path,
                             strerror(-ret));
    describe(file, &shape, options);
    ret = check_block_size(file, &shape, err);
    return ret < 0 ? ret : check_size(file, &shape, err);
}

int sdc_block_open_file(const char *path, const struct sdc_block_open_options *options,
                        struct sdc_block **block, struct sdc_error *err)
{
    if (*path == '\0')
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER,
                             "the image's path is empty; type file:PATH or PATH");
    struct sdc_file *file = calloc(1, sizeof *file);
    if (!file)
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "out of memory for a backend");
    file->base.ops = &ops;
    file->fd = -1;
    file->lock.wait_ns = options->lock_wait_ms ? options->lock_wait_ms * UINT64_C(1000000)
                                               : SDC_LIMIT_LOCK_SECONDS * UINT64_C(1000000000);
    file->lock.offset = options->lock_offset;
    file->lock.size = options->lock_size;
    pthread_mutex_init(&file->lock.mutex, NULL);
    file->path = strdup(path);
    int ret = file->path ? sdc_disk_map_zeroes(SDC_FILE_ZEROES, &file->zeroes) : -ENOMEM;
    if (ret < 0)
        sdc_error_set(err, ret, SDC_FAULT_HOST, "out of memory for a backend");
    else
        ret = open_image(file, options, err);
    if (ret < 0) {
        close_file(&file->base);
        return ret;
    }
    *block = &file->base;
    return 0;
}
