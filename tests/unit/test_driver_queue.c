// SPDX-License-Identifier: BSD-3-Clause
// The driver's half of a virtqueue against the device's half, split and packed, with and without event
// indices and indirect tables; against a device that breaks the rules; and both halves in two threads that
// wait for each other.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/check.h"
#include "driver/virtqueue.h"
#include "driver_memory.h"
#include "os/fd.h"
#include "os/wait.h"
#include "ring/ring.h"

#include <sidecard/virtio.h>

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define IOVA UINT64_C(0x7000)

// Both halves of one queue.
struct pair {
    struct sdc_client_memory memory;
    struct sdc_map *map;
    struct sdc_driver_queue *driver;
    struct sdc_ring ring;
    struct sdc_chain chain;
    uint8_t *data;
    uint64_t data_iova;
};

static void open_pair(struct pair *pair, uint16_t size, uint64_t features, uint16_t indirect_max)
{
    struct sdc_driver_queue_config config = {.size = size,
                                             .features = features,
                                             .indirect_max = indirect_max};
    uint64_t bytes = sdc_driver_queue_memory(&config) + 65536;
    assert_int_equal(sdc_client_memory_new(&pair->memory, IOVA, bytes, NULL), 0);
    assert_int_equal(sdc_driver_queue_new(&config, &pair->memory, &pair->driver, NULL), 0);
    pair->data = sdc_client_memory_take(&pair->memory, 65536 - 4096, 64, &pair->data_iova);
    assert_non_null(pair->data);
    pair->map = driver_map(&pair->memory);
    struct sdc_ring_config device = {
        .size = size,
        .features = features,
        .desc = pair->driver->desc,
        .driver = pair->driver->driver,
        .device = pair->driver->device,
    };
    assert_int_equal(sdc_ring_start(&pair->ring, &device, &(struct sdc_memory){.map = pair->map}, NULL), 0);
    sdc_chain_init(&pair->chain);
}

static void close_pair(struct pair *pair)
{
    sdc_chain_destroy(&pair->chain);
    sdc_ring_stop(&pair->ring);
    sdc_map_unref(pair->map);
    sdc_driver_queue_free(pair->driver);
    sdc_client_memory_free(&pair->memory);
}

// Each test is run with rings of both formats; this is its state.
static uint64_t formats[] = {0, SDC_VIRTIO_F_RING_PACKED};

enum { PLAIN, EVENTS, TABLES, TABLES_EVENTS, SETS };

static uint64_t features_of(void **state, unsigned set)
{
    return *(uint64_t *)*state | SDC_VIRTIO_F_VERSION_1 | (set & EVENTS ? SDC_VIRTIO_F_EVENT_IDX : 0) |
           (set & TABLES ? SDC_VIRTIO_F_INDIRECT_DESC : 0);
}

static bool is_packed(void **state)
{
    return *(uint64_t *)*state != 0;
}

// --- chains ---

// One chain of `readable` and `writable` segments: the device reads "a", "b", ... and writes as many bytes
// back.
static void send_one(struct pair *pair, unsigned readable, unsigned writable)
{
    struct sdc_driver_segment segments[16];
    struct sdc_driver_used used;
    uint8_t text[16], token;
    for (unsigned i = 0; i < readable + writable; i++) {
        segments[i] = (struct sdc_driver_segment){.iova = pair->data_iova + 100 * i, .size = 1};
        pair->data[100 * i] = (uint8_t)('a' + i);
    }
    assert_int_equal(sdc_driver_queue_add(pair->driver, segments, readable, writable, &token), 0);
    assert_int_equal(sdc_ring_take(&pair->ring, &pair->chain), 0); // not shown yet
    sdc_driver_queue_publish(pair->driver);
    assert_int_equal(sdc_ring_take(&pair->ring, &pair->chain), 1);
    assert_int_equal(pair->chain.readable_size, readable);
    assert_int_equal(pair->chain.writable_size, writable);
    assert_int_equal(sdc_chain_read(&pair->chain, 0, text, readable), 0);
    assert_memory_equal(text, "abcdefghijklmnop", readable);
    assert_int_equal(sdc_chain_write(&pair->chain, 0, "ABCDEFGHIJKLMNOP", writable), 0);
    assert_int_equal(sdc_driver_queue_take(pair->driver, &used, 1), 0);
    sdc_ring_give(&pair->ring, &pair->chain, writable);
    sdc_ring_publish(&pair->ring);
    assert_int_equal(sdc_driver_queue_take(pair->driver, &used, 1), 1);
    assert_ptr_equal(used.token, &token);
    assert_int_equal(used.written, writable);
    for (unsigned i = 0; i < writable; i++)
        assert_int_equal(pair->data[100 * (readable + i)], 'A' + i);
    assert_int_equal(pair->driver->in_flight, 0);
}

static void chains_of_every_shape_get_across(void **state)
{
    for (unsigned set = 0; set < SETS; set++) {
        struct pair pair;
        open_pair(&pair, 16, features_of(state, set), set & TABLES ? 6 : 0);
        for (unsigned round = 0; round < 20; round++)
            for (unsigned readable = 0; readable <= 8; readable++)
                for (unsigned writable = readable == 0; writable <= 8; writable++)
                    send_one(&pair, readable, writable);
        close_pair(&pair);
    }
}

static void a_full_ring_says_so_and_empties(void **state)
{
    for (unsigned indirect = 0; indirect < 2; indirect++) {
        struct pair pair;
        struct sdc_driver_segment segments[3] = {{IOVA, 1}, {IOVA, 1}, {IOVA, 1}};
        struct sdc_driver_used used[16];
        unsigned room = indirect ? 16 : 5;
        open_pair(&pair, 16, features_of(state, TABLES), indirect ? 3 : 0);
        for (unsigned round = 0; round < 100; round++) {
            for (unsigned i = 0; i < room; i++)
                assert_int_equal(sdc_driver_queue_add(pair.driver, segments, 2, 1, &pair), 0);
            assert_int_equal(sdc_driver_queue_add(pair.driver, segments, 2, 1, &pair), -ENOSPC);
            sdc_driver_queue_publish(pair.driver);
            for (unsigned i = 0; i < room; i++) {
                assert_int_equal(sdc_ring_take(&pair.ring, &pair.chain), 1);
                sdc_ring_give(&pair.ring, &pair.chain, 0);
            }
            sdc_ring_publish(&pair.ring);
            assert_int_equal(sdc_driver_queue_take(pair.driver, used, 3), 3);
            assert_int_equal(sdc_driver_queue_take(pair.driver, used, 16), room - 3);
        }
        close_pair(&pair);
    }
}

static void a_chain_longer_than_the_ring_is_refused(void **state)
{
    struct pair pair;
    struct sdc_driver_segment segments[5] = {{IOVA, 1}, {IOVA, 1}, {IOVA, 1}, {IOVA, 1}, {IOVA, 1}};
    open_pair(&pair, 4, features_of(state, PLAIN), 0);
    assert_int_equal(sdc_driver_queue_add(pair.driver, segments, 5, 0, NULL), -EINVAL);
    assert_int_equal(sdc_driver_queue_add(pair.driver, segments, 0, 0, NULL), -EINVAL);
    assert_int_equal(sdc_driver_queue_add(pair.driver, segments, 4, 0, NULL), 0);
    close_pair(&pair);
}

static void bad_queue_sizes_are_refused(void **state)
{
    static const uint16_t sizes[] = {0, 32769, 65535, 3, 100};
    struct sdc_client_memory memory;
    struct sdc_driver_queue *queue;
    assert_int_equal(sdc_client_memory_new(&memory, IOVA, 4096, NULL), 0);
    // Packed rings may be of any size, others of powers of two alone.
    for (unsigned i = 0; i < (is_packed(state) ? 3 : 5); i++) {
        struct sdc_driver_queue_config config = {.size = sizes[i], .features = features_of(state, PLAIN)};
        assert_int_equal(sdc_driver_queue_new(&config, &memory, &queue, NULL), -EINVAL);
    }
    struct sdc_driver_queue_config config = {.size = 1024, .features = features_of(state, PLAIN)};
    assert_int_equal(sdc_driver_queue_new(&config, &memory, &queue, NULL), -ENOMEM);
    sdc_client_memory_free(&memory);
}

// --- who notifies whom ---

static void add_one(struct pair *pair)
{
    struct sdc_driver_segment segment = {.iova = pair->data_iova, .size = 1};
    assert_int_equal(sdc_driver_queue_add(pair->driver, &segment, 1, 0, pair), 0);
}

static void take_and_give(struct pair *pair)
{
    assert_int_equal(sdc_ring_take(&pair->ring, &pair->chain), 1);
    sdc_ring_give(&pair->ring, &pair->chain, 0);
}

static void take_back(struct pair *pair, unsigned count)
{
    struct sdc_driver_used used[16];
    assert_int_equal(sdc_driver_queue_take(pair->driver, used, 16), count);
}

static void the_device_is_notified_when_it_asked_and_once_a_batch(void **state)
{
    for (unsigned set = 0; set < 2; set++) {
        struct pair pair;
        open_pair(&pair, 8, features_of(state, set), 0);
        for (unsigned round = 0; round < 20000; round++) {
            assert_false(sdc_driver_queue_publish(pair.driver)); // nothing new
            assert_false(sdc_ring_rearm(&pair.ring));
            add_one(&pair), add_one(&pair), add_one(&pair);
            assert_true(sdc_driver_queue_publish(pair.driver));
            assert_false(sdc_driver_queue_publish(pair.driver));
            sdc_ring_suppress(&pair.ring);
            take_and_give(&pair);
            add_one(&pair);
            assert_false(sdc_driver_queue_publish(pair.driver)); // it is awake
            assert_true(sdc_ring_rearm(&pair.ring));             // and finds it before it sleeps
            take_and_give(&pair), take_and_give(&pair), take_and_give(&pair);
            sdc_ring_publish(&pair.ring);
            take_back(&pair, 4);
        }
        close_pair(&pair);
    }
}

static void the_driver_is_interrupted_when_it_asked(void **state)
{
    for (unsigned set = 0; set < 2; set++) {
        struct pair pair;
        open_pair(&pair, 8, features_of(state, set), 0);
        // From the start, nobody has asked.
        add_one(&pair);
        sdc_driver_queue_publish(pair.driver);
        take_and_give(&pair);
        assert_false(sdc_ring_publish(&pair.ring));
        take_back(&pair, 1);
        for (unsigned round = 0; round < 20000; round++) {
            add_one(&pair), add_one(&pair);
            sdc_driver_queue_publish(pair.driver);
            assert_true(sdc_driver_queue_arm(pair.driver));
            take_and_give(&pair);
            assert_true(sdc_ring_publish(&pair.ring));
            assert_false(sdc_driver_queue_arm(pair.driver)); // one is there
            take_back(&pair, 1);
            sdc_driver_queue_disarm(pair.driver);
            take_and_give(&pair);
            assert_false(sdc_ring_publish(&pair.ring));
            take_back(&pair, 1);
        }
        close_pair(&pair);
    }
}

// --- any order, any size ---

enum { MODEL_MAX = 300 };

// A request of the model: its readable segments all hold `value`, and the device is to write ~value.
struct model_request {
    bool in_flight;
    uint8_t value;
    unsigned readable;
    unsigned writable;
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
    assert_int_equal(chain->fault, 0);
    assert_int_equal(sdc_chain_read(chain, 0, bytes, chain->readable_size), 0);
    for (unsigned i = 1; i < chain->readable_size; i++)
        assert_int_equal(bytes[i], bytes[0]);
    memset(bytes, (uint8_t)~bytes[0], chain->writable_size);
    assert_int_equal(sdc_chain_write(chain, 0, bytes, chain->writable_size), 0);
}

// Gives any of those that it holds.
static void model_device_gives(struct model *model)
{
    if (model->held_count == 0)
        return;
    unsigned which = draw(model, model->held_count);
    struct sdc_chain *chain = model->held[which];
    sdc_ring_give(&model->pair.ring, chain, (uint32_t)chain->writable_size);
    model->held[which] = model->held[--model->held_count];
    model->held[model->held_count] = chain;
    model->given++;
}

static void model_device_publishes(struct model *model)
{
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

// With chains of two entries in a ring of three, every other one goes on at its start.
static void a_chain_goes_over_the_rings_end(void **state)
{
    for (unsigned set = 0; set < 2; set++) {
        struct pair pair;
        open_pair(&pair, is_packed(state) ? 3 : 4, features_of(state, set), 0);
        for (unsigned round = 0; round < 40; round++) {
            send_one(&pair, 1, 1);
            send_one(&pair, 3, 0); // all of it
            send_one(&pair, 0, 1);
        }
        close_pair(&pair);
    }
}

// As after a reset of the queue: whatever state it was in.
static void a_queue_that_was_restarted_is_as_new(void **state)
{
    for (unsigned set = 0; set < SETS; set++) {
        struct pair pair;
        open_pair(&pair, 4, features_of(state, set), set & TABLES ? 2 : 0);
        for (unsigned round = 0; round < 20; round++) {
            for (unsigned i = 0; i < round; i++)
                send_one(&pair, 1, 0);
            add_one(&pair), add_one(&pair);
            sdc_driver_queue_publish(pair.driver);
            take_and_give(&pair);
            sdc_ring_publish(&pair.ring);
            add_one(&pair);
            pair.driver->broken = "on purpose";
            struct sdc_ring_config config = pair.ring.config;
            sdc_ring_stop(&pair.ring);
            sdc_driver_queue_restart(pair.driver);
            assert_int_equal(sdc_ring_start(&pair.ring, &config, &(struct sdc_memory){.map = pair.map}, NULL), 0);
            assert_int_equal(pair.driver->in_flight, 0);
            assert_int_equal(sdc_ring_take(&pair.ring, &pair.chain), 0);
            take_back(&pair, 0);
            for (unsigned i = 0; i < 4; i++)
                add_one(&pair);
            sdc_driver_queue_publish(pair.driver);
            for (unsigned i = 0; i < 4; i++)
                take_and_give(&pair);
            assert_false(sdc_ring_publish(&pair.ring)); // nobody has asked
            take_back(&pair, 4);
        }
        close_pair(&pair);
    }
}

// --- a device that breaks the rules ---

// Writes a used element and index as a device would, whatever they are.
static void use_split(struct pair *pair, uint16_t index, uint32_t id, uint32_t written)
{
    uint8_t *used = pair->memory.base + (pair->driver->device - IOVA);
    sdc_put32(used + 4, id);
    sdc_put32(used + 8, written);
    sdc_put16(used + 2, index);
}

static void expect_broken(struct pair *pair, const char *why)
{
    struct sdc_driver_used used;
    assert_int_equal(sdc_driver_queue_take(pair->driver, &used, 1), -EPROTO);
    if (!strstr(pair->driver->broken, why))
        fail_msg("'%s' is not in '%s'", why, pair->driver->broken);
}

static void a_split_device_that_breaks_the_rules_breaks_the_queue(void **state)
{
    static const struct {
        uint16_t index;
        uint32_t id;
        uint32_t written;
        const char *why;
    } cases[] = {
        {1, 8, 0, "not in flight"}, // outside the ring
        {1, UINT32_MAX, 0, "not in flight"},
        {1, 65536, 0, "not in flight"}, // head 0 in 16 bits
        {1, 5, 0, "not in flight"},     // free
        {1, 1, 0, "not in flight"},     // inside a chain
        {1, 0, 3, "more than the chain has room"},
        {2, 0, 0, "ahead"},
        {65535, 0, 0, "ahead"},
    };
    for (size_t i = 0; i < SDC_COUNT(cases); i++) {
        struct pair pair;
        open_pair(&pair, 8, features_of(state, PLAIN), 0);
        struct sdc_driver_segment segments[2] = {{pair.data_iova, 2}, {pair.data_iova, 2}};
        assert_int_equal(sdc_driver_queue_add(pair.driver, segments, 1, 1, &pair), 0);
        sdc_driver_queue_publish(pair.driver);
        use_split(&pair, cases[i].index, cases[i].id, cases[i].written);
        expect_broken(&pair, cases[i].why);
        use_split(&pair, 1, 0, 2);
        expect_broken(&pair, cases[i].why); // for good
        close_pair(&pair);
    }
}

static void a_split_chain_is_not_given_back_twice(void **state)
{
    struct pair pair;
    open_pair(&pair, 8, features_of(state, PLAIN), 0);
    add_one(&pair), add_one(&pair);
    sdc_driver_queue_publish(pair.driver);
    use_split(&pair, 1, 0, 0);
    take_back(&pair, 1);
    uint8_t *ring = pair.memory.base + (pair.driver->device - IOVA);
    sdc_put32(ring + 4 + 8, 0);
    sdc_put16(ring + 2, 2);
    expect_broken(&pair, "not in flight");
    close_pair(&pair);
}

enum { USED_NOW = 0x8080, USED_LATER = 0, USED_WROTE = 2 }; // flags of the first lap and of the next one

// Writes a used descriptor at a place in the ring as a device would, whatever it is.
static void use_packed(struct pair *pair, unsigned at, uint16_t id, uint32_t written, uint16_t flags)
{
    uint8_t *desc = pair->memory.base + (pair->driver->desc - IOVA) + 16 * (size_t)at;
    sdc_put32(desc + 8, written);
    sdc_put16(desc + 12, id);
    sdc_put16(desc + 14, flags);
}

static void a_packed_device_that_breaks_the_rules_breaks_the_queue(void **state)
{
    static const struct {
        uint16_t id;
        uint32_t written;
        const char *why;
    } cases[] = {
        {7, 0, "not in flight"}, // outside the ring
        {UINT16_MAX, 0, "not in flight"},
        {5, 0, "not in flight"}, // free
        {0, 3, "more than the chain has room"},
        {0, UINT32_MAX, "more than the chain has room"},
    };
    for (size_t i = 0; i < SDC_COUNT(cases); i++) {
        struct pair pair;
        open_pair(&pair, 7, features_of(state, PLAIN), 0);
        struct sdc_driver_segment segments[2] = {{pair.data_iova, 2}, {pair.data_iova, 2}};
        assert_int_equal(sdc_driver_queue_add(pair.driver, segments, 1, 1, &pair), 0);
        sdc_driver_queue_publish(pair.driver);
        use_packed(&pair, 0, cases[i].id, cases[i].written, USED_NOW | USED_WROTE);
        expect_broken(&pair, cases[i].why);
        use_packed(&pair, 0, 0, 2, USED_NOW | USED_WROTE);
        expect_broken(&pair, cases[i].why); // for good
        close_pair(&pair);
    }
}

static void used_descriptors_out_of_turn_are_nothing_or_an_error(void **state)
{
    struct pair pair;
    struct sdc_driver_used used[8];
    open_pair(&pair, 7, features_of(state, PLAIN), 0);
    struct sdc_driver_segment segments[3] = {{pair.data_iova, 2}, {pair.data_iova, 2}, {pair.data_iova, 2}};
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(sdc_driver_queue_add(pair.driver, segments, 1, 2, &pair.data[i]), 0);
    add_one(&pair);
    sdc_driver_queue_publish(pair.driver);
    use_packed(&pair, 3, 0, 0, USED_NOW); // at a place that has no turn
    take_back(&pair, 0);
    use_packed(&pair, 0, 0, 0, USED_LATER); // as of another lap
    take_back(&pair, 0);
    use_packed(&pair, 0, 1, 4, USED_NOW); // the length counts only if something was written
    assert_int_equal(sdc_driver_queue_take(pair.driver, used, 8), 2); // and then the one at 3
    assert_ptr_equal(used[0].token, &pair.data[1]);
    assert_int_equal(used[0].written, 0);
    assert_ptr_equal(used[1].token, &pair.data[0]);
    use_packed(&pair, 6, 1, 0, USED_NOW); // given back already
    expect_broken(&pair, "not in flight");
    close_pair(&pair);
}

// What the device asks for in its event suppression structure, when it says nonsense.
static void odd_wishes_for_notifications_are_granted(void **state)
{
    static const struct {
        uint16_t position;
        uint16_t flags;
        bool notified;
    } cases[] = {
        {0, 0, true},       // always
        {0, 1, false},      // never
        {0, 3, true},       // reserved
        {0x8000, 2, true},  // of the first entry of this lap
        {0x8001, 2, false}, // of the second one
        {0x8001, 0xfffe, false}, // reserved bits don't count
        {0, 2, false},           // of the lap before
        {0x7fff, 2, false},      // outside the ring
        {0xffff, 2, false},
    };
    for (size_t i = 0; i < SDC_COUNT(cases); i++) {
        struct pair pair;
        open_pair(&pair, 3, features_of(state, EVENTS), 0);
        uint8_t *event = pair.memory.base + (pair.driver->device - IOVA);
        sdc_put16(event, cases[i].position);
        sdc_put16(event + 2, cases[i].flags);
        add_one(&pair);
        assert_int_equal(sdc_driver_queue_publish(pair.driver), cases[i].notified);
        close_pair(&pair);
    }
}

// --- both at once ---

enum { REQUESTS = 60000, BATCH = 32 };

struct threads {
    struct pair pair;
    struct sdc_chain chains[BATCH];
    int kick;
    int call;
    unsigned kicks;
    unsigned calls;
    bool stuck;
};

static bool wait_on(int fd)
{
    if (sdc_wait_fd(fd, SDC_WAIT_INPUT, 10000) <= 0)
        return false;
    sdc_eventfd_take(fd);
    return true;
}

// A device that sleeps whenever it finds nothing, and gives the last one first.
static void *device_thread(void *context)
{
    struct threads *threads = context;
    struct pair *pair = &threads->pair;
    for (unsigned done = 0; done < REQUESTS;) {
        unsigned batch = 0;
        sdc_ring_suppress(&pair->ring);
        while (batch < BATCH && sdc_ring_take(&pair->ring, &threads->chains[batch]) == 1)
            batch++;
        done += batch;
        while (batch > 0)
            sdc_ring_give(&pair->ring, &threads->chains[--batch], 0);
        if (sdc_ring_publish(&pair->ring)) {
            sdc_eventfd_signal(threads->call);
            threads->calls++;
        }
        if (done < REQUESTS && !sdc_ring_rearm(&pair->ring) && !wait_on(threads->kick)) {
            threads->stuck = true;
            return NULL;
        }
    }
    return NULL;
}

// Adds what a depth that changes allows, so that both sides run dry at times.
static unsigned add_some(struct pair *pair, unsigned sent, unsigned done)
{
    unsigned size = pair->driver->config.size, depth = 1 + (done / 7) % 13;
    while (sent < REQUESTS && sent - done < depth) {
        struct sdc_driver_segment segments[3] = {
            {pair->data_iova, 1}, {pair->data_iova, 1}, {pair->data_iova, 1}};
        unsigned count = 1 + sent % (unsigned)sdc_min(3, size);
        int ret = sdc_driver_queue_add(pair->driver, segments, count, 0, pair);
        if (ret == -ENOSPC)
            break;
        assert_int_equal(ret, 0);
        sent++;
    }
    return sent;
}

static void run_threads(uint16_t size, uint64_t features)
{
    struct threads *threads = calloc(1, sizeof *threads);
    struct pair *pair = &threads->pair;
    pthread_t thread;
    threads->kick = sdc_eventfd_new(), threads->call = sdc_eventfd_new();
    for (unsigned i = 0; i < BATCH; i++)
        sdc_chain_init(&threads->chains[i]);
    open_pair(pair, size, features, 0);
    assert_int_equal(pthread_create(&thread, NULL, device_thread, threads), 0);
    unsigned sent = 0, done = 0;
    bool stuck = false;
    while (done < REQUESTS && !stuck) {
        struct sdc_driver_used used[BATCH];
        sent = add_some(pair, sent, done);
        if (sdc_driver_queue_publish(pair->driver)) {
            sdc_eventfd_signal(threads->kick);
            threads->kicks++;
        }
        int count = sdc_driver_queue_take(pair->driver, used, BATCH);
        assert_true(count >= 0);
        done += (unsigned)count;
        if (count == 0 && sdc_driver_queue_arm(pair->driver)) {
            stuck = !wait_on(threads->call);
            sdc_driver_queue_disarm(pair->driver);
        }
    }
    pthread_join(thread, NULL);
    assert_false(stuck);
    assert_false(threads->stuck);
    assert_int_equal(done, REQUESTS);
    if (size > 1)
        assert_true(threads->kicks < REQUESTS); // suppression works at all
    for (unsigned i = 0; i < BATCH; i++)
        sdc_chain_destroy(&threads->chains[i]);
    close_pair(pair);
    close(threads->kick), close(threads->call);
    free(threads);
}

static void nobody_sleeps_while_there_is_work(void **state)
{
    for (unsigned set = 0; set < 2; set++) {
        run_threads(1, features_of(state, set));
        run_threads(is_packed(state) ? 3 : 4, features_of(state, set));
        run_threads(32, features_of(state, set));
    }
}

#define SPLIT(test) {#test " (split)", test, NULL, NULL, &formats[0]}
#define PACKED(test) {#test " (packed)", test, NULL, NULL, &formats[1]}
#define BOTH(test) SPLIT(test), PACKED(test)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        BOTH(chains_of_every_shape_get_across),
        BOTH(a_full_ring_says_so_and_empties),
        BOTH(a_chain_longer_than_the_ring_is_refused),
        BOTH(bad_queue_sizes_are_refused),
        BOTH(the_device_is_notified_when_it_asked_and_once_a_batch),
        BOTH(the_driver_is_interrupted_when_it_asked),
        BOTH(any_order_and_any_size_will_do),
        BOTH(a_chain_goes_over_the_rings_end),
        BOTH(a_queue_that_was_restarted_is_as_new),
        SPLIT(a_split_device_that_breaks_the_rules_breaks_the_queue),
        SPLIT(a_split_chain_is_not_given_back_twice),
        PACKED(a_packed_device_that_breaks_the_rules_breaks_the_queue),
        PACKED(used_descriptors_out_of_turn_are_nothing_or_an_error),
        PACKED(odd_wishes_for_notifications_are_granted),
        BOTH(nobody_sleeps_while_there_is_work),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
