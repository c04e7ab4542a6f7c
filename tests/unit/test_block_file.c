// SPDX-License-Identifier: BSD-3-Clause
// What is particular to image files: what is refused at opening, the lock, the size, holes.
#include "block_fixture.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

static const struct sdc_block_open_options plain = {0};

static void refused(const char *spec, const struct sdc_block_open_options *options, int code,
                    const char *text)
{
    struct sdc_error err = {0};
    struct sdc_block *block = NULL;
    int ret = sdc_block_open(spec, options, &block, &err);
    if (ret == 0)
        block->ops->close(block);
    if (ret != code || err.code != code || !strstr(err.text, text))
        fail_msg("%s: %d, '%s'; expected %d, '%s'", spec, ret, err.text, code, text);
    // What is written wrong is the user's, what lies in the file system is the host's.
    assert_true(err.fault == SDC_FAULT_USER || err.fault == SDC_FAULT_HOST);
    assert_null(strchr(err.text, '\n'));
}

// --- what people get wrong ---

static void mistakes_in_names_and_sizes_are_explained(void **state)
{
    (void)state;
    static const struct {
        const char *spec;
        uint32_t block_size;
        int code;
        const char *text;
    } rows[] = {
        {"/nowhere/disk.img", 0, -ENOENT, "make one with: truncate -s 10G /nowhere/disk.img"},
        {"file:/nowhere/disk.img", 0, -ENOENT, "no such file: /nowhere/disk.img;"},
        {"/dev/nosuchdisk", 0, -ENOENT, "no such device: /dev/nosuchdisk"},
        {"nul:10G", 0, -ENOENT, "did you mean null:10G?"},
        {"frobnicate:10G", 0, -ENOENT, "no backend begins with 'frobnicate:' (there are null:, ram: and file:)"},
        {"/", 0, -EISDIR, "is a directory"},
        {"/dev/null", 0, -EINVAL, "neither a file nor a block device"},
        {"file:", 0, -EINVAL, "path is empty"},
        {"", 0, -EINVAL, "path is empty"},
        {"null:", 0, -EINVAL, "null:10G"},
        {"null:ten", 0, -EINVAL, "not a size"},
        {"ram:0", 0, -EINVAL, "not a size"},
        {"ram:-1", 0, -EINVAL, "not a size"},
        {"null:10GB", 0, -EINVAL, "not a size"},
        {"null:99999999999P", 0, -ERANGE, "too big"},
        {"ram:8000P", 0, -ENOMEM, "use a smaller size"},
        {"null:1000", 0, -EINVAL, "1024 would be"},
        {"null:1536", 4096, -EINVAL, "block size 4096"},
        {"null:1G", 1000, -EINVAL, "type 512, 1024, 2048 or 4096"},
        {"null:1G", 8192, -EINVAL, "type 512, 1024, 2048 or 4096"},
        {"null:1G", 256, -EINVAL, "type 512, 1024, 2048 or 4096"},
    };
    for (size_t i = 0; i < SDC_COUNT(rows); i++) {
        struct sdc_block_open_options options = {.block_size = rows[i].block_size};
        refused(rows[i].spec, &options, rows[i].code, rows[i].text);
    }
}

static void images_of_bad_sizes_are_refused(void **state)
{
    (void)state;
    char *image = make_image(0);
    refused(image, &plain, -EINVAL, "is empty; give it a size with: truncate -s 10G /");
    assert_int_equal(truncate(image, 1000), 0);
    refused(image, &plain, -EINVAL,
            "1000 bytes are not a multiple of the block size 512; fill it up with: truncate -s %512 /");
    assert_int_equal(truncate(image, 512), 0);
    refused(image, &(struct sdc_block_open_options){.block_size = 4096}, -EINVAL, "truncate -s %4096 /");
    drop_image(image);
}

static void a_fifo_is_refused_without_waiting(void **state)
{
    (void)state;
    char *path = make_image(0);
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    refused(path, &plain, -EINVAL, "neither a file nor a block device");
    refused(path, &(struct sdc_block_open_options){.read_only = true}, -EINVAL,
            "neither a file nor a block device");
    drop_image(path);
}

static void an_image_that_may_not_be_written_needs_read_only(void **state)
{
    (void)state;
    if (geteuid() == 0)
        skip(); // root may write anything
    char *image = make_image(4096);
    assert_int_equal(chmod(image, 0400), 0);
    refused(image, &plain, -EACCES, "add --read-only");
    assert_int_equal(chmod(image, 0), 0);
    refused(image, &(struct sdc_block_open_options){.read_only = true}, -EACCES, "no permission to read it");
    drop_image(image);
}

static void images_that_are_not_raw_are_refused_unless_said_to_be(void **state)
{
    (void)state;
    static const struct {
        off_t offset;
        const char *magic;
        size_t length;
        const char *name;
    } rows[] = {
        {0, "QFI\xfb\0\0\0\3", 8, "qcow2"},
        {0, "KDMV", 4, "VMDK"},
        {0, "# Disk DescriptorFile\n", 22, "VMDK"},
        {0, "vhdxfile", 8, "VHDX"},
        {0x40, "\x7f\x10\xda\xbe", 4, "VDI"},
        {0, "conectix", 8, "VHD"},
        {0, "QED\0", 4, "QED"},
    };
    for (size_t i = 0; i < SDC_COUNT(rows); i++) {
        char *image = make_image(1 << 20);
        int fd = open(image, O_WRONLY);
        assert_int_equal(pwrite(fd, rows[i].magic, rows[i].length, rows[i].offset), (ssize_t)rows[i].length);
        close(fd);
        refused(image, &plain, -EMEDIUMTYPE, rows[i].name);
        refused(image, &plain, -EMEDIUMTYPE, "qemu-img convert -O raw");
        refused(image, &plain, -EMEDIUMTYPE, "--raw");
        struct fixture f;
        fixture_open(&f, image, &(struct sdc_block_open_options){.raw = true});
        fixture_close(&f);
        drop_image(image);
    }
}

// --- the lock ---

static void two_processes_do_not_write_one_image(void **state)
{
    (void)state;
    char *image = make_image(1 << 20);
    struct fixture first, second;
    static unsigned char memory[4096];
    const struct sdc_block_open_options hasty = {.lock_wait_ms = 200};
    fixture_open(&first, image, &plain);
    fixture_open(&second, image, &hasty); // an open file of its own, as another process would have
    assert_int_equal(fixture_do(&first, SDC_BLOCK_WRITE, 0, 0, memory, 4096), 0);
    assert_int_equal(fixture_do(&second, SDC_BLOCK_WRITE, 0, 0, memory, 4096), -EBUSY);
    assert_int_equal(fixture_do(&second, SDC_BLOCK_READ, 0, 0, memory, 4096), -EBUSY);
    // The lock goes with the last queue, not with the file.
    fixture_close_queue(&first);
    int result = -EBUSY;
    for (int i = 0; i < 12000 && result == -EBUSY; i++) {
        usleep(5000);
        result = fixture_do(&second, SDC_BLOCK_WRITE, 0, 0, memory, 4096);
    }
    assert_int_equal(result, 0);
    first.block->ops->close(first.block);
    fixture_close(&second);
    drop_image(image);
}

static pid_t lock_in_child(const char *image, unsigned hold_ms)
{
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    pid_t child = fork();
    if (child == 0) {
        int fd = open(image, O_RDWR);
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
        if (fcntl(fd, F_OFD_SETLK, &lock) < 0 || write(pipes[1], "x", 1) != 1)
            _exit(1);
        usleep(hold_ms * 1000);
        _exit(0); // as killed: the lock ends with the process
    }
    char byte;
    assert_int_equal(read(pipes[0], &byte, 1), 1);
    close(pipes[0]);
    close(pipes[1]);
    return child;
}

static void requests_wait_until_the_predecessor_is_gone(void **state)
{
    (void)state;
    char *image = make_image(1 << 20);
    pid_t child = lock_in_child(image, 300);
    struct fixture f;
    static unsigned char memory[3][4096] = {{1}, {2}, {3}};
    struct sdc_block_request requests[3], *list[3];
    struct sdc_span spans[3];
    fixture_open(&f, image, &plain);
    for (unsigned i = 0; i < 3; i++) {
        spans[i] = (struct sdc_span){memory[i], 4096};
        requests[i] = (struct sdc_block_request){.op = SDC_BLOCK_WRITE,
                                                 .offset = i * UINT64_C(4096),
                                                 .size = 4096,
                                                 .spans = &spans[i],
                                                 .spans_count = 1,
                                                 .result = 1};
        list[i] = &requests[i];
    }
    fixture_run(&f, list, 3);
    assert_int_equal(waitpid(child, NULL, WNOHANG), child); // they ended after it, not before
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(requests[i].result, 0);
    fixture_close(&f);
    drop_image(image);
}

static void waiting_requests_can_be_cancelled(void **state)
{
    (void)state;
    char *image = make_image(1 << 20);
    struct fixture holder, f;
    static unsigned char memory[4096];
    fixture_open(&holder, image, &plain);
    fixture_open(&f, image, &plain);
    struct canceller canceller = {.timer.expired = cancel_all, .f = &f};
    sdc_loop_timer_set(f.loop, &canceller.timer, 20 * MS);
    assert_int_equal(fixture_do(&f, SDC_BLOCK_WRITE, 0, 0, memory, 4096), -ECANCELED);
    fixture_close(&holder);
    assert_int_equal(fixture_do(&f, SDC_BLOCK_WRITE, 0, 0, memory, 4096),
                     0); // later ones still wait for the lock
    sdc_loop_timer_set(f.loop, &canceller.timer, 0);
    assert_int_equal(fixture_do(&f, SDC_BLOCK_WRITE, 0, 0, memory, 4096),
                     0); // what has begun is not cancelled
    fixture_close(&f);
    drop_image(image);
}

static void readers_share_an_image(void **state)
{
    (void)state;
    char *image = make_image(1 << 20);
    struct fixture a, b, writer;
    static unsigned char memory[4096];
    const struct sdc_block_open_options reader = {.read_only = true, .lock_wait_ms = 100};
    const struct sdc_block_open_options hasty = {.lock_wait_ms = 100};
    fixture_open(&a, image, &reader);
    fixture_open(&b, image, &reader);
    fixture_open(&writer, image, &hasty);
    assert_int_equal(fixture_do(&a, SDC_BLOCK_READ, 0, 0, memory, 4096), 0);
    assert_int_equal(fixture_do(&b, SDC_BLOCK_READ, 0, 0, memory, 4096), 0);
    assert_int_equal(fixture_do(&writer, SDC_BLOCK_WRITE, 0, 0, memory, 4096), -EBUSY);
    fixture_close(&writer);
    fixture_close(&b);
    fixture_close(&a);
    drop_image(image);
}

static void two_queues_need_one_lock(void **state)
{
    (void)state;
    char *image = make_image(1 << 20);
    struct fixture a, b, other;
    static unsigned char memory[4096];
    fixture_open(&a, image, &plain);
    fixture_open_queue(&b, a.block);
    assert_int_equal(fixture_do(&b, SDC_BLOCK_WRITE, 0, 0, memory, 4096), 0);
    fixture_close_queue(&b);
    fixture_open(&other, image, &(struct sdc_block_open_options){.lock_wait_ms = 100});
    assert_int_equal(fixture_do(&other, SDC_BLOCK_WRITE, 0, 0, memory, 4096), -EBUSY); // one queue is left
    assert_int_equal(fixture_do(&a, SDC_BLOCK_WRITE, 0, 0, memory, 4096), 0);
    fixture_close(&other);
    fixture_close(&a);
    drop_image(image);
}

// --- size ---

static uint64_t size_of(struct fixture *f)
{
    struct sdc_block_info info;
    f->block->ops->info(f->block, &info);
    return info.size;
}

static void a_new_size_counts_from_the_next_look(void **state)
{
    (void)state;
    char *image = make_image(1 << 20);
    struct fixture f;
    static unsigned char memory[4096];
    fixture_open(&f, image, &plain);
    assert_int_equal(f.block->ops->refresh(f.block), 0);
    assert_int_equal(truncate(image, 2 << 20), 0);
    assert_int_equal(fixture_do(&f, SDC_BLOCK_WRITE, 0, 1 << 20, memory, 4096), -EINVAL);
    assert_int_equal(f.block->ops->refresh(f.block), 1);
    assert_int_equal(size_of(&f), 2 << 20);
    assert_int_equal(fixture_do(&f, SDC_BLOCK_WRITE, 0, 1 << 20, memory, 4096), 0);
    assert_int_equal(truncate(image, 4096 + 100), 0);
    assert_int_equal(fixture_do(&f, SDC_BLOCK_READ, 0, 8192, memory, 4096), -EIO); // cut off under us
    assert_int_equal(f.block->ops->refresh(f.block), 1);
    assert_int_equal(size_of(&f), 4096); // whole blocks
    assert_int_equal(fixture_do(&f, SDC_BLOCK_WRITE, 0, 4096, memory, 4096), -EINVAL);
    assert_int_equal(f.block->ops->refresh(f.block), 0);
    struct stat st;
    assert_int_equal(stat(image, &st), 0);
    assert_int_equal(st.st_size, 4096 + 100); // nothing that was refused made it grow
    fixture_close(&f);
    drop_image(image);
}

// --- holes ---

static uint64_t blocks_of(const char *image)
{
    struct stat st;
    assert_int_equal(stat(image, &st), 0);
    return (uint64_t)st.st_blocks;
}

static bool all_zero(const unsigned char *memory, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (memory[i] != 0)
            return false;
    return true;
}

static void discard_and_unmap_give_space_back(void **state)
{
    (void)state;
    enum { SIZE = 8 << 20 };
    char *image = make_image(SIZE);
    unsigned char *memory = malloc(SIZE);
    struct fixture f;
    struct sdc_block_info info;
    fixture_open(&f, image, &plain);
    f.block->ops->info(f.block, &info);
    assert_true(info.discard_zeroes);
    for (int pass = 0; pass < 3; pass++) {
        memset(memory, 0xa5, SIZE);
        assert_int_equal(fixture_do(&f, SDC_BLOCK_WRITE, SDC_BLOCK_FUA, 0, memory, SIZE), 0);
        uint64_t full = blocks_of(image);
        assert_true(full >= SIZE / 512);
        enum sdc_block_op op = pass == 0 ? SDC_BLOCK_DISCARD : SDC_BLOCK_WRITE_ZEROES;
        uint32_t flags = pass == 1 ? SDC_BLOCK_UNMAP | SDC_BLOCK_FUA : 0;
        assert_int_equal(fixture_do(&f, op, flags, 1 << 20, NULL, SIZE - (2 << 20)), 0);
        if (pass == 2)
            assert_true(blocks_of(image) >= SIZE / 512); // zeroes without unmap keep their space
        else
            assert_true(blocks_of(image) < full / 2);
        assert_int_equal(fixture_do(&f, SDC_BLOCK_READ, 0, 0, memory, SIZE), 0);
        assert_true(all_zero(memory + (1 << 20), SIZE - (2 << 20)));
        assert_int_equal(memory[(1 << 20) - 1], 0xa5);
        assert_int_equal(memory[SIZE - (1 << 20)], 0xa5);
    }
    fixture_close(&f);
    free(memory);
    drop_image(image);
}

// tmpfs cannot zero a range (but can punch holes).
static void zeroes_are_written_where_the_file_system_cannot_make_them(void **state)
{
    (void)state;
    enum { SIZE = 4 << 20 };
    int fd = memfd_create("disk", MFD_CLOEXEC);
    assert_int_equal(ftruncate(fd, SIZE), 0);
    char path[40];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    unsigned char *memory = malloc(SIZE);
    memset(memory, 0xa5, SIZE);
    struct fixture f;
    fixture_open(&f, path, &plain);
    assert_int_equal(fixture_do(&f, SDC_BLOCK_WRITE, 0, 0, memory, SIZE), 0);
    assert_int_equal(fixture_do(&f, SDC_BLOCK_WRITE_ZEROES, 0, 512, NULL, SIZE - 1024), 0);
    assert_int_equal(fixture_do(&f, SDC_BLOCK_WRITE_ZEROES, SDC_BLOCK_FUA, 512, NULL, 512), 0);
    assert_int_equal(fixture_do(&f, SDC_BLOCK_READ, 0, 0, memory, SIZE), 0);
    assert_true(all_zero(memory + 512, SIZE - 1024));
    assert_int_equal(memory[511], 0xa5);
    assert_int_equal(memory[SIZE - 512], 0xa5);
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    assert_true(st.st_blocks >= SIZE / 512);
    fixture_close(&f);
    close(fd);
    free(memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mistakes_in_names_and_sizes_are_explained),
        cmocka_unit_test(images_of_bad_sizes_are_refused),
        cmocka_unit_test(a_fifo_is_refused_without_waiting),
        cmocka_unit_test(an_image_that_may_not_be_written_needs_read_only),
        cmocka_unit_test(images_that_are_not_raw_are_refused_unless_said_to_be),
        cmocka_unit_test(two_processes_do_not_write_one_image),
        cmocka_unit_test(requests_wait_until_the_predecessor_is_gone),
        cmocka_unit_test(waiting_requests_can_be_cancelled),
        cmocka_unit_test(readers_share_an_image),
        cmocka_unit_test(two_queues_need_one_lock),
        cmocka_unit_test(a_new_size_counts_from_the_next_look),
        cmocka_unit_test(discard_and_unmap_give_space_back),
        cmocka_unit_test(zeroes_are_written_where_the_file_system_cannot_make_them),
    };
    RUN_WITH_EVERY_LOOP(tests);
}
