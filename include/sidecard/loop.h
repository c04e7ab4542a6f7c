// SPDX-License-Identifier: BSD-3-Clause
// Loops: where devices run. A loop is one thread, or whoever calls sdc_server_process, and everything that can happen to it: work that
// other threads hand over, fds that become ready, timers. All callbacks run on the loop's thread and never wait for anything. The loop of a
// device is sdc_pci_loop, sdc_virtio_loop or sdc_virtqueue_loop.
//
// Structures are embedded in what they belong to, start out zeroed but for what the caller fills in, and stay where they are while the loop
// has them. "Owner" means: on the loop's thread, or before anybody runs it.
#pragma once

#include <sidecard/error.h>

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct sdc_loop;

// What a loop waits by. With epoll, which needs no permission, file I/O is done by up to four threads of the
// loop's. AUTO: io_uring, or epoll where the host refuses that, which is said in the log at level info.
enum sdc_loop_kind { SDC_LOOP_AUTO, SDC_LOOP_IO_URING, SDC_LOOP_EPOLL };

// Monotonic nanoseconds as of the start of this turn. Owner.
SDC_PUBLIC uint64_t sdc_loop_now(const struct sdc_loop *loop);

// --- posts: work handed to a loop ---

// From sdc_loop_post until run is called it is the loop's; run may post it again or free it. Posts of one thread run in their order.
struct sdc_post {
    struct sdc_post *next;
    void (*run)(struct sdc_post *post);
};
// Any thread, the owner too; also from a signal handler. While it is on its way it must not be posted again.
SDC_PUBLIC void sdc_loop_post(struct sdc_loop *loop, struct sdc_post *post);

// --- deferred: once, at the end of this turn (owner) ---

// What a register access sets off is deferred: it runs when the access was answered.
struct sdc_deferred {
    struct sdc_deferred *next;
    bool queued; // false at first
    void (*run)(struct sdc_deferred *deferred);
};
// Does nothing if it is queued already. What a deferred function defers runs in the same turn's end, after it.
SDC_PUBLIC void sdc_loop_defer(struct sdc_loop *loop, struct sdc_deferred *deferred);
// Takes it out if it is queued.
SDC_PUBLIC void sdc_loop_undefer(struct sdc_loop *loop, struct sdc_deferred *deferred);

// --- watches: an fd that becomes ready (owner) ---

enum sdc_ready { SDC_READABLE = 1, SDC_WRITABLE = 2, SDC_HANGUP = 4 }; // HANGUP is always reported

struct sdc_watch {
    int fd;
    uint32_t wanted; // enum sdc_ready
    void (*ready)(struct sdc_watch *watch, uint32_t events);
    void *armed; // the loop's; NULL at first
};
// Level-triggered: while an event stands, ready is called once each turn. -ENOMEM.
SDC_PUBLIC int sdc_loop_watch(struct sdc_loop *loop, struct sdc_watch *watch);
// Changes what is wanted of a watched fd; 0 pauses it altogether.
SDC_PUBLIC void sdc_loop_rewatch(struct sdc_loop *loop, struct sdc_watch *watch, uint32_t wanted);
// ready is not called any more, also not in this turn; watch and fd are the caller's again. Idempotent.
SDC_PUBLIC void sdc_loop_unwatch(struct sdc_loop *loop, struct sdc_watch *watch);

// --- timers (owner) ---

struct sdc_timer {
    uint64_t deadline_ns;
    uint32_t place; // the loop's: 0 while it is not set
    void (*expired)(struct sdc_timer *timer);
};
// Sets or moves it. Runs once. -ENOMEM.
SDC_PUBLIC int sdc_loop_timer_set(struct sdc_loop *loop, struct sdc_timer *timer, uint64_t after_ns);
SDC_PUBLIC void sdc_loop_timer_clear(struct sdc_loop *loop, struct sdc_timer *timer);

#ifdef __cplusplus
}
#endif
