// SPDX-License-Identifier: BSD-3-Clause
// A server without a thread, for tests of the client that must not depend on time: the test writes what the
// server says before the client wants to hear it, and reads afterwards what the client has said. The client
// numbers its commands from 0, so that the numbers of the replies are known.
#pragma once

#include "wire/vfio_user.h"

#include <sidecard/client.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct script {
    struct sdc_vfio_client *client;
    struct sdc_error err;
    int fd;           // the server's end
    int twin;         // the server's end of the twin, -1: there is none
    uint16_t next_id; // of the next command that is replied to
};

struct script_message {
    struct sdc_vfu_header header;
    uint8_t payload[65536];
};

// Sends bytes, all of them; false when the socket takes no more.
bool script_send(int fd, const void *bytes, size_t size, const int *fds, unsigned fds_count);
// Sends a message whose payload is head and data. False as above.
bool script_say(int fd, struct sdc_vfu_header header, const void *head, size_t head_size, const void *data,
                size_t data_size);
// Says the reply to the client's next command (error 0: a good one).
void script_reply(struct script *script, uint16_t command, uint32_t error, const void *payload, size_t size);
void script_reply_fds(struct script *script, uint16_t command, const void *payload, size_t size,
                      const int *fds, unsigned fds_count);
// Asks for memory, on fd: a DMA_READ, or with data a DMA_WRITE of count bytes.
bool script_ask(int fd, uint16_t id, uint32_t flags, uint64_t address, uint64_t count, const void *data);
// The next message that the client has sent. False: there is none.
bool script_hear(int fd, struct script_message *message);
// Passes over what the client has sent; how many messages.
unsigned script_skip(int fd);

// Replies to VERSION with json (NULL: 4 fds, 4096 bytes, REGION_WRITE_MULTI) and fds, and opens the client.
int script_try(struct script *script, const char *json, const int *fds, unsigned fds_count,
               const struct sdc_vfio_client_options *options);
// The same, which succeeds, with a twin socket if the options offer one. What the client has sent is passed
// over.
void script_open(struct script *script, const struct sdc_vfio_client_options *options);
void script_close(struct script *script);

// Maps private memory, which the server takes.
void script_map(struct script *script, uint64_t iova, uint64_t size, uint32_t flags, void *host);
// What the client has answered on fd to a DMA command: the error, 0 for none. The payload, without its head,
// goes to data.
uint32_t script_answer(int fd, uint16_t id, uint16_t command, uint64_t address, uint64_t count, void *data);
