// SPDX-License-Identifier: BSD-3-Clause
// Cards that share a loop: each is served in every turn, however much the other has to do. Turns are taken by hand and requests counted,
// so that how busy the machine is does not matter.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/check.h"
#include "base/limits.h"
#include "core_fixture.h"
#include "loop/engine.h"
#include "loop_kinds.h"

#include <string.h>

enum { TURNS = 50 };

// A card that answers at once, and the driver that uses it.
struct card {
    struct sdc_virtio_device device; // first
    struct core_fixture f;
    unsigned served;
    bool endless; // the driver makes a request available for each that is taken, while the turn still lasts
};

static uint64_t no_features(struct sdc_virtio_device *device)
{
    (void)device;
    return 0;
}

static int start(struct sdc_virtio_device *device, struct sdc_virtqueue *queue)
{
    (void)device, (void)queue;
    return 0;
}

static void stop(struct sdc_virtio_device *device, struct sdc_virtqueue *queue)
{
    (void)device, (void)queue;
}

static void offer(struct card *card)
{
    static const struct part one_byte[] = {{0x4000, 1, true}};

    driver_offer(&card->f, one_byte, 1);
}

static void work(struct sdc_virtio_device *device, struct sdc_virtqueue *queue)
{
    struct card *card = (struct card *)(void *)device;
    struct sdc_virtio_request *requests[8];
    unsigned count;

    while ((count = sdc_virtqueue_take(queue, requests, SDC_COUNT(requests))) > 0) {
        card->served += count;
        for (unsigned i = 0; i < count; i++) {
            if (card->endless)
                offer(card);
            sdc_virtqueue_give(requests[i], 1);
        }
    }
}

static void destroy(struct sdc_virtio_device *device)
{
    (void)device;
}

static const struct sdc_virtio_ops ops = {
    .name = "test", .device_id = 42, .features = no_features, .queue_start = start, .queue_stop = stop, .queue_work = work,
    .destroy = destroy,
};

static void open_card(struct card *card, struct sdc_loop *loop, enum sdc_poll_mode mode)
{
    *card = (struct card){.device = {.ops = &ops, .queues_count = 1, .queue_size_max = CORE_SIZE}, .f = {.loop = loop}};
    core_open(&card->f, &card->device, false);
    sdc_virtio_core_poll(card->f.core, mode, 1000000);
    driver_start(&card->f, 0);
}

static void open_cards(struct card cards[2], enum sdc_poll_mode mode)
{
    struct sdc_loop *loop;

    assert_int_equal(sdc_loop_new(loop_kind, &loop, NULL), 0);
    open_card(&cards[0], loop, mode);
    open_card(&cards[1], loop, mode);
}

static void close_cards(struct card cards[2])
{
    struct sdc_loop *loop = cards[0].f.loop;

    cards[0].endless = cards[1].endless = false;
    core_end(&cards[0].f);
    core_end(&cards[1].f);
    sdc_loop_free(loop);
}

static void fill(struct card *card)
{
    card->endless = true;
    for (unsigned i = 0; i < CORE_SIZE; i++)
        offer(card);
    sdc_virtio_core_kick(card->f.core, 0);
}

static unsigned difference(unsigned a, unsigned b)
{
    return a > b ? a - b : b - a;
}

// Neither ever runs out of requests: after any turn, one is at most a turn's share ahead.
static void busy_cards_are_served_alike(void **state)
{
    static const enum sdc_poll_mode modes[] = {SDC_POLL_NEVER, SDC_POLL_ADAPTIVE, SDC_POLL_ALWAYS};

    (void)state;
    for (size_t i = 0; i < SDC_COUNT(modes); i++) {
        struct card cards[2];
        open_cards(cards, modes[i]);
        fill(&cards[0]);
        fill(&cards[1]);
        for (unsigned turn = 0; turn < TURNS; turn++) {
            sdc_loop_turn(cards[0].f.loop);
            assert_true(difference(cards[0].served, cards[1].served) <= SDC_LIMIT_TURN);
        }
        assert_true(cards[0].served >= (TURNS - 2) * SDC_LIMIT_TURN / 2);
        close_cards(cards);
    }
}

// One has requests without an end, the other's driver waits for each before it makes the next: it never waits longer than what a turn or
// two allow its neighbour.
static void a_busy_card_does_not_hold_up_a_quiet_one(void **state)
{
    static const enum sdc_poll_mode modes[] = {SDC_POLL_ADAPTIVE, SDC_POLL_ALWAYS};

    (void)state;
    for (size_t i = 0; i < SDC_COUNT(modes); i++) {
        struct card cards[2];
        open_cards(cards, modes[i]);
        fill(&cards[0]);
        sdc_loop_turn(cards[0].f.loop);
        for (unsigned request = 1; request <= TURNS; request++) {
            unsigned before = cards[0].served;
            offer(&cards[1]);
            if (modes[i] != SDC_POLL_ALWAYS)
                sdc_virtio_core_kick(cards[1].f.core, 0);
            while (driver_used(&cards[1].f) != request && cards[0].served - before <= 3 * SDC_LIMIT_TURN)
                sdc_loop_turn(cards[0].f.loop);
            assert_int_equal(driver_used(&cards[1].f), request);
            assert_true(cards[0].served - before <= 2 * SDC_LIMIT_TURN);
        }
        assert_int_equal(cards[1].served, TURNS);
        close_cards(cards);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(busy_cards_are_served_alike),
        cmocka_unit_test(a_busy_card_does_not_hold_up_a_quiet_one),
    };
    RUN_WITH_EVERY_LOOP(tests);
}
