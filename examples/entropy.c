// SPDX-License-Identifier: BSD-3-Clause
// A virtio entropy device: the driver hands over buffers, and the device fills them with random bytes. It knows nothing of PCI or of
// vhost-user: what stands before the colon in the socket's name decides how it is reached.
#include <sidecard/server.h>

#include <err.h>
#include <sys/random.h>

// Fills the request's buffer, or the beginning of a long one: a driver takes what it gets. How many bytes were written.
static uint32_t fill(struct sdc_virtio_request *request)
{
    unsigned char bytes[4096];
    const size_t room = request->writable_size < sizeof bytes ? (size_t)request->writable_size : sizeof bytes;
    const ssize_t got = getrandom(bytes, room, GRND_NONBLOCK);

    if (got <= 0 || sdc_virtio_request_write(request, 0, bytes, (size_t)got) < 0)
        return 0;
    return (uint32_t)got;
}

static void queue_work(struct sdc_virtio_device *device, struct sdc_virtqueue *queue)
{
    struct sdc_virtio_request *requests[16];
    unsigned count;

    (void)device;
    while ((count = sdc_virtqueue_take(queue, requests, 16)) > 0)
        for (unsigned i = 0; i < count; i++)
            sdc_virtqueue_give(requests[i], fill(requests[i]));
}

int main(int argc, char **argv)
{
    static const struct sdc_virtio_ops ops = {
        .name = "entropy",
        .device_id = 4,        // virtio 1.2, 5.4
        .pci_class = 0x00ff00, // as a PCI device it is of no class
        .queue_work = queue_work,
    };
    static struct sdc_virtio_device device = {.ops = &ops, .queues_count = 1, .queue_size_max = 256};
    struct sdc_error err;

    if (argc != 2)
        errx(2, "usage: entropy vfio-user:SOCKET|vhost-user:SOCKET");
    if (sdc_serve_virtio(argv[1], &device, NULL, &err) < 0) // until SIGINT or SIGTERM
        errx(1, "%s", err.text);
    return 0;
}
