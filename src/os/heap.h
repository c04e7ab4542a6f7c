// SPDX-License-Identifier: BSD-3-Clause
// What the C library keeps of memory that was freed. Of a guest that has gone that is most of what it took, since others' lies between.
// The heap is a process's: a program that uses the library keeps its own.
#pragma once

#include <stdbool.h>

// At the start: the heap is nobody's but ours.
void sdc_heap_is_ours(void);
// Any thread: much was freed. Whether sdc_heap_trim is to be called in a while.
bool sdc_heap_freed(void);
// Any thread: if something was freed since this was done last, a thread of its own gives back what is free.
void sdc_heap_trim(void);
