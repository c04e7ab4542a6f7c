// SPDX-License-Identifier: BSD-3-Clause
// A whole session over a socket pair: messages in any pieces, with any fds, to a real card; answers, honest or not, to what the server
// asks for memory without an fd, on a twin socket or on the main one; signals of eventfds in both directions. Whatever the client does,
// the session ends when the client goes, every message to it is well-formed, and no fd stays behind.
#include "base/check.h"
#include "card.h"
#include "os/fd.h"
#include "os/memfd.h"
#include "os/socket.h"
#include "peer.h"
#include "transport/vfio_user/session.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    MEMORY = 16 * 4096,
    PAYLOAD_MAX = 8192,
    ASKED = 128,        // commands of the server that are kept to be answered
    ROUNDS = 64,        // of honest answers in one go
    KICKS = 4,
};

enum { FD_MEMORY, FD_EVENT, FD_FILE, FD_SOCKET, FD_KINDS };

// A socket of the client's, and the message that arrives there.
struct channel {
    int fd; // -1: none
    struct course *course;
    struct fuzz_arrival arrival;
};

// What the server asked.
struct asked {
    struct sdc_vfu_header header;
    struct sdc_vfu_dma_access access;
};

struct course {
    struct fuzz_peer peer; // first
    struct fuzz_card card;
    struct vfu_session *session;
    struct channel main, twin;
    int kicks[KICKS]; // eventfds of the server's
    unsigned kicks_count;
    struct asked asked[ASKED];
    unsigned asked_count;
    bool narrow; // the client's counts have 32 bits: it has answered an empty write like that
    struct sdc_pci_bar lent;
    int fds[FD_KINDS];
    void *memory;        // of FD_MEMORY
    unsigned commands;   // sent, or perhaps so: more can be inside raw bytes
    bool raw;            // raw bytes were sent: the count means nothing any more
    unsigned replies;
};

static void session_ended(struct vfu_session *session)
{
    ((struct course *)session->context)->peer.ended = true;
}

// --- what the server sends ---

static void check_reply(struct course *course, const struct sdc_vfu_header *reply)
{
    fuzz_check((reply->flags & ~(uint32_t)SDC_VFU_ERROR) == SDC_VFU_TYPE_REPLY, "something that is neither reply nor command");
    fuzz_check(!(reply->flags & SDC_VFU_ERROR) == (reply->error == 0), "an error without a number, or a number without an error");
    fuzz_check(reply->error < 4096, "an error that is no errno");
    course->replies++;
    fuzz_check(course->raw || course->replies <= course->commands, "more replies than commands");
}

static void check_command(struct course *course, const struct channel *channel, const struct sdc_vfu_header *header)
{
    struct asked asked = {.header = *header};
    size_t size = header->msg_size - sizeof *header;

    fuzz_check(header->cmd == SDC_VFU_DMA_READ || header->cmd == SDC_VFU_DMA_WRITE, "a command that no server sends");
    fuzz_check(channel == &course->twin || course->twin.fd < 0, "a command on the main socket beside a twin");
    fuzz_check(header->error == 0 && size >= sizeof asked.access, "a command that is malformed");
    memcpy(&asked.access, channel->arrival.head + sizeof *header, sizeof asked.access);
    asked.access.count &= UINT32_MAX; // behind that there is zero, or the data, as the client's layout is
    fuzz_check(size == sizeof asked.access + (header->cmd == SDC_VFU_DMA_WRITE ? asked.access.count : 0), "a DMA message of another size");
    fuzz_check(asked.access.count <= SDC_LIMIT_DATA_XFER, "a transfer larger than was agreed on");
    if (course->asked_count < ASKED)
        course->asked[course->asked_count++] = asked;
}

static void take_head(struct fuzz_arrival *arrival)
{
    struct channel *channel = sdc_container(arrival, struct channel, arrival);
    struct course *course = channel->course;
    struct sdc_vfu_header header;

    memcpy(&header, arrival->head, sizeof header);
    if (header.flags == SDC_VFU_TYPE_COMMAND)
        check_command(course, channel, &header);
    else if (channel == &course->twin)
        fuzz_check(false, "a reply on the twin socket");
    else
        check_reply(course, &header);
}

static size_t message_size(const uint8_t *bytes)
{
    struct sdc_vfu_header header;

    memcpy(&header, bytes, sizeof header);
    fuzz_check(header.msg_size >= sizeof header && header.msg_size <= SDC_LIMIT_MESSAGE, "a message of an impossible size");
    return header.msg_size;
}

// A socket is the twin, an eventfd a queue's, memory a BAR's.
static void keep_fd(struct course *course, int fd)
{
    struct sdc_file_identity id;
    bool event = sdc_fd_is_eventfd(fd);
    bool memory = !event && sdc_fd_identify(fd, &id) == 0 && id.kind == SDC_MEMORY_FILE_SHARED;

    if (event && course->kicks_count < KICKS) {
        course->kicks[course->kicks_count++] = fd;
    } else if (event || memory) {
        sdc_fd_close(&fd);
    } else {
        fuzz_check(course->twin.fd < 0, "a second twin socket");
        course->twin.fd = fd;
    }
}

static void take_from(struct course *course, struct channel *channel)
{
    uint8_t bytes[16384];
    int fds[SDC_SOCKET_FDS_MAX];
    int count;
    ssize_t got;

    while (channel->fd >= 0 && (got = sdc_socket_receive(channel->fd, bytes, sizeof bytes, fds, &count)) > 0) {
        for (int i = 0; i < count; i++)
            keep_fd(course, fds[i]);
        fuzz_arrival_take(&channel->arrival, bytes, (size_t)got);
    }
}

static void take_replies(struct course *course)
{
    take_from(course, &course->main);
    take_from(course, &course->twin);
}

static void take(struct fuzz_peer *peer)
{
    take_replies((struct course *)(void *)peer);
}

// --- sending ---

static void send_all(struct course *course, const uint8_t *bytes, size_t size, const int *fds, unsigned fds_count, bool wait)
{
    fuzz_peer_send(&course->peer, course->main.fd, bytes, size, fds, fds_count, wait);
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

// --- answering ---

enum { WRONG_ID = 1, WRONG_SIZE = 2, WRONG_ADDRESS = 4, REFUSES = 8, NARROW = 16, TWICE = 32, OTHER_SOCKET = 64, LAST_FIRST = 128 };

static void answer(struct course *course, struct asked asked, uint8_t how)
{
    uint8_t reply[sizeof(struct sdc_vfu_header) + sizeof asked.access + PAYLOAD_MAX + 1] = {0};
    bool read = asked.header.cmd == SDC_VFU_DMA_READ;
    // Who has counts of 32 bits answers a write with a bare header, and a read with four bytes more behind the data.
    bool narrow = how & NARROW || course->narrow;
    size_t head = narrow ? (read ? 12 : 0) : sizeof asked.access;
    size_t data = read ? (size_t)sdc_min(asked.access.count, PAYLOAD_MAX) : 0;
    size_t end = narrow && read ? 4 : 0;
    struct sdc_vfu_header header = asked.header;

    header.flags = SDC_VFU_TYPE_REPLY | (how & REFUSES ? SDC_VFU_ERROR : 0);
    header.error = how & REFUSES ? 5 : 0;
    header.msg_size = (uint32_t)(sizeof header + (how & REFUSES ? 0 : head + data + end + (how & WRONG_SIZE ? 1 : 0)));
    header.msg_id = (uint16_t)(header.msg_id + (how & WRONG_ID ? 77 : 0));
    asked.access.address ^= how & WRONG_ADDRESS ? 4096 : 0;
    memcpy(reply, &header, sizeof header);
    memcpy(reply + sizeof header, &asked.access, head);
    if (data > 0 && asked.access.address < MEMORY && asked.access.count <= MEMORY - asked.access.address)
        memcpy(reply + sizeof header + head, (uint8_t *)course->memory + asked.access.address, data);
    course->narrow |= narrow && !read && !(how & REFUSES) && asked.access.count == 0;
    bool over_twin = (course->twin.fd >= 0) != ((how & OTHER_SOCKET) != 0);
    int fd = over_twin && course->twin.fd >= 0 ? course->twin.fd : course->main.fd;
    for (unsigned i = 0; i < (how & TWICE ? 2u : 1u); i++)
        fuzz_peer_send(&course->peer, fd, reply, header.msg_size, NULL, 0, false);
}

static struct asked take_asked(struct course *course, bool last)
{
    unsigned which = last ? course->asked_count - 1 : 0;
    struct asked asked = course->asked[which];

    course->asked_count--;
    memmove(&course->asked[which], &course->asked[which + 1], (course->asked_count - which) * sizeof asked);
    return asked;
}

// One answer with the mistakes of how; without any, everything that is asked until nothing is asked any more.
static void answer_some(struct course *course, uint8_t how)
{
    fuzz_turns(6, NULL, NULL);
    take_replies(course);
    if (how != 0 && course->asked_count > 0)
        answer(course, take_asked(course, how & LAST_FIRST), how);
    for (unsigned i = 0; how == 0 && i < ROUNDS && course->asked_count > 0 && !course->peer.ended; i++) {
        while (course->asked_count > 0)
            answer(course, take_asked(course, false), 0);
        fuzz_turns(6, NULL, NULL);
        take_replies(course);
    }
}

static void send_over_twin(struct course *course, struct fuzz_input *input)
{
    uint8_t bytes[256];
    uint8_t size = fuzz_u8(input);

    fuzz_bytes(input, bytes, size);
    if (course->twin.fd >= 0)
        fuzz_peer_send(&course->peer, course->twin.fd, bytes, size, &course->fds[FD_EVENT], 1, true);
}

// Any number of signals of the client's eventfd, which may mask, or of one that is a kick.
static void signal_one(struct course *course, struct fuzz_input *input)
{
    uint8_t which = fuzz_u8(input);
    int fd = which & 1 && course->kicks_count > 0 ? course->kicks[which / 2 % course->kicks_count] : course->fds[FD_EVENT];

    for (unsigned i = 0; i <= which / 32u; i++)
        sdc_eventfd_signal(fd);
}

// --- the course ---

static void do_one(struct course *course, struct fuzz_input *input)
{
    switch (fuzz_u8(input) % 12) {
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
        fuzz_poke(input, course->memory, MEMORY);
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
    case 8:
        answer_some(course, fuzz_u8(input));
        break;
    case 9:
        signal_one(course, input);
        break;
    case 10:
        send_over_twin(course, input);
        break;
    case 11:
        take_replies(course);
        sdc_fd_close(&course->twin.fd);
        break;
    }
}

static void open_session(struct course *course, bool allow_file_memory)
{
    static struct sdc_vfu_options options = {.name = "fuzz.sock"};
    int ends[2];

    options.allow_file_memory = allow_file_memory;
    fuzz_check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0, "no socket pair");
    course->main.fd = ends[0];
    course->twin.fd = -1;
    course->main.course = course->twin.course = course;
    course->main.arrival = course->twin.arrival = (struct fuzz_arrival){
        .header = sizeof(struct sdc_vfu_header), .most = sizeof(struct sdc_vfu_header) + sizeof(struct sdc_vfu_dma_access),
        .size = message_size, .taken = take_head};
    course->fds[FD_MEMORY] = sdc_memfd_new("fuzz", MEMORY);
    course->fds[FD_EVENT] = sdc_eventfd_new();
    course->fds[FD_FILE] = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    course->fds[FD_SOCKET] = ends[0];
    fuzz_check(sdc_fd_map(course->fds[FD_MEMORY], MEMORY, true, &course->memory) == 0, "no memory to share");
    course->session = vfu_session_new(fuzz_loop(), ends[1], course->card.pci, &options, session_ended, course);
    fuzz_check(course->session != NULL, "no session");
}

// The card itself has nothing that may be mapped: BAR 0, which it has not, is lent to it. Closed with the card.
static void lend_bar(struct course *course, bool whole, bool twice)
{
    int fd = sdc_memfd_new("bar", 4 * 4096);

    fuzz_check(fd >= 0, "no memory for a BAR");
    course->lent = (struct sdc_pci_bar){.size = 4 * 4096, .mappable = {.areas = {{0, 4 * 4096}}, .areas_count = 1, .fd = fd}};
    if (!whole)
        course->lent.mappable.areas[0] = (struct sdc_pci_area){4096, (twice ? 1 : 2) * 4096};
    if (!whole && twice)
        course->lent.mappable.areas[course->lent.mappable.areas_count++] = (struct sdc_pci_area){3 * 4096, 4096};
    course->card.pci->bars[0] = course->lent;
}

static void close_session(struct course *course)
{
    take_replies(course);
    sdc_unmap(course->memory, MEMORY);
    course->fds[FD_SOCKET] = -1;
    sdc_fd_close(&course->twin.fd);
    while (course->kicks_count > 0)
        sdc_fd_close(&course->kicks[--course->kicks_count]);
    for (unsigned i = 0; i < FD_KINDS; i++)
        sdc_fd_close(&course->fds[i]);
    // A client that has sent us its own end of the socket goes all the same.
    shutdown(course->main.fd, SHUT_RDWR);
    sdc_fd_close(&course->main.fd);
    fuzz_peer_await_end(&course->peer);
    vfu_session_free(course->session);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    static struct course course;

    fuzz_loop();
    int fd = fuzz_next_fd();
    course = (struct course){.peer = {.turns = 3, .take = take}};
    fuzz_card_open(&course.card, 2, 32);
    uint8_t how = fuzz_u8(&input);
    if (how & 6)
        lend_bar(&course, how & 2, how & 8);
    open_session(&course, how & 1);
    for (unsigned i = 0; i < 128 && fuzz_more(&input) && !course.peer.ended; i++)
        do_one(&course, &input);
    close_session(&course);
    fuzz_card_close(&course.card);
    if (course.lent.size > 0)
        sdc_fd_close(&course.lent.mappable.fd);
    fuzz_check(fuzz_next_fd() == fd, "an fd was left behind");
    return 0;
}
