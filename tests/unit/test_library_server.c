// SPDX-License-Identifier: BSD-3-Clause
// The public server: what it refuses, how it starts and ends, several of them in one process and in one loop of the caller's, and a virtio
// device over both transports.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "library_card.h"

#include <sidecard/vhost.h>

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// --- a virtio device that does nothing, and counts ---

struct nothing {
    struct sdc_virtio_device device;
    struct sdc_post post;
    struct sdc_timer timer;
    atomic_uint posts, ticks;
    atomic_uint *destroyed;
};

static void nothing_work(struct sdc_virtio_device *device, struct sdc_virtqueue *queue)
{
    (void)device, (void)queue;
}

static void nothing_destroy(struct sdc_virtio_device *device)
{
    struct nothing *nothing = (struct nothing *)(void *)device;

    atomic_fetch_add(nothing->destroyed, 1);
    free(nothing);
}

static const struct sdc_virtio_ops nothing_ops = {
    .name = "nothing", .device_id = 4, .pci_class = 0x088000, .queue_work = nothing_work, .destroy = nothing_destroy};

static struct nothing *nothing_new(atomic_uint *destroyed)
{
    struct nothing *nothing = calloc(1, sizeof *nothing);

    assert_non_null(nothing);
    nothing->device = (struct sdc_virtio_device){.ops = &nothing_ops, .queues_count = 1, .queue_size_max = 64};
    nothing->destroyed = destroyed;
    return nothing;
}

struct place {
    char folder[32];
    char path[64];
};

static void make_place(struct place *place)
{
    strcpy(place->folder, "/tmp/sidecard-lib.XXXXXX");
    assert_non_null(mkdtemp(place->folder));
    snprintf(place->path, sizeof place->path, "%s/s", place->folder);
}

static void remove_place(const struct place *place)
{
    char lock[80];

    snprintf(lock, sizeof lock, "%s.lock", place->path);
    unlink(lock);
    assert_int_equal(rmdir(place->folder), 0);
}

static struct sdc_server *new_server(const struct sdc_server_options *options)
{
    struct sdc_server *server = NULL;
    struct sdc_error err = {0};

    if (sdc_server_new(options, &server, &err) < 0)
        fail_msg("%s", err.text);
    return server;
}

// --- what is refused ---

static void bad_options_are_refused(void **state)
{
    struct sdc_server *server;
    struct sdc_error err = {0};

    (void)state;
    assert_int_equal(sdc_server_new(&(struct sdc_server_options){.threads = 65}, &server, &err), -EINVAL);
    assert_non_null(strstr(err.text, "65"));
    assert_int_equal(err.fault, SDC_FAULT_USER);
}

// Whatever is wrong, the device is destroyed.
static void devices_that_are_refused_are_destroyed(void **state)
{
    static const struct {
        const char *socket;
        struct sdc_socket_options options;
        int code;
        const char *text;
    } rows[] = {
        {"nfs:/tmp/s", {0}, -EINVAL, "nfs"},
        {"", {0}, -EINVAL, "path"},
        {"fd:x", {0}, -EINVAL, "fd:"},
        {"vfio-user:/nowhere/s", {0}, -ENOENT, "/nowhere/s"},
        {"/tmp/s", {.connect = true}, -EINVAL, "connect"},
    };
    struct sdc_server *server = new_server(NULL);
    atomic_uint destroyed = 0;

    (void)state;
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct sdc_error err = {0};
        struct nothing *nothing = nothing_new(&destroyed);
        assert_int_equal(sdc_server_add_virtio(server, rows[i].socket, &nothing->device, &rows[i].options, &err), rows[i].code);
        assert_non_null(strstr(err.text, rows[i].text));
        assert_int_equal(destroyed, i + 1);
        atomic_bool card_destroyed = false;
        assert_int_equal(sdc_server_add_pci(server, rows[i].socket, card_new(&card_destroyed, true), &rows[i].options, NULL), rows[i].code);
        assert_true(card_destroyed);
    }
    atomic_bool card_destroyed = false;
    struct sdc_error err = {0};
    assert_int_equal(sdc_server_add_pci(server, "vhost-user:/tmp/s", card_new(&card_destroyed, true), NULL, &err), -EINVAL);
    assert_non_null(strstr(err.text, "vhost-user"));
    assert_true(card_destroyed);
    struct nothing *nothing = nothing_new(&destroyed);
    nothing->device.queue_size_max = 48;
    assert_int_equal(sdc_server_add_virtio(server, "/tmp/s", &nothing->device, NULL, &err), -EINVAL);
    assert_non_null(strstr(err.text, "48"));
    sdc_server_free(server);
    sdc_server_free(NULL);
}

static void fini_and_free(struct sdc_pci_device *device)
{
    sdc_pci_fini(device);
}

static void fini_and_forget(struct sdc_pci_device *device)
{
    sdc_pci_fini(device);
    free(device);
}

static int try_device(const struct sdc_pci_bar bars[6], struct sdc_error *err)
{
    static const struct sdc_pci_ops ops = {.name = "x", .destroy = fini_and_free};
    static const struct sdc_pci_identity identity = {.vendor = 1, .device = 2};
    struct sdc_pci_device *device = calloc(1, sizeof *device);

    assert_non_null(device);
    memcpy(device->bars, bars, sizeof device->bars);
    int rc = sdc_pci_init(device, &ops, &identity, err);
    sdc_pci_fini(device);
    free(device);
    return rc;
}

static void bars_that_cannot_be_are_refused(void **state)
{
    static const struct {
        struct sdc_pci_bar bars[6];
        int code;
    } rows[] = {
        {{{0}}, 0},
        {{{.size = 16}}, 0},
        {{{.size = 8}}, -EINVAL},
        {{{.size = 0x1800}}, -EINVAL},
        {{{.size = UINT64_C(1) << 31}}, 0},
        {{{.size = UINT64_C(1) << 32}}, -EINVAL},
        {{{.size = UINT64_C(1) << 32, .is_64bit = true}}, 0},
        {{{.size = 4096, .is_64bit = true}, {.size = 4096}}, -EINVAL},
        {{{0}, {0}, {0}, {0}, {0}, {.size = 4096, .is_64bit = true}}, -EINVAL},
        {{{0}, {0}, {0}, {0}, {.size = 4096, .is_64bit = true}}, 0},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct sdc_error err = {0};
        assert_int_equal(try_device(rows[i].bars, &err), rows[i].code);
        assert_int_equal(err.code, rows[i].code);
    }
}

static void parts_that_do_not_fit_are_refused(void **state)
{
    static const struct sdc_pci_ops ops = {.name = "x", .destroy = fini_and_free};
    static const struct sdc_pci_identity identity = {.vendor = 1, .device = 2};
    struct sdc_pci_device *device = calloc(1, sizeof *device);
    struct sdc_error err;
    uint32_t offset;
    void *memory;

    (void)state;
    assert_non_null(device);
    device->bars[0] = (struct sdc_pci_bar){.size = 0x4000, .is_64bit = true};
    assert_int_equal(sdc_pci_init(device, &ops, &identity, &err), 0);
    assert_int_equal(sdc_pci_add_msix(device, 0, 2, &err), -EINVAL);
    assert_int_equal(sdc_pci_add_msix(device, 2049, 2, &err), -EINVAL);
    assert_int_equal(sdc_pci_add_msix(device, 1, 0, &err), -EINVAL);
    assert_int_equal(sdc_pci_add_msix(device, 1, 1, &err), -EINVAL); // the upper half of BAR 0
    assert_int_equal(sdc_pci_add_msix(device, 1, 6, &err), -EINVAL);
    assert_int_equal(sdc_pci_add_msix(device, 2048, 2, &err), 0);
    assert_int_equal(device->bars[2].size, 0x10000);
    assert_int_equal(sdc_pci_add_msix(device, 1, 3, &err), -EINVAL);
    assert_int_equal(sdc_pci_add_msi(device, 3, &err), -EINVAL);
    assert_int_equal(sdc_pci_add_msi(device, 64, &err), -EINVAL);
    assert_int_equal(sdc_pci_add_memory(device, 2, 0, 0, &memory, &err), -EINVAL);
    assert_int_equal(sdc_pci_add_memory(device, 1, 0, 0, &memory, &err), -EINVAL);
    assert_int_equal(sdc_pci_add_memory(device, 7, 0, 0, &memory, &err), -EINVAL);
    assert_int_equal(sdc_pci_add_memory(device, 0, 0x100, 0x1000, &memory, &err), -EINVAL);
    assert_int_equal(sdc_pci_add_memory(device, 0, 0x3000, 0x2000, &memory, &err), -EINVAL);
    assert_int_equal(sdc_pci_add_memory(device, 0, 0x4000, 0, &memory, &err), -EINVAL);
    assert_int_equal(sdc_pci_add_memory(device, 0, UINT64_MAX - 0xfff, 0x2000, &memory, &err), -EINVAL);
    assert_int_equal(sdc_pci_add_memory(device, 0, 0x1000, 0x1000, &memory, &err), 0);
    assert_int_equal(sdc_pci_add_memory(device, 0, 0, 0x2000, &memory, &err), -EINVAL);
    assert_int_equal(sdc_pci_add_memory(device, 0, 0x1000, 0x1000, &memory, &err), -EINVAL);
    assert_int_equal(sdc_pci_add_memory(device, 0, 0x2000, 0, &memory, &err), 0);
    assert_int_equal(device->bars[0].mappable.areas_count, 2);
    assert_int_equal(device->bars[0].mappable.areas[1].size, 0x2000);
    assert_int_equal(sdc_pci_add_doorbell(device, 0, 0x4000, 0, &err), -EINVAL);
    assert_int_equal(sdc_pci_add_doorbell(device, 0, 2, 4, &err), -EINVAL);
    assert_int_equal(sdc_pci_add_doorbell(device, 0, 0, 3, &err), -EINVAL);
    assert_int_equal(sdc_pci_add_capability(device, 0x11, 12, &offset, &err), -EINVAL);
    assert_int_equal(sdc_pci_add_capability(device, 9, 6, &offset, &err), -EINVAL);
    assert_int_equal(sdc_pci_add_capability(device, 9, 112, &offset, &err), 0); // all that is left
    assert_int_equal(sdc_pci_add_capability(device, 9, 4, &offset, &err), -EINVAL);
    assert_int_equal(sdc_pci_add_msi(device, 2, &err), -EINVAL);
    sdc_pci_fini(device);
    free(device);
}

// One by one they are fine.
static void parts_that_do_not_fit_together_are_refused(void **state)
{
    static const struct sdc_pci_ops ops = {.name = "x", .destroy = fini_and_forget};
    static const struct sdc_pci_identity identity = {.vendor = 1, .device = 2};
    struct sdc_server *server = new_server(NULL);

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        struct sdc_pci_device *device = calloc(1, sizeof *device);
        struct sdc_error err = {0};
        void *memory;
        assert_non_null(device);
        device->bars[0].size = 0x4000;
        assert_int_equal(sdc_pci_init(device, &ops, &identity, &err), 0);
        if (i == 0) {
            assert_int_equal(sdc_pci_add_doorbell(device, 0, 0x1004, 4, &err), 0);
            assert_int_equal(sdc_pci_add_memory(device, 0, 0, 0, &memory, &err), 0);
        } else {
            device->bars[0].mappable = (struct sdc_pci_mappable){
                .areas = {{i == 1 ? 0x800 : 0, 0x1000}}, .areas_count = i == 2 ? SDC_PCI_AREAS_MAX + 1 : 1, .fd = i == 3 ? 99999 : 0};
        }
        assert_int_equal(sdc_server_add_pci(server, "/tmp/sidecard-none", device, NULL, &err), -EINVAL);
        assert_non_null(strstr(err.text, "BAR 0"));
    }
    sdc_server_free(server);
}

// --- starting and ending ---

static void a_stop_before_it_runs_counts(void **state)
{
    struct sdc_server *server = new_server(NULL);

    (void)state;
    sdc_server_stop(server);
    assert_int_equal(sdc_server_run(server, NULL), 0);
    sdc_server_free(server);
}

static struct sdc_server *to_stop;

static void stop_it(int number)
{
    (void)number;
    sdc_server_stop(to_stop);
}

static void a_signal_handler_stops_it(void **state)
{
    struct place place;
    atomic_bool destroyed = false;
    sigset_t before, after;

    (void)state;
    make_place(&place);
    sigprocmask(SIG_SETMASK, NULL, &before);
    to_stop = new_server(&(struct sdc_server_options){.threads = 2});
    sigprocmask(SIG_SETMASK, NULL, &after);
    for (int number = 1; number < 32; number++)
        assert_int_equal(sigismember(&before, number), sigismember(&after, number));
    assert_int_equal(sdc_server_add_pci(to_stop, place.path, card_new(&destroyed, true), NULL, NULL), 0);
    signal(SIGALRM, stop_it);
    alarm(1);
    assert_int_equal(sdc_server_run(to_stop, NULL), 0);
    sdc_server_free(to_stop);
    assert_true(destroyed);
    remove_place(&place);
}

static void signals_are_taken_if_asked(void **state)
{
    sigset_t before;
    struct sdc_server *server;

    (void)state;
    sigprocmask(SIG_SETMASK, NULL, &before);
    server = new_server(&(struct sdc_server_options){.take_signals = true});
    raise(SIGTERM);
    assert_int_equal(sdc_server_run(server, NULL), 0);
    sdc_server_free(server);
    sigprocmask(SIG_SETMASK, &before, NULL);
}

static int process(struct sdc_server *server, int timeout_ms)
{
    struct pollfd waiting = {.fd = sdc_server_fd(server, NULL), .events = POLLIN};

    assert_true(waiting.fd >= 0);
    poll(&waiting, 1, timeout_ms);
    return sdc_server_process(server, NULL);
}

static void several_servers_share_a_callers_loop(void **state)
{
    struct place places[2];
    struct sdc_server *servers[2];
    atomic_bool destroyed[2] = {false, false};

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        make_place(&places[i]);
        servers[i] = new_server(&(struct sdc_server_options){.loop = i ? SDC_LOOP_EPOLL : SDC_LOOP_AUTO, .threads = 1 + i});
        assert_int_equal(sdc_server_add_pci(servers[i], places[i].path, card_new(&destroyed[i], true), NULL, NULL), 0);
        while (process(servers[i], 0) != SDC_SERVER_WAITS)
            ;
    }
    // What has nothing to do does not call for it.
    for (unsigned i = 0; i < 2; i++) {
        struct pollfd quiet = {.fd = sdc_server_fd(servers[i], NULL), .events = POLLIN};
        assert_int_equal(poll(&quiet, 1, 50), 0);
    }
    for (unsigned i = 0; i < 2; i++) {
        sdc_server_stop(servers[i]);
        while (process(servers[i], 1000) != SDC_SERVER_ENDED)
            ;
        assert_int_equal(sdc_server_process(servers[i], NULL), SDC_SERVER_ENDED);
        sdc_server_free(servers[i]);
        assert_true(destroyed[i]);
        remove_place(&places[i]);
    }
}

// One that has never run, one that was begun, and one whose client is still there.
static void a_server_is_freed_as_it_is(void **state)
{
    struct place place;
    struct card_server running;

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        atomic_bool destroyed = false;
        struct sdc_server *server = new_server(NULL);
        make_place(&place);
        assert_int_equal(sdc_server_add_pci(server, place.path, card_new(&destroyed, true), NULL, NULL), 0);
        if (i == 1)
            process(server, 0);
        sdc_server_free(server);
        assert_true(destroyed);
        remove_place(&place);
    }
    card_server_start(&running, SDC_LOOP_AUTO, true, true);
    struct sdc_vfio_client *client;
    assert_int_equal(sdc_vfio_client_open(running.path, NULL, &client, NULL), 0);
    card_server_stop(&running);
    sdc_vfio_client_close(client);
}

// --- virtio ---

static void posted(struct sdc_post *post)
{
    struct nothing *nothing = (struct nothing *)(void *)((char *)post - offsetof(struct nothing, post));

    atomic_fetch_add(&nothing->posts, 1);
    sdc_loop_timer_set(sdc_virtio_loop(&nothing->device), &nothing->timer, 1000000);
}

static void ticked(struct sdc_timer *timer)
{
    struct nothing *nothing = (struct nothing *)(void *)((char *)timer - offsetof(struct nothing, timer));

    if (atomic_fetch_add(&nothing->ticks, 1) < 9)
        sdc_loop_timer_set(sdc_virtio_loop(&nothing->device), timer, 1000000);
}

static void *turn(void *server)
{
    card_turn(server);
    return NULL;
}

// One device over both transports, in the caller's loop over both kinds: what other threads post, and timers, have the fd readable.
static void virtio_devices_are_served(void **state)
{
    struct place place;
    char socket[96];

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        atomic_uint destroyed = 0;
        struct sdc_server *server = new_server(&(struct sdc_server_options){.loop = i % 2 ? SDC_LOOP_EPOLL : SDC_LOOP_AUTO, .threads = 2});
        struct nothing *nothing = nothing_new(&destroyed);
        struct sdc_error err = {0};
        pthread_t thread;
        make_place(&place);
        snprintf(socket, sizeof socket, "%s:%s", i < 2 ? "vfio-user" : "vhost-user", place.path);
        const struct sdc_socket_options options = {.never_poll = true};
        assert_int_equal(sdc_server_add_virtio(server, socket, &nothing->device, &options, &err), 0);
        nothing->post.run = posted;
        nothing->timer.expired = ticked;
        assert_int_equal(pthread_create(&thread, NULL, turn, server), 0);
        sdc_loop_post(sdc_virtio_loop(&nothing->device), &nothing->post);
        if (i < 2) {
            struct sdc_vfio_client *client;
            uint32_t ids = 0;
            assert_int_equal(sdc_vfio_client_open(place.path, NULL, &client, &err), 0);
            assert_int_equal(sdc_vfio_client_read(client, SDC_PCI_CONFIG, 0, &ids, 4, &err), 0);
            assert_int_equal(ids, 0x10441af4);
            sdc_vfio_client_close(client);
        } else {
            struct sdc_vhost_client *client;
            assert_int_equal(sdc_vhost_client_open(place.path, NULL, &client, &err), 0);
            assert_true(sdc_vhost_client_session(client)->features & SDC_VIRTIO_F_VERSION_1);
            sdc_vhost_client_close(client);
        }
        for (unsigned wait = 0; wait < 60000 && atomic_load(&nothing->ticks) < 10; wait++)
            usleep(1000);
        assert_int_equal(atomic_load(&nothing->posts), 1);
        assert_int_equal(atomic_load(&nothing->ticks), 10);
        sdc_server_stop(server);
        pthread_join(thread, NULL);
        sdc_server_free(server);
        assert_int_equal(destroyed, 1);
        remove_place(&place);
    }
}

static void the_version_is_told(void **state)
{
    (void)state;
    assert_string_equal(sdc_version(), SDC_VERSION);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_options_are_refused),
        cmocka_unit_test(devices_that_are_refused_are_destroyed),
        cmocka_unit_test(bars_that_cannot_be_are_refused),
        cmocka_unit_test(parts_that_do_not_fit_are_refused),
        cmocka_unit_test(parts_that_do_not_fit_together_are_refused),
        cmocka_unit_test(a_stop_before_it_runs_counts),
        cmocka_unit_test(a_signal_handler_stops_it),
        cmocka_unit_test(signals_are_taken_if_asked),
        cmocka_unit_test(several_servers_share_a_callers_loop),
        cmocka_unit_test(a_server_is_freed_as_it_is),
        cmocka_unit_test(virtio_devices_are_served),
        cmocka_unit_test(the_version_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
