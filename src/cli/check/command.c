// SPDX-License-Identifier: BSD-3-Clause
// sidecard check SOCKET: is a vfio-user server, or a vhost-user back end, what the specifications say?
#include "cli/check/check.h"

#include "base/check.h"
#include "cli/commands.h"
#include "cli/options.h"

#include <sidecard/client.h>
#include <sidecard/vhost.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static const struct sdc_check_transport *const transports[] = {&sdc_check_vfio_user, &sdc_check_vhost_user};

// Finds out which protocol is spoken. Who speaks neither well enough to let anybody in is held against vfio-user's specification. Fails
// where there is nobody to speak to: later a server may be away for a while, between two that somebody starts after one another.
static int find_protocol(struct sdc_check_options *options, struct sdc_error *err)
{
    uint32_t timeout_ms = (uint32_t)(options->timeout_s * 1000);
    struct sdc_vfio_client_options vfio_options = {.timeout_ms = timeout_ms};
    struct sdc_vhost_client_options vhost_options = {.timeout_ms = timeout_ms};
    struct sdc_vfio_client *vfio = NULL;
    struct sdc_vhost_client *vhost = NULL;

    int ret = sdc_vfio_client_open(options->socket, &vfio_options, &vfio, err);
    bool other = sdc_protocol_may_be_other(ret) && sdc_vhost_client_open(options->socket, &vhost_options, &vhost, NULL) == 0;
    sdc_vfio_client_close(vfio);
    sdc_vhost_client_close(vhost);
    options->protocol = other ? SDC_PROTOCOL_VHOST_USER : SDC_PROTOCOL_VFIO_USER;
    return ret < 0 && err->fault == SDC_FAULT_USER ? ret : 0;
}

static int list(void)
{
    for (size_t i = 0; i < SDC_COUNT(transports); i++) {
        printf("%s%s:\n", i > 0 ? "\n" : "", transports[i]->name);
        sdc_check_print_list(transports[i]);
    }
    return 0;
}

static int run_tests(const struct sdc_check_options *options, struct sdc_error *err)
{
    struct sdc_check_run run = {.options = options, .transport = transports[options->protocol == SDC_PROTOCOL_VHOST_USER]};
    int ret = sdc_check_run_all(&run, sdc_check_print_entry, err);
    if (ret >= 0 && options->json && sdc_check_print_json(&run) < 0)
        ret = sdc_error_set(err, -EIO, SDC_FAULT_HOST, "cannot write the results");
    if (ret >= 0 && !options->json)
        sdc_check_print_sums(&run);
    if (ret >= 0 && fflush(stdout) != 0)
        ret = sdc_error_set(err, -EIO, SDC_FAULT_HOST, "cannot write the results");
    free(run.entries);
    return ret;
}

int sdc_command_check(int argc, char **argv)
{
    struct sdc_check_options options;
    struct sdc_error err = {0};
    int ret = sdc_check_options_parse(argc, argv, &options, &err);
    if (ret == 0 && options.help) {
        fputs(sdc_check_usage, stdout);
        return 0;
    }
    if (ret == 0 && options.list)
        return list();
    if (ret == 0 && options.protocol == SDC_PROTOCOL_EITHER)
        ret = find_protocol(&options, &err);
    if (ret == 0)
        ret = run_tests(&options, &err);
    return ret >= 0 ? ret : sdc_command_failed(&err);
}
