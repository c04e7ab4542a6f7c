// SPDX-License-Identifier: BSD-3-Clause
// What the client finds out about a device: regions and how to map them, eventfds that stand for writes,
// features.
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
#include <sys/mman.h>
#include <unistd.h>

// --- regions ---

struct region_reply {
    struct sdc_vfu_region_info info;
    struct sdc_vfu_cap_sparse_mmap cap;
    struct sdc_vfu_mmap_area areas[2];
};

static bool reply_region(struct fake_server *server, struct fake_message *message)
{
    struct region_reply *whole = server->context;
    struct region_reply reply = *whole;
    struct sdc_vfu_region_info asked;
    memcpy(&asked, message->payload, sizeof asked);
    int fd = 0;
    if (asked.argsz >= sizeof reply) {
        fake_reply(server, message, &reply, sizeof reply, &fd, 1);
    } else {
        reply.info.flags &= ~(uint32_t)SDC_VFU_REGION_CAPS;
        fake_reply(server, message, &reply, sizeof reply.info, NULL, 0);
    }
    return true;
}

static const struct region_reply good_region = {
    .info = {.argsz = sizeof(struct region_reply), .flags = 15, .index = 4, .cap_offset = 32, .size = 0x4000},
    .cap = {.header = {.id = SDC_VFU_CAP_SPARSE_MMAP, .version = 1}, .nr_areas = 2},
    .areas = {{0x1000, 0x1000}, {0x3000, 0x1000}},
};

static void a_region_comes_with_its_areas_and_fd(void **state)
{
    (void)state;
    struct region_reply reply = good_region;
    struct fake_server server = {.message = reply_region, .context = &reply};
    OPEN(server, client);
    struct sdc_vfio_region region;
    assert_int_equal(sdc_vfio_client_region(client, 4, &region, &err), 0);
    assert_true(region.readable && region.writable && region.mappable);
    assert_int_equal(region.size, 0x4000);
    assert_int_equal(region.areas_count, 2);
    assert_int_equal(region.areas[1].offset, 0x3000);
    assert_true(region.fd > 0);
    sdc_vfio_region_release(&region);
    fake_close(&server, client);
}

static void broken_regions_are_refused(void **state)
{
    (void)state;
    struct region_reply cases[7];
    for (unsigned i = 0; i < 7; i++)
        cases[i] = good_region;
    cases[0].cap.header.next = 32;               // a loop
    cases[1].cap.header.next = 1000;             // outside
    cases[2].info.cap_offset = 8;                // inside the fixed part
    cases[3].cap.nr_areas = 3;                   // more than came
    cases[4].cap.nr_areas = UINT32_MAX;          // many more
    cases[5].areas[0].offset = UINT64_MAX - 100; // outside the region
    cases[6].info.index = 5;                     // another region's
    unsigned before = open_fds();
    for (unsigned i = 0; i < 7; i++) {
        struct fake_server server = {.message = reply_region, .context = &cases[i]};
        OPEN(server, client);
        struct sdc_vfio_region region;
        assert_int_equal(sdc_vfio_client_region(client, 4, &region, &err), -EPROTO);
        assert_non_null(strstr(err.text, "region 4"));
        fake_close(&server, client);
    }
    assert_int_equal(open_fds(), before);
}

// --- mapping them ---

enum { PAGE = 4096, AREA = 0x2000 };

// A memory file in which byte i is i / 4096.
static int new_file(size_t size)
{
    int fd = memfd_create("test", MFD_CLOEXEC);
    for (size_t i = 0; i < size; i += 1024) {
        uint8_t bytes[1024];
        memset(bytes, (int)(i / PAGE), sizeof bytes);
        assert_int_equal(pwrite(fd, bytes, sizeof bytes, (off_t)i), sizeof bytes);
    }
    return fd;
}

static void areas_of_a_region_are_mapped(void **state)
{
    (void)state;
    struct sdc_vfio_area areas[] = {{0x1000, 0x1000}, {AREA, 0x1800}};
    struct sdc_vfio_region region = {
        .index = 4, .writable = true, .mappable = true, .size = 0x4000, .fd = new_file(8 * PAGE), .fd_offset = PAGE,
        .areas = areas, .areas_count = 2};
    struct sdc_vfio_mapping mapping;
    struct sdc_error err = {0};
    assert_int_equal(sdc_vfio_region_map(&region, AREA, 0x1800, &mapping, &err), 0);
    assert_int_equal(mapping.size, 0x1800);
    assert_int_equal(mapping.data[0], 3);
    assert_int_equal(mapping.data[0x17ff], 4);
    mapping.data[1] = 99; // the server sees it
    uint8_t back;
    assert_int_equal(pread(region.fd, &back, 1, 3 * PAGE + 1), 1);
    assert_int_equal(back, 99);
    sdc_vfio_region_unmap(&mapping);
    sdc_vfio_region_unmap(&mapping);
    // A few bytes in the middle.
    assert_int_equal(sdc_vfio_region_map(&region, AREA + 0x1004, 4, &mapping, &err), 0);
    assert_int_equal(mapping.data[0], 4);
    sdc_vfio_region_unmap(&mapping);
    // All of it, when no areas are named.
    region.areas_count = 0;
    assert_int_equal(sdc_vfio_region_map(&region, 0, 0x4000, &mapping, &err), 0);
    assert_int_equal(mapping.data[0], 1);
    assert_int_equal(mapping.data[0x3fff], 4);
    sdc_vfio_region_unmap(&mapping);
    close(region.fd);
}

static void what_cannot_be_mapped_is_refused(void **state)
{
    (void)state;
    struct sdc_vfio_area areas[] = {{0x1000, 0x1000}, {AREA, 0x1000}};
    int file = new_file(4 * PAGE), ends[2];
    assert_int_equal(pipe(ends), 0);
    const struct sdc_vfio_region good = {.mappable = true, .size = 0x4000, .fd = file, .areas = areas, .areas_count = 2};
    static const uint64_t outside[][2] = {
        {0, 1}, {0xfff, 2}, {0x1000, 0x2000}, {AREA, 0x1001}, {0x3000, 1}, {0x4000, 1}, {AREA, 0},
        {UINT64_MAX, 1}, {UINT64_MAX, 2}, {AREA, UINT64_MAX},
    };
    struct sdc_vfio_mapping mapping;
    struct sdc_error err = {0};
    for (unsigned i = 0; i < sizeof outside / sizeof outside[0]; i++)
        assert_int_equal(sdc_vfio_region_map(&good, outside[i][0], outside[i][1], &mapping, &err), -ENOTSUP);
    struct sdc_vfio_region region = good;
    region.mappable = false;
    assert_int_equal(sdc_vfio_region_map(&region, AREA, 1, &mapping, &err), -ENOTSUP);
    region = good, region.fd = -1;
    assert_int_equal(sdc_vfio_region_map(&region, AREA, 1, &mapping, &err), -ENOTSUP);
    region = good, region.fd = ends[0];
    assert_int_equal(sdc_vfio_region_map(&region, AREA, 1, &mapping, &err), -EPROTO);
    region = good, region.fd_offset = PAGE + 1; // ends behind the file
    assert_int_equal(sdc_vfio_region_map(&region, AREA, PAGE, &mapping, &err), -EPROTO);
    region.fd_offset = UINT64_MAX - 100;
    assert_int_equal(sdc_vfio_region_map(&region, AREA, PAGE, &mapping, &err), -EPROTO);
    assert_non_null(strstr(err.text, "has 16384 bytes"));
    assert_null(mapping.data);
    close(file), close(ends[0]), close(ends[1]);
}

// --- eventfds ---

// A server's reply: the entries are 40 or 48 bytes.
struct io_fds_reply {
    struct sdc_vfu_region_io_fds head;
    uint8_t entries[100 * 48];
    size_t stride;
    unsigned fds;
    unsigned asked;
    uint32_t argsz[4]; // of each time
};

static void put_entry(struct io_fds_reply *reply, uint32_t i, const struct sdc_vfu_ioeventfd *entry)
{
    uint8_t *at = reply->entries + i * reply->stride;
    memcpy(at, entry, sizeof *entry);
    if (reply->stride == 48) {
        memset(at + 28, 0xee, 20); // the shadow's place
        memcpy(at + 40, &entry->datamatch, 8);
    }
    reply->head.count = i + 1;
    reply->head.argsz = (uint32_t)(sizeof reply->head + reply->head.count * reply->stride);
}

static bool reply_io_fds(struct fake_server *server, struct fake_message *message)
{
    struct io_fds_reply *reply = server->context;
    struct sdc_vfu_region_io_fds asked;
    int fds[16] = {0};
    memcpy(&asked, message->payload, sizeof asked);
    reply->argsz[reply->asked++ % 4] = asked.argsz;
    size_t size = sizeof reply->head + reply->head.count * reply->stride;
    if (message->size != sizeof asked || asked.flags != 0 || asked.count != 0 || asked.index != 4) {
        fake_reply_error(server, message, EINVAL);
    } else if (asked.argsz < reply->head.argsz) {
        struct sdc_vfu_region_io_fds head = reply->head;
        head.count = 0;
        fake_reply(server, message, &head, sizeof head, fds, reply->fds > 0);
    } else {
        fake_reply(server, message, reply, size, fds, (int)reply->fds);
    }
    return true;
}

static const struct sdc_vfio_region bar = {.index = 4, .size = 0x4000, .fd = -1};

static void eventfds_come_in_entries_of_either_size(void **state)
{
    (void)state;
    static const size_t strides[] = {40, 48};
    unsigned before = open_fds();
    for (unsigned i = 0; i < 2; i++) {
        struct io_fds_reply *reply = calloc(1, sizeof *reply);
        reply->head.index = 4;
        reply->stride = strides[i];
        reply->fds = 3;
        put_entry(reply, 0, &(struct sdc_vfu_ioeventfd){.offset = 0x3000, .size = 2, .fd_index = 1});
        put_entry(reply, 1,
                  &(struct sdc_vfu_ioeventfd){
                      .offset = 0x3004, .fd_index = 2, .flags = SDC_VFU_IOEVENTFD_DATAMATCH, .datamatch = 0x1234567890});
        put_entry(reply, 2, &(struct sdc_vfu_ioeventfd){.offset = 0x3008, .size = 4, .fd_index = 1, .datamatch = 7});
        // Of other kinds: a shadow, an ioregionfd, one that is not known; their fds don't matter.
        for (uint32_t j = 0; j < 3; j++)
            put_entry(reply, 3 + j, &(struct sdc_vfu_ioeventfd){.type = 1 + j * 77, .fd_index = 99});
        struct fake_server server = {.message = reply_io_fds, .context = reply};
        OPEN(server, client);
        struct sdc_vfio_ioeventfds list;
        assert_int_equal(sdc_vfio_client_ioeventfds(client, &bar, &list, &err), 0);
        assert_int_equal(reply->asked, 1);
        assert_int_equal(list.count, 3);
        assert_int_equal(list.fds_count, 3);
        assert_int_equal(list.entries[0].offset, 0x3000);
        assert_int_equal(list.entries[0].size, 2);
        assert_false(list.entries[0].match);
        assert_int_equal(list.entries[0].fd, list.fds[1]);
        assert_true(list.entries[1].match);
        assert_int_equal(list.entries[1].size, 0);
        assert_int_equal(list.entries[1].datamatch, 0x1234567890);
        assert_int_equal(list.entries[1].fd, list.fds[2]);
        assert_false(list.entries[2].match);
        assert_int_equal(list.entries[2].datamatch, 0);
        assert_int_equal(list.entries[2].fd, list.fds[1]);
        sdc_vfio_ioeventfds_release(&list);
        sdc_vfio_ioeventfds_release(&list);
        fake_close(&server, client);
        free(reply);
    }
    assert_int_equal(open_fds(), before);
}

static void more_eventfds_than_fit_are_asked_for_again(void **state)
{
    (void)state;
    struct io_fds_reply *reply = calloc(1, sizeof *reply);
    unsigned before = open_fds();
    reply->head.index = 4;
    reply->stride = 48;
    reply->fds = 1;
    for (uint32_t i = 0; i < 100; i++)
        put_entry(reply, i, &(struct sdc_vfu_ioeventfd){.offset = 4 * i});
    struct fake_server server = {.message = reply_io_fds, .context = reply};
    OPEN(server, client);
    struct sdc_vfio_ioeventfds list;
    assert_int_equal(sdc_vfio_client_ioeventfds(client, &bar, &list, &err), 0);
    assert_int_equal(reply->asked, 2);
    assert_int_equal(reply->argsz[1], 16 + 100 * 48);
    assert_int_equal(list.count, 100);
    assert_int_equal(list.entries[99].offset, 396);
    sdc_vfio_ioeventfds_release(&list);
    fake_close(&server, client);
    assert_int_equal(open_fds(), before);
    free(reply);
}

static void broken_lists_of_eventfds_are_refused_and_leave_nothing(void **state)
{
    (void)state;
    static const struct {
        struct sdc_vfu_ioeventfd entry;
        uint32_t count, index, argsz; // 0: as it is right
        unsigned fds;
        const char *text;
    } cases[] = {
        {{.fd_index = 2}, 0, 0, 0, 2, "fd did not come"},
        {{.fd_index = UINT32_MAX}, 0, 0, 0, 2, "fd did not come"},
        {{.fd_index = 0}, 0, 0, 0, 0, "fd did not come"},
        {{.offset = 0x4000, .size = 1}, 0, 0, 0, 1, "outside the region"},
        {{.offset = 0x3fff, .size = 2}, 0, 0, 0, 1, "outside the region"},
        {{.offset = UINT64_MAX, .size = 2}, 0, 0, 0, 1, "outside the region"},
        {{.offset = 8, .size = UINT64_MAX}, 0, 0, 0, 1, "outside the region"},
        {{.offset = 0}, 2, 0, 56, 1, "another number of entries"},
        {{.offset = 0}, UINT32_MAX, 0, 56, 1, "another number of entries"},
        {{.offset = 0}, 0, 5, 0, 1, "another region"},
        {{.offset = 0}, 0, 0, UINT32_MAX, 1, "more than 1 MiB"},
    };
    unsigned before = open_fds();
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct script script;
        struct sdc_vfu_region_io_fds head = {
            .argsz = cases[i].argsz ? cases[i].argsz : 56,
            .index = cases[i].index ? cases[i].index : 4,
            .count = cases[i].count ? cases[i].count : 1,
        };
        uint8_t payload[56];
        int fds[2] = {0, 0};
        memcpy(payload, &head, sizeof head);
        memcpy(payload + sizeof head, &cases[i].entry, sizeof cases[i].entry);
        script_open(&script, NULL);
        script_reply_fds(&script, SDC_VFU_GET_REGION_IO_FDS, payload, sizeof payload, fds, cases[i].fds);
        struct sdc_vfio_ioeventfds list;
        assert_int_equal(sdc_vfio_client_ioeventfds(script.client, &bar, &list, &script.err), -EPROTO);
        if (!strstr(script.err.text, cases[i].text))
            fail_msg("'%s' is not in '%s'", cases[i].text, script.err.text);
        assert_null(list.entries);
        script_close(&script);
        assert_int_equal(open_fds(), before);
    }
}

// One that always needs more than it was asked for, and one that has none.
static bool want_more(struct fake_server *server, struct fake_message *message)
{
    struct sdc_vfu_region_io_fds head;
    int fd = 0;
    memcpy(&head, message->payload, sizeof head);
    head.argsz++;
    if (server->context)
        fake_reply_error(server, message, ENOTSUP);
    else
        fake_reply(server, message, &head, sizeof head, &fd, 1);
    return true;
}

static void a_server_that_never_has_enough_room_is_given_up(void **state)
{
    (void)state;
    unsigned before = open_fds();
    for (unsigned none = 0; none < 2; none++) {
        struct fake_server server = {.message = want_more, .context = none ? &none : NULL};
        OPEN(server, client);
        struct sdc_vfio_ioeventfds list;
        assert_int_equal(sdc_vfio_client_ioeventfds(client, &bar, &list, &err), none ? -ENOTSUP : -EPROTO);
        assert_int_equal(list.count, 0);
        fake_close(&server, client);
    }
    assert_int_equal(open_fds(), before);
}

// --- features ---

// What was asked: the head and the data behind it.
static void asked_for_feature(struct script *script, uint32_t argsz, uint32_t flags, const void *data, size_t size)
{
    struct sdc_vfu_device_feature head = {.argsz = argsz, .flags = flags};
    struct script_message *message = malloc(sizeof *message);
    assert_true(script_hear(script->fd, message));
    assert_int_equal(message->header.cmd, SDC_VFU_DEVICE_FEATURE);
    assert_int_equal(message->header.msg_size, 16 + sizeof head + size);
    assert_memory_equal(message->payload, &head, sizeof head);
    assert_memory_equal(message->payload + sizeof head, data, size);
    free(message);
}

static void features_are_probed_read_and_set(void **state)
{
    (void)state;
    struct script script;
    struct {
        struct sdc_vfu_device_feature head;
        uint8_t data[24];
    } reply = {{8, 0}, "what it is, in 24 bytes"};
    uint8_t data[32] = "question";
    size_t came = 99;
    script_open(&script, NULL);
    reply.head.flags = SDC_VFU_FEATURE_PROBE | SDC_VFU_FEATURE_GET | SDC_VFU_FEATURE_SET | 2;
    script_reply(&script, SDC_VFU_DEVICE_FEATURE, 0, &reply, 8);
    assert_int_equal(sdc_vfio_client_feature_probe(script.client, 2, SDC_VFIO_FEATURE_GET | SDC_VFIO_FEATURE_SET,
                                                   &script.err),
                     0);
    asked_for_feature(&script, 8, reply.head.flags, NULL, 0);
    script_reply(&script, SDC_VFU_DEVICE_FEATURE, ENOTTY, NULL, 0);
    assert_int_equal(sdc_vfio_client_feature_probe(script.client, 9, 0, &script.err), -ENOTTY);
    assert_non_null(strstr(script.err.text, "feature 9: "));
    assert_non_null(strstr(script.err.text, "refused DEVICE_FEATURE"));
    asked_for_feature(&script, 8, SDC_VFU_FEATURE_PROBE | 9, NULL, 0);
    reply.head.flags = SDC_VFU_FEATURE_GET | 8;
    reply.head.argsz = 32;
    script_reply(&script, SDC_VFU_DEVICE_FEATURE, 0, &reply, sizeof reply);
    assert_int_equal(sdc_vfio_client_feature_get(script.client, 8, data, 8, 24, &came, &script.err), 0);
    assert_int_equal(came, 24);
    assert_memory_equal(data, reply.data, 24);
    asked_for_feature(&script, 32, reply.head.flags, "question", 8);
    reply.head.flags = SDC_VFU_FEATURE_SET | UINT16_MAX;
    script_reply(&script, SDC_VFU_DEVICE_FEATURE, 0, &reply, sizeof reply);
    assert_int_equal(sdc_vfio_client_feature_set(script.client, UINT16_MAX, "answer", 6, &script.err), 0);
    asked_for_feature(&script, 14, reply.head.flags, "answer", 6);
    script_close(&script);
}

static void broken_features_are_refused(void **state)
{
    (void)state;
    struct script script;
    struct {
        struct sdc_vfu_device_feature head;
        uint8_t data[24];
    } reply = {{8, SDC_VFU_FEATURE_GET | 8}, "24 bytes"};
    uint8_t data[24];
    size_t came;
    script_open(&script, NULL);
    // Too short, more than there is room for, more announced than there is room for, another feature's.
    script_reply(&script, SDC_VFU_DEVICE_FEATURE, 0, &reply, 7);
    assert_int_equal(sdc_vfio_client_feature_get(script.client, 8, data, 0, 24, &came, &script.err), -EPROTO);
    script_reply(&script, SDC_VFU_DEVICE_FEATURE, 0, &reply, sizeof reply);
    assert_int_equal(sdc_vfio_client_feature_get(script.client, 8, data, 0, 23, &came, &script.err), -EMSGSIZE);
    reply.head.argsz = 33;
    script_reply(&script, SDC_VFU_DEVICE_FEATURE, 0, &reply, 8);
    assert_int_equal(sdc_vfio_client_feature_get(script.client, 8, data, 0, 24, &came, &script.err), -EMSGSIZE);
    script_reply(&script, SDC_VFU_DEVICE_FEATURE, 0, &reply, sizeof reply);
    assert_int_equal(sdc_vfio_client_feature_get(script.client, 7, data, 0, 24, &came, &script.err), -EPROTO);
    assert_int_equal(sdc_vfio_client_feature_get(script.client, 7, data, 0, SIZE_MAX, &came, &script.err), -E2BIG);
    assert_int_equal(sdc_vfio_client_feature_set(script.client, 7, data, 4097, &script.err), -E2BIG);
    script_close(&script);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_region_comes_with_its_areas_and_fd),
        cmocka_unit_test(broken_regions_are_refused),
        cmocka_unit_test(areas_of_a_region_are_mapped),
        cmocka_unit_test(what_cannot_be_mapped_is_refused),
        cmocka_unit_test(eventfds_come_in_entries_of_either_size),
        cmocka_unit_test(more_eventfds_than_fit_are_asked_for_again),
        cmocka_unit_test(broken_lists_of_eventfds_are_refused_and_leave_nothing),
        cmocka_unit_test(a_server_that_never_has_enough_room_is_given_up),
        cmocka_unit_test(features_are_probed_read_and_set),
        cmocka_unit_test(broken_features_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
