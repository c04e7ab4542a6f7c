// SPDX-License-Identifier: BSD-3-Clause
// Devices that come and go while their server runs, by any thread and from inside callbacks; servers of one call; and what careless authors
// do: each mistake has an error with a text, or ends the process with one.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "library_card.h"

#include <sidecard/vhost.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { GUESTS = 4, ROUNDS = 5 };

// --- a device that says when it is gone ---

struct gone {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned count;
};

static void tell_gone(struct gone *gone)
{
    pthread_mutex_lock(&gone->lock);
    gone->count++;
    pthread_cond_signal(&gone->changed);
    pthread_mutex_unlock(&gone->lock);
}

static void wait_gone(struct gone *gone, unsigned count)
{
    pthread_mutex_lock(&gone->lock);
    while (gone->count < count)
        pthread_cond_wait(&gone->changed, &gone->lock);
    assert_int_equal(gone->count, count);
    pthread_mutex_unlock(&gone->lock);
}

// A card with a timer, whose register 0 does what is written there from inside the access.
struct card {
    struct sdc_pci_device pci; // first
    struct sdc_timer timer;
    struct sdc_server *server;
    struct sdc_pci_device *other; // that is plugged in at other_path
    const char *other_path;
    struct gone *gone;
    uint32_t registers[2];
    uint8_t room[64];
};
enum { REMOVE_ITSELF = 1, ADD_OTHER, REMOVE_OTHER };

static void ticked(struct sdc_timer *timer)
{
    struct card *card = (struct card *)(void *)((char *)timer - offsetof(struct card, timer));

    // DMA goes on until the device is no more, as that of any card that has not heard of its end.
    sdc_dma_read(&card->pci, 0, card->room, sizeof card->room, NULL, NULL);
    sdc_loop_timer_set(sdc_pci_loop(&card->pci), timer, 100000);
}

static void card_obey(struct sdc_pci_device *device, uint64_t what)
{
    struct card *card = (struct card *)(void *)device;
    int rc = 0;

    if (what == REMOVE_ITSELF)
        rc = sdc_server_remove_pci(card->server, device, NULL);
    else if (what == ADD_OTHER)
        rc = sdc_server_add_pci(card->server, card->other_path, card->other, NULL, NULL);
    else if (what == REMOVE_OTHER)
        rc = sdc_server_remove_pci(card->server, card->other, NULL);
    card->registers[1] = (uint32_t)-rc;
    sdc_loop_timer_set(sdc_pci_loop(device), &card->timer, 0);
}

static void card_destroy(struct sdc_pci_device *device)
{
    struct card *card = (struct card *)(void *)device;
    struct gone *gone = card->gone;

    if (sdc_pci_loop(device))
        sdc_loop_timer_clear(sdc_pci_loop(device), &card->timer);
    sdc_pci_fini(device);
    free(card);
    tell_gone(gone);
}

static const struct sdc_pci_register registers[] = {
    {.offset = 0, .size = 4, .written = card_obey}, {.offset = 4, .size = 4}};
static const struct sdc_pci_ops card_ops = {.name = "card", .destroy = card_destroy};
static const struct sdc_pci_identity identity = {.vendor = 1, .device = 2};

static struct card *card_make(struct sdc_server *server, struct gone *gone)
{
    struct card *card = calloc(1, sizeof *card);

    assert_non_null(card);
    card->pci.bars[0].size = 0x1000;
    card->timer.expired = ticked;
    card->server = server;
    card->gone = gone;
    assert_int_equal(sdc_pci_init(&card->pci, &card_ops, &identity, NULL), 0);
    assert_int_equal(sdc_pci_add_registers(&card->pci, 0, registers, 2, card->registers, NULL), 0);
    assert_int_equal(sdc_pci_add_msix(&card->pci, 1, 1, NULL), 0);
    assert_int_equal(sdc_pci_add_doorbell(&card->pci, 0, 8, 4, NULL), 0);
    return card;
}

struct virtio {
    struct sdc_virtio_device device; // first
    struct gone *gone;
};

static void virtio_work(struct sdc_virtio_device *device, struct sdc_virtqueue *queue)
{
    (void)device, (void)queue;
}

static void virtio_destroy(struct sdc_virtio_device *device)
{
    struct gone *gone = ((struct virtio *)(void *)device)->gone;

    free(device);
    tell_gone(gone);
}

static const struct sdc_virtio_ops virtio_ops = {.name = "virtio", .device_id = 4, .queue_work = virtio_work, .destroy = virtio_destroy};

static struct virtio *virtio_make(struct gone *gone)
{
    struct virtio *virtio = calloc(1, sizeof *virtio);

    assert_non_null(virtio);
    virtio->device = (struct sdc_virtio_device){.ops = &virtio_ops, .queues_count = 4, .queue_size_max = 64};
    virtio->gone = gone;
    return virtio;
}

// --- a server that runs ---

struct running {
    char folder[32];
    struct sdc_server *server;
    bool outside;
    struct gone gone;
    pthread_t thread;
};

static void *run(void *context)
{
    struct running *running = context;

    if (running->outside)
        card_turn(running->server);
    else
        sdc_server_run(running->server, NULL);
    return NULL;
}

static void start(struct running *running, enum sdc_loop_kind kind, unsigned threads, bool outside)
{
    const struct sdc_server_options options = {.loop = kind, .threads = threads};

    *running = (struct running){.outside = outside};
    pthread_mutex_init(&running->gone.lock, NULL);
    pthread_cond_init(&running->gone.changed, NULL);
    strcpy(running->folder, "/tmp/sidecard-plug.XXXXXX");
    assert_non_null(mkdtemp(running->folder));
    assert_int_equal(sdc_server_new(&options, &running->server, NULL), 0);
    assert_int_equal(pthread_create(&running->thread, NULL, run, running), 0);
}

static void stop(struct running *running)
{
    char command[64];

    sdc_server_stop(running->server);
    pthread_join(running->thread, NULL);
    sdc_server_free(running->server);
    snprintf(command, sizeof command, "rm -r %s", running->folder);
    assert_int_equal(system(command), 0);
}

static const char *path_in(const struct running *running, unsigned number, char path[64])
{
    snprintf(path, 64, "%s/s%u", running->folder, number);
    return path;
}

static struct sdc_vfio_client *connect_to(const char *path)
{
    struct sdc_vfio_client *client = NULL;
    struct sdc_error err = {0};

    if (sdc_vfio_client_open(path, NULL, &client, &err) < 0)
        fail_msg("%s", err.text);
    return client;
}

static uint32_t put(struct sdc_vfio_client *client, uint32_t what)
{
    uint32_t result = UINT32_MAX;

    assert_int_equal(sdc_vfio_client_write(client, 0, 0, &what, 4, NULL), 0);
    sdc_vfio_client_read(client, 0, 4, &result, 4, NULL);
    return result;
}

// --- coming and going ---

static const struct way {
    enum sdc_loop_kind kind;
    unsigned threads;
    bool outside;
} ways[] = {{SDC_LOOP_AUTO, 1, false}, {SDC_LOOP_EPOLL, 3, false}, {SDC_LOOP_AUTO, 3, true}, {SDC_LOOP_EPOLL, 1, true}};
enum { WAYS = sizeof ways / sizeof *ways };

// With a client, whose session ends, and without.
static void pci_devices_come_and_go(void **state)
{
    char path[64];

    (void)state;
    for (unsigned way = 0; way < WAYS; way++) {
        struct running running;
        start(&running, ways[way].kind, ways[way].threads, ways[way].outside);
        for (unsigned i = 1; i <= ROUNDS; i++) {
            struct card *card = card_make(running.server, &running.gone);
            struct sdc_error err = {0};
            if (sdc_server_add_pci(running.server, path_in(&running, 0, path), &card->pci, NULL, &err) < 0)
                fail_msg("%s", err.text);
            struct sdc_vfio_client *client = i % 3 == 0 ? NULL : connect_to(path);
            if (client)
                assert_int_equal(put(client, 0), 0);
            assert_int_equal(sdc_server_remove_pci(running.server, &card->pci, &err), 0);
            wait_gone(&running.gone, i);
            assert_int_equal(access(path, F_OK), -1);
            if (client)
                assert_true(sdc_vfio_client_write(client, 0, 0, &i, 4, NULL) < 0);
            sdc_vfio_client_close(client);
        }
        stop(&running);
        assert_int_equal(running.gone.count, ROUNDS);
    }
}

static void virtio_devices_come_and_go(void **state)
{
    char path[64], socket[80];

    (void)state;
    for (unsigned way = 0; way < WAYS; way++) {
        struct running running;
        start(&running, ways[way].kind, ways[way].threads, ways[way].outside);
        for (unsigned i = 1; i <= ROUNDS; i++) {
            struct virtio *virtio = virtio_make(&running.gone);
            struct sdc_error err = {0};
            bool vhost = i % 2 == 0;
            snprintf(socket, sizeof socket, "%s:%s", vhost ? "vhost-user" : "vfio-user", path_in(&running, 0, path));
            if (sdc_server_add_virtio(running.server, socket, &virtio->device, NULL, &err) < 0)
                fail_msg("%s", err.text);
            struct sdc_vfio_client *vfio = vhost ? NULL : connect_to(path);
            struct sdc_vhost_client *front = NULL;
            if (vhost)
                assert_int_equal(sdc_vhost_client_open(path, NULL, &front, NULL), 0);
            assert_int_equal(sdc_server_remove_virtio(running.server, &virtio->device, &err), 0);
            wait_gone(&running.gone, i);
            assert_int_equal(access(path, F_OK), -1);
            sdc_vfio_client_close(vfio);
            sdc_vhost_client_close(front);
        }
        stop(&running);
    }
}

static void devices_come_and_go_from_inside_callbacks(void **state)
{
    char path[64], other_path[64];

    (void)state;
    for (unsigned way = 0; way < WAYS; way++) {
        struct running running;
        start(&running, ways[way].kind, ways[way].threads, ways[way].outside);
        struct card *card = card_make(running.server, &running.gone), *other = card_make(running.server, &running.gone);
        card->other = &other->pci;
        card->other_path = path_in(&running, 1, other_path);
        assert_int_equal(sdc_server_add_pci(running.server, path_in(&running, 0, path), &card->pci, NULL, NULL), 0);
        struct sdc_vfio_client *client = connect_to(path);
        assert_int_equal(put(client, ADD_OTHER), 0);
        struct sdc_vfio_client *second = connect_to(other_path);
        assert_int_equal(put(second, 0), 0);
        assert_int_equal(put(client, ADD_OTHER), EBUSY); // and it stays as it is
        assert_int_equal(put(second, 0), 0);
        assert_int_equal(put(client, REMOVE_OTHER), 0);
        wait_gone(&running.gone, 1);
        assert_int_equal(put(client, REMOVE_OTHER), ENOENT);
        put(client, REMOVE_ITSELF);
        wait_gone(&running.gone, 2);
        sdc_vfio_client_close(client);
        sdc_vfio_client_close(second);
        stop(&running);
    }
}

struct guest {
    struct running *running;
    unsigned number;
    pthread_t thread;
};

static void *come_and_go(void *context)
{
    struct guest *guest = context;
    struct sdc_server *server = guest->running->server;
    char path[64];

    path_in(guest->running, guest->number, path);
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct card *card = card_make(server, &guest->running->gone);
        struct virtio *virtio = virtio_make(&guest->running->gone);
        strcat(path, "c");
        if (sdc_server_add_pci(server, path, &card->pci, NULL, NULL) == 0)
            sdc_server_remove_pci(server, &card->pci, NULL);
        strcat(path, "v");
        if (sdc_server_add_virtio(server, path, &virtio->device, NULL, NULL) == 0 && i % 2 == 0)
            sdc_server_remove_virtio(server, &virtio->device, NULL);
    }
    return NULL;
}

// Many threads at once, the last devices while the server ends: each is destroyed once.
static void threads_add_and_remove_at_once(void **state)
{
    (void)state;
    for (unsigned way = 0; way < WAYS; way++) {
        struct running running;
        struct guest guests[GUESTS];
        start(&running, ways[way].kind, ways[way].threads, ways[way].outside);
        for (unsigned i = 0; i < GUESTS; i++) {
            guests[i] = (struct guest){.running = &running, .number = i};
            assert_int_equal(pthread_create(&guests[i].thread, NULL, come_and_go, &guests[i]), 0);
        }
        if (way % 2)
            sdc_server_stop(running.server);
        for (unsigned i = 0; i < GUESTS; i++)
            pthread_join(guests[i].thread, NULL);
        stop(&running);
        assert_int_equal(running.gone.count, 2 * ROUNDS * GUESTS);
    }
}

// --- a server that does not run ---

static void a_server_that_has_ended_takes_nothing(void **state)
{
    struct running running;
    struct sdc_error err = {0};

    (void)state;
    start(&running, SDC_LOOP_AUTO, 1, false);
    struct card *card = card_make(running.server, &running.gone);
    sdc_server_stop(running.server);
    pthread_join(running.thread, NULL);
    assert_int_equal(sdc_server_add_pci(running.server, "/tmp/sidecard-none", &card->pci, NULL, &err), -ECANCELED);
    assert_non_null(strstr(err.text, "stopped"));
    assert_int_equal(running.gone.count, 1);
    assert_int_equal(sdc_server_run(running.server, &err), -ECANCELED);
    sdc_server_free(running.server);
    assert_int_equal(rmdir(running.folder), 0);
}

static void what_was_removed_before_it_ran_goes(void **state)
{
    struct running running;
    struct sdc_error err = {0};
    char path[64];

    (void)state;
    for (unsigned runs = 0; runs < 2; runs++) {
        start(&running, SDC_LOOP_AUTO, 1, false);
        stop(&running);
        assert_int_equal(mkdir(running.folder, 0700), 0);
        assert_int_equal(sdc_server_new(NULL, &running.server, NULL), 0);
        struct card *card = card_make(running.server, &running.gone);
        assert_int_equal(sdc_server_remove_pci(running.server, &card->pci, &err), -ENOENT);
        assert_int_equal(sdc_server_add_pci(running.server, path_in(&running, 0, path), &card->pci, NULL, &err), 0);
        assert_int_equal(sdc_server_remove_pci(running.server, &card->pci, &err), 0);
        assert_int_equal(sdc_server_remove_pci(running.server, &card->pci, &err), -ENOENT);
        assert_int_equal(sdc_server_remove_pci(running.server, NULL, &err), -ENOENT);
        running.outside = false;
        if (runs > 0) {
            assert_int_equal(pthread_create(&running.thread, NULL, run, &running), 0);
            wait_gone(&running.gone, 1);
            stop(&running);
        } else {
            sdc_server_free(running.server);
            assert_int_equal(running.gone.count, 1);
            snprintf(path, sizeof path, "rm -r %s", running.folder);
            assert_int_equal(system(path), 0);
        }
    }
}

static void a_server_of_one_call_ends_by_signal(void **state)
{
    struct gone gone = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    struct sdc_error err = {0};
    sigset_t before, term;
    char path[64];

    (void)state;
    snprintf(path, sizeof path, "/tmp/sidecard-one.%d", getpid());
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigprocmask(SIG_BLOCK, &term, &before);
    raise(SIGTERM);
    if (sdc_serve_pci(path, &card_make(NULL, &gone)->pci, NULL, &err) < 0)
        fail_msg("%s", err.text);
    raise(SIGTERM);
    assert_int_equal(sdc_serve_virtio(path, &virtio_make(&gone)->device, NULL, &err), 0);
    sigprocmask(SIG_SETMASK, &before, NULL);
    assert_int_equal(gone.count, 2);
    assert_int_equal(sdc_serve_pci("/nowhere/s", &card_make(NULL, &gone)->pci, NULL, &err), -ENOENT);
    assert_int_equal(sdc_serve_virtio(NULL, &virtio_make(&gone)->device, NULL, &err), -EINVAL);
    assert_int_equal(gone.count, 4);
    assert_int_equal(sdc_serve_pci(path, NULL, NULL, &err), -EINVAL);
    strcat(path, ".lock");
    unlink(path);
}

// --- mistakes ---

// Without a destroy the library gives back what is its own, and a device can be made again.
static void what_has_no_destroy_is_given_back(void **state)
{
    static const struct sdc_pci_ops ops = {.name = "static"};
    static const struct sdc_virtio_ops static_virtio_ops = {.name = "static", .device_id = 4, .queue_work = virtio_work};
    static struct sdc_pci_device device = {.bars = {{.size = 16}}};
    static struct sdc_virtio_device virtio = {.ops = &static_virtio_ops, .queues_count = 1, .queue_size_max = 1};
    char path[64];

    (void)state;
    snprintf(path, sizeof path, "/tmp/sidecard-twice.%d", getpid());
    for (unsigned i = 0; i < 2; i++) {
        struct sdc_server *server;
        assert_int_equal(sdc_server_new(NULL, &server, NULL), 0);
        memset(&device, 0, sizeof device);
        device.bars[0].size = 16;
        assert_int_equal(sdc_pci_init(&device, &ops, &identity, NULL), 0);
        assert_int_equal(sdc_server_add_pci(server, path, &device, NULL, NULL), 0);
        assert_int_equal(sdc_server_add_pci(server, "/tmp/sidecard-none", &device, NULL, NULL), -EBUSY);
        assert_int_equal(sdc_server_add_virtio(server, "/nowhere/s", &virtio, NULL, NULL), -ENOENT);
        sdc_server_free(server);
    }
    strcat(path, ".lock");
    unlink(path);
}

static void what_is_not_there_is_refused(void **state)
{
    static const struct sdc_pci_ops ops = {.name = "x"};
    struct sdc_pci_device device = {0};
    struct sdc_virtio_device virtio = {0};
    struct sdc_server *server;
    struct sdc_error err = {0};
    uint32_t offset;
    void *memory;

    (void)state;
    assert_int_equal(sdc_server_new(NULL, &server, NULL), 0);
    assert_int_equal(sdc_pci_init(NULL, &ops, &identity, &err), -EINVAL);
    assert_int_equal(sdc_pci_init(&device, NULL, &identity, &err), -EINVAL);
    assert_int_equal(sdc_pci_init(&device, &ops, NULL, &err), -EINVAL);
    // Before it was made.
    assert_int_equal(sdc_pci_add_msix(&device, 1, 1, &err), -EINVAL);
    assert_non_null(strstr(err.text, "sdc_pci_init"));
    assert_int_equal(sdc_pci_add_msi(&device, 1, &err), -EINVAL);
    assert_int_equal(sdc_pci_add_capability(&device, 9, 4, &offset, &err), -EINVAL);
    assert_int_equal(sdc_pci_add_memory(&device, 0, 0, 0, &memory, &err), -EINVAL);
    assert_int_equal(sdc_pci_add_doorbell(&device, 0, 0, 4, &err), -EINVAL);
    assert_int_equal(sdc_pci_add_msix(NULL, 1, 1, &err), -EINVAL);
    assert_null(sdc_pci_loop(&device));
    sdc_pci_raise(&device, 0);
    sdc_pci_set_intx(&device, true);
    sdc_dma_cancel(&device);
    assert_int_equal(sdc_dma_read(&device, 0, &offset, 4, NULL, NULL), -EINVAL);
    assert_int_equal(sdc_server_add_pci(server, "/tmp/sidecard-none", &device, NULL, &err), -EINVAL);
    assert_non_null(strstr(err.text, "sdc_pci_init"));
    assert_int_equal(sdc_server_add_pci(server, "/tmp/sidecard-none", NULL, NULL, &err), -EINVAL);
    assert_int_equal(sdc_server_add_virtio(server, "/tmp/sidecard-none", NULL, NULL, &err), -EINVAL);
    assert_int_equal(sdc_server_add_virtio(server, "/tmp/sidecard-none", &virtio, NULL, &err), -EINVAL);
    // Twice.
    device.bars[0] = (struct sdc_pci_bar){.size = 8, .is_io = true};
    assert_int_equal(sdc_pci_init(&device, &ops, &identity, &err), 0);
    assert_int_equal(sdc_pci_init(&device, &ops, &identity, &err), -EINVAL);
    assert_int_equal(device.config[0x10], 1); // I/O ports
    assert_int_equal(device.config_mask[0x10], 0xf8);
    assert_int_equal(sdc_pci_add_memory(&device, 0, 0, 0, &memory, &err), -EINVAL);
    assert_int_equal(sdc_dma_read(&device, 0, &offset, 4, NULL, NULL), -EINVAL);
    sdc_pci_fini(&device);
    sdc_server_free(server);
}

// --- what cannot be an error, since nobody would look ---

static void dies(void (*mistake)(struct running *running), const char *text)
{
    char said[200] = "";
    int fds[2], status;

    assert_int_equal(pipe(fds), 0);
    pid_t child = fork();
    if (child == 0) {
        struct running running;
        signal(SIGABRT, SIG_DFL);
        dup2(fds[1], STDERR_FILENO);
        start(&running, SDC_LOOP_AUTO, 1, false);
        mistake(&running);
        _exit(0);
    }
    close(fds[1]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(read(fds[0], said, sizeof said - 1) > 0);
    close(fds[0]);
    if (!strstr(said, text))
        fail_msg("%s", said);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static struct card *plugged_in(struct running *running, char path[64])
{
    struct card *card = card_make(running->server, &running->gone);

    sdc_server_add_pci(running->server, path_in(running, 0, path), &card->pci, NULL, NULL);
    return card;
}

static void gives_back_what_is_plugged_in(struct running *running)
{
    char path[64];
    struct card *card = plugged_in(running, path);

    unlink(path), strcat(path, ".lock"), unlink(path), rmdir(running->folder);
    sdc_pci_fini(&card->pci);
}

static void frees_what_runs(struct running *running)
{
    char path[64];

    plugged_in(running, path);
    sdc_vfio_client_close(connect_to(path)); // it runs
    unlink(path), strcat(path, ".lock"), unlink(path), rmdir(running->folder);
    sdc_server_free(running->server);
}

static void copies_in_another_thread(struct running *running)
{
    char path[64];
    struct card *card = plugged_in(running, path);

    sdc_vfio_client_close(connect_to(path));
    unlink(path), strcat(path, ".lock"), unlink(path), rmdir(running->folder);
    sdc_dma_read(&card->pci, 0, card->room, 1, NULL, NULL);
}

static void sets_a_timer_in_another_thread(struct running *running)
{
    char path[64];
    struct card *card = plugged_in(running, path);

    sdc_vfio_client_close(connect_to(path));
    unlink(path), strcat(path, ".lock"), unlink(path), rmdir(running->folder);
    sdc_loop_timer_set(sdc_pci_loop(&card->pci), &card->timer, 1);
}

static void mistakes_that_would_go_unnoticed_end_the_process(void **state)
{
    (void)state;
    dies(gives_back_what_is_plugged_in, "sdc_pci_fini");
    dies(frees_what_runs, "sdc_server_stop");
    dies(copies_in_another_thread, "sdc_loop_post");
    dies(sets_a_timer_in_another_thread, "sdc_loop_post");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mistakes_that_would_go_unnoticed_end_the_process),
        cmocka_unit_test(pci_devices_come_and_go),
        cmocka_unit_test(virtio_devices_come_and_go),
        cmocka_unit_test(devices_come_and_go_from_inside_callbacks),
        cmocka_unit_test(threads_add_and_remove_at_once),
        cmocka_unit_test(a_server_that_has_ended_takes_nothing),
        cmocka_unit_test(what_was_removed_before_it_ran_goes),
        cmocka_unit_test(a_server_of_one_call_ends_by_signal),
        cmocka_unit_test(what_has_no_destroy_is_given_back),
        cmocka_unit_test(what_is_not_there_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
