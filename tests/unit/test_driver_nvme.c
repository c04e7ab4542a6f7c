// SPDX-License-Identifier: BSD-3-Clause
// The NVMe driver against a controller made for the test: what it finds out, how its commands say where their data is, and that a
// controller that says something else than it may does no harm.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/bytes.h"
#include "base/check.h"
#include "driver/disk_find.h"
#include "driver/nvme_data.h"
#include "driver/nvme_queue.h"
#include "fake_nvme.h"
#include "wire/nvme.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define DATA_IOVA (UINT64_C(1) << 32)
#define DATA_SIZE (UINT64_C(20) << 20)

// --- a disk ---

struct setup {
    struct fake_nvme *nvme;
    struct fake_server server;
    struct sdc_driver_disk *disk;
    struct sdc_driver_disk_queue *queue;
    struct sdc_client_memory data;
    struct sdc_error err;
};

static int open_disk(struct setup *setup, struct fake_nvme *nvme, const struct sdc_driver_disk_wishes *wishes)
{
    static const struct sdc_driver_disk_wishes none;
    struct sdc_vfio_client *client;
    *setup = (struct setup){.nvme = nvme, .data = {.fd = -1}};
    setup->server = (struct fake_server){.message = serve_fake_nvme, .context = nvme};
    if (!nvme->no_write_multi)
        setup->server.version_json = "{\"capabilities\":{\"max_msg_fds\":4,\"max_data_xfer_size\":4096,\"write_multiple\":true}}";
    assert_int_equal(fake_open(&setup->server, NULL, &client, &setup->err), 0);
    return sdc_driver_disk_find(client, wishes ? wishes : &none, &setup->disk, &setup->err);
}

static int start_disk(struct setup *setup, const struct sdc_driver_disk_options *options)
{
    int ret = sdc_driver_disk_start(setup->disk, options, &setup->err);
    if (ret < 0)
        return ret;
    assert_int_equal(sdc_client_memory_new(&setup->data, DATA_IOVA, DATA_SIZE, NULL), 0);
    assert_int_equal(sdc_driver_disk_map(setup->disk, &setup->data, NULL), 0);
    setup->queue = sdc_driver_disk_queue(setup->disk, 0);
    return 0;
}

static void good_disk(struct setup *setup, struct fake_nvme *nvme, const struct sdc_driver_disk_wishes *wishes,
                      const struct sdc_driver_disk_options *options)
{
    if (open_disk(setup, nvme, wishes) < 0 || start_disk(setup, options) < 0)
        fail_msg("%s", setup->err.text);
}

// The server's thread has ended afterwards: what it has seen can be looked at.
static void end_disk(struct setup *setup)
{
    sdc_driver_disk_close(setup->disk);
    fake_close(&setup->server, NULL);
    sdc_client_memory_free(&setup->data);
}

static void close_setup(struct setup *setup)
{
    end_disk(setup);
    free_fake_nvme(setup->nvme);
}

// A completion is here: what the controller has done before it can be looked at.
static void see(const struct setup *setup)
{
    assert_true(atomic_load_explicit(&setup->nvme->posted, memory_order_acquire) > 0);
}

static int do_one(struct setup *setup, enum sdc_driver_disk_op op, uint64_t offset, uint64_t size, uint64_t at)
{
    struct sdc_driver_disk_request request = {.op = op, .offset = offset, .size = size, .data = DATA_IOVA + at};
    int ret = sdc_driver_disk_do(setup->queue, &request, 2000, &setup->err);
    see(setup);
    return ret;
}

static void fill(uint8_t *to, uint64_t size, unsigned seed)
{
    for (uint64_t i = 0; i < size; i++)
        to[i] = (uint8_t)(seed + i * 7 + i / 509);
}

// --- what it is ---

static void a_namespace_is_found_out(void **state)
{
    (void)state;
    struct setup setup;
    struct sdc_driver_disk_options options = {.queues = 4, .queue_size = 64};
    struct fake_nvme *nvme = new_fake_nvme();
    good_disk(&setup, nvme, NULL, &options);
    const struct sdc_driver_disk_info *info = sdc_driver_disk_info(setup.disk);
    assert_string_equal(info->device, "nvme");
    assert_string_equal(info->nvme.serial, "FAKE01");
    assert_string_equal(info->nvme.model, "A controller for tests");
    assert_string_equal(info->nvme.firmware, "0.1");
    assert_int_equal(info->nvme.nsid, 2);
    assert_int_equal(info->nvme.version, SDC_NVME_VERSION_2_0);
    assert_true(info->size == FAKE_NVME_DISK);
    assert_int_equal(info->block_size, 512);
    assert_int_equal(info->request_max, 2 << 20);
    assert_int_equal(info->queues, 4);
    assert_int_equal(info->queue_size, 64);
    assert_true(info->flush && info->discard && info->write_zeroes && info->unmap && info->compare && !info->read_only);
    assert_true(info->discard_max == (uint64_t)UINT32_MAX * 512);
    assert_true(info->write_zeroes_max == 65536 * 512);
    assert_string_equal(info->notified_by, "message");
    assert_true(info->nvme.shadows);
    assert_int_equal(sdc_driver_disk_check(setup.disk, &setup.err), 0);
    end_disk(&setup);
    assert_int_equal(nvme->shutdowns, 1);
    assert_int_equal(nvme->csts, 0);
    assert_int_equal(nvme->cc & SDC_NVME_CC_EN, 0);
    free_fake_nvme(nvme);
}

static void modest_words(struct fake_nvme *nvme, uint8_t cns, uint32_t nsid, uint8_t data[4096])
{
    (void)nvme, (void)nsid;
    if (cns == SDC_NVME_CNS_CONTROLLER) {
        memcpy(data + 24, "\x1b[2J\0odd", 9);
        data[77] = 255; // MDTS
        sdc_put16(data + 520, 0);
        sdc_put16(data + 256, 0);
        data[525] = 0;
    } else if (cns == SDC_NVME_CNS_NS) {
        data[99] = 1;  // write protected
        data[26] = 0x21; // format 17
        sdc_put32(data + 128 + 4 * 17, 12 << 16);
        sdc_put64(data, FAKE_NVME_DISK >> 12);
        data[33] = 0;
    }
}

static void what_is_not_offered_is_not_there(void **state)
{
    (void)state;
    struct setup setup;
    struct fake_nvme *nvme = new_fake_nvme();
    nvme->identify = modest_words;
    nvme->granted = 0xffff0000;
    nvme->block_shift = 12;
    good_disk(&setup, nvme, NULL, NULL);
    const struct sdc_driver_disk_info *info = sdc_driver_disk_info(setup.disk);
    assert_string_equal(info->nvme.model, "?[2J?odd?ler for tests");
    assert_true(info->read_only && !info->flush && !info->discard && !info->write_zeroes && !info->unmap && !info->compare);
    assert_true(info->discard_max == 0 && info->write_zeroes_max == 0);
    assert_int_equal(info->block_size, 4096);
    assert_true(info->size == FAKE_NVME_DISK);
    assert_true(info->request_max == 64 << 20);
    assert_int_equal(info->queues, 1);
    assert_false(info->nvme.shadows);
    assert_int_equal(do_one(&setup, SDC_DRIVER_DISK_READ, 512, 4096, 0), -EINVAL);
    assert_int_equal(do_one(&setup, SDC_DRIVER_DISK_READ, 0, 512, 0), -EINVAL);
    assert_int_equal(do_one(&setup, SDC_DRIVER_DISK_READ, 4096, 4096, 0), 0);
    close_setup(&setup);
}

// --- data ---

static void check_move(struct setup *setup, uint64_t size, uint64_t in_page, unsigned seed)
{
    uint64_t offset = seed % 16 * 512, in = DATA_SIZE / 2 + in_page;
    fill(setup->data.base + in_page, size, seed);
    memset(setup->data.base + in - in_page, 0xee, size + 2 * in_page + 64);
    if (do_one(setup, SDC_DRIVER_DISK_WRITE, offset, size, in_page) != 0 || do_one(setup, SDC_DRIVER_DISK_READ, offset, size, in) != 0)
        fail_msg("%llu bytes at %llu of a page: %s", (unsigned long long)size, (unsigned long long)in_page, setup->err.text);
    assert_memory_equal(setup->nvme->disk + offset, setup->data.base + in_page, size);
    assert_memory_equal(setup->data.base + in, setup->data.base + in_page, size);
    assert_int_equal(setup->data.base[in + size], 0xee);
}

static void large_transfers(struct fake_nvme *nvme, uint8_t cns, uint32_t nsid, uint8_t data[4096])
{
    (void)nvme, (void)nsid;
    if (cns == SDC_NVME_CNS_CONTROLLER)
        data[77] = 10; // 1024 pages
}

static void data_is_found_whatever_its_place_and_the_page_size(void **state)
{
    (void)state;
    static const uint64_t in_pages[] = {0, 4, 512, 2048, 4092};
    static const struct {
        unsigned page; // CAP.MPSMIN
        bool sgl;
        uint64_t request_max;
    } cases[] = {{0, false, 4 << 20}, {0, false, 8192}, {2, false, 1 << 20}, {4, false, 1 << 20}, {0, true, 4 << 20}};
    for (unsigned i = 0; i < SDC_COUNT(cases); i++) {
        struct setup setup;
        struct fake_nvme *nvme = new_fake_nvme();
        struct sdc_driver_disk_wishes wishes = {.nvme = {.sgl = cases[i].sgl}};
        struct sdc_driver_disk_options options = {.request_max = cases[i].request_max, .depth = 3};
        nvme->identify = large_transfers;
        nvme->cap |= (uint64_t)cases[i].page << SDC_NVME_CAP_MPSMIN;
        good_disk(&setup, nvme, &wishes, &options);
        for (unsigned j = 0; j < SDC_COUNT(in_pages); j++)
            for (uint64_t size = 512; size <= cases[i].request_max; size = size < 65536 ? size + 3584 : size * 2)
                check_move(&setup, size, in_pages[j], j * 31 + (unsigned)(size >> 9));
        assert_int_equal(do_one(&setup, SDC_DRIVER_DISK_READ, 0, cases[i].request_max + 512, 0), -EINVAL);
        assert_int_equal(do_one(&setup, SDC_DRIVER_DISK_READ, 0, 512, 2), -EINVAL);
        end_disk(&setup);
        assert_int_equal(nvme->last[SDC_NVME_SQE_FLAGS], cases[i].sgl ? SDC_NVME_PSDT_SGL : 0);
        free_fake_nvme(nvme);
    }
}

static void lists_have_room_for_what_they_are_asked_for(void **state)
{
    (void)state;
    assert_int_equal(sdc_driver_nvme_list_bytes(4096, 4096, 64), 64);
    assert_int_equal(sdc_driver_nvme_list_bytes(8 * 4096, 4096, 64), 64);
    assert_int_equal(sdc_driver_nvme_list_bytes(9 * 4096, 4096, 64), 128);
    assert_int_equal(sdc_driver_nvme_list_bytes(512 * 4096, 4096, 64), 4096);
    assert_int_equal(sdc_driver_nvme_list_bytes(513 * 4096, 4096, 64), 2 * 4096);
    // 511 in the first page, 512 in the last.
    assert_int_equal(sdc_driver_nvme_list_bytes(1023 * 4096, 4096, 64), 2 * 4096);
    assert_int_equal(sdc_driver_nvme_list_bytes(1024 * 4096, 4096, 64), 3 * 4096);
}

static void every_operation_has_its_command(void **state)
{
    (void)state;
    for (unsigned sgl = 0; sgl < 2; sgl++) {
        struct setup setup;
        struct fake_nvme *nvme = new_fake_nvme();
        struct sdc_driver_disk_wishes wishes = {.nvme = {.sgl = sgl}};
        good_disk(&setup, nvme, &wishes, NULL);
        fill(setup.data.base, 8192, 1);
        assert_int_equal(do_one(&setup, SDC_DRIVER_DISK_WRITE, 4096, 8192, 0), 0);
        assert_int_equal(do_one(&setup, SDC_DRIVER_DISK_COMPARE, 4096, 8192, 0), 0);
        setup.data.base[8191] ^= 1;
        assert_int_equal(do_one(&setup, SDC_DRIVER_DISK_COMPARE, 4096, 8192, 0), -EILSEQ);
        assert_int_equal(do_one(&setup, SDC_DRIVER_DISK_FLUSH, 0, 0, 0), 0);
        assert_int_equal(nvme->last[0], SDC_NVME_IO_FLUSH);
        assert_int_equal(do_one(&setup, SDC_DRIVER_DISK_WRITE_ZEROES, 4096, 512, 0), 0);
        assert_int_equal(sdc_get32(nvme->last + SDC_NVME_SQE_CDW12), 0);
        assert_int_equal(do_one(&setup, SDC_DRIVER_DISK_WRITE_ZEROES_UNMAP, 4608, 1024, 0), 0);
        assert_int_equal(sdc_get32(nvme->last + SDC_NVME_SQE_CDW12), SDC_NVME_RW_DEAC | 1);
        assert_int_equal(do_one(&setup, SDC_DRIVER_DISK_DISCARD, 5632, 512, 0), 0);
        assert_int_equal(sdc_get32(nvme->last + SDC_NVME_SQE_CDW11), SDC_NVME_DSM_AD);
        for (unsigned i = 0; i < 2048; i++)
            assert_int_equal(nvme->disk[4096 + i], 0);
        assert_memory_equal(nvme->disk + 6144, setup.data.base + 2048, 8192 - 2048 - 1);
        // What the controller refuses has its status.
        struct sdc_driver_disk_request request = {.op = SDC_DRIVER_DISK_READ, .offset = FAKE_NVME_DISK, .size = 512, .data = DATA_IOVA};
        assert_int_equal(sdc_driver_disk_do(setup.queue, &request, 2000, &setup.err), -EIO);
        see(&setup);
        assert_int_equal(request.status, SDC_NVME_SC_LBA_RANGE);
        // What is no command is not given to it.
        unsigned commands = nvme->io_commands;
        assert_int_equal(do_one(&setup, SDC_DRIVER_DISK_GET_ID, 0, 20, 0), -EINVAL);
        assert_int_equal(do_one(&setup, SDC_DRIVER_DISK_READ, 0, 0, 0), -EINVAL);
        assert_int_equal(do_one(&setup, SDC_DRIVER_DISK_READ, 100, 512, 0), -EINVAL);
        assert_int_equal(do_one(&setup, SDC_DRIVER_DISK_WRITE_ZEROES, 0, 65537 * 512, 0), -EINVAL);
        assert_int_equal(do_one(&setup, SDC_DRIVER_DISK_DISCARD, 0, UINT64_C(1) << 41, 0), -EINVAL);
        assert_int_equal(nvme->io_commands, commands);
        close_setup(&setup);
    }
}

// --- queues ---

enum { MANY = 500 };

// As many as the queue takes at a time; each writes its number and finds it again.
static void run_many(struct setup *setup, uint16_t index)
{
    struct sdc_driver_disk_queue *queue = sdc_driver_disk_queue(setup->disk, index);
    struct sdc_driver_disk_request requests[MANY], *list[MANY], *done[MANY];
    unsigned given = 0, taken = 0;
    for (unsigned i = 0; i < MANY; i++) {
        requests[i] = (struct sdc_driver_disk_request){
            .op = SDC_DRIVER_DISK_WRITE, .offset = i * 512, .size = 512, .data = DATA_IOVA + i * 512, .result = 1};
        fill(setup->data.base + i * 512, 512, i * 3 + index);
        list[i] = &requests[i];
    }
    while (taken < MANY) {
        int ret = given < MANY ? sdc_driver_disk_submit(queue, list + given, MANY - given) : 0;
        assert_true(ret >= 0);
        given += (unsigned)ret;
        if (sdc_driver_disk_kick(queue, &setup->err) < 0)
            fail_msg("%s", setup->err.text);
        ret = sdc_driver_disk_take(queue, done, MANY, &setup->err);
        if (ret == 0 && !queue->polled)
            assert_int_equal(sdc_driver_disk_wait(queue, 2000, &setup->err), 1);
        if (ret < 0)
            fail_msg("%s", setup->err.text);
        for (int i = 0; i < ret; i++)
            assert_int_equal(done[i]->result, 0);
        taken += (unsigned)ret;
    }
    see(setup);
    assert_memory_equal(setup->nvme->disk, setup->data.base, MANY * 512);
}

static void queues_of_any_size_go_round(void **state)
{
    (void)state;
    static const struct {
        uint16_t size;
        uint32_t depth;
        bool poll, no_multi;
        enum sdc_driver_nvme_shadows shadows;
    } cases[] = {{2, 0, false, false, SDC_DRIVER_NVME_SHADOWS_OFF},  {2, 1, true, false, SDC_DRIVER_NVME_SHADOWS_ON},
                 {3, 2, true, false, SDC_DRIVER_NVME_SHADOWS_OFF},   {7, 0, false, true, SDC_DRIVER_NVME_SHADOWS_OFF},
                 {64, 63, false, false, SDC_DRIVER_NVME_SHADOWS_ON}, {256, 8, false, false, SDC_DRIVER_NVME_SHADOWS_OFF},
                 {256, 8, true, false, SDC_DRIVER_NVME_SHADOWS_OFF}};
    for (unsigned i = 0; i < SDC_COUNT(cases); i++) {
        struct setup setup;
        struct fake_nvme *nvme = new_fake_nvme();
        struct sdc_driver_disk_wishes wishes = {.nvme = {.shadows = cases[i].shadows}};
        struct sdc_driver_disk_options options = {
            .queues = 3, .queue_size = cases[i].size, .depth = cases[i].depth, .poll = cases[i].poll, .request_max = 512};
        nvme->no_write_multi = cases[i].no_multi;
        good_disk(&setup, nvme, &wishes, &options);
        for (uint16_t queue = 0; queue < 3; queue++)
            run_many(&setup, queue);
        end_disk(&setup);
        assert_int_equal(nvme->io_commands, 3 * MANY);
        assert_true(nvme->tail_rings > 0 && nvme->tail_rings <= 3 * MANY);
        // Where there is much room, and nobody sleeps, completions are acknowledged once in a while.
        if (i == 6)
            assert_int_equal(nvme->head_rings, 3 * (MANY / (256 - 8)));
        // Two registers cost a message, not two.
        if (i == 5)
            assert_true(nvme->multi > 0 && nvme->multi < nvme->tail_rings + nvme->head_rings);
        free_fake_nvme(nvme);
    }
}

static void shadow_doorbells_spare_the_registers(void **state)
{
    (void)state;
    struct setup setup;
    struct fake_nvme *nvme = new_fake_nvme();
    struct sdc_driver_disk_options options = {.poll = true};
    good_disk(&setup, nvme, NULL, &options);
    struct sdc_driver_nvme_ring *ring = &sdc_container(setup.queue, struct sdc_driver_nvme_queue, disk)->ring;
    struct sdc_driver_disk_request request = {.op = SDC_DRIVER_DISK_READ, .size = 512, .data = DATA_IOVA}, *list = &request;
    assert_int_equal(do_one(&setup, SDC_DRIVER_DISK_READ, 0, 512, 0), 0);
    // The controller is looking at the shadow: it wants to hear of entry 200.
    *ring->tail_bell.event = htole32(200);
    assert_int_equal(sdc_driver_disk_submit(setup.queue, &list, 1), 1);
    assert_int_equal(sdc_driver_disk_kick(setup.queue, &setup.err), 0);
    assert_int_equal(le32toh(*ring->tail_bell.shadow), 2);
    // It looks no more: it wants to hear of the next.
    *ring->tail_bell.event = htole32(2);
    struct sdc_driver_disk_request other = request;
    list = &other;
    assert_int_equal(sdc_driver_disk_submit(setup.queue, &list, 1), 1);
    assert_int_equal(sdc_driver_disk_kick(setup.queue, &setup.err), 1);
    assert_int_equal(sdc_driver_disk_kick(setup.queue, &setup.err), 0); // nothing new
    end_disk(&setup);
    assert_int_equal(nvme->tail_rings, 2);
    assert_int_equal(nvme->io_commands, 3);
    free_fake_nvme(nvme);
}

static void a_queue_is_reset_and_goes_on(void **state)
{
    (void)state;
    for (unsigned shadows = 0; shadows < 2; shadows++) {
        struct setup setup;
        struct fake_nvme *nvme = new_fake_nvme();
        struct sdc_driver_disk_wishes wishes = {.nvme = {.shadows = shadows ? SDC_DRIVER_NVME_SHADOWS_ON : SDC_DRIVER_NVME_SHADOWS_OFF}};
        struct sdc_driver_disk_options options = {.queues = 2, .queue_size = 16};
        struct sdc_driver_disk_request lost = {.op = SDC_DRIVER_DISK_READ, .size = 512, .data = DATA_IOVA}, *list = &lost;
        good_disk(&setup, nvme, &wishes, &options);
        run_many(&setup, 0);
        assert_int_equal(sdc_driver_disk_submit(setup.queue, &list, 1), 1);
        assert_int_equal(sdc_driver_disk_reset_queue(setup.disk, 0, &setup.err), 0);
        assert_int_equal(sdc_driver_disk_take(setup.queue, &list, 1, &setup.err), 0);
        run_many(&setup, 0);
        run_many(&setup, 1);
        close_setup(&setup);
    }
}

// --- what a controller may not say ---

static void open_fails(struct fake_nvme *nvme, const struct sdc_driver_disk_wishes *wishes,
                       const struct sdc_driver_disk_options *options, int code, const char *text)
{
    struct setup setup;
    int ret = open_disk(&setup, nvme, wishes);
    if (ret == 0) {
        ret = start_disk(&setup, options);
        sdc_driver_disk_close(setup.disk);
    }
    if (ret != code || !strstr(setup.err.text, text))
        fail_msg("%d instead of %d, '%s' has no '%s'", ret, code, setup.err.text, text);
    fake_close(&setup.server, NULL);
    sdc_client_memory_free(&setup.data);
    free_fake_nvme(nvme);
}

static void registers_that_make_no_sense_are_refused(void **state)
{
    (void)state;
    struct fake_nvme *nvme = new_fake_nvme();
    sdc_put32(nvme->config + 8, 0x01080301);
    open_fails(nvme, NULL, NULL, -ENODEV, "virtio");
    nvme = new_fake_nvme();
    nvme->cap = UINT64_MAX;
    open_fails(nvme, NULL, NULL, -ENODEV, "all ones");
    nvme = new_fake_nvme();
    nvme->cap &= ~(UINT64_C(1) << SDC_NVME_CAP_CSS);
    open_fails(nvme, NULL, NULL, -ENOTSUP, "no NVM command set");
    nvme = new_fake_nvme();
    nvme->cap &= ~UINT64_C(0xffff);
    open_fails(nvme, NULL, NULL, -EPROTO, "one entry");
    nvme = new_fake_nvme();
    nvme->cap |= UINT64_C(15) << SDC_NVME_CAP_MPSMIN;
    open_fails(nvme, NULL, NULL, -ENOTSUP, "smallest page");
    nvme = new_fake_nvme();
    nvme->cap |= UINT64_C(15) << SDC_NVME_CAP_DSTRD;
    open_fails(nvme, NULL, NULL, -EPROTO, "outside its BAR");
    nvme = new_fake_nvme();
    nvme->cap |= UINT64_C(10) << SDC_NVME_CAP_DSTRD; // room for the admin queue's and the first submission queue's
    open_fails(nvme, NULL, NULL, -EPROTO, "queue 1's doorbells are outside");
    nvme = new_fake_nvme();
    nvme->bar_size = 0xfff;
    open_fails(nvme, NULL, NULL, -EPROTO, "too few");
    nvme = new_fake_nvme();
    nvme->csts_read = UINT32_MAX;
    open_fails(nvme, NULL, NULL, -ENODEV, "all ones");
    nvme = new_fake_nvme();
    nvme->csts_read = SDC_NVME_CSTS_CFS;
    open_fails(nvme, NULL, NULL, -EIO, "has failed (CSTS 0x2)");
    nvme = new_fake_nvme();
    nvme->never_ready = true;
    open_fails(nvme, NULL, NULL, -ETIMEDOUT, "does not become ready within 1000 ms");
}

static uint8_t bad_value[4];
static unsigned bad_offset, bad_cns;

static void bad_words(struct fake_nvme *nvme, uint8_t cns, uint32_t nsid, uint8_t data[4096])
{
    (void)nvme, (void)nsid;
    if (cns == bad_cns)
        memcpy(data + bad_offset, bad_value, sizeof bad_value);
}

static void namespaces_that_make_no_sense_are_refused(void **state)
{
    (void)state;
    static const struct {
        unsigned cns, offset;
        uint32_t value;
        int code;
        const char *text;
    } cases[] = {
        {SDC_NVME_CNS_ACTIVE_NS, 0, 0, -ENODEV, "no active namespace"},
        {SDC_NVME_CNS_ACTIVE_NS, 0, 3, -ENODEV, "no active namespace 3"},
        {SDC_NVME_CNS_NS, 0, 0, -ENODEV, "no active namespace 2"},
        {SDC_NVME_CNS_NS, 4, 0xffffffff, -EPROTO, "which makes no sense"},
        {SDC_NVME_CNS_NS, 128, 8 << 16, -ENOTSUP, "2 to the power of 8"},
        {SDC_NVME_CNS_NS, 128, 255 << 16, -ENOTSUP, "2 to the power of 255"},
        {SDC_NVME_CNS_NS, 128, 9 << 16 | 8, -ENOTSUP, "8 bytes of metadata"},
        {SDC_NVME_CNS_NS, 24, 15 << 16, -ENOTSUP, "2 to the power of 0"},
    };
    for (unsigned i = 0; i < SDC_COUNT(cases); i++) {
        struct fake_nvme *nvme = new_fake_nvme();
        bad_cns = cases[i].cns;
        bad_offset = cases[i].offset;
        sdc_put32(bad_value, cases[i].value);
        nvme->identify = bad_words;
        open_fails(nvme, NULL, NULL, cases[i].code, cases[i].text);
    }
    struct sdc_driver_disk_wishes wishes = {.nvme = {.nsid = 7}};
    open_fails(new_fake_nvme(), &wishes, NULL, -ENODEV, "no active namespace 7");
}

static void what_the_controller_has_not_got_is_said(void **state)
{
    (void)state;
    struct sdc_driver_disk_wishes sgl = {.nvme = {.sgl = true}}, shadows = {.nvme = {.shadows = SDC_DRIVER_NVME_SHADOWS_ON}};
    struct sdc_driver_disk_wishes eventfds = {.nvme = {.shadows = SDC_DRIVER_NVME_SHADOWS_OFF}, .notify = SDC_DRIVER_NOTIFY_IOEVENTFD};
    struct fake_nvme *nvme = new_fake_nvme();
    bad_cns = SDC_NVME_CNS_CONTROLLER, bad_offset = 536;
    sdc_put32(bad_value, 0);
    nvme->identify = bad_words;
    open_fails(nvme, &sgl, NULL, -ENOTSUP, "no SGLs");
    nvme = new_fake_nvme();
    bad_offset = 256;
    nvme->identify = bad_words;
    open_fails(nvme, &shadows, NULL, -ENOTSUP, "the controller offers none");
    open_fails(new_fake_nvme(), &eventfds, NULL, -ENOTSUP, "takes shadow doorbells");
    struct sdc_driver_disk_options options = {.queues = 5};
    open_fails(new_fake_nvme(), NULL, &options, -EINVAL, "5 queues: the device has 4");
    options = (struct sdc_driver_disk_options){.queue_size = 257};
    open_fails(new_fake_nvme(), NULL, &options, -EINVAL, "2 to 256");
    options = (struct sdc_driver_disk_options){.queue_size = 16, .depth = 16};
    open_fails(new_fake_nvme(), NULL, &options, -E2BIG, "holds 15");
    options = (struct sdc_driver_disk_options){.request_max = 4 << 20};
    open_fails(new_fake_nvme(), NULL, &options, -EINVAL, "the controller takes 2097152");
}

static void refusals_of_admin_commands_are_told(void **state)
{
    (void)state;
    static const uint8_t opcodes[] = {SDC_NVME_ADMIN_IDENTIFY, SDC_NVME_ADMIN_SET_FEATURES, SDC_NVME_ADMIN_CREATE_CQ,
                                      SDC_NVME_ADMIN_CREATE_SQ, SDC_NVME_ADMIN_DOORBELL_BUFFER};
    for (unsigned i = 0; i < SDC_COUNT(opcodes); i++) {
        struct fake_nvme *nvme = new_fake_nvme();
        nvme->refused_opcode = opcodes[i];
        nvme->refuse = SDC_NVME_SC_INTERNAL;
        open_fails(nvme, NULL, NULL, -EIO, "status 0x006");
    }
}

static void (*spoil)(uint8_t entry[16]);
static bool spoil_admin;

static void spoil_completion(struct fake_nvme *nvme, uint16_t queue, uint8_t entry[16])
{
    (void)nvme;
    if ((queue == 0) == spoil_admin)
        spoil(entry);
}

static void other_cid(uint8_t entry[16])
{
    sdc_put16(entry + SDC_NVME_CQE_CID, (uint16_t)(sdc_get16(entry + SDC_NVME_CQE_CID) + 1));
}

static void huge_cid(uint8_t entry[16])
{
    sdc_put16(entry + SDC_NVME_CQE_CID, 0xffff);
}

static void other_queue(uint8_t entry[16])
{
    sdc_put16(entry + SDC_NVME_CQE_SQID, 3);
}

static void head_outside(uint8_t entry[16])
{
    sdc_put16(entry + SDC_NVME_CQE_SQHD, 0x8000);
}

static void head_ahead(uint8_t entry[16])
{
    sdc_put16(entry + SDC_NVME_CQE_SQHD, (uint16_t)(sdc_get16(entry + SDC_NVME_CQE_SQHD) + 1));
}

static void head_behind(uint8_t entry[16])
{
    sdc_put16(entry + SDC_NVME_CQE_SQHD, 31);
}

static void wrong_completions_break_the_queue_and_nothing_else(void **state)
{
    (void)state;
    static const struct {
        void (*spoil)(uint8_t entry[16]);
        const char *text;
    } cases[] = {{other_cid, "not"}, {huge_cid, "not"}, {other_queue, "another queue"}, {head_outside, "outside"},
                 {head_ahead, "where nothing was"}, {head_behind, "where nothing was"}};
    for (unsigned i = 0; i < SDC_COUNT(cases); i++) {
        struct setup setup;
        struct fake_nvme *nvme = new_fake_nvme();
        struct sdc_driver_disk_options options = {.queues = 2, .queue_size = 64};
        spoil = cases[i].spoil;
        spoil_admin = false;
        good_disk(&setup, nvme, NULL, &options);
        nvme->complete = spoil_completion;
        assert_int_equal(do_one(&setup, SDC_DRIVER_DISK_READ, 0, 512, 0), -EPROTO);
        if (!strstr(setup.err.text, cases[i].text))
            fail_msg("'%s' has no '%s'", setup.err.text, cases[i].text);
        nvme->complete = NULL;
        assert_int_equal(do_one(&setup, SDC_DRIVER_DISK_READ, 0, 512, 0), -EPROTO); // for good
        setup.queue = sdc_driver_disk_queue(setup.disk, 1);
        assert_int_equal(do_one(&setup, SDC_DRIVER_DISK_READ, 0, 512, 0), 0);
        assert_int_equal(sdc_driver_disk_reset_queue(setup.disk, 0, &setup.err), 0); // but not for ever
        run_many(&setup, 0);
        close_setup(&setup);
        // The same of the admin queue.
        nvme = new_fake_nvme();
        spoil_admin = true;
        nvme->complete = spoil_completion;
        open_fails(nvme, NULL, NULL, -EPROTO, "admin queue");
    }
}

static void a_command_that_is_completed_twice_breaks_the_queue(void **state)
{
    (void)state;
    struct setup setup;
    struct fake_nvme *nvme = new_fake_nvme();
    struct sdc_driver_disk_request *done[4];
    nvme->duplicate = 1;
    good_disk(&setup, nvme, NULL, NULL);
    assert_int_equal(do_one(&setup, SDC_DRIVER_DISK_READ, 0, 512, 0), 0);
    int ret;
    while ((ret = sdc_driver_disk_take(setup.queue, done, 4, &setup.err)) == 0)
        ;
    assert_int_equal(ret, -EPROTO);
    assert_non_null(strstr(setup.err.text, "not in flight"));
    close_setup(&setup);
}

static void a_controller_that_fails_or_says_nothing_is_noticed(void **state)
{
    (void)state;
    struct setup setup;
    struct fake_nvme *nvme = new_fake_nvme();
    struct sdc_driver_disk_request request = {.op = SDC_DRIVER_DISK_READ, .size = 512, .data = DATA_IOVA};
    good_disk(&setup, nvme, NULL, NULL);
    nvme->deaf = true;
    assert_int_equal(sdc_driver_disk_do(setup.queue, &request, 20, &setup.err), -ETIMEDOUT);
    assert_int_equal(sdc_driver_disk_check(setup.disk, &setup.err), 0);
    nvme->csts_read = SDC_NVME_CSTS_RDY | SDC_NVME_CSTS_CFS;
    assert_int_equal(sdc_driver_disk_check(setup.disk, &setup.err), -EIO);
    assert_non_null(strstr(setup.err.text, "has failed"));
    nvme->csts_read = 0x10;
    assert_int_equal(sdc_driver_disk_check(setup.disk, &setup.err), -EIO);
    assert_non_null(strstr(setup.err.text, "has stopped"));
    nvme->csts_read = UINT32_MAX;
    assert_int_equal(sdc_driver_disk_check(setup.disk, &setup.err), -ENODEV);
    close_setup(&setup);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_namespace_is_found_out),
        cmocka_unit_test(what_is_not_offered_is_not_there),
        cmocka_unit_test(data_is_found_whatever_its_place_and_the_page_size),
        cmocka_unit_test(lists_have_room_for_what_they_are_asked_for),
        cmocka_unit_test(every_operation_has_its_command),
        cmocka_unit_test(queues_of_any_size_go_round),
        cmocka_unit_test(shadow_doorbells_spare_the_registers),
        cmocka_unit_test(a_queue_is_reset_and_goes_on),
        cmocka_unit_test(registers_that_make_no_sense_are_refused),
        cmocka_unit_test(namespaces_that_make_no_sense_are_refused),
        cmocka_unit_test(what_the_controller_has_not_got_is_said),
        cmocka_unit_test(refusals_of_admin_commands_are_told),
        cmocka_unit_test(wrong_completions_break_the_queue_and_nothing_else),
        cmocka_unit_test(a_command_that_is_completed_twice_breaks_the_queue),
        cmocka_unit_test(a_controller_that_fails_or_says_nothing_is_noticed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
