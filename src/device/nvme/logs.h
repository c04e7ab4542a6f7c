// SPDX-License-Identifier: BSD-3-Clause
// What Get Log Page says (base 5.16): what is counted and kept for it, and pages of at most 4096 bytes built from that.
#pragma once

#include "device/nvme/features.h"
#include "device/nvme/identify.h"

#include <pthread.h>

enum { NVME_LOG_BYTES = 4096 }; // of the longest page

// What one loop has done for the driver. Only that loop counts; any thread reads.
struct nvme_counters {
    _Atomic uint64_t read_commands;  // Read and Compare
    _Atomic uint64_t write_commands; // Write
    _Atomic uint64_t read_bytes, written_bytes; // of those that succeeded
    _Atomic uint64_t media_errors;              // commands that ended with a status of type 2
    _Atomic uint64_t busy_ns;                   // with I/O commands in flight, up to when there was none last
    // The loop's own.
    uint32_t in_flight; // I/O commands; zero: it is not busy
    uint64_t busy_since_ns;
};

// The counter's loop.
static inline void nvme_count(_Atomic uint64_t *counter, uint64_t more)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + more, memory_order_relaxed);
}

// The counter's loop: an I/O command begins, ends.
static inline void nvme_count_begin(struct nvme_counters *counters, uint64_t now_ns)
{
    if (counters->in_flight++ == 0)
        counters->busy_since_ns = now_ns;
}

static inline void nvme_count_end(struct nvme_counters *counters, uint64_t now_ns)
{
    if (--counters->in_flight == 0)
        nvme_count(&counters->busy_ns, now_ns - counters->busy_since_ns);
}

// A command that failed, as the error log shows it.
struct nvme_error {
    uint64_t count; // how many there were before it, and itself
    uint64_t lba;
    uint32_t nsid;
    uint16_t sq, cid;
    uint16_t status; // enum sdc_nvme_status and the bits above it
    uint8_t opcode;
};

struct nvme_logs {
    // Any loop adds an error: lock guards these two. Nothing that works takes it.
    pthread_mutex_t lock;
    struct nvme_error errors[NVME_ERROR_ENTRIES];
    uint64_t errors_count;
    // Home loop.
    bool changed[NVME_NAMESPACES_MAX + 1]; // namespaces, since the driver last asked
    uint64_t born_ns;                  // when the card was made, by the loop's clock
};

// now_ns: by the home loop's clock.
void nvme_logs_init(struct nvme_logs *logs, uint64_t now_ns);
void nvme_logs_destroy(struct nvme_logs *logs);
// Home loop: the card is as new for another driver.
void nvme_logs_reset(struct nvme_logs *logs);
// Any thread. error->count is filled in here.
void nvme_logs_error(struct nvme_logs *logs, const struct nvme_error *error);

// What a page is built from.
struct nvme_logs_of {
    struct nvme_logs *logs;
    const struct nvme_identity *identity;
    const struct nvme_features *features;
    const struct nvme_counters *const *counters; // of each loop
    unsigned counters_count;
    uint64_t now_ns;
    void (*effects)(const struct nvme_identity *identity, uint8_t page[NVME_LOG_BYTES]); // Commands Supported and Effects
};

// The words of the command (base 5.16).
struct nvme_log_request {
    uint64_t offset; // bytes
    uint64_t size;   // likewise
    uint32_t nsid;
    uint8_t id; // enum sdc_nvme_log
    uint8_t csi;
    bool retain;   // RAE: the event stays
    bool by_index; // OT: offset is no number of bytes
};
void nvme_log_parse(const uint8_t sqe[SDC_NVME_SQE], struct nvme_log_request *request);

// Checks the request and fills page with what is wanted of it: *size bytes from request->offset on, perhaps fewer than were asked
// for, since behind the end of a page there is nothing. An enum sdc_nvme_status. Changes nothing: see nvme_log_was_read.
int nvme_log_build(const struct nvme_logs_of *of, const struct nvme_log_request *request, uint8_t page[NVME_LOG_BYTES], uint32_t *size);
// The driver has what was built for it, and did not want it retained: forgets what a page tells of once.
void nvme_log_was_read(struct nvme_logs *logs, uint8_t id);
