// SPDX-License-Identifier: BSD-3-Clause
// The command line of sidecard bench.
#include "cli/bench_options.h"

#include "base/check.h"
#include "base/limits.h"
#include "base/parse.h"
#include "cli/options.h"
#include "cli/protocol.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

const char sdc_bench_usage[] =
    "usage: sidecard bench SOCKET [--option=value ...]\n"
    "\n"
    "  SOCKET   PATH or vfio-user:PATH of a served virtio-blk or nvme card, or vhost-user:PATH of a vhost-user-blk\n"
    "           back end\n"
    "\n"
    "What to do (writing overwrites what is on the disk, without asking):\n"
    "  --rw=read|write|randread|randwrite|rw|randrw  (read)\n"
    "  --rwmixread=PERCENT   reads among rw and randrw (50)\n"
    "  --bs=SIZE             bytes of a request (4k)\n"
    "  --iodepth=N           requests in flight of each job (1)\n"
    "  --numjobs=N           jobs, each with a thread and a queue of its own (1)\n"
    "  --offset=SIZE         where on the disk to begin (0)\n"
    "  --size=SIZE           how much of it to use (all from there)\n"
    "  --verify              write data that can be told, read it back and check it; with --rw=read or\n"
    "                        randread, check what an earlier run wrote\n"
    "  --readonly            refuse to write\n"
    "  --randseed=N          seed of random offsets and of verifiable data (1)\n"
    "\n"
    "How long (without either: once over the region):\n"
    "  --runtime=SECONDS     as long as that, over and over (fio's time_based)\n"
    "  --ramp_time=SECONDS   before that, without counting\n"
    "  --number_ios=N        that many requests of each job\n"
    "\n"
    "How to wait for the device:\n"
    "  --interrupt           sleep until it interrupts (default)\n"
    "  --poll                look all the time\n"
    "  --timeout=SECONDS     give up when it finishes nothing for so long (30)\n"
    "  --reconnect-ms=N      when a vhost-user back end goes away, try so long to find it again (0: give up)\n"
    "  --queue-size=N        entries of a queue (what the device has; over vhost-user 256)\n"
    "  --packed=on|off       use packed rings if the device offers them (on)\n"
    "  --in-order=on|off     have requests finished in order; the device has to offer it (off)\n"
    "  --event-idx=on|off    use event indices if the device offers them (on)\n"
    "  --indirect=on|off     use indirect descriptors if the device offers them (on)\n"
    "  --notify=auto|message|ioeventfd|mapped  how to tell the device of requests (auto)\n"
    "  --memory=shared|private|huge  share memory, let all data move by messages, or share huge pages (shared)\n"
    "  --namespace=N         of an NVMe controller (its first)\n"
    "  --sgl                 tell an NVMe controller where data is by SGLs, not by PRPs\n"
    "  --shadow-doorbells=auto|on|off  use those of an NVMe controller (auto: if it has them)\n"
    "  --iommu=on|off|flush  over vhost-user, translate the device's addresses; flush: and void all now and then (off)\n"
    "  --twin-socket=on|off  let the server ask for private memory on a socket of its own (off)\n"
    "\n"
    "  --json                results in the form of fio's JSON\n"
    "  --eta=auto|never      a live line on a terminal, or none (auto)\n"
    "\n"
    "Exit status: 0; 1 when a request failed or data was not what was written; 2 for a mistake in what was "
    "typed.\n";

// --- words ---

static const struct {
    const char *name;
    bool reads, writes, random;
} patterns[] = {
    {"read", true, false, false},     {"write", false, true, false},   {"rw", true, true, false},
    {"readwrite", true, true, false}, {"randread", true, false, true}, {"randwrite", false, true, true},
    {"randrw", true, true, true},
};

static int parse_rw(const struct sdc_option *option, const char *text, void *value, struct sdc_error *err)
{
    struct sdc_bench_options *options = value;
    const char *names[SDC_COUNT(patterns) + 1] = {0};
    for (size_t i = 0; i < SDC_COUNT(patterns); i++) {
        names[i] = patterns[i].name;
        if (strcmp(text, patterns[i].name) != 0)
            continue;
        options->rw = patterns[i].name;
        options->reads = patterns[i].reads;
        options->writes = patterns[i].writes;
        options->random = patterns[i].random;
        return 0;
    }
    const char *near = sdc_nearest(text, names);
    if (near)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "no such pattern; did you mean --%s=%s?", option->name, near);
    return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "must be read, write, randread, randwrite, rw or randrw");
}

static const char *const memory_names[] = {
    [SDC_CLIENT_MEMORY_SHARED] = "shared", [SDC_CLIENT_MEMORY_PRIVATE] = "private", [SDC_CLIENT_MEMORY_HUGE] = "huge"};

const char *sdc_bench_memory_name(enum sdc_client_memory_kind kind)
{
    return memory_names[kind];
}

static int parse_memory(const struct sdc_option *option, const char *text, void *value, struct sdc_error *err)
{
    int which = sdc_option_pick(text, memory_names, SDC_COUNT(memory_names), err);
    (void)option;
    if (which >= 0)
        *(enum sdc_client_memory_kind *)value = (enum sdc_client_memory_kind)which;
    return which < 0 ? which : 0;
}

static const char *const iommu_names[] = {
    [SDC_DRIVER_IOMMU_OFF] = "off", [SDC_DRIVER_IOMMU_ON] = "on", [SDC_DRIVER_IOMMU_FLUSH] = "flush"};

const char *sdc_bench_iommu_name(enum sdc_driver_iommu iommu)
{
    return iommu_names[iommu];
}

static int parse_iommu(const struct sdc_option *option, const char *text, void *value, struct sdc_error *err)
{
    int which = sdc_option_pick(text, iommu_names, SDC_COUNT(iommu_names), err);
    (void)option;
    if (which >= 0)
        *(enum sdc_driver_iommu *)value = (enum sdc_driver_iommu)which;
    return which < 0 ? which : 0;
}

static int parse_notify(const struct sdc_option *option, const char *text, void *value, struct sdc_error *err)
{
    const char *names[SDC_DRIVER_NOTIFY_MAPPED + 1];
    (void)option;
    for (size_t i = 0; i < SDC_COUNT(names); i++)
        names[i] = sdc_driver_notify_name((enum sdc_driver_notify)i);
    int which = sdc_option_pick(text, names, SDC_COUNT(names), err);
    if (which >= 0)
        *(enum sdc_driver_notify *)value = (enum sdc_driver_notify)which;
    return which < 0 ? which : 0;
}

static int parse_shadows(const struct sdc_option *option, const char *text, void *value, struct sdc_error *err)
{
    static const char *const names[] = {
        [SDC_DRIVER_NVME_SHADOWS_AUTO] = "auto", [SDC_DRIVER_NVME_SHADOWS_ON] = "on", [SDC_DRIVER_NVME_SHADOWS_OFF] = "off"};
    int which = sdc_option_pick(text, names, SDC_COUNT(names), err);
    (void)option;
    if (which >= 0)
        *(enum sdc_driver_nvme_shadows *)value = (enum sdc_driver_nvme_shadows)which;
    return which < 0 ? which : 0;
}

static int parse_eta(const struct sdc_option *option, const char *text, void *value, struct sdc_error *err)
{
    static const char *const names[] = {"auto", "never"};
    int which = sdc_option_pick(text, names, SDC_COUNT(names), err);
    (void)option;
    if (which >= 0)
        *(bool *)value = which == 1;
    return which < 0 ? which : 0;
}

// Seconds: a number, with fio's "s" or "m" behind it or not.
static int parse_seconds(const struct sdc_option *option, const char *text, void *value, struct sdc_error *err)
{
    char digits[24];
    size_t length = strlen(text);
    uint64_t unit = 1;
    if (length > 1 && (text[length - 1] == 's' || text[length - 1] == 'm'))
        unit = text[--length] == 's' ? 1 : 60;
    uint64_t seconds;
    int size = snprintf(digits, sizeof digits, "%.*s", (int)sdc_min(length, INT32_MAX), text);
    if (size >= (int)sizeof digits || sdc_parse_number(digits, option->min, option->max / unit, &seconds) < 0)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "must be %" PRIu64 " to %" PRIu64 " seconds", option->min, option->max);
    *(uint64_t *)value = seconds * unit;
    return 0;
}

// fio writes its options with underscores, we with dashes: take both.
static void rewrite_underscores(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strncmp(argv[i], "--", 2) != 0)
            continue;
        for (char *at = argv[i]; *at != '\0' && *at != '='; at++)
            if (*at == '_')
                *at = '-';
    }
}

// --- the table ---

#define YEAR_S (366 * 24 * 3600)
#define AT(member) SDC_OPTION_AT(struct sdc_bench_options, member)

static const struct sdc_option rows[] = {
    {"rw", SDC_OPTION_CALL, 0, 0, 0, 0, "randread", parse_rw},
    {"readwrite", SDC_OPTION_CALL, 0, 0, 0, 0, "randread", parse_rw},
    {"rwmixread", SDC_OPTION_NUMBER, AT(rwmixread), 0, 100, "70", NULL},
    {"bs", SDC_OPTION_SIZE, AT(block_size), 512, 64 << 20, "4k", NULL},
    {"blocksize", SDC_OPTION_SIZE, AT(block_size), 512, 64 << 20, "4k", NULL},
    {"iodepth", SDC_OPTION_NUMBER, AT(iodepth), 1, SDC_LIMIT_QUEUE_SIZE, "32", NULL},
    {"numjobs", SDC_OPTION_NUMBER, AT(numjobs), 1, SDC_LIMIT_QUEUES, "4", NULL},
    {"size", SDC_OPTION_SIZE, AT(size), 512, INT64_MAX, "1G", NULL},
    {"offset", SDC_OPTION_SIZE, AT(offset), 0, INT64_MAX, "1M", NULL},
    {"runtime", SDC_OPTION_CALL, AT(runtime_s), 1, YEAR_S, "10", parse_seconds},
    {"time-based", SDC_OPTION_FLAG, AT(time_based), 0, 0, NULL, NULL},
    {"ramp-time", SDC_OPTION_CALL, AT(ramp_s), 0, YEAR_S, "2", parse_seconds},
    {"number-ios", SDC_OPTION_NUMBER, AT(number_ios), 1, INT64_MAX, "1000", NULL},
    {"count", SDC_OPTION_NUMBER, AT(number_ios), 1, INT64_MAX, "1000", NULL},
    {"randseed", SDC_OPTION_NUMBER, AT(seed), 0, INT64_MAX, "7", NULL},
    {"timeout", SDC_OPTION_CALL, AT(timeout_s), 1, YEAR_S, "30", parse_seconds},
    {"reconnect-ms", SDC_OPTION_NUMBER, AT(reconnect_ms), 0, 3600 * 1000, "5000", NULL},
    {"queue-size", SDC_OPTION_NUMBER, AT(queue_size), 1, SDC_LIMIT_QUEUE_SIZE, "256", NULL},
    {"verify", SDC_OPTION_FLAG, AT(verify), 0, 0, NULL, NULL},
    {"readonly", SDC_OPTION_FLAG, AT(readonly), 0, 0, NULL, NULL},
    {"json", SDC_OPTION_FLAG, AT(json), 0, 0, NULL, NULL},
    {"poll", SDC_OPTION_FLAG, AT(poll), 0, 0, NULL, NULL},
    {"interrupt", SDC_OPTION_FLAG, AT(interrupt), 0, 0, NULL, NULL},
    {"packed", SDC_OPTION_BOOL, AT(packed), 0, 0, "off", NULL},
    {"in-order", SDC_OPTION_BOOL, AT(in_order), 0, 0, "on", NULL},
    {"event-idx", SDC_OPTION_BOOL, AT(event_idx), 0, 0, "off", NULL},
    {"indirect", SDC_OPTION_BOOL, AT(indirect), 0, 0, "off", NULL},
    {"notify", SDC_OPTION_CALL, AT(notify), 0, 0, "message", parse_notify},
    {"memory", SDC_OPTION_CALL, AT(memory), 0, 0, "private", parse_memory},
    {"namespace", SDC_OPTION_NUMBER, AT(namespace), 1, UINT32_MAX - 1, "2", NULL},
    {"sgl", SDC_OPTION_FLAG, AT(sgl), 0, 0, NULL, NULL},
    {"shadow-doorbells", SDC_OPTION_CALL, AT(shadows), 0, 0, "off", parse_shadows},
    {"iommu", SDC_OPTION_CALL, AT(iommu), 0, 0, "on", parse_iommu},
    {"twin-socket", SDC_OPTION_BOOL, AT(twin_socket), 0, 0, "on", NULL},
    {"eta", SDC_OPTION_CALL, AT(quiet), 0, 0, "never", parse_eta},
    {"help", SDC_OPTION_FLAG, AT(help), 0, 0, NULL, NULL},
};

static const struct sdc_options table = {rows, SDC_COUNT(rows)};

// --- checks that a table cannot make ---

static int check(const struct sdc_bench_options *options, struct sdc_error *err)
{
    if (options->block_size % 512 != 0)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER,
                             "--bs=%" PRIu64 ": must be a multiple of 512; type for example --bs=4k",
                             options->block_size);
    if (options->offset % options->block_size != 0)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER,
                             "--offset=%" PRIu64 ": must be a multiple of --bs=%" PRIu64, options->offset,
                             options->block_size);
    if (options->size != 0 && options->size < options->block_size)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER,
                             "--size=%" PRIu64 ": must be at least --bs=%" PRIu64, options->size,
                             options->block_size);
    if (options->readonly && options->writes)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "--rw=%s writes, and --readonly was given",
                             options->rw);
    if (options->poll && options->interrupt)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER,
                             "--poll and --interrupt exclude each other; give one of them");
    if (options->queue_size != 0 && !options->packed && !sdc_is_power_of_two(options->queue_size))
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER,
                             "--queue-size=%" PRIu64
                             ": must be a power of two with --packed=off; type for example --queue-size=256",
                             options->queue_size);
    if (options->ramp_s > 0 && options->runtime_s == 0)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER,
                             "--ramp_time=%" PRIu64 " needs --runtime; type for example --runtime=10",
                             options->ramp_s);
    return 0;
}

static int check_socket(struct sdc_bench_options *options, const char *socket, struct sdc_error *err)
{
    if (!socket)
        return sdc_error_set(
            err, -EINVAL, SDC_FAULT_USER,
            "bench needs a socket; type for example sidecard bench vm0.sock --rw=randread --runtime=10");
    options->vhost_user = sdc_protocol_parse(socket, &socket) == SDC_PROTOCOL_VHOST_USER;
    if (*socket == '\0')
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER,
                             "the socket's path is empty; type for example sidecard bench vm0.sock");
    if (options->reconnect_ms > 0 && !options->vhost_user)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER,
                             "--reconnect-ms=%" PRIu64 ": only a vhost-user back end can be found again; type vhost-user:%s",
                             options->reconnect_ms, socket);
    options->socket = socket;
    if (options->vhost_user && (options->memory == SDC_CLIENT_MEMORY_PRIVATE || options->twin_socket))
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "--%s: over vhost-user all memory is shared; leave it out",
                             options->memory == SDC_CLIENT_MEMORY_PRIVATE ? "memory=private" : "twin-socket=on");
    if (!options->vhost_user && options->iommu != SDC_DRIVER_IOMMU_OFF)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "--iommu: only a vhost-user back end asks for translations; type vhost-user:%s",
                             socket);
    if (options->vhost_user && options->notify != SDC_DRIVER_NOTIFY_AUTO && options->notify != SDC_DRIVER_NOTIFY_MESSAGE)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER,
                             "--notify=%s: over vhost-user it is an eventfd, or type --notify=message",
                             sdc_driver_notify_name(options->notify));
    if (options->vhost_user && sdc_bench_options_nvme(options))
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "--%s: that is for NVMe controllers, which are behind vfio-user",
                             sdc_bench_options_nvme(options));
    return 0;
}

const char *sdc_bench_options_nvme(const struct sdc_bench_options *options)
{
    if (options->namespace != 0)
        return "namespace";
    return options->sgl ? "sgl" : options->shadows == SDC_DRIVER_NVME_SHADOWS_ON ? "shadow-doorbells=on" : NULL;
}

int sdc_bench_options_parse(int argc, char **argv, struct sdc_bench_options *options, struct sdc_error *err)
{
    *options = (struct sdc_bench_options){
        .rw = "read",
        .reads = true,
        .rwmixread = 50,
        .block_size = 4096,
        .iodepth = 1,
        .numjobs = 1,
        .seed = 1,
        .timeout_s = 30,
        .packed = true,
        .event_idx = true,
        .indirect = true,
    };
    const struct sdc_option_group group = {&table, options, NULL};
    const char *socket = NULL;
    rewrite_underscores(argc, argv);
    int ret = sdc_options_parse(&group, 1, argc, argv, &socket, 1, err);
    if (ret < 0 || options->help)
        return ret < 0 ? ret : 0;
    if (options->time_based && options->runtime_s == 0)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER,
                             "--time_based needs --runtime; type for example --runtime=10");
    ret = check_socket(options, socket, err);
    return ret < 0 ? ret : check(options, err);
}
