// SPDX-License-Identifier: BSD-3-Clause
#include "cli/check/nvme.h"

#include "base/bytes.h"
#include "base/check.h"
#include "os/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define MS_NS UINT64_C(1000000)
#define DATA_IOVA (UINT64_C(1) << 32)
#define SC_MASK 0x7ff

enum { LIST_OF_PRPS = SDC_CHECK_NVME_DATA_PAGES - 1 }; // the page of the data that holds one

void sdc_check_nvme_open(struct sdc_check_nvme *nvme, struct sdc_check *check)
{
    const struct sdc_vfio_client_options options = {.timeout_ms = (uint32_t)check->options->timeout_s * 1000};
    struct sdc_vfio_client *client;
    struct sdc_error err = {0};
    memset(nvme, 0, sizeof *nvme);
    nvme->check = check;
    int fd = sdc_check_connect(check);
    sdc_check_must(check, sdc_vfio_client_open_fd(fd, check->options->socket, &options, &client, &err), &err, "VERSION");
    sdc_check_sent(check, "what enables a controller (NVMe base 2.0, 3.5.1)");
    sdc_check_must(check, sdc_driver_nvme_controller_open(&nvme->controller, client, false, &err), &err, "enabling the controller");
    uint64_t page = nvme->controller.page_size;
    sdc_check_must(check, sdc_client_memory_new(&nvme->memory, DATA_IOVA, (SDC_CHECK_NVME_DATA_PAGES + 8) * page, &err), &err, "memory");
    sdc_check_must(check, sdc_driver_pci_map(&nvme->controller.pci, &nvme->memory, &err), &err, "DMA_MAP");
    nvme->data = sdc_client_memory_take(&nvme->memory, SDC_CHECK_NVME_DATA_PAGES * page, page, &nvme->data_iova);
}

void sdc_check_nvme_close(struct sdc_check_nvme *nvme)
{
    struct sdc_error err = {0};
    sdc_check_must(nvme->check, sdc_driver_nvme_controller_stop(&nvme->controller, &err), &err, "shutting the controller down");
    sdc_driver_nvme_controller_close(&nvme->controller);
}

static void describe(struct sdc_check_nvme *nvme, const char *queue, const uint8_t entry[64])
{
    char hex[240];
    sdc_check_sent(nvme->check, "%s command 0x%02x: %s", queue, entry[0], sdc_check_hex(entry, 64, hex, sizeof hex));
}

static uint16_t completed(struct sdc_check_nvme *nvme, const struct sdc_driver_nvme_completion *completion)
{
    sdc_check_came(nvme->check, "status 0x%03x (type %x, code 0x%02x), DW0 0x%08" PRIx32, completion->status & SC_MASK,
                   completion->status >> 8 & 7, completion->status & 0xff, completion->dw0);
    return completion->status & SC_MASK;
}

uint16_t sdc_check_nvme_admin(struct sdc_check_nvme *nvme, uint8_t entry[64], uint32_t *dw0)
{
    struct sdc_driver_nvme_completion completion;
    struct sdc_error err = {0};
    describe(nvme, "admin", entry);
    sdc_check_must(nvme->check, sdc_driver_nvme_admin(&nvme->controller, entry, &completion, &err), &err, "completing an admin command");
    if (dw0)
        *dw0 = completion.dw0;
    return completed(nvme, &completion);
}

uint16_t sdc_check_nvme_command(struct sdc_check_nvme *nvme, uint8_t opcode, uint32_t nsid, uint32_t cdw10, uint32_t cdw11)
{
    uint8_t entry[64] = {opcode};
    sdc_put32(entry + SDC_NVME_SQE_NSID, nsid);
    sdc_put64(entry + SDC_NVME_SQE_PRP1, nvme->data_iova);
    sdc_put32(entry + SDC_NVME_SQE_CDW10, cdw10);
    sdc_put32(entry + SDC_NVME_SQE_CDW11, cdw11);
    return sdc_check_nvme_admin(nvme, entry, NULL);
}

void sdc_check_nvme_status(struct sdc_check_nvme *nvme, uint16_t status, const uint16_t *wanted, const char *what)
{
    for (const uint16_t *one = wanted; *one != 0xffff; one++) {
        if (*one == status)
            return;
    }
    sdc_check_fail(nvme->check, "%s is completed with status 0x%03x", what, *wanted);
}

// --- I/O ---

static void find_namespace(struct sdc_check_nvme *nvme)
{
    sdc_check_that(nvme->check, sdc_check_nvme_command(nvme, SDC_NVME_ADMIN_IDENTIFY, 0, SDC_NVME_CNS_CONTROLLER, 0) == 0,
                   "Identify Controller succeeds");
    memcpy(nvme->identify, nvme->data, sizeof nvme->identify);
    sdc_check_that(nvme->check, sdc_check_nvme_command(nvme, SDC_NVME_ADMIN_IDENTIFY, 0, SDC_NVME_CNS_ACTIVE_NS, 0) == 0,
                   "Identify Active Namespace ID list succeeds");
    nvme->nsid = sdc_get32(nvme->data);
    if (nvme->nsid == 0)
        sdc_check_not_offered(nvme->check, "the controller has no active namespace");
    sdc_check_that(nvme->check, sdc_check_nvme_command(nvme, SDC_NVME_ADMIN_IDENTIFY, nvme->nsid, SDC_NVME_CNS_NS, 0) == 0,
                   "Identify Namespace of an active one succeeds");
    unsigned format = nvme->data[26] & 15;
    unsigned shift = nvme->data[128 + 4 * format + 2];
    nvme->blocks = sdc_get64(nvme->data);
    if (shift < 9 || shift > nvme->controller.page_shift + 4)
        sdc_check_skip(nvme->check, "the namespace has blocks of 2^%u bytes", shift);
    nvme->block_size = UINT32_C(1) << shift;
}

void sdc_check_nvme_open_io(struct sdc_check_nvme *nvme, struct sdc_check *check)
{
    struct sdc_error err = {0};
    sdc_check_nvme_open(nvme, check);
    find_namespace(nvme);
    uint32_t entries = (uint32_t)sdc_min(SDC_CHECK_NVME_ENTRIES, nvme->controller.entries_max);
    nvme->io = (struct sdc_driver_nvme_ring){.doorbells = &nvme->controller.doorbells, .id = SDC_CHECK_NVME_QUEUE, .size = entries};
    struct sdc_driver_doorbell bell = {.way = SDC_DRIVER_NOTIFY_MESSAGE, .fd = -1};
    nvme->io.tail_bell.bell = bell;
    nvme->io.head_bell.bell = bell;
    if (!sdc_driver_nvme_find_register(&nvme->controller, nvme->io.id, false, &nvme->io.tail_bell.bell.offset) ||
        !sdc_driver_nvme_find_register(&nvme->controller, nvme->io.id, true, &nvme->io.head_bell.bell.offset))
        sdc_check_fail(check, "the doorbells of a queue are in BAR 0");
    sdc_check_must(check, sdc_driver_nvme_ring_init(&nvme->io, &nvme->memory, nvme->controller.page_size, &err), &err, "memory");
    sdc_check_must(check, sdc_driver_nvme_create_ring(&nvme->controller, &nvme->io, -1, &err), &err, "creating a pair of I/O queues");
}

uint16_t sdc_check_nvme_io(struct sdc_check_nvme *nvme, uint8_t entry[64])
{
    struct sdc_driver_nvme_completion completion;
    struct sdc_error err = {0};
    struct sdc_check *check = nvme->check;
    uint16_t cid = nvme->next_cid++;
    sdc_put16(entry + SDC_NVME_SQE_CID, cid);
    describe(nvme, "I/O", entry);
    memcpy(sdc_driver_nvme_ring_entry(&nvme->io), entry, 64);
    sdc_driver_nvme_ring_add(&nvme->io);
    sdc_check_must(check, sdc_driver_nvme_ring_publish(&nvme->io, true, &err), &err, "ringing a doorbell");
    uint64_t give_up = sdc_clock_ns() + (uint64_t)sdc_check_patience(check) * MS_NS;
    int ret;
    while ((ret = sdc_driver_nvme_ring_take(&nvme->io, &completion)) == 0) {
        sdc_check_that(check, sdc_clock_ns() < give_up, "a command is completed");
        sdc_clock_pause(MS_NS / 20);
    }
    sdc_check_that(check, ret > 0, "queues are kept as the specification says: %s", nvme->io.broken);
    sdc_check_that(check, completion.cid == cid, "a completion has the identifier of its command, %u (it was %u)", cid, completion.cid);
    return completed(nvme, &completion);
}

void sdc_check_nvme_prps(struct sdc_check_nvme *nvme, uint8_t entry[64], uint32_t size)
{
    uint64_t page = nvme->controller.page_size;
    sdc_put64(entry + SDC_NVME_SQE_PRP1, nvme->data_iova);
    if (size <= page)
        return;
    if (size <= 2 * page) {
        sdc_put64(entry + SDC_NVME_SQE_PRP2, nvme->data_iova + page);
        return;
    }
    uint8_t *list = nvme->data + LIST_OF_PRPS * page;
    for (uint64_t i = 1; i * page < size; i++)
        sdc_put64(list + (i - 1) * 8, nvme->data_iova + i * page);
    sdc_put64(entry + SDC_NVME_SQE_PRP2, nvme->data_iova + LIST_OF_PRPS * page);
}

uint16_t sdc_check_nvme_transfer(struct sdc_check_nvme *nvme, uint8_t opcode, uint64_t lba, uint32_t count)
{
    uint8_t entry[64] = {opcode};
    sdc_put32(entry + SDC_NVME_SQE_NSID, nvme->nsid);
    sdc_check_nvme_prps(nvme, entry, (uint32_t)sdc_min((uint64_t)count * nvme->block_size, LIST_OF_PRPS * nvme->controller.page_size));
    sdc_put64(entry + SDC_NVME_SQE_CDW10, lba);
    sdc_put32(entry + SDC_NVME_SQE_CDW12, count - 1);
    return sdc_check_nvme_io(nvme, entry);
}
