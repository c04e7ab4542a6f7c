// SPDX-License-Identifier: BSD-3-Clause
// What Identify says (base 5.17, nvm 4.1.5): structures of 4096 bytes, built from what the controller is and has.
#pragma once

#include "device/nvme/namespace.h"
#include "wire/nvme.h"

enum {
    NVME_SERIAL = 20,   // bytes
    NVME_MODEL = 40,
    NVME_FIRMWARE = 8,
    NVME_NQN = 223,

    NVME_MDTS = 8,             // the most data of a command: 4096 << it bytes, 1 MiB
    NVME_ZEROES_LIMIT = 13,    // a Write Zeroes command likewise: 32 MiB, what 65536 blocks of 512 bytes are
    NVME_ABORT_LIMIT = 4,      // Abort commands at a time
    NVME_ASYNC_LIMIT = 4,      // Asynchronous Event Requests at a time
    NVME_ERROR_ENTRIES = 64,   // of the error log
    NVME_KEEP_ALIVE_MS = 1000, // granularity of the keep alive timer
    NVME_TEMPERATURE = 300,    // kelvins. Nobody measures any
    NVME_TEMPERATURE_WARNING = 343,
    NVME_TEMPERATURE_CRITICAL = 373,
    NVME_OAES = 1 << 8, // optional events: namespace attribute notices
};

// Attributes in the namespace structure (nvm 4.1.5.1).
enum { NVME_NS_WRITE_PROTECTED = 1 };

// What a controller is. Does not change while it lives.
struct nvme_identity {
    uint16_t vendor, subsystem_vendor; // PCI's
    uint16_t controller;               // CNTLID
    bool shadow_doorbells;             // Doorbell Buffer Config is there
    char serial[NVME_SERIAL + 1];
    char model[NVME_MODEL + 1];
    char firmware[NVME_FIRMWARE + 1];
    char nqn[NVME_NQN + 1];
};

// What is asked for: the words of the command (base 5.17.1).
struct nvme_identify_request {
    uint32_t nsid;
    uint8_t cns;
    uint8_t csi;
    uint16_t controller;
};

// The subsystem's name where the user gave none: a UUID made of the serial number (base 4.7).
void nvme_name_subsystem(char nqn[NVME_NQN + 1], const char *serial);
// Fills page. An enum sdc_nvme_status; page counts for nothing unless it is 0.
int nvme_identify_build(const struct nvme_identity *identity, const struct nvme_namespaces *namespaces,
                        const struct nvme_identify_request *request, uint8_t page[SDC_NVME_IDENTIFY_BYTES]);
