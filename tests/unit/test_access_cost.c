// SPDX-License-Identifier: BSD-3-Clause
// What an access to a register costs the server over io_uring: two system calls, and no memory. Every way into the kernel that a session
// and its loop have is wrapped and counted, and so is every allocation. And replies that the kernel does not take at once.
#include "uring_calls.h"
#include "vfu_fixture.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

static _Thread_local bool counts; // the server's thread
static atomic_uint calls, allocations;

#define COUNT(what) (counts ? (void)atomic_fetch_add(&what, 1) : (void)0)

ssize_t __real_recvmsg(int fd, struct msghdr *message, int flags);
ssize_t __wrap_recvmsg(int fd, struct msghdr *message, int flags);
ssize_t __real_sendmsg(int fd, const struct msghdr *message, int flags);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags);
void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__real_realloc(void *memory, size_t size);
void *__wrap_realloc(void *memory, size_t size);

void uring_call(const struct io_uring *ring)
{
    (void)ring;
    COUNT(calls);
}

ssize_t __wrap_recvmsg(int fd, struct msghdr *message, int flags)
{
    COUNT(calls);
    return __real_recvmsg(fd, message, flags);
}

ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags)
{
    COUNT(calls);
    return __real_sendmsg(fd, message, flags);
}

void *__wrap_malloc(size_t size)
{
    COUNT(allocations);
    return __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    COUNT(allocations);
    return __real_calloc(count, size);
}

void *__wrap_realloc(void *memory, size_t size)
{
    COUNT(allocations);
    return __real_realloc(memory, size);
}

// --- one access after the other ---

enum { REGISTER = 0x40, ACCESSES = 200 };

static int answer(struct sdc_pci_device *device, struct sdc_pci_access *access)
{
    (void)device;
    if (!access->write)
        access->value = access->offset;
    return 0;
}

static const struct sdc_pci_ops answers = {
    .name = "test", .access = answer, .reset = card_reset, .set_map = card_set_map, .busy = card_busy};

// Until the session has ended. All on one thread, to which the ring is bound.
static void *serve(void *context)
{
    struct fixture *f = context;

    counts = true;
    while (!f->ended)
        sdc_loop_run(f->loop);
    return NULL;
}

static void ended_in_thread(struct vfu_session *session)
{
    session_ended(session);
    sdc_loop_stop(session->loop);
}

// Waits for it, like a monitor.
static void read_register(struct fixture *f, uint16_t id)
{
    const struct sdc_vfu_region_access access = {.offset = REGISTER, .region = 0, .count = 4};
    struct {
        struct sdc_vfu_header header;
        struct sdc_vfu_region_access access;
        uint32_t value;
    } __attribute__((packed)) reply;

    send_message(f, id, SDC_VFU_REGION_READ, &access, sizeof access);
    assert_int_equal(recv(f->client, &reply, sizeof reply, MSG_WAITALL), sizeof reply);
    assert_int_equal(reply.header.msg_id, id);
    assert_int_equal(reply.header.error, 0);
    assert_int_equal(reply.value, REGISTER);
}

static void open_card(struct fixture *f)
{
    open_session(f);
    f->card.ops = &answers;
    f->card.bars[0] = (struct sdc_pci_bar){.size = 4096};
}

// While another thread runs the loop: say_version takes turns itself.
static void say_version_to_thread(struct fixture *f)
{
    static const char version[4 + 20] = "\0\0\0\0{\"capabilities\":{}}";
    struct sdc_vfu_header header;
    uint8_t rest[4096];

    send_message(f, 0, SDC_VFU_VERSION, version, sizeof version);
    assert_int_equal(recv(f->client, &header, sizeof header, MSG_WAITALL), sizeof header);
    assert_int_equal(header.error, 0);
    assert_in_range(header.msg_size, sizeof header, sizeof header + sizeof rest);
    assert_int_equal(recv(f->client, rest, header.msg_size - sizeof header, MSG_WAITALL), header.msg_size - sizeof header);
}

static void an_access_is_two_calls_and_no_memory(void **state)
{
    struct fixture f;
    pthread_t thread;

    (void)state;
    if (loop_kind == SDC_LOOP_EPOLL)
        skip();
    open_card(&f);
    assert_int_equal(fcntl(f.client, F_SETFL, 0), 0);
    f.session->ended = ended_in_thread;
    assert_int_equal(pthread_create(&thread, NULL, serve, &f), 0);
    say_version_to_thread(&f);
    for (uint16_t i = 0; i < 8; i++)
        read_register(&f, i); // buffers are made
    unsigned calls_before = calls, allocations_before = allocations;
    for (uint16_t i = 0; i < ACCESSES; i++)
        read_register(&f, i);
    unsigned made = calls - calls_before, taken = allocations - allocations_before;
    close(f.client); // the session ends, and with it the thread
    pthread_join(thread, NULL);
    assert_true(f.ended);
    vfu_session_free(f.session);
    sdc_loop_free(f.loop);
    print_message("%u calls, %u allocations for %u accesses\n", made, taken, (unsigned)ACCESSES);
    assert_true(made >= 2 * ACCESSES - 2); // none is overlooked
    assert_true(made <= 2 * ACCESSES + 2);
    assert_int_equal(taken, 0);
}

// --- a client that does not read ---

// More replies than its socket holds: all come, whole and in order.
static void replies_that_find_no_room_come_later(void **state)
{
    const struct sdc_vfu_region_access access = {.offset = REGISTER, .region = 0, .count = 4};
    int small = 1;
    struct fixture f;
    uint16_t asked = 0;

    (void)state;
    open_card(&f);
    say_version(&f, "{\"capabilities\":{}}");
    assert_int_equal(setsockopt(f.session->stream.fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
    for (; asked < 100; asked++) {
        send_message(&f, asked, SDC_VFU_REGION_READ, &access, sizeof access);
        run_turns(&f, 3);
    }
    assert_true(vfu_stream_unsent(&f.session->stream) > 0); // the kernel did not take them all
    for (uint16_t id = 0; id < asked; id++) {
        struct sdc_vfu_header header;
        uint8_t rest[sizeof access + 4];
        receive(&f, &header, sizeof header);
        assert_int_equal(header.msg_id, id);
        assert_int_equal(header.msg_size, sizeof header + sizeof rest);
        receive(&f, rest, sizeof rest);
    }
    close_session(&f);
}

// What was answered is sent also if the session ends in the same turn.
static void a_reply_is_not_lost_with_its_session(void **state)
{
    const struct sdc_vfu_region_access access = {.offset = REGISTER, .region = 0, .count = 4};
    const struct sdc_vfu_header bad = {.msg_id = 8, .cmd = SDC_VFU_REGION_READ, .msg_size = 3};
    struct sdc_vfu_header header;
    struct fixture f;

    (void)state;
    open_card(&f);
    say_version(&f, "{\"capabilities\":{}}");
    send_message(&f, 7, SDC_VFU_REGION_READ, &access, sizeof access);
    assert_int_equal(send(f.client, &bad, sizeof bad, MSG_DONTWAIT), sizeof bad);
    run_turns(&f, 6);
    assert_int_equal(recv(f.client, &header, sizeof header, MSG_DONTWAIT), sizeof header);
    assert_int_equal(header.msg_id, 7);
    close_session(&f);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_access_is_two_calls_and_no_memory),
        cmocka_unit_test(replies_that_find_no_room_come_later),
        cmocka_unit_test(a_reply_is_not_lost_with_its_session),
    };

    RUN_WITH_EVERY_LOOP(tests);
}
