// SPDX-License-Identifier: BSD-3-Clause
// A driver in one thread and a device in another, with nothing between them but a ring, notifications and interrupts: they hang when one is
// lost. First the rings' own halves, whose sleeping is only another kind of looking: no system call is there to put in order what the
// barriers should, and there are some million chances a second to lose a notification. Then a queue on its loop, with its windows.
// `--requests=N` does so for longer.
#include "queue_fixture.h"

#include "base/check.h"
#include "os/clock.h"
#include "os/fd.h"
#include "os/wait.h"
#include "transport/common/virtqueue.h"

#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

enum { SIZE = 32, BATCH = 16, PATIENCE_MS = 60000, REST = 400 };

static unsigned requests = 6000; // of a loop's queue; rings have RING_TIMES as many, or what fits into 200 ms for each thousand

// --- the two halves of a ring ---

enum { RING_TIMES = 40, LOOKS = 3000 };

// A notification or an interrupt. Who sleeps looks for one.
struct signal {
    _Alignas(64) _Atomic bool there;
};

struct halves {
    struct pair pair;
    struct signal kick, call;
    _Alignas(64) _Atomic bool over;
    _Atomic bool lost;
    struct sdc_chain chains[BATCH];
    uint64_t kicks, calls;
};

static uint32_t dice(uint32_t *seed, uint32_t below)
{
    *seed = *seed * 1103515245 + 12345;
    return (*seed >> 8) % below;
}

static void rest(unsigned rounds)
{
    for (volatile unsigned i = 0; i < rounds; i++)
        continue;
}

// False: none comes, or it is over.
static bool sleep_until(struct halves *halves, struct signal *signal)
{
    uint64_t begun = 0;

    for (unsigned looks = 1; !atomic_load_explicit(&signal->there, memory_order_relaxed); looks++) {
        if (looks % LOOKS != 0)
            continue;
        if (atomic_load(&halves->over))
            return false;
        sched_yield(); // there may be one processor for the two
        begun = begun ? begun : sdc_clock_ns();
        if (sdc_clock_ns() - begun < PATIENCE_MS * UINT64_C(1000000))
            continue;
        atomic_store(&halves->lost, true);
        atomic_store(&halves->over, true);
        return false;
    }
    atomic_exchange(&signal->there, false);
    return true;
}

// Looks a few times after it has found nothing, then sleeps: as a queue whose window is over.
static void *device_half(void *context)
{
    struct halves *halves = context;
    struct sdc_ring *ring = &halves->pair.ring;
    uint32_t seed = 1;
    bool awake = true;

    while (awake && !atomic_load_explicit(&halves->over, memory_order_relaxed)) {
        unsigned batch = 0;
        sdc_ring_suppress(ring);
        for (unsigned looks = dice(&seed, 30); looks > 0 && !sdc_ring_look(ring); looks--)
            continue;
        while (batch < BATCH && sdc_ring_take(ring, &halves->chains[batch]) == 1)
            batch++;
        for (unsigned i = 0; i < batch; i++)
            sdc_ring_give(ring, &halves->chains[i], 0);
        if (sdc_ring_publish(ring)) {
            atomic_store_explicit(&halves->call.there, true, memory_order_release);
            halves->calls++;
        }
        if (batch == 0 && !sdc_ring_rearm(ring))
            awake = sleep_until(halves, &halves->kick);
    }
    return NULL;
}

// It makes no more requests than it wants until one has come back: the next one's notification would wake the device, and hide that one was
// lost.
static uint64_t driver_half(struct halves *halves)
{
    struct sdc_driver_queue *driver = halves->pair.driver;
    uint64_t wanted = (uint64_t)requests * RING_TIMES, sent = 0, done = 0, depth = 1;
    uint64_t end = sdc_clock_ns() + requests * UINT64_C(200000);
    uint32_t seed = 2;
    bool awake = true;

    while (awake && done < wanted && (done % 1024 != 0 || sdc_clock_ns() < end)) {
        struct sdc_driver_used used[BATCH];
        if (sent - done < depth) {
            rest(dice(&seed, 60));
            add_one(&halves->pair);
            sent++;
            if (sdc_driver_queue_publish(driver)) {
                atomic_store_explicit(&halves->kick.there, true, memory_order_release);
                halves->kicks++;
            }
            continue;
        }
        int count = sdc_driver_queue_take(driver, used, BATCH);
        done += (uint64_t)count;
        if (count > 0) {
            depth = dice(&seed, 2) ? 1 : 1 + dice(&seed, 4);
        } else if (dice(&seed, 8) == 0 && sdc_driver_queue_arm(driver)) {
            awake = sleep_until(halves, &halves->call);
            sdc_driver_queue_disarm(driver);
        }
    }
    atomic_store(&halves->over, true);
    return done;
}

static void no_barrier_is_missing(void **state)
{
    for (unsigned set = 0; set < 2; set++) {
        struct halves *halves = aligned_alloc(64, (sizeof *halves + 63) / 64 * 64);
        pthread_t thread;
        memset(halves, 0, sizeof *halves);
        open_pair(&halves->pair, SIZE, features_of(state, set), 0);
        for (unsigned i = 0; i < BATCH; i++)
            sdc_chain_init(&halves->chains[i]);
        assert_int_equal(pthread_create(&thread, NULL, device_half, halves), 0);
        uint64_t done = driver_half(halves);
        pthread_join(thread, NULL);
        if (atomic_load(&halves->lost))
            fail_msg("%" PRIu64 " requests, %" PRIu64 " kicks and %" PRIu64 " interrupts, then both sleep", done, halves->kicks,
                     halves->calls);
        assert_true(halves->kicks > 0 && halves->calls > 0);
        for (unsigned i = 0; i < BATCH; i++)
            sdc_chain_destroy(&halves->chains[i]);
        close_pair(&halves->pair);
        free(halves);
    }
}

// --- a queue on its loop ---

struct stress {
    struct pair pair; // its ring is not used: the queue has its own
    struct sdc_virtqueue queue;
    struct sdc_virtio_device device;
    struct sdc_loop *loop;
    int kick, call;
    _Atomic unsigned obeyed;
    _Atomic bool broke;
    unsigned kicks, waits;
};

static struct stress *stress_of(struct sdc_virtqueue *queue)
{
    return sdc_container(queue, struct stress, queue);
}

// --- the device: gives back what it takes ---

static int start_nothing(struct sdc_virtio_device *device, struct sdc_virtqueue *queue)
{
    (void)device, (void)queue;
    return 0;
}

static void stop_nothing(struct sdc_virtio_device *device, struct sdc_virtqueue *queue)
{
    (void)device, (void)queue;
}

static void give_back(struct sdc_virtio_device *device, struct sdc_virtqueue *queue)
{
    struct sdc_virtio_request *taken[BATCH];
    unsigned count;

    (void)device;
    while ((count = sdc_virtqueue_take(queue, taken, BATCH)) > 0) {
        for (unsigned i = 0; i < count; i++)
            sdc_virtqueue_give(taken[i], 0);
    }
}

static const struct sdc_virtio_ops device_ops = {
    .name = "stress", .queue_start = start_nothing, .queue_stop = stop_nothing, .queue_work = give_back};

// --- the queue's side ---

static void obeyed(struct sdc_virtqueue *queue)
{
    atomic_fetch_add(&stress_of(queue)->obeyed, 1);
}

static void interrupt(struct sdc_virtqueue *queue)
{
    sdc_eventfd_signal(stress_of(queue)->call);
}

static void broke(struct sdc_virtqueue *queue, const char *reason)
{
    print_message("the queue broke: %s\n", reason);
    atomic_store(&stress_of(queue)->broke, true);
}

static void *run_loop(void *loop)
{
    sdc_loop_run(loop);
    return NULL;
}

static void order(struct stress *stress, enum sdc_virtqueue_order what)
{
    unsigned before = atomic_load(&stress->obeyed);

    stress->queue.order = what;
    sdc_virtqueue_send(&stress->queue);
    for (unsigned i = 0; atomic_load(&stress->obeyed) == before && i < PATIENCE_MS; i++)
        sdc_wait_fd(-1, 0, 1);
    assert_int_equal(atomic_load(&stress->obeyed), before + 1);
}

static void begin(struct stress *stress, uint64_t features, enum sdc_poll_mode mode, uint64_t max_ns)
{
    struct pair *pair = &stress->pair;

    open_pair(pair, SIZE, features, 0);
    assert_int_equal(sdc_loop_new(SDC_LOOP_AUTO, &stress->loop, NULL), 0);
    stress->kick = sdc_eventfd_new(), stress->call = sdc_eventfd_new();
    stress->device.ops = &device_ops;
    stress->queue = (struct sdc_virtqueue){.device = &stress->device, .loop = stress->loop, .obeyed = obeyed, .interrupt = interrupt,
                                           .broke = broke, .poll_mode = mode, .poll_max_ns = max_ns};
    sdc_virtqueue_init(&stress->queue);
    stress->queue.kick_fd = stress->kick;
    stress->queue.config = pair->ring.config;
    stress->queue.map = sdc_map_ref(pair->map);
}

static void end(struct stress *stress)
{
    sdc_loop_free(stress->loop);
    close_pair(&stress->pair);
    sdc_fd_close(&stress->kick);
    sdc_fd_close(&stress->call);
}

// --- the driver's side ---

// Sleeps until an interrupt. False: none came.
static bool wait_for_interrupt(struct stress *stress)
{
    bool came = true;

    if (sdc_driver_queue_arm(stress->pair.driver)) {
        came = sdc_wait_fd(stress->call, SDC_WAIT_INPUT, PATIENCE_MS) > 0;
        sdc_eventfd_take(stress->call);
        stress->waits++;
    }
    sdc_driver_queue_disarm(stress->pair.driver);
    return came;
}

// Looks for a while, as the queue does, and sleeps then, or at once. It makes no more requests than it wants until one has come back:
// the next one's notification would wake the queue and hide that one was lost.
static bool drive(struct stress *stress, uint32_t seed)
{
    struct sdc_driver_queue *driver = stress->pair.driver;
    unsigned sent = 0, done = 0, looks = 0, depth = 1;

    while (done < requests && !atomic_load(&stress->broke)) {
        struct sdc_driver_used used[BATCH];
        if (sent < requests && sent - done < depth) {
            add_one(&stress->pair);
            sent++;
            if (sdc_driver_queue_publish(driver)) {
                sdc_eventfd_signal(stress->kick);
                stress->kicks++;
            }
        }
        int count = sdc_driver_queue_take(driver, used, BATCH);
        assert_true(count >= 0);
        done += (unsigned)count;
        if (count > 0) {
            rest(dice(&seed, REST));
            looks = 0;
            depth = dice(&seed, 2) ? 1 : 1 + dice(&seed, 4);
        } else if (done < sent && ++looks > dice(&seed, 400)) {
            if (!wait_for_interrupt(stress))
                return false;
            looks = 0;
        }
    }
    return done == requests;
}

static void run_stress(uint64_t features, enum sdc_poll_mode mode, uint64_t max_ns)
{
    struct stress *stress = calloc(1, sizeof *stress);
    pthread_t thread;

    begin(stress, features, mode, max_ns);
    assert_int_equal(pthread_create(&thread, NULL, run_loop, stress->loop), 0);
    order(stress, SDC_VIRTQUEUE_START);
    bool well = drive(stress, (uint32_t)max_ns + 1);
    if (well)
        order(stress, SDC_VIRTQUEUE_STOP);
    sdc_loop_stop(stress->loop);
    pthread_join(thread, NULL);
    if (!well)
        fail_msg("a notification or an interrupt is lost: %u kicks, %u waits", stress->kicks, stress->waits);
    if (mode == SDC_POLL_ALWAYS)
        assert_in_range(stress->kicks, 0, requests / 100 + 10); // those before it says that it need not be notified
    end(stress);
    free(stress);
}

static void no_notification_is_lost(void **state)
{
    for (unsigned set = 0; set < 2; set++) {
        run_stress(features_of(state, set), SDC_POLL_NEVER, 0);
        run_stress(features_of(state, set), SDC_POLL_ADAPTIVE, 5000);
        run_stress(features_of(state, set), SDC_POLL_ADAPTIVE, 50000);
        run_stress(features_of(state, set), SDC_POLL_ALWAYS, 0);
    }
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        BOTH(no_barrier_is_missing),
        BOTH(no_notification_is_lost),
    };
    if (argc == 2 && strncmp(argv[1], "--requests=", 11) == 0)
        requests = (unsigned)strtoul(argv[1] + 11, NULL, 10);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
