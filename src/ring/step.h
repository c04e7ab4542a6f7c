// SPDX-License-Identifier: BSD-3-Clause
// Where a process can be killed between two stores that others see: tests that are built with SDC_STEP_HOOK stop at each such place.
#pragma once

#ifdef SDC_STEP_HOOK
extern void (*sdc_step)(void);
#define SDC_STEP() (sdc_step ? sdc_step() : (void)0)
#else
#define SDC_STEP() ((void)0)
#endif
