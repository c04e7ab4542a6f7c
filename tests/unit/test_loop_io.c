// SPDX-License-Identifier: BSD-3-Clause
// Loops: file I/O.
#include "loop/uring.h"
#include "loop_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { IOS = 10000, IO_BYTES = 512 };

struct transfer {
    struct sdc_io io;
    struct transfers *all;
    struct sdc_span span;
};

struct transfers {
    struct sdc_loop *loop;
    struct sdc_post post;
    struct transfer *list;
    unsigned char *memory;
    unsigned left;
    int file;
    enum sdc_io_op op;
};

static void transfer_done(struct sdc_io *io)
{
    struct transfer *transfer = sdc_container(io, struct transfer, io);
    assert_int_equal(io->result, IO_BYTES);
    if (--transfer->all->left == 0)
        sdc_loop_stop(transfer->all->loop);
}

static void start_transfers(struct sdc_post *post)
{
    struct transfers *all = sdc_container(post, struct transfers, post);
    all->left = IOS;
    for (unsigned i = 0; i < IOS; i++) {
        struct transfer *transfer = &all->list[i];
        *transfer = (struct transfer){.all = all, .span = {all->memory + (size_t)i * IO_BYTES, IO_BYTES}};
        transfer->io = (struct sdc_io){.op = all->op,
                                       .file = all->file,
                                       .offset = (uint64_t)i * IO_BYTES,
                                       .spans = &transfer->span,
                                       .spans_count = 1,
                                       .done = transfer_done};
        sdc_loop_io(all->loop, &transfer->io);
    }
    assert_int_equal(all->left, IOS); // none was done inside
}

static void transfer_all(bool before_run)
{
    struct transfers all = {.loop = new_loop(), .post.run = start_transfers, .op = SDC_IO_WRITE};
    int fd = temporary_file();
    all.list = calloc(IOS, sizeof *all.list);
    all.memory = malloc((size_t)IOS * IO_BYTES);
    for (size_t i = 0; i < (size_t)IOS * IO_BYTES; i++)
        all.memory[i] = (unsigned char)(i * 31 + i / IO_BYTES);
    all.file = sdc_loop_file_add(all.loop, fd);
    assert_true(all.file >= 0);
    for (int round = 0; round < 2; round++) {
        if (before_run && round == 0)
            start_transfers(&all.post);
        else
            sdc_loop_post(all.loop, &all.post);
        run(all.loop);
        if (round == 0)
            memset(all.memory, 0, (size_t)IOS * IO_BYTES);
        all.op = SDC_IO_READ;
    }
    for (size_t i = 0; i < (size_t)IOS * IO_BYTES; i++)
        assert_int_equal(all.memory[i], (unsigned char)(i * 31 + i / IO_BYTES));
    sdc_loop_file_remove(all.loop, all.file);
    sdc_loop_free(all.loop);
    close(fd);
    free(all.list);
    free(all.memory);
}

static void more_io_than_the_rings_hold_is_done(void **state)
{
    (void)state;
    transfer_all(false);
}

static void io_asked_for_before_the_run_is_done(void **state)
{
    (void)state;
    transfer_all(true);
}

struct steps {
    struct sdc_loop *loop;
    struct sdc_io io;
    struct sdc_span spans[3];
    char text[3][4];
    int64_t results[6];
    unsigned step;
};

static void next_step(struct sdc_io *io)
{
    struct steps *steps = sdc_container(io, struct steps, io);
    steps->results[steps->step++] = io->result;
    switch (steps->step) {
    case 1:
        io->op = SDC_IO_FDATASYNC;
        break;
    case 2:
        io->op = SDC_IO_FALLOCATE;
        io->mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
        io->offset = 0;
        io->size = 2;
        break;
    case 3:
        io->op = SDC_IO_READ;
        memset(steps->text, 'x', sizeof steps->text);
        break;
    case 4:
        io->op = SDC_IO_READ; // past the end
        io->offset = 1 << 20;
        break;
    case 5:
        io->op = SDC_IO_FALLOCATE;
        io->mode = 0x4000; // there is no such mode
        break;
    default:
        sdc_loop_stop(steps->loop);
        return;
    }
    sdc_loop_io(steps->loop, io);
}

static void every_kind_of_io_works_and_errors_come_as_results(void **state)
{
    (void)state;
    struct steps s = {.loop = new_loop(), .text = {"abc", "def", "ghi"}};
    int fd = temporary_file();
    for (int i = 0; i < 3; i++)
        s.spans[i] = (struct sdc_span){s.text[i], 3};
    s.io = (struct sdc_io){.op = SDC_IO_WRITE,
                           .file = sdc_loop_file_add(s.loop, fd),
                           .dsync = true,
                           .spans = s.spans,
                           .spans_count = 3,
                           .done = next_step};
    assert_true(s.io.file >= 0);
    sdc_loop_io(s.loop, &s.io);
    run(s.loop);
    static const int64_t expected[] = {9, 0, 0, 9, 0, -EOPNOTSUPP};
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(s.results[i], expected[i]);
    assert_memory_equal(s.text[0], "\0\0cx", 4);
    assert_memory_equal(s.text[1], "defx", 4);
    assert_memory_equal(s.text[2], "ghix", 4);
    sdc_loop_file_remove(s.loop, s.io.file);
    sdc_loop_free(s.loop);
    close(fd);
}

enum { MANY = 700 }; // more than are registered

struct numbered {
    struct sdc_io io;
    struct sdc_span span;
    int fd;
    uint32_t written, found;
};

struct reader {
    struct sdc_loop *loop;
    struct sdc_post post;
    struct numbered *files;
    unsigned left;
};

static struct reader reader;

static void count_found(struct sdc_io *io)
{
    assert_int_equal(io->result, sizeof(uint32_t));
    if (--reader.left == 0)
        sdc_loop_stop(reader.loop);
}

static void read_every_file(struct sdc_post *post)
{
    (void)post;
    for (unsigned i = 0; i < MANY; i++) {
        struct numbered *file = &reader.files[i];
        file->span = (struct sdc_span){&file->found, sizeof file->found};
        file->io = (struct sdc_io){
            .op = SDC_IO_READ, .file = file->io.file, .spans = &file->span, .spans_count = 1, .done = count_found};
        sdc_loop_io(reader.loop, &file->io);
    }
}

static void add_numbered(struct numbered *file, uint32_t value)
{
    file->fd = temporary_file();
    file->written = value;
    assert_int_equal(pwrite(file->fd, &value, sizeof value, 0), sizeof value);
    file->io.file = sdc_loop_file_add(reader.loop, file->fd);
    assert_true(file->io.file >= 0);
}

static void each_of_many_files_is_read_by_its_number(void **state)
{
    (void)state;
    struct rlimit old;
    getrlimit(RLIMIT_NOFILE, &old);
    setrlimit(RLIMIT_NOFILE, &(struct rlimit){old.rlim_max, old.rlim_max});
    reader = (struct reader){.loop = new_loop(), .post.run = read_every_file, .files = calloc(MANY, sizeof *reader.files)};
    for (uint32_t i = 0; i < MANY; i++)
        add_numbered(&reader.files[i], i);
    for (uint32_t i = 0; i < MANY; i += 17) { // numbers are used again
        int number = reader.files[i].io.file;
        sdc_loop_file_remove(reader.loop, number);
        int before = reader.files[i].fd;
        add_numbered(&reader.files[i], MANY + i);
        assert_int_equal(reader.files[i].io.file, number);
        close(before);
    }
    reader.left = MANY;
    sdc_loop_post(reader.loop, &reader.post);
    run(reader.loop);
    for (unsigned i = 0; i < MANY; i++) {
        assert_int_equal(reader.files[i].found, reader.files[i].written);
        sdc_loop_file_remove(reader.loop, reader.files[i].io.file);
        close(reader.files[i].fd);
    }
    sdc_loop_free(reader.loop);
    free(reader.files);
    setrlimit(RLIMIT_NOFILE, &old);
}

// A disk of a thousand queues adds its file a thousand times.
static void a_file_that_is_added_again_keeps_its_number(void **state)
{
    (void)state;
    struct sdc_loop *loop = new_loop();
    int fd = temporary_file();
    int file = sdc_loop_file_add(loop, fd);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(sdc_loop_file_add(loop, fd), file);
    for (int i = 0; i < 1000; i++)
        sdc_loop_file_remove(loop, file);
    int other = dup(fd);
    assert_int_not_equal(sdc_loop_file_add(loop, other), file);
    sdc_loop_file_remove(loop, file);
    sdc_loop_free(loop);
    close(other);
    close(fd);
}

// A process that may open few files cannot register many either.
static void io_works_without_registered_files(void **state)
{
    (void)state;
    struct rlimit old, low;
    getrlimit(RLIMIT_NOFILE, &old);
    low = (struct rlimit){64, old.rlim_max};
    setrlimit(RLIMIT_NOFILE, &low);
    transfer_all(false);
    setrlimit(RLIMIT_NOFILE, &old);
}

enum { BATCH = 16, PAGE = 4096 };

struct batch {
    struct sdc_post post;
    struct sdc_loop *loop;
    int file;
    void *memory;
    unsigned ready; // that the kernel had not been given at the end
    unsigned left;
    struct batch_io {
        struct sdc_io io;
        struct batch *batch;
        struct sdc_span span;
    } ios[BATCH];
};

static struct sdc_uring *uring_of(struct sdc_loop *loop)
{
    return loop->engine;
}

static void batch_done(struct sdc_io *io)
{
    struct batch *batch = sdc_container(io, struct batch_io, io)->batch;
    assert_int_equal(io->result, PAGE);
    if (--batch->left == 0)
        sdc_loop_stop(batch->loop);
}

static void start_batch(struct sdc_post *post)
{
    struct batch *batch = sdc_container(post, struct batch, post);
    batch->left = BATCH;
    for (unsigned i = 0; i < BATCH; i++) {
        struct batch_io *one = &batch->ios[i];
        *one = (struct batch_io){.batch = batch, .span = {(char *)batch->memory + (size_t)i * PAGE, PAGE}};
        one->io = (struct sdc_io){.op = SDC_IO_READ,
                                  .file = batch->file,
                                  .offset = (uint64_t)i * PAGE,
                                  .spans = &one->span,
                                  .spans_count = 1,
                                  .done = batch_done};
        sdc_loop_io(batch->loop, &one->io);
    }
    batch->ready = io_uring_sq_ready(&uring_of(batch->loop)->ring);
}

// Reads what fd is as one batch, twice, with such flags of open. False: it cannot be opened so.
static bool read_batch(struct batch *batch, int fd, int flags)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int again = open(path, O_RDONLY | O_CLOEXEC | flags);
    if (again < 0)
        return false;
    batch->file = sdc_loop_file_add(batch->loop, again);
    for (unsigned round = 0; round < 2; round++) {
        sdc_loop_post(batch->loop, &batch->post);
        run(batch->loop);
        assert_int_equal(uring_of(batch->loop)->direct, 0);
    }
    sdc_loop_file_remove(batch->loop, batch->file);
    close(again);
    return true;
}

static void a_disk_begins_before_all_of_a_batch_is_ready(void **state)
{
    struct batch batch = {.post.run = start_batch};
    (void)state;
    if (loop_kind != SDC_LOOP_IO_URING)
        skip(); // its threads begin at once
    int fd = temporary_file();
    assert_int_equal(ftruncate(fd, (off_t)BATCH * PAGE), 0);
    batch.memory = aligned_alloc(PAGE, (size_t)BATCH * PAGE);
    batch.loop = new_loop();
    assert_true(read_batch(&batch, fd, 0));
    assert_int_equal(batch.ready, BATCH); // what needs no disk goes by fewest calls
    if (read_batch(&batch, fd, O_DIRECT))
        assert_in_range(batch.ready, 1, BATCH / 2); // the last ones go down as the turn ends
    else
        print_message("no direct I/O here\n");
    sdc_loop_free(batch.loop);
    free(batch.memory);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(more_io_than_the_rings_hold_is_done),
        cmocka_unit_test(io_asked_for_before_the_run_is_done),
        cmocka_unit_test(every_kind_of_io_works_and_errors_come_as_results),
        cmocka_unit_test(each_of_many_files_is_read_by_its_number),
        cmocka_unit_test(a_file_that_is_added_again_keeps_its_number),
        cmocka_unit_test(io_works_without_registered_files),
        cmocka_unit_test(a_disk_begins_before_all_of_a_batch_is_ready),
    };
    RUN_WITH_EVERY_LOOP(tests);
}
