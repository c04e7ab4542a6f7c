// SPDX-License-Identifier: BSD-3-Clause
// Configuration files: what is taken is whole, what is refused has a reason.
#include "card.h"
#include "control/config.h"

#include <errno.h>
#include <string.h>

static void check_card(const struct sdc_serve_options *card)
{
    const struct sdc_card_options *options = &card->card;

    fuzz_check(card->socket && card->device && sdc_card_type(card->device), "a card without a socket or a device is taken");
    fuzz_check(options->backends_count > 0 && options->backends_count <= sdc_card_type(card->device)->backends_max,
               "a card with too many backends, or none, is taken");
    for (unsigned i = 0; i < options->backends_count; i++)
        fuzz_check(options->backends[i].name != NULL, "a backend without a name is taken");
    fuzz_check(options->queues <= 1024 && (options->queue_size & (options->queue_size - 1)) == 0, "a number out of range is taken");
    fuzz_check(!options->serial || strlen(options->serial) <= 20, "a serial number that is too long is taken");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sdc_config config = {0};
    struct sdc_error err = {0};
    int rc = sdc_config_parse("fuzz.json", (const char *)data, size, &config, &err);

    if (rc < 0) {
        fuzz_check(rc == -EINVAL && err.code == rc && err.fault == SDC_FAULT_USER && strncmp(err.text, "fuzz.json:", 10) == 0 &&
                       !strchr(err.text, '\n'), "refused without a reason, or in more than a line");
        return 0;
    }
    fuzz_check(config.cards_count > 0 && config.process.threads > 0, "a file without cards is taken");
    for (unsigned i = 0; i < config.cards_count; i++)
        check_card(&config.cards[i]);
    sdc_config_free(&config);
    return 0;
}
