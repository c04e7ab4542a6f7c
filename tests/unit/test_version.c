// SPDX-License-Identifier: BSD-3-Clause
// The JSON of a VERSION message: what is taken, what is refused and why, and what we say.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/limits.h"
#include "wire/vfio_user_version.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CAPABILITIES(inside) "{\"capabilities\":{" inside "}}"

static void good_json_is_taken(void **state)
{
    static const struct {
        const char *json;
        uint64_t fds, transfer, maps, sizes;
        bool multiple, twin;
    } cases[] = {
        {"{}", 1, 1048576, 65535, 4096, false, false},
        {CAPABILITIES(""), 1, 1048576, 65535, 4096, false, false},
        {CAPABILITIES("\"max_msg_fds\":8,\"max_data_xfer_size\":65536,\"max_dma_maps\":1,\"pgsizes\":4198400,\"write_multiple\":true"),
         8, 65536, 1, 4198400, true, false},
        {CAPABILITIES("\"max_msg_fds\":4294967295"), UINT32_MAX, 1048576, 65535, 4096, false, false},
        {CAPABILITIES("\"max_data_xfer_size\":1"), 1, 1, 65535, 4096, false, false},
        {CAPABILITIES("\"write_multiple\":false"), 1, 1048576, 65535, 4096, false, false},
        {CAPABILITIES("\"twin_socket\":{\"supported\":true}"), 1, 1048576, 65535, 4096, false, true},
        {CAPABILITIES("\"migration\":{\"pgsize\":4096},\"later\":[1,2.5,null,\"[[[[[[[[[[[[[[[[[[\"]"), 1, 1048576, 65535, 4096, false,
         false},
        {"{\"other\":{},\"capabilities\":{}}", 1, 1048576, 65535, 4096, false, false},
        {"  {\n}\t", 1, 1048576, 65535, 4096, false, false},
        {"{\"a\":[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]}", 1, 1048576, 65535, 4096, false, false}, // 16 deep
        {"{\"\\\"[[[[[[[[[[[[[[[[[[[[\":\"\\\\\"}", 1, 1048576, 65535, 4096, false, false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct sdc_vfu_capabilities said;
        struct sdc_error err = {0};
        assert_int_equal(sdc_vfu_capabilities_parse(cases[i].json, strlen(cases[i].json) + 1, &said, &err), 0);
        assert_int_equal(said.max_msg_fds, cases[i].fds);
        assert_int_equal(said.max_data_xfer_size, cases[i].transfer);
        assert_int_equal(said.max_dma_maps, cases[i].maps);
        assert_int_equal(said.pgsizes, cases[i].sizes);
        assert_int_equal(said.write_multiple, cases[i].multiple);
        assert_int_equal(said.has_twin_socket, cases[i].twin);
    }
}

static void what_was_not_said_is_known(void **state)
{
    struct sdc_vfu_capabilities said;
    const char *json = CAPABILITIES("\"pgsizes\":4096");

    (void)state;
    assert_int_equal(sdc_vfu_capabilities_parse(json, strlen(json) + 1, &said, NULL), 0);
    assert_true(said.has_pgsizes);
    assert_false(said.has_max_msg_fds || said.has_max_data_xfer_size || said.has_max_dma_maps || said.has_write_multiple);
    assert_int_equal(sdc_vfu_capabilities_parse("", 0, &said, NULL), 0);
    assert_false(said.has_pgsizes);
}

static void bad_json_is_refused_with_its_reason(void **state)
{
    static const struct {
        const char *json;
        const char *why; // a part of the text
    } cases[] = {
        {"", "bad JSON"},
        {"{", "bad JSON"},
        {"{}x", "bad JSON"},
        {"[]", "not an object"},
        {"17", "bad JSON"},
        {"{\"capabilities\":7}", "capabilities"},
        {"{\"capabilities\":[]}", "capabilities"},
        {CAPABILITIES("\"max_msg_fds\":0"), "max_msg_fds"},
        {CAPABILITIES("\"max_msg_fds\":-1"), "max_msg_fds"},
        {CAPABILITIES("\"max_msg_fds\":4294967296"), "max_msg_fds"},
        {CAPABILITIES("\"max_msg_fds\":\"8\""), "max_msg_fds"},
        {CAPABILITIES("\"max_msg_fds\":8.0"), "max_msg_fds"},
        {CAPABILITIES("\"max_msg_fds\":null"), "max_msg_fds"},
        {CAPABILITIES("\"max_data_xfer_size\":0"), "max_data_xfer_size"},
        {CAPABILITIES("\"max_dma_maps\":0"), "max_dma_maps"},
        {CAPABILITIES("\"pgsizes\":512"), "pgsizes"},
        {CAPABILITIES("\"pgsizes\":18446744073709551616"), "bad JSON"},
        {CAPABILITIES("\"write_multiple\":1"), "write_multiple"},
        {CAPABILITIES("\"twin_socket\":true"), "twin_socket"},
        {CAPABILITIES("\"max_msg_fds\":1,\"max_msg_fds\":1"), "bad JSON"},
        {"{\"capabilities\":{},\"capabilities\":{}}", "bad JSON"},
        {"{\"a\":[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]}", "nested deeper than 16"},
        {"{\"a\":\"\xff\"}", "bad JSON"},
        {"{\"a\":\"\\u0000\"}", "bad JSON"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct sdc_vfu_capabilities said;
        struct sdc_error err = {0};
        assert_int_equal(sdc_vfu_capabilities_parse(cases[i].json, strlen(cases[i].json) + 1, &said, &err), -EINVAL);
        assert_int_equal(err.fault, SDC_FAULT_PEER);
        if (!strstr(err.text, cases[i].why))
            fail_msg("%s: refused as: %s", cases[i].json, err.text);
    }
}

static void the_nul_is_at_the_end_and_nowhere_else(void **state)
{
    static const struct {
        const char *bytes;
        size_t size;
    } cases[] = {{"{}", 2}, {"{}\0", 4}, {"{\0}", 4}, {"\0{}", 4}};
    struct sdc_vfu_capabilities said;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(sdc_vfu_capabilities_parse(cases[i].bytes, cases[i].size, &said, NULL), -EINVAL);
}

static void depth_and_length_are_bounded(void **state)
{
    enum { DEEP = 100000 };
    char *json = malloc(DEEP + 1);
    struct sdc_vfu_capabilities said;
    struct sdc_error err;

    (void)state;
    memset(json, '[', DEEP);
    json[DEEP] = '\0';
    assert_int_equal(sdc_vfu_capabilities_parse(json, DEEP + 1, &said, &err), -EINVAL);
    json[SDC_LIMIT_VERSION_JSON - 1] = '\0';
    assert_int_equal(sdc_vfu_capabilities_parse(json, SDC_LIMIT_VERSION_JSON, &said, &err), -EINVAL);
    assert_non_null(strstr(err.text, "nested"));

    // As long as may be, and one byte longer.
    memset(json, ' ', DEEP);
    memcpy(json, "{}", 2);
    json[SDC_LIMIT_VERSION_JSON - 1] = '\0';
    assert_int_equal(sdc_vfu_capabilities_parse(json, SDC_LIMIT_VERSION_JSON, &said, &err), 0);
    json[SDC_LIMIT_VERSION_JSON - 1] = ' ';
    json[SDC_LIMIT_VERSION_JSON] = '\0';
    assert_int_equal(sdc_vfu_capabilities_parse(json, SDC_LIMIT_VERSION_JSON + 1, &said, &err), -EINVAL);
    free(json);
}

static void what_is_printed_is_what_was_set(void **state)
{
    static const struct {
        struct sdc_vfu_capabilities caps;
        const char *json;
    } cases[] = {
        {{0}, "{\"capabilities\":{}}"},
        {{.has_pgsizes = true, .pgsizes = 4096}, "{\"capabilities\":{\"pgsizes\":4096}}"},
        {{.has_max_msg_fds = true, .max_msg_fds = 16, .has_write_multiple = true},
         "{\"capabilities\":{\"max_msg_fds\":16,\"write_multiple\":false}}"},
        {{.has_write_multiple = true, .write_multiple = true}, "{\"capabilities\":{\"write_multiple\":true}}"},
    };
    char json[256];

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int length = (int)strlen(cases[i].json) + 1;
        assert_int_equal(sdc_vfu_capabilities_print(&cases[i].caps, json, sizeof json), length);
        assert_string_equal(json, cases[i].json);
        for (int size = 0; size < length; size++)
            assert_int_equal(sdc_vfu_capabilities_print(&cases[i].caps, json, (size_t)size), -ENOSPC);
        assert_int_equal(sdc_vfu_capabilities_print(&cases[i].caps, json, (size_t)length), length);
    }
}

// QEMU takes no reply longer than that.
static void our_longest_answer_fits(void **state)
{
    struct sdc_vfu_capabilities ours = {
        .has_max_msg_fds = true, .has_max_data_xfer_size = true, .has_max_dma_maps = true, .has_pgsizes = true,
        .has_write_multiple = true, .max_msg_fds = SDC_LIMIT_MESSAGE_FDS, .max_data_xfer_size = SDC_LIMIT_DATA_XFER,
        .max_dma_maps = SDC_LIMIT_DMA_REGIONS, .pgsizes = 4096};
    char json[SDC_LIMIT_VERSION_REPLY_JSON];

    (void)state;
    assert_true(sdc_vfu_capabilities_print(&ours, json, sizeof json) > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_json_is_taken),
        cmocka_unit_test(what_was_not_said_is_known),
        cmocka_unit_test(bad_json_is_refused_with_its_reason),
        cmocka_unit_test(the_nul_is_at_the_end_and_nowhere_else),
        cmocka_unit_test(depth_and_length_are_bounded),
        cmocka_unit_test(what_is_printed_is_what_was_set),
        cmocka_unit_test(our_longest_answer_fits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
