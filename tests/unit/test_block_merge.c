// SPDX-License-Identifier: BSD-3-Clause
// A batch for the file backend: one way into the kernel, and requests that follow one another on the disk as one I/O, which when it
// fails or falls short takes nobody with it. The linker puts the functions __wrap_... before the loop and the kernel.
#include "io_faults.h"
#include "uring_calls.h"

#include "backend/block/file.h"
#include "loop/uring.h"

#include <stdatomic.h>
#include <sys/uio.h>

enum { BLOCK = 4096, MOST = 640, IMAGE = 4 << 20 };

static struct {
    unsigned ios;            // handed to the loop
    uint64_t sizes[MOST];    // of the first ones, bytes
    unsigned hand_overs;     // of some to io_uring
    atomic_uint calls;       // preadv2 and pwritev2
} seen;

static struct {
    uint64_t bad;        // an I/O with this byte of the disk fails; UINT64_MAX: none
    uint64_t cut;        // the first I/O moves only so many bytes; UINT64_MAX: all
    bool noise;          // I/O falls short, or is to be tried again
    unsigned seed;
} fault;

// --- what stands in between ---

void __wrap_sdc_loop_io(struct sdc_loop *loop, struct sdc_io *io)
{
    uint64_t size = io_size(io);
    unsigned dice = fault.noise ? (unsigned)rand_r(&fault.seed) % 8 : 8;
    if (seen.ios < MOST)
        seen.sizes[seen.ios] = size;
    if (seen.ios++ == 0 && fault.cut < size)
        assert_true(io_cut(io, fault.cut));
    if (fault.bad - io->offset < size) {
        io_end(loop, io, -EIO);
        return;
    }
    if (dice < 2) {
        io_end(loop, io, dice == 0 ? -EINTR : -EAGAIN);
        return;
    }
    if (dice < 5 && size > 1)
        assert_true(io_cut(io, 1 + (uint64_t)rand_r(&fault.seed) % (size - 1)));
    __real_sdc_loop_io(loop, io);
}

void uring_call(const struct io_uring *ring)
{
    unsigned ios = 0;
    for (unsigned at = ring->sq.sqe_head; at != ring->sq.sqe_tail; at++)
        ios += (ring->sq.sqes[at & *ring->sq.kring_mask].user_data & SDC_URING_TAGS) == SDC_URING_IO;
    seen.hand_overs += ios > 0;
}

ssize_t __real_preadv64v2(int fd, const struct iovec *iov, int count, off_t offset, int flags);
ssize_t __real_pwritev64v2(int fd, const struct iovec *iov, int count, off_t offset, int flags);
ssize_t __wrap_preadv64v2(int fd, const struct iovec *iov, int count, off_t offset, int flags);
ssize_t __wrap_pwritev64v2(int fd, const struct iovec *iov, int count, off_t offset, int flags);

ssize_t __wrap_preadv64v2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
    ssize_t ret = __real_preadv64v2(fd, iov, count, offset, flags);
    int code = errno;
    // One that would have had to wait is done once more by a thread.
    if (ret >= 0 || code != EAGAIN)
        atomic_fetch_add(&seen.calls, 1);
    errno = code;
    return ret;
}

ssize_t __wrap_pwritev64v2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
    atomic_fetch_add(&seen.calls, 1);
    return __real_pwritev64v2(fd, iov, count, offset, flags);
}

// --- a batch ---

// Blocks of a disk in one batch, one request each. What is written is 'a' + the block's number, modulo 23.
static struct batch {
    struct sdc_block_request requests[MOST], *list[MOST];
    struct sdc_span spans[MOST];
    unsigned char *memory; // MOST blocks, a block apart from one another
    unsigned count;
} batch;

static unsigned char *memory_of(unsigned i)
{
    return batch.memory + (size_t)i * 2 * BLOCK;
}

static struct sdc_block_request *put(enum sdc_block_op op, uint64_t block)
{
    unsigned i = batch.count++;
    bool write = op == SDC_BLOCK_WRITE;
    assert_true(i < MOST);
    memset(memory_of(i), write ? 'a' + (int)(block % 23) : 0, BLOCK);
    batch.spans[i] = (struct sdc_span){memory_of(i), BLOCK};
    batch.requests[i] = (struct sdc_block_request){.op = op, .offset = block * BLOCK, .size = BLOCK, .spans = &batch.spans[i],
                                                   .spans_count = 1, .result = 1};
    if (op == SDC_BLOCK_FLUSH)
        batch.requests[i].offset = batch.requests[i].size = batch.requests[i].spans_count = 0;
    batch.list[i] = &batch.requests[i];
    return &batch.requests[i];
}

static void put_run(enum sdc_block_op op, uint64_t block, unsigned count)
{
    while (count-- > 0)
        put(op, block++);
}

static void forget(void)
{
    memset(&seen, 0, sizeof seen);
    batch.count = 0;
}

static void go(struct fixture *f)
{
    unsigned count = batch.count;
    forget();
    fixture_run(f, batch.list, count);
    batch.count = count;
}

static void expect_result(unsigned from, unsigned to, int result)
{
    for (unsigned i = from; i < to; i++)
        assert_int_equal(batch.requests[i].result, result);
}

// What was read, or is on the disk now, is what was written.
static void expect_data(unsigned from, unsigned to)
{
    for (unsigned i = from; i < to; i++) {
        const unsigned char *memory = batch.requests[i].spans->base;
        for (unsigned j = 0; j < BLOCK; j++)
            assert_int_equal(memory[j], 'a' + (int)(batch.requests[i].offset / BLOCK % 23));
    }
}

static void read_back(struct fixture *f, uint64_t block, unsigned count)
{
    forget();
    put_run(SDC_BLOCK_READ, block, count);
    go(f);
    expect_result(0, count, 0);
    expect_data(0, count);
}

static char *image;

static void open_disk(struct fixture *f, bool direct)
{
    image = make_image(IMAGE);
    batch.memory = aligned_alloc(BLOCK, (size_t)MOST * 2 * BLOCK);
    fault = (typeof(fault)){.bad = UINT64_MAX, .cut = UINT64_MAX, .seed = 11};
    forget();
    fixture_open(f, image, &(struct sdc_block_open_options){.direct = direct});
}

static void close_disk(struct fixture *f)
{
    fixture_close(f);
    free(batch.memory);
    drop_image(image);
    io_forget_cuts();
}

// Of a loop on io_uring, so many of its calls have I/O in them.
static void expect_calls(unsigned ios, unsigned hand_overs)
{
    assert_int_equal(seen.ios, ios);
    if (loop_kind == SDC_LOOP_IO_URING)
        assert_int_equal(seen.hand_overs, hand_overs);
    else
        assert_int_equal(atomic_load(&seen.calls), ios);
}

static void expect_ios(unsigned ios)
{
    expect_calls(ios, 1);
}

// --- how many ---

static void a_batch_enters_the_kernel_once(void **state)
{
    (void)state;
    struct fixture f;
    open_disk(&f, false);
    for (unsigned i = 0; i < 200; i++)
        put(SDC_BLOCK_WRITE, 2 * i);
    go(&f);
    expect_ios(200);
    expect_result(0, 200, 0);
    for (unsigned i = 0; i < 200; i++)
        read_back(&f, 2 * i, 1);
    close_disk(&f);
}

static void neighbours_go_as_one(void **state)
{
    (void)state;
    struct fixture f;
    open_disk(&f, false);
    put_run(SDC_BLOCK_WRITE, 7, 64);
    go(&f);
    expect_ios(1);
    expect_result(0, 64, 0);
    read_back(&f, 7, 64);
    // What an epoll loop would have read at once one by one it reads at once in parts.
    expect_ios(loop_kind == SDC_LOOP_EPOLL ? 64 * BLOCK / SDC_IO_AT_ONCE : 1);
    close_disk(&f);
}

static void a_merged_io_is_bounded(void **state)
{
    enum { LARGE = 16 * BLOCK };
    (void)state;
    struct fixture f;
    open_disk(&f, false);
    put_run(SDC_BLOCK_WRITE, 0, 600);
    go(&f);
    expect_ios(10); // of 64 requests each
    expect_result(0, 600, 0);
    read_back(&f, 0, 600);
    forget();
    put_run(SDC_BLOCK_WRITE, 0, 40);
    for (unsigned i = 0; i < 40; i++) {
        batch.requests[i].offset = (uint64_t)i * LARGE;
        batch.requests[i].size = batch.spans[i].size = LARGE;
    }
    go(&f);
    expect_ios(3); // of a MiB each
    for (unsigned i = 0; i < 3; i++)
        assert_in_range(seen.sizes[i], LARGE, 1 << 20);
    expect_result(0, 40, 0);
    close_disk(&f);
}

static void strangers_stay_apart(void **state)
{
    (void)state;
    struct fixture f;
    open_disk(&f, false);
    put_run(SDC_BLOCK_WRITE, 0, 2);  // 1
    put(SDC_BLOCK_FLUSH, 0);         // 2
    put_run(SDC_BLOCK_WRITE, 2, 2);  // 3
    put_run(SDC_BLOCK_WRITE, 5, 2);  // 4: after a gap
    put_run(SDC_BLOCK_READ, 7, 2);   // 5: another direction
    for (unsigned i = 0; i < 3; i++)
        put(SDC_BLOCK_WRITE, 9 + i)->flags = SDC_BLOCK_FUA; // 6, 7, 8
    put(SDC_BLOCK_WRITE, 12);        // 9
    put(SDC_BLOCK_WRITE, 14);        // 10
    put(SDC_BLOCK_WRITE, 13);        // 11: backwards
    go(&f);
    assert_int_equal(seen.ios, 11);
    expect_result(0, batch.count, 0);
    close_disk(&f);
}

static void more_runs_than_there_is_room_for_go_one_by_one(void **state)
{
    (void)state;
    struct fixture f;
    open_disk(&f, false);
    for (unsigned i = 0; i < 20; i++)
        put_run(SDC_BLOCK_WRITE, 10 * i, 4);
    go(&f);
    expect_ios(16 + 4 * 4);
    expect_result(0, 80, 0);
    for (unsigned i = 0; i < 20; i++)
        read_back(&f, 10 * i, 4);
    close_disk(&f);
}

// --- what goes wrong ---

static void a_request_that_is_wrong_is_left_out(void **state)
{
    (void)state;
    struct fixture f;
    open_disk(&f, false);
    put_run(SDC_BLOCK_WRITE, IMAGE / BLOCK - 3, 6); // half of them behind the end
    go(&f);
    assert_int_equal(seen.ios, 1);
    expect_result(0, 3, 0);
    expect_result(3, 6, -EINVAL);
    forget();
    put_run(SDC_BLOCK_WRITE, 0, 5);
    batch.spans[2].size = BLOCK / 2; // less than it says
    go(&f);
    expect_ios(2);
    expect_result(0, 2, 0);
    expect_result(2, 3, -EINVAL);
    expect_result(3, 5, 0);
    close_disk(&f);
}

static void who_fails_fails_alone(void **state)
{
    (void)state;
    struct fixture f;
    open_disk(&f, false);
    fault.bad = 5 * BLOCK + 17;
    put_run(SDC_BLOCK_WRITE, 0, 8);
    go(&f);
    assert_int_equal(seen.ios, 1 + 8);
    expect_result(0, 5, 0);
    expect_result(5, 6, -EIO);
    expect_result(6, 8, 0);
    read_back(&f, 0, 5);
    read_back(&f, 6, 2);
    forget();
    put_run(SDC_BLOCK_READ, 0, 8);
    go(&f);
    expect_result(0, 5, 0);
    expect_data(0, 5);
    expect_result(5, 6, -EIO);
    expect_result(6, 8, 0);
    expect_data(6, 8);
    close_disk(&f);
}

static void what_falls_short_goes_on_one_by_one(void **state)
{
    (void)state;
    static const uint64_t cuts[] = {1, BLOCK - 1, BLOCK, 3 * BLOCK + 100, 8 * BLOCK - 1};
    struct fixture f;
    open_disk(&f, false);
    for (size_t i = 0; i < SDC_COUNT(cuts); i++) {
        fault.cut = cuts[i];
        forget();
        put_run(SDC_BLOCK_WRITE, 16 * i, 8);
        go(&f);
        assert_int_equal(seen.ios, 1 + 8);
        expect_result(0, 8, 0);
        read_back(&f, 16 * i, 8); // which is cut as well
    }
    close_disk(&f);
}

static void a_disk_that_was_cut_off_fails_those_behind_its_end(void **state)
{
    (void)state;
    struct fixture f;
    open_disk(&f, false);
    put_run(SDC_BLOCK_WRITE, 0, 8);
    go(&f);
    assert_int_equal(truncate(image, 5 * BLOCK), 0);
    forget();
    put_run(SDC_BLOCK_READ, 0, 8);
    go(&f);
    expect_result(0, 5, 0);
    expect_data(0, 5);
    expect_result(5, 8, -EIO);
    close_disk(&f);
}

static void a_failed_flush_ends_merged_writes_too(void **state)
{
    (void)state;
    struct fixture f;
    open_disk(&f, false);
    atomic_store(&((struct sdc_file *)f.block)->failed, true);
    put_run(SDC_BLOCK_WRITE, 0, 4);
    put_run(SDC_BLOCK_READ, 0, 4);
    go(&f);
    assert_int_equal(seen.ios, 1);
    expect_result(0, 4, -EIO);
    expect_result(4, 8, 0);
    close_disk(&f);
}

// Runs and single ones at random, all of which go through in the end.
static void noise_is_endured(void **state)
{
    (void)state;
    struct fixture f;
    open_disk(&f, false);
    fault.noise = true;
    for (unsigned round = 0; round < 60; round++) {
        uint64_t block = 0;
        forget();
        while (block < 64) {
            unsigned count = 1 + (unsigned)rand_r(&fault.seed) % 12;
            put_run(SDC_BLOCK_WRITE, block, count);
            block += count + (unsigned)rand_r(&fault.seed) % 3;
        }
        go(&f);
        unsigned count = batch.count;
        expect_result(0, count, 0);
        for (unsigned i = 0; i < count; i++) {
            batch.requests[i].op = SDC_BLOCK_READ;
            memset(memory_of(i), 0, BLOCK);
        }
        go(&f);
        expect_result(0, count, 0);
        expect_data(0, count);
    }
    close_disk(&f);
}

// --- direct I/O ---

static void misaligned_memory_is_bounced_alone(void **state)
{
    (void)state;
    struct sdc_error err = {0};
    struct sdc_block *block;
    struct fixture f;
    char *probe = make_image(IMAGE);
    int ret = sdc_block_open(probe, &(struct sdc_block_open_options){.direct = true}, &block, &err);
    if (ret == 0)
        block->ops->close(block);
    drop_image(probe);
    if (ret == -EINVAL)
        skip();
    open_disk(&f, true);
    put_run(SDC_BLOCK_WRITE, 0, 9);
    batch.spans[4].base = memory_of(4) + 1;
    memset(memory_of(4) + 1, 'a' + 4, BLOCK);
    go(&f);
    expect_calls(3, 2); // the disk begins with two
    expect_result(0, 9, 0);
    read_back(&f, 0, 9);
    expect_ios(1);
    close_disk(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_batch_enters_the_kernel_once),
        cmocka_unit_test(neighbours_go_as_one),
        cmocka_unit_test(a_merged_io_is_bounded),
        cmocka_unit_test(strangers_stay_apart),
        cmocka_unit_test(more_runs_than_there_is_room_for_go_one_by_one),
        cmocka_unit_test(a_request_that_is_wrong_is_left_out),
        cmocka_unit_test(who_fails_fails_alone),
        cmocka_unit_test(what_falls_short_goes_on_one_by_one),
        cmocka_unit_test(a_disk_that_was_cut_off_fails_those_behind_its_end),
        cmocka_unit_test(a_failed_flush_ends_merged_writes_too),
        cmocka_unit_test(noise_is_endured),
        cmocka_unit_test(misaligned_memory_is_bounced_alone),
    };
    RUN_WITH_EVERY_LOOP(tests);
}
