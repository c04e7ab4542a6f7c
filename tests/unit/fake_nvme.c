// SPDX-License-Identifier: BSD-3-Clause
#include "fake_nvme.h"

#include "base/bytes.h"
#include "base/check.h"
#include "os/fd.h"
#include "wire/nvme.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { CAP_MSIX = 0x40, REGION_CONFIG = 7, TRANSFER_MAX = 4 << 20 };

struct fake_nvme *new_fake_nvme(void)
{
    struct fake_nvme *nvme = calloc(1, sizeof *nvme);
    uint8_t *c = nvme->config;
    sdc_put16(c, 0x1b36);
    sdc_put16(c + 2, 0x0010);
    sdc_put16(c + 6, 0x10);       // capabilities
    sdc_put32(c + 8, 0x01080201); // class, revision
    c[0x34] = CAP_MSIX;
    sdc_put32(c + 0x10, 0x4); // BAR0: 64-bit, 16 KiB
    sdc_put32(nvme->mask + 0x10, 0xffffc000);
    sdc_put32(nvme->mask + 0x14, 0xffffffff);
    sdc_put16(nvme->mask + 4, 0xffff);
    c[CAP_MSIX] = 0x11;
    sdc_put16(c + CAP_MSIX + 2, FAKE_NVME_VECTORS - 1);
    sdc_put16(nvme->mask + CAP_MSIX + 2, 0xc000);
    nvme->cap = 255 | UINT64_C(1) << SDC_NVME_CAP_CQR | UINT64_C(2) << SDC_NVME_CAP_TO | UINT64_C(1) << SDC_NVME_CAP_CSS |
                UINT64_C(4) << SDC_NVME_CAP_MPSMAX;
    nvme->version = SDC_NVME_VERSION_2_0;
    nvme->granted = 3 << 16 | 3;
    nvme->block_shift = 9;
    nvme->disk = calloc(1, FAKE_NVME_DISK);
    nvme->bar_size = FAKE_NVME_BAR;
    for (unsigned i = 0; i < FAKE_NVME_VECTORS; i++)
        nvme->fds[i] = -1;
    return nvme;
}

static void unmap_all(struct fake_nvme *nvme)
{
    for (unsigned i = 0; i < nvme->memories; i++)
        munmap(nvme->memory[i].host, nvme->memory[i].size);
    nvme->memories = 0;
}

void free_fake_nvme(struct fake_nvme *nvme)
{
    unmap_all(nvme);
    for (unsigned i = 0; i < FAKE_NVME_VECTORS; i++)
        sdc_fd_close(&nvme->fds[i]);
    free(nvme->disk);
    free(nvme);
}

// --- the driver's memory ---

static uint8_t *host_of(struct fake_nvme *nvme, uint64_t iova, uint64_t size)
{
    for (unsigned i = 0; i < nvme->memories; i++)
        if (iova >= nvme->memory[i].iova && sdc_within(iova - nvme->memory[i].iova, size, nvme->memory[i].size))
            return nvme->memory[i].host + (iova - nvme->memory[i].iova);
    return NULL;
}

// Copies a piece of a command's data; false: it is nowhere.
static bool copy_piece(struct fake_nvme *nvme, uint64_t iova, uint8_t *data, uint64_t size, bool to_host)
{
    uint8_t *host = host_of(nvme, iova, size);
    if (host && to_host)
        memcpy(host, data, size);
    else if (host)
        memcpy(data, host, size);
    return host != NULL;
}

// Follows PRPs as the specification has them.
static bool copy_prps(struct fake_nvme *nvme, const uint8_t *entry, uint8_t *data, uint64_t size, bool to_host)
{
    uint64_t page = UINT64_C(4096) << (nvme->cc >> SDC_NVME_CC_MPS & 0xf), first = sdc_get64(entry + SDC_NVME_SQE_PRP1);
    uint64_t second = sdc_get64(entry + SDC_NVME_SQE_PRP2), step = sdc_min(size, page - first % page);
    if (first % 4 != 0 || !copy_piece(nvme, first, data, step, to_host))
        return false;
    data += step, size -= step;
    if (size <= page)
        return size == 0 || (second % page == 0 && copy_piece(nvme, second, data, size, to_host));
    for (uint64_t at = second; size > 0;) {
        uint8_t *list = host_of(nvme, at, 8);
        if (!list || at % 8 != 0)
            return false;
        uint64_t prp = sdc_get64(list);
        if (at % page == page - 8 && size > page) {
            at = prp;
            continue;
        }
        step = sdc_min(size, page);
        if (prp % page != 0 || !copy_piece(nvme, prp, data, step, to_host))
            return false;
        data += step, size -= step, at += 8;
    }
    return true;
}

static bool copy_data(struct fake_nvme *nvme, const uint8_t *entry, uint8_t *data, uint64_t size, bool to_host)
{
    if ((entry[SDC_NVME_SQE_FLAGS] & SDC_NVME_PSDT) == 0)
        return copy_prps(nvme, entry, data, size, to_host);
    const uint8_t *descriptor = entry + SDC_NVME_SQE_PRP1;
    return descriptor[SDC_NVME_SGL_KIND] == SDC_NVME_SGL_DATA << 4 && sdc_get32(descriptor + SDC_NVME_SGL_LENGTH) == size &&
           copy_piece(nvme, sdc_get64(descriptor), data, size, to_host);
}

// --- admin commands ---

static void fill_controller(uint8_t *data)
{
    memcpy(data + 4, "FAKE01              ", 20);
    memcpy(data + 24, "A controller for tests                  ", 40);
    memcpy(data + 64, "0.1     ", 8);
    data[77] = 9;                          // MDTS: 2 MiB
    sdc_put16(data + 256, 1 << 8);         // Doorbell Buffer Config
    sdc_put32(data + 516, 4);              // NN
    sdc_put16(data + 520, 1 | 1 << 2 | 1 << 3); // compare, DSM, write zeroes
    data[525] = 1;                         // volatile write cache
    sdc_put32(data + 536, 1);              // SGLs
}

static uint16_t identify(struct fake_nvme *nvme, const uint8_t *entry)
{
    uint8_t data[4096] = {0}, cns = entry[SDC_NVME_SQE_CDW10];
    uint32_t nsid = sdc_get32(entry + SDC_NVME_SQE_NSID);
    if (cns == SDC_NVME_CNS_CONTROLLER) {
        fill_controller(data);
    } else if (cns == SDC_NVME_CNS_ACTIVE_NS) {
        sdc_put32(data, 2);
    } else if (cns == SDC_NVME_CNS_NS && nsid == 2) {
        sdc_put64(data, FAKE_NVME_DISK >> nvme->block_shift);
        data[33] = 1 << 3;
        data[128 + 2] = (uint8_t)nvme->block_shift;
    } else if (cns != SDC_NVME_CNS_NS) {
        return SDC_NVME_SC_INVALID_FIELD;
    }
    if (nvme->identify)
        nvme->identify(nvme, cns, nsid, data);
    return copy_data(nvme, entry, data, sizeof data, true) ? 0 : SDC_NVME_SC_DATA_TRANSFER;
}

static uint16_t create(struct fake_nvme_queue *queues, const uint8_t *entry, bool completions)
{
    uint32_t dword10 = sdc_get32(entry + SDC_NVME_SQE_CDW10), dword11 = sdc_get32(entry + SDC_NVME_SQE_CDW11);
    uint16_t id = (uint16_t)dword10;
    if (id == 0 || id >= FAKE_NVME_QUEUES || queues[id].iova != 0 || !(dword11 & 1))
        return SDC_NVME_SC_QID_INVALID;
    if (!completions && dword11 >> 16 != id)
        return SDC_NVME_SC_CQ_INVALID;
    queues[id] = (struct fake_nvme_queue){.iova = sdc_get64(entry + SDC_NVME_SQE_PRP1),
                                          .size = (dword10 >> 16) + 1,
                                          .phase = true,
                                          .vector = dword11 & 2 ? (int)(dword11 >> 16) : -1};
    return 0;
}

static uint16_t delete_queue(struct fake_nvme *nvme, const uint8_t *entry, bool completions)
{
    uint16_t id = sdc_get16(entry + SDC_NVME_SQE_CDW10);
    if (id == 0 || id >= FAKE_NVME_QUEUES || (completions && nvme->sq[id].iova != 0))
        return SDC_NVME_SC_QUEUE_IN_USE;
    (completions ? nvme->cq : nvme->sq)[id].iova = 0;
    (completions ? nvme->heads : nvme->tails)[id] = 0;
    return 0;
}

static uint16_t run_admin(struct fake_nvme *nvme, const uint8_t *entry, uint32_t *dword0)
{
    if (nvme->refuse != 0 && entry[0] == nvme->refused_opcode)
        return nvme->refuse;
    switch (entry[0]) {
    case SDC_NVME_ADMIN_IDENTIFY:
        return identify(nvme, entry);
    case SDC_NVME_ADMIN_SET_FEATURES:
        *dword0 = nvme->granted;
        return 0;
    case SDC_NVME_ADMIN_CREATE_CQ:
        return create(nvme->cq, entry, true);
    case SDC_NVME_ADMIN_CREATE_SQ:
        return create(nvme->sq, entry, false);
    case SDC_NVME_ADMIN_DELETE_CQ:
        return delete_queue(nvme, entry, true);
    case SDC_NVME_ADMIN_DELETE_SQ:
        return delete_queue(nvme, entry, false);
    case SDC_NVME_ADMIN_DOORBELL_BUFFER:
        nvme->shadows = sdc_get64(entry + SDC_NVME_SQE_PRP1);
        nvme->events = sdc_get64(entry + SDC_NVME_SQE_PRP2);
        return 0;
    default:
        return SDC_NVME_SC_INVALID_OPCODE;
    }
}

// --- I/O ---

static uint16_t discard(struct fake_nvme *nvme, const uint8_t *entry)
{
    uint8_t range[SDC_NVME_DSM_RANGE];
    if (!copy_data(nvme, entry, range, sizeof range, false))
        return SDC_NVME_SC_DATA_TRANSFER;
    uint64_t from = sdc_get64(range + 8) << nvme->block_shift, size = (uint64_t)sdc_get32(range + 4) << nvme->block_shift;
    if (!sdc_within(from, size, FAKE_NVME_DISK))
        return SDC_NVME_SC_LBA_RANGE;
    memset(nvme->disk + from, 0, size);
    return 0;
}

static uint16_t move(struct fake_nvme *nvme, const uint8_t *entry)
{
    static uint8_t other[TRANSFER_MAX];
    uint64_t from = sdc_get64(entry + SDC_NVME_SQE_CDW10) << nvme->block_shift;
    uint64_t size = (uint64_t)(sdc_get16(entry + SDC_NVME_SQE_CDW12) + 1) << nvme->block_shift;
    if (!sdc_within(from, size, FAKE_NVME_DISK))
        return SDC_NVME_SC_LBA_RANGE;
    uint8_t *at = nvme->disk + from;
    if (entry[0] == SDC_NVME_IO_WRITE_ZEROES) {
        memset(at, 0, size);
        return 0;
    }
    if (size > sizeof other)
        return SDC_NVME_SC_INVALID_FIELD;
    bool compare = entry[0] == SDC_NVME_IO_COMPARE;
    if (!copy_data(nvme, entry, compare ? other : at, size, entry[0] == SDC_NVME_IO_READ))
        return SDC_NVME_SC_DATA_TRANSFER;
    return compare && memcmp(other, at, size) != 0 ? SDC_NVME_SC_COMPARE : 0;
}

static uint16_t run_io(struct fake_nvme *nvme, const uint8_t *entry)
{
    memcpy(nvme->last, entry, sizeof nvme->last);
    nvme->io_commands++;
    if (sdc_get32(entry + SDC_NVME_SQE_NSID) != 2)
        return SDC_NVME_SC_INVALID_NS;
    switch (entry[0]) {
    case SDC_NVME_IO_READ:
    case SDC_NVME_IO_WRITE:
    case SDC_NVME_IO_COMPARE:
    case SDC_NVME_IO_WRITE_ZEROES:
        return move(nvme, entry);
    case SDC_NVME_IO_DSM:
        return discard(nvme, entry);
    case SDC_NVME_IO_FLUSH:
        return 0;
    default:
        return SDC_NVME_SC_INVALID_OPCODE;
    }
}

// --- queues ---

static void post(struct fake_nvme *nvme, uint16_t id, uint8_t *entry)
{
    struct fake_nvme_queue *queue = &nvme->cq[id];
    uint8_t *at = host_of(nvme, queue->iova + (uint64_t)queue->at * SDC_NVME_CQE, SDC_NVME_CQE);
    uint16_t status = (uint16_t)((sdc_get16(entry + SDC_NVME_CQE_STATUS) & ~1u) | queue->phase);
    sdc_put16(entry + SDC_NVME_CQE_STATUS, status);
    if (!at)
        return;
    memcpy(at, entry, SDC_NVME_CQE_CID);
    uint32_t word = sdc_get32(entry + SDC_NVME_CQE_CID);
    atomic_fetch_add_explicit(&nvme->posted, 1, memory_order_release);
    __atomic_store_n((uint32_t *)(void *)(at + SDC_NVME_CQE_CID), htole32(word), __ATOMIC_RELEASE);
    queue->at++;
    if (queue->at == queue->size) {
        queue->at = 0;
        queue->phase = !queue->phase;
    }
}

static void run_one(struct fake_nvme *nvme, uint16_t id)
{
    struct fake_nvme_queue *queue = &nvme->sq[id];
    uint8_t entry[SDC_NVME_SQE], completion[SDC_NVME_CQE] = {0};
    uint32_t dword0 = 0;
    const uint8_t *at = host_of(nvme, queue->iova + (uint64_t)queue->at * SDC_NVME_SQE, SDC_NVME_SQE);
    if (!at)
        return;
    memcpy(entry, at, sizeof entry);
    queue->at = (queue->at + 1) % queue->size;
    uint16_t status = id == 0 ? run_admin(nvme, entry, &dword0) : run_io(nvme, entry);
    sdc_put32(completion, dword0);
    sdc_put16(completion + SDC_NVME_CQE_SQHD, (uint16_t)queue->at);
    sdc_put16(completion + SDC_NVME_CQE_SQID, id);
    sdc_put16(completion + SDC_NVME_CQE_CID, sdc_get16(entry + SDC_NVME_SQE_CID));
    sdc_put16(completion + SDC_NVME_CQE_STATUS, (uint16_t)(status << 1));
    if (nvme->complete)
        nvme->complete(nvme, id, completion);
    post(nvme, id, completion);
    if (id > 0 && nvme->duplicate > 0) {
        nvme->duplicate--;
        post(nvme, id, completion);
    }
}

// Where the driver says a queue ends: its shadow, if there are any, and asks to be notified of the next.
static uint16_t tail_of(struct fake_nvme *nvme, uint16_t id)
{
    uint8_t *shadow = nvme->shadows == 0 || id == 0 ? NULL : host_of(nvme, nvme->shadows + 8u * id, 4);
    uint8_t *event = nvme->shadows == 0 || id == 0 ? NULL : host_of(nvme, nvme->events + 8u * id, 4);
    if (!shadow || !event)
        return nvme->tails[id];
    uint32_t tail = le32toh(__atomic_load_n((uint32_t *)(void *)shadow, __ATOMIC_ACQUIRE));
    __atomic_store_n((uint32_t *)(void *)event, htole32(tail), __ATOMIC_SEQ_CST);
    return (uint16_t)le32toh(__atomic_load_n((uint32_t *)(void *)shadow, __ATOMIC_SEQ_CST));
}

static void run_queue(struct fake_nvme *nvme, uint16_t id)
{
    if (nvme->sq[id].iova == 0 || nvme->cq[id].iova == 0 || tail_of(nvme, id) >= nvme->sq[id].size)
        return;
    while (nvme->sq[id].at != tail_of(nvme, id))
        run_one(nvme, id);
    int vector = nvme->cq[id].vector;
    if (vector < 0 || vector >= FAKE_NVME_VECTORS)
        return;
    if (nvme->fds[vector] >= 0)
        sdc_eventfd_signal(nvme->fds[vector]);
    else if (nvme->interrupts)
        nvme->csts |= SDC_NVME_CSTS_CFS; // some controllers fail when nobody hears their interrupt: SPDK's
}

// --- registers ---

static void write_cc(struct fake_nvme *nvme, uint32_t value)
{
    nvme->cc = value;
    if ((value >> SDC_NVME_CC_SHN & 3) != 0 && !nvme->never_shut) {
        nvme->csts |= SDC_NVME_CSTS_SHST_DONE;
        nvme->shutdowns++;
    }
    if (nvme->never_ready)
        return;
    if (value & SDC_NVME_CC_EN && !(nvme->csts & SDC_NVME_CSTS_RDY)) {
        nvme->sq[0] = (struct fake_nvme_queue){.iova = nvme->asq, .size = (nvme->aqa & 0xfff) + 1};
        nvme->cq[0] = (struct fake_nvme_queue){.iova = nvme->acq, .size = (nvme->aqa >> 16) + 1, .phase = true, .vector = 0};
        nvme->csts = SDC_NVME_CSTS_RDY;
    } else if (!(value & SDC_NVME_CC_EN)) {
        memset(nvme->sq, 0, sizeof nvme->sq);
        memset(nvme->cq, 0, sizeof nvme->cq);
        nvme->csts = 0;
        nvme->shadows = 0;
    }
}

static void put_half(uint64_t *value, uint32_t half, bool high)
{
    *value = high ? (*value & UINT32_MAX) | (uint64_t)half << 32 : (*value & ~(uint64_t)UINT32_MAX) | half;
}

static void write_register(struct fake_nvme *nvme, uint64_t offset, uint32_t value)
{
    if (offset == SDC_NVME_CC)
        write_cc(nvme, value);
    else if (offset == SDC_NVME_AQA)
        nvme->aqa = value;
    else if (offset == SDC_NVME_ASQ || offset == SDC_NVME_ASQ + 4)
        put_half(&nvme->asq, value, offset != SDC_NVME_ASQ);
    else if (offset == SDC_NVME_ACQ || offset == SDC_NVME_ACQ + 4)
        put_half(&nvme->acq, value, offset != SDC_NVME_ACQ);
    if (offset < SDC_NVME_DOORBELLS || nvme->deaf)
        return;
    uint64_t number = (offset - SDC_NVME_DOORBELLS) / (UINT64_C(4) << (nvme->cap >> SDC_NVME_CAP_DSTRD & 0xf)), id = number / 2;
    if (id >= FAKE_NVME_QUEUES)
        return;
    (number % 2 == 0 ? nvme->tails : nvme->heads)[id] = (uint16_t)value;
    if (id > 0)
        (*(number % 2 == 0 ? &nvme->tail_rings : &nvme->head_rings))++;
    if (number % 2 == 0)
        run_queue(nvme, (uint16_t)id);
}

static uint32_t read_register(struct fake_nvme *nvme, uint64_t offset)
{
    switch (offset) {
    case SDC_NVME_CAP:
        return (uint32_t)nvme->cap;
    case SDC_NVME_CAP + 4:
        return (uint32_t)(nvme->cap >> 32);
    case SDC_NVME_VS:
        return nvme->version;
    case SDC_NVME_CC:
        return nvme->cc;
    case SDC_NVME_CSTS:
        return nvme->csts_read != 0 ? nvme->csts_read : nvme->csts;
    default:
        return 0;
    }
}

// --- messages ---

static void access_region(struct fake_server *server, struct fake_message *message)
{
    struct fake_nvme *nvme = server->context;
    struct sdc_vfu_region_access access;
    uint8_t reply[sizeof access + 4096] = {0}, *data = message->payload + sizeof access;
    bool read = message->header.cmd == SDC_VFU_REGION_READ;
    memcpy(&access, message->payload, sizeof access);
    memcpy(reply, &access, sizeof access);
    if (read && access.region == REGION_CONFIG)
        memcpy(reply + sizeof access, nvme->config + access.offset, access.count);
    else if (read)
        sdc_put32(reply + sizeof access, read_register(nvme, access.offset));
    else if (access.region == 0 && access.count == 4)
        write_register(nvme, access.offset, sdc_get32(data));
    for (uint32_t i = 0; !read && access.region == REGION_CONFIG && i < access.count; i++) {
        uint8_t mask = nvme->mask[access.offset + i], *at = &nvme->config[access.offset + i];
        *at = (uint8_t)((*at & ~mask) | (data[i] & mask));
    }
    if (!(message->header.flags & SDC_VFU_NO_REPLY))
        fake_reply(server, message, reply, sizeof access + (read ? access.count : 0), NULL, 0);
}

static void write_multi(struct fake_server *server, struct fake_message *message)
{
    struct fake_nvme *nvme = server->context;
    struct sdc_vfu_write_multi head;
    struct sdc_vfu_write write;
    memcpy(&head, message->payload, sizeof head);
    nvme->multi++;
    for (uint64_t i = 0; i < head.wr_cnt; i++) {
        memcpy(&write, message->payload + sizeof head + i * sizeof write, sizeof write);
        write_register(nvme, write.offset, sdc_get32(write.data));
    }
    if (!(message->header.flags & SDC_VFU_NO_REPLY))
        fake_reply(server, message, &head, sizeof head, NULL, 0);
}

static void map_memory(struct fake_server *server, struct fake_message *message)
{
    struct fake_nvme *nvme = server->context;
    struct sdc_vfu_dma_map map;
    memcpy(&map, message->payload, sizeof map);
    void *host = message->fds_count == 1 ? mmap(NULL, map.size, PROT_READ | PROT_WRITE, MAP_SHARED, message->fds[0], (off_t)map.offset)
                                         : MAP_FAILED;
    if (host == MAP_FAILED || nvme->memories == SDC_COUNT(nvme->memory)) {
        fake_reply_error(server, message, EINVAL);
        return;
    }
    nvme->memory[nvme->memories].iova = map.address;
    nvme->memory[nvme->memories].size = map.size;
    nvme->memory[nvme->memories++].host = host;
    fake_reply(server, message, NULL, 0, NULL, 0);
}

static void set_irqs(struct fake_server *server, struct fake_message *message)
{
    struct fake_nvme *nvme = server->context;
    struct sdc_vfu_set_irqs set;
    memcpy(&set, message->payload, sizeof set);
    if (set.start + set.count > FAKE_NVME_VECTORS || message->fds_count != (int)set.count) {
        fake_reply_error(server, message, EINVAL);
        return;
    }
    for (unsigned i = 0; i < set.count; i++) {
        sdc_fd_close(&nvme->fds[set.start + i]);
        nvme->fds[set.start + i] = dup(message->fds[i]);
        nvme->interrupts = true;
    }
    fake_reply(server, message, NULL, 0, NULL, 0);
}

static void reply_region(struct fake_server *server, struct fake_message *message)
{
    struct fake_nvme *nvme = server->context;
    struct sdc_vfu_region_info info;
    memcpy(&info, message->payload, sizeof info);
    info.argsz = sizeof info;
    info.flags = 3;
    info.cap_offset = 0;
    info.size = info.index == 0 ? nvme->bar_size : 0;
    fake_reply(server, message, &info, sizeof info, NULL, 0);
}

bool serve_fake_nvme(struct fake_server *server, struct fake_message *message)
{
    struct sdc_vfu_device_info device = {.argsz = 16, .flags = 2, .num_regions = 9, .num_irqs = 5};
    struct sdc_vfu_irq_info irq;
    switch (message->header.cmd) {
    case SDC_VFU_GET_INFO:
        fake_reply(server, message, &device, sizeof device, NULL, 0);
        break;
    case SDC_VFU_GET_REGION_INFO:
        reply_region(server, message);
        break;
    case SDC_VFU_GET_REGION_IO_FDS:
        fake_reply_error(server, message, EINVAL);
        break;
    case SDC_VFU_REGION_WRITE_MULTI:
        write_multi(server, message);
        break;
    case SDC_VFU_GET_IRQ_INFO:
        memcpy(&irq, message->payload, sizeof irq);
        irq.count = FAKE_NVME_VECTORS;
        fake_reply(server, message, &irq, sizeof irq, NULL, 0);
        break;
    case SDC_VFU_SET_IRQS:
        set_irqs(server, message);
        break;
    case SDC_VFU_DMA_MAP:
        map_memory(server, message);
        break;
    case SDC_VFU_REGION_READ:
    case SDC_VFU_REGION_WRITE:
        access_region(server, message);
        break;
    default:
        fake_reply(server, message, NULL, 0, NULL, 0);
    }
    return true;
}
