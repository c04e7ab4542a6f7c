// SPDX-License-Identifier: BSD-3-Clause
#include "os/heap.h"

#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>

static atomic_bool ours;
static atomic_uint freed;   // how often
static atomic_uint trimmed; // what that was the last time

void sdc_heap_is_ours(void)
{
    atomic_store(&ours, true);
}

bool sdc_heap_freed(void)
{
    atomic_fetch_add(&freed, 1);
    return atomic_load(&ours);
}

// A system call for each stretch of free pages: with a thousand guests gone, milliseconds that no loop has.
static void *run_trim(void *context)
{
#ifdef __GLIBC__
    malloc_trim(0);
#endif
    return context;
}

void sdc_heap_trim(void)
{
    unsigned now = atomic_load(&freed);
    pthread_t thread;

    if (atomic_exchange(&trimmed, now) != now && pthread_create(&thread, NULL, run_trim, NULL) == 0)
        pthread_detach(thread);
}
