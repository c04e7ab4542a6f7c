// SPDX-License-Identifier: BSD-3-Clause
// The controller, as its home loop knows it: what the files of this folder share.
#pragma once

#include "device/nvme/admin.h"
#include "device/nvme/namespaces.h"

enum {
    NVME_VENDOR = 0x1af4, // PCI
    NVME_DEVICE = 0x10f0, // of those that are free for experiments
    NVME_BAR = 0,
    NVME_TABLE_BAR = 4,
    NVME_PBA_BAR = 5,
    NVME_BAR_SIZE = 16 * 1024, // Windows wants no less
    NVME_ADMIN_DEPTH_MAX = 4096,
    NVME_CC_WRITABLE = 0x00fffff1, // the rest is reserved, or of a mode that is not offered
    NVME_AQA_WRITABLE = 0x0fff0fff,
};

// What a controller is doing with CC.EN.
enum nvme_life {
    NVME_OFF,
    NVME_ON,       // also when it failed: CSTS.CFS
    NVME_STOPPING, // its queues are ending
};

// What follows when the queues have ended.
enum nvme_ending {
    NVME_END_DISABLE,   // CC.EN was cleared
    NVME_END_SHUTDOWN,  // CC.SHN was set
    NVME_END_SUBSYSTEM, // NSSR was written
    NVME_END_RESET,     // the PCI function is reset: everything
    NVME_END_LEAVE,     // another process goes on
};

struct nvme_change;

struct nvme {
    struct sdc_pci_device pci;
    struct sdc_loop *home;
    struct sdc_nvme_options options;

    // Registers (registers.c). Home loop, but csts and intms, which queues read.
    uint32_t cc;
    _Atomic uint32_t csts;
    _Atomic uint32_t intms;
    uint32_t aqa;
    uint64_t asq, acq;
    bool nssr; // was written

    // Its life (controller.c), home loop.
    enum nvme_life life;
    enum nvme_ending ending; // while STOPPING
    unsigned stopping;       // workers that have not obeyed; zero: it is OFF, or shut down
    bool flushes;            // before it is shut down, what caches hold is made durable: the home loop's worker keeps the backends open
    bool resetting;          // of the PCI function
    unsigned remapping;      // workers that have not obeyed; zero, and not resetting: the card is not busy
    unsigned resuming;       // queues that go on where another process was, and have not begun yet; zero, likewise
    bool left;               // to another process
    uint8_t *live;           // what is written down as it runs (state.c), or NULL
    struct sdc_map *map;     // a reference
    struct sdc_deferred step;
    struct sdc_deferred settle; // ends flushes

    // Queues: workers belong to their loops. The home loop's tables have an entry for each id, options.queues + 1 of them.
    struct nvme_worker *workers;
    unsigned workers_count;
    struct nvme_cq *cqs;
    struct nvme_sq *sqs;
    // The doorbells as the driver wrote them: word 2 * y is submission queue y's tail, 2 * y + 1 completion queue y's head. A page.
    _Atomic uint32_t *doorbells;
    void *mapped_doorbells; // the same if clients may map it, else NULL

    // Doorbell Buffer Config (doorbells.c). Home loop.
    struct nvme_shadow shadow;
    unsigned sharing;                   // workers that have not obeyed; zero: share_command has ended
    struct nvme_command *share_command;

    // Interrupts (pci.c).
    uint8_t *msix_table;
    uint32_t msix_cap;
    _Atomic bool msix_enabled;
    _Atomic bool intx_disabled;

    // Namespaces (namespaces.c). Home loop.
    struct nvme_namespaces namespaces;
    struct nvme_change *changes; // that workers have not all obeyed

    // What admin commands are about (admin.c). Home loop, but what says otherwise.
    struct nvme_admin admin;
};

static inline struct nvme *nvme_of(struct sdc_pci_device *device)
{
    return (struct nvme *)(void *)device;
}

// --- registers.c, home loop ---

uint64_t nvme_register_read(struct nvme *nvme, uint64_t offset, uint32_t size);
void nvme_register_write(struct nvme *nvme, uint64_t offset, uint32_t size, uint64_t value);

// --- controller.c ---

// Home loop: CC or NSSR was written, or queues have ended: goes on at the end of this turn.
void nvme_step(struct nvme *nvme);
// Home loop: begins to end all queues.
void nvme_end(struct nvme *nvme, enum nvme_ending ending);
// Any thread: the driver must reset the controller (CSTS.CFS).
void nvme_fatal(struct nvme *nvme, const char *reason);
static inline bool nvme_failed(struct nvme *nvme)
{
    return (atomic_load_explicit(&nvme->csts, memory_order_relaxed) & SDC_NVME_CSTS_CFS) != 0;
}

// Home loop: the admin queues go on where another process was. 0 or a negative errno.
int nvme_resume(struct nvme *nvme);

// --- pci.c, home loop ---

// Brings what is derived from the configuration space up to date.
void nvme_config_changed(struct nvme *nvme);
// Doorbells are in these words from now on, which outlast the process; clients cannot map them.
void nvme_adopt_doorbells(struct nvme *nvme, _Atomic uint32_t *words);

// --- state.c: nothing happens where nothing is written down ---

void nvme_state_needs(struct sdc_pci_device *device, struct sdc_pci_state_needs *needs);
void nvme_state_keep(struct sdc_pci_device *device, void *memory, bool goes_on);
void nvme_state_save(struct sdc_pci_device *device, void *registers);
int nvme_state_load(struct sdc_pci_device *device, const void *registers, struct sdc_error *err);
void nvme_state_stop(struct sdc_pci_device *device);
// Home loop: the controller is about to start; it runs; it has ended, perhaps by a shutdown.
void nvme_live_starts(struct nvme *nvme);
void nvme_live_runs(struct nvme *nvme);
void nvme_live_ended(struct nvme *nvme, bool shut_down);
// Any thread.
void nvme_live_failed(struct nvme *nvme);
// Home loop: what the driver set has changed, and it does not know yet.
void nvme_live_shadow(struct nvme *nvme);
void nvme_live_features(struct nvme *nvme);

// --- interrupts.c ---

// The worker's loop: cq begins, and ends.
void nvme_interrupt_start(struct nvme_cq *cq);
void nvme_interrupt_end(struct nvme_cq *cq);
// The worker's loop: something was posted to cq, which interrupts, now or soon.
void nvme_interrupt(struct nvme_cq *cq);
void nvme_interrupt_now(struct nvme_cq *cq);
// Any thread: whether INTx is asserted.
bool nvme_intx_level(struct nvme *nvme);

// --- queues.c: admin commands, home loop ---

int nvme_create_cq(struct nvme_command *command);
int nvme_delete_cq(struct nvme_command *command);
int nvme_create_sq(struct nvme_command *command);
int nvme_delete_sq(struct nvme_command *command);

// --- cache.c: home loop ---

// Flushes all namespaces, of which the home's worker has the backends open, and goes on in `then`, which releases the command: later, and
// perhaps from inside a backend, or now if there is nothing to flush. 0 or -ENOMEM.
int nvme_flush_all(struct nvme *nvme, void (*then)(struct nvme_command *command));

// --- doorbells.c: home loop ---

int nvme_doorbell_buffer(struct nvme_command *command);
// Whether it can be done: not in remote memory, which is never looked at without being asked for.
bool nvme_offers_shadow(const struct nvme *nvme);
// Whether so many bytes lie in the buffers, if there are any.
bool nvme_over_shadow(const struct nvme_shadow *shadow, uint64_t iova, uint64_t bytes);
