// SPDX-License-Identifier: BSD-3-Clause
// A queue whose ring and buffers lie in memory that came without an fd. The other side is simulated: it keeps the transfers that the queue
// starts until it is told to answer them, in order or not, well or not, or never.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "core_fixture.h"
#include "transport/common/remote.h"

#include <errno.h>
#include <string.h>

enum {
    SENT = 0x4000, // what the driver sends, 16 bytes
    ROOM = 0x6000, // what it wants filled, 64 bytes
    SIZE_SENT = 16,
    SIZE_ROOM = 64,
    LOST = 0xee,
    MOST = 64,
};

// --- the other side ---

static struct core_fixture f;

static struct {
    struct sdc_remote base;
    bool partial; // maps have what they have for the asking: no bytes move
    struct sdc_transfer *waiting[MOST];
    unsigned count;
} sim;

static void sim_begin(struct sdc_remote *remote, struct sdc_transfer *transfer)
{
    (void)remote;
    assert_true(sim.count < MOST);
    sim.waiting[sim.count++] = transfer;
}

// The map with which the queue works: all pages of `remote` are reached by transfers only.
static struct sdc_map *map_of(uint32_t pages, uint32_t remote)
{
    struct sdc_map *map = guest_map_of(&f.guest, true, pages, remote, 0);

    map->remote = &sim.base;
    map->partial = sim.partial;
    return map;
}

static void use_map(uint32_t pages, uint32_t remote)
{
    struct sdc_map *map = map_of(pages, remote);

    sdc_virtio_core_set_map(f.core, map);
    sdc_map_unref(map);
    run_turns(&f, 6);
}

// Answers the n-th transfer that waits.
static void answer(unsigned n, int result)
{
    struct sdc_transfer *transfer = sim.waiting[n];

    assert_true(n < sim.count);
    memmove(&sim.waiting[n], &sim.waiting[n + 1], (--sim.count - n) * sizeof sim.waiting[0]);
    if (sim.partial)
        ;
    else if (result == 0 && transfer->write)
        assert_int_equal(sdc_memory_write(&f.guest.view, transfer->iova, transfer->data, transfer->size), 0);
    else if (result == 0)
        assert_int_equal(sdc_memory_read(&f.guest.view, transfer->iova, transfer->data, transfer->size), 0);
    sdc_transfer_finish(transfer, result);
    run_turns(&f, 8);
}

static bool is_at(unsigned n, uint64_t iova, bool write)
{
    return n < sim.count && sim.waiting[n]->iova == iova && sim.waiting[n]->write == write;
}

// Answers everything up to the first that is the one of iova. False: it did not come.
static bool answer_up_to(uint64_t iova, bool write)
{
    while (sim.count > 0) {
        if (is_at(0, iova, write))
            return true;
        answer(0, 0);
    }
    return false;
}

static void answer_all(void)
{
    while (sim.count > 0)
        answer(0, 0);
}

// --- the device ---

static struct {
    struct sdc_virtio_device device; // first
    struct sdc_virtio_request *held[8];
    unsigned held_count;
    bool hold;
    unsigned taken, faults, losses, stops;
    uint8_t seen; // the first byte that was sent
} dev;

static uint64_t dev_features(struct sdc_virtio_device *device)
{
    (void)device;
    return 0;
}

static void dev_config_read(struct sdc_virtio_device *device, uint32_t offset, void *local, uint32_t size)
{
    (void)device, (void)offset;
    memset(local, 0, size);
}

static int dev_queue_start(struct sdc_virtio_device *device, struct sdc_virtqueue *queue)
{
    (void)device, (void)queue;
    return 0;
}

static void dev_queue_stop(struct sdc_virtio_device *device, struct sdc_virtqueue *queue)
{
    (void)device, (void)queue;
    assert_int_equal(dev.held_count, 0);
    dev.stops++;
}

// Fills the room with the byte after the one that was sent.
static void finish(struct sdc_virtio_request *request)
{
    uint8_t bytes[SIZE_ROOM];

    if (request->fault) {
        dev.faults++;
        sdc_virtqueue_give(request, 0);
        return;
    }
    assert_int_equal(sdc_virtio_request_read(request, 0, &dev.seen, 1), 0);
    memset(bytes, dev.seen + 1, sizeof bytes);
    assert_int_equal(sdc_virtio_request_write(request, 0, bytes, sizeof bytes), 0);
    sdc_virtqueue_give(request, sizeof bytes);
}

static void dev_queue_work(struct sdc_virtio_device *device, struct sdc_virtqueue *queue)
{
    struct sdc_virtio_request *request;

    (void)device;
    while (sdc_virtqueue_take(queue, &request, 1) > 0) {
        dev.taken++;
        if (dev.hold)
            dev.held[dev.held_count++] = request;
        else
            finish(request);
    }
}

static void give_held(void)
{
    for (unsigned i = 0; i < dev.held_count; i++)
        finish(dev.held[i]);
    dev.held_count = 0;
    run_turns(&f, 6);
}

static uint32_t dev_queue_lost(struct sdc_virtio_device *device, struct sdc_virtio_request *request)
{
    uint8_t byte = LOST;

    (void)device;
    dev.losses++;
    assert_int_equal(sdc_virtio_request_write(request, 0, &byte, 1), 0);
    return 1;
}

static void dev_destroy(struct sdc_virtio_device *device)
{
    (void)device;
}

static const struct sdc_virtio_ops dev_ops = {
    .name = "test", .device_id = 42, .request_size = 8, .features = dev_features, .config_read = dev_config_read,
    .queue_start = dev_queue_start, .queue_stop = dev_queue_stop, .queue_work = dev_queue_work, .queue_lost = dev_queue_lost,
    .destroy = dev_destroy,
};

enum { EVERYTHING = 0xffff, DATA_ONLY = 0xfff0 }; // what is remote

static void open_queue_with(uint32_t remote, uint64_t features)
{
    memset(&dev, 0, sizeof dev);
    memset(&f, 0, sizeof f);
    memset(&sim, 0, sizeof sim);
    dev.device = (struct sdc_virtio_device){.ops = &dev_ops, .queues_count = 1, .queue_size_max = CORE_SIZE};
    assert_int_equal(sdc_loop_new(SDC_LOOP_AUTO, &f.loop, NULL), 0);
    core_open(&f, &dev.device, true);
    sim.base = (struct sdc_remote){.home = f.loop, .begin = sim_begin};
    use_map(EVERYTHING, remote);
    driver_start(&f, features);
    run_turns(&f, 4);
    answer_all(); // the index: nothing is there
}

static void open_queue(uint32_t remote)
{
    open_queue_with(remote, 0);
}

static void close_queue(void)
{
    sdc_virtio_core_reset(f.core);
    run_turns(&f, 6);
    while (sim.count > 0)
        answer(0, -ECANCELED);
    core_close(&f);
}

static void offer(uint8_t byte)
{
    static const struct part parts[] = {{SENT, SIZE_SENT, false}, {ROOM, SIZE_ROOM, true}};

    guest_put(&f.guest, SENT, byte, 1);
    guest_put(&f.guest, ROOM, 0, 1);
    driver_offer(&f, parts, 2);
}

static bool is_broken(void)
{
    return f.core->status & SDC_VIRTIO_S_NEEDS_RESET;
}

static void assert_done(uint16_t used, uint8_t byte)
{
    assert_int_equal(driver_used(&f), used);
    assert_int_equal(guest_get(&f.guest, ROOM, 1), byte);
    assert_int_equal(guest_get(&f.guest, ROOM + SIZE_ROOM - 1, 1), byte);
    assert_false(is_broken());
}

// --- the course of a request ---

static void a_completion_goes_data_element_index_interrupt(void **state)
{
    (void)state;
    open_queue(EVERYTHING);
    offer(7);
    driver_kick(&f);
    assert_true(is_at(0, CORE_DRIVER + 2, false)); // the index alone: what is behind it may be older
    assert_int_equal(sim.waiting[0]->size, 2);
    assert_true(answer_up_to(SENT, false));
    assert_int_equal(dev.taken, 0); // not before its bytes are here
    assert_true(answer_up_to(ROOM, true));
    assert_int_equal(dev.seen, 7);
    assert_int_equal(sim.waiting[0]->size, SIZE_ROOM);
    for (unsigned i = 0; i < sim.count; i++)
        assert_false(sim.waiting[i]->write && sim.waiting[i]->iova < 0x3000); // nothing of the ring before the data has arrived
    assert_true(answer_up_to(CORE_DEVICE + 4, true));
    assert_int_equal(guest_get(&f.guest, ROOM, 1), 8);
    unsigned index = 1;
    while (!is_at(index, CORE_DEVICE + 2, true))
        assert_true(++index < sim.count);
    assert_int_equal(f.interrupts, 0);
    answer(index, 0);
    assert_int_equal(f.interrupts, 0); // not before all of it was answered
    answer(0, 0);
    assert_int_equal(f.interrupts, 1);
    answer_all();
    assert_done(1, 8);
    assert_int_equal(driver_used_length(&f, 0), SIZE_ROOM);
    close_queue();
}

static void rings_here_and_data_there(void **state)
{
    (void)state;
    open_queue(DATA_ONLY);
    assert_int_equal(sim.count, 0);
    offer(1);
    driver_kick(&f);
    assert_int_equal(sim.count, 1);
    assert_true(is_at(0, SENT, false));
    answer(0, 0);
    assert_int_equal(driver_used(&f), 0);
    assert_true(is_at(0, ROOM, true));
    answer(0, 0);
    assert_done(1, 2);
    assert_int_equal(f.interrupts, 1);
    close_queue();
}

static void many_requests_one_after_the_other_and_at_once(void **state)
{
    (void)state;
    open_queue(EVERYTHING);
    for (uint16_t round = 0; round < 100; round++) {
        unsigned batch = round % 3 + 1;
        for (unsigned i = 0; i < batch; i++)
            offer((uint8_t)round);
        driver_kick(&f);
        answer_all();
        assert_done(f.avail, (uint8_t)(round + 1));
    }
    assert_int_equal(dev.taken, f.avail);
    close_queue();
}

// Made available while the index was on its way: the kick comes when nobody looks.
static void a_kick_while_something_is_fetched_is_not_lost(void **state)
{
    (void)state;
    open_queue(EVERYTHING);
    driver_kick(&f);
    assert_true(is_at(0, CORE_DRIVER + 2, false));
    struct sdc_transfer *old = sim.waiting[0];
    assert_int_equal(sdc_memory_read(&f.guest.view, old->iova, old->data, old->size), 0);
    offer(3);
    driver_kick(&f);
    sim.count = 0;
    sdc_transfer_finish(old, 0); // says that nothing is there
    run_turns(&f, 8);
    answer_all();
    assert_done(1, 4);
    close_queue();
}

// --- what fails ---

static void a_ring_that_cannot_be_read_or_written_breaks_the_queue(void **state)
{
    static const struct {
        uint64_t iova;
        bool write;
    } cases[] = {{CORE_DRIVER + 2, false}, {CORE_DRIVER + 4, false}, {CORE_DEVICE + 4, true}, {CORE_DEVICE + 2, true}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        open_queue(EVERYTHING);
        offer(1);
        driver_kick(&f);
        while (!is_at(0, cases[i].iova, cases[i].write))
            answer(0, 0);
        answer(0, -EIO);
        assert_true(is_broken());
        answer_all();
        sdc_virtio_core_set_status(f.core, 0); // a reset heals it
        run_turns(&f, 6);
        driver_start(&f, 0);
        offer(5);
        driver_kick(&f);
        answer_all();
        assert_done(1, 6);
        close_queue();
    }
}

static void bytes_that_cannot_be_fetched_are_a_fault_of_the_request(void **state)
{
    (void)state;
    open_queue(EVERYTHING);
    offer(1);
    driver_kick(&f);
    assert_true(answer_up_to(SENT, false));
    answer(0, -EIO);
    assert_int_equal(dev.faults, 1);
    answer_all();
    assert_int_equal(driver_used(&f), 1);
    assert_false(is_broken());
    close_queue();
}

static void bytes_that_cannot_be_stored_are_told_to_the_device_once(void **state)
{
    (void)state;
    for (unsigned again = 0; again < 2; again++) {
        open_queue(EVERYTHING);
        offer(1);
        driver_kick(&f);
        assert_true(answer_up_to(ROOM, true));
        answer(0, -EIO);
        assert_int_equal(dev.losses, 1);
        assert_true(answer_up_to(ROOM, true));
        assert_int_equal(sim.waiting[0]->size, 1);
        answer(0, again ? -EIO : 0);
        answer_all();
        assert_int_equal(dev.losses, 1);
        assert_int_equal(driver_used(&f), 1);
        assert_int_equal(driver_used_length(&f, 0), 1);
        assert_int_equal(guest_get(&f.guest, ROOM, 1), again ? 0 : LOST);
        close_queue();
    }
}

// --- orders that come while transfers are out: none of them waits ---

// Where a request can stand: up to which transfer everything was answered.
static const struct {
    uint64_t iova;
    bool write;
} stations[] = {
    {CORE_DRIVER + 2, false}, {CORE_DRIVER + 4, false}, {CORE_DESC, false}, {SENT, false}, {ROOM, true}, {CORE_DEVICE + 4, true}};
enum { STATIONS = sizeof stations / sizeof stations[0], BEFORE_THE_ELEMENT = STATIONS - 1 };

static void stop_at(unsigned station)
{
    offer(1);
    driver_kick(&f);
    assert_true(answer_up_to(stations[station].iova, stations[station].write));
}

static void a_reset_waits_for_no_transfer(void **state)
{
    (void)state;
    for (unsigned station = 0; station < STATIONS; station++) {
        open_queue(EVERYTHING);
        stop_at(station);
        sdc_virtio_core_set_status(f.core, 0);
        run_turns(&f, 4);
        assert_false(sdc_virtio_core_busy(f.core));
        assert_int_equal(f.core->status, 0);
        assert_int_equal(dev.stops, 1);
        for (unsigned i = 0; i < sim.count; i++)
            assert_true(atomic_load(&sim.waiting[i]->dropped)); // so that nothing more of them is sent
        // The driver goes on; then the orphans are answered, and nobody notices.
        unsigned orphans = sim.count;
        driver_start(&f, 0);
        offer(9);
        driver_kick(&f);
        unsigned interrupts = f.interrupts;
        while (orphans-- > 0) {
            struct sdc_transfer *orphan = sim.waiting[0];
            memmove(&sim.waiting[0], &sim.waiting[1], --sim.count * sizeof sim.waiting[0]);
            memset(orphan->data, 0xbb, orphan->write ? 0 : orphan->size);
            sdc_transfer_finish(orphan, 0);
            run_turns(&f, 4);
        }
        assert_int_equal(f.interrupts, interrupts);
        answer_all();
        assert_done(1, 10);
        close_queue();
    }
}

static void a_reset_waits_for_the_device_and_brings_nothing_afterwards(void **state)
{
    (void)state;
    open_queue(EVERYTHING);
    dev.hold = true;
    offer(1);
    driver_kick(&f);
    answer_all();
    assert_int_equal(dev.held_count, 1);
    sdc_virtio_core_set_status(f.core, 0);
    run_turns(&f, 6);
    assert_true(sdc_virtio_core_busy(f.core));
    give_held();
    assert_false(sdc_virtio_core_busy(f.core));
    assert_int_equal(sim.count, 0);
    close_queue();
}

// Other memory changes; the ring stays.
static void a_remap_beside_the_ring_waits_for_no_transfer(void **state)
{
    (void)state;
    for (unsigned station = 0; station < STATIONS; station++) {
        open_queue(EVERYTHING);
        stop_at(station);
        use_map(EVERYTHING & ~0x8000, EVERYTHING);
        assert_false(sdc_virtio_core_busy(f.core));
        if (station < 3) { // what the parser was to get is from another time
            struct sdc_transfer *old = sim.waiting[0];
            assert_true(atomic_load(&old->dropped));
            memmove(&sim.waiting[0], &sim.waiting[1], --sim.count * sizeof sim.waiting[0]);
            memset(old->data, 0xbb, old->size);
            sdc_transfer_finish(old, 0);
            run_turns(&f, 8);
        }
        answer_all();
        assert_done(1, 2);
        assert_int_equal(dev.taken, 1);
        close_queue();
    }
}

// All of memory goes away and comes back: requests go on where they were, none is lost, none is done twice.
static void requests_outlast_the_absence_of_all_memory(void **state)
{
    (void)state;
    for (unsigned station = 0; station < BEFORE_THE_ELEMENT; station++) {
        for (unsigned answered = 0; answered < 2; answered++) {
            open_queue(EVERYTHING);
            stop_at(station);
            use_map(0, 0);
            assert_false(sdc_virtio_core_busy(f.core));
            for (unsigned i = 0; i < sim.count; i++)
                assert_true(atomic_load(&sim.waiting[i]->dropped));
            unsigned orphans = sim.count;
            while (answered && orphans-- > 0) // while it is away, or after it is back
                answer(0, -ECANCELED);
            assert_int_equal(driver_used(&f), 0);
            use_map(EVERYTHING, EVERYTHING);
            assert_false(sdc_virtio_core_busy(f.core));
            while (!answered && orphans-- > 0)
                answer(0, -ECANCELED);
            answer_all();
            assert_done(1, 2);
            assert_int_equal(dev.taken, 1);
            offer(4);
            driver_kick(&f);
            answer_all();
            assert_done(2, 5);
            close_queue();
        }
    }
}

static void requests_wait_until_all_of_their_memory_is_back(void **state)
{
    (void)state;
    for (unsigned station = 3; station < BEFORE_THE_ELEMENT; station++) { // the others have not been taken
        open_queue(EVERYTHING);
        stop_at(station);
        use_map(0, 0);
        while (sim.count > 0)
            answer(0, -ECANCELED);
        for (uint32_t pages = 0x7; pages != EVERYTHING; pages = pages << 1 | 1) {
            bool back = pages >> (SENT / GUEST_PAGE) & 1 && pages >> (ROOM / GUEST_PAGE) & 1;
            use_map(pages, pages);
            answer_all();
            assert_int_equal(driver_used(&f), back);
        }
        assert_done(1, 2);
        close_queue();
    }
}

// The device works in memory of ours meanwhile: nobody waits for it either.
static void memory_may_go_away_while_the_device_has_a_bounced_request(void **state)
{
    (void)state;
    for (unsigned late = 0; late < 2; late++) {
        for (unsigned ring_here = 0; ring_here < 2; ring_here++) {
            open_queue(ring_here ? DATA_ONLY : EVERYTHING);
            dev.hold = true;
            offer(1);
            driver_kick(&f);
            answer_all();
            assert_int_equal(dev.held_count, 1);
            use_map(0, 0);
            assert_false(sdc_virtio_core_busy(f.core));
            if (!late)
                give_held();
            assert_int_equal(sim.count, 0);
            use_map(EVERYTHING, ring_here ? DATA_ONLY : EVERYTHING);
            if (late)
                give_held();
            answer_all();
            assert_done(1, 2);
            close_queue();
        }
    }
}

// Nor for a request that is done and waits for the turn of such a one.
static void memory_may_go_away_while_requests_wait_for_their_turn(void **state)
{
    (void)state;
    for (unsigned late = 0; late < 2; late++) {
        for (unsigned ring_here = 0; ring_here < 2; ring_here++) {
            open_queue_with(ring_here ? DATA_ONLY : EVERYTHING, SDC_VIRTIO_F_IN_ORDER);
            dev.hold = true;
            offer(1);
            offer(1);
            driver_kick(&f);
            answer_all();
            assert_int_equal(dev.held_count, 2);
            finish(dev.held[--dev.held_count]); // the second one
            run_turns(&f, 6);
            answer_all();
            assert_int_equal(driver_used(&f), 0);
            use_map(0, 0);
            assert_false(sdc_virtio_core_busy(f.core));
            if (!late)
                give_held();
            use_map(EVERYTHING, ring_here ? DATA_ONLY : EVERYTHING);
            if (late)
                give_held();
            answer_all();
            assert_done(2, 2);
            assert_int_equal(driver_used_head(&f, 0), 0);
            assert_int_equal(driver_used_head(&f, 1), 2);
            close_queue();
        }
    }
}

// Buffers in memory that is mapped here are the device's until it gives them back.
static void memory_does_not_go_away_under_the_device(void **state)
{
    (void)state;
    open_queue(0x7); // the ring is remote
    dev.hold = true;
    offer(1);
    driver_kick(&f);
    answer_all();
    assert_int_equal(dev.held_count, 1);
    use_map(0, 0);
    assert_true(sdc_virtio_core_busy(f.core));
    give_held();
    assert_false(sdc_virtio_core_busy(f.core));
    answer_all(); // the element and the index: they were begun before the memory went
    assert_done(1, 2);
    use_map(EVERYTHING, 0x7);
    answer_all();
    close_queue();
}

static void a_reset_forgets_requests_that_were_put_aside(void **state)
{
    (void)state;
    for (unsigned station = 0; station < BEFORE_THE_ELEMENT; station++) {
        open_queue(EVERYTHING);
        stop_at(station);
        use_map(0, 0);
        sdc_virtio_core_set_status(f.core, 0);
        run_turns(&f, 6);
        assert_false(sdc_virtio_core_busy(f.core));
        while (sim.count > 0)
            answer(0, -ECANCELED);
        use_map(EVERYTHING, EVERYTHING);
        assert_int_equal(sim.count, 0);
        close_queue();
    }
}

// --- what is there for the asking ---

static uint32_t page_of(uint64_t iova)
{
    return UINT32_C(1) << iova / GUEST_PAGE;
}

// A queue whose map has none of its areas: it was idle, and asks for nothing before it is notified.
static void open_partial(void)
{
    open_queue(0);
    sim.partial = true;
    use_map(0, 0);
    use_map(0, 0);
    assert_int_equal(sim.count, 0);
    driver_kick(&f);
    assert_int_equal(sim.count, 1);
}

// Gives what is asked for until nothing is.
static uint32_t give_from(uint32_t pages)
{
    for (unsigned asked = 0; sim.count > 0; asked++) {
        assert_true(asked < 16);
        pages |= page_of(sim.waiting[0]->iova);
        use_map(pages, 0);
        answer(0, 0);
    }
    return pages;
}

static void a_ring_is_asked_for_then_what_its_requests_need(void **state)
{
    (void)state;
    open_partial();
    assert_true(is_at(0, CORE_DESC, false));
    uint32_t pages = give_from(0);
    assert_true(pages & page_of(CORE_DRIVER) && pages & page_of(CORE_DEVICE) && !(pages & page_of(SENT)));
    offer(5);
    driver_kick(&f);
    assert_true(is_at(0, SENT, false));
    assert_int_equal(sim.waiting[0]->size, SIZE_SENT);
    assert_int_equal(dev.taken, 0);
    use_map(pages | page_of(SENT), 0);
    answer(0, 0);
    assert_true(is_at(0, ROOM, true));
    give_from(pages | page_of(SENT));
    assert_done(1, 6);
    close_queue();
}

static void another_map_in_the_meantime_asks_nothing_twice(void **state)
{
    (void)state;
    open_partial();
    uint32_t pages = give_from(0);
    offer(5);
    driver_kick(&f);
    assert_int_equal(sim.count, 1);
    for (unsigned i = 0; i < 4; i++) {
        use_map(pages, 0);
        driver_kick(&f);
        assert_int_equal(sim.count, 1);
    }
    give_from(pages);
    assert_done(1, 6);
    close_queue();
}

static void what_is_denied_fails_the_request_and_is_asked_for_by_the_next(void **state)
{
    (void)state;
    open_partial();
    uint32_t pages = give_from(0);
    for (unsigned round = 1; round <= 3; round++) {
        offer(5);
        driver_kick(&f);
        assert_true(is_at(0, SENT, false));
        answer(0, -EFAULT);
        pages = give_from(pages);
        assert_int_equal(dev.faults, round);
        assert_int_equal(driver_used(&f), round);
    }
    assert_false(is_broken());
    close_queue();
}

static void a_ring_that_is_denied_sleeps_until_the_next_kick(void **state)
{
    (void)state;
    open_partial();
    answer(0, -EFAULT);
    assert_int_equal(sim.count, 0);
    driver_kick(&f);
    assert_int_equal(sim.count, 1);
    give_from(0);
    assert_false(is_broken());
    close_queue();
}

// What came while the change of memory waited for the device is found.
static void a_ring_that_is_lost_with_work_to_do_is_asked_for_at_once(void **state)
{
    (void)state;
    open_queue(0);
    sim.partial = true;
    dev.hold = true;
    offer(1);
    driver_kick(&f);
    assert_int_equal(dev.held_count, 1);
    use_map(0, 0);
    assert_true(sdc_virtio_core_busy(f.core));
    offer(5);
    driver_kick(&f);
    give_held();
    assert_false(sdc_virtio_core_busy(f.core));
    dev.hold = false;
    assert_int_equal(sim.count, 1);
    give_from(0);
    assert_done(2, 6);
    close_queue();
}

static void a_stop_waits_for_no_answer(void **state)
{
    (void)state;
    for (unsigned station = 0; station < 2; station++) {
        open_partial();
        if (station == 1) {
            give_from(0);
            offer(5);
            driver_kick(&f);
        }
        assert_int_equal(sim.count, 1);
        sdc_virtio_core_reset(f.core);
        run_turns(&f, 6);
        assert_false(sdc_virtio_core_busy(f.core));
        assert_true(atomic_load(&sim.waiting[0]->dropped));
        close_queue();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_completion_goes_data_element_index_interrupt),
        cmocka_unit_test(rings_here_and_data_there),
        cmocka_unit_test(many_requests_one_after_the_other_and_at_once),
        cmocka_unit_test(a_kick_while_something_is_fetched_is_not_lost),
        cmocka_unit_test(a_ring_that_cannot_be_read_or_written_breaks_the_queue),
        cmocka_unit_test(bytes_that_cannot_be_fetched_are_a_fault_of_the_request),
        cmocka_unit_test(bytes_that_cannot_be_stored_are_told_to_the_device_once),
        cmocka_unit_test(a_reset_waits_for_no_transfer),
        cmocka_unit_test(a_reset_waits_for_the_device_and_brings_nothing_afterwards),
        cmocka_unit_test(a_remap_beside_the_ring_waits_for_no_transfer),
        cmocka_unit_test(requests_outlast_the_absence_of_all_memory),
        cmocka_unit_test(requests_wait_until_all_of_their_memory_is_back),
        cmocka_unit_test(memory_may_go_away_while_the_device_has_a_bounced_request),
        cmocka_unit_test(memory_may_go_away_while_requests_wait_for_their_turn),
        cmocka_unit_test(memory_does_not_go_away_under_the_device),
        cmocka_unit_test(a_reset_forgets_requests_that_were_put_aside),
        cmocka_unit_test(a_ring_is_asked_for_then_what_its_requests_need),
        cmocka_unit_test(another_map_in_the_meantime_asks_nothing_twice),
        cmocka_unit_test(what_is_denied_fails_the_request_and_is_asked_for_by_the_next),
        cmocka_unit_test(a_ring_that_is_denied_sleeps_until_the_next_kick),
        cmocka_unit_test(a_ring_that_is_lost_with_work_to_do_is_asked_for_at_once),
        cmocka_unit_test(a_stop_waits_for_no_answer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
