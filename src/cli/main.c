// SPDX-License-Identifier: BSD-3-Clause
#include "base/check.h"
#include "base/parse.h"
#include "cli/commands.h"

#include <stdio.h>
#include <string.h>

struct command {
    const char *name;
    const char *summary;
    int (*run)(int argc, char **argv);
};

static const struct command commands[] = {
    {"serve", "serve a card at a socket, or many", sdc_command_serve},
    {"bench", "measure or verify a served disk", sdc_command_bench},
    {"inspect", "say what is behind a socket", sdc_command_inspect},
    {"check", "hold a server against the specifications", sdc_command_check},
};

static int help(FILE *to)
{
    fputs("sidecard serves a virtual machine's devices from processes of their own.\n\nusage:\n", to);
    for (size_t i = 0; i < SDC_COUNT(commands); i++)
        fprintf(to, "  sidecard %-7s ...   %s; see sidecard %s --help\n", commands[i].name, commands[i].summary,
                commands[i].name);
    fputs("  sidecard --version\n", to);
    return 0;
}

static int unknown(const char *name)
{
    const char *names[SDC_COUNT(commands) + 1] = {0};

    for (size_t i = 0; i < SDC_COUNT(commands); i++)
        names[i] = commands[i].name;
    const char *near = sdc_nearest(name, names);
    if (near)
        fprintf(stderr, "sidecard: unknown command '%s'; did you mean '%s'?\n", name, near);
    else
        fprintf(stderr, "sidecard: unknown command '%s'; sidecard --help lists what there is\n", name);
    return 2;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fputs("sidecard: no command; type for example: sidecard serve vm0.sock virtio-blk disk.img "
              "(sidecard --help lists what there is)\n", stderr);
        return 2;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0)
        return help(stdout);
    if (strcmp(argv[1], "--version") == 0) {
        puts("sidecard " SDC_VERSION);
        return 0;
    }
    for (size_t i = 0; i < SDC_COUNT(commands); i++) {
        if (strcmp(argv[1], commands[i].name) == 0)
            return commands[i].run(argc - 1, argv + 1);
    }
    return unknown(argv[1]);
}
