// SPDX-License-Identifier: BSD-3-Clause
#include "library_card.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { WINDOWS = 64 };

struct card {
    struct sdc_pci_device pci;
    atomic_bool *destroyed;
    uint64_t registers[16]; // by offset / 8
    uint8_t room[CARD_ROOM];
    struct sdc_dma_window *held[WINDOWS];
    unsigned held_count;
    uint8_t fill;
    uint8_t *memory; // of the first area
    uint64_t todo;
    struct sdc_deferred work;
};

static struct card *card_of(struct sdc_pci_device *device)
{
    return (struct card *)(void *)device;
}

static uint64_t *reg(struct card *card, uint64_t offset)
{
    return &card->registers[offset / 8];
}

// --- DMA ---

static void ended(struct card *card, int result)
{
    ++*reg(card, CARD_DONE);
    *reg(card, CARD_CANCELLED) += result == -ECANCELED;
    *reg(card, CARD_RESULT) = (uint64_t)-result;
    sdc_pci_raise(&card->pci, 0);
}

static void copied(void *context, int result)
{
    ended(context, result);
}

static void mapped(void *context, struct sdc_dma_window *window, int result)
{
    struct card *card = context;
    uint32_t count;

    ended(card, result);
    if (result < 0)
        return;
    const struct sdc_span *spans = sdc_dma_spans(window, &count);
    uint64_t sum = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint8_t *bytes = spans[i].base;
        for (size_t at = 0; card->fill && at < spans[i].size; at++)
            bytes[at] = card->fill;
        for (size_t at = 0; !card->fill && at < spans[i].size; at++)
            sum += bytes[at];
    }
    *reg(card, CARD_SUM) = sum;
    card->held[card->held_count++] = window;
    *reg(card, CARD_HELD) = card->held_count;
}

static void unmap_all(struct card *card, sdc_dma_done *done)
{
    while (card->held_count > 0)
        sdc_dma_unmap(card->held[--card->held_count], UINT64_MAX, done, card);
    *reg(card, CARD_HELD) = 0;
}

// What the driver asked for, when its write was answered.
static void work(struct sdc_deferred *deferred)
{
    struct card *card = (struct card *)(void *)((char *)deferred - offsetof(struct card, work));
    struct sdc_pci_device *pci = &card->pci;
    uint64_t iova = *reg(card, CARD_IOVA), size = *reg(card, CARD_SIZE), at = *reg(card, CARD_AT) % CARD_ROOM;
    int rc = 0;

    switch (card->todo) {
    case CARD_READ:
        rc = at + size > CARD_ROOM ? -ERANGE : sdc_dma_read(pci, iova, card->room + at, size, copied, card);
        break;
    case CARD_WRITE:
        rc = at + size > CARD_ROOM ? -ERANGE : sdc_dma_write(pci, iova, card->room + at, size, copied, card);
        break;
    case CARD_MAP_READ:
        card->fill = 0;
        rc = sdc_dma_map(pci, iova, size, SDC_ACCESS_READ, mapped, card);
        break;
    case CARD_MAP_WRITE:
        card->fill = (uint8_t)size | 1;
        rc = sdc_dma_map(pci, iova, size, SDC_ACCESS_WRITE, mapped, card);
        break;
    case CARD_UNMAP:
        unmap_all(card, copied);
        break;
    case CARD_CANCEL:
        sdc_dma_cancel(pci);
        break;
    case CARD_RAISE:
        sdc_pci_raise(pci, (uint32_t)at);
        break;
    case CARD_READ_MANY:
        for (unsigned i = 0; i < CARD_MANY; i++) {
            rc = sdc_dma_read(pci, iova, card->room, 8, copied, card);
            if (rc < 0)
                ended(card, rc);
        }
        return;
    default:
        break;
    }
    if (rc < 0)
        ended(card, rc);
}

// --- the card ---

static int card_access(struct sdc_pci_device *device, struct sdc_pci_access *access)
{
    struct card *card = card_of(device);
    bool whole = access->region == CARD_REGISTERS && access->size == 8 && access->offset < sizeof card->registers;

    if (!access->write) {
        access->value = whole ? *reg(card, access->offset) : 0xdd;
    } else if (whole && access->offset == CARD_DO) {
        card->todo = access->value;
        sdc_loop_defer(sdc_pci_loop(device), &card->work);
    } else if (whole && access->offset == CARD_LEVEL) {
        sdc_pci_set_intx(device, access->value != 0);
    } else if (whole) {
        *reg(card, access->offset) = access->value;
    }
    return 0;
}

static void card_doorbell(struct sdc_pci_device *device, uint32_t region, uint64_t offset)
{
    assert_int_equal(region, CARD_REGISTERS);
    assert_int_equal(offset, CARD_BELL);
    ++*reg(card_of(device), CARD_BELLS);
    sdc_pci_raise(device, 2);
}

// All that was under way has ended before; what is held is given back now, as if I/O had been waited for.
static void card_reset(struct sdc_pci_device *device)
{
    struct card *card = card_of(device);
    uint64_t resets = *reg(card, CARD_RESETS) + 1;

    sdc_loop_undefer(sdc_pci_loop(device), &card->work);
    unmap_all(card, NULL);
    uint64_t cancelled = *reg(card, CARD_CANCELLED);
    memset(card->registers, 0, sizeof card->registers);
    *reg(card, CARD_RESETS) = resets;
    *reg(card, CARD_CANCELLED) = cancelled;
}

static void card_client_gone(struct sdc_pci_device *device)
{
    struct card *card = card_of(device);

    assert_int_equal(card->memory[8], 0);
    card->memory[0] = 0x5c;
    *reg(card, CARD_RESETS) = 0;
    *reg(card, CARD_CANCELLED) = 0;
}

static void card_destroy(struct sdc_pci_device *device)
{
    struct card *card = card_of(device);

    atomic_store(card->destroyed, true);
    sdc_pci_fini(device);
    free(card);
}

static const struct sdc_pci_ops card_ops = {
    .name = "test-card",
    .access = card_access,
    .doorbell = card_doorbell,
    .reset = card_reset,
    .client_gone = card_client_gone,
    .destroy = card_destroy,
};

struct sdc_pci_device *card_new(atomic_bool *destroyed, bool with_msix)
{
    const struct sdc_pci_identity identity = {
        .vendor = 0x1d0f, .device = 0x5ca1, .subsystem_vendor = 0x1d0f, .subsystem = 1, .revision = 7, .class_code = 0x088000,
        .intx = true};
    struct card *card = calloc(1, sizeof *card);
    struct sdc_error err = {0};
    void *area_2, *area;

    assert_non_null(card);
    card->destroyed = destroyed;
    card->work.run = work;
    card->pci.bars[CARD_REGISTERS].size = 0x1000;
    card->pci.bars[CARD_MEMORY] = (struct sdc_pci_bar){.size = CARD_MEMORY_SIZE, .is_64bit = true, .prefetchable = true};
    assert_int_equal(sdc_pci_init(&card->pci, &card_ops, &identity, &err), 0);
    if (with_msix)
        assert_int_equal(sdc_pci_add_msix(&card->pci, CARD_VECTORS, CARD_MSIX, &err), 0);
    assert_int_equal(sdc_pci_add_msi(&card->pci, 2, &err), 0);
    assert_int_equal(sdc_pci_add_memory(&card->pci, CARD_MEMORY, CARD_AREA_2, 0x1000, &area_2, &err), 0);
    assert_int_equal(sdc_pci_add_memory(&card->pci, CARD_MEMORY, CARD_AREA, 0x1000, &area, &err), 0);
    assert_int_equal((char *)area_2 - (char *)area, CARD_AREA_2 - CARD_AREA);
    assert_int_equal(sdc_pci_add_doorbell(&card->pci, CARD_REGISTERS, CARD_BELL, 4, &err), 0);
    card->memory = area;
    card->memory[0] = 0x5c;
    return &card->pci;
}

// --- its server ---

void card_turn(struct sdc_server *server)
{
    struct sdc_error err = {0};
    int rc;

    do {
        struct pollfd waiting = {.fd = sdc_server_fd(server, &err), .events = POLLIN};
        poll(&waiting, 1, -1);
        rc = sdc_server_process(server, &err);
    } while (rc == SDC_SERVER_WAITS || rc == SDC_SERVER_GOES_ON);
    assert_int_equal(rc, SDC_SERVER_ENDED);
}

static void *run(void *context)
{
    struct card_server *server = context;
    struct sdc_error err = {0};

    if (server->outside)
        card_turn(server->server);
    else if (sdc_server_run(server->server, &err) < 0)
        fprintf(stderr, "%s\n", err.text);
    return NULL;
}

void card_server_start(struct card_server *server, enum sdc_loop_kind kind, bool outside, bool with_msix)
{
    struct sdc_server_options options = {.loop = kind};
    struct sdc_error err = {0};

    *server = (struct card_server){.outside = outside};
    strcpy(server->folder, "/tmp/sidecard-lib.XXXXXX");
    assert_non_null(mkdtemp(server->folder));
    snprintf(server->path, sizeof server->path, "%s/s", server->folder);
    assert_int_equal(sdc_server_new(&options, &server->server, &err), 0);
    server->card = card_new(&server->destroyed, with_msix);
    if (sdc_server_add_pci(server->server, server->path, server->card, NULL, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(pthread_create(&server->thread, NULL, run, server), 0);
}

void card_server_stop(struct card_server *server)
{
    sdc_server_stop(server->server);
    sdc_server_stop(server->server);
    pthread_join(server->thread, NULL);
    assert_false(atomic_load(&server->destroyed));
    sdc_server_free(server->server);
    assert_true(atomic_load(&server->destroyed));
    assert_int_equal(access(server->path, F_OK), -1);
    char lock[80];
    snprintf(lock, sizeof lock, "%s.lock", server->path);
    unlink(lock);
    assert_int_equal(rmdir(server->folder), 0);
}

// --- its driver ---

uint64_t card_get(struct sdc_vfio_client *client, uint64_t offset)
{
    uint64_t value = 0;
    struct sdc_error err = {0};

    if (sdc_vfio_client_read(client, CARD_REGISTERS, offset, &value, sizeof value, &err) < 0)
        fail_msg("%s", err.text);
    return value;
}

void card_put(struct sdc_vfio_client *client, uint64_t offset, uint64_t value)
{
    struct sdc_error err = {0};

    if (sdc_vfio_client_write(client, CARD_REGISTERS, offset, &value, sizeof value, &err) < 0)
        fail_msg("%s", err.text);
}

void card_do(struct sdc_vfio_client *client, uint64_t what, uint64_t iova, uint64_t size, uint64_t at)
{
    card_put(client, CARD_IOVA, iova);
    card_put(client, CARD_SIZE, size);
    card_put(client, CARD_AT, at);
    card_put(client, CARD_DO, what);
}

int card_wait(struct sdc_vfio_client *client, uint64_t done)
{
    for (unsigned i = 0; i < 200000 && card_get(client, CARD_DONE) < done; i++)
        usleep(i < 100 ? 0 : 1000);
    assert_int_equal(card_get(client, CARD_DONE), done);
    return -(int)card_get(client, CARD_RESULT);
}
