// SPDX-License-Identifier: BSD-3-Clause
// Numbers made of texts, the same today and after an upgrade: names of disks are made of them. Not against whoever wants a collision.
#pragma once

#include <stdint.h>

// Where a hash begins; other beginnings give other numbers of the same text.
#define SDC_HASH_BASIS UINT64_C(14695981039346656037)

// FNV-1a over text, going on from `hash`.
static inline uint64_t sdc_hash_text(uint64_t hash, const char *text)
{
    for (; *text; text++)
        hash = (hash ^ (unsigned char)*text) * UINT64_C(1099511628211);
    return hash;
}

// Spreads what differs in a few bits over all of them.
static inline uint64_t sdc_hash_mix(uint64_t hash)
{
    hash = (hash ^ hash >> 33) * UINT64_C(0xff51afd7ed558ccd);
    hash = (hash ^ hash >> 33) * UINT64_C(0xc4ceb9fe1a85ec53);
    return hash ^ hash >> 33;
}
