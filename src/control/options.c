// SPDX-License-Identifier: BSD-3-Clause
#include "control/options.h"

#include "base/check.h"
#include "base/limits.h"
#include "base/parse.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// --- the process ---

static int parse_loop(const struct sdc_option *option, const char *text, void *value, struct sdc_error *err)
{
    static const char *const names[] = {
        [SDC_LOOP_AUTO] = "auto", [SDC_LOOP_IO_URING] = "io_uring", [SDC_LOOP_EPOLL] = "epoll"};
    int which = sdc_option_pick(text, names, SDC_COUNT(names), err);

    (void)option;
    if (which >= 0)
        *(enum sdc_loop_kind *)value = (enum sdc_loop_kind)which;
    return which < 0 ? which : 0;
}

static int parse_log_level(const struct sdc_option *option, const char *text, void *value, struct sdc_error *err)
{
    static const char *const names[] = {"error", "warning", "info", "debug"};
    int which = sdc_option_pick(text, names, SDC_COUNT(names), err);

    (void)option;
    if (which >= 0)
        *(enum sdc_log_level *)value = (enum sdc_log_level)which;
    return which < 0 ? which : 0;
}

#define PROCESS(member) SDC_OPTION_AT(struct sdc_process_options, member)

static const struct sdc_option process_rows[] = {
    {"threads", SDC_OPTION_NUMBER, PROCESS(threads), 1, SDC_LIMIT_THREADS, "2", NULL},
    {"loop", SDC_OPTION_CALL, PROCESS(loop), 0, 0, "epoll", parse_loop},
    {"log-level", SDC_OPTION_CALL, PROCESS(log_level), 0, 0, "info", parse_log_level},
};

const struct sdc_options sdc_process_options = {process_rows, SDC_COUNT(process_rows)};

void sdc_process_options_init(struct sdc_process_options *options)
{
    *options = (struct sdc_process_options){.threads = 1, .loop = SDC_LOOP_AUTO, .log_level = SDC_LOG_WARNING};
}

// --- a card at its socket ---

static int parse_mode(const struct sdc_option *option, const char *text, void *value, struct sdc_error *err)
{
    char *end;
    long mode = strtol(text, &end, 8);

    (void)option;
    if (*text < '0' || *text > '7' || *end != '\0' || mode > 0777)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "must be octal permissions");
    *(int *)value = (int)mode;
    return 0;
}

// A number that stands for a user or a group. False: it is none.
static bool parse_id(const char *text, uint32_t *id)
{
    char *end;
    unsigned long number = strtoul(text, &end, 10);

    *id = (uint32_t)number;
    return *text != '\0' && *end == '\0' && number < UINT32_MAX;
}

static int parse_owner(const struct sdc_option *option, const char *text, void *value, struct sdc_error *err)
{
    struct sdc_listen_options *listen = value;
    char user[64];
    size_t length = strcspn(text, ":");
    const char *group = text[length] == ':' ? text + length + 1 : NULL;
    uint32_t id;

    (void)option;
    if (*text == '\0' || strcmp(text, ":") == 0)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "nobody is named");
    snprintf(user, sizeof user, "%.*s", (int)sdc_min(length, sizeof user), text);
    if (length > 0) {
        struct passwd *entry = getpwnam(user);
        if (!entry && !parse_id(user, &id))
            return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "there is no user '%s'", user);
        listen->owner = entry ? entry->pw_uid : id;
    }
    if (group) {
        struct group *entry = getgrnam(group);
        if (!entry && !parse_id(group, &id))
            return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "there is no group '%s'", group);
        listen->group = entry ? entry->gr_gid : id;
    }
    return 0;
}

static int parse_poll(const struct sdc_option *option, const char *text, void *value, struct sdc_error *err)
{
    static const char *const names[] = {
        [SDC_POLL_NEVER] = "never", [SDC_POLL_ADAPTIVE] = "adaptive", [SDC_POLL_ALWAYS] = "always"};
    int which = sdc_option_pick(text, names, SDC_COUNT(names), err);

    (void)option;
    if (which >= 0)
        *(enum sdc_poll_mode *)value = (enum sdc_poll_mode)which;
    return which < 0 ? which : 0;
}

#define SERVE(member) SDC_OPTION_AT(struct sdc_serve_options, member)

static const struct sdc_option serve_rows[] = {
    {"allow-file-memory", SDC_OPTION_FLAG, SERVE(allow_file_memory), 0, 0, NULL, NULL},
    {"connect", SDC_OPTION_FLAG, SERVE(connect), 0, 0, NULL, NULL},
    {"fixed-buffers", SDC_OPTION_FLAG, SERVE(fixed_buffers), 0, 0, NULL, NULL},
    {"poll", SDC_OPTION_CALL, SERVE(card.poll), 0, 0, "adaptive", parse_poll},
    {"poll-max-us", SDC_OPTION_NUMBER, SERVE(card.poll_max_us), 1, SDC_LIMIT_POLL_MAX_US, "50", NULL},
    {"socket-mode", SDC_OPTION_CALL, SERVE(listen.mode), 0, 0, "0660", parse_mode},
    {"socket-owner", SDC_OPTION_CALL, SERVE(listen), 0, 0, "libvirt-qemu:kvm", parse_owner},
};

const struct sdc_options sdc_serve_options = {serve_rows, SDC_COUNT(serve_rows)};

void sdc_serve_options_init(struct sdc_serve_options *options)
{
    *options = (struct sdc_serve_options){
        .card = {.write_cache = true, .shadow_doorbells = true, .packed = true, .poll = SDC_POLL_ADAPTIVE},
        .listen = {.mode = -1, .owner = (uid_t)-1, .group = (gid_t)-1},
    };
}

// --- a backend ---

static int parse_block_size(const struct sdc_option *option, const char *text, void *value, struct sdc_error *err)
{
    uint64_t bytes = 0;

    (void)option;
    if (sdc_parse_size(text, &bytes) < 0 || (bytes != 512 && bytes != 4096))
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "must be 512 or 4096");
    *(uint32_t *)value = (uint32_t)bytes;
    return 0;
}

#define BACKEND(member) SDC_OPTION_AT(struct sdc_card_backend, member)

static const struct sdc_option backend_rows[] = {
    {"read-only", SDC_OPTION_FLAG, BACKEND(options.read_only), 0, 0, NULL, NULL},
    {"block-size", SDC_OPTION_CALL, BACKEND(options.block_size), 0, 0, "4096", parse_block_size},
    {"direct", SDC_OPTION_FLAG, BACKEND(options.direct), 0, 0, NULL, NULL},
    {"raw", SDC_OPTION_FLAG, BACKEND(options.raw), 0, 0, NULL, NULL},
};

const struct sdc_options sdc_backend_options = {backend_rows, SDC_COUNT(backend_rows)};

// --- devices ---

unsigned sdc_device_options(const char *device, struct sdc_card_options *values, struct sdc_option_group *groups, unsigned max)
{
    const char *const *names = sdc_card_names();
    const struct sdc_card_type *own = sdc_card_type(device);
    unsigned count = 0;

    for (; *names && count < max; names++) {
        const struct sdc_card_type *type = sdc_card_type(*names);
        bool is_own = !own || type == own;
        groups[count++] = (struct sdc_option_group){type->options, is_own ? values : NULL, type->options_why};
    }
    return count;
}
