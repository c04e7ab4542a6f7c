// SPDX-License-Identifier: BSD-3-Clause
// sidecard serve SOCKET DEVICE BACKEND [--option=value ...]
#include "base/check.h"
#include "base/limits.h"
#include "base/log.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "control/server.h"
#include "os/clock.h"
#include "os/fd.h"
#include "os/ready.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char usage[] =
    "usage: sidecard serve SOCKET DEVICE BACKEND [--option=value ...]\n"
    "\n"
    "  SOCKET   PATH or vfio-user:PATH, a Unix socket to make, or vhost-user:PATH; fd:N, vfio-user:fd:N or\n"
    "           vhost-user:fd:N, a listening one that was passed in\n"
    "  DEVICE   virtio-blk\n"
    "  BACKEND  PATH or file:PATH, a raw image or a block device; ram:SIZE; null:SIZE\n"
    "\n"
    "  --queues=N            queues of the device, 1 to 1024 (1)\n"
    "  --queue-size=N        entries of a queue, a power of two up to 32768 (256)\n"
    "  --threads=N           threads that the queues are spread over (1)\n"
    "  --read-only           the guest cannot write\n"
    "  --block-size=N        512 or 4096 (512, or the block device's own)\n"
    "  --write-cache=on|off  whether the guest finds a write cache (on)\n"
    "  --packed=on|off       offer packed rings beside split ones (on)\n"
    "  --in-order=on|off     offer to finish requests in order (off)\n"
    "  --serial=TEXT         serial number, up to 20 characters\n"
    "  --seg-max=N           most segments of a request (queue size - 2, up to 254)\n"
    "  --size-max=SIZE       most bytes of a segment (no limit)\n"
    "  --direct              read and write past the host's page cache\n"
    "  --raw                 take the image as raw even if it looks like qcow2, vmdk, vhdx or vdi\n"
    "  --allow-file-memory   let the guest's memory be a plain file\n"
    "  --connect             connect to a vhost-user front end that listens at the socket, and again when it goes\n"
    "  --socket-mode=MODE    permissions of the socket, octal\n"
    "  --socket-owner=USER[:GROUP]\n"
    "  --loop=io_uring|epoll what to wait by (io_uring, or epoll where that is not permitted)\n"
    "  --keeper-fd=N         a socket to the keeper, which holds what another process needs to go on\n"
    "  --ready-fd=N          write READY to this fd when the socket is there\n"
    "  --log-level=error|warning|info|debug (warning)\n"
    "\n"
    "Signals: SIGTERM ends it, SIGHUP makes it look at the backend's size again.\n";

// --- the log ---

static void write_line(enum sdc_log_level level, const char *line)
{
    static const char *const names[] = {"error: ", "warning: ", "", "debug: "};

    fprintf(stderr, "sidecard: %s%s\n", names[level], line);
}

static struct sdc_log_sink sink = {.level = SDC_LOG_WARNING, .write = write_line, .now_ns = sdc_clock_ns};

static int parse_log_level(const struct sdc_option *option, const char *text, struct sdc_error *err)
{
    static const char *const names[] = {"error", "warning", "info", "debug"};

    for (unsigned i = 0; i < SDC_COUNT(names); i++) {
        if (strcmp(text, names[i]) == 0) {
            *(enum sdc_log_level *)option->value = i;
            return 0;
        }
    }
    return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "--log-level=%s: must be error, warning, info or debug", text);
}

// --- options with a form of their own ---

static int parse_loop(const struct sdc_option *option, const char *text, struct sdc_error *err)
{
    static const char *const names[] = {
        [SDC_LOOP_AUTO] = "auto", [SDC_LOOP_IO_URING] = "io_uring", [SDC_LOOP_EPOLL] = "epoll"};

    for (unsigned i = 0; i < SDC_COUNT(names); i++) {
        if (strcmp(text, names[i]) == 0) {
            *(enum sdc_loop_kind *)option->value = i;
            return 0;
        }
    }
    return sdc_error_set(err, -EINVAL, SDC_FAULT_USER,
                         "--loop=%s: must be auto, io_uring or epoll; type for example %s", text, option->example);
}

static int parse_mode(const struct sdc_option *option, const char *text, struct sdc_error *err)
{
    char *end;
    long mode = strtol(text, &end, 8);

    if (*text < '0' || *text > '7' || *end != '\0' || mode > 0777)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER,
                             "--socket-mode=%s: must be octal permissions; type for example --socket-mode=0660", text);
    *(int *)option->value = (int)mode;
    return 0;
}

static int parse_owner(const struct sdc_option *option, const char *text, struct sdc_error *err)
{
    struct sdc_listen_options *listen = option->value;
    char user[64];
    size_t length = strcspn(text, ":");
    const char *group = text[length] == ':' ? text + length + 1 : NULL;
    char *end;

    if (*text == '\0' || strcmp(text, ":") == 0)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "--socket-owner=%s: nobody is named; type for example %s", text,
                             option->example);
    snprintf(user, sizeof user, "%.*s", (int)length, text);
    if (length > 0) {
        struct passwd *entry = getpwnam(user);
        unsigned long id = strtoul(user, &end, 10);
        if (!entry && (*end != '\0' || id >= UINT32_MAX))
            return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "--socket-owner=%s: there is no user '%s'", text, user);
        listen->owner = entry ? entry->pw_uid : (uid_t)id;
    }
    if (group) {
        struct group *entry = getgrnam(group);
        unsigned long id = strtoul(group, &end, 10);
        if (!entry && (*group == '\0' || *end != '\0' || id >= UINT32_MAX))
            return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "--socket-owner=%s: there is no group '%s'", text, group);
        listen->group = entry ? entry->gr_gid : (gid_t)id;
    }
    return 0;
}

struct numbers {
    uint64_t queues, queue_size, threads, block_size, seg_max, size_max, ready_fd, keeper_fd;
    enum sdc_loop_kind loop;
};

// Checks what a table of ranges cannot say.
static int check(const struct numbers *numbers, struct sdc_error *err)
{
    if (numbers->queue_size && !sdc_is_power_of_two(numbers->queue_size))
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "--queue-size=%u: must be a power of two; type for example --queue-size=256",
                             (unsigned)numbers->queue_size);
    if (numbers->block_size != 0 && numbers->block_size != 512 && numbers->block_size != 4096)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "--block-size=%u: must be 512 or 4096", (unsigned)numbers->block_size);
    if (numbers->ready_fd != UINT64_MAX && !sdc_fd_is_open((int)numbers->ready_fd))
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "--ready-fd=%d: no such fd is open", (int)numbers->ready_fd);
    if (numbers->keeper_fd != UINT64_MAX && !sdc_fd_is_open((int)numbers->keeper_fd))
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "--keeper-fd=%d: no such fd is open", (int)numbers->keeper_fd);
    return 0;
}

static int parse(int argc, char **argv, struct sdc_serve_options *serve, struct numbers *numbers, bool *help,
                 struct sdc_error *err)
{
    const struct sdc_option options[] = {
        {"queues", SDC_OPTION_NUMBER, &numbers->queues, 1, SDC_LIMIT_QUEUES, "--queues=4", NULL},
        {"queue-size", SDC_OPTION_NUMBER, &numbers->queue_size, 1, SDC_LIMIT_QUEUE_SIZE, "--queue-size=256", NULL},
        {"threads", SDC_OPTION_NUMBER, &numbers->threads, 1, SDC_LIMIT_THREADS, "--threads=2", NULL},
        {"read-only", SDC_OPTION_FLAG, &serve->card.block.read_only, 0, 0, "--read-only", NULL},
        {"block-size", SDC_OPTION_SIZE, &numbers->block_size, 512, 4096, "--block-size=4096", NULL},
        {"write-cache", SDC_OPTION_BOOL, &serve->card.write_cache, 0, 0, "--write-cache=off", NULL},
        {"packed", SDC_OPTION_BOOL, &serve->card.packed, 0, 0, "--packed=off", NULL},
        {"in-order", SDC_OPTION_BOOL, &serve->card.in_order, 0, 0, "--in-order=on", NULL},
        {"serial", SDC_OPTION_TEXT, &serve->card.serial, 0, 0, "--serial=DISK1", NULL},
        {"seg-max", SDC_OPTION_NUMBER, &numbers->seg_max, 1, SDC_LIMIT_QUEUE_SIZE, "--seg-max=126", NULL},
        {"size-max", SDC_OPTION_SIZE, &numbers->size_max, 512, UINT32_MAX, "--size-max=64k", NULL},
        {"direct", SDC_OPTION_FLAG, &serve->card.block.direct, 0, 0, "--direct", NULL},
        {"raw", SDC_OPTION_FLAG, &serve->card.block.raw, 0, 0, "--raw", NULL},
        {"allow-file-memory", SDC_OPTION_FLAG, &serve->allow_file_memory, 0, 0, "--allow-file-memory", NULL},
        {"connect", SDC_OPTION_FLAG, &serve->connect, 0, 0, "--connect", NULL},
        {"socket-mode", SDC_OPTION_CALL, &serve->listen.mode, 0, 0, "--socket-mode=0660", parse_mode},
        {"socket-owner", SDC_OPTION_CALL, &serve->listen, 0, 0, "--socket-owner=libvirt-qemu:kvm", parse_owner},
        {"loop", SDC_OPTION_CALL, &numbers->loop, 0, 0, "--loop=epoll", parse_loop},
        {"ready-fd", SDC_OPTION_NUMBER, &numbers->ready_fd, 0, INT32_MAX, "--ready-fd=3", NULL},
        {"keeper-fd", SDC_OPTION_NUMBER, &numbers->keeper_fd, 0, INT32_MAX, "--keeper-fd=4", NULL},
        {"log-level", SDC_OPTION_CALL, &sink.level, 0, 0, "--log-level=info", parse_log_level},
        {"help", SDC_OPTION_FLAG, help, 0, 0, "--help", NULL},
    };
    const char *others[3] = {0};

    int count = sdc_options_parse(options, SDC_COUNT(options), argc, argv, others, 3, err);
    if (count < 0 || *help)
        return count < 0 ? count : 0;
    if (count < 3)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER,
                             "no %s; type for example: sidecard serve vm0.sock virtio-blk disk.img",
                             count == 0 ? "SOCKET" : count == 1 ? "DEVICE" : "BACKEND");
    serve->socket = others[0];
    serve->device = others[1];
    serve->backend = others[2];
    serve->card.queues = (uint16_t)numbers->queues;
    serve->card.queue_size = (uint16_t)numbers->queue_size;
    serve->card.seg_max = (uint32_t)numbers->seg_max;
    serve->card.size_max = (uint32_t)numbers->size_max;
    serve->card.block.block_size = (uint32_t)numbers->block_size;
    return check(numbers, err);
}

static int serve_until_end(const struct sdc_serve_options *serve, const struct numbers *numbers, struct sdc_error *err)
{
    struct sdc_server *server = NULL;
    int rc = sdc_server_new((unsigned)numbers->threads, numbers->loop, &server, err);

    if (rc == 0 && numbers->keeper_fd != UINT64_MAX)
        rc = sdc_server_keep(server, (int)numbers->keeper_fd, err);
    if (rc == 0)
        rc = sdc_server_add(server, serve, err);
    if (rc == 0 && numbers->ready_fd != UINT64_MAX)
        rc = sdc_ready_fd((int)numbers->ready_fd, err);
    if (rc == 0) {
        sdc_ready_notify();
        sdc_log(SDC_LOG_INFO, "%s on %s at %s", serve->device, serve->backend, serve->socket);
        rc = sdc_server_run(server, err);
        if (rc == 0 && sdc_server_left(server))
            _exit(0); // another process goes on with the card: to free it here would be to end it
    }
    sdc_server_free(server);
    return rc;
}

int sdc_command_serve(int argc, char **argv)
{
    struct sdc_serve_options serve = {
        .card = {.write_cache = true, .packed = true},
        .listen = {.mode = -1, .owner = (uid_t)-1, .group = (gid_t)-1},
    };
    struct numbers numbers = {.threads = 1, .ready_fd = UINT64_MAX, .keeper_fd = UINT64_MAX};
    struct sdc_error err = {0};
    bool help = false;

    int rc = parse(argc, argv, &serve, &numbers, &help, &err);
    if (help) {
        fputs(usage, stdout);
        return 0;
    }
    sdc_log_to(&sink);
    if (rc == 0)
        rc = serve_until_end(&serve, &numbers, &err);
    return rc < 0 ? sdc_command_failed(&err) : 0;
}
