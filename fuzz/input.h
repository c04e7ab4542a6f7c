// SPDX-License-Identifier: BSD-3-Clause
// Taking a fuzzer's bytes apart. Behind the end of the input everything reads as zero, so that every input is a whole one.
#pragma once

#include "base/bytes.h"

#include <stdbool.h>
#include <stddef.h>

struct fuzz_input {
    const uint8_t *at;
    size_t left;
};

static inline bool fuzz_more(const struct fuzz_input *input)
{
    return input->left > 0;
}

static inline void fuzz_bytes(struct fuzz_input *input, void *local, size_t size)
{
    size_t length = size < input->left ? size : input->left;

    memset(local, 0, size);
    if (length > 0)
        memcpy(local, input->at, length);
    input->at += length;
    input->left -= length;
}

static inline uint8_t fuzz_u8(struct fuzz_input *input)
{
    uint8_t raw;

    fuzz_bytes(input, &raw, sizeof raw);
    return raw;
}

static inline uint16_t fuzz_u16(struct fuzz_input *input)
{
    uint8_t raw[2];

    fuzz_bytes(input, raw, sizeof raw);
    return sdc_get16(raw);
}

static inline uint32_t fuzz_u32(struct fuzz_input *input)
{
    uint8_t raw[4];

    fuzz_bytes(input, raw, sizeof raw);
    return sdc_get32(raw);
}

static inline uint64_t fuzz_u64(struct fuzz_input *input)
{
    uint8_t raw[8];

    fuzz_bytes(input, raw, sizeof raw);
    return sdc_get64(raw);
}
