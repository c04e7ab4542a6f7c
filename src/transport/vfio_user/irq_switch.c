// SPDX-License-Identifier: BSD-3-Clause
// Masking and unmasking by eventfd (SET_IRQS with DATA_EVENTFD and MASK or UNMASK): as in VFIO the client's signal does it, ours
// are TRIGGER's. KVM signals such an fd when the guest has ended an INTx.
#include "os/fd.h"
#include "transport/vfio_user/session.h"

#include "base/check.h"
#include "base/log.h"

#include <errno.h>
#include <stdlib.h>

// Reads of one switch in a turn. One takes all that was signalled, but for an eventfd that counts down (EFD_SEMAPHORE), which could
// keep a loop awake for ever.
enum { READS = 64 };

struct vfu_irq_switch {
    struct sdc_watch watch;
    struct vfu_session *session;
    enum sdc_pci_irq kind;
    uint32_t vector;
    bool masks; // else it unmasks
    struct vfu_irq_switch **place;
};

static void close_switch(struct vfu_irq_switch *toggle)
{
    *toggle->place = NULL;
    sdc_loop_unwatch(toggle->session->loop, &toggle->watch);
    sdc_fd_close(&toggle->watch.fd);
    free(toggle);
}

static void signalled(struct sdc_watch *watch, uint32_t events)
{
    struct vfu_irq_switch *toggle = sdc_container(watch, struct vfu_irq_switch, watch);
    struct vfu_session *session = toggle->session;
    unsigned reads = 0;

    (void)events;
    while (reads < READS && sdc_eventfd_take(watch->fd) > 0)
        reads++;
    if (reads > 0)
        vfu_irqs_set_mask(&session->irqs, session->device, toggle->kind, toggle->vector, toggle->masks);
    if (reads < READS)
        return;
    sdc_log_peer("%s: an eventfd that %s an interrupt is signalled without end, and let go", session->options->name,
                 toggle->masks ? "masks" : "unmasks");
    close_switch(toggle);
}

static struct vfu_irq_switch **place_of(struct vfu_irqs *irqs, enum sdc_pci_irq kind, uint32_t vector, bool masks)
{
    return &irqs->sets[kind].switches[2 * (size_t)vector + masks];
}

int vfu_irq_switch_set(struct vfu_session *session, enum sdc_pci_irq kind, uint32_t vector, bool masks, int *fd)
{
    struct vfu_irq_switch **place = place_of(&session->irqs, kind, vector, masks);
    struct vfu_irq_switch *toggle = calloc(1, sizeof *toggle);
    if (!toggle)
        return -ENOMEM;

    *toggle = (struct vfu_irq_switch){
        .watch = {.fd = *fd, .wanted = SDC_READABLE, .ready = signalled},
        .session = session,
        .kind = kind,
        .vector = vector,
        .masks = masks,
        .place = place,
    };
    int rc = sdc_loop_watch(session->loop, &toggle->watch);
    if (rc < 0) {
        free(toggle);
        return rc;
    }
    *fd = -1;
    vfu_irq_switch_clear(session, kind, vector, masks);
    *place = toggle;
    return 0;
}

void vfu_irq_switch_clear(struct vfu_session *session, enum sdc_pci_irq kind, uint32_t vector, bool masks)
{
    struct vfu_irq_switch *toggle = *place_of(&session->irqs, kind, vector, masks);

    if (toggle)
        close_switch(toggle);
}

void vfu_irq_switches_clear(struct vfu_session *session, enum sdc_pci_irq kind)
{
    for (uint32_t vector = 0; vector < session->irqs.sets[kind].count; vector++) {
        vfu_irq_switch_clear(session, kind, vector, false);
        vfu_irq_switch_clear(session, kind, vector, true);
    }
}
