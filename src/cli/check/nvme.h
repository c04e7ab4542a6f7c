// SPDX-License-Identifier: BSD-3-Clause
// An NVMe controller for tests: enabled, with memory, and with any command. What takes too long, or breaks the rules of queues, fails the
// test.
#pragma once

#include "cli/check/check.h"
#include "driver/nvme_controller.h"
#include "wire/nvme.h"

#define SDC_CHECK_NVME_BASE(section) "NVMe base 2.0, " section
#define SDC_CHECK_NVME_NVM(section) "NVM command set 1.0, " section

enum {
    SDC_CHECK_NVME_ENTRIES = 16, // of I/O queues, where the controller takes so many
    SDC_CHECK_NVME_QUEUE = 1,    // the pair of I/O queues that tests create
};

struct sdc_check_nvme {
    struct sdc_check *check;
    struct sdc_driver_nvme_controller controller;
    struct sdc_client_memory memory; // for data
    uint8_t *data;                   // DATA_PAGES pages of the controller's in a row
    uint64_t data_iova;
    struct sdc_driver_nvme_ring io;
    uint16_t next_cid;
    uint8_t identify[SDC_NVME_IDENTIFY_BYTES]; // of the controller
    // Of the first active namespace.
    uint32_t nsid;
    uint64_t blocks;
    uint32_t block_size;
};

enum { SDC_CHECK_NVME_DATA_PAGES = 64 };

// Connects and enables the controller; finds its namespace; creates queues for I/O.
void sdc_check_nvme_open(struct sdc_check_nvme *nvme, struct sdc_check *check);
void sdc_check_nvme_open_io(struct sdc_check_nvme *nvme, struct sdc_check *check);
// Shuts it down.
void sdc_check_nvme_close(struct sdc_check_nvme *nvme);

// An admin command. Its status, without the bits that say More and Do Not Retry; *dw0 may be NULL.
uint16_t sdc_check_nvme_admin(struct sdc_check_nvme *nvme, uint8_t entry[64], uint32_t *dw0);
// The same, in the usual case: opcode, namespace, CDW10 and CDW11; data goes to the first page.
uint16_t sdc_check_nvme_command(struct sdc_check_nvme *nvme, uint8_t opcode, uint32_t nsid, uint32_t cdw10, uint32_t cdw11);
// An I/O command, likewise.
uint16_t sdc_check_nvme_io(struct sdc_check_nvme *nvme, uint8_t entry[64]);
// A read or write of `count` blocks from the start of the data.
uint16_t sdc_check_nvme_transfer(struct sdc_check_nvme *nvme, uint8_t opcode, uint64_t lba, uint32_t count);
// Fills in entry's PRPs for `size` bytes from the start of the data.
void sdc_check_nvme_prps(struct sdc_check_nvme *nvme, uint8_t entry[64], uint32_t size);
// Fails unless the status is one of those that end with 0xffff; the specification names them.
void sdc_check_nvme_status(struct sdc_check_nvme *nvme, uint16_t status, const uint16_t *wanted, const char *what);

extern const struct sdc_check_table sdc_check_nvme_registers, sdc_check_nvme_admin_commands, sdc_check_nvme_io_commands;
