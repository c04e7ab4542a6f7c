// SPDX-License-Identifier: BSD-3-Clause
// A state record that anybody may have written, and a keeper that has any fds in its slots. An honest session writes a record first; the
// input then changes bytes of it, mends the checksums or not, and mixes the slots up. Another card goes on with it. That says why it
// cannot, or works until the client goes; no fd stays behind.
#include "base/check.h"
#include "card.h"
#include "input.h"
#include "os/fd.h"
#include "os/memfd.h"
#include "os/socket.h"
#include "transport/vfio_user/record_layout.h"
#include "transport/vfio_user/session.h"

#include <sidecard/virtio.h>

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    MEMORY = 16 * 4096,
    PATIENCE = 100000, // turns: what has not ended then hangs
    SLOTS = 16,
    COMMON = 0, // offset in BAR 4
    RING = 0x1000,
};

struct course {
    struct sdc_slots slots; // first
    int kept[SLOTS];        // -1: empty
    bool taken[SLOTS];
    struct fuzz_card card;
    struct sdc_vfu_record *record;
    struct vfu_session *session;
    struct sdc_vfu_options options;
    bool ended;
    int client;
    uint8_t *memory;
};

// --- slots ---

static int put(struct sdc_slots *slots, int fd, uint32_t *slot)
{
    struct course *course = (struct course *)(void *)slots;

    for (uint32_t i = 0; i < SLOTS; i++) {
        if (course->kept[i] < 0) {
            course->kept[i] = dup(fd);
            fuzz_check(course->kept[i] >= 0, "no fd");
            *slot = i;
            return 0;
        }
    }
    return -ENOSPC;
}

static void drop(struct sdc_slots *slots, uint32_t slot)
{
    struct course *course = (struct course *)(void *)slots;

    if (slot < SLOTS)
        sdc_fd_close(&course->kept[slot]);
}

static int take(struct sdc_slots *slots, uint32_t slot)
{
    struct course *course = (struct course *)(void *)slots;

    if (slot >= SLOTS || course->kept[slot] < 0 || course->taken[slot])
        return -ENOENT;
    course->taken[slot] = true;
    return dup(course->kept[slot]);
}

static const struct sdc_slots_ops ops = {.put = put, .drop = drop, .take = take};

// --- an honest session ---

static void session_ended(struct vfu_session *session)
{
    ((struct course *)session->context)->ended = true;
}

static void send_message(struct course *course, uint16_t command, const void *payload, uint32_t size, const int *fd)
{
    uint8_t bytes[256];
    struct sdc_vfu_header header = {.msg_id = 1, .cmd = command, .msg_size = (uint32_t)sizeof header + size};

    memcpy(bytes, &header, sizeof header);
    memcpy(bytes + sizeof header, payload, size);
    struct iovec iov = {bytes, header.msg_size};
    fuzz_check(sdc_socket_send(course->client, &iov, 1, fd, fd ? 1 : 0) == (ssize_t)header.msg_size, "the client cannot send");
    fuzz_turns(4, NULL, NULL);
}

static void write_common(struct course *course, uint64_t offset, uint64_t value, uint32_t size)
{
    uint8_t payload[sizeof(struct sdc_vfu_region_access) + 8];
    struct sdc_vfu_region_access access = {.offset = COMMON + offset, .region = 4, .count = size};

    memcpy(payload, &access, sizeof access);
    sdc_put64(payload + sizeof access, value);
    send_message(course, SDC_VFU_REGION_WRITE, payload, (uint32_t)sizeof access + size, NULL);
}

// VERSION, memory, an interrupt, a queue that has a request in flight or not.
static void be_honest(struct course *course, uint8_t how)
{
    struct {
        struct sdc_vfu_version version;
        char json[4];
    } hello = {.version = {.minor = 1}, .json = "{}"};
    struct sdc_vfu_dma_map map = {.argsz = sizeof map, .flags = SDC_VFU_MAP_READ | SDC_VFU_MAP_WRITE, .size = MEMORY};
    struct sdc_vfu_set_irqs irqs = {.argsz = sizeof irqs, .flags = SDC_VFU_IRQ_DATA_EVENTFD | SDC_VFU_IRQ_ACTION_TRIGGER,
                                    .index = SDC_PCI_MSIX, .start = 1, .count = 1};
    int memory = sdc_memfd_new("fuzz-memory", MEMORY);
    int event = sdc_eventfd_new();
    bool packed = how & 1;
    static const uint64_t registers[][3] = {{0x16, 0, 2}, {0x1a, 1, 2}, {0x20, RING, 4}, {0x28, RING + 0x1000, 4},
                                            {0x30, RING + 0x2000, 4}, {0x1c, 1, 2}, {0x14, 15, 1}};

    fuzz_check(memory >= 0 && event >= 0, "no fd");
    send_message(course, SDC_VFU_VERSION, &hello, sizeof hello.version + 3, NULL);
    send_message(course, SDC_VFU_DMA_MAP, &map, sizeof map, &memory);
    send_message(course, SDC_VFU_SET_IRQS, &irqs, sizeof irqs, &event);
    write_common(course, 0x08, 1, 4);
    write_common(course, 0x0c, 1 | (packed ? 4 : 0), 4);
    write_common(course, 0x14, 11, 1);
    for (size_t i = 0; i < SDC_COUNT(registers) && how & 2; i++)
        write_common(course, registers[i][0], registers[i][1], (uint32_t)registers[i][2]);
    if (how & 4) // a message that is not whole
        fuzz_check(write(course->client, "\1\0\1", 3) == 3, "the client cannot send");
    fuzz_turns(8, NULL, NULL);
    sdc_fd_close(&memory);
    sdc_fd_close(&event);
}

static void open_card(struct course *course)
{
    fuzz_card_open(&course->card, 1, 8);
    course->card.pci->host = NULL;
}

static bool open_record(struct course *course)
{
    struct sdc_error err = {0};
    int rc = sdc_vfu_record_open(course->card.pci, "a fuzzed card", &course->slots, &course->record, &err);

    fuzz_check(rc == 0 || err.text[0] != '\0', "refused without a reason");
    course->options = (struct sdc_vfu_options){.name = "fuzz", .record = rc == 0 ? course->record : NULL};
    return rc == 0;
}

// The process is no more: what it had is gone, what the keeper has stays.
static void forget(struct course *course)
{
    struct vfu_session *session = course->session;

    session->record = session->stream.record = NULL;
    for (unsigned kind = 0; kind < SDC_PCI_IRQS; kind++) {
        for (uint32_t i = 0; i < session->irqs.sets[kind].count; i++)
            session->irqs.sets[kind].slots[i] = SDC_SLOT_NONE;
    }
    sdc_fd_close(&session->stream.fd);
    vfu_session_close(session, "killed");
}

static bool has_ended(void *context)
{
    return ((struct course *)context)->ended;
}

static void close_card(struct course *course)
{
    if (course->session) {
        fuzz_check(course->ended || fuzz_turns(PATIENCE, has_ended, course), "the session does not end");
        vfu_session_free(course->session);
    }
    course->session = NULL;
    course->ended = false;
    sdc_vfu_record_close(course->record);
    course->record = NULL;
    fuzz_card_close(&course->card);
}

// --- damage ---

static void damage(struct course *course, struct fuzz_input *input)
{
    struct sdc_state *state = &course->record->state;
    uint8_t how = fuzz_u8(input);

    if (how & 0x80) { // a copy of what counts, changed and with a good checksum
        enum sdc_state_section section = SDC_STATE_SESSION + how % 3;
        uint32_t size = (uint32_t)state->lengths[section];
        const uint8_t *now = sdc_state_now(state, section);
        uint8_t *bytes = malloc(size);
        fuzz_check(bytes != NULL, "no memory");
        memset(bytes, 0, size);
        if (now)
            memcpy(bytes, now, size);
        for (unsigned i = 0; i < 1U + (how >> 4 & 3); i++) {
            uint32_t at = fuzz_u16(input) % size;
            bytes[at] = fuzz_u8(input);
        }
        sdc_state_prepare(state, section, bytes, size);
        sdc_state_commit(state);
        free(bytes);
    } else if (how & 0x40) {
        struct sdc_state_region region = {.iova = (uint64_t)fuzz_u32(input) << 8, .size = (uint64_t)fuzz_u32(input) << 8,
                                          .offset = (uint64_t)fuzz_u16(input) << 8, .slot = (uint32_t)(int8_t)fuzz_u8(input)};
        region.access = (uint32_t)(int8_t)fuzz_u8(input);
        sdc_state_region_born(state, fuzz_u16(input) % 64, &region);
        sdc_state_commit(state);
    } else { // any bytes of the header, a journal or a queue's piece
        static const enum sdc_state_section where[] = {SDC_STATE_IDENTITY, SDC_STATE_SESSION, SDC_STATE_RECEIVED, SDC_STATE_OWED,
                                                       SDC_STATE_QUEUES, SDC_STATE_QUEUES, SDC_STATE_REGIONS, SDC_STATE_IDENTITY};
        uint64_t at = state->offsets[where[how & 7]] + (how & 0x20 ? fuzz_u16(input) : fuzz_u8(input));
        if ((how & 7) == 7)
            at -= 4096; // the header
        uint64_t value = fuzz_u64(input);
        memcpy(state->bytes + at % (state->size - 8), &value, 1U << (how >> 3 & 3));
    }
}

static void mix_slots(struct course *course, uint8_t how)
{
    unsigned one = how % 6, other = how / 6 % 6;
    int kept = course->kept[one];

    if (how >= 216) {
        sdc_fd_close(&course->kept[one]);
    } else if (how >= 144 && one > 0 && other > 0) {
        course->kept[one] = course->kept[other];
        course->kept[other] = kept;
    }
}

// --- the course ---

static void go_on(struct course *course, struct fuzz_input *input)
{
    struct sdc_error err = {0};

    open_card(course);
    if (!open_record(course) || !sdc_vfu_record_has_session(course->record)) {
        close_card(course);
        return;
    }
    int rc = vfu_session_resume(fuzz_loop(), course->card.pci, &course->options, session_ended, course, &course->session, &err);
    fuzz_check(rc == 0 || err.text[0] != '\0', "refused without a reason");
    fuzz_turns(20, NULL, NULL);
    if (rc == 0 && course->session->state != VFU_CLOSING && fuzz_more(input))
        fuzz_check(write(course->client, input->at, input->left < 512 ? input->left : 512) != 0, "the client cannot send");
    fuzz_turns(20, NULL, NULL);
    if (course->session && !course->ended && course->session->state != VFU_CLOSING)
        vfu_session_close(course->session, "the client has gone");
    close_card(course);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    struct course course = {.slots = {.ops = &ops}};
    int pair[2];

    for (unsigned i = 0; i < SLOTS; i++)
        course.kept[i] = -1;
    fuzz_check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0, "no sockets");
    course.client = pair[1];
    int before = dup(pair[1]);
    sdc_fd_close(&before);

    open_card(&course);
    fuzz_check(open_record(&course), "a new record is refused");
    course.session = vfu_session_new(fuzz_loop(), pair[0], course.card.pci, &course.options, session_ended, &course);
    fuzz_check(course.session != NULL, "no session");
    uint8_t how = fuzz_u8(&input);
    be_honest(&course, how);
    for (unsigned i = 0; i < 1U + how / 64 && fuzz_more(&input); i++)
        damage(&course, &input);
    if (how & 8)
        mix_slots(&course, fuzz_u8(&input));
    forget(&course);
    close_card(&course);
    go_on(&course, &input);

    for (unsigned i = 0; i < SLOTS; i++)
        sdc_fd_close(&course.kept[i]);
    sdc_fd_close(&course.client);
    int after = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sdc_fd_close(&after);
    fuzz_check(after <= before, "an fd stays behind");
    return 0;
}
