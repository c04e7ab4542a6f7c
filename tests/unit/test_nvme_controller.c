// SPDX-License-Identifier: BSD-3-Clause
// The life of a controller: registers, enabling, resets and shutdown with I/O in flight.
#include "nvme_fixture.h"

#include <errno.h>

enum { RDY = SDC_NVME_CSTS_RDY, CFS = SDC_NVME_CSTS_CFS };

// --- registers ---

static void registers_say_what_the_controller_is(void **state)
{
    static const struct {
        uint64_t offset;
        uint32_t size;
        uint64_t value;
    } cases[] = {
        {SDC_NVME_CAP, 8, UINT64_C(0x0800003000000000) | UINT64_C(60) << 24 | 1 << 16 | (NF_DEPTH - 1)},
        {SDC_NVME_CAP, 4, 60 << 24 | 1 << 16 | (NF_DEPTH - 1)},
        {SDC_NVME_CAP + 4, 4, 0x08000030},
        {SDC_NVME_CAP, 2, NF_DEPTH - 1},
        {SDC_NVME_CAP + 3, 1, 60},
        {SDC_NVME_VS, 4, 0x20000},
        {SDC_NVME_CSTS, 4, 0},
        {SDC_NVME_NSSR, 4, 0},
        {SDC_NVME_CMBSZ, 4, 0},
        {SDC_NVME_CRTO, 4, 60},
        {0x70, 8, 0},
        {SDC_NVME_DOORBELLS, 4, 0},
        {0x3ff8, 8, 0},
    };

    (void)state;
    nf_open_card();
    for (size_t i = 0; i < SDC_COUNT(cases); i++)
        assert_int_equal(nf_get(cases[i].offset, cases[i].size), cases[i].value);
    nf_close_card();
}

static void registers_keep_what_may_be_written(void **state)
{
    static const struct {
        uint64_t offset;
        uint32_t size;
        uint64_t write, read;
    } steps[] = {
        {SDC_NVME_CAP, 8, UINT64_MAX, UINT64_C(0x0800003000000000) | UINT64_C(60) << 24 | 1 << 16 | (NF_DEPTH - 1)},
        {SDC_NVME_VS, 4, 0, 0x20000},
        {SDC_NVME_AQA, 4, UINT32_MAX, 0x0fff0fff},
        {SDC_NVME_ASQ, 8, UINT64_C(0x123456789abcdfff), UINT64_C(0x123456789abcd000)},
        {SDC_NVME_ACQ, 4, 0x12345678, 0x12345000},
        {SDC_NVME_ACQ + 4, 4, 7, 7},
        {SDC_NVME_ACQ, 8, UINT64_C(0x0000000700001000), UINT64_C(0x0000000700001000)},
        {SDC_NVME_INTMS, 4, 5, 5},
        {SDC_NVME_INTMC, 4, 4, 1},
        {SDC_NVME_AQA, 2, 0, 0x0fff}, // half a register is not written
        {SDC_NVME_CSTS, 4, UINT32_MAX, 0},
        {SDC_NVME_CC, 4, 0xfffffffe, 0x00fffff0},
    };

    (void)state;
    nf_open_card();
    for (size_t i = 0; i < SDC_COUNT(steps); i++) {
        nf_set(steps[i].offset, steps[i].size, steps[i].write);
        assert_int_equal(nf_get(steps[i].offset, steps[i].size), steps[i].read);
    }
    nf_close_card();
}

// --- enabling ---

static void a_controller_that_cannot_start_fails_and_recovers(void **state)
{
    static const struct {
        uint32_t cc, aqa;
        uint64_t asq, acq;
    } cases[] = {
        {1 << SDC_NVME_CC_CSS, 0x1f001f, NF_ASQ, NF_ACQ},
        {6 << SDC_NVME_CC_CSS, 0x1f001f, NF_ASQ, NF_ACQ},
        {1 << SDC_NVME_CC_MPS, 0x1f001f, NF_ASQ, NF_ACQ},
        {1 << SDC_NVME_CC_AMS, 0x1f001f, NF_ASQ, NF_ACQ},
        {0, 0x1f0000, NF_ASQ, NF_ACQ},
        {0, 0x00001f, NF_ASQ, NF_ACQ},
        {0, 0, NF_ASQ, NF_ACQ},
        {0, 0x1f001f, 0x10000, NF_ACQ},
        {0, 0x1f001f, NF_ASQ, 0x10000},
        {0, 0x1f001f, UINT64_C(0xfffffffffffff000), NF_ACQ},
        {0, 0x0fff001f, NF_ASQ, 0x1000}, // 4096 completions: longer than what there is
        {0, 0x001f0fff, NF_ASQ, NF_ACQ},
    };

    (void)state;
    nf_open_card();
    for (size_t i = 0; i < SDC_COUNT(cases); i++) {
        nf_set(SDC_NVME_AQA, 4, cases[i].aqa);
        nf_set(SDC_NVME_ASQ, 8, cases[i].asq);
        nf_set(SDC_NVME_ACQ, 8, cases[i].acq);
        nf_set(SDC_NVME_CC, 4, nf_good_cc() | cases[i].cc);
        assert_int_equal(nf_csts(), CFS);
        nf_set(SDC_NVME_CC, 4, nf_good_cc() | cases[i].cc); // again: nothing changes
        assert_int_equal(nf_csts(), CFS);
        nf_set(SDC_NVME_CC, 4, 0);
        assert_int_equal(nf_csts(), 0);
        nf_enable();
        assert_int_equal(nf_csts(), RDY);
        assert_int_equal(nf_admin(SDC_NVME_ADMIN_IDENTIFY, NF_DATA, SDC_NVME_CNS_CONTROLLER, 0), 0);
        nf_set(SDC_NVME_CC, 4, 0);
        assert_int_equal(nf_csts(), 0);
    }
    nf_close_card();
}

static void a_reset_by_enable_keeps_the_admin_queues_registers(void **state)
{
    (void)state;
    nf_open_card();
    nf_enable();
    nf_set(SDC_NVME_INTMS, 4, 1);
    nf_set(SDC_NVME_CC, 4, nf_good_cc() & ~(uint32_t)SDC_NVME_CC_EN);
    assert_int_equal(nf_get(SDC_NVME_AQA, 4), (NF_ADMIN_SIZE - 1) << 16 | (NF_ADMIN_SIZE - 1));
    assert_int_equal(nf_get(SDC_NVME_ACQ, 8), NF_ACQ);
    assert_int_equal(nf_get(SDC_NVME_INTMS, 4), 0);
    nf_new_queue(0, NF_ADMIN_SIZE);
    nf_set(SDC_NVME_CC, 4, nf_good_cc());
    assert_int_equal(nf_admin(SDC_NVME_ADMIN_IDENTIFY, NF_DATA, SDC_NVME_CNS_CONTROLLER, 0), 0);
    nf_close_card();
}

static void a_subsystem_reset_forgets_everything(void **state)
{
    (void)state;
    nf_open_with_queues(1, 8);
    nf_set(SDC_NVME_NSSR, 4, 0x12345678);
    assert_int_equal(nf_csts(), RDY);
    nf_set(SDC_NVME_NSSR, 4, SDC_NVME_NSSR_MAGIC);
    nf_run(4);
    assert_int_equal(nf_csts(), SDC_NVME_CSTS_NSSRO);
    assert_int_equal(nf_get(SDC_NVME_CC, 4), 0);
    assert_int_equal(nf_get(SDC_NVME_AQA, 4), 0);
    nf_enable(); // and the bit stays until it is cleared
    assert_int_equal(nf_csts() & ~(uint32_t)SDC_NVME_CSTS_NSSRO, RDY);
    nf_set(SDC_NVME_CSTS, 4, SDC_NVME_CSTS_NSSRO);
    assert_int_equal(nf_csts(), RDY);
    nf_close_card();
}

// --- ends with I/O in flight ---

static void a_disable_waits_for_io(void **state)
{
    (void)state;
    nf_open_with_io(1, 8);
    nf_set(SDC_NVME_CC, 4, 0);
    assert_int_equal(nf_csts(), RDY);
    assert_int_equal(backend.cancels, 1);
    nf_set(SDC_NVME_CC, 4, nf_good_cc()); // too early: it starts when it has ended
    nf_new_queue(0, NF_ADMIN_SIZE);
    assert_int_equal(nf_csts(), RDY);
    nf_let_go(0);
    nf_run(4);
    assert_int_equal(nf_csts(), RDY);
    assert_int_equal(backend.closes, 1);
    assert_int_equal(nf_take(1), -1);
    backend.hold = false;
    nf_queue_pair(1, 8);
    nf_flush(1);
    assert_int_equal(nf_take(1), 0);
    nf_close_card();
}

static void a_function_reset_waits_for_io(void **state)
{
    uint64_t value = SDC_NVME_CC_EN;

    (void)state;
    nf_open_with_io(1, 8);
    nf.ready = 0;
    nf.pci->ops->reset(nf.pci);
    nf_run(4);
    assert_true(nf.pci->ops->busy(nf.pci));
    assert_int_equal(nf_access(SDC_NVME_CC, 4, true, &value), -EAGAIN);
    nf_let_go(-EIO);
    assert_false(nf.pci->ops->busy(nf.pci));
    assert_int_equal(nf.ready, 1);
    assert_int_equal(nf_csts(), 0);
    assert_int_equal(nf_get(SDC_NVME_ASQ, 8), 0);
    nf_close_card();
}

static void a_reset_overtakes_a_disable(void **state)
{
    (void)state;
    nf_open_with_io(1, 8);
    nf_set(SDC_NVME_CC, 4, 0);
    nf.pci->ops->reset(nf.pci);
    nf_run(2);
    assert_true(nf.pci->ops->busy(nf.pci));
    nf_let_go(0);
    assert_false(nf.pci->ops->busy(nf.pci));
    assert_int_equal(nf_get(SDC_NVME_AQA, 4), 0);
    nf_close_card();
}

static void a_shutdown_makes_writes_durable_if_it_is_normal(void **state)
{
    (void)state;
    for (uint32_t kind = 1; kind <= 2; kind++) {
        nf_open_with_queues(1, 8);
        nf_put_flush(1);
        nf_ring(1);
        backend.hold = true;
        backend.flushes = 0;
        nf_set(SDC_NVME_CC, 4, nf_good_cc() | kind << SDC_NVME_CC_SHN);
        nf_run(4);
        assert_int_equal(backend.flushes, kind == 1);
        assert_int_equal(nf_csts(), RDY | (kind == 1 ? SDC_NVME_CSTS_SHST_BUSY : SDC_NVME_CSTS_SHST_DONE));
        nf_let_go(0);
        assert_int_equal(nf_csts(), RDY | SDC_NVME_CSTS_SHST_DONE);
        assert_int_equal(backend.opens, backend.closes); // the image is nobody's now
        backend.hold = false;
        nf_set(SDC_NVME_CC, 4, 0);
        assert_int_equal(nf_csts(), 0);
        nf_enable();
        nf_queue_pair(1, 8);
        nf_close_card();
    }
}

// The request for events ended with the admin queue, and its memory is the flush's.
static void an_event_during_a_shutdown_finds_nobody_who_asked(void **state)
{
    (void)state;
    nf_open_with_queues(1, 8);
    nf_put(0, SDC_NVME_ADMIN_ASYNC_EVENT, 0, 0, 0, 0);
    nf_ring(0);
    backend.hold = true;
    nf_set(SDC_NVME_CC, 4, nf_good_cc() | 1 << SDC_NVME_CC_SHN);
    nf_run(4);
    assert_int_equal(backend.held_count, 1);
    nf_set(SDC_NVME_DOORBELLS + 8 * (uint64_t)NF_QUEUES, 4, 1); // of a queue that is not there
    assert_int_equal(nf_csts(), RDY | SDC_NVME_CSTS_SHST_BUSY);
    nf_let_go(0);
    assert_int_equal(nf_csts(), RDY | SDC_NVME_CSTS_SHST_DONE);
    assert_int_equal(nf_take(0), -1);
    nf_close_card();
}

static void a_reset_overtakes_a_shutdown_that_flushes(void **state)
{
    (void)state;
    nf_open_with_queues(1, 8);
    backend.hold = true;
    nf_set(SDC_NVME_CC, 4, nf_good_cc() | 1 << SDC_NVME_CC_SHN);
    nf_run(4);
    assert_int_equal(backend.held_count, 1);
    nf.pci->ops->reset(nf.pci);
    nf_run(4);
    assert_true(nf.pci->ops->busy(nf.pci));
    nf_let_go(-EIO);
    assert_false(nf.pci->ops->busy(nf.pci));
    assert_int_equal(nf_csts(), 0);
    nf_close_card();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(registers_say_what_the_controller_is),
        cmocka_unit_test(registers_keep_what_may_be_written),
        cmocka_unit_test(a_controller_that_cannot_start_fails_and_recovers),
        cmocka_unit_test(a_reset_by_enable_keeps_the_admin_queues_registers),
        cmocka_unit_test(a_subsystem_reset_forgets_everything),
        cmocka_unit_test(a_disable_waits_for_io),
        cmocka_unit_test(a_function_reset_waits_for_io),
        cmocka_unit_test(a_reset_overtakes_a_disable),
        cmocka_unit_test(a_shutdown_makes_writes_durable_if_it_is_normal),
        cmocka_unit_test(an_event_during_a_shutdown_finds_nobody_who_asked),
        cmocka_unit_test(a_reset_overtakes_a_shutdown_that_flushes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
