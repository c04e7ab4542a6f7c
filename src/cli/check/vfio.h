// SPDX-License-Identifier: BSD-3-Clause
// A vfio-user connection for tests: every byte of a message can be wrong. A reply that breaks the rules that hold for all replies (its
// message ID, its command, its size) fails the test wherever it comes.
#pragma once

#include "cli/check/check.h"
#include "wire/vfio_user.h"
#include "wire/vfio_user_version.h"

enum {
    SDC_CHECK_VFIO_FDS = 16,
    SDC_CHECK_REGION_CONFIG = 7, // linux/vfio.h, VFIO_PCI_CONFIG_REGION_INDEX
    SDC_CHECK_REGIONS_MAX = 64,  // that tests look at
    SDC_CHECK_IRQ_INTX = 0,
    SDC_CHECK_IRQ_MSI = 1,
    SDC_CHECK_IRQ_MSIX = 2,
};

struct sdc_check_vfio {
    struct sdc_check *check;
    int fd;
    uint16_t next_id;
    struct sdc_vfu_capabilities capabilities; // that the server named
};

// A command to send.
struct sdc_check_command {
    uint16_t command;
    uint32_t flags; // of the header
    const void *payload;
    size_t size; // of the payload
    const int *fds;
    unsigned fds_count;
    uint32_t message_size; // that the header names; 0: what it is
};

// A message that came.
struct sdc_check_reply {
    struct sdc_vfu_header header;
    uint8_t *payload; // as the process's memory, never freed
    size_t size;      // of the payload
    int fds[SDC_CHECK_VFIO_FDS];
    unsigned fds_count;
};

// Connects; agrees on a version, as a client without faults; does both, and comes again when it is sent away: a server may end with the
// client before, and be started anew.
void sdc_check_vfio_connect(struct sdc_check_vfio *vfio, struct sdc_check *check);
void sdc_check_vfio_agree(struct sdc_check_vfio *vfio);
void sdc_check_vfio_open(struct sdc_check_vfio *vfio, struct sdc_check *check);
// Closes it.
void sdc_check_vfio_close(struct sdc_check_vfio *vfio);

// Sends bytes as they are, with fds. A server that has closed the connection takes none; that is found when something is received.
void sdc_check_vfio_send_bytes(struct sdc_check_vfio *vfio, const void *bytes, size_t size, const int *fds, unsigned fds_count);
// Lays a command out as bytes (sizeof header + size of them, in memory that is never freed) and gives it a message ID.
uint8_t *sdc_check_vfio_lay_out(struct sdc_check_vfio *vfio, const struct sdc_check_command *command);
// Sends a command. Returns its message ID.
uint16_t sdc_check_vfio_send(struct sdc_check_vfio *vfio, const struct sdc_check_command *command);

// What comes of a command.
enum sdc_check_answer {
    SDC_CHECK_DONE,    // a reply
    SDC_CHECK_REFUSED, // an error reply
    SDC_CHECK_CLOSED,  // the server closed the connection
    SDC_CHECK_SILENCE, // nothing, as long as an answer may take
};
// The next message, whatever it is: DONE, CLOSED or SILENCE.
enum sdc_check_answer sdc_check_vfio_next(struct sdc_check_vfio *vfio, struct sdc_check_reply *reply);
// Waits for the reply to the command of that ID. What the server asks meanwhile is answered with errors.
enum sdc_check_answer sdc_check_vfio_await(struct sdc_check_vfio *vfio, uint16_t id, uint16_t command, struct sdc_check_reply *reply);
// The same, and fails the test unless the reply is there: a command has to be answered.
enum sdc_check_answer sdc_check_vfio_answer(struct sdc_check_vfio *vfio, uint16_t id, uint16_t command, struct sdc_check_reply *reply);

// Sends a command that has to be done; its reply has at least, or exactly, so many bytes of payload.
void sdc_check_vfio_do(struct sdc_check_vfio *vfio, const struct sdc_check_command *command, size_t size, struct sdc_check_reply *reply);
void sdc_check_vfio_do_at_least(struct sdc_check_vfio *vfio, const struct sdc_check_command *command, size_t size,
                                struct sdc_check_reply *reply);
// Sends a command that has to be answered with an error. Returns its errno (0: the server named none). asked: why.
uint32_t sdc_check_vfio_refused(struct sdc_check_vfio *vfio, const struct sdc_check_command *command, const char *asked);
// Sends a command of which the specification does not say what comes of it. It has to be answered, or the connection closed; a remark is
// made of anything but an error. True if the connection goes on.
bool sdc_check_vfio_open_question(struct sdc_check_vfio *vfio, const struct sdc_check_command *command, const char *what);
// A command and back, to see that the server is in step with us.
void sdc_check_vfio_fence(struct sdc_check_vfio *vfio);

// --- messages that many tests send; they have to be done ---

struct sdc_vfu_device_info sdc_check_vfio_info(struct sdc_check_vfio *vfio);
struct sdc_vfu_region_info sdc_check_vfio_region(struct sdc_check_vfio *vfio, uint32_t index);
struct sdc_vfu_irq_info sdc_check_vfio_irq(struct sdc_check_vfio *vfio, uint32_t index);
// REGION_READ and REGION_WRITE; the answer, with its data in *reply.
enum sdc_check_answer sdc_check_vfio_try_read(struct sdc_check_vfio *vfio, uint32_t region, uint64_t offset, uint32_t count,
                                              struct sdc_check_reply *reply);
enum sdc_check_answer sdc_check_vfio_try_write(struct sdc_check_vfio *vfio, uint32_t region, uint64_t offset, const void *data,
                                               uint32_t count, struct sdc_check_reply *reply);
// Little-endian numbers of 1, 2, 4 or 8 bytes.
uint64_t sdc_check_vfio_read(struct sdc_check_vfio *vfio, uint32_t region, uint64_t offset, uint32_t size);
void sdc_check_vfio_write(struct sdc_check_vfio *vfio, uint32_t region, uint64_t offset, uint64_t value, uint32_t size);

extern const struct sdc_check_table sdc_check_vfio_version, sdc_check_vfio_message, sdc_check_vfio_device, sdc_check_vfio_region_access,
    sdc_check_vfio_dma, sdc_check_vfio_irqs, sdc_check_vfio_feature,
    sdc_check_vfio_session, sdc_check_vfio_hostile, sdc_check_vfio_pci, sdc_check_vfio_virtio, sdc_check_vfio_load;
