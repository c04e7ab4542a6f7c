// SPDX-License-Identifier: BSD-3-Clause
// NVMe's queues in guest memory: what doorbells may say, what is taken and posted, phases, and memory that goes away and comes back.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/check.h"
#include "ring/nvme_cq.h"
#include "ring/nvme_sq.h"
#include "ring_fixture.h"

#include <errno.h>

enum { SQ = 0x2000, CQ = 0x4000, SIZE = 8, SHADOW = 0x8000, EVENT = 0x9000 };

static struct guest guest;
static struct sdc_nvme_sq sq;
static struct sdc_nvme_cq cq;
static _Atomic uint32_t words[2];

static void open_queues(bool jumbled)
{
    guest_open(&guest, jumbled);
    words[0] = words[1] = 0;
    assert_int_equal(sdc_nvme_sq_start(&sq, SQ, SIZE, &words[0], &guest.view), 0);
    assert_int_equal(sdc_nvme_cq_start(&cq, CQ, SIZE, &words[1], &guest.view), 0);
}

// --- where they may lie ---

static void queues_lie_on_pages_of_the_guest(void **state)
{
    static const struct {
        uint64_t iova;
        uint32_t size;
        int rc;
    } cases[] = {
        {0, 2, 0}, {0x1000, 64, 0}, {0xf000, 64, 0},
        {0x1001, 8, -EINVAL}, {0x1040, 8, -EINVAL}, {0x800, 8, -EINVAL},
        {0xf000, 65, -EFAULT}, {0x10000, 2, -EFAULT}, {0, 1025, -EFAULT},
        {UINT64_MAX - 4095, 64, -EFAULT}, {UINT64_MAX - 4095, 65536, -EFAULT},
    };

    (void)state;
    for (int jumbled = 0; jumbled <= 1; jumbled++) {
        guest_open(&guest, jumbled);
        for (size_t i = 0; i < SDC_COUNT(cases); i++) {
            assert_int_equal(sdc_nvme_sq_start(&sq, cases[i].iova, cases[i].size, words, &guest.view), cases[i].rc);
            assert_int_equal(sdc_nvme_cq_start(&cq, cases[i].iova, 4 * cases[i].size, words, &guest.view), cases[i].rc);
        }
        guest_close(&guest);
    }
}

static void a_completion_queue_has_to_be_writable(void **state)
{
    (void)state;
    guest_open(&guest, true);
    struct sdc_map *map = guest_map_of(&guest, true, UINT32_MAX, 0, 1 << (CQ / GUEST_PAGE) | 1 << (SQ / GUEST_PAGE));
    struct sdc_memory view = {.map = map};
    assert_int_equal(sdc_nvme_sq_start(&sq, SQ, SIZE, words, &view), 0);
    assert_int_equal(sdc_nvme_cq_start(&cq, CQ, SIZE, words, &view), -EACCES);
    sdc_map_unref(map);
    guest_close(&guest);
}

// --- doorbells ---

static void a_tail_lies_inside_the_queue(void **state)
{
    static const struct {
        uint32_t tail;
        int available; // or an errno
    } steps[] = {{0, 0}, {3, 3}, {7, 7}, {8, -EPROTO}, {UINT32_MAX, -EPROTO}, {65536, -EPROTO}, {1, 1}};

    (void)state;
    open_queues(false);
    for (size_t i = 0; i < SDC_COUNT(steps); i++) {
        words[0] = steps[i].tail;
        assert_int_equal(sdc_nvme_sq_look(&sq), steps[i].available);
    }
    guest_close(&guest);
}

static void a_head_takes_only_what_was_posted(void **state)
{
    static const struct {
        unsigned post;
        uint32_t head;
        int room; // or an errno
    } steps[] = {
        {0, 0, 7}, {0, 1, -EPROTO}, {3, 0, 4}, {0, 4, -EPROTO}, {0, 2, 6}, {0, 1, -EPROTO}, // backwards
        {0, 3, 7}, {7, 3, 0}, {0, 2, 7}, {0, 8, -EPROTO}, {0, UINT32_MAX, -EPROTO}, {1, 3, 7},
    };
    struct sdc_nvme_completion done = {0};

    (void)state;
    open_queues(false);
    for (size_t i = 0; i < SDC_COUNT(steps); i++) {
        for (unsigned k = 0; k < steps[i].post; k++)
            assert_int_equal(sdc_nvme_cq_post(&cq, &done), 0);
        words[1] = steps[i].head;
        assert_int_equal(sdc_nvme_cq_look(&cq), steps[i].room);
    }
    guest_close(&guest);
}

static void shadow_doorbells_are_read_instead(void **state)
{
    (void)state;
    for (int jumbled = 0; jumbled <= 1; jumbled++) {
        open_queues(jumbled);
        words[0] = 5;
        guest_put(&guest, SHADOW + 8, 2, 4);
        assert_int_equal(sdc_nvme_doorbell_share(&sq.doorbell, &guest.view, SHADOW + 8, EVENT + 8), 0);
        assert_int_equal(sdc_nvme_sq_look(&sq), 2);
        words[0] = 3;
        sdc_nvme_doorbell_seed(&sq.doorbell);
        assert_int_equal(guest_get(&guest, SHADOW + 8, 4), 3);
        guest_put(&guest, SHADOW + 8, 8, 4);
        assert_int_equal(sdc_nvme_sq_look(&sq), -EPROTO);
        guest_close(&guest);
    }
}

// What the register holds is older than what the driver last said in its words.
static void while_shadow_doorbells_are_away_nothing_new_is_known(void **state)
{
    static const struct {
        uint64_t shadow, event;
        int rc;
    } cases[] = {
        {0x10000, EVENT, -EFAULT}, {SHADOW, 0x10000, -EFAULT}, {SHADOW + 2, EVENT, -EINVAL}, {UINT64_MAX - 3, EVENT, -EFAULT},
    };

    (void)state;
    open_queues(true);
    guest_put(&guest, SHADOW, 5, 4);
    assert_int_equal(sdc_nvme_doorbell_share(&sq.doorbell, &guest.view, SHADOW, EVENT), 0);
    assert_int_equal(sdc_nvme_sq_look(&sq), 5);
    words[0] = 1;
    for (size_t i = 0; i < SDC_COUNT(cases); i++) {
        assert_int_equal(sdc_nvme_doorbell_share(&sq.doorbell, &guest.view, cases[i].shadow, cases[i].event), cases[i].rc);
        assert_int_equal(sdc_nvme_sq_look(&sq), 5);
        sdc_nvme_sq_rearm(&sq); // nowhere
        sdc_nvme_doorbell_seed(&sq.doorbell);
    }
    assert_int_equal(guest_get(&guest, SHADOW, 4), 5);
    guest_close(&guest);
}

static void shadow_doorbells_need_memory_that_can_be_read_and_written(void **state)
{
    (void)state;
    open_queues(true);
    struct sdc_map *map = guest_map_of(&guest, true, UINT32_MAX, 0, 1 << (SHADOW / GUEST_PAGE));
    struct sdc_memory view = {.map = map};
    assert_int_equal(sdc_nvme_doorbell_share(&sq.doorbell, &view, SHADOW, EVENT), -EACCES);
    assert_int_equal(sdc_nvme_doorbell_share(&sq.doorbell, &view, EVENT, SHADOW), -EACCES);
    sdc_map_unref(map);
    map = guest_map_of(&guest, true, UINT32_MAX, 1 << (SHADOW / GUEST_PAGE), 0);
    view = (struct sdc_memory){.map = map};
    assert_int_equal(sdc_nvme_doorbell_share(&sq.doorbell, &view, SHADOW, EVENT), -EFAULT); // remote
    sdc_map_unref(map);
    guest_close(&guest);
}

// As Linux decides whether to write the register.
static bool driver_rings(uint64_t event, uint32_t from, uint32_t to)
{
    uint16_t at = (uint16_t)guest_get(&guest, event, 4);

    return (uint16_t)(to - at - 1) < (uint16_t)(to - from);
}

static void a_driver_rings_when_it_is_asked_to(void **state)
{
    uint8_t entry[SDC_NVME_SQE];
    struct sdc_nvme_completion done = {0};

    (void)state;
    open_queues(false);
    assert_int_equal(sdc_nvme_doorbell_share(&sq.doorbell, &guest.view, SHADOW, EVENT), 0);
    assert_int_equal(sdc_nvme_doorbell_share(&cq.doorbell, &guest.view, SHADOW + 4, EVENT + 4), 0);
    for (uint32_t n = 0; n < 3 * SIZE; n++) {
        uint32_t at = n % SIZE, next = (n + 1) % SIZE;
        sdc_nvme_sq_rearm(&sq);
        assert_true(driver_rings(EVENT, at, next));
        assert_true(driver_rings(EVENT, at, (n + SIZE - 1) % SIZE));
        sdc_nvme_sq_suppress(&sq);
        assert_false(driver_rings(EVENT, at, next));
        guest_put(&guest, SHADOW, next, 4);
        assert_int_equal(sdc_nvme_sq_look(&sq), 1);
        assert_int_equal(sdc_nvme_sq_take(&sq, entry), 1);

        assert_int_equal(sdc_nvme_cq_post(&cq, &done), 0);
        sdc_nvme_cq_rearm(&cq);
        assert_true(driver_rings(EVENT + 4, at, next));
        sdc_nvme_cq_suppress(&cq);
        for (uint32_t more = 1; more < SIZE; more++)
            assert_false(driver_rings(EVENT + 4, at, (n + more) % SIZE));
        guest_put(&guest, SHADOW + 4, next, 4);
        assert_int_equal(sdc_nvme_cq_look(&cq), SIZE - 1);
    }
    guest_close(&guest);
}

// --- entries ---

static void entries_are_taken_in_order_and_around(void **state)
{
    uint8_t entry[SDC_NVME_SQE];
    uint32_t next = 0;

    (void)state;
    for (int jumbled = 0; jumbled <= 1; jumbled++) {
        open_queues(jumbled);
        for (uint32_t round = 0; round < 5; round++) {
            for (uint32_t i = 0; i < 5; i++)
                guest_put(&guest, SQ + (uint64_t)((words[0] + i) % SIZE) * SDC_NVME_SQE + 60, next + i, 4);
            words[0] = (words[0] + 5) % SIZE;
            assert_int_equal(sdc_nvme_sq_look(&sq), 5);
            for (uint32_t i = 0; i < 5; i++) {
                assert_int_equal(sdc_nvme_sq_take(&sq, entry), 1);
                assert_int_equal(sdc_get32(entry + 60), next++);
            }
            assert_int_equal(sdc_nvme_sq_take(&sq, entry), 0);
            assert_int_equal(sq.head, words[0]);
        }
        guest_close(&guest);
    }
}

static void completions_have_a_phase_that_turns_with_each_pass(void **state)
{
    (void)state;
    for (int jumbled = 0; jumbled <= 1; jumbled++) {
        open_queues(jumbled);
        for (uint32_t n = 0; n < 4 * SIZE; n++) {
            struct sdc_nvme_completion done = {
                .dw0 = n, .dw1 = ~n, .sq_head = (uint16_t)(n + 1), .sq = 3, .cid = (uint16_t)(100 + n), .status = 0x4281};
            uint64_t at = CQ + (uint64_t)(n % SIZE) * SDC_NVME_CQE;
            assert_int_equal(sdc_nvme_cq_post(&cq, &done), 0);
            assert_int_equal(guest_get(&guest, at, 4), n);
            assert_int_equal(guest_get(&guest, at + 4, 4), (uint32_t)~n);
            assert_int_equal(guest_get(&guest, at + 8, 2), n + 1);
            assert_int_equal(guest_get(&guest, at + 10, 2), 3);
            assert_int_equal(guest_get(&guest, at + 12, 2), 100 + n);
            assert_int_equal(guest_get(&guest, at + 14, 2), 0x4281 << 1 | !(n / SIZE % 2));
            words[1] = (n + 1) % SIZE;
            assert_int_equal(sdc_nvme_cq_look(&cq), SIZE - 1);
        }
        guest_close(&guest);
    }
}

// --- memory that changes ---

static void a_queue_sleeps_while_its_memory_is_away(void **state)
{
    uint8_t entry[SDC_NVME_SQE];

    (void)state;
    open_queues(true);
    words[0] = 2;
    assert_int_equal(sdc_nvme_sq_look(&sq), 2);
    assert_int_equal(sdc_nvme_sq_take(&sq, entry), 1);

    struct sdc_map *without = guest_map(&guest, true, ~(1U << (SQ / GUEST_PAGE) | 1U << (CQ / GUEST_PAGE)));
    struct sdc_memory view = {.map = without};
    assert_true(sdc_nvme_sq_stays(&sq, guest.map));
    assert_true(sdc_nvme_cq_stays(&cq, guest.map));
    assert_false(sdc_nvme_sq_stays(&sq, without));
    assert_false(sdc_nvme_cq_stays(&cq, without));
    assert_false(sdc_nvme_sq_stays(&sq, NULL));
    sdc_nvme_sq_remap(&sq, &view);
    sdc_nvme_cq_remap(&cq, &view);
    assert_false(sq.awake || cq.awake);
    assert_int_equal(sdc_nvme_sq_take(&sq, entry), 0);

    sdc_nvme_sq_remap(&sq, &guest.view);
    sdc_nvme_cq_remap(&cq, &guest.view);
    assert_true(sq.awake && cq.awake);
    assert_int_equal(sdc_nvme_sq_take(&sq, entry), 1); // where it was
    assert_int_equal(sq.head, 2);
    sdc_map_unref(without);
    guest_close(&guest);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(queues_lie_on_pages_of_the_guest),
        cmocka_unit_test(a_completion_queue_has_to_be_writable),
        cmocka_unit_test(a_tail_lies_inside_the_queue),
        cmocka_unit_test(a_head_takes_only_what_was_posted),
        cmocka_unit_test(shadow_doorbells_are_read_instead),
        cmocka_unit_test(while_shadow_doorbells_are_away_nothing_new_is_known),
        cmocka_unit_test(shadow_doorbells_need_memory_that_can_be_read_and_written),
        cmocka_unit_test(a_driver_rings_when_it_is_asked_to),
        cmocka_unit_test(entries_are_taken_in_order_and_around),
        cmocka_unit_test(completions_have_a_phase_that_turns_with_each_pass),
        cmocka_unit_test(a_queue_sleeps_while_its_memory_is_away),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
