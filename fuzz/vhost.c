// SPDX-License-Identifier: BSD-3-Clause
// A vhost-user session over a socket pair: requests in any pieces, with any fds, to a real disk, among them good ones, so that vrings run
// and are stopped, behind an IOMMU or not; whatever a driver writes into its rings, and anybody into the log of what is in flight. The
// session ends when the front end goes, every message to it is well-formed, and no fd stays behind.
#include "base/check.h"
#include "base/log.h"
#include "card.h"
#include "os/fd.h"
#include "os/memfd.h"
#include "os/socket.h"
#include "peer.h"
#include "transport/vhost_user/session.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    MEMORY = 16 * 4096,
    QUEUES = 2,
    ENTRIES = 16,
};
#define USER (UINT64_C(1) << 40) // of the front end's own addresses

enum { FD_MEMORY, FD_EVENT, FD_FILE, FD_SOCKET, FD_CHANNEL, FD_INFLIGHT, FD_KINDS };

struct course {
    struct fuzz_peer peer; // first
    struct sdc_card *card;
    struct vhu_session *session;
    int front; // our end
    struct fuzz_arrival arrival; // of replies
    int fds[FD_KINDS];
    int channel; // our end of FD_CHANNEL
    uint8_t *memory;   // of FD_MEMORY
    uint8_t *inflight; // of FD_INFLIGHT, or NULL
    size_t inflight_size;
    struct sdc_vhost_inflight said;
};

static void session_ended(struct vhu_session *session)
{
    ((struct course *)session->context)->peer.ended = true;
}

// --- replies ---

static void take_head(struct fuzz_arrival *arrival)
{
    struct course *course = sdc_container(arrival, struct course, arrival);
    struct sdc_vhost_header header;

    memcpy(&header, arrival->head, sizeof header);
    fuzz_check(header.flags == (SDC_VHOST_VERSION | SDC_VHOST_REPLY), "a reply with other flags");
    if (header.request == SDC_VHOST_GET_INFLIGHT_FD && header.size == sizeof course->said)
        memcpy(&course->said, arrival->head + sizeof header, sizeof course->said);
}

static size_t reply_size(const uint8_t *bytes)
{
    struct sdc_vhost_header header;

    memcpy(&header, bytes, sizeof header);
    fuzz_check(header.size <= sizeof(struct sdc_vhost_config) + SDC_VHOST_CONFIG_MAX, "a reply longer than any");
    return sizeof header + header.size;
}

static void drop_inflight(struct course *course)
{
    if (course->inflight)
        sdc_unmap(course->inflight, course->inflight_size);
    course->inflight = NULL;
    sdc_fd_close(&course->fds[FD_INFLIGHT]);
}

// The only fd that a back end sends is a log's.
static void keep_inflight(struct course *course, int fd)
{
    struct sdc_file_identity id;
    void *base;

    drop_inflight(course);
    fuzz_check(sdc_fd_identify(fd, &id) == 0 && id.kind == SDC_MEMORY_FILE_SHARED && id.size > 0, "an fd that is no memory");
    fuzz_check(sdc_fd_map(fd, id.size, true, &base) == 0, "a log that cannot be mapped");
    course->inflight = base;
    course->inflight_size = id.size;
    course->fds[FD_INFLIGHT] = fd;
}

static void take_replies(struct course *course)
{
    uint8_t bytes[4096];
    int fds[SDC_SOCKET_FDS_MAX];
    int count;
    ssize_t got;

    while ((got = sdc_socket_receive(course->front, bytes, sizeof bytes, fds, &count)) > 0) {
        for (int i = 0; i < count; i++)
            keep_inflight(course, fds[i]);
        fuzz_arrival_take(&course->arrival, bytes, (size_t)got);
    }
}

// --- requests ---

static void take(struct fuzz_peer *peer)
{
    take_replies((struct course *)(void *)peer);
}

static void send_all(struct course *course, const uint8_t *bytes, size_t size, const int *fds, unsigned fds_count, bool wait)
{
    fuzz_peer_send(&course->peer, course->front, bytes, size, fds, fds_count, wait);
}

static void tell(struct course *course, uint32_t request, const void *payload, uint32_t size, int fd)
{
    struct sdc_vhost_header header = {.request = request, .flags = SDC_VHOST_VERSION | SDC_VHOST_NEED_REPLY, .size = size};
    uint8_t message[sizeof header + 512];

    memcpy(message, &header, sizeof header);
    memcpy(message + sizeof header, payload, size);
    send_all(course, message, sizeof header + size, &fd, fd >= 0, true);
}

static void tell_u64(struct course *course, uint32_t request, uint64_t value, int fd)
{
    tell(course, request, &value, sizeof value, fd);
}

static void tell_state(struct course *course, uint32_t request, uint32_t index, uint32_t number)
{
    struct sdc_vhost_vring_state state = {index, number};

    tell(course, request, &state, sizeof state, -1);
}

// As a front end begins. how: packed rings, a log, an IOMMU.
static void agree(struct course *course, uint8_t how)
{
    uint64_t features = sdc_virtio_core_offered(course->card->vhost->core) & ~(how & 1 ? 0 : SDC_VIRTIO_F_RING_PACKED) &
                        ~(how & 4 ? 0 : SDC_VIRTIO_F_ACCESS_PLATFORM);
    struct sdc_vhost_mem_reg slot = {.region = {.guest_address = 0, .size = MEMORY, .user_address = USER}};
    struct sdc_vhost_inflight inflight = {.num_queues = QUEUES, .queue_size = ENTRIES};

    tell_u64(course, SDC_VHOST_SET_PROTOCOL_FEATURES, VHU_PROTOCOL_FEATURES, -1);
    tell_u64(course, SDC_VHOST_SET_FEATURES, features | SDC_VHOST_F_PROTOCOL_FEATURES, -1);
    tell(course, SDC_VHOST_ADD_MEM_REG, &slot, sizeof slot, course->fds[FD_MEMORY]);
    if (!(how & 2))
        return;
    tell(course, SDC_VHOST_GET_INFLIGHT_FD, &inflight, sizeof inflight, -1);
    if (course->fds[FD_INFLIGHT] >= 0)
        tell(course, SDC_VHOST_SET_INFLIGHT_FD, &course->said, sizeof course->said, course->fds[FD_INFLIGHT]);
}

// Starts a vring whose areas are pages of the memory.
static void start_vring(struct course *course, uint32_t index, uint32_t base)
{
    uint64_t at = USER + index * UINT64_C(4) * 4096;
    struct sdc_vhost_vring_addr addresses = {.index = index, .descriptor = at, .available = at + 4096, .used = at + 8192};

    tell_state(course, SDC_VHOST_SET_VRING_NUM, index, ENTRIES);
    tell_state(course, SDC_VHOST_SET_VRING_BASE, index, base);
    tell(course, SDC_VHOST_SET_VRING_ADDR, &addresses, sizeof addresses, -1);
    tell_u64(course, SDC_VHOST_SET_VRING_CALL, index, course->fds[FD_EVENT]);
    tell_u64(course, SDC_VHOST_SET_VRING_KICK, index, course->fds[FD_EVENT]);
    tell_state(course, SDC_VHOST_SET_VRING_ENABLE, index, 1);
}

// A request whose header is right but for what `how` says, its payload small numbers or anything.
static void send_request(struct course *course, struct fuzz_input *input)
{
    uint8_t message[sizeof(struct sdc_vhost_header) + 512];
    int fds[SDC_SOCKET_FDS_MAX];
    uint8_t how = fuzz_u8(input);
    struct sdc_vhost_header header = {.request = fuzz_u8(input), .flags = SDC_VHOST_VERSION | (how & 1 ? 0 : SDC_VHOST_NEED_REPLY)};
    uint8_t fds_count = how & 2 ? fuzz_u8(input) % 12 : 0;

    header.size = how & 4 ? fuzz_u16(input) % 512 : fuzz_u8(input) % 64;
    uint32_t size = header.size;
    if (how & 8)
        header.size = fuzz_u32(input);
    if (how & 16)
        header.flags = fuzz_u8(input);
    memcpy(message, &header, sizeof header);
    fuzz_bytes(input, message + sizeof header, size);
    for (unsigned i = 0; i < fds_count; i++)
        fds[i] = course->fds[fuzz_u8(input) % FD_INFLIGHT];
    size_t cut = how & 32 ? fuzz_u8(input) % (sizeof header + size) : 0;
    send_all(course, message, cut, fds, cut > 0 ? fds_count : 0, true);
    send_all(course, message + cut, sizeof header + size - cut, fds, cut > 0 ? 0 : fds_count, !(how & 64));
}

// The pages of the memory are translated twice: where they lie for the guest, and where the front end has them.
static uint64_t user_of(uint64_t page)
{
    return USER + (page & (MEMORY - 1));
}

// An update or invalidation of some pages, right but for what the input changes.
static void translate(struct course *course, struct fuzz_input *input)
{
    uint8_t how = fuzz_u8(input), pages = fuzz_u8(input);
    struct sdc_vhost_iotlb iotlb = {
        .iova = (pages % 16) * UINT64_C(4096) + (how & 1 ? USER : 0),
        .size = (pages / 16 + 1) * UINT64_C(4096),
        .permissions = SDC_VHOST_ACCESS_READ | SDC_VHOST_ACCESS_WRITE,
        .type = how & 2 ? SDC_VHOST_IOTLB_INVALIDATE : SDC_VHOST_IOTLB_UPDATE,
    };

    iotlb.user_address = user_of(iotlb.iova);
    if (how & 4)
        iotlb.permissions = fuzz_u8(input) % 5;
    if (how & 8)
        iotlb.type = fuzz_u8(input) % 6;
    if (how & 16)
        iotlb.size = fuzz_u64(input);
    if (how & 32)
        iotlb.iova = fuzz_u64(input);
    if (how & 64)
        iotlb.user_address += fuzz_u32(input) - (UINT64_C(1) << 31);
    tell(course, SDC_VHOST_IOTLB_MSG, &iotlb, sizeof iotlb, -1);
}

static void acknowledge(struct course *course, uint32_t request, uint64_t result)
{
    struct __attribute__((packed)) {
        struct sdc_vhost_header header;
        uint64_t result;
    } answer = {{.request = request, .flags = SDC_VHOST_VERSION | SDC_VHOST_REPLY, .size = sizeof result}, result};
    struct iovec iov = {&answer, sizeof answer};

    (void)sdc_socket_send(course->channel, &iov, 1, NULL, 0);
}

// Answers so many misses, with the page that was asked for; the last one with what the input says.
static void answer_misses(struct course *course, struct fuzz_input *input)
{
    uint8_t how = fuzz_u8(input);
    struct {
        struct sdc_vhost_header header;
        struct sdc_vhost_iotlb iotlb;
    } asked;
    int fds[SDC_SOCKET_FDS_MAX], count = 0;

    for (unsigned i = 0; i < how % 16U + 1; i++) {
        ssize_t got = sdc_socket_receive(course->channel, (uint8_t *)&asked, sizeof asked.header, fds, &count);
        if (got == sizeof asked.header && asked.header.size > 0)
            got = sdc_socket_receive(course->channel, (uint8_t *)&asked.iotlb, sizeof asked.iotlb, fds, &count);
        if (got <= 0)
            return;
        if (asked.header.request == SDC_VHOST_BACKEND_IOTLB_MSG && !(how & 16 && i == how % 16U)) {
            fuzz_check(asked.iotlb.type == SDC_VHOST_IOTLB_MISS && asked.iotlb.permissions > 0 && asked.iotlb.permissions < 4,
                       "a question that is none");
            uint64_t page = asked.iotlb.iova & ~UINT64_C(4095);
            asked.iotlb = (struct sdc_vhost_iotlb){.iova = page, .size = 4096, .user_address = user_of(page), .permissions = 3,
                                                   .type = SDC_VHOST_IOTLB_UPDATE};
            tell(course, SDC_VHOST_IOTLB_MSG, &asked.iotlb, sizeof asked.iotlb, -1);
        }
        acknowledge(course, asked.header.request, how & 32);
        fuzz_turns(4, NULL, NULL);
    }
}

// Takes what the back end has asked on its channel, and answers it: with what was asked, but for what the input changes.
static void answer(struct course *course, struct fuzz_input *input)
{
    struct sdc_vhost_header header = {.flags = SDC_VHOST_VERSION | SDC_VHOST_REPLY, .size = sizeof(uint64_t)};
    uint8_t asked[256], bytes[sizeof header + sizeof(uint64_t)] = {0};
    int fds[SDC_SOCKET_FDS_MAX], count = 0;
    uint8_t how = fuzz_u8(input);

    ssize_t got = sdc_socket_receive(course->channel, asked, sizeof asked, fds, &count);
    if (got >= (ssize_t)sizeof header)
        memcpy(&header.request, asked, sizeof header.request);
    memcpy(bytes, &header, sizeof header);
    if (how & 1)
        fuzz_bytes(input, bytes, sizeof bytes);
    struct iovec iov = {bytes, how & 2 ? fuzz_u8(input) % sizeof bytes + 1 : sizeof bytes};
    (void)sdc_socket_send(course->channel, &iov, 1, &course->fds[FD_EVENT], how & 4 ? 1 : 0);
    fuzz_turns(4, NULL, NULL);
}

// --- the course ---

static void do_one(struct course *course, struct fuzz_input *input)
{
    switch (fuzz_u8(input) % 13) {
    case 0:
    case 1:
        send_request(course, input);
        break;
    case 2:
        agree(course, fuzz_u8(input));
        break;
    case 3: {
        uint32_t index = fuzz_u8(input) % QUEUES;
        start_vring(course, index, fuzz_u32(input));
        break;
    }
    case 4:
        tell_state(course, SDC_VHOST_GET_VRING_BASE, fuzz_u8(input) % QUEUES, 0);
        break;
    case 5:
    case 6:
        fuzz_poke(input, course->memory, MEMORY);
        break;
    case 7:
        fuzz_poke(input, course->inflight, course->inflight_size);
        break;
    case 8:
        sdc_eventfd_signal(course->fds[FD_EVENT]);
        fuzz_turns(fuzz_u8(input) % 16, NULL, NULL);
        break;
    case 9:
        sdc_virtio_config_changed(course->card->vhost->core->device);
        break;
    case 10:
        answer(course, input);
        break;
    case 11:
        translate(course, input);
        break;
    case 12:
        answer_misses(course, input);
        break;
    }
}

static void open_session(struct course *course)
{
    static const struct sdc_vhu_options options = {.name = "fuzz.sock"};
    static const struct sdc_card_backend backend = {.name = "ram:256k"};
    static const struct sdc_card_options card_options = {
        .queues = QUEUES, .queue_size = ENTRIES, .packed = true, .backends = &backend, .backends_count = 1};
    struct sdc_loop *loop = fuzz_loop();
    struct sdc_error err;
    void *memory;
    int ends[2], channel[2];

    if (sdc_card_new("virtio-blk", &card_options, SDC_CARD_VHOST, &loop, 1, &course->card, &err) < 0)
        sdc_bug(err.text);
    fuzz_check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0, "no socket pair");
    fuzz_check(sdc_socket_pair(channel) == 0, "no socket pair");
    course->front = ends[0];
    course->arrival = (struct fuzz_arrival){.header = sizeof(struct sdc_vhost_header),
                                            .most = sizeof(struct sdc_vhost_header) + sizeof(struct sdc_vhost_inflight),
                                            .size = reply_size, .taken = take_head};
    course->channel = channel[1];
    course->fds[FD_MEMORY] = sdc_memfd_new("fuzz", MEMORY);
    course->fds[FD_EVENT] = sdc_eventfd_new();
    course->fds[FD_FILE] = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    course->fds[FD_SOCKET] = ends[0];
    course->fds[FD_CHANNEL] = channel[0];
    course->fds[FD_INFLIGHT] = -1;
    fuzz_check(sdc_fd_map(course->fds[FD_MEMORY], MEMORY, true, &memory) == 0, "no memory to share");
    course->memory = memory;
    course->session = vhu_session_new(loop, ends[1], course->card->vhost, &options, session_ended, course);
    fuzz_check(course->session != NULL, "no session");
}

static void close_session(struct course *course)
{
    take_replies(course);
    drop_inflight(course);
    sdc_unmap(course->memory, MEMORY);
    course->fds[FD_SOCKET] = -1;
    for (unsigned i = 0; i < FD_KINDS; i++)
        sdc_fd_close(&course->fds[i]);
    sdc_fd_close(&course->channel);
    // A front end that has given us its own end of the socket goes all the same.
    shutdown(course->front, SHUT_RDWR);
    sdc_fd_close(&course->front);
    fuzz_peer_await_end(&course->peer);
    vhu_session_free(course->session);
    sdc_card_free(course->card);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    static struct course course;

    fuzz_loop();
    int fd = fuzz_next_fd();
    course = (struct course){.peer = {.turns = 4, .take = take}};
    open_session(&course);
    for (unsigned i = 0; i < 128 && fuzz_more(&input) && !course.peer.ended; i++)
        do_one(&course, &input);
    close_session(&course);
    fuzz_check(fuzz_next_fd() == fd, "an fd was left behind");
    return 0;
}
