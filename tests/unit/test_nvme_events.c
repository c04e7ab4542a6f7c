// SPDX-License-Identifier: BSD-3-Clause
// Asynchronous events: who is told of what, in which order, what is masked until its log page is read, and what an abort ends.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "device/nvme/command.h"
#include "device/nvme/events.h"

#include <string.h>

enum {
    COMMANDS = 8,
    EVERYTHING = 0x1ff,
    DOORBELL = SDC_NVME_EVENT_ERROR | SDC_NVME_LOG_ERROR << 16,
    DOORBELL_VALUE = SDC_NVME_EVENT_ERROR | 1 << 8 | SDC_NVME_LOG_ERROR << 16,
    HEAT = SDC_NVME_EVENT_SMART | 1 << 8 | SDC_NVME_LOG_SMART << 16,
    NAMESPACES = SDC_NVME_EVENT_NOTICE | SDC_NVME_LOG_CHANGED_NS << 16,
    WAITS = 0xffff,
};

static struct nvme_events events;
static struct nvme_features features;
static struct nvme_command commands[COMMANDS];
static unsigned told; // how many requests were answered after they had waited

// Instead of queue.c's.
void __wrap_nvme_complete(struct nvme_command *command, uint16_t status, uint32_t dw0);
void __wrap_nvme_complete(struct nvme_command *command, uint16_t status, uint32_t dw0)
{
    assert_int_equal(command->status, WAITS);
    command->status = status;
    command->dw0 = dw0;
    told++;
}

static int set_up(void **state)
{
    (void)state;
    nvme_events_reset(&events);
    memset(&features, 0, sizeof features);
    features.events = EVERYTHING;
    memset(commands, 0, sizeof commands);
    told = 0;
    for (unsigned i = 0; i < COMMANDS; i++)
        sdc_put16(commands[i].sqe + SDC_NVME_SQE_CID, (uint16_t)(100 + i));
    return 0;
}

static int ask(unsigned i)
{
    commands[i].status = WAITS;
    return nvme_events_ask(&events, &commands[i]);
}

static void raise(enum nvme_event event)
{
    nvme_events_raise(&events, &features, event);
}

static void expect_told(unsigned i, uint32_t dw0)
{
    assert_int_equal(commands[i].status, SDC_NVME_SC_SUCCESS);
    assert_int_equal(commands[i].dw0, dw0);
}

static void each_event_says_what_it_is_and_where_more_is_said(void **state)
{
    static const struct {
        enum nvme_event event;
        uint32_t dw0;
    } rows[] = {{NVME_EVENT_BAD_DOORBELL, DOORBELL}, {NVME_EVENT_BAD_DOORBELL_VALUE, DOORBELL_VALUE}, {NVME_EVENT_TEMPERATURE, HEAT},
                {NVME_EVENT_NS_CHANGED, NAMESPACES}};

    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        set_up(state);
        assert_int_equal(ask(0), NVME_HELD);
        raise(rows[i].event);
        expect_told(0, rows[i].dw0);
    }
}

static void an_event_waits_for_who_asks(void **state)
{
    (void)state;
    raise(NVME_EVENT_NS_CHANGED);
    raise(NVME_EVENT_NS_CHANGED); // once
    assert_int_equal(ask(0), SDC_NVME_SC_SUCCESS);
    assert_int_equal(commands[0].dw0, NAMESPACES);
    assert_int_equal(told, 0);
    assert_int_equal(ask(1), NVME_HELD);
    assert_int_equal(commands[1].status, WAITS);
}

static void a_kind_is_masked_until_its_page_is_read(void **state)
{
    (void)state;
    assert_int_equal(ask(0), NVME_HELD);
    assert_int_equal(ask(1), NVME_HELD);
    assert_int_equal(ask(2), NVME_HELD);
    raise(NVME_EVENT_BAD_DOORBELL);
    raise(NVME_EVENT_BAD_DOORBELL_VALUE); // of the same kind
    assert_int_equal(told, 1);
    raise(NVME_EVENT_NS_CHANGED); // of another
    expect_told(1, NAMESPACES);
    nvme_events_log_read(&events, SDC_NVME_LOG_SMART);
    assert_int_equal(told, 2);
    // What was raised before the page was read is in the page.
    nvme_events_log_read(&events, SDC_NVME_LOG_ERROR);
    assert_int_equal(told, 2);
    raise(NVME_EVENT_BAD_DOORBELL_VALUE);
    expect_told(2, DOORBELL_VALUE);
}

static void the_oldest_request_is_answered_first(void **state)
{
    (void)state;
    for (unsigned i = 0; i < NVME_ASYNC_LIMIT; i++)
        assert_int_equal(ask(i), NVME_HELD);
    raise(NVME_EVENT_NS_CHANGED);
    raise(NVME_EVENT_BAD_DOORBELL);
    expect_told(0, NAMESPACES);
    expect_told(1, DOORBELL);
    assert_int_equal(commands[2].status, WAITS);
}

static void as_many_wait_as_the_limit_allows(void **state)
{
    (void)state;
    for (unsigned i = 0; i < NVME_ASYNC_LIMIT; i++)
        assert_int_equal(ask(i), NVME_HELD);
    assert_int_equal(ask(NVME_ASYNC_LIMIT), SDC_NVME_SC_AER_LIMIT);
    raise(NVME_EVENT_NS_CHANGED);
    assert_int_equal(ask(NVME_ASYNC_LIMIT), NVME_HELD);
}

static void what_the_driver_does_not_want_is_not_told(void **state)
{
    static const struct {
        uint32_t wanted;
        enum nvme_event event;
        unsigned told;
    } rows[] = {
        {0, NVME_EVENT_NS_CHANGED, 0}, {0x100, NVME_EVENT_NS_CHANGED, 1}, {0xff, NVME_EVENT_NS_CHANGED, 0},
        {0, NVME_EVENT_TEMPERATURE, 0}, {2, NVME_EVENT_TEMPERATURE, 1}, {0x1fd, NVME_EVENT_TEMPERATURE, 0},
        {0, NVME_EVENT_BAD_DOORBELL, 1}, {0, NVME_EVENT_BAD_DOORBELL_VALUE, 1}, // nobody is asked
    };

    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        set_up(state);
        features.events = rows[i].wanted;
        assert_int_equal(ask(0), NVME_HELD);
        raise(rows[i].event);
        assert_int_equal(told, rows[i].told);
    }
}

static void an_abort_ends_the_one_it_names(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(ask(i), NVME_HELD);
    assert_false(nvme_events_abort(&events, 99));
    assert_false(nvme_events_abort(&events, 103));
    assert_true(nvme_events_abort(&events, 101));
    assert_int_equal(commands[1].status, SDC_NVME_SC_ABORTED);
    assert_false(nvme_events_abort(&events, 101));
    raise(NVME_EVENT_NS_CHANGED);
    raise(NVME_EVENT_BAD_DOORBELL);
    expect_told(0, NAMESPACES);
    expect_told(2, DOORBELL);
}

static void a_reset_forgets_everything(void **state)
{
    (void)state;
    assert_int_equal(ask(0), NVME_HELD);
    raise(NVME_EVENT_NS_CHANGED);
    raise(NVME_EVENT_NS_CHANGED);
    assert_int_equal(ask(1), NVME_HELD);
    nvme_events_reset(&events);
    raise(NVME_EVENT_NS_CHANGED);
    assert_int_equal(commands[1].status, WAITS); // it is not there any more
    assert_int_equal(ask(2), SDC_NVME_SC_SUCCESS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(each_event_says_what_it_is_and_where_more_is_said, set_up),
        cmocka_unit_test_setup(an_event_waits_for_who_asks, set_up),
        cmocka_unit_test_setup(a_kind_is_masked_until_its_page_is_read, set_up),
        cmocka_unit_test_setup(the_oldest_request_is_answered_first, set_up),
        cmocka_unit_test_setup(as_many_wait_as_the_limit_allows, set_up),
        cmocka_unit_test_setup(what_the_driver_does_not_want_is_not_told, set_up),
        cmocka_unit_test_setup(an_abort_ends_the_one_it_names, set_up),
        cmocka_unit_test_setup(a_reset_forgets_everything, set_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
