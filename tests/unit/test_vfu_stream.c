// SPDX-License-Identifier: BSD-3-Clause
// The byte stream of a session: messages in any pieces, and which message fds belong to.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "os/fd.h"
#include "os/memfd.h"
#include "transport/vfio_user/session.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILES = 32 };

// A stream, the client's end of its socket, and files to send whose number can be told.
struct pair {
    struct vfu_stream stream;
    int client;
    int files[FILES];
    int first_free; // the number of the next fd before anything was sent
};

static int next_fd(void)
{
    int fd = dup(STDERR_FILENO);

    close(fd);
    return fd;
}

static void open_pair(struct pair *pair)
{
    int ends[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    assert_int_equal(vfu_stream_init(&pair->stream, ends[0]), 0);
    pair->client = ends[1];
    for (unsigned i = 0; i < FILES; i++) {
        pair->files[i] = sdc_memfd_new("file", 4096 * (i + 1));
        assert_true(pair->files[i] >= 0);
    }
    pair->first_free = next_fd();
}

// Nothing that was sent is left open.
static void close_pair(struct pair *pair)
{
    vfu_stream_close(&pair->stream);
    for (unsigned i = 0; i < FILES; i++)
        sdc_fd_close(&pair->files[i]);
    sdc_fd_close(&pair->client);
}

static unsigned number_of(int fd)
{
    struct stat st;

    assert_int_equal(fstat(fd, &st), 0);
    return (unsigned)(st.st_size / 4096 - 1);
}

static void put_header(uint8_t *at, uint16_t id, uint32_t size)
{
    struct sdc_vfu_header header = {.msg_id = id, .cmd = SDC_VFU_RESET, .msg_size = size};

    memcpy(at, &header, sizeof header);
}

// Sends bytes with count files, those from `first` on.
static void send_piece(struct pair *pair, const uint8_t *bytes, size_t size, unsigned first, unsigned count)
{
    struct iovec iov = {(void *)(uintptr_t)bytes, size};

    if (size > 0)
        assert_int_equal(sdc_socket_send(pair->client, &iov, 1, &pair->files[first], count), size);
}

static void receive_all(struct pair *pair)
{
    int rc;

    while ((rc = vfu_stream_receive(&pair->stream)) > 0)
        ;
    assert_int_equal(rc, -EAGAIN);
}

// The message at the stream's head has this id and exactly these files, and goes.
static void expect_message(struct pair *pair, uint16_t id, unsigned first, unsigned count)
{
    struct sdc_vfu_header header;

    assert_int_equal(vfu_stream_message(&pair->stream, &header), 1);
    assert_int_equal(header.msg_id, id);
    struct vfu_arrival *arrival = vfu_stream_arrival(&pair->stream);
    assert_int_equal(arrival->count, count);
    assert_false(arrival->lost);
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(number_of(arrival->fds[i]), first + i);
    vfu_stream_consume(&pair->stream, header.msg_size);
}

enum { A_SIZE = 24, B_SIZE = 40, C_SIZE = 16, TOTAL = A_SIZE + B_SIZE + C_SIZE };

static void fill(uint8_t bytes[TOTAL])
{
    memset(bytes, 0xee, TOTAL);
    put_header(bytes, 1, A_SIZE);
    put_header(bytes + A_SIZE, 2, B_SIZE);
    put_header(bytes + A_SIZE + B_SIZE, 3, C_SIZE);
}

// Sends the three messages, cut at `cut` too, and receives after each piece, or only at the end.
static void send_cut(struct pair *pair, const uint8_t bytes[TOTAL], size_t cut, bool receive_each)
{
    size_t ends[] = {A_SIZE, A_SIZE + B_SIZE, TOTAL};
    size_t at = 0;

    for (unsigned message = 0; message < 3; message++) {
        unsigned count = message == 2 ? 0 : message + 1; // A has file 0, B has files 1 and 2, C has none
        while (at < ends[message]) {
            size_t end = cut > at && cut < ends[message] ? cut : ends[message];
            bool begins = at == (message ? ends[message - 1] : 0);
            send_piece(pair, bytes + at, end - at, message, begins ? count : 0);
            at = end;
            if (receive_each)
                receive_all(pair);
        }
    }
    receive_all(pair);
}

static void fds_find_their_message_wherever_it_is_cut(void **state)
{
    uint8_t bytes[TOTAL];

    (void)state;
    fill(bytes);
    for (unsigned each = 0; each < 2; each++) {
        for (size_t cut = 0; cut < TOTAL; cut++) {
            struct pair pair;
            open_pair(&pair);
            send_cut(&pair, bytes, cut, each);
            expect_message(&pair, 1, 0, 1);
            expect_message(&pair, 2, 1, 2);
            expect_message(&pair, 3, 0, 0);
            assert_int_equal(next_fd(), pair.first_free);
            close_pair(&pair);
        }
    }
}

static void messages_come_byte_by_byte(void **state)
{
    struct sdc_vfu_header header;
    uint8_t bytes[TOTAL];
    struct pair pair;

    (void)state;
    fill(bytes);
    open_pair(&pair);
    for (size_t i = 0; i < TOTAL; i++) {
        send_piece(&pair, bytes + i, 1, 0, i == 0);
        receive_all(&pair);
        if (i + 1 == A_SIZE)
            expect_message(&pair, 1, 0, 1);
        else if (i + 1 == A_SIZE + B_SIZE)
            expect_message(&pair, 2, 0, 0);
        else if (i + 1 < TOTAL)
            assert_int_equal(vfu_stream_message(&pair.stream, &header), 0);
    }
    expect_message(&pair, 3, 0, 0);
    close_pair(&pair);
}

// fds that come in two parts are one message's, also when the message before it went in between.
static void fds_in_two_parts_stay_together(void **state)
{
    uint8_t bytes[TOTAL];
    struct pair pair;

    (void)state;
    fill(bytes);
    open_pair(&pair);
    send_piece(&pair, bytes, A_SIZE, 0, 1);
    receive_all(&pair);
    send_piece(&pair, bytes + A_SIZE, 20, 1, 1);
    receive_all(&pair);
    expect_message(&pair, 1, 0, 1);
    send_piece(&pair, bytes + A_SIZE + 20, B_SIZE - 20, 2, 1);
    receive_all(&pair);
    expect_message(&pair, 2, 1, 2);
    assert_int_equal(next_fd(), pair.first_free);
    close_pair(&pair);
}

static void more_fds_than_a_message_may_have_are_lost_and_closed(void **state)
{
    uint8_t bytes[TOTAL];
    struct pair pair;

    (void)state;
    fill(bytes);
    open_pair(&pair);
    send_piece(&pair, bytes, 10, 0, SDC_LIMIT_MESSAGE_FDS);
    send_piece(&pair, bytes + 10, A_SIZE - 10, SDC_LIMIT_MESSAGE_FDS, 1);
    receive_all(&pair);
    struct vfu_arrival *arrival = vfu_stream_arrival(&pair.stream);
    assert_int_equal(arrival->count, SDC_LIMIT_MESSAGE_FDS);
    assert_true(arrival->lost);
    vfu_stream_consume(&pair.stream, A_SIZE);
    assert_int_equal(next_fd(), pair.first_free);
    assert_int_equal(vfu_stream_arrival(&pair.stream)->count, 0);
    close_pair(&pair);
}

// Nobody has three messages with fds waiting; whoever does loses the last ones', and nothing leaks.
static void fds_that_have_no_place_wait_in_the_socket(void **state)
{
    uint8_t message[C_SIZE];
    struct pair pair;

    (void)state;
    open_pair(&pair);
    for (uint16_t i = 0; i <= VFU_ARRIVALS; i++) {
        put_header(message, i, C_SIZE);
        send_piece(&pair, message, C_SIZE, i % FILES, 1);
        receive_all(&pair);
    }
    for (uint16_t i = 0; i <= VFU_ARRIVALS; i++) {
        expect_message(&pair, i, i % FILES, 1);
        receive_all(&pair); // the last one waited in the socket until there was a place for its fd
    }
    assert_int_equal(next_fd(), pair.first_free);
    close_pair(&pair);
}

static void a_stream_that_is_closed_keeps_no_fds(void **state)
{
    uint8_t bytes[TOTAL];
    struct pair pair;

    (void)state;
    fill(bytes);
    open_pair(&pair);
    send_piece(&pair, bytes, A_SIZE, 0, 5);
    receive_all(&pair);
    send_piece(&pair, bytes + A_SIZE, 3, 5, 2); // received
    receive_all(&pair);
    send_piece(&pair, bytes + A_SIZE + 3, 3, 7, 2); // still in the socket
    int fd = pair.stream.fd;
    vfu_stream_close(&pair.stream);
    assert_int_equal(next_fd(), fd < pair.first_free ? fd : pair.first_free);
    for (unsigned i = 0; i < FILES; i++)
        sdc_fd_close(&pair.files[i]);
    sdc_fd_close(&pair.client);
}

static void impossible_sizes_are_refused(void **state)
{
    static const struct {
        uint32_t size;
        int rc;
    } cases[] = {
        {0, -EPROTO}, {15, -EPROTO}, {16, 1}, {17, 0}, {SDC_LIMIT_MESSAGE, 0}, {SDC_LIMIT_MESSAGE + 1, -EPROTO}, {UINT32_MAX, -EPROTO},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct sdc_vfu_header header;
        uint8_t bytes[16];
        struct pair pair;
        open_pair(&pair);
        put_header(bytes, 1, cases[i].size);
        send_piece(&pair, bytes, sizeof bytes, 0, 0);
        receive_all(&pair);
        assert_int_equal(vfu_stream_message(&pair.stream, &header), cases[i].rc);
        close_pair(&pair);
    }
}

// A message of the largest size, then a small one: the buffer grows for the one and shrinks for the other.
static void the_buffer_follows_the_messages(void **state)
{
    static uint8_t bytes[SDC_LIMIT_MESSAGE];
    struct pair pair;
    size_t sent = 0;

    (void)state;
    open_pair(&pair);
    put_header(bytes, 1, sizeof bytes);
    while (sent < sizeof bytes) {
        struct iovec iov = {bytes + sent, sizeof bytes - sent};
        ssize_t more = sdc_socket_send(pair.client, &iov, 1, NULL, 0);
        assert_true(more > 0 || more == -EAGAIN);
        sent += more > 0 ? (size_t)more : 0;
        int rc = vfu_stream_receive(&pair.stream);
        assert_true(rc > 0 || rc == -EAGAIN);
    }
    while (vfu_stream_receive(&pair.stream) > 0)
        ;
    expect_message(&pair, 1, 0, 0);
    put_header(bytes, 2, 16);
    send_piece(&pair, bytes, 16, 0, 0);
    receive_all(&pair);
    expect_message(&pair, 2, 0, 0);
    assert_true(pair.stream.in_size <= 4096);
    close_pair(&pair);
}

static void replies_wait_until_they_are_read(void **state)
{
    struct pair pair;
    uint8_t in[65536];
    size_t appended = 0, received = 0;
    ssize_t got;

    (void)state;
    open_pair(&pair);
    for (unsigned i = 0; i < 64; i++) {
        uint8_t *room = vfu_stream_append(&pair.stream, 65536);
        assert_non_null(room);
        for (size_t k = 0; k < 65536; k++)
            assert_int_equal(room[k], 0);
        memset(room, (int)i, 65536);
        appended += 65536;
        assert_int_equal(vfu_stream_send(&pair.stream), 0);
    }
    assert_true(vfu_stream_unsent(&pair.stream) > 0);
    while (received < appended) {
        while ((got = recv(pair.client, in, sizeof in, MSG_DONTWAIT)) > 0) {
            for (ssize_t k = 0; k < got; k++)
                assert_int_equal(in[k], (received + (size_t)k) / 65536);
            received += (size_t)got;
        }
        assert_int_equal(vfu_stream_send(&pair.stream), 0);
    }
    assert_int_equal(vfu_stream_unsent(&pair.stream), 0);
    close_pair(&pair);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fds_find_their_message_wherever_it_is_cut),
        cmocka_unit_test(messages_come_byte_by_byte),
        cmocka_unit_test(fds_in_two_parts_stay_together),
        cmocka_unit_test(more_fds_than_a_message_may_have_are_lost_and_closed),
        cmocka_unit_test(fds_that_have_no_place_wait_in_the_socket),
        cmocka_unit_test(a_stream_that_is_closed_keeps_no_fds),
        cmocka_unit_test(impossible_sizes_are_refused),
        cmocka_unit_test(the_buffer_follows_the_messages),
        cmocka_unit_test(replies_wait_until_they_are_read),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
