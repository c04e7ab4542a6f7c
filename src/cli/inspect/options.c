// SPDX-License-Identifier: BSD-3-Clause
#include "cli/inspect/options.h"

#include "base/check.h"
#include "cli/options.h"
#include "wire/names.h"

#include <errno.h>
#include <string.h>

const char sdc_inspect_usage[] =
    "usage: sidecard inspect SOCKET [--option=value ...]\n"
    "\n"
    "  SOCKET   vfio-user:PATH or vhost-user:PATH of a server's socket, or PATH: then it is found out which it is\n"
    "\n"
    "Says what is behind the socket, without changing it: nobody else may be connected.\n"
    "\n"
    "  --json              one JSON object instead of text\n"
    "  --hex               the bytes of configurations too, a PCI function's as lspci -xxx has them\n"
    "  --passive           write no register: without a virtio device's features and queues, and without NVMe Identify\n"
    "  --device=NAME       what a vhost-user back end is, which does not say it: blk, net, scsi, fs, ... (a guess)\n"
    "  --timeout=SECONDS   how long to wait for each answer (5)\n"
    "  --pci-ids=FILE      names of PCI vendors, devices and classes (the system's pci.ids, if it has one)\n"
    "\n"
    "Exit status: 0; 1 when something could not be read or was wrong, which is listed under problems; 2 for a mistake in\n"
    "what was typed.\n";

static int parse_device(const struct sdc_option *option, const char *text, void *value, struct sdc_error *err)
{
    unsigned device = sdc_virtio_device_number(text);

    (void)option;
    if (device == 0)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "no virtio device has that name");
    *(uint32_t *)value = device;
    return 0;
}

#define AT(member) SDC_OPTION_AT(struct sdc_inspect_options, member)

static const struct sdc_option rows[] = {
    {"json", SDC_OPTION_FLAG, AT(json), 0, 0, NULL, NULL},
    {"hex", SDC_OPTION_FLAG, AT(hex), 0, 0, NULL, NULL},
    {"passive", SDC_OPTION_FLAG, AT(passive), 0, 0, NULL, NULL},
    {"device", SDC_OPTION_CALL, AT(device), 0, 0, "blk", parse_device},
    {"timeout", SDC_OPTION_NUMBER, AT(timeout_s), 1, 3600, "5", NULL},
    {"pci-ids", SDC_OPTION_TEXT, AT(pci_ids), 0, 0, "/usr/share/misc/pci.ids", NULL},
    {"help", SDC_OPTION_FLAG, AT(help), 0, 0, NULL, NULL},
};

static const struct sdc_options table = {rows, SDC_COUNT(rows)};

int sdc_inspect_options_parse(int argc, char **argv, struct sdc_inspect_options *options, struct sdc_error *err)
{
    const struct sdc_option_group group = {&table, options, NULL};
    const char *socket = NULL;

    *options = (struct sdc_inspect_options){.timeout_s = 5};
    int ret = sdc_options_parse(&group, 1, argc, argv, &socket, 1, err);
    if (ret < 0 || options->help)
        return ret < 0 ? ret : 0;
    if (!socket)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "inspect needs a socket; type for example sidecard inspect vm0.sock");
    options->protocol = sdc_protocol_parse(socket, &options->socket);
    if (*options->socket == '\0')
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "the socket's path is empty; type for example sidecard inspect vm0.sock");
    if (options->protocol == SDC_PROTOCOL_VFIO_USER && options->device != 0)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER,
                             "--device: a device behind vfio-user says itself what it is; leave it out, or type vhost-user:%s",
                             options->socket);
    return 0;
}
