// SPDX-License-Identifier: BSD-3-Clause
// What concerns a program that uses the library as a whole.
#include <sidecard/server.h>

#include "base/log.h"
#include "control/outlet.h"
#include "os/clock.h"

void sdc_log_set(enum sdc_log_level level, void (*write)(enum sdc_log_level level, const char *line))
{
    sdc_log_to(&(struct sdc_log_sink){.level = level, .write = write, .now_ns = sdc_clock_ns});
}

const char *sdc_version(void)
{
    return SDC_VERSION;
}

// --- a program that is one device ---

static int serve(const char *socket, const struct sdc_outlet_device *device, const struct sdc_socket_options *options,
                 struct sdc_error *err)
{
    static const struct sdc_server_options by_signals = {.take_signals = true};
    struct sdc_server *server;
    int rc = sdc_server_new(&by_signals, &server, err);

    if (rc < 0) {
        sdc_outlet_destroy(device);
        return rc;
    }
    rc = device->pci ? sdc_server_add_pci(server, socket, device->pci, options, err)
                     : sdc_server_add_virtio(server, socket, device->virtio, options, err);
    if (rc == 0)
        rc = sdc_server_run(server, err);
    sdc_server_free(server);
    return rc;
}

int sdc_serve_pci(const char *socket, struct sdc_pci_device *device, const struct sdc_socket_options *options, struct sdc_error *err)
{
    return serve(socket, &(struct sdc_outlet_device){.pci = device}, options, err);
}

int sdc_serve_virtio(const char *socket, struct sdc_virtio_device *device, const struct sdc_socket_options *options, struct sdc_error *err)
{
    return serve(socket, &(struct sdc_outlet_device){.virtio = device}, options, err);
}
