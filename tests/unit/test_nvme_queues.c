// SPDX-License-Identifier: BSD-3-Clause
// The life of queues: made and deleted, commands in batches, doorbells, memory that goes away, interrupts.
#include "nvme_fixture.h"

#include <errno.h>

enum {
    IN_USE = SDC_NVME_SC_QUEUE_IN_USE,
    CREATE_CQ = SDC_NVME_ADMIN_CREATE_CQ,
    CREATE_SQ = SDC_NVME_ADMIN_CREATE_SQ,
    DELETE_CQ = SDC_NVME_ADMIN_DELETE_CQ,
    DELETE_SQ = SDC_NVME_ADMIN_DELETE_SQ,
    RDY = SDC_NVME_CSTS_RDY,
};

// --- making and deleting queues ---

static void queues_are_made_only_as_they_may_be(void **state)
{
    // Queue pair 1 is there, and completion queue 2.
    static const struct {
        uint8_t opcode;
        uint64_t prp1;
        uint32_t cdw10, cdw11;
        int status;
    } cases[] = {
        {CREATE_CQ, 0x7000, 7 << 16 | 0, 3, SDC_NVME_SC_QID_INVALID},
        {CREATE_CQ, 0x7000, 7 << 16 | 1, 3, SDC_NVME_SC_QID_INVALID},
        {CREATE_CQ, 0x7000, 7 << 16 | (NF_QUEUES + 1), 3, SDC_NVME_SC_QID_INVALID},
        {CREATE_CQ, 0x7000, 7 << 16 | 0xffff, 3, SDC_NVME_SC_QID_INVALID},
        {CREATE_CQ, 0x7000, 0 << 16 | 3, 3, SDC_NVME_SC_QSIZE_INVALID},
        {CREATE_CQ, 0x7000, NF_DEPTH << 16 | 3, 3, SDC_NVME_SC_QSIZE_INVALID},
        {CREATE_CQ, 0x7000, UINT32_C(0xffff) << 16 | 3, 3, SDC_NVME_SC_QSIZE_INVALID},
        {CREATE_CQ, 0x7000, 7 << 16 | 3, 2, SDC_NVME_SC_INVALID_FIELD}, // not contiguous
        {CREATE_CQ, 0x7010, 7 << 16 | 3, 3, SDC_NVME_SC_PRP_OFFSET},
        {CREATE_CQ, 0x7000, 7 << 16 | 3, (NF_QUEUES + 1) << 16 | 3, SDC_NVME_SC_VECTOR_INVALID},
        {CREATE_CQ, 0x7000, 7 << 16 | 3, UINT32_C(0xffff) << 16 | 3, SDC_NVME_SC_VECTOR_INVALID},
        {CREATE_CQ, 0x10000, 7 << 16 | 3, 3, SDC_NVME_SC_DATA_TRANSFER},
        {CREATE_CQ, UINT64_C(0xfffffffffffff000), 7 << 16 | 3, 3, SDC_NVME_SC_DATA_TRANSFER},
        {CREATE_SQ, 0x6000, 7 << 16 | 0, 2 << 16 | 1, SDC_NVME_SC_QID_INVALID},
        {CREATE_SQ, 0x6000, 7 << 16 | 1, 2 << 16 | 1, SDC_NVME_SC_QID_INVALID},
        {CREATE_SQ, 0x6000, 7 << 16 | (NF_QUEUES + 1), 2 << 16 | 1, SDC_NVME_SC_QID_INVALID},
        {CREATE_SQ, 0x6000, 7 << 16 | 3, 0 << 16 | 1, SDC_NVME_SC_QID_INVALID},
        {CREATE_SQ, 0x6000, 7 << 16 | 3, (NF_QUEUES + 1) << 16 | 1, SDC_NVME_SC_QID_INVALID},
        {CREATE_SQ, 0x6000, 7 << 16 | 3, 3 << 16 | 1, SDC_NVME_SC_CQ_INVALID},
        {CREATE_SQ, 0x6000, 0 << 16 | 3, 2 << 16 | 1, SDC_NVME_SC_QSIZE_INVALID},
        {CREATE_SQ, 0x6000, NF_DEPTH << 16 | 3, 2 << 16 | 1, SDC_NVME_SC_QSIZE_INVALID},
        {CREATE_SQ, 0x6000, 7 << 16 | 3, 2 << 16 | 0, SDC_NVME_SC_INVALID_FIELD},
        {CREATE_SQ, 0x6040, 7 << 16 | 3, 2 << 16 | 1, SDC_NVME_SC_PRP_OFFSET},
        {CREATE_SQ, 0x10000, 7 << 16 | 3, 2 << 16 | 1, SDC_NVME_SC_DATA_TRANSFER},
        {DELETE_SQ, 0, 0, 0, SDC_NVME_SC_QID_INVALID},
        {DELETE_SQ, 0, 2, 0, SDC_NVME_SC_QID_INVALID},
        {DELETE_SQ, 0, 0xffff, 0, SDC_NVME_SC_QID_INVALID},
        {DELETE_CQ, 0, 0, 0, SDC_NVME_SC_QID_INVALID},
        {DELETE_CQ, 0, 3, 0, SDC_NVME_SC_QID_INVALID},
        {DELETE_CQ, 0, 1, 0, IN_USE},
        // And after all that they are made, and deleted.
        {CREATE_SQ, 0x6000, 63 << 16 | 4, 2 << 16 | 1, 0},
        {DELETE_CQ, 0, 2, 0, IN_USE},
        {DELETE_SQ, 0, 4, 0, 0},
        {DELETE_CQ, 0, 2, 0, 0},
        {DELETE_CQ, 0, 2, 0, SDC_NVME_SC_QID_INVALID},
        {CREATE_SQ, 0x6000, 7 << 16 | 4, 2 << 16 | 1, SDC_NVME_SC_CQ_INVALID},
    };

    (void)state;
    nf_open_with_queues(1, 8);
    assert_int_equal(nf_create_cq(2, 8), 0);
    for (size_t i = 0; i < SDC_COUNT(cases); i++)
        assert_int_equal(nf_admin(cases[i].opcode, cases[i].prp1, cases[i].cdw10, cases[i].cdw11), cases[i].status);
    nf_close_card();
}

static void queues_are_not_made_before_their_entries_have_a_size(void **state)
{
    (void)state;
    nf_open_card();
    nf_use_msix();
    nf_enable();
    nf_set(SDC_NVME_CC, 4, SDC_NVME_CC_EN);
    assert_int_equal(nf_create_cq(1, 8), SDC_NVME_SC_INVALID_FIELD);
    nf_set(SDC_NVME_CC, 4, SDC_NVME_CC_EN | SDC_NVME_CQES << SDC_NVME_CC_IOCQES);
    assert_int_equal(nf_create_cq(1, 8), 0);
    assert_int_equal(nf_create_sq(1, 8), SDC_NVME_SC_INVALID_FIELD);
    nf_set(SDC_NVME_CC, 4, nf_good_cc());
    assert_int_equal(nf_create_sq(1, 8), 0);
    nf_close_card();
}

static void a_backend_that_does_not_open_fails_the_queue(void **state)
{
    (void)state;
    nf_open_card();
    nf_use_msix();
    nf_enable();
    assert_int_equal(nf_create_cq(1, 8), 0);
    backend.open_rc = -ENOMEM;
    assert_int_equal(nf_create_sq(1, 8), SDC_NVME_SC_INTERNAL);
    backend.open_rc = 0;
    assert_int_equal(nf_create_sq(1, 8), 0);
    assert_int_equal(backend.opens, 1);
    assert_int_equal(nf_create_cq(2, 8), 0);
    assert_int_equal(nf_create_sq(2, 8), 0);
    assert_int_equal(backend.opens, 1); // once for all of a loop
    assert_int_equal(nf_admin(DELETE_SQ, 0, 1, 0), 0);
    assert_int_equal(backend.closes, 0);
    assert_int_equal(nf_admin(DELETE_SQ, 0, 2, 0), 0);
    assert_int_equal(backend.closes, 1);
    nf_close_card();
}

// --- commands ---

static void a_batch_goes_down_as_one_and_interrupts_once(void **state)
{
    (void)state;
    nf_open_with_queues(1, 32);
    backend.submits = 0;
    for (unsigned i = 0; i < 20; i++)
        nf_put_flush(1);
    nf_ring(1);
    nf_run(4);
    assert_int_equal(backend.submits, 1);
    for (unsigned i = 0; i < 20; i++)
        assert_int_equal(nf_take(1), 0);
    assert_int_equal(nf_take(1), -1);
    assert_int_equal(nf.msix[1], 1);
    nf_close_card();
}

static void a_full_completion_queue_holds_commands_back(void **state)
{
    (void)state;
    nf_open_with_queues(1, 4);
    for (unsigned round = 0; round < 5; round++) {
        // Three fit. The fourth is taken, waits, and keeps what comes behind it from being taken.
        for (unsigned i = 0; i < 3; i++)
            nf_put_flush(1);
        nf_ring(1);
        nf_run(4);
        unsigned before = backend.flushes;
        for (unsigned i = 0; i < 3; i++)
            nf_put_flush(1);
        nf_ring(1);
        nf_run(4);
        assert_int_equal(backend.flushes - before, 3);
        for (unsigned i = 0; i < 3; i++)
            assert_int_equal(nf_take(1), 0);
        assert_int_equal(nf_take(1), -1);
        nf_acknowledge(1);
        nf_run(4);
        for (unsigned i = 0; i < 3; i++)
            assert_int_equal(nf_take(1), 0);
        nf_acknowledge(1);
    }
    nf_close_card();
}

static void two_submission_queues_share_a_completion_queue(void **state)
{
    (void)state;
    nf_open_with_queues(1, 8);
    nf_new_queue(2, 8);
    assert_int_equal(nf_admin(CREATE_SQ, 0x4000, 7 << 16 | 2, 1 << 16 | 1), 0);
    nf_put_flush(1);
    nf_put_flush(2);
    nf_ring(1);
    nf_ring(2);
    nf_run(4);
    assert_int_equal(nf_take(1), 0);
    assert_int_equal(nf_take(1), 0);
    assert_int_equal(nf_admin(DELETE_SQ, 0, 1, 0), 0);
    nf_flush(2);
    assert_int_equal(nf_take(1), 0);
    nf_close_card();
}

static void deleting_a_queue_waits_for_its_commands(void **state)
{
    (void)state;
    nf_open_with_queues(2, 8);
    backend.hold = true;
    nf_put_flush(1);
    nf_put_flush(2);
    nf_ring(1);
    nf_ring(2);
    assert_int_equal(backend.held_count, 2);
    assert_int_equal(nf_admin(DELETE_SQ, 0, 1, 0), -1);
    nf_put_flush(1);
    nf_ring(1); // the doorbell is nobody's any more
    assert_int_equal(backend.held_count, 2);
    nf_let_go(0);
    assert_int_equal(nf_take(1), 0);
    assert_int_equal(nf_take(2), 0);
    assert_int_equal(nf_take(0), 0);
    nf_acknowledge(0);
    assert_int_equal(nf_admin(DELETE_CQ, 0, 1, 0), 0);
    backend.hold = false;
    nf_flush(2);
    assert_int_equal(nf_take(2), 0);
    nf_close_card();
}

static void a_deleted_queue_leaves_nothing_in_a_full_completion_queue(void **state)
{
    (void)state;
    nf_open_with_queues(1, 4);
    nf_new_queue(2, 8);
    assert_int_equal(nf_admin(CREATE_SQ, 0x4000, 7 << 16 | 2, 1 << 16 | 1), 0);
    for (unsigned i = 0; i < 5; i++)
        nf_put_flush(2);
    nf_ring(2);
    nf_run(4);
    assert_int_equal(nf_admin(DELETE_SQ, 0, 2, 0), 0); // does not wait for room
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(nf_take(1), 0);
    nf_acknowledge(1);
    nf_run(4);
    assert_int_equal(nf_take(1), -1);
    nf_flush(1);
    assert_int_equal(nf_take(1), 0);
    nf_close_card();
}

// --- memory that changes ---

static void show_map(unsigned missing)
{
    struct sdc_map *map = guest_map_of(&nf.guest, false, UINT32_MAX, 0, 0);

    if (missing) {
        sdc_map_unref(map);
        struct sdc_region_table table = {0};
        for (unsigned page = 0; page < GUEST_PAGES; page++) {
            struct sdc_region region = {.iova = (uint64_t)page * GUEST_PAGE, .size = GUEST_PAGE,
                                        .host = nf.guest.bytes + (size_t)page * GUEST_PAGE,
                                        .access = SDC_ACCESS_READ | SDC_ACCESS_WRITE};
            if (!(missing >> page & 1))
                sdc_region_table_add(&table, &region);
        }
        map = sdc_region_table_publish(&table, sdc_map_free, NULL);
        sdc_region_table_clear(&table);
    }
    nf.pci->ops->set_map(nf.pci, map);
    sdc_map_unref(map);
    nf_run(4);
}

static void queues_survive_that_all_memory_goes_and_comes_back(void **state)
{
    (void)state;
    nf_open_with_queues(2, 8);
    nf_put(0, SDC_NVME_ADMIN_ASYNC_EVENT, 0, 0, 0, 0); // waits, and nothing waits for it
    nf_ring(0);
    for (unsigned round = 0; round < 3; round++) {
        show_map(UINT32_MAX);
        assert_false(nf.pci->ops->busy(nf.pci));
        nf_flush(1);
        assert_int_equal(nf_take(1), -1);
        assert_int_equal(nf_csts(), RDY);
        show_map(0);
        assert_int_equal(nf_take(1), 0);
        nf_acknowledge(1);
    }
    assert_int_equal(nf_admin(SDC_NVME_ADMIN_IDENTIFY, NF_DATA, SDC_NVME_CNS_CONTROLLER, 0), 0);
    nf_close_card();
}

static void memory_of_a_queue_is_kept_until_its_commands_have_ended(void **state)
{
    (void)state;
    nf_open_with_io(2, 8);
    nf.ready = 0;
    show_map(1U << 3); // completion queue 1
    assert_true(nf.pci->ops->busy(nf.pci));
    nf_let_go(0);
    assert_false(nf.pci->ops->busy(nf.pci));
    assert_int_equal(nf.ready, 1);
    assert_int_equal(nf_take(1), 0); // it was posted where the queue was
    nf_acknowledge(1);
    backend.hold = false;
    nf_put_flush(1);
    nf_put_flush(2);
    nf_ring(1);
    nf_ring(2);
    nf_run(4);
    assert_int_equal(nf_take(2), 0); // the others go on
    assert_int_equal(nf_take(1), -1);
    show_map(0);
    assert_int_equal(nf_take(1), 0);
    nf_close_card();
}

static void a_change_elsewhere_waits_for_nothing(void **state)
{
    (void)state;
    nf_open_with_io(1, 8);
    show_map(1U << 15);
    assert_false(nf.pci->ops->busy(nf.pci));
    nf_let_go(0);
    assert_int_equal(nf_take(1), 0);
    nf_close_card();
}

static void a_reset_overtakes_a_change_of_memory(void **state)
{
    (void)state;
    nf_open_with_io(1, 8);
    show_map(UINT32_MAX);
    assert_true(nf.pci->ops->busy(nf.pci));
    nf_set(SDC_NVME_CC, 4, 0);
    nf_let_go(0);
    assert_false(nf.pci->ops->busy(nf.pci));
    assert_int_equal(nf_csts(), 0);
    nf_close_card();
}

// --- doorbells that are wrong ---

static void wrong_doorbells_change_nothing_and_are_told(void **state)
{
    static const struct {
        uint64_t offset;
        uint32_t size;
        uint64_t value;
        int event;
    } cases[] = {
        {8, 4, 8, SDC_NVME_EVENT_BAD_DOORBELL_VALUE},            // a tail outside the queue
        {8, 4, UINT32_MAX, SDC_NVME_EVENT_BAD_DOORBELL_VALUE},
        {12, 4, 8, SDC_NVME_EVENT_BAD_DOORBELL_VALUE},           // a head outside
        {12, 4, 1, SDC_NVME_EVENT_BAD_DOORBELL_VALUE},           // of what was not posted
        {4, 4, NF_ADMIN_SIZE, SDC_NVME_EVENT_BAD_DOORBELL_VALUE},
        {16, 4, 0, SDC_NVME_EVENT_BAD_DOORBELL},                 // a queue that is not there
        {20, 4, 0, SDC_NVME_EVENT_BAD_DOORBELL},
        {8 * (NF_QUEUES + 1), 4, 0, SDC_NVME_EVENT_BAD_DOORBELL}, // that cannot be there
        {0x2ffc, 4, 0, SDC_NVME_EVENT_BAD_DOORBELL},
        {8, 2, 1, SDC_NVME_EVENT_BAD_DOORBELL},
        {8, 8, 1, SDC_NVME_EVENT_BAD_DOORBELL},
    };

    (void)state;
    for (size_t i = 0; i < SDC_COUNT(cases); i++) {
        nf_open_with_queues(1, 8);
        nf_put(0, SDC_NVME_ADMIN_ASYNC_EVENT, 0, 0, 0, 0);
        nf_ring(0);
        nf_run(2);
        assert_int_equal(nf_take(0), -1);
        uint64_t at = NF_ACQ + (uint64_t)nf.head[0] * SDC_NVME_CQE;
        nf_set(SDC_NVME_DOORBELLS + cases[i].offset, cases[i].size, cases[i].value);
        nf_run(2);
        assert_int_equal(nf_take(0), 0);
        assert_int_equal(guest_get(&nf.guest, at, 4), SDC_NVME_EVENT_ERROR | cases[i].event << 8 | SDC_NVME_LOG_ERROR << 16);
        nf_acknowledge(0);
        nf_flush(1);
        assert_int_equal(nf_take(1), 0);
        nf_close_card();
    }
}

// --- interrupts ---

static void intx_has_a_level_and_masks(void **state)
{
    (void)state;
    nf_open_card();
    nf_enable();
    nf_new_queue(1, 8);
    assert_int_equal(nf_admin(CREATE_CQ, 0x3000, 7 << 16 | 1, 1 << 16 | 3), SDC_NVME_SC_VECTOR_INVALID);
    assert_int_equal(nf_admin(CREATE_CQ, 0x3000, 7 << 16 | 1, 3), 0);
    assert_int_equal(nf_create_sq(1, 8), 0);
    assert_false(nf.pci->ops->intx_level(nf.pci));
    nf.intx = 0;
    nf_flush(1);
    assert_int_equal(nf.intx, 1);
    assert_true(nf.pci->ops->intx_level(nf.pci));
    nf_set(SDC_NVME_INTMS, 4, 1);
    assert_false(nf.pci->ops->intx_level(nf.pci));
    nf_flush(1);
    assert_int_equal(nf.intx, 1);
    nf_set(SDC_NVME_INTMC, 4, 1); // what stands is told
    assert_int_equal(nf.intx, 2);
    assert_int_equal(nf_take(1), 0);
    assert_int_equal(nf_take(1), 0);
    nf_acknowledge(1);
    assert_false(nf.pci->ops->intx_level(nf.pci));
    nf_set(SDC_NVME_INTMS, 4, 1);
    nf_set(SDC_NVME_INTMC, 4, 1);
    assert_int_equal(nf.intx, 2);
    nf_close_card();
}

static void coalesced_interrupts_wait_for_number_or_time(void **state)
{
    (void)state;
    nf_open_with_queues(2, 32);
    assert_int_equal(nf_admin(SDC_NVME_ADMIN_SET_FEATURES, 0, SDC_NVME_FEAT_COALESCING, 255 << 8 | 3), 0);
    assert_int_equal(nf_admin(SDC_NVME_ADMIN_SET_FEATURES, 0, SDC_NVME_FEAT_VECTOR, 1 << 16 | 2), 0); // not of vector 2
    memset(nf.msix, 0, sizeof nf.msix);
    nf_flush(2);
    assert_int_equal(nf.msix[2], 1);
    // The number: of four, however they come.
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(nf.msix[1], 0);
        nf_flush(1);
    }
    assert_int_equal(nf.msix[1], 1);
    // The time.
    assert_int_equal(nf_admin(SDC_NVME_ADMIN_SET_FEATURES, 0, SDC_NVME_FEAT_COALESCING, 1 << 8 | 3), 0);
    nf_put_flush(1);
    nf_ring(1);
    while (nf.msix[1] == 1)
        nf_run(1);
    assert_int_equal(nf.msix[1], 2);
    nf_close_card();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(queues_are_made_only_as_they_may_be),
        cmocka_unit_test(queues_are_not_made_before_their_entries_have_a_size),
        cmocka_unit_test(a_backend_that_does_not_open_fails_the_queue),
        cmocka_unit_test(a_batch_goes_down_as_one_and_interrupts_once),
        cmocka_unit_test(a_full_completion_queue_holds_commands_back),
        cmocka_unit_test(two_submission_queues_share_a_completion_queue),
        cmocka_unit_test(deleting_a_queue_waits_for_its_commands),
        cmocka_unit_test(a_deleted_queue_leaves_nothing_in_a_full_completion_queue),
        cmocka_unit_test(queues_survive_that_all_memory_goes_and_comes_back),
        cmocka_unit_test(memory_of_a_queue_is_kept_until_its_commands_have_ended),
        cmocka_unit_test(a_change_elsewhere_waits_for_nothing),
        cmocka_unit_test(a_reset_overtakes_a_change_of_memory),
        cmocka_unit_test(wrong_doorbells_change_nothing_and_are_told),
        cmocka_unit_test(intx_has_a_level_and_masks),
        cmocka_unit_test(coalesced_interrupts_wait_for_number_or_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
