// SPDX-License-Identifier: BSD-3-Clause
// Inside the loop: what a loop is made of, and what it asks of the way in which it waits. loop.c keeps posts,
// timers and deferred functions; an engine (io_uring or epoll) keeps watches and file I/O.
// Nobody else includes this but the simulation, which is an engine.
#pragma once

#include "loop/loop.h"
#include "loop/poller.h"

#include <errno.h>
#include <stdatomic.h>

#define SDC_LOOP_FOREVER UINT64_MAX

struct sdc_loop_engine {
    enum sdc_loop_kind kind;
    // Makes loop->engine.
    int (*open)(struct sdc_loop *loop, struct sdc_error *err);
    void (*close)(struct sdc_loop *loop);
    // On the thread that runs the loop, before its first turn and after its last.
    void (*start)(struct sdc_loop *loop);
    void (*finish)(struct sdc_loop *loop);
    // Sends down what was asked for and sleeps until something happens, a wake, or timeout_ns have passed; 0: does not sleep. In a loop
    // that polls (pollers are open) it is called at every turn, and must not cost a system call when there is nothing to do.
    void (*wait)(struct sdc_loop *loop, uint64_t timeout_ns);
    // Runs the callbacks of what has happened.
    void (*dispatch)(struct sdc_loop *loop);
    // An fd that is readable when something has happened since settle(), of which wait() and dispatch() would make callbacks. Or a
    // negative errno.
    int (*fd)(struct sdc_loop *loop);
    // Sends down what was asked for. False: something has happened already, or not all of it could be sent.
    bool (*settle)(struct sdc_loop *loop);
    // Ends wait(), this one or the next. Any thread.
    void (*wake)(struct sdc_loop *loop);
    int (*watch)(struct sdc_loop *loop, struct sdc_watch *watch);
    void (*rewatch)(struct sdc_loop *loop, struct sdc_watch *watch);
    void (*unwatch)(struct sdc_loop *loop, struct sdc_watch *watch);
    // loop->files[file] is there from now on, with its fd; no I/O on it any more.
    void (*file_add)(struct sdc_loop *loop, int file);
    void (*file_remove)(struct sdc_loop *loop, int file);
    void (*io)(struct sdc_loop *loop, struct sdc_io *io);
    // NULL, both: memory is not registered.
    void (*buffer_add)(struct sdc_loop *loop, struct sdc_loop_buffer *buffer);
    void (*buffer_remove)(struct sdc_loop *loop, struct sdc_loop_buffer *buffer);
    // NULL, both: there is no cheaper way than sending.
    int (*send)(struct sdc_loop *loop, struct sdc_send *send, const void *bytes, size_t size);
    void (*unsend)(struct sdc_loop *loop, struct sdc_send *send);
};

struct sdc_loop_file {
    int fd;
    unsigned users; // who added it and did not remove it; zero: its number is free
    bool direct;     // io_uring: its disk works on what it is asked for (O_DIRECT)
    bool registered; // io_uring: the kernel has it under its number
    bool wait;       // epoll: nothing is done at once
};

struct sdc_loop_outside;

struct sdc_loop {
    const struct sdc_loop_engine *ops;
    void *engine;
    struct sdc_loop_outside *outside; // NULL: it is not turned from outside
    bool started; // the engine's start has been called, and not its finish
    uint64_t now_ns;
    atomic_bool running; // between the start and the end of sdc_loop_run, or of the calls of sdc_loop_process
    const void *_Atomic owner; // what tells the thread that runs it, or ran it last, from others
    atomic_bool stopping;

    _Atomic(struct sdc_post *) posts; // newest first
    atomic_bool sleeping;             // the owner is about to sleep or asleep: who clears it wakes it

    struct sdc_deferred *deferred, **deferred_end;

    struct sdc_poller *pollers;     // those that are open: the loop does not sleep
    struct sdc_poller *next_poller; // whose turn to be looked at is next

    struct sdc_loop_file *files;
    int files_capacity;

    struct sdc_timer **timers; // a binary heap; the timer at [i] has place i + 1
    uint32_t timers_count, timers_capacity;
};

// What a host answers that does not permit a system call (seccomp, LSMs) or does not have it.
static inline bool sdc_loop_is_refusal(int code)
{
    return code == -EPERM || code == -ENOSYS || code == -EACCES;
}

extern const struct sdc_loop_engine sdc_loop_uring;
extern const struct sdc_loop_engine sdc_loop_epoll;

// A loop over any engine. sdc_loop_new chooses one of the two above; the simulation (tests/sim) has one of its own.
int sdc_loop_engine_new(const struct sdc_loop_engine *engine, struct sdc_loop **loop, struct sdc_error *err);
// One turn without the sleep, for who takes the turns of several loops in one thread, also one inside another's. Not while it is
// run by sdc_loop_run, nor from inside a turn of its own.
void sdc_loop_turn(struct sdc_loop *loop);

// loop.c, for outside.c: what a call does on the thread that the loop is run by. The loop is entered, takes turns (true: that was the
// last), and is left, or left for good.
void sdc_loop_enter(struct sdc_loop *loop);
bool sdc_loop_take_turn(struct sdc_loop *loop);
void sdc_loop_leave(struct sdc_loop *loop);
void sdc_loop_leave_for_good(struct sdc_loop *loop);

// loop.c, for what the owner asks of the loop between two calls of sdc_loop_process: has the next one come.
void sdc_loop_stir(struct sdc_loop *loop);

// outside.c
void sdc_loop_outside_free(struct sdc_loop *loop);

// poller.c: looks at all that are open. Whether there was any work.
bool sdc_loop_look_around(struct sdc_loop *loop);

// timers.c
uint64_t sdc_loop_next_deadline(const struct sdc_loop *loop); // SDC_LOOP_FOREVER when no timer is set
void sdc_loop_run_timers(struct sdc_loop *loop);
