// SPDX-License-Identifier: BSD-3-Clause
// What the files of the NVMe driver share: nvme_driver.c brings the controller up and down, nvme_admin.c has the admin commands, and
// nvme_queues.c keeps the queues busy.
#pragma once

#include "nvme_command.h"
#include "wire/nvme.h"

enum { NVME_ENTRIES_MAX = 64, NVME_ADMIN_PLACE = SIM_QUEUES }; // the latter in the tables below

// A completion queue; number q of the tables below is queue q + 1 of the device, and the admin queue is the last.
struct nvme_driver_cq {
    bool open;
    uint64_t iova;
    uint16_t size, head, told;
    bool phase;
    bool irqs; // it interrupts
    uint32_t vector;
    bool sleeping;
    bool irq;
    bool may_stall; // an entry may have been lost with the memory that it was sent to
};

struct nvme_driver_sq {
    bool open; // it has memory
    bool live; // and may be used
    uint64_t iova;
    uint16_t size, tail, told, head;
    unsigned cq;
    struct nvme_command commands[NVME_ENTRIES_MAX];
    unsigned in_flight;
    unsigned burst; // commands until it waits for all
    bool kick_due;
};

struct nvme_driver {
    struct nvme_driver_cq cqs[SIM_QUEUES + 1];
    struct nvme_driver_sq sqs[SIM_QUEUES + 1];
    bool telling; // a processor is in the middle of that
    bool mapped;  // doorbells are written to the page that the server lets clients map
    bool shadows_on;
    uint64_t shadows, events; // pages; 0: none
    uint64_t now;             // counts up with everything that a command does
    bool stopped;             // no new commands
    bool silent;              // the device may not interrupt
    bool may_break;           // a refused message may have cost the controller
    unsigned long ended; // commands, in all walks
    uint16_t admin_cid;
};
extern struct nvme_driver nvme;

// --- members of struct sim_driver (nvme_queues.c) ---

struct sim_io *nvme_driver_io(unsigned index);
bool nvme_driver_can_run(unsigned q);
void nvme_driver_run(unsigned q);
void nvme_driver_irq(uint32_t vector);
void nvme_driver_refused(void);
bool nvme_driver_rings_touch(uint64_t iova, uint64_t size);
void nvme_driver_moved(uint64_t iova, uint64_t size);
void nvme_driver_resized(uint64_t low);
void nvme_driver_lost(void);

// --- queues (nvme_queues.c); q and c are places in the tables ---

unsigned nvme_driver_queue_id(unsigned q);
// Tells the controller of what was laid down, and what was taken out.
void nvme_driver_kick(unsigned q);
void nvme_driver_acknowledge(unsigned c);
bool nvme_driver_has_next(const struct nvme_driver_cq *cq);
// Takes the next entry out. False: there is none.
bool nvme_driver_next_entry(unsigned c, uint16_t *cid, uint16_t *status, uint16_t *sq_id);
// The same, of an I/O command, whose end it is.
bool nvme_driver_poll(unsigned c);
// Lays it down, and tells nobody.
void nvme_driver_put_entry(struct nvme_driver_sq *sq, const uint8_t entry[SDC_NVME_SQE]);
// False: there is no memory.
bool nvme_driver_take_cq(unsigned c, unsigned size);
void nvme_driver_give_cq(unsigned c);
bool nvme_driver_take_sq(unsigned q, unsigned size, unsigned c);
void nvme_driver_give_sq(unsigned q);

// --- admin commands (nvme_admin.c) ---

uint32_t nvme_driver_status(void);
// The controller has failed, as it may.
bool nvme_driver_has_failed(void);
uint16_t nvme_driver_set_feature(uint32_t feature, uint32_t value);
// What is in the cache is written before it is off, which may fail; then it stays on.
void nvme_driver_set_cache(bool on);
void nvme_driver_create_cq(unsigned c);
void nvme_driver_create_sq(unsigned q);
void nvme_driver_delete_sq(unsigned q);
void nvme_driver_delete_cq(unsigned c);
void nvme_driver_use_shadows(void);
