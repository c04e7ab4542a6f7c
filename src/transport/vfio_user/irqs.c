// SPDX-License-Identifier: BSD-3-Clause
// Interrupts: which eventfd stands for which vector, what is masked, and SET_IRQS, which changes both.
#include "os/fd.h"
#include "transport/vfio_user/session.h"

#include "base/check.h"
#include "base/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int vfu_irqs_init(struct vfu_irqs *irqs, const struct sdc_pci_device *device)
{
    pthread_mutex_init(&irqs->lock, NULL);
    for (unsigned kind = 0; kind < SDC_PCI_IRQS; kind++) {
        struct vfu_irq_set *set = &irqs->sets[kind];
        // That the device is to be let go of is the server's affair, not the device's.
        set->count = kind == SDC_PCI_REQ ? 1 : device->irq_counts[kind];
        if (set->count == 0)
            continue;
        set->fds = malloc(set->count * sizeof *set->fds);
        if (set->fds)
            memset(set->fds, 0xff, set->count * sizeof *set->fds);
        set->slots = malloc(set->count * sizeof *set->slots);
        for (uint32_t i = 0; set->slots && i < set->count; i++)
            set->slots[i] = SDC_SLOT_NONE;
        set->masked = calloc(set->count, sizeof *set->masked);
        set->pending = calloc(set->count, sizeof *set->pending);
        set->switches = calloc(set->count, 2 * sizeof(struct vfu_irq_switch *));
        if (!set->fds || !set->slots || !set->masked || !set->pending || !set->switches)
            return -ENOMEM;
    }
    return 0;
}

void vfu_irqs_destroy(struct vfu_irqs *irqs)
{
    for (unsigned kind = 0; kind < SDC_PCI_IRQS; kind++) {
        struct vfu_irq_set *set = &irqs->sets[kind];
        for (uint32_t i = 0; set->fds && i < set->count; i++)
            sdc_fd_close(&set->fds[i]);
        free(set->fds);
        free(set->slots);
        free(set->masked);
        free(set->pending);
        free(set->switches);
    }
    pthread_mutex_destroy(&irqs->lock);
}

uint32_t vfu_irq_flags(enum sdc_pci_irq kind)
{
    static const uint32_t flags[SDC_PCI_IRQS] = {
        [SDC_PCI_INTX] = SDC_VFU_IRQ_EVENTFD | SDC_VFU_IRQ_MASKABLE | SDC_VFU_IRQ_AUTOMASKED,
        [SDC_PCI_MSI] = SDC_VFU_IRQ_EVENTFD | SDC_VFU_IRQ_MASKABLE,
        [SDC_PCI_MSIX] = SDC_VFU_IRQ_EVENTFD | SDC_VFU_IRQ_MASKABLE,
        [SDC_PCI_ERR] = SDC_VFU_IRQ_EVENTFD,
        [SDC_PCI_REQ] = SDC_VFU_IRQ_EVENTFD,
    };

    return flags[kind];
}

// --- firing; the lock is held ---

static void set_pending(struct sdc_pci_device *device, uint32_t vector, bool pending)
{
    uint64_t bit = UINT64_C(1) << (vector % 64);

    if (pending)
        atomic_fetch_or(&device->msix_pending[vector / 64], bit);
    else
        atomic_fetch_and(&device->msix_pending[vector / 64], ~bit);
}

static void fire(struct vfu_irqs *irqs, struct sdc_pci_device *device, enum sdc_pci_irq kind, uint32_t vector)
{
    struct vfu_irq_set *set = &irqs->sets[kind];

    if (vector >= set->count)
        return;
    if (set->fds[vector] < 0 || set->masked[vector]) {
        if (kind == SDC_PCI_MSIX)
            set_pending(device, vector, true);
        else if (kind == SDC_PCI_MSI)
            set->pending[vector] = set->masked[vector];
        return;
    }
    // A level cannot be told by an eventfd: INTx is sent once, then held back until the client unmasks it.
    if (kind == SDC_PCI_INTX)
        set->masked[vector] = true;
    sdc_eventfd_signal(set->fds[vector]);
}

// After a vector became deliverable: what was held back is sent.
static void catch_up(struct vfu_irqs *irqs, struct sdc_pci_device *device, enum sdc_pci_irq kind, uint32_t vector)
{
    struct vfu_irq_set *set = &irqs->sets[kind];
    bool due = set->pending[vector];

    if (kind == SDC_PCI_INTX)
        due = device->ops->intx_level && device->ops->intx_level(device);
    else if (kind == SDC_PCI_MSIX)
        due = (device->msix_pending[vector / 64] >> (vector % 64)) & 1;
    if (!due || set->fds[vector] < 0 || set->masked[vector])
        return;
    if (kind == SDC_PCI_MSIX)
        set_pending(device, vector, false);
    set->pending[vector] = false;
    fire(irqs, device, kind, vector);
}

void vfu_irqs_raise(struct vfu_irqs *irqs, struct sdc_pci_device *device, enum sdc_pci_irq kind, uint32_t vector)
{
    pthread_mutex_lock(&irqs->lock);
    fire(irqs, device, kind, vector);
    pthread_mutex_unlock(&irqs->lock);
}

static void set_mask(struct vfu_irqs *irqs, struct sdc_pci_device *device, enum sdc_pci_irq kind, uint32_t vector, bool masked)
{
    irqs->sets[kind].masked[vector] = masked;
    if (!masked)
        catch_up(irqs, device, kind, vector);
}

void vfu_irqs_set_mask(struct vfu_irqs *irqs, struct sdc_pci_device *device, enum sdc_pci_irq kind, uint32_t vector, bool masked)
{
    pthread_mutex_lock(&irqs->lock);
    set_mask(irqs, device, kind, vector, masked);
    pthread_mutex_unlock(&irqs->lock);
}

void vfu_irqs_reset(struct vfu_irqs *irqs)
{
    struct vfu_irq_set *msi = &irqs->sets[SDC_PCI_MSI];

    pthread_mutex_lock(&irqs->lock);
    for (uint32_t i = 0; i < msi->count; i++)
        msi->pending[i] = false;
    pthread_mutex_unlock(&irqs->lock);
}

// --- SET_IRQS ---

struct request {
    struct sdc_vfu_set_irqs set;
    const uint8_t *bools; // DATA_BOOL: one for each vector
    int *fds;             // DATA_EVENTFD: one for each vector, or none at all
    int fds_count;
    uint32_t *slots;
};

// Whether the request means the i-th vector of its range.
static bool means(const struct request *request, uint32_t i)
{
    return !request->bools || request->bools[i];
}

static void disable(struct vfu_session *session, enum sdc_pci_irq kind, uint32_t start, uint32_t count)
{
    struct vfu_irq_set *set = &session->irqs.sets[kind];

    for (uint32_t i = start; i < start + count; i++) {
        sdc_fd_close(&set->fds[i]);
        vfu_record_drop(session->record, set->slots[i]);
        set->slots[i] = SDC_SLOT_NONE;
        set->masked[i] = set->pending[i] = false;
    }
}

static void assign(struct vfu_session *session, const struct request *request)
{
    enum sdc_pci_irq kind = request->set.index;
    struct vfu_irq_set *set = &session->irqs.sets[kind];
    uint32_t start = request->set.start;

    disable(session, kind, start, request->set.count);
    for (int i = 0; i < request->fds_count; i++) {
        set->fds[start + (uint32_t)i] = request->fds[i];
        request->fds[i] = -1;
        set->slots[start + (uint32_t)i] = request->slots[i];
        request->slots[i] = SDC_SLOT_NONE;
        catch_up(&session->irqs, session->device, kind, start + (uint32_t)i);
    }
}

static void trigger(struct vfu_session *session, const struct request *request)
{
    const struct sdc_vfu_set_irqs *set = &request->set;

    if (set->flags & SDC_VFU_IRQ_DATA_EVENTFD) {
        assign(session, request);
    } else if (set->count == 0) { // DATA_NONE: the whole kind is switched off
        disable(session, set->index, 0, session->irqs.sets[set->index].count);
        vfu_irq_switches_clear(session, set->index);
    } else {
        for (uint32_t i = 0; i < set->count; i++) {
            if (means(request, i))
                fire(&session->irqs, session->device, set->index, set->start + i);
        }
    }
}

static void set_masks(struct vfu_session *session, const struct request *request, bool masked)
{
    const struct sdc_vfu_set_irqs *set = &request->set;

    for (uint32_t i = 0; i < set->count; i++) {
        if (means(request, i))
            set_mask(&session->irqs, session->device, set->index, set->start + i, masked);
    }
}

// With as many fds as vectors they become switches; without any, those that there are go.
static int set_switches(struct vfu_session *session, const struct request *request, bool masks)
{
    const struct sdc_vfu_set_irqs *set = &request->set;
    int rc = 0;

    for (uint32_t i = 0; i < set->count && rc == 0; i++) {
        if (request->fds_count > 0)
            vfu_record_fail(session->record, "interrupts are masked by eventfds");
        if (request->fds_count > 0)
            rc = vfu_irq_switch_set(session, set->index, set->start + i, masks, &request->fds[i]);
        else
            vfu_irq_switch_clear(session, set->index, set->start + i, masks);
    }
    return rc;
}

static bool one_bit(uint32_t flags)
{
    return sdc_is_power_of_two(flags);
}

// Checks all of a request against itself and against what the device has (vfio-user, DEVICE_SET_IRQS).
static int check(struct vfu_session *session, struct vfu_message *message, struct request *request)
{
    struct sdc_vfu_set_irqs *set = &request->set;
    uint32_t data = set->flags & SDC_VFU_IRQ_DATA_MASK;

    if (set->argsz < sizeof *set || !one_bit(data) || !one_bit(set->flags & SDC_VFU_IRQ_ACTIONS) ||
        set->flags & ~(uint32_t)(SDC_VFU_IRQ_DATA_MASK | SDC_VFU_IRQ_ACTIONS))
        return -EINVAL;
    if (set->index >= SDC_PCI_IRQS || (!(set->flags & SDC_VFU_IRQ_ACTION_TRIGGER) && !(vfu_irq_flags(set->index) & SDC_VFU_IRQ_MASKABLE)))
        return -EINVAL;
    if (!sdc_within(set->start, set->count, session->irqs.sets[set->index].count))
        return -EINVAL;

    request->fds = message->fds;
    request->fds_count = message->fds_count;
    request->slots = message->slots;
    request->bools = data == SDC_VFU_IRQ_DATA_BOOL ? message->payload + sizeof *set : NULL;
    if (message->size - sizeof *set != (request->bools ? set->count : 0))
        return -EINVAL;
    if (data != SDC_VFU_IRQ_DATA_EVENTFD)
        return request->fds_count == 0 && (data == SDC_VFU_IRQ_DATA_NONE || set->count > 0) ? 0 : -EINVAL;

    if (set->count == 0)
        return -EINVAL;
    if (request->fds_count != 0 && (uint32_t)request->fds_count != set->count)
        return -EINVAL;
    for (int i = 0; i < request->fds_count; i++) {
        if (!sdc_fd_is_eventfd(request->fds[i]) || sdc_fd_set_nonblocking(request->fds[i]) < 0)
            return -EINVAL;
    }
    return 0;
}

int vfu_set_irqs(struct vfu_session *session, struct vfu_message *message)
{
    struct request request;

    memcpy(&request.set, message->payload, sizeof request.set);
    int rc = check(session, message, &request);
    if (rc < 0)
        return rc;

    bool masks = (request.set.flags & SDC_VFU_IRQ_ACTION_MASK) != 0;
    pthread_mutex_lock(&session->irqs.lock);
    if (request.set.flags & SDC_VFU_IRQ_ACTION_TRIGGER)
        trigger(session, &request);
    else if (request.set.flags & SDC_VFU_IRQ_DATA_EVENTFD)
        rc = set_switches(session, &request, masks);
    else
        set_masks(session, &request, masks);
    pthread_mutex_unlock(&session->irqs.lock);
    vfu_record_irqs_changed(session->record);
    if (rc == 0)
        vfu_reply(session, &message->header, 0);
    return rc;
}
