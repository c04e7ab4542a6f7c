// SPDX-License-Identifier: BSD-3-Clause
// Image formats that are not raw, by the bytes that they begin with. Serving one as raw shows the guest a
// disk full of metadata, and lets it destroy the image.
#include "backend/block/file.h"
#include "base/check.h"
#include "os/disk.h"

#include <string.h>

static const struct {
    unsigned offset;
    const char *magic;
    unsigned length;
    const char *format;
} formats[] = {
    {0, "QFI\xfb", 4, "qcow2"},
    {0, "QED\0", 4, "QED"},
    {0, "KDMV", 4, "VMDK"},
    {0, "COWD", 4, "VMDK"},
    {0, "# Disk DescriptorFile", 21, "VMDK"},
    {0, "vhdxfile", 8, "VHDX"},
    {0, "conectix", 8, "VHD"},
    {0x40, "\x7f\x10\xda\xbe", 4, "VDI"},
};

const char *sdc_file_probe(int fd)
{
    unsigned char head[512] = {0};
    int64_t length = sdc_disk_peek(fd, 0, head, sizeof head);
    for (size_t i = 0; i < SDC_COUNT(formats); i++)
        if (length >= (int64_t)(formats[i].offset + formats[i].length) &&
            memcmp(head + formats[i].offset, formats[i].magic, formats[i].length) == 0)
            return formats[i].format;
    return NULL;
}
