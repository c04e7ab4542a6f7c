// SPDX-License-Identifier: BSD-3-Clause
// The threads that do file I/O for a loop on epoll. The linker puts __wrap_fdatasync between them and a disk
// that takes its time (-Wl,--wrap=fdatasync), and __wrap_pthread_create before a host that is out of threads.
#include "base/check.h"
#include "base/log.h"
#include "loop/io_pool.h"
#include "os/clock.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cmocka.h>

#define MS UINT64_C(1000000)

int __wrap_fdatasync(int fd);
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*body)(void *),
                          void *context);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*body)(void *),
                          void *context);

// The disk.
static struct {
    pthread_mutex_t mutex;
    pthread_cond_t opened;
    bool shut; // what is asked for waits
    unsigned inside, most, calls;
    sigset_t blocked; // by the last caller
    pthread_t caller;
} disk = {.mutex = PTHREAD_MUTEX_INITIALIZER, .opened = PTHREAD_COND_INITIALIZER};

int __wrap_fdatasync(int fd)
{
    (void)fd;
    pthread_mutex_lock(&disk.mutex);
    disk.calls++;
    disk.inside++;
    disk.most = disk.most > disk.inside ? disk.most : disk.inside;
    disk.caller = pthread_self();
    pthread_sigmask(SIG_BLOCK, NULL, &disk.blocked);
    while (disk.shut)
        pthread_cond_wait(&disk.opened, &disk.mutex);
    disk.inside--;
    pthread_mutex_unlock(&disk.mutex);
    errno = EIO;
    return -1;
}

static void set_shut(bool shut)
{
    pthread_mutex_lock(&disk.mutex);
    disk.shut = shut;
    pthread_cond_broadcast(&disk.opened);
    pthread_mutex_unlock(&disk.mutex);
}

static unsigned calls_of_disk(void)
{
    pthread_mutex_lock(&disk.mutex);
    unsigned calls = disk.calls;
    pthread_mutex_unlock(&disk.mutex);
    return calls;
}

static atomic_bool no_threads;

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*body)(void *),
                          void *context)
{
    return atomic_load(&no_threads) ? EAGAIN : __real_pthread_create(thread, attributes, body, context);
}

static unsigned threads(void)
{
    DIR *tasks = opendir("/proc/self/task");
    unsigned count = 0;
    for (const struct dirent *entry; (entry = readdir(tasks));)
        count += entry->d_name[0] != '.';
    closedir(tasks);
    return count;
}

static unsigned threads_at_first; // a sanitizer may have one

static void *tell_number(void *number)
{
    *(pid_t *)number = gettid();
    return NULL;
}

// A sanitizer makes its own with the first one of ours, which may be seen for a moment after it was joined.
static void count_threads_at_first(void)
{
    pthread_t thread;
    pid_t number;
    char path[64];

    if (pthread_create(&thread, NULL, tell_number, &number) != 0 || pthread_join(thread, NULL) != 0)
        abort();
    snprintf(path, sizeof path, "/proc/self/task/%d", (int)number);
    while (access(path, F_OK) == 0)
        usleep(1000);
    threads_at_first = threads();
}

static bool threads_are_gone_in(uint64_t ms)
{
    uint64_t end = sdc_clock_ns() + ms * MS;
    while (threads() > threads_at_first && sdc_clock_ns() < end)
        usleep(1000);
    return threads() == threads_at_first;
}

// --- a loop with syncs on it ---

enum { SYNCS = 9, PATIENCE_MS = 60000 };

struct fixture {
    struct sdc_loop *loop;
    int fd, file;
    struct sdc_io syncs[SYNCS];
    unsigned left;
    struct sdc_timer timer, watchdog;
    unsigned ticks;
    bool bit;
};

static struct fixture f;

static void sync_done(struct sdc_io *io)
{
    assert_true(sdc_loop_is_mine(f.loop));
    assert_int_equal(io->result, -EIO);
    if (--f.left == 0)
        sdc_loop_stop(f.loop);
}

static void bite(struct sdc_timer *timer)
{
    (void)timer;
    f.bit = true;
    set_shut(false);
    sdc_loop_stop(f.loop);
}

static int set_up(void **state)
{
    (void)state;
    struct sdc_error err = {0};
    f = (struct fixture){.fd = memfd_create("file", MFD_CLOEXEC), .watchdog.expired = bite};
    if (sdc_loop_new(SDC_LOOP_EPOLL, &f.loop, &err) < 0)
        fail_msg("%s", err.text);
    f.file = sdc_loop_file_add(f.loop, f.fd);
    disk.calls = disk.most = 0;
    assert_true(threads_are_gone_in(PATIENCE_MS)); // of the test before
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    set_shut(false);
    atomic_store(&no_threads, false);
    sdc_log_to(&(struct sdc_log_sink){0});
    sdc_loop_file_remove(f.loop, f.file);
    sdc_loop_free(f.loop);
    close(f.fd);
    return 0;
}

static void start_syncs(unsigned count)
{
    f.left = count;
    for (unsigned i = 0; i < count; i++) {
        f.syncs[i] = (struct sdc_io){.op = SDC_IO_FDATASYNC, .file = f.file, .done = sync_done};
        sdc_loop_io(f.loop, &f.syncs[i]);
    }
}

static void run(void)
{
    sdc_loop_timer_set(f.loop, &f.watchdog, 240000 * MS);
    sdc_loop_run(f.loop);
    sdc_loop_timer_clear(f.loop, &f.watchdog);
    assert_false(f.bit);
}

static void sync_some(unsigned count)
{
    start_syncs(count);
    run();
    assert_int_equal(f.left, 0);
}

// --- the tests ---

static unsigned most_in_disk(void)
{
    pthread_mutex_lock(&disk.mutex);
    unsigned most = disk.most;
    pthread_mutex_unlock(&disk.mutex);
    return most;
}

static void tick(struct sdc_timer *timer)
{
    if (++f.ticks >= 20 && most_in_disk() == SDC_IO_POOL_THREADS)
        set_shut(false);
    else
        sdc_loop_timer_set(f.loop, timer, 5 * MS);
}

static void a_slow_disk_holds_up_neither_the_loop_nor_all_threads(void **state)
{
    (void)state;
    set_shut(true);
    start_syncs(SYNCS);
    f.timer.expired = tick;
    sdc_loop_timer_set(f.loop, &f.timer, 5 * MS);
    run();
    assert_true(f.ticks >= 20); // while nothing came back from the disk
    assert_int_equal(disk.calls, SYNCS);
    assert_int_equal(disk.most, SDC_IO_POOL_THREADS);
}

static void threads_are_made_for_what_there_is_to_do(void **state)
{
    (void)state;
    assert_int_equal(threads(), threads_at_first);
    sync_some(1);
    assert_int_equal(threads(), threads_at_first + 1);
    set_shut(true);
    start_syncs(SYNCS);
    f.ticks = 18;
    f.timer.expired = tick;
    sdc_loop_timer_set(f.loop, &f.timer, 5 * MS);
    run();
    assert_int_equal(threads(), threads_at_first + SDC_IO_POOL_THREADS);
}

enum { CACHED = 64 * 1024 };

static void read_done(struct sdc_io *io)
{
    (void)io;
    sdc_loop_stop(f.loop);
}

// The result.
static int64_t read_some(int file, void *memory, size_t size, uint64_t offset)
{
    struct sdc_span span = {memory, size};
    struct sdc_io io = {.op = SDC_IO_READ,
                        .file = file,
                        .offset = offset,
                        .spans = &span,
                        .spans_count = 1,
                        .result = 1,
                        .done = read_done};
    sdc_loop_io(f.loop, &io);
    run();
    return io.result;
}

static void what_the_page_cache_holds_is_read_without_threads(void **state)
{
    (void)state;
    static unsigned char written[CACHED], back[CACHED];
    int fd = open("/var/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    struct iovec part = {back, 4096};
    for (size_t i = 0; i < CACHED; i++)
        written[i] = (unsigned char)(i * 7 + i / 256);
    if (fd < 0 || write(fd, written, CACHED) != CACHED || preadv2(fd, &part, 1, 0, RWF_NOWAIT) != 4096)
        skip(); // no such thing here
    int file = sdc_loop_file_add(f.loop, fd);
    memset(back, 0, CACHED);
    assert_int_equal(read_some(file, back, 4096, 8192), 4096);
    assert_memory_equal(back, written + 8192, 4096);
    assert_int_equal(threads(), threads_at_first);
    assert_int_equal(read_some(file, back, 4096, CACHED), 0); // past the end the threads have the last word
    assert_int_equal(read_some(file, back, CACHED, 0), CACHED); // and large ones are theirs
    assert_memory_equal(back, written, CACHED);
    assert_true(threads() > threads_at_first);
    sdc_loop_file_remove(f.loop, file);
    close(fd);
}

static void threads_with_nothing_to_do_end_and_come_again(void **state)
{
    (void)state;
    sync_some(SYNCS);
    assert_true(threads() > threads_at_first);
    assert_true(threads_are_gone_in(PATIENCE_MS));
    sync_some(SYNCS);
    assert_int_equal(calls_of_disk(), 2 * SYNCS);
}

static void the_end_of_the_loop_ends_its_threads(void **state)
{
    (void)state;
    sync_some(SYNCS);
    sdc_loop_free(f.loop);
    // /proc may show one for a moment longer.
    assert_true(threads_are_gone_in(SDC_IO_POOL_IDLE_SECONDS * 1000 / 2));
    struct sdc_error err = {0};
    assert_int_equal(sdc_loop_new(SDC_LOOP_EPOLL, &f.loop, &err), 0); // for tear_down
    f.file = sdc_loop_file_add(f.loop, f.fd);
}

static void signals_are_left_to_others(void **state)
{
    (void)state;
    static const int others[] = {SIGPIPE, SIGTERM, SIGINT, SIGHUP, SIGCHLD, SIGALRM, SIGUSR1};
    sigset_t before, after;
    pthread_sigmask(SIG_BLOCK, NULL, &before);
    sync_some(1);
    assert_false(pthread_equal(disk.caller, pthread_self()));
    for (size_t i = 0; i < SDC_COUNT(others); i++)
        assert_int_equal(sigismember(&disk.blocked, others[i]), 1);
    assert_int_equal(sigismember(&disk.blocked, SIGSEGV), 0);
    pthread_sigmask(SIG_BLOCK, NULL, &after);
    for (size_t i = 0; i < SDC_COUNT(others); i++)
        assert_int_equal(sigismember(&after, others[i]), sigismember(&before, others[i]));
}

static unsigned warnings;

static void count_warning(enum sdc_log_level level, const char *line)
{
    warnings += level == SDC_LOG_WARNING && strstr(line, "no thread can be started for file I/O");
}

static void without_threads_the_loop_does_it_itself(void **state)
{
    (void)state;
    static const struct sdc_log_sink sink = {SDC_LOG_WARNING, count_warning, sdc_clock_ns};
    sdc_log_to(&sink);
    atomic_store(&no_threads, true);
    sync_some(SYNCS);
    assert_true(pthread_equal(disk.caller, pthread_self()));
    assert_int_equal(calls_of_disk(), SYNCS);
    assert_int_equal(warnings, 1);
    atomic_store(&no_threads, false);
    sync_some(1);
    assert_false(pthread_equal(disk.caller, pthread_self()));
}

int main(void)
{
    count_threads_at_first();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_slow_disk_holds_up_neither_the_loop_nor_all_threads, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(threads_are_made_for_what_there_is_to_do, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_the_page_cache_holds_is_read_without_threads, set_up, tear_down),
        cmocka_unit_test_setup_teardown(threads_with_nothing_to_do_end_and_come_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_end_of_the_loop_ends_its_threads, set_up, tear_down),
        cmocka_unit_test_setup_teardown(signals_are_left_to_others, set_up, tear_down),
        cmocka_unit_test_setup_teardown(without_threads_the_loop_does_it_itself, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
