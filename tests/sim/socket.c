// SPDX-License-Identifier: BSD-3-Clause
// File descriptors and the connection between client and server: what the product's os/ makes of the kernel, without a kernel. Bytes
// come in pieces, fds with the first byte that was sent with them, and a receive ends behind the piece that carried fds.
#include "sim.h"

#include "loop/loop.h"
#include "os/fd.h"
#include "os/socket.h"

#include <sidecard/pci.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { FDS = 512, FIRST_FD = 1000000, MARKS = 64, MARK_FDS = 16 };

struct fd {
    enum sim_fd_kind kind;
    unsigned object;
};

// fds that are on their way with the bytes [begin, end) of the stream.
struct mark {
    uint64_t begin, end;
    int fds[MARK_FDS];
    unsigned count;
};

struct stream {
    uint8_t *data;
    size_t used, size;
};

static struct fd fds[FDS];
static unsigned fds_count; // open
static struct stream to_server, to_client;
static uint64_t taken; // bytes that the server has received
static struct mark marks[MARKS];
static unsigned marks_count;
static bool client_gone, server_gone;

// --- file descriptors ---

int sim_fd_new(enum sim_fd_kind kind, unsigned object)
{
    for (int i = 0; i < FDS; i++) {
        if (fds[i].kind == SIM_FD_NONE) {
            fds[i] = (struct fd){kind, object};
            fds_count++;
            return FIRST_FD + i;
        }
    }
    sim_fail("the server keeps file descriptors");
}

static struct fd *fd_of(int number)
{
    struct fd *fd = &fds[number - FIRST_FD];

    if (number < FIRST_FD || number >= FIRST_FD + FDS || fd->kind == SIM_FD_NONE)
        sim_fail("fd %d, which is none, is used", number);
    return fd;
}

unsigned sim_fds_open(void)
{
    return fds_count;
}

void __wrap_sdc_fd_close(int *number);
void __wrap_sdc_fd_close(int *number)
{
    if (*number < 0)
        return;
    fd_of(*number)->kind = SIM_FD_NONE;
    fds_count--;
    *number = -1;
}

bool __wrap_sdc_fd_is_eventfd(int number);
bool __wrap_sdc_fd_is_eventfd(int number)
{
    return fd_of(number)->kind == SIM_FD_EVENT;
}

int __wrap_sdc_fd_set_nonblocking(int number);
int __wrap_sdc_fd_set_nonblocking(int number)
{
    fd_of(number);
    return 0;
}

void __wrap_sdc_eventfd_signal(int number);
void __wrap_sdc_eventfd_signal(int number)
{
    struct fd *fd = fd_of(number);

    if (fd->kind != SIM_FD_EVENT)
        sim_fail("fd %d, which is no eventfd, is signalled", number);
    sim_irq(fd->object);
}

int __wrap_sdc_fd_identify(int number, struct sdc_file_identity *identity);
int __wrap_sdc_fd_identify(int number, struct sdc_file_identity *identity)
{
    struct fd *fd = fd_of(number);

    if (fd->kind != SIM_FD_FILE)
        return -EINVAL;
    *identity = (struct sdc_file_identity){.device = 1,
                                           .inode = fd->object,
                                           .size = sim_file_size(fd->object),
                                           .page_size = SIM_PAGE,
                                           .kind = SDC_MEMORY_FILE_SHARED,
                                           .writable = true};
    return 0;
}

int __wrap_sdc_fd_map(int number, uint64_t size, bool writable, void **base);
int __wrap_sdc_fd_map(int number, uint64_t size, bool writable, void **base)
{
    struct fd *fd = fd_of(number);

    (void)writable;
    if (size > sim_file_size(fd->object))
        sim_fail("more than a file is mapped");
    *base = sim_file_map(fd->object);
    return 0;
}

void __wrap_sdc_unmap(void *base, uint64_t size);
void __wrap_sdc_unmap(void *base, uint64_t size)
{
    (void)size;
    sim_file_unmap(base);
}

// A page that clients may map.
uint8_t *sim_mapped_page;

int __wrap_sdc_mapped_page_new(struct sdc_pci_mappable *mappable, const char *name, uint64_t offset, void **page);
int __wrap_sdc_mapped_page_new(struct sdc_pci_mappable *mappable, const char *name, uint64_t offset, void **page)
{
    (void)name;
    *mappable = (struct sdc_pci_mappable){.areas = {{.offset = offset, .size = SIM_PAGE}}, .areas_count = 1, .fd = -1};
    *page = sim_mapped_page = calloc(1, SIM_PAGE);
    return *page ? 0 : -ENOMEM;
}

void __wrap_sdc_mapped_page_free(struct sdc_pci_mappable *mappable, void **page);
void __wrap_sdc_mapped_page_free(struct sdc_pci_mappable *mappable, void **page)
{
    free(*page);
    *page = sim_mapped_page = NULL;
    *mappable = (struct sdc_pci_mappable){0};
}

// --- streams ---

static void append(struct stream *stream, const void *data, size_t size)
{
    if (stream->used + size > stream->size) {
        stream->size = 2 * (stream->used + size);
        stream->data = realloc(stream->data, stream->size);
        if (!stream->data)
            abort();
    }
    memcpy(stream->data + stream->used, data, size);
    stream->used += size;
}

static void drop(struct stream *stream, size_t size)
{
    stream->used -= size;
    memmove(stream->data, stream->data + size, stream->used);
}

void sim_socket_open(void)
{
    to_server.used = to_client.used = 0;
    taken = 0;
    marks_count = 0;
    client_gone = server_gone = false;
    memset(fds, 0, sizeof fds);
    fds_count = 0;
}

void sim_socket_close(void)
{
    client_gone = true;
    to_client.used = 0;
}

void sim_socket_write(const void *data, size_t size, const int *numbers, unsigned count)
{
    if (server_gone) {
        for (unsigned i = 0; i < count; i++)
            __wrap_sdc_fd_close(&(int){numbers[i]});
        return;
    }
    if (count > 0) {
        if (marks_count == MARKS)
            sim_fail("too many messages with fds are under way");
        struct mark *mark = &marks[marks_count++];
        *mark = (struct mark){.begin = taken + to_server.used, .end = taken + to_server.used + size, .count = count};
        memcpy(mark->fds, numbers, count * sizeof *numbers);
    }
    append(&to_server, data, size);
}

size_t sim_socket_read(void *data, size_t size)
{
    size_t length = size < to_client.used ? size : to_client.used;

    if (length > 0)
        memcpy(data, to_client.data, length);
    drop(&to_client, length);
    return length;
}

size_t sim_socket_pending(void)
{
    return to_client.used;
}

bool sim_socket_unread(void)
{
    return to_server.used > 0;
}

uint32_t sim_socket_ready(void)
{
    return (to_server.used > 0 || client_gone ? SDC_READABLE : 0) |
           (to_client.used < plan.socket_room || client_gone ? SDC_WRITABLE : 0) | (client_gone ? SDC_HANGUP : 0);
}

ssize_t __wrap_sdc_socket_receive(int number, void *buffer, size_t size, int *out, int *count);
ssize_t __wrap_sdc_socket_receive(int number, void *buffer, size_t size, int *out, int *count)
{
    size_t length = size < to_server.used ? size : to_server.used;

    if (fd_of(number)->kind != SIM_FD_SOCKET)
        sim_fail("fd %d, which is no socket, is read", number);
    *count = 0;
    if (length == 0)
        return client_gone ? 0 : -EAGAIN;
    if (sim_chance(plan.fragments, 256))
        length = 1 + sim_below(length < 64 ? (uint32_t)length : 64);
    struct mark *mark = &marks[0];
    if (marks_count > 0 && mark->begin < taken + length) {
        if (length > mark->end - taken)
            length = (size_t)(mark->end - taken);
        memcpy(out, mark->fds, mark->count * sizeof *out);
        *count = (int)mark->count;
        memmove(mark, mark + 1, --marks_count * sizeof *mark);
    }
    memcpy(buffer, to_server.data, length);
    drop(&to_server, length);
    taken += length;
    return (ssize_t)length;
}

ssize_t __wrap_sdc_socket_send(int number, const struct iovec *iov, unsigned iov_count, const int *with, unsigned count);
ssize_t __wrap_sdc_socket_send(int number, const struct iovec *iov, unsigned iov_count, const int *with, unsigned count)
{
    size_t room = to_client.used < plan.socket_room ? plan.socket_room - to_client.used : 0;
    ssize_t sent = 0;

    (void)with;
    if (fd_of(number)->kind != SIM_FD_SOCKET || count > 0)
        sim_fail("fd %d, which is no socket, is written to, or fds are sent", number);
    if (client_gone)
        return -EPIPE;
    for (unsigned i = 0; i < iov_count && room > 0; i++) {
        size_t length = iov[i].iov_len < room ? iov[i].iov_len : room;
        if (sim_chance(plan.fragments, 256) && length > 0)
            length = 1 + sim_below(length < 200 ? (uint32_t)length : 200);
        append(&to_client, iov[i].iov_base, length);
        room -= length;
        sent += (ssize_t)length;
        if (length < iov[i].iov_len)
            break;
    }
    return sent > 0 ? sent : -EAGAIN;
}

void __wrap_sdc_socket_close_read_out(int *number);
void __wrap_sdc_socket_close_read_out(int *number)
{
    if (*number < 0)
        return;
    server_gone = true;
    to_server.used = 0;
    for (; marks_count > 0; marks_count--) {
        struct mark *mark = &marks[marks_count - 1];
        for (unsigned i = 0; i < mark->count; i++)
            __wrap_sdc_fd_close(&mark->fds[i]);
    }
    __wrap_sdc_fd_close(number);
}
