// SPDX-License-Identifier: BSD-3-Clause
// How a post wakes a loop (src/loop/loop.c, pair [wake]), which may also be one that polls and is not woken at all. Stores go through store
// buffers, as in notify.pml; found wrong is a state in which the loop sleeps over a post.
//
//   BUG_NO_BARRIER_OWNER   the loop looks at its posts before others see that it sleeps
//   BUG_NO_BARRIER_POSTER  the poster looks whether the loop sleeps before its post is there
//   BUG_NO_LOOK            the loop sleeps without a look at its posts

#define POSTS 3

mtype = { PENDING, SLEEPING };

byte pending;
byte sleeping;
bool woken; // the eventfd

chan of_loop = [4] of { mtype, byte };
chan of_poster = [4] of { mtype, byte };

proctype buffer(chan stores)
{
    byte value;
end:
    do
    :: atomic { stores ? PENDING, value -> pending = value }
    :: atomic { stores ? SLEEPING, value -> sleeping = value }
    od
}

active proctype loop()
{
    byte run_so_far;
    run buffer(of_loop);
    do
    :: run_so_far == POSTS -> break
    :: pending != run_so_far -> run_so_far = pending
    :: run_so_far < POSTS ->
        // A turn that does not sleep: a poller is open.
        skip
    :: run_so_far < POSTS ->
        of_loop ! SLEEPING, 1;
#ifndef BUG_NO_BARRIER_OWNER
        empty(of_loop);
#endif
#ifndef BUG_NO_LOOK
        if
        :: pending != run_so_far
        :: pending == run_so_far -> woken
        fi;
#else
        woken;
#endif
        of_loop ! SLEEPING, 0;
        empty(of_loop);
        woken = false
    od
}

active proctype poster()
{
    byte posted;
    run buffer(of_poster);
    do
    :: posted == POSTS -> break
    :: posted < POSTS ->
        posted++;
        of_poster ! PENDING, posted;
#ifndef BUG_NO_BARRIER_POSTER
        empty(of_poster);
#endif
        if
        :: sleeping -> woken = true
        :: else
        fi
    od
}
