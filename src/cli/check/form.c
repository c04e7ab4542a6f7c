// SPDX-License-Identifier: BSD-3-Clause
// Which requests of virtio devices are known: a disk's and an entropy device's, and one that somebody types (--request).
#include "cli/check/check.h"

#include "base/parse.h"

#include <errno.h>
#include <string.h>

const struct sdc_check_form sdc_check_entropy = {.any_size = true};

unsigned sdc_check_virtio_has(const struct sdc_check_options *options, unsigned device)
{
    unsigned has = SDC_CHECK_VIRTIO;

    if (device == SDC_CHECK_DEVICE_BLK)
        has |= SDC_CHECK_BLK | SDC_CHECK_DISK;
    if (device == SDC_CHECK_DEVICE_BLK || device == SDC_CHECK_DEVICE_ENTROPY || options->request)
        has |= SDC_CHECK_REQUESTS;
    return has;
}

static int digit(char c)
{
    static const char digits[] = "0123456789abcdefABCDEF";
    const char *at = c != '\0' ? strchr(digits, c) : NULL;

    if (!at)
        return -1;
    return at - digits < 16 ? (int)(at - digits) : (int)(at - digits) - 6;
}

int sdc_check_form_parse(const char *text, struct sdc_check_form *form)
{
    uint64_t in;

    *form = (struct sdc_check_form){0};
    for (; *text != ','; text += 2) {
        int high = digit(text[0]), low = high < 0 ? -1 : digit(text[1]);
        if (low < 0 || form->out_size == SDC_CHECK_OUT_MAX)
            return -EINVAL;
        form->out[form->out_size++] = (uint8_t)(high << 4 | low);
    }
    if (sdc_parse_number(text + 1, 0, SDC_CHECK_IN_MAX, &in) < 0 || in + form->out_size == 0)
        return -EINVAL;
    form->in_size = (uint32_t)in;
    return 0;
}
