// SPDX-License-Identifier: BSD-3-Clause
// sidecard inspect SOCKET: says what is behind any vfio-user or vhost-user socket.
#include "cli/inspect/inspect.h"

#include "cli/commands.h"
#include "cli/inspect/text.h"
#include "cli/options.h"
#include "wire/vhost_user.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { FORMAT = 1 }; // of the JSON: another one when something in it has got another meaning

bool sdc_inspect_ends(int code)
{
    return code == -ETIMEDOUT || code == -ECONNRESET || code == -EPIPE;
}

void sdc_inspect_problem(struct sdc_inspect *inspect, const char *what, const struct sdc_error *err)
{
    inspect->lost |= sdc_inspect_ends(err->code);
    if (strcmp(inspect->last, err->text) == 0)
        return;
    memcpy(inspect->last, err->text, sizeof inspect->last);
    char text[sizeof err->text + 64];
    snprintf(text, sizeof text, "%s%s%s", what ? what : "", what ? ": " : "", err->text);
    json_array_append_new(inspect->problems, sdc_tree_string(text));
}

// --- connecting ---

static uint32_t timeout_ms(const struct sdc_inspect *inspect)
{
    return (uint32_t)(inspect->options->timeout_s * 1000);
}

static int inspect_vfio_user(struct sdc_inspect *inspect, struct sdc_error *err)
{
    struct sdc_vfio_client_options options = {.timeout_ms = timeout_ms(inspect), .twin_socket = true};
    struct sdc_vfio_client *client;

    int ret = sdc_vfio_client_open(inspect->options->socket, &options, &client, err);
    if (ret == 0)
        sdc_inspect_vfio(inspect, client);
    return ret;
}

static int inspect_vhost_user(struct sdc_inspect *inspect, struct sdc_error *err)
{
    // The back end has nothing to ask of somebody who only looks.
    struct sdc_vhost_client_options options = {
        .timeout_ms = timeout_ms(inspect), .without_protocol_features = SDC_VHOST_PROTOCOL_F_BACKEND_REQ};
    struct sdc_vhost_client *client;

    int ret = sdc_vhost_client_open(inspect->options->socket, &options, &client, err);
    if (ret == 0)
        sdc_inspect_vhost(inspect, client);
    return ret;
}

static int inspect_either(struct sdc_inspect *inspect, struct sdc_error *err)
{
    const char *socket = inspect->options->socket;
    struct sdc_error vfio = {0}, vhost = {0};

    int ret = inspect_vfio_user(inspect, &vfio);
    if (ret == -ETIMEDOUT)
        return sdc_error_set(err, ret, SDC_FAULT_PEER, "%.300s; if it is a vhost-user back end, type vhost-user:%.80s", vfio.text, socket);
    if (!sdc_protocol_may_be_other(ret)) {
        *err = vfio;
        return ret;
    }
    ret = inspect_vhost_user(inspect, &vhost);
    if (ret < 0)
        sdc_error_set(err, ret, vhost.fault, "%.80s: it speaks neither vfio-user (%.120s) nor vhost-user (%.120s)", socket, vfio.text,
                      vhost.text);
    return ret;
}

static int find_out(struct sdc_inspect *inspect, struct sdc_error *err)
{
    switch (inspect->options->protocol) {
    case SDC_PROTOCOL_VFIO_USER:
        return inspect_vfio_user(inspect, err);
    case SDC_PROTOCOL_VHOST_USER:
        return inspect_vhost_user(inspect, err);
    case SDC_PROTOCOL_EITHER:
        break;
    }
    return inspect_either(inspect, err);
}

// --- the command ---

static int print(const struct sdc_inspect *inspect, struct sdc_error *err)
{
    int ret = 0;

    if (inspect->options->json) {
        ret = json_dumpf(inspect->root, stdout, JSON_INDENT(2));
        putchar('\n');
    } else {
        sdc_inspect_print_text(stdout, inspect->root);
    }
    if (ret < 0 || fflush(stdout) != 0 || ferror(stdout))
        return sdc_error_set(err, -EIO, SDC_FAULT_HOST, "cannot write what was found");
    return 0;
}

static int run(struct sdc_inspect *inspect, struct sdc_error *err)
{
    inspect->root = json_object();
    inspect->problems = json_array();
    sdc_tree_put_number(inspect->root, "format", FORMAT);
    sdc_tree_put_string(inspect->root, "socket", inspect->options->socket);
    int ret = sdc_inspect_ids_open(inspect->options->pci_ids, &inspect->ids, err);
    if (ret == 0)
        ret = find_out(inspect, err);
    if (ret == 0) {
        json_object_set(inspect->root, "problems", inspect->problems);
        ret = print(inspect, err);
    }
    return ret;
}

int sdc_command_inspect(int argc, char **argv)
{
    struct sdc_inspect_options options;
    struct sdc_inspect inspect = {.options = &options};
    struct sdc_error err = {0};

    int ret = sdc_inspect_options_parse(argc, argv, &options, &err);
    if (ret == 0 && options.help) {
        fputs(sdc_inspect_usage, stdout);
        return 0;
    }
    if (ret == 0)
        ret = run(&inspect, &err);
    int status = ret < 0 ? sdc_command_failed(&err) : json_array_size(inspect.problems) > 0;
    sdc_inspect_ids_close(&inspect.ids);
    json_decref(inspect.problems);
    json_decref(inspect.root);
    return status;
}
