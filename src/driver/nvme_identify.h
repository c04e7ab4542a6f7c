// SPDX-License-Identifier: BSD-3-Clause
// What a controller and a namespace say they are, checked.
#pragma once

#include "driver/nvme_controller.h"
#include "wire/nvme.h"

struct sdc_driver_nvme_identity {
    char serial[21]; // printable, without the blanks at the end
    char model[41];
    char firmware[9];
    uint64_t transfer_max; // bytes of data of one command; UINT64_MAX: no limit
    bool compare;
    bool dsm;
    bool write_zeroes;
    bool write_cache;
    bool sgl;
    bool shadows; // Doorbell Buffer Config
    uint64_t dsm_max;          // blocks of one range
    uint64_t write_zeroes_max; // bytes of one command; UINT64_MAX: no limit of its own
};

struct sdc_driver_nvme_namespace {
    uint32_t nsid;
    uint64_t blocks;
    uint32_t block_shift;
    bool read_only;
    bool zeroes_deallocate; // Write Zeroes with DEAC
};

// One of the structures of Identify, copied out of memory that the controller could still write. *status is the command's, 0: data is
// filled.
int sdc_driver_nvme_identify_page(struct sdc_driver_nvme_controller *controller, uint32_t nsid, enum sdc_nvme_cns cns,
                                  uint8_t data[SDC_NVME_IDENTIFY_BYTES], uint16_t *status, struct sdc_error *err);
int sdc_driver_nvme_identify(struct sdc_driver_nvme_controller *controller, struct sdc_driver_nvme_identity *identity,
                             struct sdc_error *err);
// nsid 0: the first that is active. -ENODEV: there is none; -ENOTSUP: its format is one that we don't know.
int sdc_driver_nvme_identify_namespace(struct sdc_driver_nvme_controller *controller, uint32_t nsid,
                                       struct sdc_driver_nvme_namespace *found, struct sdc_error *err);
// Asks for `wanted` pairs of I/O queues; *granted is how many there may be, at least 1.
int sdc_driver_nvme_ask_queues(struct sdc_driver_nvme_controller *controller, uint16_t wanted, uint16_t *granted,
                               struct sdc_error *err);
