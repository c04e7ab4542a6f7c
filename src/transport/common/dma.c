// SPDX-License-Identifier: BSD-3-Clause
// The course of a copy or window:
//
//     pending    asked for by the device; looked at in a turn of its own, so that no function of the device's is called from inside a call
//     begun      its range is translated. Memory that is mapped holds the map. Remote memory is bounced: what is read is fetched first
//     held       a window that the device has been given
//     stored     what was written to remote memory is on its way there
//     ended      the device is told, in a turn of its own
//
// A reset ends all of it at once but windows, which it waits for.
#include "transport/common/dma.h"

#include "base/check.h"
#include "base/log.h"
#include "transport/common/pci_core.h"

#include <errno.h>
#include <stdlib.h>

// Bytes that are begun in one turn: others have theirs.
enum { TURN_BYTES = SDC_DMA_SIZE_MAX };

struct sdc_dma_window {
    struct sdc_remote_request remote;
    struct sdc_payload payload;
    struct sdc_dma *dma;
    struct sdc_dma_window *next; // in a list
    struct sdc_map_use *use;     // NULL: it holds no map
    uint64_t iova;
    uint32_t size;
    enum sdc_access access;
    bool held;                // a window that the device has
    uint8_t *local;           // a copy's; NULL: it is a window
    sdc_dma_mapped *mapped;   // a window's, until the device has been told
    sdc_dma_done *done;       // may be NULL when a window is unmapped
    void *context;
    int result;
};

static struct sdc_dma_window *window_of(struct sdc_remote_request *request)
{
    return sdc_container(request, struct sdc_dma_window, remote);
}

static void schedule(struct sdc_dma *dma)
{
    if (dma->posted)
        return;
    dma->posted = true;
    sdc_loop_post(dma->loop, &dma->work);
}

// --- lists ---

static struct sdc_dma_window *take(struct sdc_dma_window **first, struct sdc_dma_window ***end)
{
    struct sdc_dma_window *window = *first;

    if (window) {
        *first = window->next;
        if (!*first)
            *end = first;
    }
    return window;
}

static void append(struct sdc_dma_window ***end, struct sdc_dma_window *window)
{
    window->next = NULL;
    **end = window;
    *end = &window->next;
}

static struct sdc_dma_window *grow(struct sdc_dma *dma)
{
    struct sdc_dma_window *window = calloc(1, sizeof *window);
    if (!window)
        return NULL;

    window->dma = dma;
    window->remote.queue = &dma->remote;
    window->remote.payload = &window->payload;
    sdc_payload_init(&window->payload);
    return window;
}

// --- the end ---

static void end(struct sdc_dma_window *window, int result)
{
    struct sdc_dma *dma = window->dma;

    if (window->use)
        sdc_map_use_put(window->use, dma->use);
    window->use = NULL;
    sdc_payload_trim(&window->payload);
    if (window->result == 0)
        window->result = result;
    append(&dma->ended_end, window);
    schedule(dma);
}

// Tells the device.
static void tell(struct sdc_dma_window *window)
{
    struct sdc_dma *dma = window->dma;
    struct sdc_dma_window was = *window;

    dma->under_way--;
    window->next = dma->spare;
    dma->spare = window;
    if (was.mapped)
        was.mapped(was.context, NULL, was.result);
    else if (was.done)
        was.done(was.context, was.result);
}

// --- the course ---

// What the device wrote, or has read, is brought to where it belongs.
static void give_back(struct sdc_dma_window *window, uint32_t written)
{
    if (!window->payload.bouncing)
        end(window, 0);
    else if (window->dma->refuses)
        sdc_remote_drop(&window->remote);
    else
        sdc_remote_unbounce(&window->remote, written);
}

static void arrived(struct sdc_dma_window *window)
{
    struct sdc_payload *payload = &window->payload;
    int rc = payload->bouncing ? window->remote.fault : 0;

    if (rc < 0) {
        window->result = window->remote.result == -EIO ? -EIO : rc;
        sdc_remote_drop(&window->remote);
    } else if (!window->local) {
        sdc_dma_mapped *mapped = window->mapped;
        window->mapped = NULL;
        window->dma->under_way--;
        window->dma->windows++;
        window->held = true;
        mapped(window->context, window, 0);
    } else if (window->access == SDC_ACCESS_READ) {
        sdc_payload_read(payload, 0, window->local, window->size);
        give_back(window, 0);
    } else {
        if (!payload->bouncing)
            sdc_payload_write(payload, 0, window->local, window->size);
        give_back(window, window->size);
    }
}

static int translate(struct sdc_dma_window *window, bool bounce)
{
    struct sdc_payload *payload = &window->payload;

    sdc_payload_begin(payload, bounce);
    int rc = sdc_payload_add(payload, &window->dma->memory, window->iova, window->size, window->access);
    if (rc == SDC_PAYLOAD_BOUNCE)
        return translate(window, true);
    if (rc == 0)
        rc = sdc_payload_end(payload);
    return rc < 0 ? rc : payload->fault;
}

static void begin(struct sdc_dma_window *window)
{
    struct sdc_dma *dma = window->dma;
    struct sdc_payload *payload = &window->payload;

    if (!payload->bouncing) {
        window->use = dma->use;
        window->use->in_flight++;
        arrived(window);
        return;
    }
    if (window->local && window->access == SDC_ACCESS_WRITE)
        sdc_payload_write(payload, 0, window->local, window->size);
    if (!sdc_remote_bounce(&window->remote))
        arrived(window);
}

// What a partial map misses is asked for; meanwhile nothing is begun. True: it waits.
static bool asks(struct sdc_dma *dma)
{
    int rc = sdc_remote_ask(&dma->remote, &dma->memory);

    if (rc == -E2BIG)
        dma->remote.denials.all = true;
    return rc == 0 || rc == -E2BIG;
}

// Begins the first that is pending. False: it cannot be begun now.
static bool begin_next(struct sdc_dma *dma, uint64_t *bytes)
{
    struct sdc_dma_window *window = dma->pending;

    if (!window || dma->remote.starved || dma->remote.fetching || *bytes >= TURN_BYTES)
        return false;
    int rc = dma->use ? translate(window, false) : -EFAULT;
    if (rc == -EAGAIN && asks(dma)) {
        if (!dma->remote.fetching)
            schedule(dma);
        return false;
    }
    sdc_remote_parsed(&dma->remote);
    take(&dma->pending, &dma->pending_end);
    *bytes += window->size;
    if (rc < 0)
        end(window, rc == -EAGAIN ? -ENOMEM : rc);
    else
        begin(window);
    return true;
}

// What is asked for on the way has its turn later.
static void work(struct sdc_post *post)
{
    struct sdc_dma *dma = sdc_container(post, struct sdc_dma, work);
    struct sdc_dma_window *last = NULL;
    struct sdc_remote_request *request;
    uint64_t bytes = 0;

    dma->posted = false;
    for (struct sdc_dma_window *window = dma->ended; window; window = window->next)
        last = window;
    struct sdc_dma_window *window = NULL;
    while (last && window != last && (window = take(&dma->ended, &dma->ended_end)) != NULL) // what is told may cancel all others
        tell(window);
    while ((request = sdc_remote_arrived(&dma->remote)) != NULL)
        arrived(window_of(request));
    while (begin_next(dma, &bytes))
        ;
    if (dma->pending && bytes >= TURN_BYTES)
        schedule(dma);
}

// --- remote memory ---

static struct sdc_dma *dma_of(struct sdc_remote_queue *remote)
{
    return sdc_container(remote, struct sdc_dma, remote);
}

static void go_on(struct sdc_remote_queue *remote)
{
    schedule(dma_of(remote));
}

static void asked(struct sdc_remote_queue *remote, const struct sdc_transfer *transfer)
{
    if (transfer->result < 0)
        sdc_denials_add(&remote->denials, transfer->iova, transfer->size);
    schedule(dma_of(remote));
}

static uint32_t lost(struct sdc_remote_request *request)
{
    window_of(request)->result = request->result;
    return 0;
}

static void finish(struct sdc_remote_request *request)
{
    struct sdc_dma_window *window = window_of(request);

    end(window, window->dma->refuses ? -ECANCELED : 0);
}

// It has no ring.
static void no_ring(struct sdc_remote_queue *remote, int result)
{
    (void)remote, (void)result;
}

static const struct sdc_remote_queue_ops remote_ops = {
    .fetched = no_ring,
    .asked = asked,
    .go_on = go_on,
    .written = no_ring,
    .lost = lost,
    .finish = finish,
};

// --- life ---

void sdc_dma_open(struct sdc_dma *dma, struct sdc_loop *loop)
{
    dma->loop = loop;
    dma->work.run = work;
    dma->pending_end = &dma->pending;
    dma->ended_end = &dma->ended;
    dma->remote.ops = &remote_ops;
    dma->remote.loop = loop;
    dma->remote.memory = &dma->memory;
    sdc_remote_queue_init(&dma->remote);
}

void sdc_dma_close(struct sdc_dma *dma)
{
    while (dma->spare) {
        struct sdc_dma_window *window = dma->spare;
        dma->spare = window->next;
        sdc_payload_destroy(&window->payload);
        free(window);
    }
    sdc_read_cache_clear(&dma->remote.cache);
    sdc_map_use_end(&dma->use);
}

// Without memory for it there is none, until the next one comes.
void sdc_dma_set_map(struct sdc_dma *dma, struct sdc_map *map)
{
    if (sdc_map_use_switch(&dma->use, sdc_map_ref(map)) < 0)
        map = NULL;
    dma->memory = (struct sdc_memory){.map = map};
    if (map && map->partial)
        dma->memory.denied = &dma->remote.denials;
    else if (map && map->remote)
        dma->memory.cache = &dma->remote.cache;
    if (dma->pending)
        schedule(dma);
}

void sdc_dma_end_all(struct sdc_dma *dma)
{
    struct sdc_dma_window *window;
    bool refused = dma->refuses;

    dma->refuses = true;
    while ((window = take(&dma->pending, &dma->pending_end)) != NULL)
        end(window, -ECANCELED);
    sdc_remote_abandon(&dma->remote);
    while ((window = take(&dma->ended, &dma->ended_end)) != NULL)
        tell(window);
    dma->refuses = refused;
}

// --- the device's side ---

static void check_thread(const struct sdc_dma *dma)
{
    if (sdc_loop_is_anothers(dma->loop))
        sdc_bug("DMA in another thread than the device's loop: hand it over with sdc_loop_post");
}

static int ask(struct sdc_pci_device *device, const struct sdc_dma_window *wanted, uint64_t size)
{
    struct sdc_dma *dma = device->core ? &device->core->dma : NULL;

    if (!dma || !dma->loop || size > SDC_DMA_SIZE_MAX)
        return -EINVAL;
    check_thread(dma);
    if (dma->refuses)
        return -ECANCELED;
    if (dma->under_way + dma->windows >= SDC_DMA_UNDER_WAY_MAX)
        return -EAGAIN;
    struct sdc_dma_window *window = dma->spare ? dma->spare : grow(dma);
    if (!window)
        return -ENOMEM;
    if (window == dma->spare)
        dma->spare = window->next;
    window->iova = wanted->iova;
    window->size = (uint32_t)size;
    window->access = wanted->access;
    window->local = wanted->local;
    window->mapped = wanted->mapped;
    window->done = wanted->done;
    window->context = wanted->context;
    window->result = 0;
    append(&dma->pending_end, window);
    dma->under_way++;
    schedule(dma);
    return 0;
}

int sdc_dma_read(struct sdc_pci_device *device, uint64_t iova, void *local, size_t size, sdc_dma_done *done, void *context)
{
    struct sdc_dma_window wanted = {.iova = iova, .access = SDC_ACCESS_READ, .local = local, .done = done, .context = context};

    return local ? ask(device, &wanted, size) : -EINVAL;
}

int sdc_dma_write(struct sdc_pci_device *device, uint64_t iova, const void *local, size_t size, sdc_dma_done *done, void *context)
{
    struct sdc_dma_window wanted = {
        .iova = iova, .access = SDC_ACCESS_WRITE, .local = (uint8_t *)(uintptr_t)local, .done = done, .context = context};

    return local ? ask(device, &wanted, size) : -EINVAL;
}

int sdc_dma_map(struct sdc_pci_device *device, uint64_t iova, uint64_t size, enum sdc_access access, sdc_dma_mapped *mapped,
                void *context)
{
    struct sdc_dma_window wanted = {.iova = iova, .access = access, .mapped = mapped, .context = context};

    if (size == 0 || !mapped || (access != SDC_ACCESS_READ && access != SDC_ACCESS_WRITE))
        return -EINVAL;
    return ask(device, &wanted, size);
}

const struct sdc_span *sdc_dma_spans(const struct sdc_dma_window *window, uint32_t *count)
{
    const struct sdc_payload *payload = &window->payload;
    bool read = window->access == SDC_ACCESS_READ;

    *count = read ? payload->readable_spans : payload->spans_count - payload->readable_spans;
    return read ? payload->spans : payload->spans + payload->readable_spans;
}

void sdc_dma_unmap(struct sdc_dma_window *window, uint64_t written, sdc_dma_done *done, void *context)
{
    if (!window)
        return;
    struct sdc_dma *dma = window->dma;
    check_thread(dma);
    if (!window->held)
        sdc_bug("a window of DMA is unmapped twice");
    window->held = false;
    window->done = done;
    window->context = context;
    dma->windows--;
    dma->under_way++;
    give_back(window, window->access == SDC_ACCESS_WRITE ? (uint32_t)sdc_min(written, window->size) : 0);
    if (dma->windows == 0)
        dma->idle(dma);
}

void sdc_dma_cancel(struct sdc_pci_device *device)
{
    if (!device->core || !device->core->dma.loop)
        return;
    check_thread(&device->core->dma);
    sdc_dma_end_all(&device->core->dma);
    sdc_pci_ready(device); // messages that nobody waits for any more are forgotten
}
