// SPDX-License-Identifier: BSD-3-Clause
#include "driver/waiter.h"

#include "os/fd.h"
#include "os/wait.h"

#include <errno.h>
#include <string.h>

enum { TAG_CALL = 0, TAG_HANGUP = 1, TAG_ASKING = 2 };

int sdc_driver_waiter_open(struct sdc_driver_waiter *waiter, uint16_t queue, struct sdc_error *err)
{
    *waiter = SDC_DRIVER_WAITER_NONE;
    waiter->call_fd = sdc_eventfd_new();
    waiter->fd = waiter->call_fd < 0 ? waiter->call_fd : sdc_waiter_new();
    int ret = waiter->fd < 0 ? waiter->fd : sdc_waiter_add(waiter->fd, waiter->call_fd, SDC_WAIT_INPUT, true, TAG_CALL);
    if (ret == 0)
        return 0;
    sdc_driver_waiter_close(waiter);
    return sdc_error_set(err, ret, SDC_FAULT_HOST, "queue %u: cannot make an eventfd to wait on: %s", queue,
                         strerror(-ret));
}

void sdc_driver_waiter_close(struct sdc_driver_waiter *waiter)
{
    sdc_fd_close(&waiter->call_fd);
    sdc_fd_close(&waiter->fd);
}

int sdc_driver_waiter_watch(const struct sdc_driver_waiter *waiter, int hangup_fd, int asking_fd, struct sdc_error *err)
{
    int ret = sdc_waiter_add(waiter->fd, hangup_fd, SDC_WAIT_HANGUP, false, TAG_HANGUP);
    if (ret == 0 && asking_fd >= 0)
        ret = sdc_waiter_add(waiter->fd, asking_fd, SDC_WAIT_INPUT, false, TAG_ASKING);
    return ret == 0 ? 0 : sdc_error_set(err, ret, SDC_FAULT_HOST, "cannot wait for the connection: %s", strerror(-ret));
}

int sdc_driver_waiter_wait(const struct sdc_driver_waiter *waiter, int timeout_ms,
                           int (*check)(void *context, struct sdc_error *err), void *context, struct sdc_error *err)
{
    uint32_t woken = sdc_waiter_wait(waiter->fd, timeout_ms);
    if (woken & (UINT32_C(1) << TAG_HANGUP)) {
        int ret = check(context, err);
        if (ret < 0)
            return ret;
        return sdc_error_set(err, -ECONNRESET, SDC_FAULT_PEER, "the device side has closed the connection");
    }
    if (woken & (UINT32_C(1) << TAG_ASKING)) {
        int ret = check(context, err);
        // What was asked may have been to signal this very queue, or another thread has served it: look.
        return ret < 0 ? ret : 1;
    }
    return woken & (UINT32_C(1) << TAG_CALL) ? 1 : 0;
}
