// SPDX-License-Identifier: BSD-3-Clause
// A small NVMe controller at a fake server's socket: it does what it is told by whoever drives it, in the server's thread, and can be
// told to say and do something else.
#pragma once

#include "fake_server.h"

#include <stdatomic.h>

enum {
    FAKE_NVME_QUEUES = 5,   // with the admin queue
    FAKE_NVME_DISK = 8 << 20, // bytes
    FAKE_NVME_VECTORS = 4,
    FAKE_NVME_BAR = 0x4000,
};

struct fake_nvme_queue {
    uint64_t iova; // 0: there is none
    uint32_t size; // entries
    uint32_t at;   // head of a submission queue, tail of a completion queue
    bool phase;
    int vector; // -1: no interrupts
};

struct fake_nvme {
    uint8_t config[256];
    uint8_t mask[256];
    uint64_t cap;
    uint32_t version;
    uint32_t cc;
    uint32_t csts;
    uint32_t aqa;
    uint64_t asq;
    uint64_t acq;
    struct {
        uint64_t iova;
        uint64_t size;
        uint8_t *host;
    } memory[8];
    unsigned memories;
    struct fake_nvme_queue sq[FAKE_NVME_QUEUES];
    struct fake_nvme_queue cq[FAKE_NVME_QUEUES];
    uint16_t tails[FAKE_NVME_QUEUES]; // doorbells
    uint16_t heads[FAKE_NVME_QUEUES];
    uint64_t shadows; // iovas; 0: not used
    uint64_t events;
    unsigned block_shift;
    uint8_t *disk;
    int fds[FAKE_NVME_VECTORS];
    uint64_t bar_size;

    // What it says or does otherwise.
    uint32_t granted;   // queues, as Set Features answers
    bool never_ready;   // and never not ready
    bool never_shut;    // down
    bool deaf;          // to doorbells
    bool interrupts;    // somebody wanted one
    bool no_write_multi;
    uint32_t csts_read; // what CSTS reads as, if not 0
    uint16_t refuse;    // status of all admin commands whose opcode is refused_opcode
    uint8_t refused_opcode;
    void (*identify)(struct fake_nvme *nvme, uint8_t cns, uint32_t nsid, uint8_t data[4096]); // changes what is there
    void (*complete)(struct fake_nvme *nvme, uint16_t queue, uint8_t entry[16]);              // likewise
    unsigned duplicate; // so many I/O completions are posted twice

    // What it has seen. Whoever has got a completion and then loads `posted` with acquire may look at it: the completion comes through
    // memory that is mapped twice, of which TSan does not know that it is the same.
    atomic_uint posted;
    uint8_t last[64]; // I/O command
    unsigned tail_rings;
    unsigned head_rings;
    unsigned multi; // messages with several writes
    unsigned io_commands;
    unsigned shutdowns;
};

struct fake_nvme *new_fake_nvme(void);
void free_fake_nvme(struct fake_nvme *nvme);
// For struct fake_server, with the controller as its context.
bool serve_fake_nvme(struct fake_server *server, struct fake_message *message);
