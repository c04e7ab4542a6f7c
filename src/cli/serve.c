// SPDX-License-Identifier: BSD-3-Clause
// sidecard serve SOCKET DEVICE BACKEND [--option=value ...]
// sidecard serve --config=FILE [--option=value ...]
#include "base/check.h"
#include "base/log.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "control/config.h"
#include "control/fds.h"
#include "control/server.h"
#include "os/clock.h"
#include "os/fd.h"
#include "os/heap.h"
#include "os/ready.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

static const char usage[] =
    "usage: sidecard serve SOCKET DEVICE BACKEND [--option=value ...]\n"
    "       sidecard serve --config=FILE [--option=value ...]\n"
    "\n"
    "  SOCKET   PATH or vfio-user:PATH, a Unix socket to make, or vhost-user:PATH; fd:N, vfio-user:fd:N or\n"
    "           vhost-user:fd:N, a listening one that was passed in\n"
    "  DEVICE   nvme, virtio-blk\n"
    "  BACKEND  PATH or file:PATH, a raw image or a block device; ram:SIZE; null:SIZE;\n"
    "           any of them behind up to four filters: FILTER,OPTION=VALUE,...:BACKEND\n"
    "\n"
    "  --queues=N            queues of the device, 1 to 1024 (1); nvme: 1 to 256 (8)\n"
    "  --queue-size=N        entries of a queue, a power of two up to 32768 (256); nvme: 2 to 32768 (1024)\n"
    "  --threads=N           threads that the queues are spread over (1)\n"
    "  --read-only           the guest cannot write\n"
    "  --block-size=N        512 or 4096 (512, or the block device's own)\n"
    "  --write-cache=on|off  whether the guest finds a write cache (on)\n"
    "  --packed=on|off       virtio-blk: offer packed rings beside split ones (on)\n"
    "  --in-order=on|off     virtio-blk: offer to finish requests in order (off)\n"
    "  --serial=TEXT         serial number, up to 20 characters\n"
    "  --vectors=N           nvme: interrupt vectors (one for each queue)\n"
    "  --model=TEXT          nvme: model name, up to 40 characters\n"
    "  --nqn=TEXT            nvme: name of the subsystem, up to 223 characters (made from the serial number)\n"
    "  --shadow-doorbells=on|off\n"
    "                        nvme: offer doorbells in the guest's memory (on)\n"
    "  --seg-max=N           virtio-blk: most segments of a request (queue size - 2, up to 254)\n"
    "  --size-max=SIZE       virtio-blk: most bytes of a segment (no limit)\n"
    "  --direct              read and write past the host's page cache\n"
    "  --raw                 take the image as raw even if it looks like qcow2, vmdk, vhdx or vdi\n"
    "  --allow-file-memory   let the guest's memory be a plain file\n"
    "  --fixed-buffers       register the guest's memory with io_uring, for --direct; it stays in memory as long as it is shared\n"
    "  --connect             connect to a vhost-user front end that listens at the socket, and again when it goes\n"
    "  --socket-mode=MODE    permissions of the socket, octal\n"
    "  --socket-owner=USER[:GROUP]\n"
    "  --poll=never|adaptive|always\n"
    "                        how queues wait for requests: asleep, looking for a while first, or only looking (adaptive)\n"
    "  --poll-max-us=N       the longest that an adaptive queue looks before it sleeps, 1 to 10000 (50)\n"
    "  --loop=io_uring|epoll what to wait by (io_uring, or epoll where that is not permitted)\n"
    "  --config=FILE         cards from a JSON file; of the options, only those of the process go with it: --threads,\n"
    "                        --loop, --log-level, --ready-fd, --keeper-fd\n"
    "  --keeper-fd=N         a socket to the keeper, which holds what another process needs to go on\n"
    "  --ready-fd=N          write READY to this fd when the sockets are there\n"
    "  --log-level=error|warning|info|debug (warning)\n"
    "\n"
    "Signals: SIGTERM ends it, SIGHUP makes it read FILE and look at the backends' sizes again.\n";

// What filters there are, and their options with a value each.
static void print_filters(void)
{
    const struct sdc_filter_type *type;

    puts("\nFilters, described in sidecard-filters(7):");
    for (size_t i = 0; (type = sdc_filter_kind(i)) != NULL; i++) {
        printf("  %-9s %s%s", type->name, type->what, type->options->count > 0 ? ":" : "");
        for (size_t j = 0; j < type->options->count; j++)
            printf(" %s=%s", type->options->rows[j].name, type->options->rows[j].example);
        puts("");
    }
}

// --- the log ---

static void write_line(enum sdc_log_level level, const char *line)
{
    static const char *const names[] = {"error: ", "warning: ", "", "debug: "};

    fprintf(stderr, "sidecard: %s%s\n", names[level], line);
}

static struct sdc_log_sink sink = {.level = SDC_LOG_WARNING, .write = write_line, .now_ns = sdc_clock_ns};

// --- the command line ---

enum { GROUPS_MAX = 16, CARD_WORDS = 3 };

// What only a command line can say: files don't know the process's fds.
struct command {
    const char *config;
    int32_t ready_fd; // -1: none
    int32_t keeper_fd;
    bool help;
};

#define COMMAND(member) SDC_OPTION_AT(struct command, member)

static const struct sdc_option command_rows[] = {
    {"config", SDC_OPTION_TEXT, COMMAND(config), 0, 0, "vm0.json", NULL},
    {"ready-fd", SDC_OPTION_NUMBER, COMMAND(ready_fd), 0, INT32_MAX, "3", NULL},
    {"keeper-fd", SDC_OPTION_NUMBER, COMMAND(keeper_fd), 0, INT32_MAX, "4", NULL},
    {"help", SDC_OPTION_FLAG, COMMAND(help), 0, 0, NULL, NULL},
};
static const struct sdc_options command_options = {command_rows, SDC_COUNT(command_rows)};

// All that was asked for: either one card, from the command line, or those of a file.
struct order {
    struct command command;
    struct sdc_process_options process;
    struct sdc_card_backend backend;
    struct sdc_serve_options card;
    struct sdc_config config;
    const struct sdc_serve_options *cards;
    unsigned cards_count;
};

// device: whose options may be given, NULL for those of no card.
static unsigned make_groups(struct order *order, const char *device, struct sdc_option_group groups[GROUPS_MAX])
{
    static const char of_file[] = "with --config, cards and their options are written in the file";
    unsigned count = 0;

    groups[count++] = (struct sdc_option_group){&command_options, &order->command, NULL};
    groups[count++] = (struct sdc_option_group){&sdc_process_options, &order->process, NULL};
    groups[count++] = (struct sdc_option_group){&sdc_serve_options, device ? &order->card : NULL, of_file};
    groups[count++] = (struct sdc_option_group){&sdc_backend_options, device ? &order->backend : NULL, of_file};
    unsigned first = count;
    count += sdc_device_options(device ? device : "", device ? &order->card.card : NULL, groups + count, GROUPS_MAX - count);
    for (unsigned i = first; i < count && !device; i++)
        groups[i].why = of_file;
    return count;
}

static int check_fd(const char *name, int fd, struct sdc_error *err)
{
    if (fd < 0 || sdc_fd_is_open(fd))
        return 0;
    return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "--%s=%d: no such fd is open", name, fd);
}

// The file's words count where the command line says nothing.
static int parse_with_file(struct order *order, int argc, char **argv, struct sdc_error *err)
{
    struct sdc_option_group groups[GROUPS_MAX];
    unsigned count = make_groups(order, NULL, groups);
    struct sdc_process_options ignored = order->process;
    const char *words[CARD_WORDS] = {0};

    groups[1].values = &ignored;
    int rc = sdc_options_parse(groups, count, argc, argv, words, CARD_WORDS, err);
    if (rc > 0)
        rc = sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "'%s': with --config, sockets, devices and backends are written in the file",
                           words[0]);
    if (rc == 0)
        rc = sdc_config_read(order->command.config, &order->config, err);
    if (rc < 0)
        return rc;
    order->process = order->config.process;
    groups[1].values = &order->process;
    order->cards = order->config.cards;
    order->cards_count = order->config.cards_count;
    return sdc_options_parse(groups, count, argc, argv, NULL, 0, err);
}

static int parse_one_card(struct order *order, const char *device, int argc, char **argv, struct sdc_error *err)
{
    struct sdc_option_group groups[GROUPS_MAX];
    unsigned groups_count = make_groups(order, device, groups);
    const char *words[CARD_WORDS] = {0};
    int count = sdc_options_parse(groups, groups_count, argc, argv, words, CARD_WORDS, err);

    if (count < 0)
        return count;
    if (count < CARD_WORDS)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "no %s; type for example: sidecard serve vm0.sock virtio-blk disk.img",
                             count == 0 ? "SOCKET" : count == 1 ? "DEVICE" : "BACKEND");
    order->card.socket = words[0];
    order->card.device = words[1];
    order->backend.name = words[2];
    order->card.card.backends = &order->backend;
    order->card.card.backends_count = 1;
    order->card.card.backends_stay = true;
    order->cards = &order->card;
    order->cards_count = 1;
    return 0;
}

static int parse(struct order *order, int argc, char **argv, struct sdc_error *err)
{
    struct sdc_option_group groups[GROUPS_MAX];
    const char *words[CARD_WORDS] = {0};
    struct order glance = *order;

    int count = sdc_options_glance(groups, make_groups(&glance, "", groups), argc, argv, words, CARD_WORDS);
    order->command.help = glance.command.help;
    if (glance.command.help)
        return 0;
    if (glance.command.config && *glance.command.config == '\0')
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "--config=: the path is missing; type for example --config=vm0.json");
    int rc = glance.command.config ? parse_with_file(order, argc, argv, err)
                                   : parse_one_card(order, count > 1 ? words[1] : "", argc, argv, err);
    if (rc == 0)
        rc = check_fd("ready-fd", order->command.ready_fd, err);
    return rc == 0 ? check_fd("keeper-fd", order->command.keeper_fd, err) : rc;
}

// --- serving ---

// Says which card of a file it was.
static int add_card(struct sdc_server *server, const struct order *order, unsigned index, struct sdc_error *err)
{
    struct sdc_error why = {0};
    int rc = sdc_server_add(server, &order->cards[index], &why);

    if (rc == 0 || !order->command.config)
        *err = why;
    else
        sdc_error_set(err, why.code, why.fault, "%s: cards[%u]: %s", order->command.config, index, why.text);
    return rc;
}

static int add_cards(struct sdc_server *server, const struct order *order, struct sdc_error *err)
{
    int rc = 0;

    for (unsigned i = 0; i < order->cards_count && rc == 0; i++)
        rc = add_card(server, order, i, err);
    for (unsigned i = 0; i < order->cards_count && rc == 0; i++) {
        const struct sdc_serve_options *card = &order->cards[i];
        sdc_log(SDC_LOG_INFO, "%s on %s at %s", card->device, card->card.backends->name, card->socket);
    }
    return rc;
}

static int serve_until_end(struct order *order, struct sdc_error *err)
{
    static const int signals[] = {SIGTERM, SIGINT, SIGHUP, 0};
    const struct sdc_server_options options = {.threads = order->process.threads, .loop = order->process.loop};
    struct sdc_server *server = NULL;
    sdc_heap_is_ours();
    int rc = sdc_fds_make_room(order->cards, order->cards_count, order->process.threads, err);

    if (rc == 0)
        rc = sdc_server_new_with(&options, signals, &server, err);
    if (rc == 0 && order->command.keeper_fd >= 0)
        rc = sdc_server_keep(server, order->command.keeper_fd, err);
    if (rc == 0)
        rc = add_cards(server, order, err);
    sdc_config_free(&order->config);
    if (rc == 0 && order->command.config)
        sdc_server_follow(server, order->command.config);
    if (rc == 0 && order->command.ready_fd >= 0)
        rc = sdc_ready_fd(order->command.ready_fd, err);
    if (rc == 0) {
        sdc_ready_notify();
        rc = sdc_server_run(server, err);
        if (rc == 0 && sdc_server_left(server))
            _exit(0); // another process goes on with the card: to free it here would be to end it
    }
    sdc_server_free(server);
    return rc;
}

int sdc_command_serve(int argc, char **argv)
{
    struct order order = {.command = {.ready_fd = -1, .keeper_fd = -1}};
    struct sdc_error err = {0};

    sdc_process_options_init(&order.process);
    sdc_serve_options_init(&order.card);
    int rc = parse(&order, argc, argv, &err);
    if (order.command.help) {
        fputs(usage, stdout);
        print_filters();
        return 0;
    }
    sink.level = order.process.log_level;
    sdc_log_to(&sink);
    if (rc == 0)
        rc = serve_until_end(&order, &err);
    else
        sdc_config_free(&order.config);
    return rc < 0 ? sdc_command_failed(&err) : 0;
}
