// SPDX-License-Identifier: BSD-3-Clause
// The keep alive timer (base 3.9): a driver that has set one and falls silent has lost its controller.
#include "base/check.h"
#include "device/nvme/controller.h"

#define NS_PER_MS UINT64_C(1000000)

static void expired(struct sdc_timer *timer)
{
    struct nvme *nvme = sdc_container(sdc_container(timer, struct nvme_admin, keep_alive), struct nvme, admin);

    nvme_logs_error(&nvme->admin.logs, &(struct nvme_error){
        .sq = UINT16_MAX, // no command's
        .cid = UINT16_MAX,
        .status = SDC_NVME_SC_KEEP_ALIVE_EXPIRED,
    });
    nvme_fatal(nvme, "the keep alive timer has expired");
}

int nvme_keep_alive_restart(struct nvme *nvme)
{
    struct nvme_admin *admin = &nvme->admin;

    admin->keep_alive.expired = expired;
    sdc_loop_timer_clear(nvme->home, &admin->keep_alive);
    if (admin->features.keep_alive_ms == 0)
        return 0;
    return sdc_loop_timer_set(nvme->home, &admin->keep_alive, admin->features.keep_alive_ms * NS_PER_MS);
}

int nvme_keep_alive(struct nvme_command *command)
{
    return nvme_keep_alive_restart(command->sq->nvme) < 0 ? SDC_NVME_SC_INTERNAL : SDC_NVME_SC_SUCCESS;
}
