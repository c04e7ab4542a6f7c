// SPDX-License-Identifier: BSD-3-Clause
// A virtio card made of two arrays, configuration space and one BAR, at a fake server's socket.
#pragma once

#include "fake_server.h"

enum {
    CAP_MSIX = 0x40,
    CAP_COMMON = 0x50,
    CAP_NOTIFY = 0x60,
    CAP_DEVICE = 0x74,
    CAP_SECOND_COMMON = 0x84,
    BAR = 4,
    BAR_BYTES = 0x4000,
    COMMON = 0x0000,
    DEVICE = 0x2000,
    NOTIFY = 0x3000,
    MULTIPLIER = 4,
    NOTIFY_OFF = 3, // of every queue
    VECTORS = 3,
};

struct card {
    uint8_t config[256];
    uint8_t mask[256]; // bits that can be written
    uint8_t bar[BAR_BYTES];
    uint64_t features;
    uint64_t accepted;
    unsigned generations; // reads of the generation that still change it
    uint16_t bad_vector;  // reads back as NO_VECTOR
    uint16_t queues;
    uint16_t sizes[4];    // of each
    bool keeps_sizes;     // whatever is written
    unsigned resetting;   // reads of the queue's reset register that still say so
    unsigned resets[4];   // of each queue
    int fds[VECTORS];     // eventfds that were set
    struct sdc_vfu_ioeventfd bells[4]; // what GET_REGION_IO_FDS says
    unsigned bells_count;
    int bell_fd;          // that goes with it, and with a mappable region
    unsigned bells_asked; // times
    bool broken_bells;
    bool mappable;        // the BAR's page of notifications is the file bell_fd
    unsigned multi;       // writes that came together
    unsigned notified;    // writes to the notification register
    uint32_t notified_value;
    uint32_t notified_size;
    bool notified_posted;
};

struct card *new_card(void);
void free_card(struct card *card);
// For struct fake_server, with the card as its context.
bool serve_card(struct fake_server *server, struct fake_message *message);

#define CONNECT(card)                                                     \
    struct fake_server server = {.message = serve_card, .context = card}; \
    struct sdc_vfio_client *client;                                       \
    struct sdc_error err = {0};                                           \
    assert_int_equal(fake_open(&server, NULL, &client, &err), 0)

#define OPEN(card)                                                             \
    CONNECT(card);                                                             \
    struct sdc_driver_transport *transport;                                    \
    assert_int_equal(sdc_driver_virtio_pci_open(client, &transport, &err), 0); \
    const struct sdc_driver_transport_ops *ops = transport->ops

#define CLOSE(card)            \
    ops->close(transport);     \
    fake_close(&server, NULL); \
    free_card(card)
