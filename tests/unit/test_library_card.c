// SPDX-License-Identifier: BSD-3-Clause
// A card made with the public library, behind a real server and used by the client library: registers, capabilities, memory that is mapped,
// DMA to memory that is shared and memory that is not, interrupts, doorbells, resets while DMA is under way. Everything over io_uring and
// epoll, in the library's loop and in a caller's.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "library_card.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SHARED UINT64_C(0x100000)
#define PRIVATE UINT64_C(0x900000)

enum { BYTES = 0x8000, MEMORY = 0x10000 };

struct way {
    enum sdc_loop_kind kind;
    bool outside;
};

static struct way ways[] = {
    {SDC_LOOP_AUTO, false}, {SDC_LOOP_EPOLL, false}, {SDC_LOOP_AUTO, true}, {SDC_LOOP_EPOLL, true}};

struct fixture {
    struct card_server server;
    struct sdc_vfio_client *client;
    struct sdc_client_memory shared, private;
};

static struct sdc_vfio_client *connect_client(struct card_server *server)
{
    struct sdc_error err = {0};
    struct sdc_vfio_client *client = NULL;

    if (sdc_vfio_client_open(server->path, NULL, &client, &err) < 0)
        fail_msg("%s", err.text);
    return client;
}

static void map_memory(struct fixture *f)
{
    struct sdc_error err = {0};

    assert_int_equal(sdc_vfio_client_map(f->client, SHARED, MEMORY, 3, f->shared.fd, 0, &err), 0);
    assert_int_equal(sdc_vfio_client_map_private(f->client, PRIVATE, MEMORY, 3, f->private.base, &err), 0);
    assert_int_equal(sdc_vfio_client_serve_start(f->client, &err), 0);
}

static struct fixture *start(void **state, bool with_msix)
{
    const struct way *way = *state;
    struct fixture *f = calloc(1, sizeof *f);

    assert_non_null(f);
    card_server_start(&f->server, way->kind, way->outside, with_msix);
    f->client = connect_client(&f->server);
    assert_int_equal(sdc_client_memory_new(&f->shared, SHARED, MEMORY, NULL), 0);
    assert_int_equal(sdc_client_memory_new_private(&f->private, PRIVATE, MEMORY, NULL), 0);
    map_memory(f);
    return f;
}

static void stop(struct fixture *f)
{
    sdc_vfio_client_close(f->client);
    card_server_stop(&f->server);
    sdc_client_memory_free(&f->shared);
    sdc_client_memory_free(&f->private);
    free(f);
}

static void copies_go_both_ways(void **state)
{
    struct fixture *f = start(state, true);
    struct sdc_client_memory *memories[] = {&f->shared, &f->private};
    uint64_t done = 0;

    for (unsigned i = 0; i < 2; i++) {
        struct sdc_client_memory *memory = memories[i];
        for (unsigned at = 0; at < BYTES; at++)
            memory->base[at] = (uint8_t)(at * 7 + i);
        card_do(f->client, CARD_READ, memory->iova, BYTES, 1);
        assert_int_equal(card_wait(f->client, ++done), 0);
        card_do(f->client, CARD_WRITE, memory->iova + MEMORY - BYTES, BYTES, 1);
        assert_int_equal(card_wait(f->client, ++done), 0);
        assert_memory_equal(memory->base, memory->base + MEMORY - BYTES, BYTES);
        // From one kind of memory to the other, a byte.
        card_do(f->client, CARD_WRITE, memories[!i]->iova + 5, 1, 3);
        assert_int_equal(card_wait(f->client, ++done), 0);
        assert_int_equal(memories[!i]->base[5], memory->base[2]);
    }
    stop(f);
}

static void windows_show_memory(void **state)
{
    struct fixture *f = start(state, true);
    struct sdc_client_memory *memories[] = {&f->shared, &f->private};
    uint64_t done = 0;

    for (unsigned i = 0; i < 2; i++) {
        struct sdc_client_memory *memory = memories[i];
        memset(memory->base, 3, MEMORY);
        card_do(f->client, CARD_MAP_READ, memory->iova + 100, 5000, 0);
        assert_int_equal(card_wait(f->client, ++done), 0);
        assert_int_equal(card_get(f->client, CARD_SUM), 15000);
        card_do(f->client, CARD_MAP_WRITE, memory->iova + 4000, 4097, 0);
        assert_int_equal(card_wait(f->client, ++done), 0);
        assert_int_equal(card_get(f->client, CARD_HELD), 2);
        card_put(f->client, CARD_DO, CARD_UNMAP);
        done += 2;
        assert_int_equal(card_wait(f->client, done), 0);
        assert_int_equal(memory->base[3999], 3);
        assert_int_equal(memory->base[4000], 1);
        assert_int_equal(memory->base[4000 + 4096], 1);
        assert_int_equal(memory->base[4000 + 4097], 3);
    }
    stop(f);
}

static void foreign_memory_fails(void **state)
{
    struct fixture *f = start(state, true);
    const struct {
        uint64_t what, iova, size;
        int result;
    } rows[] = {
        {CARD_READ, 0, 8, -EFAULT},
        {CARD_WRITE, SHARED - 1, 2, -EFAULT},
        {CARD_READ, SHARED + MEMORY - 4, 8, -EFAULT},
        {CARD_WRITE, PRIVATE + MEMORY - 4, 8, -EFAULT},
        {CARD_MAP_READ, UINT64_MAX - 4, 64, -EFAULT},
        {CARD_MAP_WRITE, UINT64_MAX, 1, -EFAULT},
        {CARD_MAP_READ, SHARED, 0, -EINVAL},
        {CARD_MAP_READ, SHARED, UINT64_C(8) * 1024 * 1024 + 1, -EINVAL},
        {CARD_READ, SHARED, 0, 0},
        {CARD_READ, 0, 0, -EFAULT},
    };

    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        card_do(f->client, rows[i].what, rows[i].iova, rows[i].size, 0);
        assert_int_equal(card_wait(f->client, i + 1), rows[i].result);
    }
    stop(f);
}

static uint16_t get16(struct sdc_vfio_client *client, uint64_t offset)
{
    uint16_t value = 0;

    assert_int_equal(sdc_vfio_client_read(client, SDC_PCI_CONFIG, offset, &value, 2, NULL), 0);
    return value;
}

// Where the capability is, or 0.
static uint8_t find_cap(struct sdc_vfio_client *client, uint8_t id)
{
    uint8_t at = (uint8_t)get16(client, 0x34);

    while (at && (uint8_t)get16(client, at) != id)
        at = (uint8_t)(get16(client, at) >> 8);
    return at;
}

static void configuration_says_what_it_is(void **state)
{
    struct fixture *f = start(state, true);
    uint32_t bar;

    assert_int_equal(get16(f->client, 0), 0x1d0f);
    assert_int_equal(get16(f->client, 2), 0x5ca1);
    assert_int_equal(get16(f->client, 10), 0x0880);
    for (unsigned i = 0; i < 4; i++) {
        static const uint8_t ids[] = {0x11, 0x05, 0x01, 0x10}; // MSI-X, MSI, PM, Express
        assert_int_not_equal(find_cap(f->client, ids[i]), 0);
    }
    bar = UINT32_MAX;
    assert_int_equal(sdc_vfio_client_write(f->client, SDC_PCI_CONFIG, 0x10 + 4 * CARD_MSIX, &bar, 4, NULL), 0);
    assert_int_equal(sdc_vfio_client_read(f->client, SDC_PCI_CONFIG, 0x10 + 4 * CARD_MSIX, &bar, 4, NULL), 0);
    assert_int_equal(bar, 0xffffe000); // a page for the table, a page for the pending bits
    struct sdc_vfio_irq irq;
    assert_int_equal(sdc_vfio_client_irq(f->client, SDC_PCI_MSIX, &irq, NULL), 0);
    assert_int_equal(irq.count, CARD_VECTORS);
    assert_int_equal(sdc_vfio_client_irq(f->client, SDC_PCI_MSI, &irq, NULL), 0);
    assert_int_equal(irq.count, 2);
    stop(f);
}

// The client's memory is the card's; messages reach it too, and what is no memory is the card's registers.
static void areas_are_memory(void **state)
{
    struct fixture *f = start(state, true);
    struct sdc_vfio_region region;
    struct sdc_vfio_mapping mapping[2];
    uint32_t word = 0x12345678, outside = 0;

    for (unsigned client = 0; client < 2; client++) {
        assert_int_equal(sdc_vfio_client_region(f->client, CARD_MEMORY, &region, NULL), 0);
        assert_true(region.mappable);
        assert_int_equal(region.areas_count, 2);
        assert_int_equal(region.areas[0].offset, CARD_AREA);
        assert_int_equal(region.areas[1].offset, CARD_AREA_2);
        assert_int_equal(sdc_vfio_region_map(&region, CARD_AREA, 0x1000, &mapping[0], NULL), 0);
        assert_int_equal(sdc_vfio_region_map(&region, CARD_AREA_2, 0x1000, &mapping[1], NULL), 0);
        assert_int_equal(sdc_vfio_region_map(&region, 0x3000, 0x1000, &mapping[1], NULL), -ENOTSUP);
        assert_int_equal(sdc_vfio_region_map(&region, CARD_AREA_2, 0x1000, &mapping[1], NULL), 0);
        sdc_vfio_region_release(&region);
        assert_int_equal(mapping[0].data[0], 0x5c); // the card's own
        assert_int_equal(mapping[0].data[8], 0);    // nobody else's
        assert_int_equal(sdc_vfio_client_write(f->client, CARD_MEMORY, CARD_AREA + 8, &word, 4, NULL), 0);
        assert_memory_equal(mapping[0].data + 8, &word, 4);
        mapping[1].data[0xfff] = 0x77;
        assert_int_equal(sdc_vfio_client_read(f->client, CARD_MEMORY, CARD_AREA_2 + 0xffc, &outside, 4, NULL), 0);
        assert_int_equal(outside, 0x77000000);
        assert_int_equal(sdc_vfio_client_read(f->client, CARD_MEMORY, 0, &outside, 4, NULL), 0);
        assert_int_equal(outside, 0xdd);
        sdc_vfio_client_close(f->client);
        f->client = connect_client(&f->server);
        // Whoever has gone sees no more of it, and what it writes nobody sees.
        mapping[0].data[8] = 0x99;
        sdc_vfio_region_unmap(&mapping[0]);
        sdc_vfio_region_unmap(&mapping[1]);
    }
    stop(f);
}

// The library's, in which there may be no memory for another file.
static atomic_bool no_memfds;

__attribute__((visibility("default"))) int memfd_create(const char *name, unsigned flags)
{
    if (!atomic_load(&no_memfds))
        return (int)syscall(SYS_memfd_create, name, flags);
    errno = ENFILE;
    return -1;
}

// What a client has mapped is nobody else's, whatever happens: who comes while no other memory can be had is turned away.
static void areas_are_never_shared(void **state)
{
    struct fixture *f = start(state, true);
    struct sdc_vfio_region region;
    struct sdc_vfio_mapping theirs, ours;

    assert_int_equal(sdc_vfio_client_region(f->client, CARD_MEMORY, &region, NULL), 0);
    assert_int_equal(sdc_vfio_region_map(&region, CARD_AREA, 0x1000, &theirs, NULL), 0);
    sdc_vfio_region_release(&region);
    theirs.data[8] = 0x11;
    atomic_store(&no_memfds, true);
    sdc_vfio_client_close(f->client);
    for (unsigned i = 0; i < 2; i++)
        assert_true(sdc_vfio_client_open(f->server.path, NULL, &f->client, NULL) < 0);
    atomic_store(&no_memfds, false);
    f->client = connect_client(&f->server);
    theirs.data[8] = 0x99;
    assert_int_equal(sdc_vfio_client_region(f->client, CARD_MEMORY, &region, NULL), 0);
    assert_int_equal(sdc_vfio_region_map(&region, CARD_AREA, 0x1000, &ours, NULL), 0);
    sdc_vfio_region_release(&region);
    assert_int_equal(ours.data[0], 0x5c);
    assert_int_equal(ours.data[8], 0);
    sdc_vfio_region_unmap(&theirs);
    sdc_vfio_region_unmap(&ours);
    stop(f);
}

static void wait_for(int fd)
{
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    uint64_t count;

    assert_int_equal(poll(&wait, 1, 60000), 1);
    assert_int_equal(read(fd, &count, sizeof count), sizeof count);
}

static void enable(struct sdc_vfio_client *client, uint8_t cap, uint16_t bits)
{
    uint16_t control = (uint16_t)(get16(client, cap + 2) | bits);

    assert_int_equal(sdc_vfio_client_write(client, SDC_PCI_CONFIG, cap + 2, &control, 2, NULL), 0);
}

static void interrupts_come_as_enabled(void **state)
{
    struct fixture *f = start(state, true);
    int fds[CARD_VECTORS];

    for (unsigned i = 0; i < CARD_VECTORS; i++)
        fds[i] = eventfd(0, EFD_CLOEXEC);
    // INTx, until it is taken back.
    assert_int_equal(sdc_vfio_client_irq_eventfds(f->client, SDC_PCI_INTX, SDC_VFIO_IRQ_TRIGGER, 0, 1, fds, NULL), 0);
    card_do(f->client, CARD_RAISE, 0, 0, 0);
    wait_for(fds[0]);
    assert_int_equal(get16(f->client, 6) & 8, 8);
    assert_int_equal(sdc_vfio_client_irq_none(f->client, SDC_PCI_INTX, SDC_VFIO_IRQ_UNMASK, 0, 1, NULL), 0);
    wait_for(fds[0]); // it stands
    card_put(f->client, CARD_LEVEL, 0);
    assert_int_equal(get16(f->client, 6) & 8, 0);
    // MSI: two vectors; raising a third is the last one's.
    assert_int_equal(sdc_vfio_client_irq_eventfds(f->client, SDC_PCI_MSI, SDC_VFIO_IRQ_TRIGGER, 0, 2, fds, NULL), 0);
    enable(f->client, find_cap(f->client, 5), 1 | 1 << 4);
    card_do(f->client, CARD_RAISE, 0, 0, 2);
    wait_for(fds[1]);
    // MSI-X.
    assert_int_equal(sdc_vfio_client_irq_eventfds(f->client, SDC_PCI_MSIX, SDC_VFIO_IRQ_TRIGGER, 0, CARD_VECTORS, fds, NULL), 0);
    enable(f->client, find_cap(f->client, 0x11), 0x8000);
    card_do(f->client, CARD_RAISE, 0, 0, 1);
    wait_for(fds[1]);
    card_do(f->client, CARD_READ, SHARED, 16, 0); // its end raises vector 0
    wait_for(fds[0]);
    for (unsigned i = 0; i < CARD_VECTORS; i++)
        close(fds[i]);
    stop(f);
}

static void doorbells_ring(void **state)
{
    struct fixture *f = start(state, true);
    struct sdc_vfio_region region;
    struct sdc_vfio_ioeventfds list;
    int fd = eventfd(0, EFD_CLOEXEC);
    uint32_t word = 1;

    assert_int_equal(sdc_vfio_client_irq_eventfds(f->client, SDC_PCI_MSIX, SDC_VFIO_IRQ_TRIGGER, 2, 1, &fd, NULL), 0);
    enable(f->client, find_cap(f->client, 0x11), 0x8000);
    assert_int_equal(sdc_vfio_client_write(f->client, CARD_REGISTERS, CARD_BELL, &word, 4, NULL), 0);
    wait_for(fd);
    assert_int_equal(sdc_vfio_client_region(f->client, CARD_REGISTERS, &region, NULL), 0);
    assert_int_equal(sdc_vfio_client_ioeventfds(f->client, &region, &list, NULL), 0);
    assert_int_equal(list.count, 1);
    assert_int_equal(list.entries[0].offset, CARD_BELL);
    assert_int_equal(list.entries[0].size, 4);
    assert_int_equal(eventfd_write(list.entries[0].fd, 1), 0);
    wait_for(fd);
    assert_int_equal(card_get(f->client, CARD_BELLS), 2);
    sdc_vfio_ioeventfds_release(&list);
    sdc_vfio_region_release(&region);
    close(fd);
    stop(f);
}

// A reset finds windows and copies of both kinds under way.
static void resets_end_what_is_under_way(void **state)
{
    struct fixture *f = start(state, true);

    for (unsigned round = 0; round < 20; round++) {
        card_do(f->client, CARD_MAP_WRITE, round % 2 ? SHARED : PRIVATE, 0x1000, 0);
        for (unsigned i = 0; i < 8; i++)
            card_do(f->client, i % 2 ? CARD_READ : CARD_WRITE, i % 4 < 2 ? PRIVATE : SHARED, BYTES, 0);
        assert_int_equal(sdc_vfio_client_reset(f->client, NULL), 0);
        assert_int_equal(card_get(f->client, CARD_DONE), 0);
        assert_int_equal(card_get(f->client, CARD_HELD), 0);
        assert_int_equal(card_get(f->client, CARD_RESETS), round + 1);
        card_do(f->client, CARD_READ, PRIVATE, BYTES, 0);
        assert_int_equal(card_wait(f->client, 1), 0);
        assert_int_equal(sdc_vfio_client_reset(f->client, NULL), 0);
        round++;
    }
    stop(f);
}

// Nobody answers the card's questions: what it asked for ends all the same.
static void cancels_do_not_wait_for_the_client(void **state)
{
    struct fixture *f = start(state, true);

    sdc_vfio_client_serve_stop(f->client);
    card_do(f->client, CARD_READ, SHARED, 64, 0);
    assert_int_equal(card_wait(f->client, 1), 0);
    stop(f);
}

static void clients_that_go_leave_nothing(void **state)
{
    struct fixture *f = start(state, true);

    for (unsigned round = 0; round < 10; round++) {
        card_do(f->client, CARD_MAP_READ, round % 2 ? SHARED : PRIVATE, 0x2000, 0);
        card_do(f->client, CARD_WRITE, PRIVATE, BYTES, 0);
        card_do(f->client, CARD_READ, SHARED, BYTES, 0);
        sdc_vfio_client_close(f->client);
        f->client = connect_client(&f->server);
        assert_int_equal(card_get(f->client, CARD_DONE), 0);
        assert_int_equal(card_get(f->client, CARD_HELD), 0);
        map_memory(f);
    }
    stop(f);
}

struct raiser {
    struct sdc_pci_device *card;
    atomic_bool ends;
    atomic_uint raised;
};

static void *raise_always(void *context)
{
    struct raiser *raiser = context;

    while (!atomic_load(&raiser->ends)) {
        sdc_pci_interrupt(raiser->card, SDC_PCI_MSIX, 0);
        sdc_pci_raise(raiser->card, 1);
        atomic_fetch_add(&raiser->raised, 1);
    }
    return NULL;
}

// A thread of the author's raises interrupts, whoever is there to hear them.
static void threads_interrupt_while_clients_come_and_go(void **state)
{
    struct fixture *f = start(state, true);
    struct raiser raiser = {.card = f->server.card};
    pthread_t thread;
    int fd = eventfd(0, EFD_CLOEXEC);

    assert_int_equal(pthread_create(&thread, NULL, raise_always, &raiser), 0);
    for (unsigned round = 0; round < 30; round++) {
        assert_int_equal(sdc_vfio_client_irq_eventfds(f->client, SDC_PCI_MSIX, SDC_VFIO_IRQ_TRIGGER, 0, 1, &fd, NULL), 0);
        wait_for(fd);
        sdc_vfio_client_close(f->client);
        f->client = connect_client(&f->server);
    }
    atomic_store(&raiser.ends, true);
    pthread_join(thread, NULL);
    assert_true(atomic_load(&raiser.raised) > 30);
    close(fd);
    stop(f);
}

static void an_unmap_waits_for_windows(void **state)
{
    struct fixture *f = start(state, false);

    card_do(f->client, CARD_MAP_WRITE, SHARED, 0x1000, 0);
    assert_int_equal(card_wait(f->client, 1), 0);
    assert_int_equal(sdc_vfio_client_unmap(f->client, SHARED, MEMORY, NULL), -EBUSY);
    card_put(f->client, CARD_DO, CARD_UNMAP);
    assert_int_equal(card_wait(f->client, 2), 0);
    assert_int_equal(sdc_vfio_client_unmap(f->client, SHARED, MEMORY, NULL), 0);
    card_do(f->client, CARD_READ, SHARED, 16, 0);
    assert_int_equal(card_wait(f->client, 3), -EFAULT);
    stop(f);
}

#define IN_EVERY_WAY(test)                                                                                                   \
    {#test ": library, io_uring", test, NULL, NULL, &ways[0]}, {#test ": library, epoll", test, NULL, NULL, &ways[1]},       \
        {#test ": outside, io_uring", test, NULL, NULL, &ways[2]}, {#test ": outside, epoll", test, NULL, NULL, &ways[3]}

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_EVERY_WAY(copies_go_both_ways),
        IN_EVERY_WAY(windows_show_memory),
        IN_EVERY_WAY(foreign_memory_fails),
        IN_EVERY_WAY(configuration_says_what_it_is),
        IN_EVERY_WAY(areas_are_memory),
        IN_EVERY_WAY(areas_are_never_shared),
        IN_EVERY_WAY(interrupts_come_as_enabled),
        IN_EVERY_WAY(doorbells_ring),
        IN_EVERY_WAY(resets_end_what_is_under_way),
        IN_EVERY_WAY(cancels_do_not_wait_for_the_client),
        IN_EVERY_WAY(clients_that_go_leave_nothing),
        IN_EVERY_WAY(threads_interrupt_while_clients_come_and_go),
        {"an_unmap_waits_for_windows", an_unmap_waits_for_windows, NULL, NULL, &ways[0]},
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
