// SPDX-License-Identifier: BSD-3-Clause
// An NVMe controller in one thread: a loop whose turns are counted, guest memory, a host that counts interrupts, a driver, and a backend
// that holds its requests until it is told to finish them.
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/check.h"
#include "device/nvme/nvme.h"
#include "loop_turns.h"
#include "ring_fixture.h"
#include "wire/nvme.h"

enum {
    NF_HELD = 64,
    NF_QUEUES = 4,
    NF_DEPTH = 64,
    NF_ASQ = 0x0000, // pages of guest memory: queue q's are at 2 * q and 2 * q + 1
    NF_ACQ = 0x1000,
    NF_DATA = 0xb000,
    NF_ADMIN_SIZE = 16,
    NF_PHASE = 1,
};

static struct {
    struct sdc_block block;
    struct sdc_block_request *held[NF_HELD];
    unsigned held_count;
    bool hold;
    int open_rc;
    unsigned opens, closes, submits, cancels, flushes;
    sdc_block_done *done;
    void *context;
} backend;

static struct {
    struct sdc_loop *loop;
    struct sdc_pci_device *pci;
    struct sdc_pci_host host;
    struct guest guest;
    unsigned msix[NF_QUEUES + 1], intx, ready;
    uint32_t tail[NF_QUEUES + 1], head[NF_QUEUES + 1], size[NF_QUEUES + 1];
    bool phase[NF_QUEUES + 1];
    uint16_t cid;
} nf;

static inline void nf_run(unsigned count)
{
    loop_turns(nf.loop, count);
}

// --- the backend ---

static inline void nf_finish(struct sdc_block_request *request, int result)
{
    request->result = result;
    backend.done(backend.context, &request, 1);
}

static inline void nf_let_go(int result)
{
    struct sdc_block_request *held[NF_HELD];
    unsigned count = backend.held_count;

    memcpy(held, backend.held, sizeof held);
    backend.held_count = 0;
    for (unsigned i = 0; i < count; i++)
        nf_finish(held[i], result);
    nf_run(4);
}

struct nf_later {
    struct sdc_deferred deferred;
    struct sdc_block_request *requests[NF_HELD];
    unsigned count;
};
static struct nf_later nf_later;

static inline void nf_run_later(struct sdc_deferred *deferred)
{
    unsigned count = nf_later.count;
    struct sdc_block_request *requests[NF_HELD];

    (void)deferred;
    memcpy(requests, nf_later.requests, sizeof requests);
    nf_later.count = 0;
    for (unsigned i = 0; i < count; i++)
        nf_finish(requests[i], 0);
}

static inline void nf_submit(struct sdc_block_queue *queue, struct sdc_block_request **requests, unsigned count)
{
    (void)queue;
    backend.submits++;
    for (unsigned i = 0; i < count; i++) {
        backend.flushes += requests[i]->op == SDC_BLOCK_FLUSH;
        if (backend.hold)
            backend.held[backend.held_count++] = requests[i];
        else
            nf_later.requests[nf_later.count++] = requests[i];
    }
    nf_later.deferred.run = nf_run_later;
    sdc_loop_defer(nf.loop, &nf_later.deferred);
}

static inline void nf_cancel(struct sdc_block_queue *queue)
{
    (void)queue;
    backend.cancels++;
}

static inline void nf_close(struct sdc_block_queue *queue)
{
    assert_int_equal(backend.held_count, 0);
    backend.closes++;
    free(queue);
}

static inline int nf_open(struct sdc_block *block, struct sdc_loop *loop, sdc_block_done *done, void *context,
                          struct sdc_block_queue **queue)
{
    static const struct sdc_block_queue_ops ops = {.submit = nf_submit, .cancel = nf_cancel, .close = nf_close};

    if (backend.open_rc < 0)
        return backend.open_rc;
    *queue = calloc(1, sizeof **queue);
    **queue = (struct sdc_block_queue){.ops = &ops, .block = block, .loop = loop, .done = done, .context = context};
    backend.done = done;
    backend.context = context;
    backend.opens++;
    return 0;
}

static inline void nf_info(struct sdc_block *block, struct sdc_block_info *info)
{
    (void)block;
    *info = (struct sdc_block_info){.size = 1 << 20, .block_size = 512, .physical_block_size = 512, .volatile_cache = true};
}

static inline void nf_block_close(struct sdc_block *block)
{
    (void)block;
}

// --- the host ---

static inline void nf_interrupt(struct sdc_pci_host *host, enum sdc_pci_irq kind, uint32_t vector)
{
    (void)host;
    if (kind == SDC_PCI_MSIX)
        nf.msix[vector]++;
    else
        nf.intx++;
}

static inline void nf_is_ready(struct sdc_pci_host *host)
{
    (void)host;
    nf.ready++;
}

// --- life ---

static inline void nf_start(const struct sdc_nvme_options *options)
{
    static const struct sdc_block_ops block_ops = {.name = "held", .info = nf_info, .queue_open = nf_open, .close = nf_block_close};
    static const struct sdc_pci_host_ops host_ops = {.interrupt = nf_interrupt, .ready = nf_is_ready};

    memset(&backend, 0, sizeof backend);
    memset(&nf, 0, sizeof nf);
    backend.block.ops = &block_ops;
    nf.host.ops = &host_ops;
    assert_int_equal(sdc_loop_new(SDC_LOOP_EPOLL, &nf.loop, NULL), 0);
    assert_int_equal(sdc_nvme_new(options, &nf.loop, 1, &nf.pci, NULL), 0);
    assert_int_equal(sdc_nvme_namespace_new(nf.pci, 1, &backend.block, "held", NULL), 0);
    nf.pci->host = &nf.host;
    guest_open(&nf.guest, false);
    nf.pci->ops->set_map(nf.pci, nf.guest.map);
}

static inline void nf_open_card(void)
{
    struct sdc_nvme_options options = {.queues = NF_QUEUES, .depth = NF_DEPTH, .vectors = NF_QUEUES + 1, .poll_max_ns = 1000,
                                       .shadow_doorbells = true, .write_cache = true};

    nf_start(&options);
}

static inline void nf_close_card(void)
{
    backend.hold = false;
    nf.pci->ops->reset(nf.pci);
    nf_run(4);
    nf_let_go(0);
    nf_run(4);
    assert_false(nf.pci->ops->busy(nf.pci));
    assert_int_equal(backend.opens, backend.closes);
    nf.pci->ops->set_map(nf.pci, NULL);
    nf_run(4);
    nf.pci->ops->destroy(nf.pci);
    guest_close(&nf.guest);
    sdc_loop_free(nf.loop);
}

// --- registers ---

static inline int nf_access(uint64_t offset, uint32_t size, bool write, uint64_t *value)
{
    struct sdc_pci_access access = {.region = SDC_PCI_BAR0, .offset = offset, .size = size, .write = write, .value = *value};
    int rc = nf.pci->ops->access(nf.pci, &access);

    *value = access.value;
    return rc;
}

static inline uint64_t nf_get(uint64_t offset, uint32_t size)
{
    uint64_t value = 0;

    assert_int_equal(nf_access(offset, size, false, &value), 0);
    return value;
}

static inline void nf_set(uint64_t offset, uint32_t size, uint64_t value)
{
    assert_int_equal(nf_access(offset, size, true, &value), 0);
    nf_run(3);
}

static inline uint32_t nf_csts(void)
{
    return (uint32_t)nf_get(SDC_NVME_CSTS, 4);
}

static inline uint32_t nf_good_cc(void)
{
    return SDC_NVME_CC_EN | SDC_NVME_SQES << SDC_NVME_CC_IOSQES | SDC_NVME_CQES << SDC_NVME_CC_IOCQES;
}

// --- the driver ---

static inline void nf_new_queue(unsigned id, uint32_t size)
{
    nf.tail[id] = nf.head[id] = 0;
    nf.size[id] = size;
    nf.phase[id] = true;
    for (uint64_t at = 0; at < 2 * GUEST_PAGE; at += 8)
        guest_put(&nf.guest, 2 * (uint64_t)GUEST_PAGE * id + at, 0, 8);
}

static inline void nf_enable(void)
{
    nf_new_queue(0, NF_ADMIN_SIZE);
    nf_set(SDC_NVME_AQA, 4, (NF_ADMIN_SIZE - 1) << 16 | (NF_ADMIN_SIZE - 1));
    nf_set(SDC_NVME_ASQ, 8, NF_ASQ);
    nf_set(SDC_NVME_ACQ, 8, NF_ACQ);
    nf_set(SDC_NVME_CC, 4, nf_good_cc());
}

// Lays a command down; its identifier.
static inline uint16_t nf_put(unsigned sq, uint8_t opcode, uint32_t nsid, uint64_t prp1, uint32_t cdw10, uint32_t cdw11)
{
    uint64_t at = 2 * (uint64_t)GUEST_PAGE * sq + (uint64_t)nf.tail[sq] * SDC_NVME_SQE;

    for (uint64_t i = 0; i < SDC_NVME_SQE; i += 8)
        guest_put(&nf.guest, at + i, 0, 8);
    guest_put(&nf.guest, at + SDC_NVME_SQE_OPCODE, opcode, 1);
    guest_put(&nf.guest, at + SDC_NVME_SQE_CID, ++nf.cid, 2);
    guest_put(&nf.guest, at + SDC_NVME_SQE_NSID, nsid, 4);
    guest_put(&nf.guest, at + SDC_NVME_SQE_PRP1, prp1, 8);
    guest_put(&nf.guest, at + SDC_NVME_SQE_CDW10, cdw10, 4);
    guest_put(&nf.guest, at + SDC_NVME_SQE_CDW11, cdw11, 4);
    nf.tail[sq] = (nf.tail[sq] + 1) % nf.size[sq];
    return nf.cid;
}

static inline void nf_ring(unsigned sq)
{
    nf_set(SDC_NVME_DOORBELLS + 8 * (uint64_t)sq, 4, nf.tail[sq]);
}

static inline void nf_acknowledge(unsigned cq)
{
    nf_set(SDC_NVME_DOORBELLS + 8 * (uint64_t)cq + 4, 4, nf.head[cq]);
}

// The next completion's status field, or -1: there is none. Not acknowledged.
static inline int nf_take(unsigned cq)
{
    uint64_t at = 2 * (uint64_t)GUEST_PAGE * cq + GUEST_PAGE + (uint64_t)nf.head[cq] * SDC_NVME_CQE;
    uint16_t status = (uint16_t)guest_get(&nf.guest, at + SDC_NVME_CQE_STATUS, 2);

    if ((status & NF_PHASE) != nf.phase[cq])
        return -1;
    nf.head[cq] = (nf.head[cq] + 1) % nf.size[cq];
    nf.phase[cq] ^= nf.head[cq] == 0;
    return status >> 1;
}

// An admin command's status, without DNR.
static inline int nf_admin(uint8_t opcode, uint64_t prp1, uint32_t cdw10, uint32_t cdw11)
{
    nf_put(0, opcode, 0, prp1, cdw10, cdw11);
    nf_ring(0);
    nf_run(4);
    int status = nf_take(0);
    nf_acknowledge(0);
    return status < 0 ? status : status & ~SDC_NVME_SC_DNR;
}

static inline int nf_create_cq(unsigned id, uint32_t size)
{
    nf_new_queue(id, size);
    return nf_admin(SDC_NVME_ADMIN_CREATE_CQ, 2 * (uint64_t)GUEST_PAGE * id + GUEST_PAGE, id | (size - 1) << 16, 3 | id << 16);
}

static inline int nf_create_sq(unsigned id, uint32_t size)
{
    return nf_admin(SDC_NVME_ADMIN_CREATE_SQ, 2 * (uint64_t)GUEST_PAGE * id, id | (size - 1) << 16, 1 | id << 16);
}

static inline void nf_use_msix(void)
{
    uint8_t control[2] = {0, 0x80};

    // MSI-X is the first capability.
    nf.pci->config[0x42] = control[0];
    nf.pci->config[0x43] = (uint8_t)(nf.pci->config[0x43] | control[1]);
    nf.pci->ops->config_written(nf.pci, 0x42, 2);
}

static inline void nf_queue_pair(unsigned id, uint32_t size)
{
    assert_int_equal(nf_create_cq(id, size), 0);
    assert_int_equal(nf_create_sq(id, size), 0);
}

// A card whose controller is enabled, with so many queue pairs.
static inline void nf_open_with_queues(unsigned count, uint32_t size)
{
    nf_open_card();
    nf_use_msix();
    nf_enable();
    for (unsigned id = 1; id <= count; id++)
        nf_queue_pair(id, size);
    memset(nf.msix, 0, sizeof nf.msix);
}

static inline void nf_put_flush(unsigned sq)
{
    nf_put(sq, SDC_NVME_IO_FLUSH, 1, 0, 0, 0);
}

static inline void nf_flush(unsigned sq)
{
    nf_put_flush(sq);
    nf_ring(sq);
    nf_run(4);
}

// As nf_open_with_queues, and the backend holds what queue 1 was asked for.
static inline void nf_open_with_io(unsigned count, uint32_t size)
{
    nf_open_with_queues(count, size);
    backend.hold = true;
    nf_put_flush(1);
    nf_ring(1);
}
