// SPDX-License-Identifier: BSD-3-Clause
// The command line of sidecard check.
#include "cli/check/check.h"

#include "base/check.h"
#include "cli/options.h"
#include "wire/names.h"

#include <errno.h>
#include <string.h>

const char sdc_check_usage[] =
    "usage: sidecard check SOCKET [--option=value ...]\n"
    "\n"
    "  SOCKET   PATH of any vfio-user server or vhost-user back end; vfio-user:PATH or vhost-user:PATH where it is known which\n"
    "\n"
    "Holds the server against the specifications: each test has passed, is noted (allowed, but worth a remark), has FAILED, was\n"
    "not offered by the server, or was skipped. The server has to serve one client after the other.\n"
    "\n"
    "  --only=GLOB           only tests whose names match, for example 'dma-map/*'\n"
    "  --list                name the tests, run none\n"
    "  --destructive         also tests that overwrite what is on a disk\n"
    "  --device=NAME         what kind of virtio device it is, for example blk: vhost-user does not say (by its features, a disk or not)\n"
    "  --request=HEX,BYTES   a request that the device does at any time and that does no harm: what it reads (may be nothing), and\n"
    "                        how many bytes it may write; for devices other than disks and entropy devices\n"
    "  --timeout=SECONDS     that an answer may take (5)\n"
    "  --restarts            the server ends with its client and is started anew, at the same path: each client waits for another server\n"
    "  --json                results as JSON\n"
    "  --help                this text\n"
    "\n"
    "Exit status: 0 when nothing failed; 1 when something did or the server was not there; 2 for a mistake in what was typed.\n";

#define AT(member) SDC_OPTION_AT(struct sdc_check_options, member)

static const struct sdc_option rows[] = {
    {"only", SDC_OPTION_TEXT, AT(only), 0, 0, "'dma-map/*'", NULL},
    {"list", SDC_OPTION_FLAG, AT(list), 0, 0, NULL, NULL},
    {"destructive", SDC_OPTION_FLAG, AT(destructive), 0, 0, NULL, NULL},
    {"device", SDC_OPTION_TEXT, AT(device), 0, 0, "blk", NULL},
    {"request", SDC_OPTION_TEXT, AT(request), 0, 0, "0100,64", NULL},
    {"timeout", SDC_OPTION_NUMBER, AT(timeout_s), 1, 3600, "10", NULL},
    {"restarts", SDC_OPTION_FLAG, AT(restarts), 0, 0, NULL, NULL},
    {"json", SDC_OPTION_FLAG, AT(json), 0, 0, NULL, NULL},
    {"help", SDC_OPTION_FLAG, AT(help), 0, 0, NULL, NULL},
};

static const struct sdc_options table = {rows, SDC_COUNT(rows)};

int sdc_check_options_parse(int argc, char **argv, struct sdc_check_options *options, struct sdc_error *err)
{
    *options = (struct sdc_check_options){.timeout_s = 5};
    const struct sdc_option_group group = {&table, options, NULL};
    const char *socket = NULL;
    int ret = sdc_options_parse(&group, 1, argc, argv, &socket, 1, err);
    if (ret < 0 || options->help)
        return ret < 0 ? ret : 0;
    if (!socket && !options->list)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "check needs a socket; type for example sidecard check vm0.sock");
    if (!socket)
        return 0;
    options->protocol = sdc_protocol_parse(socket, &options->socket);
    if (*options->socket == '\0')
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "the socket's path is empty; type for example sidecard check vm0.sock");
    if (options->restarts && options->protocol == SDC_PROTOCOL_EITHER)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER,
                             "--restarts: say which protocol it speaks, since asking would end it; type vfio-user:%s or vhost-user:%s",
                             options->socket, options->socket);
    options->device_number = options->device ? sdc_virtio_device_number(options->device) : 0;
    if (options->device && options->device_number == 0)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "--device=%s: there is no such virtio device; type for example --device=blk",
                             options->device);
    if (options->request && sdc_check_form_parse(options->request, &options->form) < 0)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER,
                             "--request=%.80s: it is what the device reads, at most %d bytes as pairs of hexadecimal digits, a comma, and "
                             "how many bytes it may write, at most %d; type for example --request=0100,64 or --request=,64",
                             options->request, SDC_CHECK_OUT_MAX, SDC_CHECK_IN_MAX);
    return 0;
}
