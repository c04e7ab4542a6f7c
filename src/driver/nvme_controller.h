// SPDX-License-Identifier: BSD-3-Clause
// An NVMe controller behind a vfio-user connection, from its host's side: registers, enabling and disabling, admin commands. One
// thread at a time, but for check. What the controller says is checked before it is used.
#pragma once

#include "driver/nvme.h"
#include "driver/nvme_ring.h"
#include "driver/pci.h"

struct sdc_driver_nvme_controller {
    struct sdc_driver_pci pci;
    uint64_t bar_size;
    // From its capabilities.
    uint32_t entries_max; // of a queue
    uint32_t stride;      // bytes between doorbells
    uint32_t page_shift;
    uint32_t page_size;
    uint32_t version;
    uint64_t timeout_ns; // to become ready, or to stop being it

    struct sdc_client_memory memory; // of the admin queue, of what admin commands bring, of shadow doorbells
    struct sdc_driver_doorbells doorbells;
    struct sdc_driver_nvme_ring admin;
    uint16_t admin_cid;
    bool admin_stuck; // a command was never completed
    uint8_t *page;    // a page for what admin commands bring
    uint64_t page_iova;
    uint8_t *shadows; // two pages: shadow doorbells and event indices
    uint64_t shadows_iova;
    bool shadow_on;
};

// Finds the controller's registers, resets and enables it, with an admin queue. It is to be closed also when this fails.
int sdc_driver_nvme_controller_open(struct sdc_driver_nvme_controller *controller, struct sdc_vfio_client *client,
                                    enum sdc_client_memory_kind memory, struct sdc_error *err);
// Has the controller write what is volatile, and stop. NULL: nobody wants to know how it went. A controller that was not opened does no
// harm.
int sdc_driver_nvme_controller_stop(struct sdc_driver_nvme_controller *controller, struct sdc_error *err);
// After stop. Closes the connection.
void sdc_driver_nvme_controller_close(struct sdc_driver_nvme_controller *controller);
// Whether it is alive. Any thread.
int sdc_driver_nvme_controller_check(struct sdc_driver_nvme_controller *controller, struct sdc_error *err);

// Does an admin command: 64 bytes, of which the identifier is filled in. 0 if it was completed, however: the status is the
// completion's. After an error no more commands can be done.
int sdc_driver_nvme_admin(struct sdc_driver_nvme_controller *controller, uint8_t entry[64],
                          struct sdc_driver_nvme_completion *completion, struct sdc_error *err);
// The same; a status other than 0 is -EIO. what is for the error text.
int sdc_driver_nvme_admin_must(struct sdc_driver_nvme_controller *controller, uint8_t entry[64], const char *what,
                               struct sdc_driver_nvme_completion *completion, struct sdc_error *err);

// Creates both queues of a pair that has its memory, and deletes them. vector -1: completions make no interrupts.
int sdc_driver_nvme_create_ring(struct sdc_driver_nvme_controller *controller, struct sdc_driver_nvme_ring *ring, int vector,
                                struct sdc_error *err);
int sdc_driver_nvme_delete_ring(struct sdc_driver_nvme_controller *controller, struct sdc_driver_nvme_ring *ring,
                                struct sdc_error *err);
// Has the controller look at shadow doorbells (Doorbell Buffer Config). Those of queue `id` are at a place that stride and id say;
// false: they don't fit into a page.
int sdc_driver_nvme_use_shadows(struct sdc_driver_nvme_controller *controller, struct sdc_error *err);
bool sdc_driver_nvme_find_shadow(const struct sdc_driver_nvme_controller *controller, uint16_t id, bool completions,
                                 struct sdc_driver_nvme_bell *bell);
// Where a doorbell register is in the region; false: outside.
bool sdc_driver_nvme_find_register(const struct sdc_driver_nvme_controller *controller, uint16_t id, bool completions,
                                   uint64_t *offset);
