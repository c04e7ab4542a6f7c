// SPDX-License-Identifier: BSD-3-Clause
// The client library at a server that says anything. The input has two parts: what the program does with the library,
// and what the server, a thread, says to each message that it gets: replies, questions about memory, fds, raw bytes.
// Whatever that is: calls return, what the client sends is well-formed, memory that the device may only read stays as
// it is, and no fd stays behind.
#include "base/check.h"
#include "card.h"
#include "os/fd.h"
#include "os/memfd.h"
#include "os/socket.h"
#include "os/wait.h"
#include "peer.h"
#include "wire/vfio_user.h"

#include <sidecard/client.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    OPS_MAX = 12,
    OP_BYTES = 4,
    ITEMS_MAX = 24,     // that the server says to one message
    PAYLOAD_MAX = 4096,
    TIMEOUT_MS = 20,    // of the client's calls
    FILE_BYTES = 16384, // of the file that regions are mapped from
    BASE = 0x10000,     // iova of the first piece of memory
    STEP = 0x1000,      // and how far they are apart
    PIECES = 3,
    DATA_MAX = 4096,
};

enum { FD_FILE, FD_EVENT, FD_SOCKET, FD_NULL, FD_KINDS };

struct server {
    struct fuzz_input script;
    pthread_t thread;
    int fd;
    int twin;     // our end
    int twin_end; // the client's
    int spare;    // the other end of FD_SOCKET
    int fds[FD_KINDS];
    unsigned asked; // commands of ours that want an answer
    unsigned answered;
    bool raw; // raw bytes were sent: the counts mean nothing any more
    struct sdc_vfu_header header; // of the client's message
    uint8_t payload[PAYLOAD_MAX + 65536];
};

// --- the server's side ---

static void send_bytes(struct server *server, int fd, const void *bytes, size_t size, const int *fds, unsigned fds_count)
{
    while (size > 0) {
        struct iovec iov = {(void *)(uintptr_t)bytes, size};
        ssize_t sent = sdc_socket_send(fd, &iov, 1, fds, fds_count);
        if (sent < 0) {
            server->raw = true; // full: half a message is no message
            return;
        }
        bytes = (const uint8_t *)bytes + sent;
        size -= (size_t)sent;
        fds_count = 0;
    }
}

static unsigned choose_fds(struct server *server, int fds[20])
{
    uint8_t how = fuzz_u8(&server->script);
    unsigned count = how % 20;
    for (unsigned i = 0; i < count; i++) {
        uint8_t kind = how & 0x80 ? fuzz_u8(&server->script) : (uint8_t)(how >> 5);
        fds[i] = kind % (FD_KINDS + 1) == FD_KINDS ? server->twin_end : server->fds[kind % (FD_KINDS + 1)];
    }
    return count;
}

// A reply to the message that came, right but for what `how` says.
static void reply(struct server *server)
{
    struct fuzz_input *script = &server->script;
    uint8_t message[sizeof(struct sdc_vfu_header) + PAYLOAD_MAX];
    int fds[20];
    uint8_t how = fuzz_u8(script);
    struct sdc_vfu_header header = {
        .msg_id = server->header.msg_id, .cmd = server->header.cmd, .flags = SDC_VFU_TYPE_REPLY};
    size_t size = how & 1 ? fuzz_u16(script) % PAYLOAD_MAX : sdc_min(server->header.msg_size - sizeof header, PAYLOAD_MAX);
    unsigned fds_count = how & 2 ? choose_fds(server, fds) : 0;
    if (how & 4)
        header.msg_id = (uint16_t)(header.msg_id + fuzz_u8(script));
    if (how & 8)
        header.cmd = fuzz_u8(script);
    if (how & 16) {
        header.flags |= SDC_VFU_ERROR;
        header.error = fuzz_u16(script);
    }
    header.msg_size = (uint32_t)(sizeof header + size);
    if (how & 32) {
        header.msg_size = fuzz_u32(script);
        server->raw = true;
    }
    memcpy(message, &header, sizeof header);
    if (how & 1)
        fuzz_bytes(script, message + sizeof header, size);
    else
        memcpy(message + sizeof header, server->payload, size); // an echo
    size += sizeof header;
    size_t cut = how & 64 ? fuzz_u8(script) % size : size;
    send_bytes(server, server->fd, message, cut, fds, fds_count);
    send_bytes(server, server->fd, message + cut, size - cut, NULL, 0);
}

// A question about memory, mostly near what there is.
static void ask(struct server *server)
{
    struct fuzz_input *script = &server->script;
    uint8_t message[32 + 256] = {0};
    uint8_t how = fuzz_u8(script);
    bool write = how & 1;
    uint64_t count = how & 8 ? fuzz_u64(script) : fuzz_u16(script) % 300;
    uint64_t address = how & 16 ? fuzz_u64(script) : BASE - 16 + (uint64_t)(how >> 6) * STEP + fuzz_u16(script) % (STEP + 32);
    struct sdc_vfu_dma_access access = {.address = address, .count = count};
    size_t data = write ? (size_t)sdc_min(how & 32 ? fuzz_u8(script) : count, 256) : 0;
    struct sdc_vfu_header header = {
        .msg_id = fuzz_u8(script),
        .cmd = write ? SDC_VFU_DMA_WRITE : SDC_VFU_DMA_READ,
        .msg_size = (uint32_t)(sizeof header + sizeof access + data),
        .flags = how & 4 ? SDC_VFU_NO_REPLY : 0,
    };
    memcpy(message, &header, sizeof header);
    memcpy(message + sizeof header, &access, sizeof access);
    fuzz_bytes(script, message + sizeof header + sizeof access, data);
    server->asked += !(how & 4);
    send_bytes(server, how & 2 ? server->twin : server->fd, message, header.msg_size, NULL, 0);
}

// What the server says to one message. False: it hangs up.
static bool react(struct server *server)
{
    uint8_t bytes[256];
    for (unsigned i = 0; i < ITEMS_MAX && fuzz_more(&server->script); i++) {
        uint8_t what = fuzz_u8(&server->script);
        switch (what % 8) {
        case 0:
        case 1:
        case 2:
        case 3:
            reply(server);
            return true;
        case 4:
        case 5:
            ask(server);
            break;
        case 6:
            if (what >= 0x80)
                return true; // no reply
            server->raw = true;
            fuzz_bytes(&server->script, bytes, what);
            send_bytes(server, what & 8 ? server->twin : server->fd, bytes, what, NULL, 0);
            break;
        case 7:
            if (what >= 0xf0)
                return false;
            break;
        }
    }
    return fuzz_more(&server->script);
}

static bool receive(int fd, void *bytes, size_t size)
{
    return size == 0 || recv(fd, bytes, size, MSG_WAITALL) == (ssize_t)size;
}

// Reads a message of the client's, which is well-formed or does not come.
static bool hear(struct server *server, int fd)
{
    struct sdc_vfu_header *header = &server->header;
    if (!receive(fd, header, sizeof *header))
        return false;
    fuzz_check(header->msg_size >= sizeof *header && header->msg_size <= sizeof server->payload,
               "a message of an impossible size");
    size_t size = header->msg_size - sizeof *header;
    if (!receive(fd, server->payload, size))
        return false;
    if ((header->flags & SDC_VFU_TYPE_MASK) == SDC_VFU_TYPE_COMMAND) {
        fuzz_check(!(header->flags & ~(uint32_t)SDC_VFU_NO_REPLY) && header->error == 0, "a command with odd flags");
        fuzz_check(fd == server->fd, "a command on the twin");
        return true;
    }
    struct sdc_vfu_dma_access access = {0};
    bool error = header->flags & SDC_VFU_ERROR;
    fuzz_check((header->flags & ~(uint32_t)SDC_VFU_ERROR) == SDC_VFU_TYPE_REPLY, "an answer with odd flags");
    fuzz_check(error == (header->error != 0) && header->error < 4096, "an error without a number, or the other way round");
    if (!error)
        memcpy(&access, server->payload, sdc_min(size, sizeof access));
    fuzz_check(size == (error ? 0 : sizeof access + (header->cmd == SDC_VFU_DMA_READ ? access.count : 0)),
               "an answer of the wrong length");
    server->answered++;
    fuzz_check(server->raw || server->answered <= server->asked, "more answers than questions");
    return true;
}

static void *serve(void *context)
{
    struct server *server = context;
    bool go_on = true;
    while (go_on) {
        struct sdc_wait_item items[] = {{.fd = server->fd, .wanted = SDC_WAIT_INPUT},
                                        {.fd = server->twin, .wanted = SDC_WAIT_INPUT}};
        sdc_wait_fds(items, 2, -1);
        int fd = items[1].seen & SDC_WAIT_INPUT ? server->twin : server->fd;
        go_on = hear(server, fd);
        bool command = (server->header.flags & SDC_VFU_TYPE_MASK) == SDC_VFU_TYPE_COMMAND;
        if (go_on && command && !(server->header.flags & SDC_VFU_NO_REPLY))
            go_on = react(server);
    }
    shutdown(server->fd, SHUT_RDWR);
    shutdown(server->twin, SHUT_RDWR);
    return NULL;
}

// --- the program's side ---

// Memory of ours. The device may only read the first piece.
struct piece {
    uint8_t *bytes;
    size_t size;
};

struct program {
    struct sdc_vfio_client *client;
    struct piece pieces[PIECES];
    uint8_t data[DATA_MAX];
};

static void use_region(struct program *program, uint32_t index, bool eventfds)
{
    struct sdc_vfio_region region;
    struct sdc_vfio_mapping mapping;
    struct sdc_vfio_ioeventfds list;
    if (sdc_vfio_client_region(program->client, index, &region, NULL) < 0)
        return;
    for (uint32_t i = 0; i < region.areas_count && i < 4; i++) {
        const struct sdc_vfio_area *area = &region.areas[i];
        fuzz_check(sdc_within(area->offset, area->size, region.size), "an area outside its region");
        if (sdc_vfio_region_map(&region, area->offset, area->size, &mapping, NULL) == 0) {
            program->data[0] = mapping.data[0];
            program->data[1] = mapping.data[mapping.size - 1];
            sdc_vfio_region_unmap(&mapping);
        }
    }
    if (sdc_vfio_region_map(&region, 0, region.size, &mapping, NULL) == 0)
        sdc_vfio_region_unmap(&mapping);
    if (eventfds && sdc_vfio_client_ioeventfds(program->client, &region, &list, NULL) == 0) {
        for (uint32_t i = 0; i < list.count; i++) {
            fuzz_check(sdc_within(list.entries[i].offset, list.entries[i].size, region.size), "an eventfd outside its region");
            bool own = false;
            for (unsigned j = 0; j < list.fds_count; j++)
                own |= list.fds[j] == list.entries[i].fd;
            fuzz_check(own, "an entry whose fd did not come");
        }
        sdc_vfio_ioeventfds_release(&list);
    }
    sdc_vfio_region_release(&region);
}

static void use_feature(struct program *program, uint8_t a, uint16_t b)
{
    size_t came = 0;
    if (b & 1)
        sdc_vfio_client_feature_probe(program->client, a, b >> 1, NULL);
    else if (b & 2)
        sdc_vfio_client_feature_set(program->client, a, program->data, b % DATA_MAX, NULL);
    else if (sdc_vfio_client_feature_get(program->client, a, program->data, b % 64, b % DATA_MAX, &came, NULL) == 0)
        fuzz_check(came <= b % DATA_MAX, "more data than there is room for");
}

static void use_irqs(struct program *program, uint8_t a, uint16_t b)
{
    static const int fds[16] = {0};
    enum sdc_vfio_irq_action action = SDC_VFIO_IRQ_MASK + b % 3;
    struct sdc_vfio_irq irq;
    if (b & 0x100)
        sdc_vfio_client_irq_eventfds(program->client, a, action, b >> 12, b & 15, b & 0x200 ? fds : NULL, NULL);
    else
        sdc_vfio_client_irq(program->client, a, &irq, NULL);
}

static void use_memory(struct program *program, uint8_t a, uint16_t b)
{
    const struct piece *piece = &program->pieces[a % PIECES];
    uint64_t iova = BASE + (uint64_t)(a % PIECES) * STEP;
    if (b & 1)
        sdc_vfio_client_map_private(program->client, iova, piece->size, a % PIECES == 0 ? SDC_VFIO_MAP_READ : b >> 1 & 3,
                                    piece->bytes, NULL);
    else if (b & 2)
        sdc_vfio_client_unmap(program->client, iova, piece->size, NULL);
    else
        sdc_vfio_client_unmap_all(program->client, NULL);
}

static void write_many(struct program *program, uint8_t a, uint16_t b)
{
    struct sdc_vfio_write writes[300] = {0};
    for (unsigned i = 0; i < SDC_COUNT(writes); i++)
        writes[i] = (struct sdc_vfio_write){.region = a, .offset = b, .size = 1 + (a + i) % 8};
    sdc_vfio_client_write_multi(program->client, writes, b % SDC_COUNT(writes), a & 1, NULL);
}

static void do_one(struct program *program, struct fuzz_input *input)
{
    uint8_t op = fuzz_u8(input), a = fuzz_u8(input);
    uint16_t b = fuzz_u16(input);
    struct sdc_vfio_client *client = program->client;
    struct sdc_vfio_device device;
    switch (op % 13) {
    case 0:
        sdc_vfio_client_device(client, &device, NULL);
        break;
    case 1:
    case 2:
        use_region(program, a, op % 13 == 2);
        break;
    case 3:
        use_irqs(program, a, b);
        break;
    case 4:
        sdc_vfio_client_read(client, a, b, program->data, b % DATA_MAX, NULL);
        break;
    case 5:
        sdc_vfio_client_write(client, a, b, program->data, b % DATA_MAX, NULL);
        break;
    case 6:
        sdc_vfio_client_post(client, a, b, program->data, b % 64, NULL);
        break;
    case 7:
        write_many(program, a, b);
        break;
    case 8:
    case 9:
        use_memory(program, a, b);
        break;
    case 10:
        use_feature(program, a, b);
        break;
    case 11:
        sdc_vfio_client_process(client, NULL);
        break;
    case 12:
        if (a & 1)
            sdc_vfio_client_serve_start(client, NULL);
        else
            sdc_vfio_client_reset(client, NULL);
        break;
    }
}

// Connects, which may fail, and does what the input says.
static void run_program(struct program *program, int fd, struct fuzz_input *input)
{
    static const size_t sizes[PIECES] = {100, STEP, 1};
    uint8_t how = fuzz_u8(input), ops = fuzz_u8(input) % (OPS_MAX + 1);
    struct sdc_vfio_client_options options = {
        .timeout_ms = TIMEOUT_MS, .twin_socket = how & 1, .max_data_transfer = how & 2 ? 512 : 0};
    struct sdc_error err = {0};
    for (unsigned i = 0; i < PIECES; i++) {
        program->pieces[i] = (struct piece){calloc(1, sizes[i]), sizes[i]};
        fuzz_check(program->pieces[i].bytes != NULL, "no memory");
    }
    if (sdc_vfio_client_open_fd(fd, "fuzz", &options, &program->client, &err) < 0)
        fuzz_check(err.code < 0 && err.text[0] != '\0', "refused without a reason");
    for (unsigned i = 0; i < ops && program->client; i++)
        do_one(program, input);
    sdc_vfio_client_close(program->client);
    for (unsigned i = 0; i < program->pieces[0].size; i++)
        fuzz_check(program->pieces[0].bytes[i] == 0, "memory that may only be read was written");
    for (unsigned i = 0; i < PIECES; i++)
        free(program->pieces[i].bytes);
}

// --- the course ---

static int start_server(struct server *server)
{
    int ends[2], twins[2], spares[2];
    fuzz_check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0, "no socket pair");
    fuzz_check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, twins) == 0, "no socket pair");
    fuzz_check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, spares) == 0, "no socket pair");
    server->fd = ends[0];
    server->twin = twins[0];
    server->twin_end = twins[1];
    server->fds[FD_FILE] = sdc_memfd_new("fuzz", FILE_BYTES);
    server->fds[FD_EVENT] = sdc_eventfd_new();
    server->spare = spares[0];
    server->fds[FD_SOCKET] = spares[1];
    server->fds[FD_NULL] = open("/dev/null", O_RDWR | O_CLOEXEC);
    fuzz_check(pthread_create(&server->thread, NULL, serve, server) == 0, "no thread");
    return ends[1];
}

static void stop_server(struct server *server)
{
    pthread_join(server->thread, NULL);
    for (unsigned i = 0; i < FD_KINDS; i++)
        sdc_fd_close(&server->fds[i]);
    sdc_fd_close(&server->fd);
    sdc_fd_close(&server->twin);
    sdc_fd_close(&server->twin_end);
    sdc_fd_close(&server->spare);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct server server;
    static struct program program;
    struct fuzz_input input = {data, size};
    size_t first = size > 1 ? 2 + OP_BYTES * (data[1] % (OPS_MAX + 1)) : size;
    first = first < size ? first : size;
    int fd = fuzz_next_fd();
    server = (struct server){.script = {data + first, size - first}};
    program = (struct program){0};
    run_program(&program, start_server(&server), &input);
    stop_server(&server);
    fuzz_check(fuzz_next_fd() == fd, "an fd was left behind");
    return 0;
}
