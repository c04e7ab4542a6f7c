// SPDX-License-Identifier: BSD-3-Clause
// The vhost-user front end against a back end of the test's own: what it sends, and what it does with answers that are wrong.
#include "vhost_client_fixture.h"

// --- agreeing ---

static void an_old_back_end_is_asked_for_features_only(void **state)
{
    struct backend backend = {.features = UINT64_C(1) << 32};

    (void)state;
    struct sdc_vhost_client *client = open_good(&backend);
    assert_int_equal(sdc_vhost_client_session(client)->protocol_features, 0);
    assert_int_equal(sdc_vhost_client_session(client)->queues_max, 1);
    assert_int_equal(sdc_vhost_client_set_features(client, UINT64_C(1) << 32, NULL), 0);
    assert_int_equal(sdc_vhost_client_get_config(client, 0, &(uint8_t){0}, 1, NULL), -ENOTSUP);
    assert_int_equal(sdc_vhost_client_reset(client, NULL), -ENOTSUP);
    end(&backend, client);
    assert_int_equal(backend.seen_count, 3);
    assert_int_equal(backend.seen[1].header.request, SDC_VHOST_SET_OWNER);
    assert_int_equal(backend.seen[1].header.flags, SDC_VHOST_VERSION); // no answer is asked for
    assert_int_equal(*(uint64_t *)(void *)backend.seen[2].payload, UINT64_C(1) << 32);
}

static void all_that_both_can_is_agreed_on(void **state)
{
    struct backend backend = {.protocol = UINT64_MAX};

    (void)state;
    struct sdc_vhost_client *client = open_good(&backend);
    const struct sdc_vhost_client_session *session = sdc_vhost_client_session(client);
    assert_int_equal(session->protocol_features, ALL_PROTOCOL);
    assert_int_equal(session->queues_max, 4);
    assert_int_equal(session->mem_slots, 3);
    assert_int_equal(sdc_vhost_client_set_features(client, UINT64_C(1) << 32, NULL), 0);
    end(&backend, client);
    assert_int_equal(find(&backend, SDC_VHOST_SET_PROTOCOL_FEATURES)->header.flags, SDC_VHOST_VERSION);
    const struct message *set = find(&backend, SDC_VHOST_SET_FEATURES);
    assert_int_equal(*(const uint64_t *)(const void *)set->payload, UINT64_C(1) << 32 | SDC_VHOST_F_PROTOCOL_FEATURES);
    assert_int_equal(set->header.flags, SDC_VHOST_VERSION | SDC_VHOST_NEED_REPLY);
}

static void protocol_features_can_be_left_alone(void **state)
{
    struct backend backend = {.protocol = UINT64_MAX};
    struct sdc_vhost_client_options options = {.without_protocol_features = SDC_VHOST_PROTOCOL_F_REPLY_ACK | SDC_VHOST_PROTOCOL_F_MQ};
    struct sdc_vhost_client *client;

    (void)state;
    assert_int_equal(open_with(&backend, &options, &client), 0);
    assert_int_equal(sdc_vhost_client_session(client)->protocol_features,
                     ALL_PROTOCOL & ~options.without_protocol_features);
    end(&backend, client);
    assert_null(find(&backend, SDC_VHOST_GET_QUEUE_NUM));
}

// --- what is sent ---

static void a_vring_is_shown_and_stopped(void **state)
{
    struct backend backend = {.protocol = ALL_PROTOCOL};
    int kick = sdc_eventfd_new();
    uint32_t base = 0;

    (void)state;
    struct sdc_vhost_client *client = open_good(&backend);
    struct sdc_vhost_client_vring vring = {
        .index = 2, .size = 64, .desc = 0x1000, .driver = 0x2000, .device = 0x3000, .base = 9, .kick_fd = kick, .call_fd = -1};
    assert_int_equal(sdc_vhost_client_vring_start(client, &vring, NULL), 0);
    assert_int_equal(sdc_vhost_client_vring_stop(client, 2, &base, NULL), 0);
    assert_int_equal(base, 77);
    vring.index = 256;
    assert_int_equal(sdc_vhost_client_vring_start(client, &vring, NULL), -EINVAL);
    end(&backend, client);

    const struct sdc_vhost_vring_addr *addr = (const void *)find(&backend, SDC_VHOST_SET_VRING_ADDR)->payload;
    assert_int_equal(addr->index, 2);
    assert_int_equal(addr->descriptor, 0x1000);
    assert_int_equal(addr->available, 0x2000);
    assert_int_equal(addr->used, 0x3000);
    const struct message *call = find(&backend, SDC_VHOST_SET_VRING_CALL), *kicked = find(&backend, SDC_VHOST_SET_VRING_KICK);
    assert_int_equal(call->fds_count, 0);
    assert_int_equal(*(const uint64_t *)(const void *)call->payload, 2 | SDC_VHOST_VRING_NO_FD);
    assert_int_equal(kicked->fds_count, 1);
    assert_int_equal(*(const uint64_t *)(const void *)kicked->payload, 2);
    assert_int_equal(((const struct sdc_vhost_vring_state *)(const void *)find(&backend, SDC_VHOST_SET_VRING_BASE)->payload)->num, 9);
    sdc_fd_close(&kick);
}

static void memory_goes_as_a_table_or_by_slots(void **state)
{
    static const uint64_t protocols[] = {SDC_VHOST_PROTOCOL_F_REPLY_ACK, ALL_PROTOCOL};

    (void)state;
    for (unsigned slots = 0; slots < 2; slots++) {
        struct backend backend = {.protocol = protocols[slots]};
        struct sdc_vhost_client *client = open_good(&backend);
        int fd = sdc_memfd_new("test", 0x10000);
        struct sdc_vhost_client_region region = {.guest_address = 0x10000, .user_address = 0x7000, .size = 0x4000,
                                                 .offset = 0x1000, .fd = fd};
        assert_int_equal(sdc_vhost_client_map(client, &region, NULL), 0);
        assert_int_equal(sdc_vhost_client_map(client, &region, NULL), -EEXIST);
        region.guest_address = 0x13fff;
        assert_int_equal(sdc_vhost_client_map(client, &region, NULL), -EEXIST);
        region.guest_address = UINT64_MAX - 5;
        assert_int_equal(sdc_vhost_client_map(client, &region, NULL), -EINVAL);
        region.guest_address = 0x20000;
        assert_int_equal(sdc_vhost_client_map(client, &region, NULL), 0);
        assert_int_equal(sdc_vhost_client_unmap(client, 0x10000, 0x3000, NULL), -ENOENT);
        assert_int_equal(sdc_vhost_client_unmap(client, 0x10000, 0x4000, NULL), 0);
        for (unsigned i = 0; i < (slots ? 2 : 7); i++) {
            region.guest_address = 0x100000 + 0x10000 * i;
            assert_int_equal(sdc_vhost_client_map(client, &region, NULL), 0);
        }
        region.guest_address = 0x40000000;
        assert_int_equal(sdc_vhost_client_map(client, &region, NULL), -ENOSPC);
        end(&backend, client);
        sdc_fd_close(&fd);

        const struct message *last = find(&backend, slots ? SDC_VHOST_ADD_MEM_REG : SDC_VHOST_SET_MEM_TABLE);
        assert_int_equal(last->fds_count, slots ? 1 : 8);
        assert_int_equal(last->header.size, slots ? 40 : 8 + 8 * 32);
        const struct message *removed = find(&backend, SDC_VHOST_REM_MEM_REG);
        assert_int_equal(removed != NULL, slots);
        if (removed)
            assert_int_equal(((const struct sdc_vhost_mem_reg *)(const void *)removed->payload)->region.guest_address, 0x10000);
    }
}

static void the_configuration_is_asked_for_from_its_start(void **state)
{
    struct backend backend = {.protocol = ALL_PROTOCOL};
    uint8_t data[4];

    (void)state;
    struct sdc_vhost_client *client = open_good(&backend);
    assert_int_equal(sdc_vhost_client_get_config(client, 20, data, 4, NULL), 0);
    assert_int_equal(data[0], 12 + 20); // the fake one's bytes count from its message's start
    assert_int_equal(sdc_vhost_client_get_config(client, 250, data, 7, NULL), -ERANGE);
    assert_int_equal(sdc_vhost_client_set_config(client, 32, "\1", 1, NULL), 0);
    end(&backend, client);
    assert_int_equal(find(&backend, SDC_VHOST_GET_CONFIG)->header.size, 12 + 24);
    const struct sdc_vhost_config *set = (const void *)find(&backend, SDC_VHOST_SET_CONFIG)->payload;
    assert_int_equal(set->offset, 32);
    assert_int_equal(set->size, 1);
}

// --- the back end's channel ---

static void a_change_of_the_configuration_is_told(void **state)
{
    struct backend backend = {.protocol = ALL_PROTOCOL};
    struct message change = {.header = {.request = SDC_VHOST_BACKEND_CONFIG_CHANGE_MSG, .flags = SDC_VHOST_VERSION | SDC_VHOST_NEED_REPLY}};
    struct message strange = {.header = {.request = 77, .flags = SDC_VHOST_VERSION | SDC_VHOST_NEED_REPLY, .size = 8}};
    struct message reply;
    int told = sdc_eventfd_new();
    uint8_t status;

    (void)state;
    struct sdc_vhost_client *client = open_good(&backend);
    sdc_vhost_client_set_config_call(client, told);
    assert_int_equal(sdc_vhost_client_process(client, NULL), 0);
    assert_int_equal(sdc_eventfd_take(told), 0);
    send_bytes(backend.channel, &change, sizeof change.header, NULL, 0);
    send_bytes(backend.channel, &strange, sizeof strange.header + 8, NULL, 0);
    assert_int_equal(sdc_vhost_client_process(client, NULL), 0);
    assert_int_equal(sdc_eventfd_take(told), 1);
    for (unsigned i = 0; i < 2; i++) { // done, and no such request
        assert_true(receive_all(backend.channel, &reply, sizeof reply.header + 8, &reply));
        assert_int_equal(reply.header.flags, SDC_VHOST_VERSION | SDC_VHOST_REPLY);
        uint64_t answer;
        memcpy(&answer, reply.payload, sizeof answer); // it lies at a multiple of four
        assert_int_equal(answer == 0, i == 0);
    }
    sdc_fd_close(&backend.channel); // the channel's end is not the connection's
    assert_int_equal(sdc_vhost_client_process(client, NULL), 0);
    assert_int_equal(sdc_vhost_client_get_status(client, &status, NULL), 0);
    end(&backend, client);
    sdc_fd_close(&told);
}

// So that one who sends them without end keeps nobody.
static void many_changes_of_the_configuration_are_taken_in_parts(void **state)
{
    enum { CHANGES = 200 };
    struct backend backend = {.protocol = ALL_PROTOCOL};
    struct sdc_vhost_header change = {.request = SDC_VHOST_BACKEND_CONFIG_CHANGE_MSG, .flags = SDC_VHOST_VERSION};
    int told = sdc_eventfd_new();

    (void)state;
    struct sdc_vhost_client *client = open_good(&backend);
    sdc_vhost_client_set_config_call(client, told);
    for (unsigned i = 0; i < CHANGES; i++)
        send_bytes(backend.channel, &change, sizeof change, NULL, 0);
    assert_int_equal(sdc_vhost_client_process(client, NULL), 0);
    uint64_t taken = sdc_eventfd_take(told);
    assert_in_range(taken, 1, CHANGES - 1);
    for (unsigned i = 0; i < CHANGES && taken < CHANGES; i++) {
        assert_int_equal(sdc_vhost_client_process(client, NULL), 0);
        taken += sdc_eventfd_take(told);
    }
    assert_int_equal(taken, CHANGES);
    end(&backend, client);
    sdc_fd_close(&told);
}

// --- wrong answers ---

static bool refuse(struct backend *backend, struct message *message)
{
    if (message->header.request != SDC_VHOST_SET_FEATURES)
        return true;
    answer_u64(backend, message, 1);
    return false;
}

static void what_is_refused_is_an_error_and_no_more(void **state)
{
    struct backend backend = {.protocol = ALL_PROTOCOL, .instead = refuse};
    struct sdc_error err = {0};
    uint8_t status;

    (void)state;
    struct sdc_vhost_client *client = open_good(&backend);
    assert_int_equal(sdc_vhost_client_set_features(client, 0, &err), -EIO);
    assert_non_null(strstr(err.text, "SET_FEATURES"));
    assert_int_equal(sdc_vhost_client_get_status(client, &status, NULL), 0);
    assert_int_equal(status, 11);
    end(&backend, client);
}

static bool other_request(struct backend *backend, struct message *message)
{
    uint64_t value = 0;

    if (message->header.request == SDC_VHOST_GET_STATUS)
        answer(backend, SDC_VHOST_GET_FEATURES, &value, 8, NULL, 0);
    return message->header.request != SDC_VHOST_GET_STATUS;
}

static bool no_reply_flag(struct backend *backend, struct message *message)
{
    struct message bad = {.header = {.request = SDC_VHOST_GET_STATUS, .flags = SDC_VHOST_VERSION, .size = 8}};

    if (message->header.request == SDC_VHOST_GET_STATUS)
        send_bytes(backend->fd, &bad, sizeof bad.header + 8, NULL, 0);
    return message->header.request != SDC_VHOST_GET_STATUS;
}

static bool huge(struct backend *backend, struct message *message)
{
    struct message bad = {.header = {.request = SDC_VHOST_GET_STATUS, .flags = 5, .size = UINT32_MAX}};

    if (message->header.request == SDC_VHOST_GET_STATUS)
        send_bytes(backend->fd, &bad, sizeof bad.header + 8, NULL, 0);
    return message->header.request != SDC_VHOST_GET_STATUS;
}

static bool many_fds(struct backend *backend, struct message *message)
{
    int fds[9] = {0, 0, 0, 0, 0, 0, 0, 0, 0};
    uint64_t value[3] = {SDC_VHOST_GET_STATUS | UINT64_C(5) << 32, 8, 0};

    if (message->header.request == SDC_VHOST_GET_STATUS)
        send_bytes(backend->fd, value, 20, fds, 9);
    return message->header.request != SDC_VHOST_GET_STATUS;
}

static bool goes(struct backend *backend, struct message *message)
{
    uint32_t half[2] = {SDC_VHOST_GET_STATUS, 5};

    if (message->header.request == SDC_VHOST_GET_STATUS) {
        send_bytes(backend->fd, half, sizeof half, NULL, 0);
        shutdown(backend->fd, SHUT_RDWR);
    }
    return message->header.request != SDC_VHOST_GET_STATUS;
}

static bool silent(struct backend *backend, struct message *message)
{
    (void)backend;
    return message->header.request != SDC_VHOST_GET_STATUS;
}

static void a_broken_answer_ends_the_connection(void **state)
{
    static const struct {
        bool (*instead)(struct backend *backend, struct message *message);
        int code;
    } cases[] = {{other_request, -EPROTO}, {no_reply_flag, -EPROTO}, {huge, -EPROTO},
                 {many_fds, -EPROTO},      {goes, -ECONNRESET},      {silent, -ETIMEDOUT}};

    (void)state;
    for (size_t i = 0; i < SDC_COUNT(cases); i++) {
        struct backend backend = {.protocol = ALL_PROTOCOL, .instead = cases[i].instead};
        struct sdc_vhost_client *client = open_in_time(&backend, cases[i].code == -ETIMEDOUT ? SHORT_MS : TIMEOUT_MS);
        struct sdc_error err = {0}, again = {0};
        uint8_t status;
        assert_int_equal(sdc_vhost_client_get_status(client, &status, &err), cases[i].code);
        assert_int_equal(sdc_vhost_client_set_features(client, 0, &again), cases[i].code);
        assert_string_equal(err.text, again.text);
        assert_int_equal(sdc_vhost_client_process(client, NULL), cases[i].code);
        end(&backend, client);
    }
}

static bool short_answer(struct backend *backend, struct message *message)
{
    uint32_t request = message->header.request;

    if (request == SDC_VHOST_GET_CONFIG) // the specification's word for an error
        answer(backend, request, NULL, 0, NULL, 0);
    else if (request == SDC_VHOST_GET_INFLIGHT_FD) // no fd
        answer(backend, request, message->payload, sizeof(struct sdc_vhost_inflight), NULL, 0);
    else if (request == SDC_VHOST_GET_VRING_BASE)
        answer(backend, request, message->payload, 4, NULL, 0);
    else
        return true;
    return false;
}

static void answers_of_another_size_are_errors(void **state)
{
    struct backend backend = {.protocol = ALL_PROTOCOL, .instead = short_answer};
    struct sdc_vhost_client_inflight inflight;
    uint8_t byte;

    (void)state;
    struct sdc_vhost_client *client = open_good(&backend);
    assert_int_equal(sdc_vhost_client_get_config(client, 0, &byte, 1, NULL), -ERANGE);
    assert_int_equal(sdc_vhost_client_get_inflight(client, 1, 64, &inflight, NULL), -EPROTO);
    assert_int_equal(sdc_vhost_client_vring_stop(client, 0, NULL, NULL), -EPROTO);
    end(&backend, client);
}

static bool ends_at_once(struct backend *backend, struct message *message)
{
    (void)message;
    shutdown(backend->fd, SHUT_RDWR);
    return false;
}

static void a_back_end_that_hangs_up_at_once_is_an_error(void **state)
{
    struct backend backend = {.protocol = ALL_PROTOCOL, .instead = ends_at_once};
    struct sdc_vhost_client *client;

    (void)state;
    assert_int_equal(open_with(&backend, NULL, &client), -ECONNRESET);
    assert_null(client);
    end(&backend, client);
}

// --- finding a back end again ---

struct place {
    char path[64];
    struct sdc_socket_place mine;
    int fd;
};

static void listen_at(struct place *place)
{
    struct sdc_listen_options options = {.mode = -1, .owner = (uid_t)-1, .group = (gid_t)-1};
    struct sdc_error err = {0};

    place->fd = sdc_socket_listen(place->path, &options, &place->mine, &err);
    assert_true(place->fd >= 0);
}

static void *accept_and_run(void *context)
{
    struct backend *backend = context;
    int listening = backend->fd;

    assert_true(sdc_wait_fd(listening, SDC_WAIT_INPUT, -1) > 0);
    backend->fd = sdc_socket_accept(listening);
    return run(backend);
}

static void expect_client(struct backend *backend, const struct place *place)
{
    backend->channel = -1;
    backend->features = backend->features ? backend->features : FEATURES;
    backend->fd = place->fd;
    assert_int_equal(pthread_create(&backend->thread, NULL, accept_and_run, backend), 0);
}

static void leave(struct backend *backend)
{
    shutdown(backend->fd, SHUT_RDWR);
    pthread_join(backend->thread, NULL);
    sdc_fd_close(&backend->fd);
    sdc_fd_close(&backend->channel);
}

static void a_new_back_end_is_told_what_the_old_one_was(void **state)
{
    struct backend first = {.protocol = ALL_PROTOCOL}, second = {.protocol = ALL_PROTOCOL};
    struct backend poor = {.protocol = ALL_PROTOCOL & ~SDC_VHOST_PROTOCOL_F_CONFIG};
    struct sdc_vhost_client_options options = {.timeout_ms = TIMEOUT_MS};
    struct sdc_vhost_client *client;
    struct place place;
    int fd = sdc_memfd_new("test", 0x10000);
    struct sdc_vhost_client_region region = {.guest_address = 0x10000, .user_address = 0x7000, .size = 0x4000, .fd = fd};

    (void)state;
    snprintf(place.path, sizeof place.path, "/tmp/sidecard-test-vhost-%d.sock", (int)getpid());
    listen_at(&place);
    expect_client(&first, &place);
    assert_int_equal(sdc_vhost_client_open(place.path, &options, &client, NULL), 0);
    assert_int_equal(sdc_vhost_client_set_features(client, UINT64_C(1) << 32, NULL), 0);
    assert_int_equal(sdc_vhost_client_map(client, &region, NULL), 0);
    leave(&first);
    assert_int_equal(sdc_vhost_client_process(client, NULL), -ECONNRESET);

    expect_client(&poor, &place);
    assert_int_equal(sdc_vhost_client_reconnect(client, 100, NULL), -ENOTSUP);
    leave(&poor);
    expect_client(&second, &place);
    assert_int_equal(sdc_vhost_client_reconnect(client, 100, NULL), 0);
    assert_int_equal(sdc_vhost_client_process(client, NULL), 0);
    leave(&second);
    sdc_socket_unlisten(place.path, &place.mine);
    sdc_fd_close(&place.fd);
    assert_int_equal(sdc_vhost_client_reconnect(client, 20, NULL), -ENOENT);
    sdc_vhost_client_close(client);
    sdc_fd_close(&fd);

    const uint64_t *features = (const void *)find(&second, SDC_VHOST_SET_FEATURES)->payload;
    assert_int_equal(*features, UINT64_C(1) << 32 | SDC_VHOST_F_PROTOCOL_FEATURES);
    const struct sdc_vhost_mem_reg *shown = (const void *)find(&second, SDC_VHOST_ADD_MEM_REG)->payload;
    assert_int_equal(shown->region.guest_address, 0x10000);
    assert_int_equal(find(&second, SDC_VHOST_ADD_MEM_REG)->fds_count, 1);
    assert_non_null(find(&second, SDC_VHOST_SET_BACKEND_REQ_FD));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_old_back_end_is_asked_for_features_only),
        cmocka_unit_test(all_that_both_can_is_agreed_on),
        cmocka_unit_test(protocol_features_can_be_left_alone),
        cmocka_unit_test(a_vring_is_shown_and_stopped),
        cmocka_unit_test(memory_goes_as_a_table_or_by_slots),
        cmocka_unit_test(the_configuration_is_asked_for_from_its_start),
        cmocka_unit_test(a_change_of_the_configuration_is_told),
        cmocka_unit_test(many_changes_of_the_configuration_are_taken_in_parts),
        cmocka_unit_test(what_is_refused_is_an_error_and_no_more),
        cmocka_unit_test(a_broken_answer_ends_the_connection),
        cmocka_unit_test(answers_of_another_size_are_errors),
        cmocka_unit_test(a_back_end_that_hangs_up_at_once_is_an_error),
        cmocka_unit_test(a_new_back_end_is_told_what_the_old_one_was),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
