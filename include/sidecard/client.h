// SPDX-License-Identifier: BSD-3-Clause
// The client's side of a card's socket. A struct sdc_vfio_client is one connection to a vfio-user server, for
// any PCI device: it asks what the device has, reads and writes its regions, gives it memory, and takes its
// interrupts on eventfds. A struct sdc_client_memory is memory that a device can be given; it belongs to no
// protocol.
//
// Threads. Any number of threads may use one connection at once, but for opening and closing it. Messages go
// out whole, in the order of the calls; whoever waits for a reply reads for all.
//
// What the server asks. A device reads and writes memory that was mapped without an fd by asking for it
// (DMA_READ, DMA_WRITE), at any time, on the connection's socket or, if both sides want that, on a second one,
// the twin. The library answers: in whichever thread waits for a reply, else in sdc_vfio_client_process, which
// the program has to call, or in a thread of its own (sdc_vfio_client_serve_start). They read both sockets;
// nobody else may. None of them waits for the server to take an answer.
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
    bool twin_socket;           // offer to have what the server asks on a socket of its own
    bool dma_count_32;          // take and answer DMA_READ and DMA_WRITE as QEMU 10.1 does, with a count of
                                // 32 bits and no payload in the answer to a write: for tests of servers
};

// What was agreed on when the connection was opened.
struct sdc_vfio_client_session {
    uint16_t major;
    uint16_t minor;
    uint32_t max_message_fds;   // that the server takes with one message
    uint32_t max_data_transfer; // bytes of data that either side takes in one message
    uint64_t max_dma_maps;      // mappings that the server keeps at a time
    uint64_t page_sizes;        // bit mask of sizes in bytes: what mappings have to be aligned to
    bool write_multiple;        // the server takes REGION_WRITE_MULTI
    bool twin_socket;           // there is a twin
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

// The socket: to wait for its hang-up, or for sdc_vfio_client_process. Reading from it is the client's affair.
SDC_PUBLIC int sdc_vfio_client_fd(const struct sdc_vfio_client *client);
// The twin, likewise, or -1.
SDC_PUBLIC int sdc_vfio_client_twin_fd(const struct sdc_vfio_client *client);

// Takes what has arrived, without waiting, and not without end: late replies are dropped, the server's own
// commands are answered. 0; 1: there are answers that a socket did not take, call it again when it is writable;
// or the error that the connection has ended with. Call it while a socket is readable and nobody waits for a
// reply.
SDC_PUBLIC int sdc_vfio_client_process(struct sdc_vfio_client *client, struct sdc_error *err);
// Starts a thread that does that until serve_stop or close. Nothing happens if it runs.
SDC_PUBLIC int sdc_vfio_client_serve_start(struct sdc_vfio_client *client, struct sdc_error *err);
// Nothing happens if it does not run. Start and stop are called by one thread at a time.
SDC_PUBLIC void sdc_vfio_client_serve_stop(struct sdc_vfio_client *client);

// --- what the device has ---

struct sdc_vfio_device {
    bool is_pci;
    bool can_reset;
    uint32_t flags; // all of them, as they came
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
    uint16_t capabilities[8]; // the numbers of the reply's capabilities, as many as there is room for
    uint32_t capabilities_count; // all of them
};
// Fills *region, whose fd and areas are the caller's until sdc_vfio_region_release. -EPROTO when the reply's
// list of capabilities is broken (an entry outside the reply, a loop).
SDC_PUBLIC int sdc_vfio_client_region(struct sdc_vfio_client *client, uint32_t index,
                                      struct sdc_vfio_region *region, struct sdc_error *err);
// Closes the fd, frees the areas, and leaves an empty region behind.
SDC_PUBLIC void sdc_vfio_region_release(struct sdc_vfio_region *region);

// A part of a region as memory of ours.
struct sdc_vfio_mapping {
    uint8_t *data;      // byte `offset` of the region
    uint64_t size;      // bytes
    void *pages;        // what was mapped for that: whole pages
    uint64_t pages_size;
};
// Maps [offset, offset + size) of the region, for writing if the region is writable. It may outlive the
// region. -ENOTSUP: that part cannot be mapped (no fd came, it is in no area); -EPROTO: the fd is of a file
// that has fewer bytes, or is no memory. A server that shortens the file later takes the process with it
// (SIGBUS): map regions of servers that you trust so far.
SDC_PUBLIC int sdc_vfio_region_map(const struct sdc_vfio_region *region, uint64_t offset, uint64_t size,
                                   struct sdc_vfio_mapping *mapping, struct sdc_error *err);
// A zeroed mapping does no harm.
SDC_PUBLIC void sdc_vfio_region_unmap(struct sdc_vfio_mapping *mapping);

// A write of `size` bytes at `offset` of a region that can be replaced by signalling an eventfd.
struct sdc_vfio_ioeventfd {
    uint64_t offset;
    uint64_t size;      // bytes; 0: any
    bool match;         // only a write of this value
    uint64_t datamatch;
    int fd;             // one of the list's; several entries may have the same
};
struct sdc_vfio_ioeventfds {
    struct sdc_vfio_ioeventfd *entries;
    uint32_t count;
    int fds[16];
    unsigned fds_count;
};
// Asks for the region's (GET_REGION_IO_FDS). Entries of other kinds than ioeventfds are left out. The list is
// the caller's until sdc_vfio_ioeventfds_release. -EPROTO: the reply is broken (an entry outside the region, an
// fd that did not come); an errno that the server names, mostly: it has none.
SDC_PUBLIC int sdc_vfio_client_ioeventfds(struct sdc_vfio_client *client, const struct sdc_vfio_region *region,
                                          struct sdc_vfio_ioeventfds *list, struct sdc_error *err);
SDC_PUBLIC void sdc_vfio_ioeventfds_release(struct sdc_vfio_ioeventfds *list);

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

// A small write.
struct sdc_vfio_write {
    uint32_t region;
    uint32_t size; // bytes, 1 to 8
    uint64_t offset;
    uint8_t data[8];
};
// Does the writes in their order, many in one message where the server takes that (REGION_WRITE_MULTI), else
// one by one. Posted: as sdc_vfio_client_post; else 0 says that all were done, and after an error some may be.
SDC_PUBLIC int sdc_vfio_client_write_multi(struct sdc_vfio_client *client, const struct sdc_vfio_write *writes,
                                           size_t count, bool posted, struct sdc_error *err);

// --- memory for the device ---

enum sdc_vfio_map_flags {
    SDC_VFIO_MAP_READ = 1,  // the device may read it
    SDC_VFIO_MAP_WRITE = 2, // the device may write it
};

// Shows [offset, offset + size) of fd to the device at iova. fd stays the caller's; with -1 there is a mapping
// and no memory: what the server asks of it is answered with EFAULT. -EINVAL: no such memory, or other flags.
SDC_PUBLIC int sdc_vfio_client_map(struct sdc_vfio_client *client, uint64_t iova, uint64_t size,
                                   uint32_t flags, int fd, uint64_t offset, struct sdc_error *err);
// Shows memory of this process that is not shared. The device reaches it by messages, which have to be answered:
// see above. host stays the caller's, and has to be there until it is unmapped or the connection is closed; the
// device's accesses to aligned numbers of up to 8 bytes are atomic, and in the order in which it asks for
// them. -EEXIST: it overlaps other private memory.
SDC_PUBLIC int sdc_vfio_client_map_private(struct sdc_vfio_client *client, uint64_t iova, uint64_t size,
                                           uint32_t flags, void *host, struct sdc_error *err);
// Exactly a range that was mapped. When it returns 0, the device does not reach the memory any more; after an
// error it may.
SDC_PUBLIC int sdc_vfio_client_unmap(struct sdc_vfio_client *client, uint64_t iova, uint64_t size,
                                     struct sdc_error *err);

// All that was mapped. An addition to the specification, which not every server knows.
SDC_PUBLIC int sdc_vfio_client_unmap_all(struct sdc_vfio_client *client, struct sdc_error *err);

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

// --- features of the device (DEVICE_FEATURE), numbered as in linux/vfio.h ---

enum sdc_vfio_feature_use { SDC_VFIO_FEATURE_GET = 1, SDC_VFIO_FEATURE_SET = 2 };

// Whether the device has a feature for all of these uses (0: for any): 0, or the errno that the server named.
SDC_PUBLIC int sdc_vfio_client_feature_probe(struct sdc_vfio_client *client, uint16_t feature, unsigned uses,
                                             struct sdc_error *err);
// Sends `size` bytes at data (what some features want to know), and puts what comes back there: *came bytes, at
// most room. -EMSGSIZE: there would be more.
SDC_PUBLIC int sdc_vfio_client_feature_get(struct sdc_vfio_client *client, uint16_t feature, void *data,
                                           size_t size, size_t room, size_t *came, struct sdc_error *err);
SDC_PUBLIC int sdc_vfio_client_feature_set(struct sdc_vfio_client *client, uint16_t feature, const void *data,
                                           size_t size, struct sdc_error *err);

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

// What it is made of.
enum sdc_client_memory_kind {
    SDC_CLIENT_MEMORY_SHARED,  // an anonymous file
    SDC_CLIENT_MEMORY_PRIVATE, // no file: the device reaches it by messages
    SDC_CLIENT_MEMORY_HUGE,    // an anonymous file of huge pages of 2 MiB, which some servers want, if the host has them
};

// Memory for a device, mapped here, that the device is to see at iova: an anonymous file, or private memory.
// Pieces are taken from its start to its end; they are given back all at once, by freeing it or by setting used
// to 0.
struct sdc_client_memory {
    uint8_t *base;
    uint64_t iova; // a multiple of 4096
    uint64_t size; // bytes, a multiple of 4096
    uint64_t used; // bytes that are taken
    int fd;        // -1: it is private, for sdc_vfio_client_map_private
};
// size is rounded up to pages. The bytes are zero.
SDC_PUBLIC int sdc_client_memory_new(struct sdc_client_memory *memory, uint64_t iova, uint64_t size,
                                     struct sdc_error *err);
SDC_PUBLIC int sdc_client_memory_new_private(struct sdc_client_memory *memory, uint64_t iova, uint64_t size,
                                             struct sdc_error *err);
// Of any kind. HUGE is rounded up to huge pages; -ENOMEM: the host has not got so many that are free.
SDC_PUBLIC int sdc_client_memory_new_kind(struct sdc_client_memory *memory, enum sdc_client_memory_kind kind, uint64_t iova,
                                          uint64_t size, struct sdc_error *err);
// Takes size bytes whose iova is a multiple of align (a power of two). NULL: there are not that
// many left.
SDC_PUBLIC void *sdc_client_memory_take(struct sdc_client_memory *memory, uint64_t size, uint64_t align,
                                        uint64_t *iova);
// No device reaches it any more.
SDC_PUBLIC void sdc_client_memory_free(struct sdc_client_memory *memory);

#ifdef __cplusplus
}
#endif
