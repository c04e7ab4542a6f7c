// SPDX-License-Identifier: BSD-3-Clause
// The client's side of a card's socket. A struct sdc_vfio_client is one connection to a vfio-user server, for
// any PCI device: it asks what the device has, reads and writes its regions, gives it memory, and takes its
// interrupts on eventfds. A struct sdc_client_memory is memory that a device can be given; it belongs to no
// protocol.
//
// Threads. Any number of threads may use one connection at once, but for opening and closing it. Messages go
// out whole, in the order of the calls; whoever waits for a reply reads for all.
//
// Errors. Functions return 0 or a negative errno, and fill *err, which may be NULL. When the server refuses a
// command, the code is the errno that it named. When the connection itself is lost (the server went away, or
// broke the protocol), that call and all that follow fail with the same code and text. A reply that does not
// come within the timeout is -ETIMEDOUT: the connection stays usable, and the reply is thrown away if it
// comes after all.
//
// The protocol: docs/interop/vfio-user.rst in the QEMU repository; regions and interrupts are numbered as in
// linux/vfio.h.
#pragma once

#include <sidecard/error.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct sdc_vfio_client;

// --- open and close ---

// What to offer and how long to wait. Zero means: as said.
struct sdc_vfio_client_options {
    uint32_t timeout_ms;        // for each reply, and for being let in; 0: 5000
    uint32_t max_message_fds;   // fds that we take with one message; 0: 16, at most 16
    uint32_t max_data_transfer; // bytes of data in one message; 0: 1 MiB, at most that
};

// What was agreed on when the connection was opened.
struct sdc_vfio_client_session {
    uint16_t major;
    uint16_t minor;
    uint32_t max_message_fds;   // that the server takes with one message
    uint32_t max_data_transfer; // bytes of data that either side takes in one message
    uint64_t max_dma_maps;      // mappings that the server keeps at a time
    uint64_t page_sizes;        // bit mask of sizes in bytes: what mappings have to be aligned to
};

// Connects to the Unix socket at path and agrees on a version. options may be NULL. -ENOENT and others from
// connecting; -ETIMEDOUT: no answer (a server that has another client lets us wait); -EPROTO: it speaks
// something else.
SDC_PUBLIC int sdc_vfio_client_open(const char *path, const struct sdc_vfio_client_options *options,
                                    struct sdc_vfio_client **client, struct sdc_error *err);
// The same on a connected stream socket, which is the client's from then on, also when this fails. name is
// for error texts.
SDC_PUBLIC int sdc_vfio_client_open_fd(int fd, const char *name,
                                       const struct sdc_vfio_client_options *options,
                                       struct sdc_vfio_client **client, struct sdc_error *err);
// No other thread uses it any more. Calls that were sent and not waited for are freed. NULL is fine.
SDC_PUBLIC void sdc_vfio_client_close(struct sdc_vfio_client *client);

SDC_PUBLIC const struct sdc_vfio_client_session *sdc_vfio_client_session(
    const struct sdc_vfio_client *client);

// The socket: to wait for its hang-up. Reading from it is the client's affair.
SDC_PUBLIC int sdc_vfio_client_fd(const struct sdc_vfio_client *client);

// Takes what has arrived, without waiting: late replies are dropped, the server's own commands are answered.
// 0, or the error that the connection has ended with. Call it when the socket is readable and nobody waits
// for a reply.
SDC_PUBLIC int sdc_vfio_client_process(struct sdc_vfio_client *client, struct sdc_error *err);

// --- what the device has ---

struct sdc_vfio_device {
    bool is_pci;
    bool can_reset;
    uint32_t regions_count;
    uint32_t irqs_count;
};
SDC_PUBLIC int sdc_vfio_client_device(struct sdc_vfio_client *client, struct sdc_vfio_device *device,
                                      struct sdc_error *err);

struct sdc_vfio_area {
    uint64_t offset; // bytes into the region
    uint64_t size;
};

struct sdc_vfio_region {
    uint32_t index;
    bool readable;
    bool writable;
    bool mappable;      // fd can be mapped: all of it, or the areas if there are any
    uint64_t size;      // bytes; 0: the device has no such region
    int fd;             // -1: none came
    uint64_t fd_offset; // where the region begins in fd
    struct sdc_vfio_area *areas;
    uint32_t areas_count;
};
// Fills *region, whose fd and areas are the caller's until sdc_vfio_region_release. -EPROTO when the reply's
// list of capabilities is broken (an entry outside the reply, a loop).
SDC_PUBLIC int sdc_vfio_client_region(struct sdc_vfio_client *client, uint32_t index,
                                      struct sdc_vfio_region *region, struct sdc_error *err);
// Closes the fd, frees the areas, and leaves an empty region behind.
SDC_PUBLIC void sdc_vfio_region_release(struct sdc_vfio_region *region);

struct sdc_vfio_irq {
    uint32_t index;
    uint32_t count; // vectors
    bool eventfd;
    bool maskable;
    bool automasked;
    bool no_resize;
};
SDC_PUBLIC int sdc_vfio_client_irq(struct sdc_vfio_client *client, uint32_t index, struct sdc_vfio_irq *irq,
                                   struct sdc_error *err);

// --- registers ---

// Reads or writes size bytes at offset of a region, as the device has them (PCI: little-endian). A size over
// max_data_transfer goes in several messages, sent ahead of their replies. A size of 0 does nothing.
SDC_PUBLIC int sdc_vfio_client_read(struct sdc_vfio_client *client, uint32_t region, uint64_t offset,
                                    void *data, size_t size, struct sdc_error *err);
SDC_PUBLIC int sdc_vfio_client_write(struct sdc_vfio_client *client, uint32_t region, uint64_t offset,
                                     const void *data, size_t size, struct sdc_error *err);
// A posted write: no reply comes, and nobody learns whether the device refused it. size is at most
// max_data_transfer.
SDC_PUBLIC int sdc_vfio_client_post(struct sdc_vfio_client *client, uint32_t region, uint64_t offset,
                                    const void *data, size_t size, struct sdc_error *err);

// --- memory for the device ---

enum sdc_vfio_map_flags {
    SDC_VFIO_MAP_READ = 1,  // the device may read it
    SDC_VFIO_MAP_WRITE = 2, // the device may write it
};

// Shows [offset, offset + size) of fd to the device at iova. fd stays the caller's; with -1 the server has to
// reach the memory by messages, which this library answers with ENOSYS.
SDC_PUBLIC int sdc_vfio_client_map(struct sdc_vfio_client *client, uint64_t iova, uint64_t size,
                                   uint32_t flags, int fd, uint64_t offset, struct sdc_error *err);
// Exactly a range that was mapped. When it returns 0, the device does not reach the memory any more.
SDC_PUBLIC int sdc_vfio_client_unmap(struct sdc_vfio_client *client, uint64_t iova, uint64_t size,
                                     struct sdc_error *err);

// --- interrupts and reset ---

enum sdc_vfio_irq_action { SDC_VFIO_IRQ_MASK = 1, SDC_VFIO_IRQ_UNMASK, SDC_VFIO_IRQ_TRIGGER };

// Does it to vectors [start, start + count) of an interrupt. TRIGGER with a count of 0 takes all its eventfds
// away.
SDC_PUBLIC int sdc_vfio_client_irq_none(struct sdc_vfio_client *client, uint32_t index,
                                        enum sdc_vfio_irq_action action, uint32_t start, uint32_t count,
                                        struct sdc_error *err);
// Does it to those of them whose byte in bools is not 0.
SDC_PUBLIC int sdc_vfio_client_irq_bools(struct sdc_vfio_client *client, uint32_t index,
                                         enum sdc_vfio_irq_action action, uint32_t start, uint32_t count,
                                         const uint8_t *bools, struct sdc_error *err);
// TRIGGER: from now on the device signals fds[i] for vector start + i. MASK, UNMASK: signalling the fd does
// it. The fds stay the caller's. fds NULL: takes those vectors' eventfds away. More fds than the server takes
// at once go in several messages.
SDC_PUBLIC int sdc_vfio_client_irq_eventfds(struct sdc_vfio_client *client, uint32_t index,
                                            enum sdc_vfio_irq_action action, uint32_t start, uint32_t count,
                                            const int *fds, struct sdc_error *err);

SDC_PUBLIC int sdc_vfio_client_reset(struct sdc_vfio_client *client, struct sdc_error *err);

// --- any message, several at a time ---

struct sdc_vfio_call; // a command whose reply has not been taken yet

struct sdc_vfio_command {
    uint16_t command; // its number in the specification
    bool posted;      // NO_REPLY
    const void *head; // the payload: head, then data
    size_t head_size;
    const void *data; // may be NULL
    size_t data_size;
    const int *fds; // stay the caller's
    unsigned fds_count;
};

struct sdc_vfio_reply {
    void *payload; // size bytes, malloc'd
    size_t size;
    int fds[16];
    unsigned fds_count;
};

// Sends a command. Unless it is posted (then call may be NULL), *call has to be waited for.
SDC_PUBLIC int sdc_vfio_client_send(struct sdc_vfio_client *client, const struct sdc_vfio_command *command,
                                    struct sdc_vfio_call **call, struct sdc_error *err);
// Waits for the reply and frees call, in every case. On 0 *reply is the caller's until
// sdc_vfio_reply_release; reply NULL drops it. When the server refused the command: the errno that it named
// (-EIO if it named none).
SDC_PUBLIC int sdc_vfio_client_wait(struct sdc_vfio_client *client, struct sdc_vfio_call *call,
                                    struct sdc_vfio_reply *reply, struct sdc_error *err);
// Frees the payload and closes the fds.
SDC_PUBLIC void sdc_vfio_reply_release(struct sdc_vfio_reply *reply);

// --- memory ---

// Memory for a device: an anonymous file, mapped here, that the device is to see at iova. Pieces are taken
// from its start to its end; they are given back all at once, by freeing it or by setting used to 0.
struct sdc_client_memory {
    uint8_t *base;
    uint64_t iova; // a multiple of 4096
    uint64_t size; // bytes, a multiple of 4096
    uint64_t used; // bytes that are taken
    int fd;
};
// size is rounded up to pages. The bytes are zero.
SDC_PUBLIC int sdc_client_memory_new(struct sdc_client_memory *memory, uint64_t iova, uint64_t size,
                                     struct sdc_error *err);
// Takes size bytes whose iova is a multiple of align (a power of two, at most 4096). NULL: there are not that
// many left.
SDC_PUBLIC void *sdc_client_memory_take(struct sdc_client_memory *memory, uint64_t size, uint64_t align,
                                        uint64_t *iova);
// No device reaches it any more.
SDC_PUBLIC void sdc_client_memory_free(struct sdc_client_memory *memory);

#ifdef __cplusplus
}
#endif
