// SPDX-License-Identifier: BSD-3-Clause
// From what people type to an open backend.
#include "backend/block/block.h"
#include "base/check.h"
#include "base/parse.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

typedef int open_size_function(uint64_t size, const struct sdc_block_open_options *options,
                               struct sdc_block **block, struct sdc_error *err);

// `prefix` and what follows it; one of the two functions is set.
static const struct kind {
    const char *prefix;
    open_size_function *open_size;
    int (*open_path)(const char *path, const struct sdc_block_open_options *options, struct sdc_block **block,
                     struct sdc_error *err);
} kinds[] = {
    {"null:", sdc_block_open_null, NULL},
    {"ram:", sdc_block_open_ram, NULL},
    {"file:", NULL, sdc_block_open_file},
};

static int open_sized_kind(const struct kind *kind, const char *spec,
                           const struct sdc_block_open_options *options, struct sdc_block **block,
                           struct sdc_error *err)
{
    uint64_t size;
    uint32_t block_size = options->block_size ? options->block_size : 512;
    int ret = sdc_parse_size(spec + strlen(kind->prefix), &size);
    if (ret == -ERANGE)
        return sdc_error_set(err, ret, SDC_FAULT_USER, "%s: too big, the limit is 8191P", spec);
    if (ret < 0 || size == 0)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER,
                             "%s: not a size; type a number with an optional suffix K, M, G, T or P: %s10G",
                             spec, kind->prefix);
    if (size % block_size != 0)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER,
                             "%s: %" PRIu64 " bytes are not a multiple of the block size %u; "
                             "%" PRIu64 " would be",
                             spec, size, block_size, size - size % block_size + block_size);
    return kind->open_size(size, options, block, err);
}

// A backend's name alone: "null" for null:10G.
static const struct kind *kind_without_size(const char *word)
{
    size_t length = strlen(word);

    for (size_t i = 0; i < SDC_COUNT(kinds); i++) {
        if (kinds[i].open_size && strlen(kinds[i].prefix) == length + 1 && strncmp(kinds[i].prefix, word, length) == 0)
            return &kinds[i];
    }
    return NULL;
}

// A file that isn't there may be a backend misspelt, "nul:10G", or half of one.
static int explain_missing(const char *path, struct sdc_error *err)
{
    const struct kind *kind = kind_without_size(path);
    if (kind)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "%s: the backend needs a size; type for example %s10G", path, kind->prefix);
    const char *colon = strchr(path, ':');
    if (!colon || memchr(path, '/', (size_t)(colon - path)) || colon - path > 15)
        return -ENOENT;
    char prefix[17] = {0}, all[64];
    memcpy(prefix, path, (size_t)(colon - path) + 1);
    const char *names[SDC_COUNT(kinds) + 1] = {0};
    for (size_t i = 0; i < SDC_COUNT(kinds); i++)
        names[i] = kinds[i].prefix;
    const char *nearest = sdc_nearest(prefix, names);
    if (!nearest)
        return sdc_error_set(err, -ENOENT, SDC_FAULT_USER, "no such file: %s, and no backend begins with '%s' (there are %s)", path,
                             prefix, sdc_list_names(names, SDC_COUNT(kinds), " and ", all, sizeof all));
    return sdc_error_set(err, -ENOENT, SDC_FAULT_USER, "no such file: %s; did you mean %s%s?", path, nearest, colon + 1);
}

static int open_plain_path(const char *path, const struct sdc_block_open_options *options,
                           struct sdc_block **block, struct sdc_error *err)
{
    int ret = sdc_block_open_file(path, options, block, err);
    return ret == -ENOENT ? explain_missing(path, err) : ret;
}

int sdc_block_open(const char *spec, const struct sdc_block_open_options *options, struct sdc_block **block,
                   struct sdc_error *err)
{
    uint32_t block_size = options->block_size;
    if (block_size != 0 && (!sdc_is_power_of_two(block_size) || block_size < 512 || block_size > 4096))
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "block size %u: type 512, 1024, 2048 or 4096",
                             block_size);
    for (size_t i = 0; i < SDC_COUNT(kinds); i++) {
        const struct kind *kind = &kinds[i];
        if (strncmp(spec, kind->prefix, strlen(kind->prefix)) != 0)
            continue;
        if (kind->open_path)
            return kind->open_path(spec + strlen(kind->prefix), options, block, err);
        return open_sized_kind(kind, spec, options, block, err);
    }
    return open_plain_path(spec, options, block, err);
}
