// SPDX-License-Identifier: BSD-3-Clause
#include "control/reload.h"

#include "control/config.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct sdc_reload {
    atomic_uint references; // zero: it is freed
    struct sdc_config config;
    const struct sdc_serve_options **by_socket; // sorted
};

static int by_socket(const void *a, const void *b)
{
    const struct sdc_serve_options *const *left = a, *const *right = b;

    return strcmp((*left)->socket, (*right)->socket);
}

int sdc_reload_read(const char *path, struct sdc_reload **out, struct sdc_error *err)
{
    struct sdc_reload *reload = calloc(1, sizeof *reload);
    if (!reload)
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "%s: no memory for it", path);

    atomic_init(&reload->references, 1);
    int rc = sdc_config_read(path, &reload->config, err);
    if (rc < 0) {
        free(reload);
        return rc;
    }
    reload->by_socket = calloc(reload->config.cards_count, sizeof(const struct sdc_serve_options *));
    if (!reload->by_socket) {
        sdc_reload_unref(reload);
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "%s: no memory for it", path);
    }
    for (unsigned i = 0; i < reload->config.cards_count; i++)
        reload->by_socket[i] = &reload->config.cards[i];
    qsort(reload->by_socket, reload->config.cards_count, sizeof(const struct sdc_serve_options *), by_socket);
    *out = reload;
    return 0;
}

struct sdc_reload *sdc_reload_ref(struct sdc_reload *reload)
{
    atomic_fetch_add(&reload->references, 1);
    return reload;
}

void sdc_reload_unref(struct sdc_reload *reload)
{
    if (!reload || atomic_fetch_sub(&reload->references, 1) != 1)
        return;
    sdc_config_free(&reload->config);
    free(reload->by_socket);
    free(reload);
}

const struct sdc_serve_options *sdc_reload_find(const struct sdc_reload *reload, const char *socket)
{
    const struct sdc_serve_options wanted = {.socket = socket}, *key = &wanted;
    const struct sdc_serve_options **found = bsearch(&key, reload->by_socket, reload->config.cards_count,
                                                     sizeof(const struct sdc_serve_options *), by_socket);

    return found ? *found : NULL;
}

unsigned sdc_reload_cards(const struct sdc_reload *reload)
{
    return reload->config.cards_count;
}
