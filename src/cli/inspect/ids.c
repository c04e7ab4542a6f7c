// SPDX-License-Identifier: BSD-3-Clause
// pci.ids: a line for each thing, with as many tabs before it as it is deep in another; a number, two blanks, a name.
#include "cli/inspect/ids.h"

#include "base/check.h"
#include "wire/names.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FILE_MAX = 16 << 20, KEY = 16, DEPTH = 3, VENDOR_VIRTIO = 0x1af4, DEVICE_VIRTIO = 0x1040 };

static int read_file(FILE *file, struct sdc_inspect_ids *ids)
{
    ids->text = malloc(FILE_MAX);
    if (!ids->text)
        return -ENOMEM;
    ids->size = fread(ids->text, 1, FILE_MAX, file);
    return ferror(file) ? -EIO : 0;
}

int sdc_inspect_ids_open(const char *path, struct sdc_inspect_ids *ids, struct sdc_error *err)
{
    static const char *const places[] = {"/usr/share/misc/pci.ids", "/usr/share/hwdata/pci.ids", "/usr/share/pci.ids"};
    FILE *file = path ? fopen(path, "re") : NULL;

    *ids = (struct sdc_inspect_ids){0};
    if (path && !file)
        return sdc_error_set(err, -errno, SDC_FAULT_HOST, "--pci-ids=%s: %s", path, strerror(errno));
    for (size_t i = 0; !path && !file && i < SDC_COUNT(places); i++)
        file = fopen(places[i], "re");
    if (!file)
        return 0;
    int ret = read_file(file, ids);
    fclose(file);
    if (ret < 0 && path)
        return sdc_error_set(err, ret, SDC_FAULT_HOST, "--pci-ids=%s: cannot be read: %s", path, strerror(-ret));
    if (ret < 0)
        ids->size = 0;
    return 0;
}

void sdc_inspect_ids_close(struct sdc_inspect_ids *ids)
{
    free(ids->text);
    *ids = (struct sdc_inspect_ids){0};
}

// Whether line[0..length) is `key`, two blanks and a name. Returns where the name begins, or 0.
static size_t match(const char *line, size_t length, const char *key)
{
    size_t size = strlen(key);

    return length > size + 2 && memcmp(line, key, size) == 0 && line[size] == ' ' && line[size + 1] == ' ' ? size + 2 : 0;
}

// The name of keys[count - 1], inside keys[count - 2], and so on.
static const char *find(const struct sdc_inspect_ids *ids, char keys[][KEY], unsigned count, char name[SDC_INSPECT_NAME])
{
    unsigned level = 0;
    size_t length;

    name[0] = '\0';
    for (size_t at = 0; at < ids->size; at += length + 1) {
        const char *line = ids->text + at, *end = memchr(line, '\n', ids->size - at);
        length = end ? (size_t)(end - line) : ids->size - at;
        unsigned tabs = 0;
        while (tabs < length && line[tabs] == '\t')
            tabs++;
        if (length == tabs || line[tabs] == '#' || tabs > level)
            continue;
        if (tabs < level)
            return name; // the end of what it would be in
        size_t begin = match(line + tabs, length - tabs, keys[level]);
        if (begin == 0 || ++level < count)
            continue;
        snprintf(name, SDC_INSPECT_NAME, "%.*s", (int)(length - tabs - begin), line + tabs + begin);
        return name;
    }
    return name;
}

const char *sdc_inspect_vendor_name(const struct sdc_inspect_ids *ids, uint16_t vendor, char name[SDC_INSPECT_NAME])
{
    char keys[DEPTH][KEY];

    snprintf(keys[0], KEY, "%04x", vendor);
    return find(ids, keys, 1, name);
}

const char *sdc_inspect_device_name(const struct sdc_inspect_ids *ids, uint16_t vendor, uint16_t device, char name[SDC_INSPECT_NAME])
{
    char keys[DEPTH][KEY];

    snprintf(keys[0], KEY, "%04x", vendor);
    snprintf(keys[1], KEY, "%04x", device);
    find(ids, keys, 2, name);
    const char *title = device >= DEVICE_VIRTIO ? sdc_virtio_device_title(device - (unsigned)DEVICE_VIRTIO) : NULL;
    if (name[0] == '\0' && vendor == VENDOR_VIRTIO && title)
        snprintf(name, SDC_INSPECT_NAME, "virtio %s", title);
    return name;
}

const char *sdc_inspect_subsystem_name(const struct sdc_inspect_ids *ids, uint16_t vendor, uint16_t device, uint16_t subvendor,
                                       uint16_t subsystem, char name[SDC_INSPECT_NAME])
{
    char keys[DEPTH][KEY];

    snprintf(keys[0], KEY, "%04x", vendor);
    snprintf(keys[1], KEY, "%04x", device);
    snprintf(keys[2], KEY, "%04x %04x", subvendor, subsystem);
    return find(ids, keys, 3, name);
}

// --- classes ---

static const struct {
    uint32_t class;
    const char *name;
} known_classes[] = {
    {0x010000, "SCSI storage controller"}, {0x010802, "Non-Volatile memory controller, NVM Express"},
    {0x018000, "Mass storage controller"}, {0x020000, "Ethernet controller"},
    {0x030000, "VGA compatible controller"}, {0x078000, "Communication controller"},
    {0x070002, "Serial controller, 16550"}, {0xff0000, "Unassigned class"},
};

const char *sdc_inspect_class_name(const struct sdc_inspect_ids *ids, uint32_t class, char name[SDC_INSPECT_NAME])
{
    char keys[DEPTH][KEY], inner[SDC_INSPECT_NAME];

    snprintf(keys[0], KEY, "C %02x", class >> 16 & 0xff);
    snprintf(keys[1], KEY, "%02x", class >> 8 & 0xff);
    snprintf(keys[2], KEY, "%02x", class & 0xff);
    find(ids, keys, 2, name);
    if (name[0] == '\0')
        find(ids, keys, 1, name);
    else if (find(ids, keys, 3, inner)[0] != '\0')
        snprintf(name + strlen(name), SDC_INSPECT_NAME - strlen(name), ", %s", inner);
    for (size_t i = 0; name[0] == '\0' && i < SDC_COUNT(known_classes); i++) {
        if (known_classes[i].class == class)
            snprintf(name, SDC_INSPECT_NAME, "%s", known_classes[i].name);
    }
    return name;
}
