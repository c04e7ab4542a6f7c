// SPDX-License-Identifier: BSD-3-Clause
// DEVICE_SET_IRQS: eventfds for interrupts, and interrupts that the client triggers itself.
#include "cli/check/vfio.h"

#include "base/check.h"
#include "os/fd.h"
#include "os/memfd.h"
#include "os/wait.h"

#include <inttypes.h>
#include <string.h>

#define SECTION "vfio-user, VFIO_USER_DEVICE_SET_IRQS"

enum {
    VECTORS = 4, // that tests use at most
    EVENTFDS = SDC_VFU_IRQ_DATA_EVENTFD | SDC_VFU_IRQ_ACTION_TRIGGER,
    TRIGGER = SDC_VFU_IRQ_DATA_NONE | SDC_VFU_IRQ_ACTION_TRIGGER,
    TRIGGER_SOME = SDC_VFU_IRQ_DATA_BOOL | SDC_VFU_IRQ_ACTION_TRIGGER,
};

// A type of interrupts that can have eventfds, with a few of them assigned.
struct irqs {
    struct sdc_check_vfio vfio;
    struct sdc_vfu_irq_info info;
    uint32_t types;
    uint32_t count; // eventfds
    int fds[VECTORS];
};

static enum sdc_check_answer set(struct irqs *irqs, uint32_t flags, uint32_t start, uint32_t count, const uint8_t *bools, const int *fds)
{
    struct {
        struct sdc_vfu_set_irqs head;
        uint8_t bools[VECTORS];
    } payload = {.head = {.flags = flags, .index = irqs->info.index, .start = start, .count = count}};
    size_t size = sizeof payload.head + (bools ? count : 0);
    if (bools)
        memcpy(payload.bools, bools, count);
    payload.head.argsz = (uint32_t)size;
    struct sdc_check_command command = {.command = SDC_VFU_SET_IRQS, .payload = &payload, .size = size, .fds = fds,
                                        .fds_count = fds ? count : 0};
    struct sdc_check_reply reply;
    uint16_t id = sdc_check_vfio_send(&irqs->vfio, &command);
    enum sdc_check_answer answer = sdc_check_vfio_answer(&irqs->vfio, id, command.command, &reply);
    sdc_check_that(irqs->vfio.check, reply.size == 0, "there is no payload in the reply");
    return answer;
}

static void must_set(struct irqs *irqs, uint32_t flags, uint32_t start, uint32_t count, const uint8_t *bools, const int *fds)
{
    if (set(irqs, flags, start, count, bools, fds) != SDC_CHECK_DONE)
        sdc_check_fail(irqs->vfio.check, "interrupts of type %" PRIu32 " support eventfds, as their flag EVENTFD says", irqs->info.index);
}

static void open_irqs(struct irqs *irqs, struct sdc_check *check)
{
    static const uint32_t wanted[] = {SDC_CHECK_IRQ_MSIX, SDC_CHECK_IRQ_MSI, SDC_CHECK_IRQ_INTX};
    sdc_check_vfio_open(&irqs->vfio, check);
    irqs->types = sdc_check_vfio_info(&irqs->vfio).num_irqs;
    for (size_t i = 0; i < SDC_COUNT(wanted); i++) {
        if (wanted[i] >= irqs->types)
            continue;
        irqs->info = sdc_check_vfio_irq(&irqs->vfio, wanted[i]);
        if (irqs->info.count > 0 && (irqs->info.flags & SDC_VFU_IRQ_EVENTFD))
            break;
    }
    if (irqs->info.count == 0 || !(irqs->info.flags & SDC_VFU_IRQ_EVENTFD))
        sdc_check_not_offered(check, "the device has no interrupts that support eventfds");
    irqs->count = irqs->info.count < VECTORS ? irqs->info.count : VECTORS;
    for (uint32_t i = 0; i < irqs->count; i++)
        irqs->fds[i] = sdc_eventfd_new();
    must_set(irqs, EVENTFDS, 0, irqs->count, NULL, irqs->fds);
}

// The eventfds that are signalled in the end are exactly those of `mask`, by vector.
static void signalled(struct irqs *irqs, unsigned mask, const char *asked)
{
    for (uint32_t i = 0; i < irqs->count; i++) {
        if (mask & 1u << i)
            sdc_wait_fd(irqs->fds[i], SDC_WAIT_INPUT, sdc_check_patience(irqs->vfio.check));
    }
    sdc_check_vfio_fence(&irqs->vfio);
    for (uint32_t i = 0; i < irqs->count; i++) {
        bool came = sdc_eventfd_take(irqs->fds[i]) > 0;
        sdc_check_came(irqs->vfio.check, "the eventfd of interrupt %" PRIu32 " was %ssignalled", i, came ? "" : "not ");
        sdc_check_that(irqs->vfio.check, came == ((mask >> i & 1) != 0), "%s", asked);
    }
}

static unsigned all(const struct irqs *irqs)
{
    return (1u << irqs->count) - 1;
}

// Triggers a vector, if servers take that.
static void trigger(struct irqs *irqs, uint32_t start, uint32_t count)
{
    if (set(irqs, TRIGGER, start, count, NULL, NULL) != SDC_CHECK_DONE)
        sdc_check_not_offered(irqs->vfio.check, "the server does not let clients trigger interrupts");
}

static void assigned(struct sdc_check *check)
{
    struct irqs irqs = {0};
    open_irqs(&irqs, check);
    signalled(&irqs, 0, "an eventfd is signalled when the device triggers the interrupt, and the device does nothing");
    for (uint32_t i = 0; i < irqs.count; i++) {
        trigger(&irqs, i, 1);
        signalled(&irqs, 1u << i, "triggering an interrupt signals its eventfd, and no other");
    }
    trigger(&irqs, 0, irqs.count);
    signalled(&irqs, all(&irqs), "triggering interrupts signals their eventfds");
}

static void some(struct sdc_check *check)
{
    static const uint8_t bools[VECTORS] = {1, 0, 1, 0};
    struct irqs irqs = {0};
    open_irqs(&irqs, check);
    if (set(&irqs, TRIGGER_SOME, 0, irqs.count, bools, NULL) != SDC_CHECK_DONE)
        sdc_check_not_offered(check, "the server does not let clients trigger interrupts by booleans");
    signalled(&irqs, 5 & all(&irqs), "with DATA_BOOL, the action is performed if the boolean is true");
    static const uint8_t none[VECTORS];
    set(&irqs, TRIGGER_SOME, 0, irqs.count, none, NULL);
    signalled(&irqs, 0, "with DATA_BOOL, the action is performed if the boolean is true");
}

static void replaced(struct sdc_check *check)
{
    struct irqs irqs = {0};
    open_irqs(&irqs, check);
    int old = irqs.fds[0], fresh = sdc_eventfd_new();
    must_set(&irqs, EVENTFDS, 0, 1, NULL, &fresh);
    irqs.fds[0] = fresh;
    trigger(&irqs, 0, 1);
    signalled(&irqs, 1, "the eventfd that was set last is signalled");
    sdc_check_that(check, sdc_eventfd_take(old) == 0, "an eventfd that was replaced is not signalled any more");
}

static void taken_away(struct sdc_check *check)
{
    struct irqs irqs = {0};
    open_irqs(&irqs, check);
    uint32_t start = irqs.count / 2, count = irqs.count - start;
    if (set(&irqs, EVENTFDS, start, count, NULL, NULL) != SDC_CHECK_DONE)
        sdc_check_fail(check, "if no file descriptors are provided, this de-assigns the interrupts");
    for (uint32_t i = 0; i < irqs.count; i++)
        set(&irqs, TRIGGER, i, 1, NULL, NULL);
    signalled(&irqs, all(&irqs) & ((1u << start) - 1),
              "if no file descriptors are provided, the interrupts are de-assigned, and no others");
}

static void disabled(struct sdc_check *check)
{
    struct irqs irqs = {0};
    open_irqs(&irqs, check);
    must_set(&irqs, TRIGGER, 0, 0, NULL, NULL);
    for (uint32_t i = 0; i < irqs.count; i++)
        sdc_eventfd_take(irqs.fds[i]); // the device may have had reasons of its own until then
    for (uint32_t i = 0; i < irqs.count; i++)
        set(&irqs, TRIGGER, i, 1, NULL, NULL);
    signalled(&irqs, 0, "a count and start of 0 with DATA_NONE disable all interrupts of the index");
    must_set(&irqs, EVENTFDS, 0, irqs.count, NULL, irqs.fds);
    trigger(&irqs, 0, irqs.count);
    signalled(&irqs, all(&irqs), "interrupts can be set up again");
}

// Each type that says so takes MASK and UNMASK; what is masked meanwhile is told by UNMASK or not at all.
static void mask_and_unmask(struct sdc_check *check)
{
    struct irqs irqs = {0};
    bool any = false;
    sdc_check_vfio_open(&irqs.vfio, check);
    irqs.types = sdc_check_vfio_info(&irqs.vfio).num_irqs;
    for (uint32_t i = 0; i < irqs.types && i <= SDC_CHECK_IRQ_MSIX; i++) {
        irqs.info = sdc_check_vfio_irq(&irqs.vfio, i);
        if (irqs.info.count == 0 || !(irqs.info.flags & SDC_VFU_IRQ_MASKABLE))
            continue;
        any = true;
        if (set(&irqs, SDC_VFU_IRQ_DATA_NONE | SDC_VFU_IRQ_ACTION_MASK, 0, 1, NULL, NULL) != SDC_CHECK_DONE ||
            set(&irqs, SDC_VFU_IRQ_DATA_NONE | SDC_VFU_IRQ_ACTION_UNMASK, 0, 1, NULL, NULL) != SDC_CHECK_DONE)
            sdc_check_fail(check, "the flag MASKABLE says that the type supports MASK and UNMASK");
    }
    if (!any)
        sdc_check_not_offered(check, "no interrupts can be masked");
}

// --- what cannot be set ---

static void refuse(struct irqs *irqs, uint32_t index, uint32_t start, uint32_t count, const char *asked)
{
    struct sdc_vfu_set_irqs sets[] = {{sizeof sets[0], EVENTFDS, index, start, count}, {sizeof sets[0], TRIGGER, index, start, count}};
    for (size_t i = 0; i < SDC_COUNT(sets); i++)
        sdc_check_vfio_refused(&irqs->vfio, &(struct sdc_check_command){.command = SDC_VFU_SET_IRQS, .payload = &sets[i],
                                                                        .size = sizeof sets[i], .fds = irqs->fds,
                                                                        .fds_count = i == 0 ? 1 : 0},
                               asked);
}

static void no_such(struct sdc_check *check)
{
    struct irqs irqs = {0};
    open_irqs(&irqs, check);
    uint32_t index = irqs.info.index, count = irqs.info.count;
    refuse(&irqs, irqs.types, 0, 1, "there is no such type of interrupts");
    refuse(&irqs, UINT32_MAX, 0, 1, "there is no such type of interrupts");
    refuse(&irqs, UINT32_C(0x10000) + index, 0, 1, "there is no such type of interrupts");
    refuse(&irqs, index, count, 1, "start and count are of interrupts that there are");
    refuse(&irqs, index, UINT32_MAX, 1, "start and count are of interrupts that there are");
    refuse(&irqs, index, UINT32_MAX, 2, "start and count are of interrupts that there are");
    struct sdc_vfu_set_irqs beyond = {sizeof beyond, TRIGGER, index, 0, count + 1};
    sdc_check_vfio_refused(&irqs.vfio,
                           &(struct sdc_check_command){.command = SDC_VFU_SET_IRQS, .payload = &beyond, .size = sizeof beyond},
                           "start and count are of interrupts that there are");
    set(&irqs, TRIGGER, 0, 1, NULL, NULL);
    signalled(&irqs, 1, "messages that were refused changed nothing");
}

static void odd_flags(struct sdc_check *check)
{
    static const struct {
        uint32_t flags;
        const char *what;
    } rows[] = {
        {0, "flags without data and without action"},
        {SDC_VFU_IRQ_DATA_NONE, "flags without an action"},
        {SDC_VFU_IRQ_ACTION_TRIGGER, "flags that do not say which data there is"},
        {SDC_VFU_IRQ_DATA_NONE | SDC_VFU_IRQ_DATA_BOOL | SDC_VFU_IRQ_ACTION_TRIGGER, "two kinds of data at once"},
        {SDC_VFU_IRQ_DATA_NONE | SDC_VFU_IRQ_ACTION_MASK | SDC_VFU_IRQ_ACTION_TRIGGER, "two actions at once"},
        {UINT32_C(0x40) | TRIGGER, "a flag that does not exist"},
        {UINT32_C(0x80000000) | TRIGGER, "a flag that does not exist"},
    };
    struct irqs irqs = {0};
    open_irqs(&irqs, check);
    for (size_t i = 0; i < SDC_COUNT(rows); i++) {
        struct sdc_vfu_set_irqs odd = {.argsz = sizeof odd, .flags = rows[i].flags, .index = irqs.info.index, .count = 1};
        struct sdc_check_command command = {.command = SDC_VFU_SET_IRQS, .payload = &odd, .size = sizeof odd};
        if (!sdc_check_vfio_open_question(&irqs.vfio, &command, rows[i].what))
            return;
    }
    sdc_check_vfio_fence(&irqs.vfio);
}

static void odd_data(struct sdc_check *check)
{
    struct irqs irqs = {0};
    open_irqs(&irqs, check);
    struct sdc_vfu_set_irqs bools = {sizeof bools, TRIGGER_SOME, irqs.info.index, 0, irqs.count};
    struct sdc_check_command command = {.command = SDC_VFU_SET_IRQS, .payload = &bools, .size = sizeof bools};
    sdc_check_vfio_refused(&irqs.vfio, &command, "DATA_BOOL says that there is a byte for each of count interrupts, and there is none");
    struct sdc_vfu_set_irqs fds = {sizeof fds, EVENTFDS, irqs.info.index, 0, irqs.count};
    command = (struct sdc_check_command){.command = SDC_VFU_SET_IRQS, .payload = &fds, .size = sizeof fds, .fds = irqs.fds};
    command.fds_count = irqs.count + 1 < VECTORS ? irqs.count + 1 : irqs.count - 1;
    for (uint32_t i = irqs.count; i < VECTORS; i++)
        irqs.fds[i] = sdc_eventfd_new();
    if (!sdc_check_vfio_open_question(&irqs.vfio, &command, "another number of eventfds than count says"))
        return;
    fds.count = 1;
    int memory = sdc_memfd_new("sidecard-check", 4096);
    command.fds = &memory;
    command.fds_count = 1;
    if (sdc_check_vfio_open_question(&irqs.vfio, &command, "a file of memory as an eventfd"))
        sdc_check_vfio_fence(&irqs.vfio);
}

// A client that went away has no interrupts any more.
static void forgotten(struct sdc_check *check)
{
    struct irqs irqs = {0};
    open_irqs(&irqs, check);
    sdc_check_vfio_close(&irqs.vfio);
    sdc_check_vfio_open(&irqs.vfio, check);
    for (uint32_t i = 0; i < irqs.count; i++)
        set(&irqs, TRIGGER, i, 1, NULL, NULL);
    signalled(&irqs, 0, "when a client disconnects, all IRQ file descriptors that it passed are closed");
}

static const struct sdc_check_test tests[] = {
    {"set-irqs/assigned", SECTION, 0, assigned},
    {"set-irqs/some", SECTION, 0, some},
    {"set-irqs/replaced", SECTION, 0, replaced},
    {"set-irqs/taken-away", SECTION, 0, taken_away},
    {"set-irqs/disabled", SECTION, 0, disabled},
    {"set-irqs/mask-and-unmask", SECTION, 0, mask_and_unmask},
    {"set-irqs/no-such", SECTION, 0, no_such},
    {"set-irqs/odd-flags", SECTION, 0, odd_flags},
    {"set-irqs/odd-data", SECTION, 0, odd_data},
    {"set-irqs/forgotten", "vfio-user, Client Disconnection", 0, forgotten},
};

const struct sdc_check_table sdc_check_vfio_irqs = {tests, SDC_COUNT(tests)};
