// SPDX-License-Identifier: BSD-3-Clause
// Both halves of a virtqueue, drawn by lot what each does next, against a model of what has to come of it: any order in which the
// device gives chains back, rings of any size; or the order in which they were made available, in batches.
#include "queue_fixture.h"

#include "base/bytes.h"
#include "base/check.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { MODEL_MAX = 300 };

// A request of the model: its readable segments all hold `value`, and the device is to write ~value.
struct model_request {
    bool in_flight;
    uint8_t value;
    unsigned readable;
    unsigned writable;
};

// A chain that the device has given and not published: where its used element stands, and what that says.
struct model_given {
    uint16_t at;   // the used index, or the place in a packed ring
    bool wrap;     // of the lap that this place is on
    uint16_t id;
    uint32_t written;
};

// Whether a half wants to be told of the next chain. Who has not taken its wish back may still be told more.
enum wish { NO, PERHAPS, YES };

// Both halves, and what each has asked of the other. What happens is drawn by lot.
struct model {
    struct pair pair;
    uint16_t size;
    unsigned indirect_max;
    uint64_t random;
    struct model_request requests[MODEL_MAX];
    struct sdc_chain chains[MODEL_MAX]; // that the device holds
    struct sdc_chain *held[MODEL_MAX];  // the first held_count of them; the others are free
    unsigned held_count;
    unsigned added; // and not published
    unsigned given; // likewise
    unsigned shown; // available or used chains that the other half has not taken
    unsigned used;
    enum wish device_waits;
    enum wish driver_waits;
    bool wishes_stay; // the device's
    bool draining;    // nothing is added
    bool longest; // a chain has spanned the ring
    bool in_order;
    struct model_given list[MODEL_MAX]; // in order: the `given` ones
    unsigned batches;                   // of more than one chain, under one used element
};

static unsigned draw(struct model *model, unsigned count)
{
    model->random = model->random * UINT64_C(6364136223846793005) + 1442695040888963407;
    return (unsigned)(model->random >> 33) % count;
}

static void model_add(struct model *model)
{
    struct pair *pair = &model->pair;
    unsigned index = draw(model, model->size);
    struct model_request *request = &model->requests[index];
    unsigned longest = (unsigned)sdc_max(model->size, model->indirect_max);
    unsigned count = draw(model, 4) == 0 ? longest : 1 + draw(model, (unsigned)sdc_min(longest, 4));
    unsigned readable = draw(model, count + 1);
    struct sdc_driver_segment segments[MODEL_MAX];
    if (request->in_flight)
        return;
    for (unsigned i = 0; i < count; i++)
        segments[i] = (struct sdc_driver_segment){pair->data_iova + 2 * index + (i >= readable), 1};
    int ret = sdc_driver_queue_add(pair->driver, segments, readable, count - readable, request);
    if (ret == -ENOSPC)
        return;
    assert_int_equal(ret, 0);
    *request = (struct model_request){true, (uint8_t)draw(model, 256), readable, count - readable};
    pair->data[2 * index] = request->value;
    pair->data[2 * index + 1] = 0;
    model->added++;
    model->longest |= count == model->size && count > model->indirect_max;
}

// Checks whether a half was told of `count` new chains that the other one has published.
static void check_told(bool told, unsigned count, enum wish *wish)
{
    if (count == 0 || *wish == NO)
        assert_false(told);
    else if (*wish == YES)
        assert_true(told);
    if (count > 0 && *wish == YES)
        *wish = PERHAPS;
}

static void model_publish(struct model *model)
{
    check_told(sdc_driver_queue_publish(model->pair.driver), model->added, &model->device_waits);
    model->shown += model->added;
    model->added = 0;
}

static void model_device_takes(struct model *model)
{
    struct pair *pair = &model->pair;
    struct sdc_chain *chain = model->held[model->held_count];
    uint8_t bytes[MODEL_MAX];
    sdc_ring_suppress(&pair->ring);
    // With event indices in a split ring, a wish that was not fulfilled stays.
    model->device_waits = model->wishes_stay && model->device_waits != NO ? PERHAPS : NO;
    if (model->held_count == model->size) {
        assert_int_equal(sdc_ring_take(&pair->ring, &pair->chain), 0);
        return;
    }
    assert_int_equal(sdc_ring_take(&pair->ring, chain), model->shown > 0);
    if (model->shown == 0)
        return;
    model->shown--;
    model->held_count++;
    assert_int_equal(chain->payload.fault, 0);
    assert_int_equal(sdc_chain_read(chain, 0, bytes, chain->payload.readable_size), 0);
    for (unsigned i = 1; i < chain->payload.readable_size; i++)
        assert_int_equal(bytes[i], bytes[0]);
    memset(bytes, (uint8_t)~bytes[0], chain->payload.writable_size);
    assert_int_equal(sdc_chain_write(chain, 0, bytes, chain->payload.writable_size), 0);
}

// Gives any of those that it holds, or the one that is due.
static void model_device_gives(struct model *model)
{
    if (model->held_count == 0)
        return;
    unsigned which = model->in_order ? 0 : draw(model, model->held_count);
    struct sdc_chain *chain = model->held[which];
    struct sdc_ring *ring = &model->pair.ring;
    bool packed = ring->config.features & SDC_VIRTIO_F_RING_PACKED;
    model->list[model->given] =
        (struct model_given){ring->used_next, packed && ring->packed.used_wrap, chain->id, (uint32_t)chain->payload.writable_size};
    sdc_ring_give(&model->pair.ring, chain, (uint32_t)chain->payload.writable_size);
    model->held_count--;
    if (model->in_order)
        memmove(model->held, model->held + 1, model->held_count * sizeof model->held[0]);
    else
        model->held[which] = model->held[model->held_count];
    model->held[model->held_count] = chain;
    model->given++;
}

// Makes one used element of those of list[first] to list[last], as a device may that keeps the order: it stands where the first one
// stood, and in place of the others stands what a device left there that wrote nothing, or anything.
static void use_at_once(struct model *model, unsigned first, unsigned last)
{
    struct sdc_ring *ring = &model->pair.ring;
    bool packed = ring->config.features & SDC_VIRTIO_F_RING_PACKED;
    const struct model_given *of_last = &model->list[last];
    for (unsigned i = last + 1; i-- > first;) {
        const struct model_given *given = &model->list[i];
        uint32_t id = i == first ? of_last->id : draw(model, 65536);
        uint32_t written = i == first ? of_last->written : UINT32_MAX - draw(model, 9);
        if (!packed) {
            uint8_t *element = model->pair.memory.base + (ring->config.device - PAIR_IOVA) + 4 + 8 * (given->at % model->size);
            sdc_put32(element, id);
            sdc_put32(element + 4, written);
            continue;
        }
        uint8_t *desc = model->pair.memory.base + (ring->config.desc - PAIR_IOVA) + (size_t)SDC_DESC_SIZE * given->at;
        unsigned flags = (given->wrap ? 0x8080 : 0) | (written > 0 ? SDC_DESC_F_WRITE : 0);
        sdc_put32(desc + 8, written);
        sdc_put16(desc + 12, (uint16_t)id);
        if (i != first) // available, as the driver left it
            sdc_put16(desc + 14, given->wrap ? 0x0080 : 0x8000);
        else if (i == 0) // hidden until it is published
            ring->packed.first_flags = (uint16_t)flags;
        else
            sdc_put16(desc + 14, (uint16_t)flags);
    }
    model->batches += last > first;
}

static void make_batches(struct model *model)
{
    for (unsigned first = 0; first < model->given;) {
        unsigned count = 1 + draw(model, model->given - first);
        use_at_once(model, first, first + count - 1);
        first += count;
    }
}

static void model_device_publishes(struct model *model)
{
    if (model->in_order && draw(model, 3) > 0)
        make_batches(model);
    check_told(sdc_ring_publish(&model->pair.ring), model->given, &model->driver_waits);
    model->used += model->given;
    model->given = 0;
}

static void model_driver_takes(struct model *model)
{
    struct sdc_driver_used used[4];
    unsigned max = 1 + draw(model, 4);
    sdc_driver_queue_disarm(model->pair.driver);
    model->driver_waits = NO;
    int count = sdc_driver_queue_take(model->pair.driver, used, max);
    assert_int_equal(count, sdc_min(max, model->used));
    for (int i = 0; i < count; i++) {
        struct model_request *request = used[i].token;
        ptrdiff_t index = request - model->requests;
        assert_true(request->in_flight);
        assert_int_equal(used[i].written, request->writable);
        if (request->readable > 0 && request->writable > 0)
            assert_int_equal(model->pair.data[2 * index + 1], (uint8_t)~request->value);
        request->in_flight = false;
        model->used--;
    }
}

static void model_step(struct model *model)
{
    struct pair *pair = &model->pair;
    switch (draw(model, 10)) {
    case 0: // who finds something does not go to sleep
        assert_int_equal(sdc_ring_rearm(&pair->ring), model->shown > 0);
        model->device_waits = model->shown > 0 ? PERHAPS : YES;
        break;
    case 1:
        assert_int_equal(sdc_driver_queue_arm(pair->driver), model->used == 0);
        model->driver_waits = model->used > 0 ? PERHAPS : YES;
        break;
    case 2:
        model_publish(model);
        break;
    case 3:
    case 4:
        model_device_takes(model);
        break;
    case 5:
        model_device_gives(model);
        break;
    case 6:
        model_device_publishes(model);
        break;
    case 7:
        model_driver_takes(model);
        break;
    default:
        if (!model->draining)
            model_add(model);
    }
    if (draw(model, 4u * model->size + 30) == 0)
        model->draining = !model->draining;
}

static void run_model(uint16_t size, uint64_t features, uint16_t indirect_max)
{
    struct model *model = calloc(1, sizeof *model);
    *model = (struct model){.size = size, .indirect_max = indirect_max, .random = size + features};
    model->in_order = features & SDC_VIRTIO_F_IN_ORDER;
    model->wishes_stay = (features & SDC_VIRTIO_F_EVENT_IDX) && !(features & SDC_VIRTIO_F_RING_PACKED);
    open_pair(&model->pair, size, features, indirect_max);
    for (unsigned i = 0; i < MODEL_MAX; i++) {
        sdc_chain_init(&model->chains[i]);
        model->held[i] = &model->chains[i];
    }
    sdc_ring_suppress(&model->pair.ring);
    model->device_waits = model->wishes_stay ? PERHAPS : NO;
    for (unsigned step = 0; step < 60000; step++)
        model_step(model);
    assert_null(model->pair.driver->broken);
    assert_true(indirect_max >= size || model->longest);
    assert_true(!model->in_order || size == 1 || model->batches > 10);
    for (unsigned i = 0; i < MODEL_MAX; i++)
        sdc_chain_destroy(&model->chains[i]);
    close_pair(&model->pair);
    free(model);
}

static void any_order_and_any_size_will_do(void **state)
{
    static const uint16_t sizes[] = {1, 2, 4, 256, 3, 5, 7, 300}; // the last four for packed rings alone
    for (unsigned i = 0; i < (is_packed(state) ? 8 : 4); i++)
        for (unsigned set = 0; set < SETS; set++)
            run_model(sizes[i], features_of(state, set), set & TABLES ? 3 : 0);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        BOTH(any_order_and_any_size_will_do),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
