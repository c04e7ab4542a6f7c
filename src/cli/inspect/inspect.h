// SPDX-License-Identifier: BSD-3-Clause
// sidecard inspect from the inside: what is found out goes into one tree (tree.h), which is printed at the end. The server is
// not trusted: whatever it says is bounded here, and what it says wrong is a problem, not the end, as long as it answers.
#pragma once

#include "cli/inspect/ids.h"
#include "cli/inspect/options.h"
#include "cli/inspect/pci.h"
#include "cli/inspect/tree.h"

#include <sidecard/client.h>
#include <sidecard/vhost.h>

struct sdc_inspect {
    const struct sdc_inspect_options *options;
    struct sdc_inspect_ids ids;
    json_t *root;
    json_t *problems;
    char last[sizeof(((struct sdc_error *)0)->text)]; // the last problem's text: a lost connection says the same again and again
    bool lost; // nothing more can be asked
};

// Whether an error is one that a connection ends with, or has ended with for us: a server that does not answer once is not asked again.
bool sdc_inspect_ends(int code);
// Notes that `what` could not be found out. what may be NULL.
void sdc_inspect_problem(struct sdc_inspect *inspect, const char *what, const struct sdc_error *err);

// --- vfio-user ---

struct sdc_inspect_device {
    struct sdc_vfio_client *client;
    bool can_reset;
    struct sdc_inspect_config config;
};

// Takes the client over and closes it.
void sdc_inspect_vfio(struct sdc_inspect *inspect, struct sdc_vfio_client *client);
// A virtio device on PCI (virtio 1.2, 4.1).
void sdc_inspect_virtio(struct sdc_inspect *inspect, const struct sdc_inspect_device *device);
// An NVMe controller. Identify, where that is safe, ends with the connection being closed: *device has no client then.
void sdc_inspect_nvme(struct sdc_inspect *inspect, struct sdc_inspect_device *device);
// BAR registers, which a device answers to with Memory Space only.
int sdc_inspect_read(const struct sdc_inspect_device *device, uint32_t region, uint64_t offset, uint32_t size, uint64_t *value,
                     struct sdc_error *err);
int sdc_inspect_write(const struct sdc_inspect_device *device, uint32_t region, uint64_t offset, uint32_t size, uint64_t value,
                      struct sdc_error *err);

// --- vhost-user ---

void sdc_inspect_vhost(struct sdc_inspect *inspect, struct sdc_vhost_client *client);

// --- decoders ---

// A virtio device's own configuration: as fields where they are known; else, unless all is zero, and with raw, as
// bytes.
void sdc_inspect_virtio_config_put(json_t *object, unsigned device, uint64_t features, const uint8_t *bytes, size_t size, bool raw);
// What kind of device has such features and such a configuration; 0: it could be anything.
unsigned sdc_inspect_virtio_guess(uint64_t features, const uint8_t *bytes, size_t size);
// NVMe registers from 0 on, and the structures of Identify, 4096 bytes each.
void sdc_inspect_nvme_registers_put(json_t *nvme, const uint8_t *bytes, size_t size);
void sdc_inspect_nvme_controller_put(json_t *object, const uint8_t *bytes);
void sdc_inspect_nvme_namespace_put(json_t *object, const uint8_t *bytes);
// The identifiers of a namespace (Identify, CNS 3).
void sdc_inspect_nvme_descriptors_put(json_t *object, const uint8_t *bytes);
