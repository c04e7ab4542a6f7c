// SPDX-License-Identifier: BSD-3-Clause
#include "control/keeper.h"

#include "base/bytes.h"
#include "base/check.h"
#include "base/limits.h"
#include "base/log.h"
#include "os/fd.h"
#include "os/socket.h"
#include "os/wait.h"
#include "wire/keeper.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { SLOT_FREE, SLOT_HANDED, SLOT_TAKEN };

struct sdc_keeper {
    struct sdc_slots slots; // first
    int fd;
    struct sdc_loop *loop;
    struct sdc_watch watch;
    void (*stop)(void *context);
    void (*gone)(void *context);
    void *context;
    uint32_t next; // where to look for a free slot
    uint8_t state[SDC_LIMIT_SLOTS];
    int handed[SDC_LIMIT_SLOTS]; // fds that nobody has taken yet
};

static struct sdc_keeper *keeper_of(struct sdc_slots *slots)
{
    return (struct sdc_keeper *)(void *)slots;
}

// --- messages ---

// The keeper is ours to trust and always reads; that it does not for a moment is no reason to lose what it should have.
static int say(struct sdc_keeper *keeper, uint32_t what, uint32_t slot, int fd)
{
    uint8_t bytes[sizeof(struct sdc_keeper_message)];
    struct iovec iov = {bytes, sizeof bytes};

    sdc_put32(bytes, what);
    sdc_put32(bytes + 4, slot);
    for (;;) {
        ssize_t sent = sdc_socket_send(keeper->fd, &iov, 1, &fd, fd < 0 ? 0 : 1);
        if (sent != -EAGAIN)
            return sent < 0 ? (int)sent : 0;
        int rc = sdc_wait_fd(keeper->fd, SDC_WAIT_OUTPUT, SDC_LIMIT_KEEPER_MS);
        if (rc <= 0)
            return rc < 0 ? rc : -ETIMEDOUT;
    }
}

// The next message: 1 with what and slot, and *fd -1 or the caller's; 0: none is there; -EPIPE: the keeper is no more; -EPROTO.
static int hear(struct sdc_keeper *keeper, uint32_t *what, uint32_t *slot, int *fd)
{
    uint8_t bytes[sizeof(struct sdc_keeper_message) + 1];
    int fds[SDC_SOCKET_FDS_MAX];
    int count = 0;
    ssize_t got = sdc_socket_receive(keeper->fd, bytes, sizeof bytes, fds, &count);

    if (got == -EAGAIN)
        return 0;
    *fd = count == 1 ? fds[0] : -1;
    for (int i = 0; i < count && count != 1; i++)
        sdc_fd_close(&fds[i]);
    if (got == 0 || got == -ECONNRESET)
        return -EPIPE;
    bool good = got == sizeof(struct sdc_keeper_message);
    *what = good ? sdc_get32(bytes) : 0;
    *slot = good ? sdc_get32(bytes + 4) : 0;
    if (good && count == (*what == SDC_KEEPER_PUT ? 1 : 0))
        return 1;
    sdc_fd_close(fd);
    return got < 0 ? (int)got : -EPROTO;
}

// --- slots ---

static int put(struct sdc_slots *slots, int fd, uint32_t *slot)
{
    struct sdc_keeper *keeper = keeper_of(slots);

    for (uint32_t tried = 0; tried < SDC_LIMIT_SLOTS; tried++) {
        uint32_t at = (keeper->next + tried) % SDC_LIMIT_SLOTS;
        if (keeper->state[at] != SLOT_FREE)
            continue;
        int rc = say(keeper, SDC_KEEPER_PUT, at, fd);
        if (rc < 0)
            return rc;
        keeper->state[at] = SLOT_TAKEN;
        keeper->next = at + 1;
        *slot = at;
        return 0;
    }
    return -ENOSPC;
}

static void drop(struct sdc_slots *slots, uint32_t slot)
{
    struct sdc_keeper *keeper = keeper_of(slots);

    if (slot >= SDC_LIMIT_SLOTS || keeper->state[slot] == SLOT_FREE)
        return;
    sdc_fd_close(&keeper->handed[slot]);
    keeper->state[slot] = SLOT_FREE;
    say(keeper, SDC_KEEPER_DROP, slot, -1);
}

static int take(struct sdc_slots *slots, uint32_t slot)
{
    struct sdc_keeper *keeper = keeper_of(slots);

    if (slot >= SDC_LIMIT_SLOTS || keeper->handed[slot] < 0)
        return -ENOENT;
    int fd = keeper->handed[slot];
    keeper->handed[slot] = -1;
    keeper->state[slot] = SLOT_TAKEN;
    return fd;
}

static const struct sdc_slots_ops ops = {.put = put, .drop = drop, .take = take};

struct sdc_slots *sdc_keeper_slots(struct sdc_keeper *keeper)
{
    return &keeper->slots;
}

// --- beginning ---

static int put_handed(struct sdc_keeper *keeper, uint32_t slot, int fd, struct sdc_error *err)
{
    if (slot >= SDC_LIMIT_SLOTS || keeper->state[slot] != SLOT_FREE) {
        sdc_fd_close(&fd);
        return sdc_error_set(err, -EPROTO, SDC_FAULT_USER, "the keeper puts an fd into slot %" PRIu32 ": it is taken, or there is none",
                             slot);
    }
    keeper->handed[slot] = fd;
    keeper->state[slot] = SLOT_HANDED;
    return 0;
}

static int receive_all(struct sdc_keeper *keeper, struct sdc_error *err)
{
    uint32_t what, slot;
    int fd;

    for (;;) {
        int rc = hear(keeper, &what, &slot, &fd);
        if (rc == 0)
            rc = sdc_wait_fd(keeper->fd, SDC_WAIT_INPUT, SDC_LIMIT_KEEPER_MS) == 0 ? -ETIMEDOUT : 0;
        else if (rc == 1 && what == SDC_KEEPER_START)
            return 0;
        else if (rc == 1)
            rc = what == SDC_KEEPER_PUT ? put_handed(keeper, slot, fd, err) : -EPROTO;
        if (rc < 0)
            return err->text[0] ? rc : sdc_error_set(err, rc, SDC_FAULT_USER, "the keeper does not say what it has: %s", strerror(-rc));
    }
}

int sdc_keeper_open(int fd, struct sdc_keeper **out, struct sdc_error *err)
{
    if (!sdc_socket_is_seqpacket(fd))
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "--keeper-fd=%d: must be a Unix socket of type SOCK_SEQPACKET", fd);
    struct sdc_keeper *keeper = calloc(1, sizeof *keeper);
    if (!keeper)
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for the keeper's slots");
    keeper->slots.ops = &ops;
    keeper->fd = fd;
    for (uint32_t i = 0; i < SDC_LIMIT_SLOTS; i++)
        keeper->handed[i] = -1;
    int rc = sdc_fd_set_nonblocking(fd);
    if (rc < 0)
        sdc_error_set(err, rc, SDC_FAULT_HOST, "--keeper-fd=%d: %s", fd, strerror(-rc));
    else
        rc = receive_all(keeper, err);
    if (rc < 0)
        sdc_keeper_close(keeper);
    else
        *out = keeper;
    return rc;
}

// --- afterwards ---

static void heard(struct sdc_watch *watch, uint32_t events)
{
    struct sdc_keeper *keeper = sdc_container(watch, struct sdc_keeper, watch);
    uint32_t what, slot;
    int fd;

    (void)events;
    int rc = hear(keeper, &what, &slot, &fd);
    if (rc == 0)
        return;
    if (rc == 1 && what == SDC_KEEPER_STOP) {
        keeper->stop(keeper->context);
        return;
    }
    if (rc == 1)
        sdc_fd_close(&fd);
    sdc_loop_unwatch(keeper->loop, &keeper->watch);
    sdc_log(SDC_LOG_ERROR, "%s", rc == -EPIPE ? "the keeper is no more" : "the keeper says what this program does not understand");
    keeper->gone(keeper->context);
}

int sdc_keeper_ready(struct sdc_keeper *keeper, struct sdc_loop *loop, void (*stop)(void *context), void (*gone)(void *context),
                     void *context, struct sdc_error *err)
{
    for (uint32_t i = 0; i < SDC_LIMIT_SLOTS; i++) {
        if (keeper->state[i] == SLOT_HANDED)
            drop(&keeper->slots, i);
    }
    keeper->loop = loop;
    keeper->stop = stop;
    keeper->gone = gone;
    keeper->context = context;
    keeper->watch = (struct sdc_watch){.fd = keeper->fd, .wanted = SDC_READABLE, .ready = heard};
    int rc = sdc_loop_watch(loop, &keeper->watch);
    if (rc == 0)
        rc = say(keeper, SDC_KEEPER_READY, 0, -1);
    if (rc < 0)
        return sdc_error_set(err, rc, SDC_FAULT_USER, "the keeper cannot be told that the card is served: %s", strerror(-rc));
    return 0;
}

void sdc_keeper_stopped(struct sdc_keeper *keeper)
{
    say(keeper, SDC_KEEPER_STOPPED, 0, -1);
}

void sdc_keeper_close(struct sdc_keeper *keeper)
{
    if (!keeper)
        return;
    if (keeper->loop)
        sdc_loop_unwatch(keeper->loop, &keeper->watch);
    for (uint32_t i = 0; i < SDC_LIMIT_SLOTS; i++)
        sdc_fd_close(&keeper->handed[i]);
    sdc_fd_close(&keeper->fd);
    free(keeper);
}
