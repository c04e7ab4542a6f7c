// SPDX-License-Identifier: BSD-3-Clause
// Who notifies whom, and who sleeps: a driver and a queue that polls for a while. tests/model/run has spin look at every order in which
// their steps can come, and at every time at which a store can reach the other side.
//
// The words of the ring are shared. A store goes into its writer's store buffer and is seen by the other when somebody (`buffer`) takes it
// from there, in order; a full barrier waits until the buffer is empty. That is what x86 does, and all that distinguishes a full barrier
// from the acquire and release accesses that the ring has otherwise.
//
// Found wrong is a state in which nothing can go on (spin: an invalid end state): both sleep, and requests are left. The bugs are
// defined one at a time, to see that they are found.
//
//   EVENT_IDX          event indices instead of NO_NOTIFY and NO_INTERRUPT
//   BUG_NO_BARRIER_C   the queue looks at the available index before the driver sees that it should notify  (split.c, pair [C])
//   BUG_NO_BARRIER_D   the queue looks whether to interrupt before the driver sees the used index           (split.c, pair [D])
//   BUG_NO_LOOK        the queue sleeps after it has asked for notifications, without a look                (rearm)
//   BUG_NO_REARM       the queue's window closes, and nobody tells the driver                               (poller.c, miss)
//   BUG_STIR           a request that ends suppresses notifications, and no window is opened                (poller.c, stir)
//   BUG_LATE_TAKE      a notification is taken after the ring was looked at, not before                     (virtqueue.c, kick_fd_ready)
//   BUG_DRIVER         the driver has no barrier before it looks whether to notify

#define REQUESTS 4
#define DEPTH 2
#define MODULUS 8 // of the ring's indices, more than REQUESTS + DEPTH: no request is taken for another

#ifdef EVENT_IDX
#define DRIVER_MUST_KICK(old) (avail_event == old)
#define QUEUE_MUST_CALL(old) (used_event == old)
#else
#define DRIVER_MUST_KICK(old) (avail_event != 1)
#define QUEUE_MUST_CALL(old) (used_event != 1)
#endif

mtype = { AVAIL, USED, AVAIL_EVENT, USED_EVENT };

// In memory. Without event indices the event words are flags, 1: do not notify, do not interrupt.
byte avail, used, avail_event, used_event;
// Eventfds.
bool kick, call;
bool finished;

chan of_queue = [4] of { mtype, byte };
chan of_driver = [4] of { mtype, byte };

inline store(buffer, word, value) { buffer ! word, value }
inline barrier(buffer) { empty(buffer) }

proctype buffer(chan stores)
{
    byte value;
end:
    do
    :: atomic { stores ? AVAIL, value -> avail = value }
    :: atomic { stores ? USED, value -> used = value }
    :: atomic { stores ? AVAIL_EVENT, value -> avail_event = value }
    :: atomic { stores ? USED_EVENT, value -> used_event = value }
    od
}

// --- the queue, with its poller and its loop ---

byte taken;   // own copies of the indices
byte given;
bool open;    // the window
bool found;

inline suppress()
{
#ifdef EVENT_IDX
    store(of_queue, AVAIL_EVENT, (taken + MODULUS - 1) % MODULUS)
#else
    store(of_queue, AVAIL_EVENT, 1)
#endif
}

inline look() { found = avail != taken }

inline rearm()
{
#ifdef EVENT_IDX
    store(of_queue, AVAIL_EVENT, taken);
#else
    store(of_queue, AVAIL_EVENT, 0);
#endif
#ifndef BUG_NO_BARRIER_C
    barrier(of_queue);
#endif
#ifdef BUG_NO_LOOK
    found = false
#else
    look()
#endif
}

// Shows the driver all that has ended; one interrupt at most. By event index: whether used_event was passed, by any of them.
byte shown;
inline publish()
{
    shown = given;
    given = taken;
    store(of_queue, USED, given);
#ifndef BUG_NO_BARRIER_D
    barrier(of_queue);
#endif
    do
    :: shown == given -> break
    :: shown != given && QUEUE_MUST_CALL(shown) -> call = true; break
    :: else ->
#ifdef EVENT_IDX
        shown = (shown + 1) % MODULUS
#else
        break
#endif
    od
}

// The end of requests that were in flight: it may open a window before the driver sees it.
inline complete()
{
    if
    :: !open -> suppress();
#ifndef BUG_STIR
        open = true
#endif
    :: true
    fi;
    publish()
}

active proctype queue()
{
    run buffer(of_queue);
work:
    suppress();
    taken = avail;
    // They end now, or some time later.
    if
    :: given != taken -> complete()
    :: true
    fi;
    // sdc_poller_rest
    if
    :: open = true
    :: true ->
        open = false;
        rearm();
        if
        :: found -> goto work
        :: else
        fi
    fi;
wait:
    if
    :: open ->
        // A turn that does not sleep: it looks, and serves whatever else there is.
        look();
        if
        :: found -> goto work
        :: !found && kick -> kick = false; goto work
        :: !found && given != taken -> complete(); goto wait
        :: !found && finished -> goto stop
        :: !found ->
            // The window is over.
            open = false;
#ifdef BUG_NO_REARM
            goto wait
#else
            rearm();
            if
            :: found -> goto work
            :: else -> goto wait
            fi
#endif
        fi
    :: !open ->
        // Asleep.
        if
        :: kick ->
#ifdef BUG_LATE_TAKE
            suppress();
            taken = avail;
            kick = false;
            if
            :: given != taken -> publish()
            :: else
            fi;
#ifdef EVENT_IDX
            store(of_queue, AVAIL_EVENT, taken);
#else
            store(of_queue, AVAIL_EVENT, 0);
#endif
            barrier(of_queue);
            goto wait
#else
            kick = false;
            goto work
#endif
        :: given != taken -> complete(); goto wait
        :: finished -> goto stop
        fi
    fi;
stop:
    skip
}

// --- the driver ---

active proctype driver()
{
    byte sent, done; // indices
    byte left = REQUESTS;
    byte old;
    run buffer(of_driver);
    do
    :: left > 0 && (sent + MODULUS - done) % MODULUS < DEPTH ->
        old = sent;
        sent = (sent + 1) % MODULUS;
        left--;
        store(of_driver, AVAIL, sent);
#ifndef BUG_DRIVER
        barrier(of_driver);
#endif
        if
        :: DRIVER_MUST_KICK(old) -> kick = true
        :: else
        fi
    :: used != done -> done = used
    :: used == done && done != sent ->
        // It wants an interrupt for the next, looks once more, sleeps.
#ifdef EVENT_IDX
        store(of_driver, USED_EVENT, done);
#else
        store(of_driver, USED_EVENT, 0);
#endif
        barrier(of_driver);
        if
        :: used != done
        :: used == done -> call
        fi;
        call = false;
#ifndef EVENT_IDX
        store(of_driver, USED_EVENT, 1);
#endif
    :: left == 0 && done == sent -> break
    od;
    finished = true
}
