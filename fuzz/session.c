// SPDX-License-Identifier: BSD-3-Clause
// A whole session over a socket pair: messages in any pieces, with any fds, to a real card. Whatever the client does, the session
// ends when the client goes, every reply is well-formed, and no fd stays behind.
#include "base/check.h"
#include "card.h"
#include "input.h"
#include "os/fd.h"
#include "os/memfd.h"
#include "os/socket.h"
#include "transport/vfio_user/session.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    MEMORY = 16 * 4096,
    PAYLOAD_MAX = 8192,
    TRIES = 200,        // to send while the server has no room
    PATIENCE = 100000,  // turns: what has not ended then hangs
};

enum { FD_MEMORY, FD_EVENT, FD_FILE, FD_SOCKET, FD_KINDS };

struct course {
    struct fuzz_card card;
    struct vfu_session *session;
    bool ended;
    int fd; // the client's end
    int fds[FD_KINDS];
    void *memory;        // of FD_MEMORY
    unsigned commands;   // sent, or perhaps so: more can be inside raw bytes
    bool raw;            // raw bytes were sent: the count means nothing any more
    unsigned replies;
    struct sdc_vfu_header reply; // that is arriving
    size_t reply_used;           // bytes of it
    size_t payload_left;         // of the reply before it
};

static void session_ended(struct vfu_session *session)
{
    ((struct course *)session->context)->ended = true;
}

// --- replies ---

static void check_reply(struct course *course)
{
    const struct sdc_vfu_header *reply = &course->reply;

    fuzz_check(reply->msg_size >= sizeof *reply && reply->msg_size <= SDC_LIMIT_MESSAGE, "a reply of an impossible size");
    fuzz_check((reply->flags & ~(uint32_t)SDC_VFU_ERROR) == SDC_VFU_TYPE_REPLY, "something that is not a reply");
    fuzz_check(!(reply->flags & SDC_VFU_ERROR) == (reply->error == 0), "an error without a number, or a number without an error");
    fuzz_check(reply->error < 4096, "an error that is no errno");
    course->replies++;
    fuzz_check(course->raw || course->replies <= course->commands, "more replies than commands");
}

static void take_reply_bytes(struct course *course, const uint8_t *bytes, size_t size)
{
    while (size > 0) {
        bool payload = course->payload_left > 0;
        size_t length = (size_t)sdc_min(size, payload ? course->payload_left : sizeof course->reply - course->reply_used);
        if (payload) {
            course->payload_left -= length;
        } else {
            memcpy((uint8_t *)&course->reply + course->reply_used, bytes, length);
            course->reply_used += length;
        }
        bytes += length;
        size -= length;
        if (course->reply_used < sizeof course->reply)
            continue;
        check_reply(course);
        course->payload_left = course->reply.msg_size - sizeof course->reply;
        course->reply_used = 0;
    }
}

static void take_replies(struct course *course)
{
    uint8_t bytes[16384];
    ssize_t got;

    while ((got = recv(course->fd, bytes, sizeof bytes, MSG_DONTWAIT)) > 0)
        take_reply_bytes(course, bytes, (size_t)got);
}

// --- sending ---

// Sends all of it, fds with its first byte, unless the server has gone or takes nothing more. wait: lets the server work.
static void send_all(struct course *course, const uint8_t *bytes, size_t size, const int *fds, unsigned fds_count, bool wait)
{
    for (unsigned i = 0; i < TRIES && size > 0 && !course->ended; i++) {
        struct iovec iov = {(void *)(uintptr_t)bytes, size};
        ssize_t sent = sdc_socket_send(course->fd, &iov, 1, fds, fds_count);
        if (sent > 0) {
            bytes += sent;
            size -= (size_t)sent;
            fds_count = 0;
        } else if (sent != -EAGAIN) {
            return;
        }
        if (wait || sent == -EAGAIN) {
            fuzz_turns(3, NULL, NULL);
            take_replies(course);
        }
    }
}

static unsigned choose_fds(struct course *course, struct fuzz_input *input, int fds[SDC_SOCKET_FDS_MAX])
{
    unsigned count = fuzz_u8(input) % 20;
    uint8_t kind = fuzz_u8(input);

    for (unsigned i = 0; i < count; i++)
        fds[i] = course->fds[kind & 0x80 ? fuzz_u8(input) % FD_KINDS : kind % FD_KINDS];
    return count;
}

// A message whose header is right but for what `how` says, sent in one piece or in two, perhaps on the heels of the one before.
static void send_message(struct course *course, struct fuzz_input *input)
{
    uint8_t message[sizeof(struct sdc_vfu_header) + PAYLOAD_MAX];
    int fds[SDC_SOCKET_FDS_MAX];
    uint8_t how = fuzz_u8(input);
    uint8_t command = fuzz_u8(input);
    uint32_t size = how & 1 ? fuzz_u16(input) % PAYLOAD_MAX : fuzz_u8(input);
    unsigned fds_count = how & 2 ? choose_fds(course, input, fds) : 0;
    size_t cut = how & 4 ? fuzz_u8(input) : 0;
    struct sdc_vfu_header header = {
        .msg_id = (uint16_t)course->commands,
        .cmd = command,
        .msg_size = (uint32_t)sizeof header + size,
        .flags = how & 8 ? fuzz_u8(input) : 0,
    };

    if (how & 16) {
        header.msg_size = fuzz_u32(input);
        course->raw = true;
    }
    memcpy(message, &header, sizeof header);
    fuzz_bytes(input, message + sizeof header, size);
    size += (uint32_t)sizeof header;
    course->commands++;
    cut = cut < size ? cut : 0;
    // fds come with the message's first byte, or with any other.
    bool late = how & 32 && cut > 0;
    send_all(course, message, cut, fds, late ? 0 : fds_count, true);
    send_all(course, message + cut, size - cut, fds, cut == 0 || late ? fds_count : 0, !(how & 64));
}

// The first `cut` bytes of several headers in one piece: what comes next ends them.
static void send_raw(struct course *course, struct fuzz_input *input)
{
    uint8_t bytes[256];
    uint8_t size = fuzz_u8(input);

    fuzz_bytes(input, bytes, size);
    course->raw = true;
    send_all(course, bytes, size, NULL, 0, true);
}

static void poke_memory(struct course *course, struct fuzz_input *input)
{
    uint8_t bytes[256];
    uint16_t offset = fuzz_u16(input);
    uint8_t size = fuzz_u8(input);

    fuzz_bytes(input, bytes, size);
    if ((size_t)offset + size <= MEMORY)
        memcpy((uint8_t *)course->memory + offset, bytes, size);
}

// --- the course ---

static void do_one(struct course *course, struct fuzz_input *input)
{
    switch (fuzz_u8(input) % 8) {
    case 0:
    case 1:
    case 2:
    case 3:
        send_message(course, input);
        break;
    case 4:
        send_raw(course, input);
        break;
    case 5:
        poke_memory(course, input);
        break;
    case 6:
        fuzz_turns(fuzz_u8(input) % 16, NULL, NULL);
        break;
    case 7: {
        // What a driver's queue raises while the client does something else.
        enum sdc_pci_irq kind = fuzz_u8(input) % SDC_PCI_IRQS;
        sdc_pci_interrupt(course->card.pci, kind, fuzz_u8(input) % 4);
        break;
    }
    }
}

static bool has_ended(void *context)
{
    return ((struct course *)context)->ended;
}

static void open_session(struct course *course, bool allow_file_memory)
{
    static struct sdc_vfu_options options = {.name = "fuzz.sock"};
    int ends[2];

    options.allow_file_memory = allow_file_memory;
    fuzz_check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0, "no socket pair");
    course->fd = ends[0];
    course->fds[FD_MEMORY] = sdc_memfd_new("fuzz", MEMORY);
    course->fds[FD_EVENT] = sdc_eventfd_new();
    course->fds[FD_FILE] = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    course->fds[FD_SOCKET] = ends[0];
    fuzz_check(sdc_fd_map(course->fds[FD_MEMORY], MEMORY, true, &course->memory) == 0, "no memory to share");
    course->session = vfu_session_new(fuzz_loop(), ends[1], course->card.pci, &options, session_ended, course);
    fuzz_check(course->session != NULL, "no session");
}

static void close_session(struct course *course)
{
    take_replies(course);
    sdc_unmap(course->memory, MEMORY);
    course->fds[FD_SOCKET] = -1;
    for (unsigned i = 0; i < FD_KINDS; i++)
        sdc_fd_close(&course->fds[i]);
    // A client that has sent us its own end of the socket goes all the same.
    shutdown(course->fd, SHUT_RDWR);
    sdc_fd_close(&course->fd);
    fuzz_check(fuzz_turns(PATIENCE, has_ended, course), "the client has gone and the session does not end");
    vfu_session_free(course->session);
}

// The number that the next fd would get: the same before and after if none was left behind.
static int next_fd(void)
{
    int fd = dup(STDERR_FILENO);

    close(fd);
    return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    static struct course course;

    fuzz_loop();
    int fd = next_fd();
    course = (struct course){0};
    fuzz_card_open(&course.card, 2, 32);
    open_session(&course, fuzz_u8(&input) & 1);
    for (unsigned i = 0; i < 64 && fuzz_more(&input) && !course.ended; i++)
        do_one(&course, &input);
    close_session(&course);
    fuzz_card_close(&course.card);
    fuzz_check(next_fd() == fd, "an fd was left behind");
    return 0;
}
