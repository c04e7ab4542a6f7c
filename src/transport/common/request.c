// SPDX-License-Identifier: BSD-3-Clause
// What a device asks of its queues and of the requests that it has taken.
#include "transport/common/request.h"

uint16_t sdc_virtqueue_index(const struct sdc_virtqueue *queue)
{
    return queue->index;
}

struct sdc_loop *sdc_virtqueue_loop(const struct sdc_virtqueue *queue)
{
    return queue->loop;
}

void sdc_virtqueue_set_context(struct sdc_virtqueue *queue, void *context)
{
    queue->context = context;
}

void *sdc_virtqueue_context(const struct sdc_virtqueue *queue)
{
    return queue->context;
}

uint64_t sdc_virtqueue_features(const struct sdc_virtqueue *queue)
{
    return queue->config.features;
}

void *sdc_virtio_request_private(struct sdc_virtio_request *request)
{
    return sdc_request_of(request)->private_memory;
}

struct sdc_virtio_request *sdc_virtio_request_of(void *private_memory)
{
    return &sdc_container(private_memory, struct request, private_memory)->shown;
}

int sdc_virtio_request_read(struct sdc_virtio_request *request, uint64_t offset, void *local, size_t size)
{
    return sdc_chain_read(&sdc_request_of(request)->chain, offset, local, size);
}

int sdc_virtio_request_write(struct sdc_virtio_request *request, uint64_t offset, const void *local, size_t size)
{
    return sdc_chain_write(&sdc_request_of(request)->chain, offset, local, size);
}

int sdc_virtio_request_spans(struct sdc_virtio_request *request, bool writable, uint64_t offset, uint64_t size,
                             const struct sdc_span **spans, uint32_t *count)
{
    return sdc_chain_spans(&sdc_request_of(request)->chain, writable, offset, size, spans, count);
}
