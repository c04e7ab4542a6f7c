// SPDX-License-Identifier: BSD-3-Clause
// What sidecard bench was asked to do: fio's words, checked.
#pragma once

#include "driver/doorbell.h"
#include "driver/nvme.h"
#include "driver/vhost_user.h"

#include <sidecard/error.h>

#include <stdbool.h>
#include <stdint.h>

struct sdc_bench_options {
    const char *socket; // its path
    bool vhost_user;    // what is spoken there; else vfio-user
    const char *rw; // as typed
    bool reads;
    bool writes;
    bool random;
    uint64_t rwmixread;  // percent, when it both reads and writes
    uint64_t block_size; // bytes
    uint64_t iodepth;    // requests in flight of each job
    uint64_t numjobs;    // threads, each with a queue of its own
    uint64_t size;       // bytes from offset on; 0: to the end of the disk
    uint64_t offset;     // bytes
    uint64_t runtime_s;  // 0: once over the region
    uint64_t ramp_s;     // before that, uncounted
    uint64_t number_ios; // of each job; 0: no limit
    uint64_t seed;
    uint64_t timeout_s;  // a request may take
    uint64_t queue_size; // entries; 0: what the device has
    uint64_t reconnect_ms; // to find a back end again that has gone; 0: that is an error
    bool verify;
    bool readonly;
    bool json;
    bool poll;
    bool interrupt;  // was typed; excludes poll
    bool time_based; // was typed; needs runtime_s
    bool quiet; // no live line
    bool packed;
    bool in_order;
    bool event_idx;
    bool indirect;
    enum sdc_client_memory_kind memory;
    bool twin_socket;
    enum sdc_driver_iommu iommu;
    enum sdc_driver_notify notify;
    uint64_t namespace; // of an NVMe controller; 0: its first
    bool sgl;
    enum sdc_driver_nvme_shadows shadows;
    bool help;
};

extern const char sdc_bench_usage[];
const char *sdc_bench_iommu_name(enum sdc_driver_iommu iommu); // as typed
const char *sdc_bench_memory_name(enum sdc_client_memory_kind kind);

// Fills options from argv[1..argc). argv's strings are the options' from then on. -EINVAL, with *err filled.
int sdc_bench_options_parse(int argc, char **argv, struct sdc_bench_options *options, struct sdc_error *err);
// The option that only an NVMe controller can do anything with, or NULL.
const char *sdc_bench_options_nvme(const struct sdc_bench_options *options);
