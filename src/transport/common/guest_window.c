// SPDX-License-Identifier: BSD-3-Clause
#include "transport/common/guest_window.h"

#include "base/check.h"
#include "base/limits.h"

#include <stdlib.h>

// What one loop has of a window. It travels: to the loop as an order, and back as the answer.
struct place {
    struct sdc_post post;
    struct sdc_loop *loop;
    struct sdc_guest_window *window;
    struct sdc_loop_buffer buffer;
};

struct sdc_guest_window {
    struct sdc_mapping mapping; // a region's; its base and size are the file's
    struct sdc_mapping *file;   // a reference
    struct sdc_guest_memory *memory;
    struct sdc_guest_window *next, **link; // of the memory's
    uint8_t *host;
    uint64_t size;    // bytes
    bool held;        // by regions
    bool wanted;      // loops are to have it
    bool shown;       // what loops were told last; they read it while orders are on their way
    bool leaving;     // it is among memory->windows_leaving
    unsigned pending; // loops that have not answered; zero: no loop looks at it but those that have its buffer
    struct place places[];
};

static void run_order(struct sdc_post *post);

static void order_all(struct sdc_guest_window *window)
{
    const struct sdc_guest_memory *memory = window->memory;

    window->shown = window->wanted;
    window->pending = memory->loops_count;
    for (unsigned i = 0; i < memory->loops_count; i++) {
        struct place *place = &window->places[i];
        place->post.run = run_order;
        sdc_loop_post(place->loop, &place->post);
    }
}

static void drop(struct sdc_guest_window *window)
{
    *window->link = window->next;
    if (window->next)
        window->next->link = window->link;
    window->memory->windows_count--;
    sdc_mapping_unref(window->file);
    free(window);
}

// Goes on with what is to be done next. The window may be gone afterwards.
static void advance(struct sdc_guest_window *window)
{
    struct sdc_guest_memory *memory = window->memory;

    if (window->pending == 0 && window->shown != window->wanted)
        order_all(window);
    bool leaving = !window->wanted && (window->shown || window->pending > 0);
    bool gone = window->leaving && !leaving;
    memory->windows_leaving += leaving && !window->leaving;
    memory->windows_leaving -= gone;
    window->leaving = leaving;
    if (window->pending == 0 && !window->wanted && !window->held)
        drop(window);
    if (gone)
        memory->released(memory);
}

// --- on the loops ---

static void run_answer(struct sdc_post *post)
{
    struct sdc_guest_window *window = sdc_container(post, struct place, post)->window;

    if (--window->pending == 0)
        advance(window);
}

static void answer(struct place *place)
{
    place->post.run = run_answer;
    sdc_loop_post(place->window->memory->loop, &place->post);
}

static void buffer_removed(struct sdc_loop_buffer *buffer)
{
    answer(sdc_container(buffer, struct place, buffer));
}

static void run_order(struct sdc_post *post)
{
    struct place *place = sdc_container(post, struct place, post);

    if (place->window->shown) {
        sdc_loop_buffer_add(place->loop, &place->buffer);
        answer(place);
    } else {
        sdc_loop_buffer_remove(place->loop, &place->buffer);
    }
}

// --- at home ---

// Nothing holds it: neither a region nor a map.
static void release(struct sdc_mapping *mapping)
{
    struct sdc_guest_window *window = sdc_container(mapping, struct sdc_guest_window, mapping);

    window->held = window->wanted = false;
    advance(window);
}

static struct sdc_guest_window *window_of(struct sdc_mapping *mapping)
{
    return mapping && mapping->release == release ? sdc_container(mapping, struct sdc_guest_window, mapping) : NULL;
}

struct sdc_mapping *sdc_guest_window_file(struct sdc_mapping *mapping)
{
    const struct sdc_guest_window *window = window_of(mapping);

    return window ? window->file : mapping;
}

// Another table has the same regions again, most of the time.
static struct sdc_guest_window *find(const struct sdc_guest_memory *memory, const uint8_t *host, uint64_t size)
{
    struct sdc_guest_window *window = memory->windows;

    while (window && (!window->wanted || window->host != host || window->size != size))
        window = window->next;
    return window;
}

static struct sdc_guest_window *window_new(struct sdc_guest_memory *memory, struct sdc_mapping *file, uint8_t *host, uint64_t size)
{
    struct sdc_guest_window *window = calloc(1, sizeof *window + memory->loops_count * sizeof window->places[0]);
    if (!window)
        return NULL;

    window->mapping = (struct sdc_mapping){.base = file->base, .size = file->size, .release = release};
    atomic_init(&window->mapping.refs, 1);
    sdc_mapping_ref(file);
    window->file = file;
    window->memory = memory;
    window->next = memory->windows;
    window->link = &memory->windows;
    if (window->next)
        window->next->link = &window->next;
    memory->windows = window;
    memory->windows_count++;
    window->host = host;
    window->size = size;
    window->held = window->wanted = true;
    for (unsigned i = 0; i < memory->loops_count; i++)
        window->places[i] = (struct place){.loop = memory->loops[i], .window = window,
                                           .buffer = {.base = host, .size = size, .removed = buffer_removed}};
    advance(window);
    return window;
}

struct sdc_mapping *sdc_guest_window_new(struct sdc_guest_memory *memory, struct sdc_mapping *file, uint8_t *host, uint64_t size)
{
    struct sdc_guest_window *window;

    if (memory->loops_count == 0 || size < SDC_LIMIT_WINDOW_BYTES)
        return NULL;
    window = find(memory, host, size);
    if (window) {
        sdc_mapping_ref(&window->mapping);
        return &window->mapping;
    }
    window = memory->windows_count < SDC_LIMIT_WINDOWS ? window_new(memory, file, host, size) : NULL;
    return window ? &window->mapping : NULL;
}

void sdc_guest_memory_let_go(const struct sdc_region *region)
{
    struct sdc_guest_window *window = window_of(region->mapping);

    if (!window)
        return;
    window->wanted = false;
    advance(window);
}

void sdc_guest_memory_keep(const struct sdc_region *region)
{
    struct sdc_guest_window *window = window_of(region->mapping);

    if (!window)
        return;
    window->wanted = true;
    advance(window);
}
