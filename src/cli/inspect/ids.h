// SPDX-License-Identifier: BSD-3-Clause
// Names of PCI vendors, devices and classes, from the system's pci.ids if it has one. Classes of what is mostly served are known
// without it.
#pragma once

#include <sidecard/error.h>

#include <stddef.h>
#include <stdint.h>

enum { SDC_INSPECT_NAME = 200 };

struct sdc_inspect_ids {
    char *text; // the file, NULL: there is none
    size_t size;
};

// path NULL: where distributions have it, and if it is nowhere there are no names.
int sdc_inspect_ids_open(const char *path, struct sdc_inspect_ids *ids, struct sdc_error *err);
void sdc_inspect_ids_close(struct sdc_inspect_ids *ids);

// Each writes to name, or makes it empty; and returns it.
const char *sdc_inspect_vendor_name(const struct sdc_inspect_ids *ids, uint16_t vendor, char name[SDC_INSPECT_NAME]);
const char *sdc_inspect_device_name(const struct sdc_inspect_ids *ids, uint16_t vendor, uint16_t device, char name[SDC_INSPECT_NAME]);
const char *sdc_inspect_subsystem_name(const struct sdc_inspect_ids *ids, uint16_t vendor, uint16_t device, uint16_t subvendor,
                                       uint16_t subsystem, char name[SDC_INSPECT_NAME]);
// class: 0xCCSSII. As much of it as has a name.
const char *sdc_inspect_class_name(const struct sdc_inspect_ids *ids, uint32_t class, char name[SDC_INSPECT_NAME]);
