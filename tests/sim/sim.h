// SPDX-License-Identifier: BSD-3-Clause
// The random walk: a driver, a VMM, the product from its session down to its queues, a backend and the clock in one thread, every
// decision from a seed. One simulation at a time; its parts are the files of this folder.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct sdc_loop;
struct sdc_block;
struct sdc_pci_device;

enum {
    SIM_LOOPS = 3,
    SIM_QUEUES = 4,
    SIM_PAGE = 4096,
    SIM_SECTOR = 512,
};

// --- sim.c: the seed, the log of events, failures ---

void sim_begin(uint64_t seed, bool trace);
uint64_t sim_random(void);
uint32_t sim_below(uint32_t limit);              // 0 to limit - 1
bool sim_chance(uint32_t times, uint32_t of);
uint32_t sim_pick(uint32_t low, uint32_t high);  // both included
uint64_t sim_hash(void);                         // of all events so far

// An event with up to four numbers, for %llu and %llx in format, which must be a literal.
#define EVENT(format, ...) sim_event(format, (unsigned long long[4]){__VA_ARGS__})
void sim_event(const char *format, const unsigned long long numbers[4]);
void sim_show_events(void);

// A rule was broken: says so and ends this seed (sim_run returns false).
_Noreturn void sim_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
bool sim_run(void (*body)(void));
const char *sim_failure(void);

// --- walk.c: what this seed's walk is like ---

struct sim_plan {
    unsigned loops;
    unsigned queues;
    // Features that the driver may accept.
    bool packed_allowed, event_idx_allowed, indirect_allowed, reset_queue_allowed, in_order_allowed;
    unsigned queue_size_max; // entries
    unsigned preempt;        // of 256: how often somebody else runs in the middle of a turn
    unsigned remote;         // of 16: regions without an fd
    unsigned errors;         // of 256: backend requests that fail
    unsigned refusals;       // of 256: DMA messages that the client refuses
    unsigned malformed;      // of 256: requests that break their queue
    unsigned invalid;        // of 256: requests that fail
    unsigned restless;       // of 256: steps with an event
    unsigned fragments;      // of 256: receives that bring only a part
    unsigned splinters;      // of 256: buffers that are cut small
    bool old_client;         // its DMA messages have a 32-bit count
    bool patience_ends;      // time jumps by seconds now and then
    bool unmaps, masks, locks, resizes;
    bool read_only, write_cache;
    unsigned block_size;     // bytes
    int poll;                // enum sdc_poll_mode of the queues
    unsigned poll_max_us;
    unsigned socket_room;    // bytes from server to client
};
extern struct sim_plan plan;

// --- step.c: who runs next ---

void sim_steps_open(void);
// One step of anybody who can take one. False: nobody can.
bool sim_step(void);
// Perhaps somebody else runs here, in the middle of something.
void sim_preempt(void);
uint64_t sim_now(void); // nanoseconds
// Lets everybody run until *flag is true; it failing to become true is a failure with this text.
void sim_wait(const bool *flag, const char *what);

// --- loops.c ---

void sim_loops_open(void);
void sim_loops_close(void);
struct sdc_loop *sim_loop(unsigned index);
bool sim_loop_can_run(unsigned index); // has something to do, and is not in a turn already
bool sim_loop_polls(unsigned index);   // has nothing to do, perhaps, but takes turns all the same
void sim_loop_run(unsigned index);     // a turn
bool sim_loop_is_running(const struct sdc_loop *loop); // the innermost turn is its
bool sim_loop_in_turn(unsigned index);
uint64_t sim_loops_deadline(void);     // of the earliest timer; UINT64_MAX: none
uint64_t sim_turns(void);              // that have begun so far
uint64_t sim_turn_begun(void);         // the number of the innermost turn; 0: nobody is in one
// The home loop is taken by who is to be as if on it.
void sim_home_enter(void);
void sim_home_leave(void);

// --- socket.c: file descriptors and the connection, as the product's os/ shows them ---

enum sim_fd_kind { SIM_FD_NONE, SIM_FD_SOCKET, SIM_FD_EVENT, SIM_FD_FILE };
int sim_fd_new(enum sim_fd_kind kind, unsigned object);
unsigned sim_fds_open(void);
// Of the server's end, enum sdc_ready.
uint32_t sim_socket_ready(void);
void sim_socket_open(void);
void sim_socket_close(void);                                   // by the client
void sim_socket_write(const void *data, size_t size, const int *fds, unsigned count);
size_t sim_socket_read(void *data, size_t size);               // what is there
size_t sim_socket_pending(void);                               // bytes that the client has not read
bool sim_socket_unread(void);                                  // the server has not read all

extern uint8_t *sim_mapped_page; // of doorbells, or NULL

// --- client.c: the VMM ---

struct sim_command {
    bool busy;    // until the caller gives it back
    bool replied;
    uint16_t id;
    uint16_t command;
    int error;    // errno
    uint8_t data[64]; // of the reply's payload
    uint32_t size;
    void (*done)(struct sim_command *command);
    void *context;
};
void sim_client_open(void);  // connects and agrees on a version
void sim_client_close(void); // leaves; waits until the server has taken the session down
void sim_client_reconnect(void); // leaves and comes back, with interrupts as at first
bool sim_client_connected(void);
bool sim_client_can_read(void);
void sim_client_read(void);  // one message
bool sim_client_can_answer(void);
void sim_client_answer(void); // one DMA message
void sim_client_abort(void);  // frees what is left, after a failure too
bool sim_client_ended(void);  // the session has
bool sim_client_agreed(void); // on a version

struct sim_command *sim_send(uint16_t command, const void *payload, size_t size, const int *fds, unsigned count);
// Waits for the reply and gives the command back. errno of the reply.
int sim_reply(struct sim_command *command, const char *what);
void sim_register_write(uint64_t offset, unsigned size, uint64_t value);
uint64_t sim_register_read(uint64_t offset, unsigned size);
void sim_post_write(uint64_t offset, unsigned size, uint64_t value); // nobody waits for it
int sim_device_reset(void);
void sim_config_write(uint32_t offset, unsigned size, uint32_t value);
void sim_set_irqs(uint32_t vectors);
void sim_mask_some_irq(void); // or unmasks it, in some plans
void sim_unmask_irqs(void);
bool sim_irq_masked(uint32_t vector);
void sim_irq(uint32_t vector); // the server signals an eventfd

// --- guest.c: the guest's memory ---

void sim_guest_open(void);
void sim_guest_close(void);
void sim_guest_map_all(void);       // and waits
void sim_guest_forget(void);        // the session is gone: nothing is mapped
bool sim_guest_whole(void);         // every region is mapped
void sim_guest_restless(void);      // unmaps or maps something
void sim_guest_check(void);         // nothing changed but what may
// A free place for size bytes; writable: that the device may write.
bool sim_guest_take(uint32_t size, uint32_t align, bool writable, uint64_t *iova);
void sim_guest_give(uint64_t iova, uint32_t size);
void sim_guest_allow(uint64_t iova, uint32_t size, bool allowed); // for the device to write; counts
void sim_guest_put(uint64_t iova, const void *data, size_t size);
void sim_guest_get(uint64_t iova, void *data, size_t size);
void sim_guest_scribble(uint64_t iova, uint32_t size);
uint64_t sim_guest_hole(void);      // an address where nothing is
bool sim_guest_steady(uint64_t iova, uint32_t size); // mapped as a whole and not about to change
bool sim_guest_shared(uint64_t iova, uint32_t size); // nothing of it without an fd
// A DMA message. 0 or an errno.
int sim_guest_dma(uint64_t iova, uint8_t *data, uint64_t size, bool write);
bool sim_guest_check_span(const void *base, size_t size); // false: in memory that was given up
uint8_t *sim_file_map(unsigned file);
void sim_file_unmap(void *base);
uint64_t sim_file_size(unsigned file);

static inline void sim_put16(uint64_t iova, uint16_t value)
{
    sim_guest_put(iova, &value, sizeof value);
}
static inline void sim_put32(uint64_t iova, uint32_t value)
{
    sim_guest_put(iova, &value, sizeof value);
}
static inline void sim_put64(uint64_t iova, uint64_t value)
{
    sim_guest_put(iova, &value, sizeof value);
}
static inline uint16_t sim_get16(uint64_t iova)
{
    uint16_t value;
    sim_guest_get(iova, &value, sizeof value);
    return value;
}
static inline uint32_t sim_get32(uint64_t iova)
{
    uint32_t value;
    sim_guest_get(iova, &value, sizeof value);
    return value;
}

// --- disk.c: the backend ---

struct sdc_block *sim_disk_open(void);
bool sim_disk_can_run(void);
void sim_disk_run(void);
bool sim_disk_has_finished(const struct sdc_loop *loop);
void sim_disk_dispatch(struct sdc_loop *loop);
uint64_t sim_disk_sectors(void);
void sim_disk_resize(void);
unsigned sim_disk_requests(void); // outstanding
unsigned sim_disk_queues(void);   // open
bool sim_disk_locked(void); // something waits for its lock
void sim_disk_unlock(void);
uint64_t sim_disk_flushes(void);  // that succeeded
void sim_disk_expect_fua(bool fua);
// An error that a request of this kind was given: takes it back. False: there was none.
bool sim_disk_take_error(unsigned op, uint64_t sector, uint32_t sectors);
// The same of any that lies partly there.
bool sim_disk_take_error_touching(unsigned op, uint64_t sector, uint32_t sectors);
unsigned sim_disk_errors(unsigned op, uint64_t sector, uint32_t sectors);
void sim_disk_forget_errors(void);
void sim_disk_abort(void);
uint64_t sim_disk_stamp(uint64_t sector); // what a sector holds now

// --- model.c: what a disk may hold ---

enum { SIM_SECTORS = 256 }; // of the disk at its largest

void sim_model_begin(void);
// A write begins: 0 is zeroes. Its handle.
unsigned sim_model_write(uint64_t sector, uint32_t sectors, uint64_t stamp, uint64_t invoked);
// It ended; sure: it took effect as a whole.
void sim_model_written(unsigned handle, uint64_t responded, bool sure);
bool sim_model_may_read(uint64_t sector, uint64_t stamp, uint64_t invoked, uint64_t responded);
// No read that began before this is under way.
void sim_model_prune(uint64_t oldest);
uint64_t sim_model_new_stamp(void);
void sim_fill_sector(uint8_t *sector, uint64_t number, uint64_t stamp);
// The stamp of a sector that was filled as a whole; UINT64_MAX: it was not.
uint64_t sim_read_sector(const uint8_t *sector, uint64_t number);

// --- ring.c: the driver's half of a ring ---

struct sim_part {
    uint64_t iova;
    uint32_t size;
    bool writable;
};

enum { SIM_RING_MAX = 64, SIM_PARTS = 48 };

struct sim_chain {
    struct sim_part parts[SIM_PARTS];
    unsigned count;
    bool indirect;
    uint64_t table; // its place, if indirect
    void *owner;
    uint16_t id;
    uint16_t first;  // packed: where it stands
    uint16_t slots;  // entries of the ring
    unsigned broken; // how it is malformed; 0: not at all
    uint16_t number; // the ring's, in the order in which they were added
};

struct sim_ring {
    bool packed, event_idx, indirect, in_order;
    uint16_t added, polled; // chains, ever
    uint16_t size;
    uint64_t desc, driver, device;
    uint32_t desc_size, driver_size, device_size;
    struct sim_chain *chains[SIM_RING_MAX]; // by id
    uint16_t free;      // entries
    uint16_t in_flight; // chains
    // split
    uint16_t avail, avail_shown, used;
    bool busy[SIM_RING_MAX]; // descriptors
    uint16_t links[SIM_RING_MAX]; // of each descriptor
    // packed
    uint16_t next, next_used;
    bool wrap, used_wrap;
    uint16_t order[SIM_RING_MAX]; // ids by position
    uint16_t kicked;  // split: avail at the last look whether to kick; packed: entries since then
    bool irqs;        // the driver wants interrupts
    uint64_t irqs_off_since; // step
    uint16_t event;   // split: used_event
};

bool sim_ring_open(struct sim_ring *ring); // finds places; size and flags are set
void sim_ring_close(struct sim_ring *ring);
unsigned sim_ring_slots(const struct sim_ring *ring, unsigned parts, bool indirect);
void sim_ring_add(struct sim_ring *ring, struct sim_chain *chain); // there is room
void sim_ring_show(struct sim_ring *ring); // split: what was added
bool sim_ring_wants_kick(struct sim_ring *ring);
// The next used chain, or NULL.
struct sim_chain *sim_ring_poll(struct sim_ring *ring, uint32_t *written);
bool sim_ring_has_used(struct sim_ring *ring);
void sim_ring_irqs(struct sim_ring *ring, bool on);
// An interrupt comes: fails if the driver had said that it wants none.
void sim_ring_check_irq(struct sim_ring *ring);
unsigned sim_ring_break_kinds(const struct sim_ring *ring);

// --- the driver of a kind of device ---

struct sim_io;
struct sim_driver {
    const char *name;
    unsigned bar; // with its registers
    unsigned ios_max;
    struct sim_io *(*io)(unsigned index); // each request that it can have; NULL: not in this walk
    void (*make_card)(struct sdc_block *block, struct sdc_loop *const *loops); // sim_card
    void (*start)(void);
    void (*restless)(void);
    bool (*can_run)(unsigned queue);
    void (*run)(unsigned queue);
    void (*drain)(void); // waits until every request has ended
    void (*leave)(void); // it does nothing any more
    void (*lost)(void);  // the session is gone, or the device was reset: gives up what is in flight
    void (*irq)(uint32_t vector);
    void (*refused)(void); // a DMA message was refused: whatever is in flight may suffer
    bool (*rings_touch)(uint64_t iova, uint64_t size);
    void (*moved)(uint64_t iova, uint64_t size); // memory goes or comes
    void (*resized)(uint64_t low);               // requests past this sector may fail
    unsigned long (*requests)(void);             // that ended well or were refused, in all seeds
};
extern const struct sim_driver sim_virtio_driver; // driver.c
extern const struct sim_driver sim_nvme_driver;   // nvme_driver.c
extern const struct sim_driver *sim_driver; // this walk's
extern struct sdc_pci_device *sim_card;
