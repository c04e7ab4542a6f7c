// SPDX-License-Identifier: BSD-3-Clause
// The JSON of a VERSION message: reading what a peer proposes, writing what we answer or propose.
#pragma once

#include <sidecard/error.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// What a peer said; where it said nothing, the specification's default.
struct sdc_vfu_capabilities {
    bool has_max_msg_fds;
    bool has_max_data_xfer_size;
    bool has_max_dma_maps;
    bool has_pgsizes;
    bool has_write_multiple;
    bool has_twin_socket;
    uint64_t max_msg_fds;        // default 1
    uint64_t max_data_xfer_size; // default 1 MiB
    uint64_t max_dma_maps;       // default 65535
    uint64_t pgsizes;            // default 4096
    bool write_multiple;         // default false
    bool twin_supported;         // twin_socket: a second socket for what the server asks; default false
    bool has_twin_fd_index;
    uint64_t twin_fd_index;      // in a reply: which fd that came with it is the client's end
};

// Reads size bytes of JSON, the NUL at their end included; size 0 is a peer without capabilities. Unknown keys are passed over.
// 0 or -EINVAL with what is wrong: not terminated, not an object, a key twice, nested too deep, a number out of range.
int sdc_vfu_capabilities_parse(const char *json, size_t size, struct sdc_vfu_capabilities *capabilities,
                               struct sdc_error *err);

// Writes {"capabilities":{...}} with the keys whose has_ is set, and a NUL. Returns bytes with the NUL, or -ENOSPC.
int sdc_vfu_capabilities_print(const struct sdc_vfu_capabilities *capabilities, char *json, size_t size);
