// SPDX-License-Identifier: BSD-3-Clause
// Stacks of filters by name: what people get wrong, and the locks of slices.
#include "block_fixture.h"

#include <sys/stat.h>

static const struct sdc_block_open_options plain = {0};
static const struct sdc_block_open_options hasty = {.lock_wait_ms = 100};

// --- names ---

static void mistakes_in_filters_are_explained(void **state)
{
    (void)state;
    static const struct {
        const char *spec;
        int code;
        const char *text;
    } rows[] = {
        {"slcie,offset=1G:ram:4G", -ENOENT, "no filter is called 'slcie'; did you mean slice,offset=1G:ram:4G?"},
        {"read-only:ram:1M", -ENOENT, "did you mean readonly:ram:1M?"},
        {"frobnicate,a=1:ram:1M", -ENOENT, "no filter is called 'frobnicate' (there are: slice, readonly, delay, error, limit)"},
        {"limit,iops=1:nul:10G", -ENOENT, "did you mean null:10G?"},
        {"readonly:slise,size=1M:ram:2M", -ENOENT, "did you mean slice,size=1M:ram:2M?"},
        {"readonly", -ENOENT, "type readonly:BACKEND"},
        {"readonly:", -EINVAL, "readonly: a filter without a backend; type readonly:BACKEND"},
        {"slice,offset=1G", -EINVAL, "slice: a filter without a backend"},
        {"slice,offset=1M:", -EINVAL, "slice: a filter without a backend"},
        {"limit,iops=1:delay,all=1ms", -EINVAL, "delay: a filter without a backend"},
        {"readonly,size=1:ram:1M", -EINVAL, "readonly: it has no options; type readonly:BACKEND instead"},
        {"slice,ofset=1M:ram:4M", -EINVAL, "slice: unknown option 'ofset'; did you mean 'offset'?"},
        {"slice,frobnicate=1M:ram:4M", -EINVAL, "unknown option 'frobnicate'; sidecard-filters(7)"},
        {"slice,:ram:4M", -EINVAL, "unknown option ''"},
        {"slice,offset:ram:4M", -EINVAL, "slice,offset: it needs a value; type for example offset=1G"},
        {"slice,offset=:ram:4M", -EINVAL, "slice,offset=: is not a size in bytes"},
        {"slice,offset=1X:ram:4M", -EINVAL, "slice,offset=1X: is not a size in bytes (suffixes k, M, G, T); type for example offset="},
        {"slice,size=1:ram:4M", -EINVAL, "must be 512 B to"},
        {"slice,offset=1M,offset=2M:ram:4M", -EINVAL, "slice: offset is said twice"},
        {"slice:ram:4M", -EINVAL, "slice: it is not said which part"},
        {"slice,offset=4M:ram:4M", -EINVAL, "slice,offset=4194304: the disk ends before, after 4194304 bytes"},
        {"slice,offset=1M,size=4M:ram:4M", -EINVAL, "has 3145728 bytes from there on; type for example size=3145728"},
        {"slice,offset=8191P,size=8191P:ram:4M", -EINVAL, "the disk ends before"},
        {"slice,offset=1000:ram:4M", -EINVAL, "slice,offset=1000: not a multiple of the block size 512; type for example offset=1024"},
        {"slice,size=1000:ram:4M", -EINVAL, "slice,size=1000: not a multiple of the block size 512; type for example size=1024"},
        {"slice,offset=1M:slice,size=1M:ram:4M", -EINVAL, "the disk ends before, after 1048576 bytes"},
        {"delay:ram:4M", -EINVAL, "delay: it is not said how long"},
        {"delay,read=1:ram:4M", -EINVAL, "is not a time, nor two with a dash between them (units ns, us, ms, s); type for example read="},
        {"delay,read=5ms-1ms:ram:4M", -EINVAL, "ends before it begins"},
        {"delay,read=0:ram:4M", -EINVAL, "is no delay; leave it out"},
        {"delay,read=25h:ram:4M", -EINVAL, "is too long, the limit is 86400s"},
        {"delay,read=1ms-:ram:4M", -EINVAL, "is not a time"},
        {"delay,read=11111111111111111111111111111111111ms:ram:4M", -EINVAL, "is not a time"},
        {"delay,raed=1ms:ram:4M", -EINVAL, "did you mean 'read'?"},
        {"error,op=raed:ram:4M", -EINVAL, "must be read, write, flush, discard, zeroes or all"},
        {"error,errno=ENOTEMPTY:ram:4M", -EINVAL, "must be EIO, ENOSPC,"},
        {"error,probability=2:ram:4M", -EINVAL, "must be a number above 0, and 1 at most; type for example probability=0.01"},
        {"error,probability=0:ram:4M", -EINVAL, "must be a number above 0"},
        {"error,probability=nan:ram:4M", -EINVAL, "must be a number above 0"},
        {"error,every=0:ram:4M", -EINVAL, "must be 1 to"},
        {"error,every=2,probability=0.5:ram:4M", -EINVAL, "two ways to choose"},
        {"error,op=flush,offset=1M:ram:4M", -EINVAL, "a flush is of the whole disk"},
        {"limit:ram:4M", -EINVAL, "limit: it is not said what the limit is"},
        {"limit,burst=1s:ram:4M", -EINVAL, "limit: it is not said what the limit is"},
        {"limit,iops=0:ram:4M", -EINVAL, "limit,iops=0: must be 1 to 100000000"},
        {"limit,iops=1k:ram:4M", -EINVAL, "is not a number"},
        {"limit,bw=2T:ram:4M", -EINVAL, "must be 1 B to 1.0 TiB"},
        {"limit,iops=1,burst=1us:ram:4M", -EINVAL, "limit,burst=1us: must be 1ms to 86400s; type for example burst=1s"},
        {"readonly:readonly:readonly:readonly:readonly:ram:4M", -EINVAL, "readonly is one filter too many: 4 may stand on one another"},
    };
    for (size_t i = 0; i < SDC_COUNT(rows); i++) {
        struct sdc_error err = {0};
        struct sdc_block *block;
        int ret = sdc_stack_open(rows[i].spec, &plain, &block, &err);
        if (ret == 0)
            block->ops->close(block);
        if (ret != rows[i].code || err.code != ret || !strstr(err.text, rows[i].text))
            fail_msg("%s: %d, '%s'; expected %d, '%s'", rows[i].spec, ret, err.text, rows[i].code, rows[i].text);
        assert_true(err.fault == SDC_FAULT_USER || err.fault == SDC_FAULT_HOST);
    }
}

static void files_whose_names_begin_like_filters_are_reached(void **state)
{
    (void)state;
    static const char *const names[] = {"readonly", "slice,offset=1M", "limit,iops=1:disk", "readonly:disk"};
    char folder[] = "/var/tmp/sidecard-test-XXXXXX", spec[100];
    int before = open(".", O_RDONLY | O_DIRECTORY);
    assert_non_null(mkdtemp(folder));
    assert_int_equal(chdir(folder), 0);
    for (size_t i = 0; i < SDC_COUNT(names); i++) {
        int fd = open(names[i], O_CREAT | O_RDWR, 0600);
        assert_int_equal(ftruncate(fd, 1 << 20), 0);
        close(fd);
        for (unsigned how = 0; how < 3; how++) {
            struct fixture f;
            snprintf(spec, sizeof spec, "%s%s", how == 0 ? "file:" : how == 1 ? "./" : "readonly:file:", names[i]);
            fixture_open(&f, spec, &plain);
            fixture_close(&f);
        }
        unlink(names[i]);
    }
    assert_int_equal(fchdir(before), 0);
    close(before);
    rmdir(folder);
}

static void the_backend_of_a_stack_is_found(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        {"ram:1M", "ram:1M"},
        {"readonly:ram:1M", "ram:1M"},
        {"limit,iops=1:delay,all=1ms:null:1G", "null:1G"},
        {"readonly:file:readonly:x", "file:readonly:x"},
        {"slice,offset=1", "slice,offset=1"},
        {"readonly:a,b:c", "a,b:c"},
    };
    for (size_t i = 0; i < SDC_COUNT(rows); i++)
        assert_string_equal(sdc_stack_base(rows[i][0]), rows[i][1]);
}

// --- one disk split ---

enum { M = 1 << 20 };

// Opens the image behind these filters; each has an open file of its own, as another process would have.
static void open_behind(struct fixture *f, const char *filters, const char *image, const struct sdc_block_open_options *options)
{
    char spec[300];
    snprintf(spec, sizeof spec, "%s%s", filters, image);
    fixture_open(f, spec, options);
}

static void slices_are_written_side_by_side(void **state)
{
    (void)state;
    char *image = make_image(4 * M);
    struct fixture parts[4], whole;
    static const char *const filters[] = {"slice,size=1M:", "slice,offset=1M,size=1M:", "slice,offset=1M:slice,offset=1M,size=2M:",
                                          "limit,iops=1000000:slice,offset=2M,size=1M:"};
    static unsigned char memory[M], back[4 * M];
    for (unsigned i = 0; i < 4; i++)
        open_behind(&parts[i], filters[i], image, &hasty);
    for (unsigned i = 0; i < 3; i++) {
        memset(memory, 'a' + (int)i, M);
        assert_int_equal(fixture_do(&parts[i], SDC_BLOCK_WRITE, 0, 0, memory, M), 0);
    }
    // It would write where the third does.
    assert_int_equal(fixture_do(&parts[3], SDC_BLOCK_WRITE, 0, 0, memory, M), -EBUSY);
    open_behind(&whole, "", image, &hasty);
    assert_int_equal(fixture_do(&whole, SDC_BLOCK_READ, 0, 0, back, M), -EBUSY);
    fixture_close(&whole);
    for (unsigned i = 0; i < 4; i++)
        fixture_close(&parts[i]);
    open_behind(&whole, "", image, &hasty);
    assert_int_equal(fixture_do(&whole, SDC_BLOCK_READ, 0, 0, back, 4 * M), 0);
    for (unsigned i = 0; i < 4 * M; i++) {
        if (back[i] != (i < 3 * M ? 'a' + i / M : 0))
            fail_msg("byte %u is %u", i, back[i]);
    }
    fixture_close(&whole);
    drop_image(image);
}

// Whether somebody else could lock these bytes of the image for writing.
static bool is_free(const char *image, off_t offset, off_t size)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = offset, .l_len = size};
    int fd = open(image, O_RDWR);
    assert_int_equal(fcntl(fd, F_OFD_GETLK, &lock), 0);
    close(fd);
    return lock.l_type == F_UNLCK;
}

static void a_slice_locks_what_it_can_reach(void **state)
{
    (void)state;
    static const struct {
        const char *filters;
        off_t offset, size; // 0: to the end, wherever that is
    } rows[] = {
        {"", 0, 0},
        {"readonly:", 0, 0},
        {"slice,offset=1M:", M, 0},
        {"slice,size=1M:", 0, M},
        {"slice,offset=64k,size=1M:", 65536, M},
        {"slice,offset=64k:slice,offset=1M,size=1M:", M + 65536, M - 65536},
        {"slice,offset=64k,size=128k:slice,offset=1M,size=1M:", M + 65536, 131072},
        {"slice,size=1M:delay,all=1us:slice,offset=1M:", M, M},
        {"slice,offset=512:slice,offset=512:slice,offset=512:slice,offset=512:", 2048, 0},
    };
    static unsigned char memory[512];
    for (size_t i = 0; i < SDC_COUNT(rows); i++) {
        char *image = make_image(4 * M);
        struct fixture f;
        open_behind(&f, rows[i].filters, image, &hasty);
        assert_int_equal(fixture_do(&f, SDC_BLOCK_READ, 0, 0, memory, 512), 0);
        off_t end = rows[i].size ? rows[i].offset + rows[i].size : 0;
        assert_true(rows[i].offset == 0 || is_free(image, 0, rows[i].offset));
        assert_false(is_free(image, rows[i].offset, 1));
        assert_true(end == 0 || is_free(image, end, 0));
        assert_false(is_free(image, end ? end - 1 : INT64_MAX - 1, 1));
        fixture_close_queue(&f);
        assert_true(is_free(image, 0, 0));
        f.block->ops->close(f.block);
        drop_image(image);
    }
}

static void readers_share_slices_that_overlap(void **state)
{
    (void)state;
    char *image = make_image(4 * M);
    struct fixture a, b, writer, beside;
    static unsigned char memory[512];
    open_behind(&a, "readonly:slice,offset=1M,size=2M:", image, &hasty);
    open_behind(&b, "slice,size=2M:readonly:", image, &hasty); // wherever it stands in the stack
    open_behind(&writer, "slice,offset=1M,size=1M:", image, &hasty);
    open_behind(&beside, "slice,offset=3M:", image, &hasty);
    assert_int_equal(fixture_do(&a, SDC_BLOCK_READ, 0, 0, memory, 512), 0);
    assert_int_equal(fixture_do(&b, SDC_BLOCK_READ, 0, 0, memory, 512), 0);
    assert_int_equal(fixture_do(&a, SDC_BLOCK_WRITE, 0, 0, memory, 512), -EROFS);
    assert_int_equal(fixture_do(&b, SDC_BLOCK_WRITE, 0, 0, memory, 512), -EROFS);
    assert_int_equal(fixture_do(&writer, SDC_BLOCK_WRITE, 0, 0, memory, 512), -EBUSY);
    assert_int_equal(fixture_do(&beside, SDC_BLOCK_WRITE, 0, 0, memory, 512), 0);
    fixture_close(&beside);
    fixture_close(&writer);
    fixture_close(&b);
    fixture_close(&a);
    drop_image(image);
}

static void readonly_opens_an_image_that_may_not_be_written(void **state)
{
    (void)state;
    if (geteuid() == 0)
        skip(); // root may write anything
    char *image = make_image(M);
    struct fixture f;
    assert_int_equal(chmod(image, 0400), 0);
    open_behind(&f, "limit,iops=1000:readonly:", image, &plain);
    fixture_close(&f);
    drop_image(image);
}

// --- what is below ends late ---

// A lock that is waited for below is given up through every filter, as is what waits in each.
static void cancel_reaches_every_filter_and_the_image(void **state)
{
    (void)state;
    static const char *const filters[] = {"slice,offset=512:readonly:", "error,every=1000000:slice,size=1M:", "delay,all=1h:",
                                          "delay,read=1us:", "limit,bw=1,burst=1ms:", "limit,iops=1000000:delay,all=1h:limit,bw=1:"};
    static unsigned char memory[3][512];
    for (size_t i = 0; i < SDC_COUNT(filters); i++) {
        char *image = make_image(4 * M);
        struct fixture holder, f;
        fixture_open(&holder, image, &plain);
        open_behind(&f, filters[i], image, &plain);
        struct sdc_block_request requests[3], *list[3];
        struct sdc_span spans[3];
        struct canceller canceller = {.timer.expired = cancel_all, .f = &f};
        for (unsigned j = 0; j < 3; j++) {
            spans[j] = (struct sdc_span){memory[j], 512};
            requests[j] = (struct sdc_block_request){
                .op = SDC_BLOCK_READ, .offset = j * UINT64_C(512), .size = 512, .spans = &spans[j], .spans_count = 1, .result = 1};
            list[j] = &requests[j];
        }
        sdc_loop_timer_set(f.loop, &canceller.timer, 20 * MS);
        fixture_run(&f, list, 3);
        for (unsigned j = 0; j < 3; j++)
            assert_int_equal(requests[j].result, -ECANCELED);
        fixture_close(&f);
        fixture_close(&holder);
        drop_image(image);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mistakes_in_filters_are_explained),
        cmocka_unit_test(files_whose_names_begin_like_filters_are_reached),
        cmocka_unit_test(the_backend_of_a_stack_is_found),
        cmocka_unit_test(slices_are_written_side_by_side),
        cmocka_unit_test(a_slice_locks_what_it_can_reach),
        cmocka_unit_test(readers_share_slices_that_overlap),
        cmocka_unit_test(readonly_opens_an_image_that_may_not_be_written),
        cmocka_unit_test(cancel_reaches_every_filter_and_the_image),
    };
    RUN_WITH_EVERY_LOOP(tests);
}
