// SPDX-License-Identifier: BSD-3-Clause
// What a vhost-user back end says.
#include "cli/inspect/inspect.h"

#include "base/check.h"
#include "os/fd.h"
#include "wire/names.h"
#include "wire/vhost_user.h"

#include <sidecard/virtio.h>

#include <errno.h>

// Of the one queue that is asked about. A back end may end the connection over more than its queues have, which it does not say.
enum { INFLIGHT_ENTRIES = 8 };

// How many bytes of configuration there are, at most what a message holds. A back end refuses what it has not got, by bytes that are
// missing; the connection stays.
static uint32_t read_config(struct sdc_inspect *inspect, struct sdc_vhost_client *client, uint8_t bytes[SDC_VHOST_CONFIG_MAX])
{
    uint32_t good = 0, bad = SDC_VHOST_CONFIG_MAX + 1;

    for (uint32_t size = SDC_VHOST_CONFIG_MAX; good + 1 < bad && !inspect->lost; size = good + (bad - good) / 2) {
        struct sdc_error err = {0};
        int ret = sdc_vhost_client_get_config(client, 0, bytes, size, &err);
        if (ret == 0)
            good = size;
        else if (ret == -ERANGE)
            bad = size;
        else {
            sdc_inspect_problem(inspect, "configuration", &err);
            return 0;
        }
    }
    return good;
}

static void put_device(struct sdc_inspect *inspect, struct sdc_vhost_client *client, json_t *object, json_t *device)
{
    const struct sdc_vhost_client_session *session = sdc_vhost_client_session(client);
    uint8_t bytes[SDC_VHOST_CONFIG_MAX] = {0};
    unsigned number = inspect->options->device;
    uint32_t size = session->protocol_features & SDC_VHOST_PROTOCOL_F_CONFIG ? read_config(inspect, client, bytes) : 0;

    if (number == 0)
        number = sdc_inspect_virtio_guess(session->features, bytes, size);
    if (number != 0) {
        sdc_tree_put_number(device, "device_number", number);
        sdc_tree_put_string(device, "device", sdc_virtio_device_name(number));
        sdc_tree_put_flag(device, "guessed", inspect->options->device == 0);
    }
    sdc_tree_put_hex(device, "features_value", session->features, 16);
    sdc_tree_put_names(device, "features", session->features, sdc_vhost_feature_name, number);
    sdc_tree_put_hex(object, "protocol_features_value", session->protocol_offered, 16);
    sdc_tree_put_names(object, "protocol_features", session->protocol_offered, sdc_vhost_protocol_feature_name, 0);
    if (size > 0)
        sdc_inspect_virtio_config_put(device, number, session->features, bytes, size, inspect->options->hex);
}

static void put_status(struct sdc_inspect *inspect, struct sdc_vhost_client *client, json_t *device)
{
    struct sdc_error err = {0};
    uint8_t status;

    if (sdc_vhost_client_get_status(client, &status, &err) == 0)
        sdc_tree_put_names(device, "status", status, sdc_virtio_status_name, 0);
    else
        sdc_inspect_problem(inspect, "status", &err);
}

// It is the back end that makes the memory, which is given back at once. How much it takes depends on the features that are set: those
// of a split ring.
static void put_inflight(struct sdc_inspect *inspect, struct sdc_vhost_client *client, json_t *object)
{
    struct sdc_vhost_client_inflight inflight;
    struct sdc_error err = {0};

    int ret = sdc_vhost_client_set_features(client, sdc_vhost_client_session(client)->features & SDC_VIRTIO_F_VERSION_1, &err);
    if (ret == 0)
        ret = sdc_vhost_client_get_inflight(client, 1, INFLIGHT_ENTRIES, &inflight, &err);
    if (ret < 0) {
        sdc_inspect_problem(inspect, "in-flight memory", &err);
        return;
    }
    sdc_fd_close(&inflight.fd);
    json_t *made = sdc_tree_object(object, "inflight");
    sdc_tree_put_number(made, "queues", 1);
    sdc_tree_put_number(made, "entries", INFLIGHT_ENTRIES);
    sdc_tree_put_number(made, "size", inflight.size);
}

void sdc_inspect_vhost(struct sdc_inspect *inspect, struct sdc_vhost_client *client)
{
    const struct sdc_vhost_client_session *session = sdc_vhost_client_session(client);

    sdc_tree_put_string(inspect->root, "protocol", "vhost-user");
    json_t *object = sdc_tree_object(inspect->root, "connection");
    json_t *device = sdc_tree_object(inspect->root, "virtio");
    put_device(inspect, client, object, device);
    sdc_tree_put_number(object, "memory_slots", session->mem_slots);
    sdc_tree_put_number(device, "queues_count", session->queues_max);
    if (session->protocol_features & SDC_VHOST_PROTOCOL_F_STATUS && !inspect->lost)
        put_status(inspect, client, device);
    if (session->protocol_features & SDC_VHOST_PROTOCOL_F_INFLIGHT_SHMFD && !inspect->options->passive && !inspect->lost)
        put_inflight(inspect, client, object);
    sdc_vhost_client_close(client);
}
