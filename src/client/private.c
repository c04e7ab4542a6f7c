// SPDX-License-Identifier: BSD-3-Clause
// Memory that was mapped without an fd: which it is, and copying to and from it on behalf of the device,
// while a driver uses it.
#include "client/vfio_client.h"

#include "base/check.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

// --- the table. Under memory_lock ---

// The first region that ends behind iova.
static size_t find(const struct sdc_vfio_client *client, uint64_t iova)
{
    size_t low = 0, high = client->memory_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct sdc_vfio_private *memory = &client->memory[middle];
        if (memory->iova + (memory->size - 1) < iova)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static int insert(struct sdc_vfio_client *client, const struct sdc_vfio_private *memory)
{
    size_t at = find(client, memory->iova), count = client->memory_count;
    if (at < count && client->memory[at].iova <= memory->iova + (memory->size - 1))
        return -EEXIST;
    if (count == client->memory_room) {
        size_t room = count > 0 ? 2 * count : 8;
        struct sdc_vfio_private *larger = reallocarray(client->memory, room, sizeof *larger);
        if (!larger)
            return -ENOMEM;
        client->memory = larger;
        client->memory_room = room;
    }
    memmove(client->memory + at + 1, client->memory + at, (count - at) * sizeof *memory);
    client->memory[at] = *memory;
    client->memory_count++;
    return 0;
}

int sdc_vfio_private_add(struct sdc_vfio_client *client, const struct sdc_vfio_private *memory)
{
    pthread_mutex_lock(&client->memory_lock);
    int ret = insert(client, memory);
    pthread_mutex_unlock(&client->memory_lock);
    return ret;
}

void sdc_vfio_private_remove(struct sdc_vfio_client *client, uint64_t iova, uint64_t size)
{
    pthread_mutex_lock(&client->memory_lock);
    size_t at = find(client, iova);
    struct sdc_vfio_private *memory = client->memory + at;
    if (at < client->memory_count && memory->iova == iova && memory->size == size) {
        client->memory_count--;
        memmove(memory, memory + 1, (client->memory_count - at) * sizeof *memory);
    }
    pthread_mutex_unlock(&client->memory_lock);
}

void sdc_vfio_private_remove_all(struct sdc_vfio_client *client)
{
    pthread_mutex_lock(&client->memory_lock);
    client->memory_count = 0;
    pthread_mutex_unlock(&client->memory_lock);
}

// --- copying ---

// The driver's threads use the memory meanwhile, as they would with a device that has real DMA: who may touch
// what and when is between them and the device. So that neither sees half a number, every aligned one of up
// to 8 bytes is copied at once. What an earlier message has written is seen before what a later one writes.
// To ThreadSanitizer this is a device, which it does not see.
#define DEVICE __attribute__((no_sanitize("thread")))

#define LOAD(type)                                                     \
    do {                                                               \
        type part = __atomic_load_n((const type *)from, __ATOMIC_RELAXED); \
        __builtin_memcpy(to, &part, sizeof part);                      \
    } while (0)

#define STORE(type)                                          \
    do {                                                     \
        type part;                                           \
        __builtin_memcpy(&part, from, sizeof part);          \
        __atomic_store_n((type *)to, part, __ATOMIC_RELAXED); \
    } while (0)

// The largest power of two, at most 8, that divides the address and is not larger than what is left.
static inline size_t DEVICE step_of(const uint8_t *memory, size_t left)
{
    size_t step = 8;
    while ((uintptr_t)memory % step != 0 || step > left)
        step /= 2;
    return step;
}

static void DEVICE copy_out(const void *memory, uint8_t *to, size_t size)
{
    const uint8_t *from = memory;
    for (size_t step; size > 0; from += step, to += step, size -= step) {
        step = step_of(from, size);
        if (step == 8)
            LOAD(uint64_t);
        else if (step == 4)
            LOAD(uint32_t);
        else if (step == 2)
            LOAD(uint16_t);
        else
            LOAD(uint8_t);
    }
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
}

static void DEVICE copy_in(void *memory, const uint8_t *from, size_t size)
{
    uint8_t *to = memory;
    __atomic_thread_fence(__ATOMIC_RELEASE);
    for (size_t step; size > 0; from += step, to += step, size -= step) {
        step = step_of(to, size);
        if (step == 8)
            STORE(uint64_t);
        else if (step == 4)
            STORE(uint32_t);
        else if (step == 2)
            STORE(uint16_t);
        else
            STORE(uint8_t);
    }
}

// --- accesses ---

// Whether all of [iova, iova + size) is there and may be used for `flag`. Regions may adjoin. *first is the
// one where it begins. Under memory_lock.
static int check(const struct sdc_vfio_client *client, uint64_t iova, uint64_t size, uint32_t flag,
                 size_t *first)
{
    uint64_t last;
    if (size == 0)
        return 0;
    if (!sdc_add(iova, size - 1, &last))
        return -EFAULT;
    *first = find(client, iova);
    for (size_t at = *first; at < client->memory_count; at++) {
        const struct sdc_vfio_private *memory = &client->memory[at];
        if (memory->iova > iova)
            return -EFAULT;
        if (!(memory->flags & flag))
            return -EACCES;
        uint64_t end = memory->iova + (memory->size - 1);
        if (end >= last)
            return 0;
        iova = end + 1;
    }
    return -EFAULT;
}

static int access_memory(struct sdc_vfio_client *client, uint64_t iova, uint8_t *to, const uint8_t *from,
                         uint64_t size)
{
    size_t at = 0;
    pthread_mutex_lock(&client->memory_lock);
    int ret = check(client, iova, size, to ? SDC_VFIO_MAP_READ : SDC_VFIO_MAP_WRITE, &at);
    for (uint64_t done = 0, length; ret == 0 && done < size; done += length, at++) {
        const struct sdc_vfio_private *memory = &client->memory[at];
        uint64_t offset = iova + done - memory->iova;
        length = sdc_min(size - done, memory->size - offset);
        if (to)
            copy_out(memory->host + offset, to + done, length);
        else
            copy_in(memory->host + offset, from + done, length);
    }
    pthread_mutex_unlock(&client->memory_lock);
    return ret;
}

int sdc_vfio_private_read(struct sdc_vfio_client *client, uint64_t iova, void *to, uint64_t size)
{
    return access_memory(client, iova, to, NULL, size);
}

int sdc_vfio_private_write(struct sdc_vfio_client *client, uint64_t iova, const void *from, uint64_t size)
{
    return access_memory(client, iova, NULL, from, size);
}
