// SPDX-License-Identifier: BSD-3-Clause
// The far end of a session under test, which harnesses of several protocols play: sends bytes in any pieces while the server works, and
// takes messages apart that arrive in any pieces.
#pragma once

#include "input.h"

struct fuzz_peer {
    bool ended;     // the session has
    unsigned turns; // that the server has for each piece
    void (*take)(struct fuzz_peer *peer); // takes what the server has sent
};
// Sends all of it over fd, fds with its first byte, unless the session has ended or the server takes nothing more. wait: lets the server
// work after each piece.
void fuzz_peer_send(struct fuzz_peer *peer, int fd, const uint8_t *bytes, size_t size, const int *fds, unsigned fds_count, bool wait);
// Runs the loop until the session has ended, which it has to, since the peer is gone.
void fuzz_peer_await_end(struct fuzz_peer *peer);

enum { FUZZ_HEAD_MAX = 64 };

// One direction of a connection.
struct fuzz_arrival {
    size_t header; // bytes of a message's header
    size_t most;   // bytes from the start of a message that are kept, at most FUZZ_HEAD_MAX
    size_t (*size)(const uint8_t *header); // bytes of the message, header and all; checks that it may be so long
    void (*taken)(struct fuzz_arrival *arrival); // head has the message's first bytes, or all of a shorter one
    uint8_t head[FUZZ_HEAD_MAX];
    size_t used; // bytes of head
    size_t left; // of the message, behind what is in head
};
void fuzz_arrival_take(struct fuzz_arrival *arrival, const uint8_t *bytes, size_t size);

// The number that the next fd would get: the same before and after if none was left behind.
int fuzz_next_fd(void);
// Writes some of the input somewhere into memory. NULL: takes the input all the same.
void fuzz_poke(struct fuzz_input *input, uint8_t *memory, size_t size);
