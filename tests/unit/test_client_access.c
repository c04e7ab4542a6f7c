// SPDX-License-Identifier: BSD-3-Clause
// The client's messages that do something to a device: registers, interrupts, shared memory.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "client_fixture.h"
#include "client_script.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

// --- registers ---

// A region of 64 KiB of memory.
static bool serve_memory(struct fake_server *server, struct fake_message *message)
{
    uint8_t *memory = server->context;
    struct sdc_vfu_region_access access;
    static uint8_t reply[sizeof access + 65536];
    memcpy(&access, message->payload, sizeof access);
    memcpy(reply, &access, sizeof access);
    if (access.count > 4096 || access.offset + access.count > 65536) {
        fake_reply_error(server, message, EINVAL);
    } else if (message->header.cmd == SDC_VFU_REGION_READ) {
        memcpy(reply + sizeof access, memory + access.offset, access.count);
        fake_reply(server, message, reply, sizeof access + access.count, NULL, 0);
    } else {
        memcpy(memory + access.offset, message->payload + sizeof access, access.count);
        if (!(message->header.flags & SDC_VFU_NO_REPLY))
            fake_reply(server, message, reply, sizeof access, NULL, 0);
    }
    return true;
}

static void large_accesses_are_split(void **state)
{
    (void)state;
    uint8_t *memory = calloc(1, 65536), *data = malloc(65536), *back = malloc(65536);
    struct fake_server server = {.message = serve_memory, .context = memory};
    for (unsigned i = 0; i < 65536; i++)
        data[i] = (uint8_t)(i * 7 + i / 251);
    OPEN(server, client);
    assert_int_equal(sdc_vfio_client_write(client, 0, 3, data, 60001, &err), 0);
    assert_int_equal(sdc_vfio_client_read(client, 0, 3, back, 60001, &err), 0);
    assert_memory_equal(data, back, 60001);
    assert_memory_equal(memory + 3, data, 60001);
    assert_int_equal(atomic_load(&server.messages), 1 + 15 + 15);
    // Past the end: the error, and the replies that were still due disturb nobody.
    assert_int_equal(sdc_vfio_client_read(client, 0, 32768, back, 65536, &err), -EINVAL);
    assert_int_equal(sdc_vfio_client_read(client, 0, 3, back, 16, &err), 0);
    assert_int_equal(sdc_vfio_client_read(client, 0, UINT64_MAX, back, 16, &err), -EINVAL);
    assert_int_equal(sdc_vfio_client_read(client, 0, 0, back, 0, &err), 0);
    fake_close(&server, client);
    free(memory), free(data), free(back);
}

static void a_posted_write_is_not_answered(void **state)
{
    (void)state;
    uint8_t *memory = calloc(1, 65536);
    struct fake_server server = {.message = serve_memory, .context = memory};
    OPEN(server, client);
    uint16_t value = 0x1234, back = 0;
    for (unsigned i = 0; i < 1000; i++)
        assert_int_equal(sdc_vfio_client_post(client, 0, 2 * i, &value, sizeof value, &err), 0);
    assert_int_equal(sdc_vfio_client_read(client, 0, 1998, &back, sizeof back, &err), 0);
    assert_int_equal(back, value);
    assert_int_equal(sdc_vfio_client_post(client, 0, 0, memory, 5000, &err), -E2BIG);
    fake_close(&server, client);
    free(memory);
}

struct worker {
    pthread_t thread;
    struct sdc_vfio_client *client;
    uint32_t number;
    unsigned failures;
};

static void *work(void *context)
{
    struct worker *worker = context;
    for (unsigned i = 0; i < 500; i++) {
        uint32_t value = worker->number * 1000 + i, back = 0;
        uint64_t offset = worker->number * 64;
        if (sdc_vfio_client_post(worker->client, 0, offset, &value, sizeof value, NULL) != 0 ||
            sdc_vfio_client_read(worker->client, 0, offset, &back, sizeof back, NULL) != 0 || back != value)
            worker->failures++;
    }
    return NULL;
}

static void many_threads_share_a_connection(void **state)
{
    (void)state;
    uint8_t *memory = calloc(1, 65536);
    struct fake_server server = {.message = serve_memory, .context = memory};
    struct worker workers[6];
    struct sdc_vfio_client *client;
    assert_int_equal(fake_open(&server, NULL, &client, NULL), 0);
    for (uint32_t i = 0; i < 6; i++) {
        workers[i] = (struct worker){.client = client, .number = i};
        assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
    for (unsigned i = 0; i < 6; i++) {
        pthread_join(workers[i].thread, NULL);
        assert_int_equal(workers[i].failures, 0);
    }
    fake_close(&server, client);
    free(memory);
}

// What a server that knows REGION_WRITE_MULTI hears.
static void small_writes_go_together_where_the_server_takes_that(void **state)
{
    (void)state;
    enum { MANY = 450 }; // in messages of 200 at most
    static struct sdc_vfio_write writes[MANY];
    struct script_message *message = malloc(sizeof *message);
    struct script script;
    for (uint32_t i = 0; i < MANY; i++) {
        writes[i] = (struct sdc_vfio_write){.region = i % 3, .size = 1 + i % 8, .offset = 16 * i};
        memset(writes[i].data, (int)i, 8);
    }
    script_open(&script, NULL);
    for (unsigned posted = 0; posted < 2; posted++) {
        static const uint64_t counts[] = {200, 200, 50};
        if (posted)
            assert_int_equal(sdc_vfio_client_write_multi(script.client, writes, MANY, true, &script.err), 0);
        for (uint32_t i = 0, at = 0; i < 3; i++) {
            uint64_t count;
            if (!posted) {
                script_reply(&script, SDC_VFU_REGION_WRITE_MULTI, 0, &counts[i], sizeof counts[i]);
                assert_int_equal(sdc_vfio_client_write_multi(script.client, writes + at, counts[i], false, &script.err), 0);
            }
            assert_true(script_hear(script.fd, message));
            assert_int_equal(message->header.cmd, SDC_VFU_REGION_WRITE_MULTI);
            assert_int_equal(message->header.flags, posted ? SDC_VFU_NO_REPLY : 0);
            assert_int_equal(message->header.msg_size, 16 + 8 + counts[i] * 24);
            memcpy(&count, message->payload, 8);
            assert_int_equal(count, counts[i]);
            for (uint32_t j = 0; j < count; j++, at++) {
                struct sdc_vfu_write write;
                memcpy(&write, message->payload + 8 + j * 24, sizeof write);
                assert_int_equal(write.offset, writes[at].offset);
                assert_int_equal(write.region, writes[at].region);
                assert_int_equal(write.count, writes[at].size);
                assert_memory_equal(write.data, writes[at].data, write.count);
                for (uint32_t k = write.count; k < 8; k++)
                    assert_int_equal(write.data[k], 0); // nothing of ours
            }
        }
    }
    writes[7].size = 0;
    assert_int_equal(sdc_vfio_client_write_multi(script.client, writes, MANY, true, &script.err), -EINVAL);
    writes[7].size = 9;
    assert_int_equal(sdc_vfio_client_write_multi(script.client, writes, MANY, true, &script.err), -EINVAL);
    assert_int_equal(sdc_vfio_client_write_multi(script.client, writes, 0, false, &script.err), 0);
    assert_int_equal(script_skip(script.fd), 0);
    script_close(&script);
    free(message);
}

static void small_writes_that_are_not_all_done_fail(void **state)
{
    (void)state;
    static const struct sdc_vfio_write writes[3] = {{.size = 1}, {.size = 1}, {.size = 1}};
    static const struct {
        uint64_t done;
        int code;
    } cases[] = {{3, 0}, {2, -EIO}, {0, -EIO}, {4, -EPROTO}, {UINT64_MAX, -EPROTO}};
    struct script script;
    script_open(&script, NULL);
    for (unsigned i = 0; i < 5; i++) {
        script_reply(&script, SDC_VFU_REGION_WRITE_MULTI, 0, &cases[i].done, 8);
        assert_int_equal(sdc_vfio_client_write_multi(script.client, writes, 3, false, &script.err), cases[i].code);
    }
    script_reply(&script, SDC_VFU_REGION_WRITE_MULTI, 0, &cases[0].done, 7);
    assert_int_equal(sdc_vfio_client_write_multi(script.client, writes, 3, false, &script.err), -EPROTO);
    script_reply(&script, SDC_VFU_REGION_WRITE_MULTI, EINVAL, NULL, 0);
    assert_int_equal(sdc_vfio_client_write_multi(script.client, writes, 3, false, &script.err), -EINVAL);
    script_close(&script);
}

static void small_writes_go_one_by_one_to_a_server_that_takes_no_more(void **state)
{
    (void)state;
    uint8_t *memory = calloc(1, 65536);
    struct fake_server server = {.message = serve_memory, .context = memory};
    static const struct sdc_vfio_write writes[] = {
        {.size = 8, .offset = 0, .data = "abcdefgh"},
        {.size = 1, .offset = 2, .data = "X"},
        {.size = 3, .offset = 100, .data = "xyz"},
    };
    OPEN(server, client);
    assert_int_equal(sdc_vfio_client_write_multi(client, writes, 3, false, &err), 0);
    assert_memory_equal(memory, "abXdefgh", 8);
    assert_memory_equal(memory + 100, "xyz", 4);
    assert_int_equal(atomic_load(&server.messages), 1 + 3);
    static const struct sdc_vfio_write bad[] = {{.size = 1, .offset = 65536}, {.size = 1, .offset = 5, .data = "Z"}};
    assert_int_equal(sdc_vfio_client_write_multi(client, bad, 2, false, &err), -EINVAL);
    assert_int_equal(memory[5], 'f'); // what comes behind an error is not done
    assert_int_equal(sdc_vfio_client_write_multi(client, writes, 3, true, &err), 0);
    fake_close(&server, client);
    free(memory);
}

// --- interrupts ---

// Writes down each SET_IRQS: flags, start, count, fds.
struct irqs_seen {
    struct sdc_vfu_set_irqs set[8];
    int fds[8];
    uint8_t bytes[8][4];
    unsigned count;
};
static bool note_irqs(struct fake_server *server, struct fake_message *message)
{
    struct irqs_seen *seen = server->context;
    memcpy(&seen->set[seen->count], message->payload, sizeof seen->set[0]);
    if (message->size > sizeof seen->set[0])
        memcpy(seen->bytes[seen->count], message->payload + sizeof seen->set[0],
               message->size - sizeof seen->set[0]);
    seen->fds[seen->count++] = message->fds_count;
    fake_reply(server, message, NULL, 0, NULL, 0);
    return true;
}

static void eventfds_go_in_batches_that_the_server_takes(void **state)
{
    (void)state;
    struct irqs_seen seen = {0};
    struct fake_server server = {.message = note_irqs, .context = &seen};
    int fds[10] = {0};
    static const unsigned counts[] = {4, 4, 2};
    OPEN(server, client);
    assert_int_equal(sdc_vfio_client_irq_eventfds(client, 2, SDC_VFIO_IRQ_TRIGGER, 1, 10, fds, &err), 0);
    assert_int_equal(seen.count, 3);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(seen.set[i].flags, SDC_VFU_IRQ_DATA_EVENTFD | SDC_VFU_IRQ_ACTION_TRIGGER);
        assert_int_equal(seen.set[i].index, 2);
        assert_int_equal(seen.set[i].start, 1 + 4 * i);
        assert_int_equal(seen.set[i].count, counts[i]);
        assert_int_equal(seen.fds[i], counts[i]);
    }
    fake_close(&server, client);
}

static void the_other_forms_of_set_irqs(void **state)
{
    (void)state;
    struct irqs_seen seen = {0};
    struct fake_server server = {.message = note_irqs, .context = &seen};
    static const uint8_t bools[3] = {1, 0, 1};
    OPEN(server, client);
    assert_int_equal(sdc_vfio_client_irq_none(client, 0, SDC_VFIO_IRQ_UNMASK, 0, 1, &err), 0);
    assert_int_equal(seen.set[0].flags, SDC_VFU_IRQ_DATA_NONE | SDC_VFU_IRQ_ACTION_UNMASK);
    assert_int_equal(seen.set[0].argsz, 20);
    assert_int_equal(sdc_vfio_client_irq_bools(client, 2, SDC_VFIO_IRQ_MASK, 5, 3, bools, &err), 0);
    assert_int_equal(seen.set[1].flags, SDC_VFU_IRQ_DATA_BOOL | SDC_VFU_IRQ_ACTION_MASK);
    assert_int_equal(seen.set[1].argsz, 23);
    assert_int_equal(seen.set[1].start, 5);
    assert_memory_equal(seen.bytes[1], bools, 3);
    assert_int_equal(sdc_vfio_client_irq_eventfds(client, 2, SDC_VFIO_IRQ_TRIGGER, 0, 10, NULL, &err), 0);
    assert_int_equal(seen.set[2].flags, SDC_VFU_IRQ_DATA_EVENTFD | SDC_VFU_IRQ_ACTION_TRIGGER);
    assert_int_equal(seen.set[2].count, 10);
    assert_int_equal(seen.fds[2], 0);
    fake_close(&server, client);
}

// Every action in every form on every interrupt of a PCI device, ERR and REQ too, as linux/vfio.h numbers
// them.
static void every_form_of_set_irqs_on_every_interrupt(void **state)
{
    (void)state;
    static const enum sdc_vfio_irq_action actions[] = {SDC_VFIO_IRQ_MASK, SDC_VFIO_IRQ_UNMASK,
                                                       SDC_VFIO_IRQ_TRIGGER};
    static const uint8_t bools[2] = {0, 1};
    int fds[2] = {0, 1};
    struct irqs_seen *seen = calloc(1, sizeof *seen);
    struct fake_server server = {.message = note_irqs, .context = seen};
    OPEN(server, client);
    for (uint32_t index = 0; index < 5; index++) {
        for (uint32_t i = 0; i < 3; i++) {
            uint32_t action = UINT32_C(8) << i;
            seen->count = 0;
            assert_int_equal(sdc_vfio_client_irq_none(client, index, actions[i], 3, 2, &err), 0);
            assert_int_equal(sdc_vfio_client_irq_bools(client, index, actions[i], 3, 2, bools, &err), 0);
            assert_int_equal(sdc_vfio_client_irq_eventfds(client, index, actions[i], 3, 2, fds, &err), 0);
            assert_int_equal(sdc_vfio_client_irq_eventfds(client, index, actions[i], 3, 2, NULL, &err), 0);
            assert_int_equal(sdc_vfio_client_irq_none(client, index, actions[i], 0, 0, &err), 0);
            static const uint32_t forms[5] = {1, 2, 4, 4, 1}, fds_sent[5] = {0, 0, 2, 0, 0};
            for (unsigned j = 0; j < 5; j++) {
                assert_int_equal(seen->set[j].index, index);
                assert_int_equal(seen->set[j].flags, action | forms[j]);
                assert_int_equal(seen->set[j].start, j < 4 ? 3 : 0);
                assert_int_equal(seen->set[j].count, j < 4 ? 2 : 0);
                assert_int_equal(seen->set[j].argsz, j == 1 ? 22 : 20);
                assert_int_equal(seen->fds[j], fds_sent[j]);
            }
            assert_memory_equal(seen->bytes[1], bools, 2);
        }
    }
    fake_close(&server, client);
    free(seen);
}

// --- memory ---

static bool note_map(struct fake_server *server, struct fake_message *message)
{
    struct stat *seen = server->context;
    struct sdc_vfu_dma_map map;
    memcpy(&map, message->payload, sizeof map);
    bool good = message->header.cmd == SDC_VFU_DMA_MAP && message->size == sizeof map &&
                map.argsz == sizeof map && map.flags == (SDC_VFU_MAP_READ | SDC_VFU_MAP_WRITE) &&
                map.address == 0x100000 && map.size == 8192 && map.offset == 4096 &&
                message->fds_count == 1 && fstat(message->fds[0], seen) == 0;
    if (good)
        fake_reply(server, message, NULL, 0, NULL, 0);
    else
        fake_reply_error(server, message, EINVAL);
    return true;
}

static void memory_is_mapped_with_its_fd(void **state)
{
    (void)state;
    struct stat seen = {0}, own;
    struct fake_server server = {.message = note_map, .context = &seen};
    OPEN(server, client);
    struct sdc_client_memory memory;
    assert_int_equal(sdc_client_memory_new(&memory, 0x100000, 10000, &err), 0);
    assert_int_equal(memory.size, 12288);
    assert_int_equal(sdc_vfio_client_map(client, 0x100000, 8192, SDC_VFIO_MAP_READ | SDC_VFIO_MAP_WRITE,
                                         memory.fd, 4096, &err),
                     0);
    assert_int_equal(fstat(memory.fd, &own), 0);
    assert_int_equal(seen.st_ino, own.st_ino);
    sdc_client_memory_free(&memory);
    fake_close(&server, client);
}

static void memory_is_taken_in_aligned_pieces_until_it_is_used_up(void **state)
{
    (void)state;
    struct sdc_client_memory memory;
    uint64_t iova;
    assert_int_equal(sdc_client_memory_new(&memory, 0x10000, 8192, NULL), 0);
    uint8_t *first = sdc_client_memory_take(&memory, 100, 16, &iova);
    assert_int_equal(iova, 0x10000);
    uint8_t *second = sdc_client_memory_take(&memory, 4096, 4096, &iova);
    assert_int_equal(iova, 0x11000);
    assert_int_equal(second - first, 4096);
    assert_null(sdc_client_memory_take(&memory, 1, 1, &iova));
    assert_null(sdc_client_memory_take(&memory, UINT64_MAX, 1, &iova));
    assert_null(sdc_client_memory_take(&memory, 0, 3, &iova));
    assert_int_not_equal(ftruncate(memory.fd, 0), 0); // sealed
    sdc_client_memory_free(&memory);
    assert_int_equal(sdc_client_memory_new_private(&memory, 0x10000, 5000, NULL), 0);
    assert_int_equal(memory.size, 8192);
    assert_int_equal(memory.fd, -1);
    assert_int_equal(memory.base[8191], 0);
    memory.base[8191] = 1;
    sdc_client_memory_free(&memory);
    assert_null(memory.base);
    assert_int_equal(sdc_client_memory_new_private(&memory, 0x10001, 8192, NULL), -EINVAL);
    assert_int_equal(sdc_client_memory_new_kind(&memory, SDC_CLIENT_MEMORY_HUGE, 0x10001, 8192, NULL), -EINVAL);
    assert_int_equal(sdc_client_memory_new(&memory, 0x10001, 8192, NULL), -EINVAL);
    assert_int_equal(sdc_client_memory_new(&memory, 0, 0, NULL), -EINVAL);
    assert_int_equal(sdc_client_memory_new(&memory, UINT64_MAX - 4095, 8192, NULL), -EINVAL);
}

static void huge_pages_are_whole_or_are_said_to_be_missing(void **state)
{
    (void)state;
    struct sdc_client_memory memory;
    struct sdc_error err;
    struct statfs own;
    int ret = sdc_client_memory_new_kind(&memory, SDC_CLIENT_MEMORY_HUGE, 0x10000, 5000, &err);
    if (ret == 0) {
        assert_int_equal(memory.size, 2 << 20);
        assert_int_equal(fstatfs(memory.fd, &own), 0);
        assert_int_equal(own.f_bsize, 2 << 20);
        memory.base[memory.size - 1] = 1;
    } else {
        assert_non_null(strstr(err.text, "nr_hugepages"));
        assert_null(memory.base);
        assert_int_equal(memory.fd, -1);
    }
    sdc_client_memory_free(&memory);
    // More than any host has.
    assert_true(sdc_client_memory_new_kind(&memory, SDC_CLIENT_MEMORY_HUGE, 0, UINT64_C(1) << 46, &err) < 0);
    assert_non_null(strstr(err.text, "nr_hugepages"));
    assert_int_equal(memory.fd, -1);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(large_accesses_are_split),
        cmocka_unit_test(a_posted_write_is_not_answered),
        cmocka_unit_test(small_writes_go_together_where_the_server_takes_that),
        cmocka_unit_test(small_writes_that_are_not_all_done_fail),
        cmocka_unit_test(small_writes_go_one_by_one_to_a_server_that_takes_no_more),
        cmocka_unit_test(many_threads_share_a_connection),
        cmocka_unit_test(eventfds_go_in_batches_that_the_server_takes),
        cmocka_unit_test(the_other_forms_of_set_irqs),
        cmocka_unit_test(every_form_of_set_irqs_on_every_interrupt),
        cmocka_unit_test(memory_is_mapped_with_its_fd),
        cmocka_unit_test(memory_is_taken_in_aligned_pieces_until_it_is_used_up),
        cmocka_unit_test(huge_pages_are_whole_or_are_said_to_be_missing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
