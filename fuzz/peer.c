// SPDX-License-Identifier: BSD-3-Clause
#include "peer.h"

#include "base/check.h"
#include "card.h"
#include "os/socket.h"

#include <errno.h>
#include <unistd.h>

enum {
    TRIES = 200,       // to send while the server has no room
    PATIENCE = 100000, // turns: what has not ended then hangs
};

void fuzz_peer_send(struct fuzz_peer *peer, int fd, const uint8_t *bytes, size_t size, const int *fds, unsigned fds_count, bool wait)
{
    for (unsigned i = 0; i < TRIES && size > 0 && !peer->ended; i++) {
        struct iovec iov = {(void *)(uintptr_t)bytes, size};
        ssize_t sent = sdc_socket_send(fd, &iov, 1, fds, fds_count);
        if (sent > 0) {
            bytes += sent;
            size -= (size_t)sent;
            fds_count = 0;
        } else if (sent != -EAGAIN) {
            return;
        }
        if (wait || sent == -EAGAIN) {
            fuzz_turns(peer->turns, NULL, NULL);
            peer->take(peer);
        }
    }
}

static bool has_ended(void *context)
{
    return ((struct fuzz_peer *)context)->ended;
}

void fuzz_peer_await_end(struct fuzz_peer *peer)
{
    fuzz_check(fuzz_turns(PATIENCE, has_ended, peer), "the peer has gone and the session does not end");
}

// How many bytes of the message that arrives are kept.
static size_t head_size(const struct fuzz_arrival *arrival)
{
    return arrival->used < arrival->header ? arrival->header : (size_t)sdc_min(arrival->size(arrival->head), arrival->most);
}

static void take_piece(struct fuzz_arrival *arrival, const uint8_t *bytes, size_t size)
{
    if (arrival->left > 0) {
        arrival->left -= size;
        return;
    }
    memcpy(arrival->head + arrival->used, bytes, size);
    arrival->used += size;
    if (arrival->used < arrival->header || arrival->used < head_size(arrival))
        return;
    arrival->left = arrival->size(arrival->head) - arrival->used;
    arrival->used = 0;
    arrival->taken(arrival);
}

void fuzz_arrival_take(struct fuzz_arrival *arrival, const uint8_t *bytes, size_t size)
{
    while (size > 0) {
        size_t length = (size_t)sdc_min(size, arrival->left > 0 ? arrival->left : head_size(arrival) - arrival->used);
        take_piece(arrival, bytes, length);
        bytes += length;
        size -= length;
    }
}

int fuzz_next_fd(void)
{
    int fd = dup(STDERR_FILENO);

    close(fd);
    return fd;
}

void fuzz_poke(struct fuzz_input *input, uint8_t *memory, size_t size)
{
    uint8_t bytes[256];
    uint16_t offset = fuzz_u16(input);
    uint8_t length = fuzz_u8(input);

    fuzz_bytes(input, bytes, length);
    if (memory && (size_t)offset + length <= size)
        memcpy(memory + offset, bytes, length);
}
