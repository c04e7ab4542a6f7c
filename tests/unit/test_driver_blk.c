// SPDX-License-Identifier: BSD-3-Clause
// The disk driver over a transport made for the test: a device in the same process that works a queue off
// when it is notified.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/check.h"
#include "driver/blk.h"
#include "driver_memory.h"
#include "os/fd.h"
#include "ring/ring.h"

#include <sidecard/virtio.h>

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { QUEUES = 2, DISK = 1 << 20, SEEN = 16 };

#define F_SIZE_MAX (UINT64_C(1) << 1)
#define F_SEG_MAX (UINT64_C(1) << 2)
#define F_RO (UINT64_C(1) << 5)
#define F_BLK_SIZE (UINT64_C(1) << 6)
#define F_FLUSH (UINT64_C(1) << 9)
#define F_MQ (UINT64_C(1) << 12)
#define F_DISCARD (UINT64_C(1) << 13)
#define F_WRITE_ZEROES (UINT64_C(1) << 14)

// A request as it arrived.
struct seen {
    uint32_t type;
    uint64_t sector;
    uint64_t readable;
    uint64_t writable;
    uint32_t spans;
    uint8_t range[16];
};

struct card {
    struct sdc_driver_transport transport;
    uint16_t kind;
    uint64_t offered;
    uint64_t accepted;
    uint64_t refused; // features that make it refuse FEATURES_OK
    uint8_t status;
    uint8_t config[64];
    uint16_t queue_size;
    uint8_t answer; // the status byte of the next requests
    bool asleep;    // does nothing when it is notified
    unsigned resetting; // looks at a queue that still find it resetting
    int sockets[2];
    struct sdc_region_table table; // from which map is published
    struct sdc_map *map;
    struct sdc_driver_queue_place places[QUEUES];
    struct sdc_ring rings[QUEUES];
    uint8_t disk[DISK];
    struct seen seen[SEEN];
    unsigned seen_count;
    unsigned notified;
    bool closed;
};

static struct card *card_of(struct sdc_driver_transport *transport)
{
    return sdc_container(transport, struct card, transport);
}

static uint16_t card_id(struct sdc_driver_transport *transport)
{
    return card_of(transport)->kind;
}

// Regions are added one by one; the last map holds them all, by address.
static int card_map(struct sdc_driver_transport *transport, const struct sdc_client_memory *memory,
                    struct sdc_error *err)
{
    struct card *card = card_of(transport);

    (void)err;
    driver_region(&card->table, memory);
    struct sdc_map *map = sdc_region_table_publish(&card->table, sdc_map_free, NULL);
    for (unsigned i = 0; i < QUEUES; i++)
        if (card->rings[i].format)
            sdc_ring_remap(&card->rings[i], &(struct sdc_memory){.map = map});
    sdc_map_unref(card->map);
    card->map = map;
    return 0;
}

static int card_get_features(struct sdc_driver_transport *transport, uint64_t *offered, struct sdc_error *err)
{
    (void)err;
    *offered = card_of(transport)->offered;
    return 0;
}

static int card_set_features(struct sdc_driver_transport *transport, uint64_t accepted, struct sdc_error *err)
{
    (void)err;
    card_of(transport)->accepted = accepted;
    return 0;
}

static int card_get_status(struct sdc_driver_transport *transport, uint8_t *status, struct sdc_error *err)
{
    (void)err;
    *status = card_of(transport)->status;
    return 0;
}

static int card_set_status(struct sdc_driver_transport *transport, uint8_t status, struct sdc_error *err)
{
    struct card *card = card_of(transport);
    (void)err;
    if (card->accepted & card->refused)
        status &= (uint8_t)~SDC_VIRTIO_S_FEATURES_OK;
    card->status = status;
    for (unsigned i = 0; status == 0 && i < QUEUES; i++)
        sdc_ring_stop(&card->rings[i]);
    return 0;
}

static int card_get_config(struct sdc_driver_transport *transport, uint32_t offset, void *data, uint32_t size,
                           struct sdc_error *err)
{
    (void)err;
    memcpy(data, card_of(transport)->config + offset, size);
    return 0;
}

static int card_set_config_call(struct sdc_driver_transport *transport, int fd, struct sdc_error *err)
{
    (void)transport, (void)fd, (void)err;
    return 0;
}

static int card_queues_count(struct sdc_driver_transport *transport, uint16_t *count, struct sdc_error *err)
{
    (void)transport, (void)err;
    *count = QUEUES;
    return 0;
}

static int card_queue_size(struct sdc_driver_transport *transport, uint16_t index, uint16_t *size,
                           struct sdc_error *err)
{
    (void)index, (void)err;
    *size = card_of(transport)->queue_size;
    return 0;
}

static int card_queue_setup(struct sdc_driver_transport *transport,
                            const struct sdc_driver_queue_place *place, struct sdc_error *err)
{
    struct card *card = card_of(transport);
    struct sdc_ring_config config = {.size = place->size,
                                     .features = card->accepted,
                                     .desc = place->desc,
                                     .driver = place->driver,
                                     .device = place->device};
    card->places[place->index] = *place;
    int ret = sdc_ring_start(&card->rings[place->index], &config, &(struct sdc_memory){.map = card->map}, err);
    if (ret == 0)
        sdc_ring_rearm(&card->rings[place->index]);
    return ret;
}

static int card_queue_reset(struct sdc_driver_transport *transport, uint16_t index, struct sdc_error *err)
{
    (void)err;
    sdc_ring_stop(&card_of(transport)->rings[index]);
    return 0;
}

static int card_queue_resetting(struct sdc_driver_transport *transport, uint16_t index, bool *resetting,
                                struct sdc_error *err)
{
    struct card *card = card_of(transport);
    (void)index, (void)err;
    *resetting = card->resetting > 0;
    card->resetting -= *resetting;
    return 0;
}

static uint32_t serve(struct card *card, struct sdc_chain *chain, const struct seen *seen)
{
    uint64_t offset = seen->sector * 512,
             size = seen->type == 0 ? chain->payload.writable_size - 1 : chain->payload.readable_size - 16;
    if ((seen->type == 0 || seen->type == 1) && !sdc_within(offset, size, DISK)) {
        sdc_chain_write(chain, chain->payload.writable_size - 1, "\1", 1);
        return 1;
    }
    if (seen->type == 0)
        sdc_chain_write(chain, 0, card->disk + offset, size);
    else if (seen->type == 1)
        sdc_chain_read(chain, 16, card->disk + offset, size);
    else if (seen->type == 8)
        sdc_chain_write(chain, 0, "a serial of 20 bytes", 20);
    sdc_chain_write(chain, chain->payload.writable_size - 1, &card->answer, 1);
    return (uint32_t)chain->payload.writable_size;
}

static int card_notify(struct sdc_driver_transport *transport, uint16_t index, uint16_t position, struct sdc_error *err)
{
    struct card *card = card_of(transport);
    struct sdc_ring *ring = &card->rings[index];
    struct sdc_chain chain;
    (void)position, (void)err;
    card->notified++;
    if (card->asleep)
        return 0;
    sdc_chain_init(&chain);
    while (sdc_ring_take(ring, &chain) == 1) {
        struct seen *seen = &card->seen[card->seen_count++ % SEEN];
        uint8_t header[16];
        sdc_chain_read(&chain, 0, header, sizeof header);
        *seen = (struct seen){.type = sdc_get32(header),
                              .sector = sdc_get64(header + 8),
                              .readable = chain.payload.readable_size,
                              .writable = chain.payload.writable_size,
                              .spans = chain.payload.spans_count};
        if (chain.payload.readable_size == 32)
            sdc_chain_read(&chain, 16, seen->range, 16);
        sdc_ring_give(ring, &chain, serve(card, &chain, seen));
    }
    sdc_chain_destroy(&chain);
    if (sdc_ring_publish(ring) && card->places[index].call_fd >= 0)
        sdc_eventfd_signal(card->places[index].call_fd);
    sdc_ring_rearm(ring);
    return 0;
}

static int card_hangup_fd(struct sdc_driver_transport *transport)
{
    return card_of(transport)->sockets[0];
}

static int card_check(struct sdc_driver_transport *transport, struct sdc_error *err)
{
    (void)transport, (void)err;
    return 0;
}

static void card_close(struct sdc_driver_transport *transport)
{
    card_of(transport)->closed = true;
}

static const struct sdc_driver_transport_ops card_ops = {
    .name = "test",
    .device_id = card_id,
    .map = card_map,
    .get_features = card_get_features,
    .set_features = card_set_features,
    .get_status = card_get_status,
    .set_status = card_set_status,
    .get_config = card_get_config,
    .set_config_call = card_set_config_call,
    .queues_count = card_queues_count,
    .queue_size = card_queue_size,
    .queue_setup = card_queue_setup,
    .queue_reset = card_queue_reset,
    .queue_resetting = card_queue_resetting,
    .notify = card_notify,
    .hangup_fd = card_hangup_fd,
    .check = card_check,
    .close = card_close,
};

static struct card *new_card(uint64_t offered)
{
    struct card *card = calloc(1, sizeof *card);
    card->transport.ops = &card_ops;
    card->kind = 2;
    card->offered = offered | SDC_VIRTIO_F_VERSION_1;
    card->queue_size = 64;
    sdc_put64(card->config, DISK / 512);
    sdc_put32(card->config + 8, 65536);   // size_max
    sdc_put32(card->config + 12, 4);      // seg_max
    sdc_put32(card->config + 20, 4096);   // blk_size
    sdc_put16(card->config + 34, QUEUES); // num_queues
    sdc_put32(card->config + 36, 1000);   // max_discard_sectors
    sdc_put32(card->config + 48, 2000);   // max_write_zeroes_sectors
    card->config[56] = 1;                 // write_zeroes_may_unmap
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, card->sockets), 0);
    return card;
}

static void free_card(struct card *card)
{
    assert_true(card->closed);
    assert_int_equal(card->status, 0); // it was reset before its memory went
    sdc_map_unref(card->map);
    sdc_region_table_clear(&card->table);
    if (card->sockets[1] >= 0)
        close(card->sockets[1]);
    close(card->sockets[0]);
    free(card);
}

#define DATA_IOVA (UINT64_C(1) << 32)

struct setup {
    struct card *card;
    struct sdc_driver_disk *blk;
    struct sdc_driver_disk_queue *queue;
    struct sdc_client_memory data;
    struct sdc_error err;
};

static void open_setup(struct setup *setup, uint64_t offered, const struct sdc_driver_disk_options *options)
{
    *setup = (struct setup){.card = new_card(offered)};
    assert_int_equal(sdc_driver_blk_open(&setup->card->transport, 0, &setup->blk, &setup->err), 0);
    assert_int_equal(sdc_driver_disk_start(setup->blk, options, &setup->err), 0);
    assert_int_equal(sdc_client_memory_new(&setup->data, DATA_IOVA, DISK, NULL), 0);
    assert_int_equal(sdc_driver_disk_map(setup->blk, &setup->data, NULL), 0);
    setup->queue = sdc_driver_disk_queue(setup->blk, 0);
}

static void close_setup(struct setup *setup)
{
    sdc_driver_disk_close(setup->blk);
    free_card(setup->card);
    sdc_client_memory_free(&setup->data);
}

static int do_one(struct setup *setup, enum sdc_driver_disk_op op, uint64_t offset, uint64_t size)
{
    struct sdc_driver_disk_request request = {.op = op, .offset = offset, .size = size, .data = DATA_IOVA};
    return sdc_driver_disk_do(setup->queue, &request, 200, &setup->err);
}

// --- opening ---

static void what_the_disk_is_comes_from_its_configuration(void **state)
{
    (void)state;
    struct setup setup;
    open_setup(&setup,
               F_SIZE_MAX | F_SEG_MAX | F_BLK_SIZE | F_FLUSH | F_MQ | F_DISCARD | F_WRITE_ZEROES | F_RO,
               NULL);
    const struct sdc_driver_disk_info *info = sdc_driver_disk_info(setup.blk);
    assert_int_equal(info->size, DISK);
    assert_int_equal(info->block_size, 4096);
    assert_int_equal(info->virtio.size_max, 65536);
    assert_int_equal(info->virtio.seg_max, 4);
    assert_int_equal(info->queues, 2);
    assert_int_equal(info->queue_size, 64);
    assert_int_equal(info->discard_max, 512000);
    assert_int_equal(info->write_zeroes_max, 1024000);
    assert_true(info->read_only && info->flush && info->discard && info->write_zeroes && info->unmap);
    assert_int_equal(setup.card->status, 15);
    close_setup(&setup);
    // Without the features those fields mean nothing.
    open_setup(&setup, 0, NULL);
    info = sdc_driver_disk_info(setup.blk);
    assert_int_equal(info->block_size, 512);
    assert_int_equal(info->queues, 1);
    assert_int_equal(info->virtio.seg_max, 1);
    assert_false(info->read_only || info->flush || info->discard || info->write_zeroes || info->unmap);
    close_setup(&setup);
}

#define F_NOTIF_CONFIG_DATA (UINT64_C(1) << 39) // virtio 1.2, section 6

static void features_that_nobody_wants_are_left_alone(void **state)
{
    (void)state;
    struct card *card = new_card(UINT64_MAX);
    struct sdc_driver_disk *blk;
    assert_int_equal(sdc_driver_blk_open(&card->transport, SDC_VIRTIO_F_EVENT_IDX, &blk, NULL), 0);
    assert_false(card->accepted & (SDC_VIRTIO_F_EVENT_IDX | F_NOTIF_CONFIG_DATA | 1));
    assert_true(card->accepted & SDC_VIRTIO_F_INDIRECT_DESC);
    assert_true(card->accepted & SDC_VIRTIO_F_RING_PACKED);
    assert_true(sdc_driver_disk_info(blk)->virtio.packed);
    sdc_driver_disk_close(blk);
    free_card(card);
    card = new_card(UINT64_MAX);
    assert_int_equal(sdc_driver_blk_open(&card->transport, SDC_VIRTIO_F_RING_PACKED, &blk, NULL), 0);
    assert_false(card->accepted & SDC_VIRTIO_F_RING_PACKED);
    assert_false(sdc_driver_disk_info(blk)->virtio.packed);
    sdc_driver_disk_close(blk);
    free_card(card);
}

static void open_fails(struct card *card, const struct sdc_driver_disk_options *options, int code,
                       const char *text)
{
    struct sdc_driver_disk *blk = NULL;
    struct sdc_error err = {0};
    int ret = sdc_driver_blk_open(&card->transport, 0, &blk, &err);
    if (ret == 0) {
        ret = sdc_driver_disk_start(blk, options, &err);
        sdc_driver_disk_close(blk);
    }
    assert_int_equal(ret, code);
    assert_non_null(strstr(err.text, text));
    free_card(card);
}

static void what_cannot_be_is_refused_with_its_reason(void **state)
{
    (void)state;
    struct card *card = new_card(0);
    card->kind = 1;
    open_fails(card, NULL, -ENODEV, "virtio device 1");
    card = new_card(0);
    card->offered = 0;
    open_fails(card, NULL, -ENODEV, "VERSION_1");
    card = new_card(F_FLUSH);
    card->refused = F_FLUSH;
    open_fails(card, NULL, -ENOTSUP, "refused the features");
    card = new_card(F_BLK_SIZE);
    sdc_put32(card->config + 20, 1000);
    open_fails(card, NULL, -EPROTO, "block size 1000");
    card = new_card(F_MQ);
    sdc_put16(card->config + 34, 0);
    open_fails(card, NULL, -EPROTO, "0 queues");
    card = new_card(0);
    sdc_put64(card->config, UINT64_MAX / 256);
    open_fails(card, NULL, -EPROTO, "makes no sense");
    card = new_card(0);
    card->queue_size = 0;
    open_fails(card, NULL, -ENODEV, "no queue 0");
    struct sdc_driver_disk_options options = {.queues = 3};
    open_fails(new_card(F_MQ), &options, -EINVAL, "3 queues: the device has 2");
    options = (struct sdc_driver_disk_options){.queue_size = 128};
    open_fails(new_card(0), &options, -EINVAL, "at most 64");
    options = (struct sdc_driver_disk_options){.queue_size = 48};
    open_fails(new_card(0), &options, -EINVAL, "power of two");
    options = (struct sdc_driver_disk_options){.queue_size = 48, .depth = 17};
    open_fails(new_card(SDC_VIRTIO_F_RING_PACKED), &options, -E2BIG, "hold 16");
    options = (struct sdc_driver_disk_options){.depth = 22};
    open_fails(new_card(0), &options, -E2BIG, "hold 21");
    options = (struct sdc_driver_disk_options){.depth = 65};
    open_fails(new_card(SDC_VIRTIO_F_INDIRECT_DESC), &options, -E2BIG, "hold 64");
    options = (struct sdc_driver_disk_options){.queue_size = 2};
    open_fails(new_card(SDC_VIRTIO_F_INDIRECT_DESC), &options, -EINVAL, "2 entries; packed rings with indirect tables");
    open_fails(new_card(SDC_VIRTIO_F_RING_PACKED), &options, -EINVAL, "2 entries without indirect tables");
    options = (struct sdc_driver_disk_options){.request_max = 5 * 65536};
    open_fails(new_card(F_SIZE_MAX | F_SEG_MAX), &options, -EINVAL, "the device takes 262144");
}

// --- requests ---

static void data_comes_back_as_it_was_written(void **state)
{
    (void)state;
    static const uint64_t sets[] = {0, SDC_VIRTIO_F_INDIRECT_DESC,
                                    SDC_VIRTIO_F_EVENT_IDX | F_SIZE_MAX | F_SEG_MAX,
                                    SDC_VIRTIO_F_INDIRECT_DESC | SDC_VIRTIO_F_EVENT_IDX | F_SIZE_MAX |
                                        F_SEG_MAX,
                                    SDC_VIRTIO_F_RING_PACKED,
                                    SDC_VIRTIO_F_RING_PACKED | SDC_VIRTIO_F_INDIRECT_DESC |
                                        SDC_VIRTIO_F_EVENT_IDX | F_SIZE_MAX | F_SEG_MAX};
    for (unsigned set = 0; set < SDC_COUNT(sets); set++) {
        struct setup setup;
        struct sdc_driver_disk_options options = {.request_max = 200 * 512, .depth = 8, .poll = set & 1};
        open_setup(&setup, sets[set], &options);
        for (unsigned i = 0; i < 200 * 512; i++)
            setup.data.base[i] = (uint8_t)(i * 13 + i / 255);
        assert_int_equal(do_one(&setup, SDC_DRIVER_DISK_WRITE, 512 * 7, 200 * 512), 0);
        // 65536 bytes fit into a segment: header, two pieces of data, status.
        assert_int_equal(setup.card->seen[0].spans >= (sets[set] & F_SIZE_MAX ? 3 : 1), 1);
        assert_int_equal(setup.card->seen[0].sector, 7);
        assert_int_equal(setup.card->seen[0].readable, 16 + 200 * 512);
        assert_memory_equal(setup.card->disk + 512 * 7, setup.data.base, 200 * 512);
        memset(setup.data.base, 0, 200 * 512);
        assert_int_equal(do_one(&setup, SDC_DRIVER_DISK_READ, 512 * 7, 200 * 512), 0);
        assert_memory_equal(setup.card->disk + 512 * 7, setup.data.base, 200 * 512);
        close_setup(&setup);
    }
}

static void the_other_requests_are_as_the_specification_has_them(void **state)
{
    (void)state;
    struct setup setup;
    open_setup(&setup, F_FLUSH | F_DISCARD | F_WRITE_ZEROES, NULL);
    static const struct {
        enum sdc_driver_disk_op op;
        uint32_t type;
        uint64_t readable;
        uint64_t writable;
        uint32_t flags;
    } cases[] = {
        {SDC_DRIVER_DISK_FLUSH, 4, 16, 1, 0},
        {SDC_DRIVER_DISK_GET_ID, 8, 16, 21, 0},
        {SDC_DRIVER_DISK_DISCARD, 11, 32, 1, 0},
        {SDC_DRIVER_DISK_WRITE_ZEROES, 13, 32, 1, 0},
        {SDC_DRIVER_DISK_WRITE_ZEROES_UNMAP, 13, 32, 1, 1},
    };
    for (unsigned i = 0; i < SDC_COUNT(cases); i++) {
        assert_int_equal(do_one(&setup, cases[i].op, 5 * 512, 3 * 512), 0);
        const struct seen *seen = &setup.card->seen[i];
        assert_int_equal(seen->type, cases[i].type);
        assert_int_equal(seen->sector, 0);
        assert_int_equal(seen->readable, cases[i].readable);
        assert_int_equal(seen->writable, cases[i].writable);
        if (cases[i].readable == 32) {
            assert_int_equal(sdc_get64(seen->range), 5);
            assert_int_equal(sdc_get32(seen->range + 8), 3);
            assert_int_equal(sdc_get32(seen->range + 12), cases[i].flags);
        }
    }
    assert_memory_equal(setup.data.base, "a serial of 20 bytes", 20);
    close_setup(&setup);
}

static void statuses_become_results(void **state)
{
    (void)state;
    static const struct {
        uint8_t status;
        int result;
    } cases[] = {{0, 0}, {1, -EIO}, {2, -ENOTSUP}, {3, -EPROTO}, {255, -EPROTO}};
    struct setup setup;
    open_setup(&setup, 0, NULL);
    for (unsigned i = 0; i < SDC_COUNT(cases); i++) {
        setup.card->answer = cases[i].status;
        assert_int_equal(do_one(&setup, SDC_DRIVER_DISK_WRITE, 0, 512), cases[i].result);
    }
    assert_int_equal(do_one(&setup, SDC_DRIVER_DISK_READ, DISK, 512), -EIO);
    close_setup(&setup);
}

static void requests_that_are_not_whole_sectors_are_refused(void **state)
{
    (void)state;
    static const uint64_t cases[][2] = {{1, 512}, {512, 1}, {0, 0}, {511, 512}};
    struct setup setup;
    open_setup(&setup, 0, NULL);
    for (unsigned i = 0; i < SDC_COUNT(cases); i++) {
        struct sdc_driver_disk_request request = {.offset = cases[i][0],
                                                 .size = cases[i][1],
                                                 .data = DATA_IOVA};
        struct sdc_driver_disk_request *list = &request;
        assert_int_equal(sdc_driver_disk_submit(setup.queue, &list, 1), -EINVAL);
    }
    close_setup(&setup);
}

static void batches_are_kicked_once_and_the_queue_fills(void **state)
{
    (void)state;
    struct setup setup;
    struct sdc_driver_disk_options options = {.depth = 10};
    struct sdc_driver_disk_request requests[12], *list[12], *finished[12];
    open_setup(&setup, SDC_VIRTIO_F_EVENT_IDX | SDC_VIRTIO_F_INDIRECT_DESC, &options);
    for (unsigned i = 0; i < 12; i++) {
        requests[i] = (struct sdc_driver_disk_request){.op = SDC_DRIVER_DISK_READ,
                                                      .offset = 512 * i,
                                                      .size = 512,
                                                      .data = DATA_IOVA + 512 * i};
        list[i] = &requests[i];
    }
    for (unsigned round = 0; round < 100; round++) {
        assert_int_equal(sdc_driver_disk_submit(setup.queue, list, 12), 10);
        assert_int_equal(sdc_driver_disk_kick(setup.queue, NULL), 1);
        assert_int_equal(sdc_driver_disk_kick(setup.queue, NULL), 0);
        assert_int_equal(setup.card->notified, round + 1);
        assert_int_equal(sdc_driver_disk_take(setup.queue, finished, 4, NULL), 4);
        assert_int_equal(sdc_driver_disk_take(setup.queue, finished, 12, NULL), 6);
        assert_int_equal(sdc_driver_disk_take(setup.queue, finished, 12, NULL), 0);
    }
    close_setup(&setup);
}

static void the_queues_have_the_size_that_was_asked_for(void **state)
{
    (void)state;
    static const struct {
        uint64_t format;
        uint16_t wanted;
        uint16_t size; // the device allows 100
    } cases[] = {
        {0, 0, 64},
        {0, 32, 32},
        {SDC_VIRTIO_F_RING_PACKED, 0, 100},
        {SDC_VIRTIO_F_RING_PACKED, 37, 37},
        {SDC_VIRTIO_F_RING_PACKED, 3, 3},
    };
    for (unsigned i = 0; i < SDC_COUNT(cases); i++) {
        struct setup setup = {.card = new_card(cases[i].format | SDC_VIRTIO_F_EVENT_IDX)};
        struct sdc_driver_disk_options options = {.queue_size = cases[i].wanted, .depth = 1};
        setup.card->queue_size = 100;
        assert_int_equal(sdc_driver_blk_open(&setup.card->transport, 0, &setup.blk, NULL), 0);
        assert_int_equal(sdc_driver_disk_start(setup.blk, &options, NULL), 0);
        assert_int_equal(sdc_driver_disk_info(setup.blk)->queue_size, cases[i].size);
        assert_int_equal(setup.card->places[0].size, cases[i].size);
        assert_int_equal(sdc_client_memory_new(&setup.data, DATA_IOVA, DISK, NULL), 0);
        assert_int_equal(sdc_driver_disk_map(setup.blk, &setup.data, NULL), 0);
        setup.queue = sdc_driver_disk_queue(setup.blk, 0);
        for (unsigned round = 0; round < 250; round++)
            assert_int_equal(do_one(&setup, SDC_DRIVER_DISK_WRITE, 512 * round, 512), 0);
        close_setup(&setup);
    }
}

static void a_queue_that_was_reset_goes_on_empty(void **state)
{
    (void)state;
    static const uint64_t sets[] = {0, SDC_VIRTIO_F_RING_PACKED};
    for (unsigned set = 0; set < SDC_COUNT(sets); set++) {
        struct setup setup;
        struct sdc_driver_disk_options options = {.depth = 4};
        struct sdc_driver_disk_request request = {.op = SDC_DRIVER_DISK_READ, .size = 512, .data = DATA_IOVA},
                                      *list[] = {&request, &request, &request, &request};
        open_setup(&setup, sets[set] | SDC_VIRTIO_F_RING_RESET | SDC_VIRTIO_F_EVENT_IDX, &options);
        for (unsigned round = 0; round < 10; round++) {
            setup.card->asleep = true;
            assert_int_equal(sdc_driver_disk_submit(setup.queue, list, 4), 4);
            assert_int_equal(sdc_driver_disk_submit(setup.queue, list, 1), 0); // full
            assert_int_equal(sdc_driver_disk_kick(setup.queue, NULL), 1);
            setup.card->asleep = false;
            setup.card->resetting = 3;
            struct sdc_driver_queue_place before = setup.card->places[0];
            setup.card->places[0] = (struct sdc_driver_queue_place){0};
            assert_int_equal(sdc_driver_disk_reset_queue(setup.blk, 0, &setup.err), 0);
            assert_int_equal(setup.card->resetting, 0);
            const struct sdc_driver_queue_place *after = &setup.card->places[0];
            assert_int_equal(after->size, before.size);
            assert_int_equal(after->call_fd, before.call_fd);
            assert_true(after->desc == before.desc && after->driver == before.driver &&
                        after->device == before.device);
            assert_int_equal(sdc_driver_disk_submit(setup.queue, list, 4), 4);
            assert_int_equal(sdc_driver_disk_kick(setup.queue, NULL), 1);
            assert_int_equal(sdc_driver_disk_take(setup.queue, list, 4, NULL), 4);
            for (unsigned i = 0; i < round; i++) // so that it is reset at other places
                assert_int_equal(do_one(&setup, SDC_DRIVER_DISK_WRITE, 0, 512), 0);
        }
        close_setup(&setup);
        open_setup(&setup, sets[set], NULL);
        assert_int_equal(sdc_driver_disk_reset_queue(setup.blk, 0, &setup.err), -ENOTSUP);
        assert_non_null(strstr(setup.err.text, "RING_RESET"));
        assert_int_equal(do_one(&setup, SDC_DRIVER_DISK_WRITE, 0, 512), 0);
        close_setup(&setup);
    }
}

static void a_device_that_does_nothing_or_goes_away_is_noticed(void **state)
{
    (void)state;
    struct setup setup;
    open_setup(&setup, 0, NULL);
    setup.card->asleep = true;
    assert_int_equal(do_one(&setup, SDC_DRIVER_DISK_READ, 0, 512), -ETIMEDOUT);
    close(setup.card->sockets[1]);
    setup.card->sockets[1] = -1;
    assert_int_equal(do_one(&setup, SDC_DRIVER_DISK_READ, 0, 512), -ECONNRESET);
    setup.card->status |= SDC_VIRTIO_S_NEEDS_RESET;
    assert_int_equal(sdc_driver_disk_check(setup.blk, &setup.err), -EIO);
    assert_non_null(strstr(setup.err.text, "needs a reset"));
    close_setup(&setup);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_the_disk_is_comes_from_its_configuration),
        cmocka_unit_test(features_that_nobody_wants_are_left_alone),
        cmocka_unit_test(what_cannot_be_is_refused_with_its_reason),
        cmocka_unit_test(data_comes_back_as_it_was_written),
        cmocka_unit_test(the_other_requests_are_as_the_specification_has_them),
        cmocka_unit_test(statuses_become_results),
        cmocka_unit_test(requests_that_are_not_whole_sectors_are_refused),
        cmocka_unit_test(batches_are_kicked_once_and_the_queue_fills),
        cmocka_unit_test(the_queues_have_the_size_that_was_asked_for),
        cmocka_unit_test(a_queue_that_was_reset_goes_on_empty),
        cmocka_unit_test(a_device_that_does_nothing_or_goes_away_is_noticed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
