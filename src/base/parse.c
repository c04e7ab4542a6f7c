// SPDX-License-Identifier: BSD-3-Clause
// Numbers, sizes and yes-or-no words.
#include "base/parse.h"

#include "base/check.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

// The digits that *text begins with; *text is moved past them. -EINVAL: there are none. -ERANGE: too many.
static int take_digits(const char **text, uint64_t *value)
{
    if (**text < '0' || **text > '9')
        return -EINVAL;
    bool fits = true;
    uint64_t sum = 0;
    for (; **text >= '0' && **text <= '9'; ++*text)
        fits = fits && sdc_mul(sum, 10, &sum) && sdc_add(sum, (uint64_t)(**text - '0'), &sum);
    *value = sum;
    return fits ? 0 : -ERANGE;
}

int sdc_parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *value)
{
    uint64_t number;
    int ret = take_digits(&text, &number);
    if (ret == -EINVAL || *text != '\0')
        return -EINVAL;
    if (ret < 0 || number < min || number > max)
        return -ERANGE;
    *value = number;
    return 0;
}

// The power of two that a suffix stands for, or -EINVAL.
static int suffix_shift(const char *suffix)
{
    static const char letters[] = "KMGTP";
    if (suffix[0] == '\0')
        return 0;
    const char *letter =
        strchr(letters, suffix[0] >= 'a' && suffix[0] <= 'z' ? suffix[0] - 'a' + 'A' : suffix[0]);
    if (!letter || (suffix[1] != '\0' && strcmp(suffix + 1, "iB") != 0))
        return -EINVAL;
    return 10 * (int)(letter - letters + 1);
}

int sdc_parse_size(const char *text, uint64_t *bytes)
{
    uint64_t number;
    int ret = take_digits(&text, &number);
    if (ret == -EINVAL)
        return -EINVAL;
    int shift = suffix_shift(text);
    if (shift < 0)
        return -EINVAL;
    if (ret < 0 || number > (uint64_t)INT64_MAX >> shift)
        return -ERANGE;
    *bytes = number << shift;
    return 0;
}

int sdc_parse_time(const char *text, uint64_t *ns)
{
    static const struct {
        const char *name;
        uint64_t ns;
    } units[] = {{"ns", 1},
                 {"us", 1000},
                 {"ms", 1000000},
                 {"s", UINT64_C(1000000000)},
                 {"m", UINT64_C(60000000000)},
                 {"h", UINT64_C(3600000000000)}};
    uint64_t number;
    int ret = take_digits(&text, &number);
    if (ret == -EINVAL)
        return -EINVAL;
    if (ret == 0 && number == 0 && *text == '\0') {
        *ns = 0;
        return 0;
    }
    for (size_t i = 0; i < SDC_COUNT(units); i++) {
        if (strcmp(text, units[i].name) != 0)
            continue;
        if (ret < 0 || number > (uint64_t)INT64_MAX / units[i].ns)
            return -ERANGE;
        *ns = number * units[i].ns;
        return 0;
    }
    return -EINVAL;
}

int sdc_parse_bool(const char *text, bool *value)
{
    static const struct {
        const char *word;
        bool value;
    } words[] = {
        {"on", true},   {"true", true},   {"yes", true}, {"1", true},
        {"off", false}, {"false", false}, {"no", false}, {"0", false},
    };
    for (size_t i = 0; i < SDC_COUNT(words); i++) {
        if (strcmp(text, words[i].word) == 0) {
            *value = words[i].value;
            return 0;
        }
    }
    return -EINVAL;
}

const char *sdc_format_size(uint64_t bytes, char buffer[32])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    size_t unit = 0;
    uint64_t rest = 0;
    for (; bytes >= 1024 && unit + 1 < SDC_COUNT(units); unit++) {
        rest = bytes % 1024;
        bytes /= 1024;
    }
    // Tenths are cut, not rounded: 1023.99 KiB must not become 1024.0 KiB.
    if (unit == 0)
        snprintf(buffer, 32, "%" PRIu64 " B", bytes);
    else
        snprintf(buffer, 32, "%" PRIu64 ".%" PRIu64 " %s", bytes, rest * 10 / 1024, units[unit]);
    return buffer;
}
