// SPDX-License-Identifier: BSD-3-Clause
// Get and Set Features: what each is at first, what it takes, what it refuses, and which command finds which status.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/bytes.h"
#include "device/nvme/features.h"
#include "device/nvme/identify.h"
#include "nvme_namespace_fixture.h"

static struct three_namespaces three;
static struct nvme_features features;
static struct nvme_features_of of;
static uint8_t data[NVME_FEATURE_DATA];
static uint32_t dw0, size;

static int set_up(void **state)
{
    (void)state;
    three_open(&three);
    of = (struct nvme_features_of){.features = &features, .namespaces = &three.all, .queue_pairs = 4, .vectors = 5, .now_ns = 7000000,
                                   .write_cache = true};
    nvme_features_reset(&of);
    memset(data, 0xee, sizeof data);
    return 0;
}

static int get(uint8_t id, uint8_t select, uint32_t nsid, uint32_t value)
{
    struct nvme_feature_request request = {.id = id, .select = select, .nsid = nsid, .value = value};

    return nvme_features_get(&of, &request, &dw0, data, &size);
}

static int set(uint8_t id, uint32_t nsid, uint32_t value)
{
    struct nvme_feature_request request = {.id = id, .nsid = nsid, .value = value};

    return nvme_features_set(&of, &request, data, &dw0);
}

static void each_feature_has_a_default_takes_a_value_and_forgets_it(void **state)
{
    // What is asked with, the default, what is set, what is found then.
    static const struct {
        uint8_t id;
        uint32_t nsid, part, preset, value, now;
    } rows[] = {
        {SDC_NVME_FEAT_ARBITRATION, 0, 0, 7, 0x01020303, 0x01020303},
        {SDC_NVME_FEAT_ARBITRATION, 0, 0, 7, 0xf9, 1},
        {SDC_NVME_FEAT_POWER, 0, 0, 0, 0x40, 0x40},
        {SDC_NVME_FEAT_TEMPERATURE, 0, 0, 343, 299, 299},
        {SDC_NVME_FEAT_TEMPERATURE, 0, 0, 343, 0xf0000 | 300, 300},          // every sensor
        {SDC_NVME_FEAT_TEMPERATURE, 0, 1 << 20, 0, 1 << 20 | 250, 250},      // under
        {SDC_NVME_FEAT_ERROR_RECOVERY, 2, 0, 0, 0x1234, 0x1234},
        {SDC_NVME_FEAT_WRITE_CACHE, 0, 0, 1, 0, 0},
        {SDC_NVME_FEAT_QUEUES, 0, 0, 0x30003, 0x00070007, 0x30003},          // more than there are,
        {SDC_NVME_FEAT_QUEUES, 0, 0, 0x30003, 0, 0x30003},                   // and fewer
        {SDC_NVME_FEAT_COALESCING, 0, 0, 0, 0x1234, 0x1234},
        {SDC_NVME_FEAT_VECTOR, 0, 3, 3, 0x10003, 0x10003},
        {SDC_NVME_FEAT_VECTOR, 0, 4, 4, 0x00004, 0x00004},
        {SDC_NVME_FEAT_ATOMICITY, 0, 0, 0, 1, 1},
        {SDC_NVME_FEAT_ASYNC_EVENTS, 0, 0, 0, 0x11f, 0x11f},
        {SDC_NVME_FEAT_KEEP_ALIVE, 0, 0, 0, 1500, 2000},
        {SDC_NVME_FEAT_KEEP_ALIVE, 0, 0, 0, 1000, 1000},
        {SDC_NVME_FEAT_KEEP_ALIVE, 0, 0, 0, 1, 1000},
    };

    for (unsigned i = 0; i < SDC_COUNT(rows); i++) {
        set_up(state);
        for (unsigned again = 0; again < 2; again++) {
            assert_int_equal(get(rows[i].id, NVME_SELECT_CURRENT, rows[i].nsid, rows[i].part), 0);
            assert_int_equal(dw0, rows[i].preset);
            assert_int_equal(size, 0);
            assert_int_equal(set(rows[i].id, rows[i].nsid, rows[i].value), 0);
            assert_int_equal(get(rows[i].id, NVME_SELECT_CURRENT, rows[i].nsid, rows[i].part), 0);
            assert_int_equal(dw0, rows[i].now);
            assert_int_equal(get(rows[i].id, NVME_SELECT_DEFAULT, rows[i].nsid, rows[i].part), 0);
            assert_int_equal(dw0, rows[i].preset);
            assert_int_equal(get(rows[i].id, NVME_SELECT_SAVED, rows[i].nsid, rows[i].part), 0);
            assert_int_equal(dw0, rows[i].preset);
            nvme_features_reset(&of);
        }
    }
}

static void capabilities_say_what_can_be_done(void **state)
{
    (void)state;
    for (unsigned id = 0; id < 256; id++) {
        uint32_t effects = nvme_feature_effects((uint8_t)id);
        uint32_t nsid = id == SDC_NVME_FEAT_ERROR_RECOVERY ? 1 : 0;
        int status = get((uint8_t)id, NVME_SELECT_CAPABILITIES, nsid, 0);
        assert_int_equal(status, effects ? 0 : SDC_NVME_SC_INVALID_FIELD);
        assert_int_equal(size, 0); // no data, whatever the feature
        if (!effects)
            continue;
        assert_int_equal(effects & 1, 1);
        assert_int_equal(dw0 & 1, 0);                      // saveable
        assert_int_equal(dw0 >> 1 & 1, effects >> 20 & 1); // of a namespace
        assert_int_equal(dw0 >> 2 & 1, 1);                 // changeable
        assert_int_equal((effects >> 20 & 1) + (effects >> 21 & 1), 1);
    }
}

// Base 2.0, figure "Feature Identifiers" for I/O controllers, and nvm 1.0's.
static void what_is_mandatory_is_there(void **state)
{
    static const uint8_t mandatory[] = {0x01, 0x02, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a, 0x0b};
    static const uint8_t absent[] = {0x00, 0x03, 0x0c, 0x0d, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x17, 0x18, 0x19, 0x78, 0x80, 0x81, 0x82,
                                     0x83, 0x84, 0xc0, 0xff};

    (void)state;
    for (unsigned i = 0; i < SDC_COUNT(mandatory); i++)
        assert_int_not_equal(nvme_feature_effects(mandatory[i]), 0);
    for (unsigned i = 0; i < SDC_COUNT(absent); i++) {
        assert_int_equal(nvme_feature_effects(absent[i]), 0);
        assert_int_equal(get(absent[i], 0, 0, 0), SDC_NVME_SC_INVALID_FIELD);
        assert_int_equal(set(absent[i], 0, 0), SDC_NVME_SC_INVALID_FIELD);
        assert_int_equal(nvme_feature_data(absent[i]), 0);
    }
}

static void mistakes_in_set_have_their_status_and_change_nothing(void **state)
{
    static const struct {
        uint8_t id;
        bool save;
        uint32_t nsid, value;
        int status;
    } rows[] = {
        {SDC_NVME_FEAT_WRITE_CACHE, true, 0, 0, SDC_NVME_SC_FEATURE_NOT_SAVEABLE},
        {SDC_NVME_FEAT_ERROR_RECOVERY, true, 1, 0, SDC_NVME_SC_FEATURE_NOT_SAVEABLE},
        {0x19, true, 0, 0, SDC_NVME_SC_INVALID_FIELD},
        {SDC_NVME_FEAT_WRITE_CACHE, false, 1, 0, SDC_NVME_SC_FEATURE_NOT_NS},
        {SDC_NVME_FEAT_WRITE_CACHE, false, 3, 0, SDC_NVME_SC_FEATURE_NOT_NS}, // valid, though not in use
        {SDC_NVME_FEAT_WRITE_CACHE, false, 257, 0, SDC_NVME_SC_INVALID_NS},
        {SDC_NVME_FEAT_ERROR_RECOVERY, false, 0, 0, SDC_NVME_SC_INVALID_NS},
        {SDC_NVME_FEAT_ERROR_RECOVERY, false, 3, 0, SDC_NVME_SC_INVALID_FIELD},
        {SDC_NVME_FEAT_ERROR_RECOVERY, false, 0xfffffffe, 0, SDC_NVME_SC_INVALID_NS},
        {SDC_NVME_FEAT_ERROR_RECOVERY, false, 1, 1 << 16, SDC_NVME_SC_INVALID_FIELD}, // no errors for deallocated blocks
        {SDC_NVME_FEAT_POWER, false, 0, 1, SDC_NVME_SC_INVALID_FIELD},
        {SDC_NVME_FEAT_POWER, false, 0, 31, SDC_NVME_SC_INVALID_FIELD},
        {SDC_NVME_FEAT_TEMPERATURE, false, 0, 0x10000, SDC_NVME_SC_INVALID_FIELD},  // sensor 1
        {SDC_NVME_FEAT_TEMPERATURE, false, 0, 0x80000, SDC_NVME_SC_INVALID_FIELD},  // sensor 8
        {SDC_NVME_FEAT_TEMPERATURE, false, 0, 0x200000, SDC_NVME_SC_INVALID_FIELD}, // neither over nor under
        {SDC_NVME_FEAT_QUEUES, false, 0, 0xffff, SDC_NVME_SC_INVALID_FIELD},
        {SDC_NVME_FEAT_QUEUES, false, 0, 0xffff0000, SDC_NVME_SC_INVALID_FIELD},
        {SDC_NVME_FEAT_VECTOR, false, 0, 5, SDC_NVME_SC_INVALID_FIELD},
        {SDC_NVME_FEAT_VECTOR, false, 0, 0x1ffff, SDC_NVME_SC_INVALID_FIELD},
        {SDC_NVME_FEAT_ASYNC_EVENTS, false, 0, 0x200, SDC_NVME_SC_INVALID_FIELD}, // firmware activation
        {SDC_NVME_FEAT_ASYNC_EVENTS, false, 0, 0x80000000, SDC_NVME_SC_INVALID_FIELD},
        {SDC_NVME_FEAT_KEEP_ALIVE, false, 0, 0xffffffff, SDC_NVME_SC_KEEP_ALIVE_INVALID},
    };
    struct nvme_features before;

    for (unsigned i = 0; i < SDC_COUNT(rows); i++) {
        struct nvme_feature_request request = {
            .id = rows[i].id, .save = rows[i].save, .nsid = rows[i].nsid, .value = rows[i].value};
        set_up(state);
        memcpy(&before, &features, sizeof before);
        int status = nvme_features_set(&of, &request, data, &dw0);
        if (status != rows[i].status)
            fail_msg("row %u, feature %02xh: status 0x%x, not 0x%x", i, rows[i].id, (unsigned)status, (unsigned)rows[i].status);
        assert_memory_equal(&before, &features, sizeof before);
        assert_int_equal(three.namespaces[0].error_recovery, 0);
    }
}

static void mistakes_in_get_have_their_status(void **state)
{
    static const struct {
        uint8_t id, select;
        uint32_t nsid, value;
        int status;
    } rows[] = {
        {SDC_NVME_FEAT_WRITE_CACHE, 4, 0, 0, SDC_NVME_SC_INVALID_FIELD},
        {SDC_NVME_FEAT_WRITE_CACHE, 7, 0, 0, SDC_NVME_SC_INVALID_FIELD},
        {SDC_NVME_FEAT_WRITE_CACHE, 0, 1, 0, SDC_NVME_SC_SUCCESS}, // an NSID that does not count
        {SDC_NVME_FEAT_ERROR_RECOVERY, 0, 0, 0, SDC_NVME_SC_INVALID_NS},
        {SDC_NVME_FEAT_ERROR_RECOVERY, 0, SDC_NVME_NSID_ALL, 0, SDC_NVME_SC_INVALID_NS},
        {SDC_NVME_FEAT_ERROR_RECOVERY, 0, 3, 0, SDC_NVME_SC_INVALID_FIELD},
        {SDC_NVME_FEAT_TEMPERATURE, 0, 0, 0x10000, SDC_NVME_SC_INVALID_FIELD},
        {SDC_NVME_FEAT_TEMPERATURE, 1, 0, 0x300000, SDC_NVME_SC_INVALID_FIELD},
        {SDC_NVME_FEAT_VECTOR, 0, 0, 5, SDC_NVME_SC_INVALID_FIELD},
        {SDC_NVME_FEAT_VECTOR, 1, 0, 0xffff, SDC_NVME_SC_INVALID_FIELD},
    };

    (void)state;
    for (unsigned i = 0; i < SDC_COUNT(rows); i++) {
        int status = get(rows[i].id, rows[i].select, rows[i].nsid, rows[i].value);
        if (status != rows[i].status)
            fail_msg("row %u, feature %02xh: status 0x%x, not 0x%x", i, rows[i].id, (unsigned)status, (unsigned)rows[i].status);
    }
}

static void error_recovery_is_each_namespaces_own_or_everybodys(void **state)
{
    (void)state;
    assert_int_equal(set(SDC_NVME_FEAT_ERROR_RECOVERY, SDC_NVME_NSID_ALL, 5), 0);
    assert_int_equal(set(SDC_NVME_FEAT_ERROR_RECOVERY, 2, 6), 0);
    assert_int_equal(three.namespaces[0].error_recovery, 5);
    assert_int_equal(three.namespaces[1].error_recovery, 6);
    assert_int_equal(three.namespaces[2].error_recovery, 5);
    nvme_features_reset(&of);
    assert_int_equal(three.namespaces[1].error_recovery, 0);
}

static void queues_are_asked_for_before_there_are_any(void **state)
{
    (void)state;
    assert_int_equal(set(SDC_NVME_FEAT_QUEUES, 0, 0x00010001), 0);
    assert_int_equal(dw0, 0x30003);
    of.queues_exist = true;
    assert_int_equal(set(SDC_NVME_FEAT_QUEUES, 0, 0x00010001), SDC_NVME_SC_SEQUENCE);
    assert_int_equal(get(SDC_NVME_FEAT_QUEUES, 0, 0, 0), 0);
    assert_int_equal(dw0, 0x30003);
}

static void a_vector_can_be_eager_without_the_others(void **state)
{
    (void)state;
    assert_int_equal(set(SDC_NVME_FEAT_VECTOR, 0, 0x10002), 0);
    for (uint32_t vector = 0; vector < 5; vector++)
        assert_int_equal(nvme_features_coalesce(&features, vector), vector != 2);
    assert_int_equal(set(SDC_NVME_FEAT_VECTOR, 0, 0x00002), 0);
    assert_true(nvme_features_coalesce(&features, 2));
}

static void the_default_of_the_cache_is_the_cards(void **state)
{
    (void)state;
    of.write_cache = false;
    nvme_features_reset(&of);
    assert_int_equal(get(SDC_NVME_FEAT_WRITE_CACHE, 0, 0, 0), 0);
    assert_int_equal(dw0, 0);
    assert_int_equal(set(SDC_NVME_FEAT_WRITE_CACHE, 0, 1), 0);
    assert_true(features.write_cache);
    assert_int_equal(get(SDC_NVME_FEAT_WRITE_CACHE, 1, 0, 0), 0);
    assert_int_equal(dw0, 0);
}

static void thresholds_decide_what_is_hot_and_cold(void **state)
{
    static const struct {
        uint32_t value;
        bool warns;
    } rows[] = {{301, false}, {300, true}, {1, true}, {0, true}, {1 << 20 | 299, false}, {1 << 20 | 300, true}, {1 << 20 | 400, true}};

    for (unsigned i = 0; i < SDC_COUNT(rows); i++) {
        set_up(state);
        assert_false(nvme_features_hot_or_cold(&features));
        assert_int_equal(set(SDC_NVME_FEAT_TEMPERATURE, 0, rows[i].value), 0);
        assert_int_equal(nvme_features_hot_or_cold(&features), rows[i].warns);
    }
}

static void the_timestamp_goes_on_from_what_was_set(void **state)
{
    (void)state;
    assert_int_equal(nvme_feature_data(SDC_NVME_FEAT_TIMESTAMP), 8);
    of.now_ns += UINT64_C(3000000); // since the reset
    assert_int_equal(get(SDC_NVME_FEAT_TIMESTAMP, 0, 0, 0), 0);
    assert_int_equal(size, 8);
    assert_int_equal(sdc_get64(data), 3); // origin 0: cleared by the reset
    sdc_put64(data, UINT64_C(0xffff123456789abc));
    assert_int_equal(set(SDC_NVME_FEAT_TIMESTAMP, 0, 0), 0);
    of.now_ns += UINT64_C(4000000);
    assert_int_equal(get(SDC_NVME_FEAT_TIMESTAMP, 0, 0, 0), 0);
    assert_int_equal(sdc_get64(data), UINT64_C(0x0002123456789abc) + 4);
    assert_int_equal(get(SDC_NVME_FEAT_TIMESTAMP, 1, 0, 0), 0);
    assert_int_equal(sdc_get64(data), 0);
    // It wraps where its 48 bits end.
    sdc_put64(data, (UINT64_C(1) << 48) - 1);
    assert_int_equal(set(SDC_NVME_FEAT_TIMESTAMP, 0, 0), 0);
    of.now_ns += UINT64_C(2000000);
    assert_int_equal(get(SDC_NVME_FEAT_TIMESTAMP, 0, 0, 0), 0);
    assert_int_equal(sdc_get64(data), UINT64_C(0x0002000000000001));
}

static void host_behavior_is_what_this_controller_knows_of(void **state)
{
    static const struct {
        unsigned byte;
        uint8_t value;
        int status;
    } rows[] = {{0, 1, 0}, {0, 2, SDC_NVME_SC_INVALID_FIELD}, {1, 1, SDC_NVME_SC_INVALID_FIELD}, {2, 1, SDC_NVME_SC_INVALID_FIELD}};

    for (unsigned i = 0; i < SDC_COUNT(rows); i++) {
        set_up(state);
        memset(data, 0, sizeof data);
        data[rows[i].byte] = rows[i].value;
        assert_int_equal(nvme_feature_data(SDC_NVME_FEAT_HOST_BEHAVIOR), 512);
        assert_int_equal(set(SDC_NVME_FEAT_HOST_BEHAVIOR, 0, 0), rows[i].status);
        memset(data, 0xee, sizeof data);
        assert_int_equal(get(SDC_NVME_FEAT_HOST_BEHAVIOR, 0, 0, 0), 0);
        assert_int_equal(size, 512);
        assert_int_equal(data[0], rows[i].status == 0);
        for (unsigned k = 1; k < 512; k++)
            assert_int_equal(data[k], 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(each_feature_has_a_default_takes_a_value_and_forgets_it, set_up),
        cmocka_unit_test_setup(capabilities_say_what_can_be_done, set_up),
        cmocka_unit_test_setup(what_is_mandatory_is_there, set_up),
        cmocka_unit_test_setup(mistakes_in_set_have_their_status_and_change_nothing, set_up),
        cmocka_unit_test_setup(mistakes_in_get_have_their_status, set_up),
        cmocka_unit_test_setup(error_recovery_is_each_namespaces_own_or_everybodys, set_up),
        cmocka_unit_test_setup(queues_are_asked_for_before_there_are_any, set_up),
        cmocka_unit_test_setup(a_vector_can_be_eager_without_the_others, set_up),
        cmocka_unit_test_setup(the_default_of_the_cache_is_the_cards, set_up),
        cmocka_unit_test_setup(thresholds_decide_what_is_hot_and_cold, set_up),
        cmocka_unit_test_setup(the_timestamp_goes_on_from_what_was_set, set_up),
        cmocka_unit_test_setup(host_behavior_is_what_this_controller_knows_of, set_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
