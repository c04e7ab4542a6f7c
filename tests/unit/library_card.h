// SPDX-License-Identifier: BSD-3-Clause
// A PCI card made with the public library alone, which does what its driver asks of it: copies, windows, interrupts. And a server for it,
// in a thread, run by the library or turned by a loop of the test's own; and a client at its socket.
#pragma once

#include <sidecard/client.h>
#include <sidecard/dma.h>
#include <sidecard/server.h>

#include <pthread.h>
#include <stdatomic.h>

enum {
    CARD_REGISTERS = 0, // BARs
    CARD_MEMORY = 2,
    CARD_MSIX = 4,
    CARD_MEMORY_SIZE = 0x10000,
    CARD_AREA = 0x2000,   // two areas of the memory's BAR, a page each
    CARD_AREA_2 = 0x8000,
    CARD_ROOM = 0x10000,  // bytes of the card's own
    CARD_VECTORS = 3,
    CARD_MANY = SDC_DMA_UNDER_WAY_MAX + 76,
    CARD_BELL = 0x800,    // the doorbell: raises vector 2
};

// Registers, 8 bytes each.
enum {
    CARD_DO = 0x00, // what to do
    CARD_IOVA = 0x08,
    CARD_SIZE = 0x10,
    CARD_AT = 0x18,     // in the card's room
    CARD_DONE = 0x20,   // how many have ended
    CARD_RESULT = 0x28, // the last one's: 0 or a positive errno
    CARD_HELD = 0x30,   // windows that it has
    CARD_SUM = 0x38,    // of the bytes of the last window that was read
    CARD_RESETS = 0x40,
    CARD_LEVEL = 0x48,  // written: INTx
    CARD_BELLS = 0x50,
    CARD_CANCELLED = 0x58, // of those that have ended
};

enum {
    CARD_READ = 1,   // guest memory to the room
    CARD_WRITE,      // and back
    CARD_MAP_READ,   // a window, summed up and held
    CARD_MAP_WRITE,  // a window, filled with the size's low byte and held
    CARD_UNMAP,      // all windows
    CARD_CANCEL,
    CARD_RAISE,      // vector: CARD_AT
    CARD_READ_MANY,  // CARD_MANY copies at once, of the same
};

struct card_server {
    char folder[32];
    char path[64];
    struct sdc_server *server;
    struct sdc_pci_device *card;
    bool outside; // turned by a poll loop
    pthread_t thread;
    atomic_bool destroyed;
};

// The card alone. *destroyed becomes true with its end.
struct sdc_pci_device *card_new(atomic_bool *destroyed, bool with_msix);
// Turns the server in a loop of the test's own until it has been stopped.
void card_turn(struct sdc_server *server);

// outside: in a loop of the test's own.
void card_server_start(struct card_server *server, enum sdc_loop_kind kind, bool outside, bool with_msix);
void card_server_stop(struct card_server *server);

uint64_t card_get(struct sdc_vfio_client *client, uint64_t offset);
void card_put(struct sdc_vfio_client *client, uint64_t offset, uint64_t value);
// Has the card do it.
void card_do(struct sdc_vfio_client *client, uint64_t what, uint64_t iova, uint64_t size, uint64_t at);
// Waits until so many have ended, and returns the result of the last.
int card_wait(struct sdc_vfio_client *client, uint64_t done);
