// SPDX-License-Identifier: BSD-3-Clause
// The client of vhost-user before a back end that asks for translations.
#include "vhost_client_fixture.h"

#define BEHIND (FEATURES | SDC_VIRTIO_F_ACCESS_PLATFORM)

static void miss(struct backend *backend, uint64_t iova, uint8_t access)
{
    struct sdc_vhost_iotlb iotlb = {.iova = iova, .permissions = access, .type = SDC_VHOST_IOTLB_MISS};
    struct message message = {
        .header = {.request = SDC_VHOST_BACKEND_IOTLB_MSG, .flags = SDC_VHOST_VERSION | SDC_VHOST_NEED_REPLY, .size = sizeof iotlb}};

    memcpy(message.payload, &iotlb, sizeof iotlb);
    send_bytes(backend->channel, &message, sizeof message.header + sizeof iotlb, NULL, 0);
}

// What the channel's answer says.
static uint64_t answered(struct backend *backend)
{
    struct message reply;
    uint64_t result;

    assert_true(receive_all(backend->channel, &reply, sizeof reply.header + sizeof result, &reply));
    assert_int_equal(reply.header.request, SDC_VHOST_BACKEND_IOTLB_MSG);
    assert_int_equal(reply.header.flags, SDC_VHOST_VERSION | SDC_VHOST_REPLY);
    memcpy(&result, reply.payload, sizeof result);
    return result;
}

static struct sdc_vhost_iotlb last_told(const struct backend *backend)
{
    const struct message *told = find(backend, SDC_VHOST_IOTLB_MSG);
    struct sdc_vhost_iotlb iotlb;

    assert_non_null(told);
    assert_true(told->header.flags & SDC_VHOST_NEED_REPLY);
    memcpy(&iotlb, told->payload, sizeof iotlb);
    return iotlb;
}

static struct sdc_vhost_client *open_behind(struct backend *backend)
{
    static const struct sdc_vhost_client_entry entries[] = {
        {0x10000, 0x700000, 0x3000, 3}, {0x2000, 0x900000, 0x1000, 1}, {0x20000, 0x703000, 0x1000, 2}};

    backend->features = BEHIND;
    struct sdc_vhost_client *client = open_good(backend);
    assert_int_equal(sdc_vhost_client_set_features(client, SDC_VIRTIO_F_VERSION_1 | SDC_VIRTIO_F_ACCESS_PLATFORM, NULL), 0);
    for (unsigned i = 0; i < SDC_COUNT(entries); i++)
        assert_int_equal(sdc_vhost_client_translate(client, &entries[i], NULL), 0);
    return client;
}

static void a_miss_is_answered_with_the_page_that_it_is_in(void **state)
{
    static const struct {
        uint64_t iova;
        uint8_t access;
        uint64_t page, user; // 0: it is denied
    } cases[] = {
        {0x10000, 1, 0x10000, 0x700000}, {0x11fff, 2, 0x11000, 0x701000}, {0x12000, 3, 0x12000, 0x702000},
        {0x13000, 1, 0, 0},              {0xffff, 1, 0, 0},               {0x2abc, 1, 0x2000, 0x900000},
        {0x2abc, 2, 0, 0},               {0x20000, 1, 0, 0},              {0x20fff, 2, 0x20000, 0x703000},
        {0x10000, 0, 0, 0},              {UINT64_MAX, 1, 0, 0},           {0, 1, 0, 0},
    };
    struct backend backend = {.protocol = ALL_PROTOCOL};

    (void)state;
    struct sdc_vhost_client *client = open_behind(&backend);
    for (unsigned i = 0; i < SDC_COUNT(cases); i++) {
        unsigned seen = backend.seen_count;
        miss(&backend, cases[i].iova, cases[i].access);
        assert_int_equal(sdc_vhost_client_process(client, NULL), 0);
        assert_int_equal(answered(&backend) == 0, cases[i].user != 0);
        assert_int_equal(backend.seen_count - seen, cases[i].user != 0);
        if (cases[i].user == 0)
            continue;
        struct sdc_vhost_iotlb told = last_told(&backend);
        assert_int_equal(told.type, SDC_VHOST_IOTLB_UPDATE);
        assert_int_equal(told.iova, cases[i].page);
        assert_int_equal(told.user_address, cases[i].user);
        assert_int_equal(told.size, 0x1000);
        assert_int_equal(told.permissions & cases[i].access, cases[i].access);
    }
    end(&backend, client);
}

static void entries_are_checked_and_taken_back(void **state)
{
    static const struct {
        struct sdc_vhost_client_entry entry;
        int ret;
    } cases[] = {
        {{0x30000, 0x1000, 0, 3}, -EINVAL},      {{0x30800, 0x1000, 0x1000, 3}, -EINVAL}, {{0x30000, 0x1000, 0x800, 3}, -EINVAL},
        {{0x30000, 0x1000, 0x1000, 0}, -EINVAL}, {{0x30000, 0x1000, 0x1000, 4}, -EINVAL}, {{0x11000, 0x1000, 0x1000, 3}, -EEXIST},
        {{0xf000, 0x1000, 0x2000, 3}, -EEXIST},  {{0, 0x1000, 0x100000, 3}, -EEXIST},     {{0xf000, 0x1000, 0x1000, 3}, 0},
        {{UINT64_C(0) - 0x1000, 0x1000, 0x1000, 3}, -EINVAL},
    };
    struct backend backend = {.protocol = ALL_PROTOCOL};

    (void)state;
    struct sdc_vhost_client *client = open_behind(&backend);
    for (unsigned i = 0; i < SDC_COUNT(cases); i++)
        assert_int_equal(sdc_vhost_client_translate(client, &cases[i].entry, NULL), cases[i].ret);
    assert_int_equal(sdc_vhost_client_untranslate(client, 0x10000, 0x1000, NULL), -ENOENT);
    assert_null(find(&backend, SDC_VHOST_IOTLB_MSG));
    assert_int_equal(sdc_vhost_client_untranslate(client, 0x10000, 0x3000, NULL), 0);
    struct sdc_vhost_iotlb told = last_told(&backend);
    assert_int_equal(told.type, SDC_VHOST_IOTLB_INVALIDATE);
    assert_int_equal(told.iova, 0x10000);
    assert_int_equal(told.size, 0x3000);
    miss(&backend, 0x10000, 1);
    assert_int_equal(sdc_vhost_client_process(client, NULL), 0);
    assert_true(answered(&backend) != 0);
    end(&backend, client);
}

// Asks before it answers.
static bool miss_first(struct backend *backend, struct message *message)
{
    if (message->header.request != SDC_VHOST_GET_STATUS)
        return true;
    miss(backend, 0x10000, 1);
    backend->calls++;
    return true;
}

// Replies come in the order of the requests: the update is a request of its own, and comes behind.
static void a_miss_waits_for_the_reply_that_is_due(void **state)
{
    struct backend backend = {.protocol = ALL_PROTOCOL, .instead = miss_first};
    uint8_t status;

    (void)state;
    struct sdc_vhost_client *client = open_behind(&backend);
    for (unsigned i = 1; i <= 5; i++) {
        assert_int_equal(sdc_vhost_client_get_status(client, &status, NULL), 0);
        assert_int_equal(status, 11);
        assert_int_equal(sdc_vhost_client_process(client, NULL), 0); // it may have come right behind
        assert_int_equal(backend.calls, i);
        assert_int_equal(answered(&backend), 0);
    }
    end(&backend, client);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_miss_is_answered_with_the_page_that_it_is_in),
        cmocka_unit_test(entries_are_checked_and_taken_back),
        cmocka_unit_test(a_miss_waits_for_the_reply_that_is_due),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
