// SPDX-License-Identifier: BSD-3-Clause
// DMA of an author's device in one thread, against a client that is simulated: transfers wait until they are answered. Memory that is
// shared, that is reached by messages, that is read-only, and that has to be asked for; resets that have to wait.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/check.h"
#include "loop_turns.h"
#include "ring_fixture.h"
#include "transport/common/pci_core.h"
#include "transport/common/pci_config.h"
#include "transport/common/remote.h"

#include <errno.h>
#include <string.h>

enum { MOST = 64, FAR = 8 * GUEST_PAGE, FIXED = 15 * GUEST_PAGE };

static struct guest guest;
static struct sdc_loop *loop;

// --- the client ---

static struct {
    struct sdc_remote remote;
    struct sdc_pci_host host;
    struct sdc_transfer *waiting[MOST];
    unsigned count;
    unsigned readies, intx;
    bool partial; // no bytes move
} client;

static void begin(struct sdc_remote *remote, struct sdc_transfer *transfer)
{
    (void)remote;
    assert_true(client.count < MOST);
    client.waiting[client.count++] = transfer;
}

static void answer(int result)
{
    struct sdc_transfer *transfer = client.waiting[0];

    assert_true(client.count > 0);
    memmove(client.waiting, client.waiting + 1, --client.count * sizeof client.waiting[0]);
    if (result == 0 && !client.partial && transfer->write && !atomic_load(&transfer->dropped))
        sdc_memory_write(&guest.view, transfer->iova, transfer->data, transfer->size);
    else if (result == 0 && !client.partial && !transfer->write)
        sdc_memory_read(&guest.view, transfer->iova, transfer->data, transfer->size);
    sdc_transfer_finish(transfer, result);
    loop_turns(loop, 6);
}

static void answer_all(void)
{
    while (client.count > 0)
        answer(0);
}

static void host_interrupt(struct sdc_pci_host *host, enum sdc_pci_irq kind, uint32_t vector)
{
    (void)host, (void)vector;
    client.intx += kind == SDC_PCI_INTX;
}

static void host_ready(struct sdc_pci_host *host)
{
    (void)host;
    client.readies++;
}

static const struct sdc_pci_host_ops host_ops = {host_interrupt, host_ready};

// --- the device ---

static struct {
    struct sdc_pci_device pci; // first
    unsigned done, resets, accesses, destroyed;
    int result;
    bool busy;
    struct sdc_dma_window *window; // the last one
    struct sdc_dma_window *windows[8];
    unsigned windows_count;
    unsigned chain; // copies that are still to follow one another
    uint8_t room[GUEST_BYTES];
} dev;

static void done(void *context, int result)
{
    (void)context;
    dev.done++;
    dev.result = result;
    if (dev.chain > 0) {
        dev.chain--;
        assert_int_equal(sdc_dma_read(&dev.pci, 0, dev.room, 1, done, NULL), result == -ECANCELED ? -ECANCELED : 0);
    }
}

static void mapped(void *context, struct sdc_dma_window *window, int result)
{
    dev.window = window;
    if (window)
        dev.windows[dev.windows_count++] = window;
    done(context, result);
}

static int dev_access(struct sdc_pci_device *device, struct sdc_pci_access *access)
{
    (void)device, (void)access;
    dev.accesses++;
    return 0;
}

static void dev_reset(struct sdc_pci_device *device)
{
    (void)device;
    dev.resets++;
}

static bool dev_busy(struct sdc_pci_device *device)
{
    (void)device;
    return dev.busy;
}

static void dev_destroy(struct sdc_pci_device *device)
{
    sdc_pci_fini(device);
    dev.destroyed++;
}

static const struct sdc_pci_ops dev_ops = {
    .name = "dev", .access = dev_access, .reset = dev_reset, .busy = dev_busy, .destroy = dev_destroy};

// --- life ---

static void show(uint32_t pages, uint32_t remote, bool partial)
{
    struct sdc_map *map = guest_map_of(&guest, true, pages, remote, 1U << FIXED / GUEST_PAGE);

    map->remote = &client.remote;
    map->partial = client.partial = partial;
    dev.pci.ops->set_map(&dev.pci, map);
    sdc_map_unref(map);
}

static int setup(void **state)
{
    const struct sdc_pci_identity identity = {.vendor = 1, .device = 2, .intx = true};

    (void)state;
    memset(&dev, 0, sizeof dev);
    memset(&client, 0, sizeof client);
    if (sdc_loop_new(SDC_LOOP_EPOLL, &loop, NULL) < 0)
        return -1;
    guest_open(&guest, true);
    for (unsigned i = 0; i < GUEST_BYTES; i++)
        guest.bytes[i] = (uint8_t)(i / 64);
    client.remote = (struct sdc_remote){.home = loop, .begin = begin};
    client.host.ops = &host_ops;
    dev.pci.bars[0].size = 4096;
    if (sdc_pci_init(&dev.pci, &dev_ops, &identity, NULL) < 0 || sdc_pci_plug(&dev.pci, loop, NULL) < 0)
        return -1;
    dev.pci.host = &client.host;
    show(UINT32_MAX, 0xff00, false);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    dev.pci.ops->reset(&dev.pci);
    dev.pci.ops->set_map(&dev.pci, NULL);
    while (client.count > 0)
        answer(-EIO);
    loop_turns(loop, 6);
    dev.pci.ops->destroy(&dev.pci);
    guest_close(&guest);
    sdc_loop_free(loop);
    return dev.destroyed == 1 ? 0 : -1;
}

static void turns(void)
{
    loop_turns(loop, 8);
}

// --- tests ---

static void nothing_is_called_from_inside(void **state)
{
    (void)state;
    assert_int_equal(sdc_dma_read(&dev.pci, 100, dev.room, 5000, done, NULL), 0);
    assert_int_equal(sdc_dma_map(&dev.pci, 100, 5000, SDC_ACCESS_READ, mapped, NULL), 0);
    assert_int_equal(dev.done, 0);
    turns();
    assert_int_equal(dev.done, 2);
    uint8_t bytes[5000];
    sdc_memory_read(&guest.view, 100, bytes, sizeof bytes);
    assert_memory_equal(bytes, dev.room, sizeof bytes);
    assert_non_null(dev.window);
    sdc_dma_unmap(dev.window, 0, done, NULL);
    assert_int_equal(dev.done, 2);
    turns();
    assert_int_equal(dev.done, 3);
}

// From done to done: others have their turns between.
static void chains_do_not_starve_the_loop(void **state)
{
    (void)state;
    dev.chain = 1000;
    assert_int_equal(sdc_dma_read(&dev.pci, 0, dev.room, 1, done, NULL), 0);
    loop_turns(loop, 10);
    assert_in_range(dev.done, 1, 20);
    loop_turns(loop, 3000);
    assert_int_equal(dev.done, 1001);
}

static void access_is_respected(void **state)
{
    (void)state;
    assert_int_equal(sdc_dma_write(&dev.pci, FIXED, dev.room, 16, done, NULL), 0);
    turns();
    assert_int_equal(dev.result, -EACCES);
    show(UINT32_MAX, 0, false);
    assert_int_equal(sdc_dma_write(&dev.pci, FIXED - 8, dev.room, 16, done, NULL), 0);
    turns();
    assert_int_equal(dev.result, -EACCES);
    assert_int_equal(sdc_dma_read(&dev.pci, FIXED, dev.room, 16, done, NULL), 0);
    turns();
    assert_int_equal(dev.result, 0);
}

// A range of which only a part is far.
static void mixed_ranges_are_brought_together(void **state)
{
    (void)state;
    assert_int_equal(sdc_dma_read(&dev.pci, FAR - 64, dev.room, 128, done, NULL), 0);
    turns();
    assert_int_equal(dev.done, 0);
    answer_all();
    assert_int_equal(dev.done, 1);
    uint8_t bytes[128];
    sdc_memory_read(&guest.view, FAR - 64, bytes, sizeof bytes);
    assert_memory_equal(bytes, dev.room, sizeof bytes);
    memset(dev.room, 0xab, 128);
    assert_int_equal(sdc_dma_write(&dev.pci, FAR - 64, dev.room, 128, done, NULL), 0);
    turns();
    answer_all();
    assert_int_equal(dev.done, 2);
    assert_int_equal(dev.result, 0);
    sdc_memory_read(&guest.view, FAR - 64, bytes, sizeof bytes);
    assert_memory_equal(bytes, dev.room, sizeof bytes);
}

// What was copied at the call is what the client gets: the device's memory is its own again with done, not before.
static void failures_are_told(void **state)
{
    (void)state;
    assert_int_equal(sdc_dma_read(&dev.pci, FAR, dev.room, 64, done, NULL), 0);
    turns();
    answer(-EIO);
    assert_int_equal(dev.result, -EIO);
    assert_int_equal(sdc_dma_write(&dev.pci, FAR, dev.room, 64, done, NULL), 0);
    turns();
    answer(-EIO);
    answer_all();
    assert_int_equal(dev.result, -EIO);
    assert_int_equal(sdc_dma_map(&dev.pci, FAR, 64, SDC_ACCESS_READ, mapped, NULL), 0);
    turns();
    answer(-EFAULT);
    assert_int_equal(dev.result, -EFAULT);
    assert_null(dev.window);
    assert_int_equal(dev.done, 3);
}

// Memory that has to be asked for: it comes, in pieces, or it is denied.
static void what_is_missing_is_asked_for(void **state)
{
    (void)state;
    show(0x1, 0, true);
    assert_int_equal(sdc_dma_read(&dev.pci, GUEST_PAGE - 8, dev.room, 16, done, NULL), 0);
    assert_int_equal(sdc_dma_write(&dev.pci, 5 * GUEST_PAGE, dev.room, 16, done, NULL), 0);
    turns();
    assert_int_equal(dev.done, 0);
    assert_int_equal(client.count, 1);
    assert_false(client.waiting[0]->write);
    show(0x3, 0, true);
    answer(0);
    assert_int_equal(dev.done, 1);
    assert_int_equal(dev.result, 0);
    assert_int_equal(client.count, 1);
    assert_true(client.waiting[0]->write);
    answer(-EFAULT);
    assert_int_equal(dev.done, 2);
    assert_int_equal(dev.result, -EFAULT);
    // Denied for that one; the next asks again.
    assert_int_equal(sdc_dma_read(&dev.pci, 5 * GUEST_PAGE, dev.room, 16, done, NULL), 0);
    turns();
    assert_int_equal(client.count, 1);
    show(0x23, 0, true);
    answer(0);
    assert_int_equal(dev.done, 3);
    assert_int_equal(dev.result, 0);
}

static void a_reset_ends_what_is_under_way_first(void **state)
{
    (void)state;
    assert_int_equal(sdc_dma_read(&dev.pci, FAR, dev.room, 64, done, NULL), 0);
    assert_int_equal(sdc_dma_map(&dev.pci, FAR, 64, SDC_ACCESS_READ, mapped, NULL), 0);
    turns();
    assert_int_equal(sdc_dma_write(&dev.pci, 0, dev.room, 64, done, NULL), 0);
    dev.chain = 1; // what asks for more meanwhile is told
    dev.pci.ops->reset(&dev.pci);
    assert_int_equal(dev.done, 3);
    assert_int_equal(dev.result, -ECANCELED);
    assert_int_equal(dev.resets, 1);
    assert_false(dev.pci.ops->busy(&dev.pci));
    memset(dev.room, 0x11, 64);
    answer_all(); // late
    assert_int_equal(dev.done, 3);
    assert_int_equal(dev.room[0], 0x11);
    assert_int_equal(sdc_dma_read(&dev.pci, 0, dev.room, 64, done, NULL), 0);
    turns();
    assert_int_equal(dev.result, 0);
}

static int write_register(void)
{
    struct sdc_pci_access access = {.region = 0, .offset = 0, .size = 4, .write = true};

    return dev.pci.ops->access(&dev.pci, &access);
}

static void a_reset_waits_for_windows_and_the_device(void **state)
{
    (void)state;
    assert_int_equal(sdc_dma_map(&dev.pci, FAR, 64, SDC_ACCESS_WRITE, mapped, NULL), 0);
    turns();
    assert_non_null(dev.window);
    dev.busy = true;
    dev.pci.ops->reset(&dev.pci);
    assert_int_equal(dev.resets, 1);
    assert_true(dev.pci.ops->busy(&dev.pci));
    assert_int_equal(write_register(), -EAGAIN);
    assert_int_equal(sdc_dma_read(&dev.pci, 0, dev.room, 1, done, NULL), -ECANCELED);
    dev.busy = false;
    assert_true(dev.pci.ops->busy(&dev.pci));
    client.readies = 0;
    sdc_dma_unmap(dev.window, 64, done, NULL);
    assert_int_equal(client.readies, 1);
    assert_false(dev.pci.ops->busy(&dev.pci));
    assert_int_equal(write_register(), 0);
    turns();
    assert_int_equal(dev.result, -ECANCELED); // what the window held was for a driver who is gone
    assert_int_equal(client.count, 0);
}

// Windows of more than the bounce may hold wait for one another.
static void bounces_are_bounded(void **state)
{
    struct sdc_region_table table = {0};
    const struct sdc_region region = {.iova = 0, .size = UINT64_C(1) << 40, .access = SDC_ACCESS_READ | SDC_ACCESS_WRITE};

    (void)state;
    assert_int_equal(sdc_region_table_add(&table, &region), 0);
    struct sdc_map *map = sdc_region_table_publish(&table, sdc_map_free, NULL);
    map->remote = &client.remote;
    sdc_region_table_clear(&table);
    dev.pci.ops->set_map(&dev.pci, map);
    sdc_map_unref(map);
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(sdc_dma_map(&dev.pci, i << 24, SDC_DMA_SIZE_MAX, SDC_ACCESS_WRITE, mapped, NULL), 0);
    loop_turns(loop, 40);
    assert_int_equal(dev.done, 3); // 24 MiB: with the third there is too much
    sdc_dma_unmap(dev.windows[--dev.windows_count], 0, NULL, NULL);
    loop_turns(loop, 40);
    assert_int_equal(dev.done, 4);
    sdc_dma_cancel(&dev.pci);
    assert_int_equal(dev.done, 5);
    assert_int_equal(dev.result, -ECANCELED);
    while (dev.windows_count > 0)
        sdc_dma_unmap(dev.windows[--dev.windows_count], 0, NULL, NULL);
}

// INTx that stands is told again when the driver lets it.
static void intx_comes_back_when_it_is_enabled(void **state)
{
    uint16_t command = SDC_PCI_COMMAND_INTX_DISABLE;

    (void)state;
    assert_false(sdc_pci_config_write(&dev.pci, SDC_PCI_COMMAND, &command, 2));
    sdc_pci_raise(&dev.pci, 0);
    assert_int_equal(client.intx, 0);
    assert_false(dev.pci.ops->intx_level(&dev.pci));
    command = 0;
    sdc_pci_config_write(&dev.pci, SDC_PCI_COMMAND, &command, 2);
    assert_int_equal(client.intx, 1);
    assert_true(dev.pci.ops->intx_level(&dev.pci));
    dev.pci.ops->reset(&dev.pci);
    assert_false(dev.pci.ops->intx_level(&dev.pci));
}

static void done_and_cancel(void *context, int result)
{
    done(context, result);
    sdc_dma_cancel(&dev.pci);
}

// From inside a done: the others end there and then, what is asked for afterwards goes its way.
static void a_done_may_cancel_the_others(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(sdc_dma_read(&dev.pci, 0, dev.room, 1, i == 1 ? done_and_cancel : done, NULL), 0);
    assert_int_equal(sdc_dma_read(&dev.pci, FAR, dev.room, 1, done, NULL), 0);
    turns();
    assert_int_equal(dev.done, 7);
    assert_int_equal(dev.result, -ECANCELED);
    assert_int_equal(sdc_dma_read(&dev.pci, 0, dev.room, 1, done, NULL), 0);
    turns();
    assert_int_equal(dev.done, 8);
    assert_int_equal(dev.result, 0);
    sdc_dma_unmap(NULL, 0, done, NULL);
    answer_all();
    assert_int_equal(dev.done, 8);
}

static void what_is_plugged_in_stays_as_it_is(void **state)
{
    uint32_t offset;

    (void)state;
    assert_int_equal(sdc_pci_plug(&dev.pci, loop, NULL), -EBUSY);
    assert_int_equal(sdc_pci_add_msix(&dev.pci, 1, 2, NULL), -EINVAL);
    assert_int_equal(sdc_pci_add_capability(&dev.pci, 9, 4, &offset, NULL), -EINVAL);
    assert_int_equal(sdc_pci_add_doorbell(&dev.pci, 0, 0, 4, NULL), -EINVAL);
    assert_ptr_equal(sdc_pci_loop(&dev.pci), loop);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(nothing_is_called_from_inside),
        TEST(chains_do_not_starve_the_loop),
        TEST(access_is_respected),
        TEST(mixed_ranges_are_brought_together),
        TEST(failures_are_told),
        TEST(what_is_missing_is_asked_for),
        TEST(a_reset_ends_what_is_under_way_first),
        TEST(a_reset_waits_for_windows_and_the_device),
        TEST(bounces_are_bounded),
        TEST(intx_comes_back_when_it_is_enabled),
        TEST(a_done_may_cancel_the_others),
        TEST(what_is_plugged_in_stays_as_it_is),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
