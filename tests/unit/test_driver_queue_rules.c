// SPDX-License-Identifier: BSD-3-Clause
// The driver's half of a virtqueue against a device that breaks the rules, or uses all the freedom that they give it.
#include "queue_fixture.h"

#include "base/bytes.h"
#include "base/check.h"

#include <errno.h>
#include <string.h>

// Writes a used element and index as a device would, whatever they are.
static void use_split(struct pair *pair, uint16_t index, uint32_t id, uint32_t written)
{
    uint8_t *used = pair->memory.base + (pair->driver->device - PAIR_IOVA);
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
    uint8_t *ring = pair.memory.base + (pair.driver->device - PAIR_IOVA);
    sdc_put32(ring + 4 + 8, 0);
    sdc_put16(ring + 2, 2);
    expect_broken(&pair, "not in flight");
    close_pair(&pair);
}

// 2.7.9: an element names the last chain of a batch. Here the chains have two descriptors each: their heads are 0, 2, 4, 6.
static void a_split_batch_is_what_its_element_says_or_an_error(void **state)
{
    static const struct {
        uint16_t index;
        uint32_t id;
        uint32_t written;
        unsigned chains; // 0: an error
        const char *why;
    } cases[] = {
        {1, 0, 1, 1, NULL},
        {3, 4, 1, 3, NULL},
        {4, 6, 0, 4, NULL},
        {4, 2, 2, 2, NULL}, // and then another batch, which is not there: see below
        {1, 2, 0, 0, "not due"}, // more chains than the index says
        {3, 6, 0, 0, "not due"},
        {3, 3, 0, 0, "not in flight"},
        {3, 8, 0, 0, "not in flight"},
        {3, 4, 3, 0, "more than the chain has room"},
        {5, 6, 0, 0, "ahead"},
    };
    for (size_t i = 0; i < SDC_COUNT(cases); i++) {
        struct pair pair;
        struct sdc_driver_used used[8];
        open_pair(&pair, 8, features_of(state, ORDER), 0);
        struct sdc_driver_segment segments[2] = {{pair.data_iova, 2}, {pair.data_iova, 2}};
        for (unsigned n = 0; n < 4; n++)
            assert_int_equal(sdc_driver_queue_add(pair.driver, segments, 1, 1, &pair.data[n]), 0);
        sdc_driver_queue_publish(pair.driver);
        use_split(&pair, cases[i].index, cases[i].id, cases[i].written);
        if (cases[i].chains == 0) {
            expect_broken(&pair, cases[i].why);
        } else {
            unsigned step = i % 2 ? 1 : 8; // a batch may be taken in pieces
            for (unsigned n = 0; n < cases[i].chains; n += step) {
                unsigned count = (unsigned)sdc_min(step, cases[i].chains - n);
                assert_int_equal(sdc_driver_queue_take(pair.driver, used + n, count), count);
            }
            for (unsigned n = 0; n < cases[i].chains; n++) {
                assert_ptr_equal(used[n].token, &pair.data[n]);
                assert_int_equal(used[n].written, n + 1 < cases[i].chains ? 2 : cases[i].written);
            }
            assert_int_equal(pair.driver->in_flight, 4 - cases[i].chains);
            if (cases[i].index > cases[i].chains)
                expect_broken(&pair, "not in flight"); // the element behind is empty: it names chain 0, which came back
        }
        close_pair(&pair);
    }
}

enum { USED_NOW = 0x8080, USED_LATER = 0, USED_WROTE = 2 }; // flags of the first lap and of the next one

// Writes a used descriptor at a place in the ring as a device would, whatever it is.
static void use_packed(struct pair *pair, unsigned at, uint16_t id, uint32_t written, uint16_t flags)
{
    uint8_t *desc = pair->memory.base + (pair->driver->desc - PAIR_IOVA) + 16 * (size_t)at;
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

// 2.8.8: likewise. The chains have two entries each and the ids 0, 1, 2; the driver goes on behind all the entries of a batch.
static void a_packed_batch_is_what_its_descriptor_says_or_an_error(void **state)
{
    for (uint16_t last = 0; last < 5; last++) {
        struct pair pair;
        struct sdc_driver_used used[8];
        open_pair(&pair, 7, features_of(state, ORDER), 0);
        struct sdc_driver_segment segments[2] = {{pair.data_iova, 2}, {pair.data_iova, 2}};
        for (unsigned n = 0; n < 3; n++)
            assert_int_equal(sdc_driver_queue_add(pair.driver, segments, 1, 1, &pair.data[n]), 0);
        sdc_driver_queue_publish(pair.driver);
        use_packed(&pair, 0, last, last == 4 ? 3 : 1, USED_NOW | USED_WROTE);
        if (last > 2) {
            expect_broken(&pair, "not in flight");
            close_pair(&pair);
            continue;
        }
        assert_int_equal(sdc_driver_queue_take(pair.driver, used, 1), 1);
        assert_int_equal(sdc_driver_queue_arm(pair.driver), last == 0); // the rest of a batch is there to be taken
        assert_int_equal(sdc_driver_queue_take(pair.driver, used + 1, 8), last);
        for (unsigned n = 0; n <= last; n++) {
            assert_ptr_equal(used[n].token, &pair.data[n]);
            assert_int_equal(used[n].written, n < last ? 2 : 1);
        }
        take_back(&pair, 0);
        if (last < 2) {
            use_packed(&pair, 2u * last + 2, 2, 0, USED_NOW);
            assert_int_equal(sdc_driver_queue_take(pair.driver, used, 8), 2 - last);
        }
        assert_int_equal(pair.driver->in_flight, 0);
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
        uint8_t *event = pair.memory.base + (pair.driver->device - PAIR_IOVA);
        sdc_put16(event, cases[i].position);
        sdc_put16(event + 2, cases[i].flags);
        add_one(&pair);
        assert_int_equal(sdc_driver_queue_publish(pair.driver), cases[i].notified);
        close_pair(&pair);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        SPLIT(a_split_device_that_breaks_the_rules_breaks_the_queue),
        SPLIT(a_split_chain_is_not_given_back_twice),
        SPLIT(a_split_batch_is_what_its_element_says_or_an_error),
        PACKED(a_packed_device_that_breaks_the_rules_breaks_the_queue),
        PACKED(a_packed_batch_is_what_its_descriptor_says_or_an_error),
        PACKED(used_descriptors_out_of_turn_are_nothing_or_an_error),
        PACKED(odd_wishes_for_notifications_are_granted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
