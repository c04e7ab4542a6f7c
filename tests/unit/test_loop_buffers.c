// SPDX-License-Identifier: BSD-3-Clause
// Memory that is registered with io_uring: what I/O is done by it, and when the kernel has let go. The kernel's calls are counted, and
// refused at will.
#include "loop_fixture.h"

#include "base/log.h"
#include "loop_turns.h"
#include "uring_calls.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CHUNK = 16 << 20, BLOCK = 4096, ENOUGH = 40 /* I/Os until memory is registered, and turns for that */ };

// --- what the kernel is asked for ---

static unsigned fixed_reads, fixed_writes, registered, unregistered;
static int refuse_register, refuse_unregister; // errno
static unsigned refuse_times;

int __real_io_uring_register_buffers_update_tag(struct io_uring *ring, unsigned off, const struct iovec *iovecs, const __u64 *tags,
                                                unsigned nr);
int __wrap_io_uring_register_buffers_update_tag(struct io_uring *ring, unsigned off, const struct iovec *iovecs, const __u64 *tags,
                                                unsigned nr);
int __wrap_io_uring_register_buffers_update_tag(struct io_uring *ring, unsigned off, const struct iovec *iovecs, const __u64 *tags,
                                                unsigned nr)
{
    int refuse = iovecs->iov_base ? refuse_register : refuse_unregister;

    *(iovecs->iov_base ? &registered : &unregistered) += 1;
    if (refuse == 0 || refuse_times == 0)
        return __real_io_uring_register_buffers_update_tag(ring, off, iovecs, tags, nr);
    refuse_times--;
    return -refuse;
}

void uring_call(const struct io_uring *ring)
{
    for (unsigned at = ring->sq.sqe_head; at != ring->sq.sqe_tail; at++) {
        uint8_t op = ring->sq.sqes[at & *ring->sq.kring_mask].opcode;
        fixed_reads += op == IORING_OP_READ_FIXED;
        fixed_writes += op == IORING_OP_WRITE_FIXED;
    }
}

// --- a loop with a file and memory ---

struct place {
    struct sdc_loop_buffer buffer;
    struct bed *bed;
    bool removed;
};

struct bed {
    struct sdc_loop *loop;
    int fd;
    int file;
    uint8_t *memory;
    uint64_t size;
    // One I/O.
    struct sdc_post post;
    struct sdc_io io;
    struct sdc_span spans[2];
    struct place *take_away; // in the same turn, after the I/O has begun
    bool ended;
};

static void removed(struct sdc_loop_buffer *buffer)
{
    sdc_container(buffer, struct place, buffer)->removed = true;
}

static struct place add(struct bed *bed, uint64_t offset, uint64_t size)
{
    return (struct place){.bed = bed, .buffer = {.base = bed->memory + offset, .size = size, .removed = removed}};
}

static void set_up(struct bed *bed, uint64_t size)
{
    *bed = (struct bed){.loop = new_loop(), .fd = temporary_file(), .size = size};
    int memory = memfd_create("memory", MFD_CLOEXEC);
    assert_int_equal(ftruncate(memory, (off_t)size), 0);
    assert_int_equal(ftruncate(bed->fd, 1 << 20), 0);
    bed->memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    assert_ptr_not_equal(bed->memory, MAP_FAILED);
    close(memory);
    bed->file = sdc_loop_file_add(bed->loop, bed->fd);
    fixed_reads = fixed_writes = registered = unregistered = refuse_times = 0;
    refuse_register = refuse_unregister = 0;
}

static void tear_down(struct bed *bed)
{
    sdc_loop_file_remove(bed->loop, bed->file);
    sdc_loop_free(bed->loop);
    munmap(bed->memory, bed->size);
    close(bed->fd);
}

// Turns until it has been let go.
static void take_away(struct bed *bed, struct place *place)
{
    sdc_loop_buffer_remove(bed->loop, &place->buffer);
    for (unsigned i = 0; i < 100000 && !place->removed; i++) {
        loop_turns(bed->loop, 1);
        if (!place->removed)
            poll(NULL, 0, 1); // an older kernel lets go after a second
    }
    assert_true(place->removed);
}

static void io_done(struct sdc_io *io)
{
    struct bed *bed = sdc_container(io, struct bed, io);

    bed->ended = true;
    sdc_loop_stop(bed->loop);
}

static void begin(struct sdc_post *post)
{
    struct bed *bed = sdc_container(post, struct bed, post);

    sdc_loop_io(bed->loop, &bed->io);
    if (bed->take_away)
        sdc_loop_buffer_remove(bed->loop, &bed->take_away->buffer);
}

static void prepare(struct bed *bed, enum sdc_io_op op, uint64_t at, size_t size)
{
    bed->ended = false;
    bed->spans[0] = (struct sdc_span){bed->memory + at, size};
    bed->io = (struct sdc_io){.op = op, .file = bed->file, .spans = bed->spans, .spans_count = 1, .done = io_done};
    bed->post = (struct sdc_post){.run = begin};
}

static int64_t transfer(struct bed *bed, enum sdc_io_op op, uint64_t at, size_t size)
{
    prepare(bed, op, at, size);
    sdc_loop_post(bed->loop, &bed->post);
    run(bed->loop);
    assert_true(bed->ended);
    return bed->io.result;
}

// Goes to a place in memory so often that it is worth it to register it.
static void use_often(struct bed *bed, uint64_t at)
{
    for (unsigned i = 0; i < ENOUGH; i++)
        assert_int_equal(transfer(bed, SDC_IO_READ, at, BLOCK), BLOCK);
}

// Writes what is at one place, reads it to another: one way or the other.
static void assert_moves(struct bed *bed, uint64_t from, uint64_t to, size_t size, bool by_registered_memory)
{
    unsigned reads = fixed_reads, writes = fixed_writes;

    for (size_t i = 0; i < size; i++)
        bed->memory[from + i] = (uint8_t)(i * 7 + from / BLOCK);
    memset(bed->memory + to, 0, size);
    assert_int_equal(transfer(bed, SDC_IO_WRITE, from, size), size);
    assert_int_equal(transfer(bed, SDC_IO_READ, to, size), size);
    assert_memory_equal(bed->memory + from, bed->memory + to, size);
    assert_int_equal(fixed_writes - writes, by_registered_memory);
    assert_int_equal(fixed_reads - reads, by_registered_memory);
}

// --- the tests ---

static void memory_that_is_used_often_is_registered(void **state)
{
    struct bed bed;
    (void)state;
    set_up(&bed, 1 << 20);
    struct place place = add(&bed, 0, 512 << 10);

    sdc_loop_buffer_add(bed.loop, &place.buffer);
    assert_moves(&bed, 0, 2 * BLOCK, BLOCK, false);
    assert_int_equal(registered, 0);
    use_often(&bed, 0);
    assert_int_equal(registered, 1);
    assert_moves(&bed, 0, 2 * BLOCK, BLOCK, true);
    assert_moves(&bed, (512 << 10) - 2 * BLOCK, (512 << 10) - BLOCK, BLOCK, true);
    assert_moves(&bed, 512 << 10, (512 << 10) + BLOCK, BLOCK, false);         // behind it
    assert_moves(&bed, (512 << 10) - BLOCK, 600 << 10, 2 * BLOCK, false); // over its end
    take_away(&bed, &place);
    assert_int_equal(unregistered, 1);
    assert_moves(&bed, 0, 2 * BLOCK, BLOCK, false);
    tear_down(&bed);
}

static void a_long_buffer_is_registered_in_chunks_as_they_are_used(void **state)
{
    struct bed bed;
    (void)state;
    set_up(&bed, 3 * CHUNK);
    struct place place = add(&bed, 0, 2 * CHUNK + 2 * BLOCK);

    sdc_loop_buffer_add(bed.loop, &place.buffer);
    use_often(&bed, CHUNK - BLOCK);
    assert_int_equal(registered, 1);
    assert_moves(&bed, CHUNK - BLOCK, 0, BLOCK, true);
    assert_moves(&bed, CHUNK, CHUNK + BLOCK, BLOCK, false);
    use_often(&bed, CHUNK);
    use_often(&bed, 2 * CHUNK);
    assert_int_equal(registered, 3);
    assert_moves(&bed, CHUNK, CHUNK + BLOCK, BLOCK, true);
    assert_moves(&bed, 2 * CHUNK, 2 * CHUNK + BLOCK, BLOCK, true);
    assert_moves(&bed, CHUNK - BLOCK, 2 * CHUNK - BLOCK, 2 * BLOCK, false); // over their borders
    take_away(&bed, &place);
    assert_int_equal(unregistered, 3);
    tear_down(&bed);
}

static void several_spans_go_as_ever(void **state)
{
    struct bed bed;
    (void)state;
    set_up(&bed, 1 << 20);
    struct place place = add(&bed, 0, 1 << 20);

    sdc_loop_buffer_add(bed.loop, &place.buffer);
    use_often(&bed, 0);
    unsigned before = fixed_reads;
    prepare(&bed, SDC_IO_READ, 0, BLOCK);
    bed.spans[1] = (struct sdc_span){bed.memory + 8 * BLOCK, BLOCK};
    bed.io.spans_count = 2;
    sdc_loop_post(bed.loop, &bed.post);
    run(bed.loop);
    assert_int_equal(bed.io.result, 2 * BLOCK);
    assert_int_equal(fixed_reads, before);
    take_away(&bed, &place);
    tear_down(&bed);
}

// Whatever the order in which they come and go, nothing is done by memory that was taken away, and all that is done is right.
static void buffers_come_and_go_in_any_order(void **state)
{
    enum { BUFFERS = 24, STEPS = 150 };
    struct bed bed;
    struct place places[BUFFERS];
    bool there[BUFFERS] = {false};
    unsigned seed = 1;
    (void)state;
    set_up(&bed, BUFFERS * 16 * BLOCK);
    for (unsigned step = 0; step < STEPS; step++) {
        seed = seed * 1103515245 + 12345;
        unsigned i = (seed >> 16) % BUFFERS;
        uint64_t at = (uint64_t)i * 16 * BLOCK;
        if (there[i]) {
            take_away(&bed, &places[i]);
        } else {
            // Every third reaches into its neighbour.
            places[i] = add(&bed, at, (i % 3 == 0 && i + 1 < BUFFERS ? 24 : 16) * BLOCK);
            sdc_loop_buffer_add(bed.loop, &places[i].buffer);
            if (i % 2 == 0)
                use_often(&bed, at);
        }
        there[i] = !there[i];
        bool known = there[i] || (i > 0 && (i - 1) % 3 == 0 && there[i - 1]);
        unsigned before = fixed_reads;
        assert_int_equal(transfer(&bed, SDC_IO_READ, at, BLOCK), BLOCK);
        if (!known)
            assert_int_equal(fixed_reads, before);
        else if (there[i] && i % 2 == 0)
            assert_int_equal(fixed_reads, before + 1);
    }
    for (unsigned i = 0; i < BUFFERS; i++) {
        if (there[i])
            take_away(&bed, &places[i]);
    }
    assert_int_equal(registered, unregistered);
    tear_down(&bed);
}

static void what_is_taken_away_is_let_go_when_the_last_io_has_ended(void **state)
{
    struct bed bed;
    int ends[2];
    char text[BLOCK] = "from the pipe";
    (void)state;
    set_up(&bed, 1 << 20);
    struct place place = add(&bed, 0, 1 << 20);
    sdc_loop_buffer_add(bed.loop, &place.buffer);
    use_often(&bed, 0);
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    int file = sdc_loop_file_add(bed.loop, ends[0]);

    prepare(&bed, SDC_IO_READ, 0, BLOCK); // of nothing, yet
    bed.io.file = file;
    sdc_loop_post(bed.loop, &bed.post);
    loop_turns(bed.loop, 10);
    assert_false(bed.ended);
    sdc_loop_buffer_remove(bed.loop, &place.buffer);
    for (unsigned i = 0; i < 30; i++) {
        loop_turns(bed.loop, 2);
        poll(NULL, 0, 1);
    }
    assert_false(place.removed);

    assert_int_equal(write(ends[1], text, sizeof text), sizeof text);
    run(bed.loop);
    assert_int_equal(bed.io.result, BLOCK);
    assert_memory_equal(bed.memory, text, sizeof text);
    for (unsigned i = 0; i < 100000 && !place.removed; i++) {
        loop_turns(bed.loop, 2);
        poll(NULL, 0, 1);
    }
    assert_true(place.removed);
    sdc_loop_file_remove(bed.loop, file);
    close(ends[0]);
    close(ends[1]);
    tear_down(&bed);
}

static void io_that_was_asked_for_before_memory_is_taken_away_is_done(void **state)
{
    struct bed bed;
    (void)state;
    set_up(&bed, 1 << 20);
    struct place place = add(&bed, 0, 1 << 20);
    sdc_loop_buffer_add(bed.loop, &place.buffer);
    use_often(&bed, 0);
    unsigned before = fixed_writes;

    memset(bed.memory, 0x5a, BLOCK);
    prepare(&bed, SDC_IO_WRITE, 0, BLOCK);
    bed.take_away = &place;
    sdc_loop_post(bed.loop, &bed.post);
    run(bed.loop);
    bed.take_away = NULL;
    assert_int_equal(bed.io.result, BLOCK);
    assert_int_equal(fixed_writes, before + 1);
    for (unsigned i = 0; i < 100000 && !place.removed; i++) {
        loop_turns(bed.loop, 2);
        poll(NULL, 0, 1);
    }
    assert_true(place.removed);
    assert_int_equal(transfer(&bed, SDC_IO_READ, BLOCK, BLOCK), BLOCK);
    assert_memory_equal(bed.memory, bed.memory + BLOCK, BLOCK);
    tear_down(&bed);
}

static unsigned warnings;

static void count_warning(enum sdc_log_level level, const char *line)
{
    warnings += level == SDC_LOG_WARNING;
    (void)line;
}

static uint64_t no_time(void)
{
    return 0;
}

static void no_room_is_said_once_and_io_goes_on_without(void **state)
{
    static struct sdc_log_sink sink = {.level = SDC_LOG_WARNING, .write = count_warning, .now_ns = no_time};
    struct bed bed;
    (void)state;
    sdc_log_to(&sink);
    set_up(&bed, 3 * CHUNK);
    struct place small = add(&bed, 2 * CHUNK, 1 << 20), large = add(&bed, 0, 2 * CHUNK);
    sdc_loop_buffer_add(bed.loop, &small.buffer);
    sdc_loop_buffer_add(bed.loop, &large.buffer);
    use_often(&bed, 2 * CHUNK);
    assert_int_equal(registered, 1);

    refuse_register = ENOMEM;
    refuse_times = 1;
    use_often(&bed, 0);
    assert_int_equal(registered, 2);
    assert_int_equal(warnings, 1);
    assert_moves(&bed, 0, BLOCK, BLOCK, false);
    assert_moves(&bed, 2 * CHUNK, 2 * CHUNK + BLOCK, BLOCK, true);
    use_often(&bed, CHUNK);
    assert_int_equal(registered, 2); // it would be refused as well

    take_away(&bed, &small);
    use_often(&bed, 0);
    assert_moves(&bed, 0, BLOCK, BLOCK, true);
    refuse_times = 1;
    use_often(&bed, CHUNK);
    assert_moves(&bed, CHUNK, CHUNK + BLOCK, BLOCK, false);
    assert_int_equal(warnings, 1);
    take_away(&bed, &large);
    tear_down(&bed);
    sdc_log_to(&(struct sdc_log_sink){0});
}

static void memory_that_the_kernel_does_not_take_is_not_tried_again(void **state)
{
    struct bed bed;
    (void)state;
    set_up(&bed, 2 * CHUNK);
    struct place place = add(&bed, 0, 2 * CHUNK);
    sdc_loop_buffer_add(bed.loop, &place.buffer);
    refuse_register = EOPNOTSUPP;
    refuse_times = 1;
    use_often(&bed, 0);
    use_often(&bed, 0);
    assert_int_equal(registered, 1);
    assert_moves(&bed, 0, BLOCK, BLOCK, false);
    use_often(&bed, CHUNK);
    assert_moves(&bed, CHUNK, CHUNK + BLOCK, BLOCK, true);
    take_away(&bed, &place);
    assert_int_equal(unregistered, 1);
    tear_down(&bed);
}

static void the_kernel_is_asked_to_let_go_until_it_does(void **state)
{
    struct bed bed;
    (void)state;
    set_up(&bed, 2 * CHUNK);
    struct place place = add(&bed, 0, 2 * CHUNK);
    sdc_loop_buffer_add(bed.loop, &place.buffer);
    use_often(&bed, 0);
    use_often(&bed, CHUNK);
    refuse_unregister = ENOMEM;
    refuse_times = 5;
    take_away(&bed, &place);
    assert_int_equal(refuse_times, 0);
    assert_int_equal(unregistered, 5 + 2);
    tear_down(&bed);
}

static void a_loop_that_is_turned_from_outside_registers_too(void **state)
{
    struct bed bed;
    struct sdc_error err;
    (void)state;
    set_up(&bed, 1 << 20);
    struct place place = add(&bed, 0, 1 << 20);
    int fd = sdc_loop_fd(bed.loop, &err);
    assert_true(fd >= 0);
    sdc_loop_buffer_add(bed.loop, &place.buffer);
    for (unsigned i = 0; i < ENOUGH; i++) {
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        prepare(&bed, SDC_IO_READ, 0, BLOCK);
        bed.io.done = io_done;
        sdc_loop_post(bed.loop, &bed.post);
        while (!bed.ended) {
            assert_true(poll(&wait, 1, 120000) > 0);
            sdc_loop_process(bed.loop);
        }
    }
    assert_int_equal(registered, 1);
    assert_true(fixed_reads > 0);
    sdc_loop_buffer_remove(bed.loop, &place.buffer);
    while (!place.removed) {
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        assert_true(poll(&wait, 1, 120000) > 0);
        sdc_loop_process(bed.loop);
    }
    tear_down(&bed);
}

static void epoll_takes_no_buffers(void **state)
{
    struct sdc_loop *loop;
    struct sdc_error err;
    (void)state;
    assert_int_equal(sdc_loop_new(SDC_LOOP_EPOLL, &loop, &err), 0);
    assert_false(sdc_loop_takes_buffers(loop));
    sdc_loop_free(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_that_is_used_often_is_registered),
        cmocka_unit_test(a_long_buffer_is_registered_in_chunks_as_they_are_used),
        cmocka_unit_test(several_spans_go_as_ever),
        cmocka_unit_test(buffers_come_and_go_in_any_order),
        cmocka_unit_test(what_is_taken_away_is_let_go_when_the_last_io_has_ended),
        cmocka_unit_test(io_that_was_asked_for_before_memory_is_taken_away_is_done),
        cmocka_unit_test(no_room_is_said_once_and_io_goes_on_without),
        cmocka_unit_test(memory_that_the_kernel_does_not_take_is_not_tried_again),
        cmocka_unit_test(the_kernel_is_asked_to_let_go_until_it_does),
        cmocka_unit_test(a_loop_that_is_turned_from_outside_registers_too),
        cmocka_unit_test(epoll_takes_no_buffers),
    };
    loop_kind = SDC_LOOP_IO_URING;
    if (!loop_kind_is_permitted())
        return 77; // nothing to be tested here
    return cmocka_run_group_tests(tests, NULL, NULL);
}
