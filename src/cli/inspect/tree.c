// SPDX-License-Identifier: BSD-3-Clause
#include "cli/inspect/tree.h"

#include "base/bytes.h"
#include "base/check.h"

#include <inttypes.h>
#include <stdio.h>

enum { TEXT_MAX = 512, NAME_MAX_BYTES = 64, BYTES_MAX = 4096 };

void sdc_tree_put_number(json_t *object, const char *key, uint64_t value)
{
    json_object_set_new(object, key, json_integer((json_int_t)sdc_min(value, INT64_MAX)));
}

void sdc_tree_put_hex(json_t *object, const char *key, uint64_t value, unsigned digits)
{
    char text[24];

    snprintf(text, sizeof text, "0x%0*" PRIx64, (int)sdc_min(digits, 16), value);
    json_object_set_new(object, key, json_string(text));
}

void sdc_tree_put_flag(json_t *object, const char *key, bool value)
{
    json_object_set_new(object, key, json_boolean(value));
}

// What is no ASCII, or could drive a terminal, becomes a question mark.
static json_t *printable(const uint8_t *bytes, size_t size)
{
    char text[TEXT_MAX];
    size_t length = 0;

    for (size_t i = 0; i < size && i < sizeof text - 1 && bytes[i] != 0; i++)
        text[length++] = bytes[i] >= 0x20 && bytes[i] < 0x7f ? (char)bytes[i] : '?';
    while (length > 0 && text[length - 1] == ' ')
        length--;
    size_t first = 0;
    while (first < length && text[first] == ' ')
        first++;
    return json_stringn(text + first, length - first);
}

// C0 and C1, which drive terminals.
static bool has_controls(const char *text)
{
    for (const uint8_t *at = (const uint8_t *)text; *at; at++) {
        if (*at < 0x20 || *at == 0x7f || (at[0] == 0xc2 && at[1] >= 0x80 && at[1] < 0xa0))
            return true;
    }
    return false;
}

json_t *sdc_tree_string(const char *text)
{
    json_t *string = has_controls(text) ? NULL : json_string(text); // NULL: it is not UTF-8

    return string ? string : printable((const uint8_t *)text, strlen(text));
}

void sdc_tree_put_string(json_t *object, const char *key, const char *text)
{
    json_object_set_new(object, key, sdc_tree_string(text));
}

void sdc_tree_put_text(json_t *object, const char *key, const void *bytes, size_t size)
{
    json_object_set_new(object, key, printable(bytes, size));
}

void sdc_tree_put_bytes(json_t *object, const char *key, const void *bytes, size_t size, char between)
{
    char text[3 * BYTES_MAX + 1];
    const uint8_t *from = bytes;
    size_t at = 0;

    size = sdc_min(size, BYTES_MAX);
    for (size_t i = 0; i < size; i++) {
        at += (size_t)snprintf(text + at, sizeof text - at, "%02x", from[i]);
        if (between != 0 && i + 1 < size)
            text[at++] = between;
    }
    json_object_set_new(object, key, json_stringn(text, at));
}

void sdc_tree_put_named(json_t *object, const char *key, uint64_t id, unsigned digits, const char *name)
{
    json_t *named = sdc_tree_object(object, key);

    sdc_tree_put_hex(named, "id", id, digits);
    if (name && *name)
        sdc_tree_put_string(named, "name", name);
}

json_t *sdc_tree_append(json_t *array)
{
    json_t *object = json_object();

    json_array_append_new(array, object);
    return object;
}

json_t *sdc_tree_object(json_t *object, const char *key)
{
    json_t *inner = json_object();

    json_object_set_new(object, key, inner);
    return inner;
}

json_t *sdc_tree_array(json_t *object, const char *key)
{
    json_t *inner = json_array();

    json_object_set_new(object, key, inner);
    return inner;
}

void sdc_tree_put_names(json_t *object, const char *key, uint64_t bits, const char *(*name)(unsigned context, unsigned bit),
                        unsigned context)
{
    json_t *names = sdc_tree_array(object, key);

    for (unsigned bit = 0; bit < 64; bit++) {
        if (!(bits >> bit & 1))
            continue;
        const char *known = name(context, bit);
        json_array_append_new(names, known ? json_string(known) : json_sprintf("bit_%u", bit));
    }
}

// --- fields ---

uint64_t sdc_field_get(const struct sdc_field *field, const uint8_t *data, size_t size)
{
    uint8_t raw[8] = {0};
    size_t bytes = sdc_min(field->size, sizeof raw);

    if (!sdc_within(field->offset, bytes, size))
        return 0;
    memcpy(raw, data + field->offset, bytes);
    uint64_t value = sdc_get64(raw) >> field->shift;
    return field->bits > 0 && field->bits < 64 ? value & ((UINT64_C(1) << field->bits) - 1) : value;
}

static unsigned words_count(const char *const *words)
{
    unsigned count = 0;

    while (words[count])
        count++;
    return count;
}

static void put(json_t *object, const char *key, const struct sdc_field *field, const uint8_t *data, size_t size)
{
    uint64_t value = sdc_field_get(field, data, size), product;
    unsigned bits = field->bits > 0 ? field->bits : field->size * 8U;

    switch (field->kind) {
    case SDC_FIELD_NUMBER:
        sdc_tree_put_number(object, key, field->scale > 0 && sdc_mul(value, field->scale, &product) ? product : value);
        break;
    case SDC_FIELD_COUNT:
        sdc_tree_put_number(object, key, value + 1);
        break;
    case SDC_FIELD_POWER:
        sdc_tree_put_number(object, key, (uint64_t)field->scale << sdc_min(value, 31));
        break;
    case SDC_FIELD_HEX:
        sdc_tree_put_hex(object, key, value, (bits + 3) / 4);
        break;
    case SDC_FIELD_FLAG:
        sdc_tree_put_flag(object, key, value & 1);
        break;
    case SDC_FIELD_WORD:
        if (value < words_count(field->words))
            sdc_tree_put_string(object, key, field->words[value]);
        else
            sdc_tree_put_number(object, key, value);
        break;
    case SDC_FIELD_TEXT:
        sdc_tree_put_text(object, key, data + field->offset, field->size);
        break;
    case SDC_FIELD_BYTES:
        sdc_tree_put_bytes(object, key, data + field->offset, field->size, ':');
        break;
    }
}

void sdc_fields_put(json_t *object, const struct sdc_field *fields, size_t count, const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < count; i++) {
        const char *dot = strchr(fields[i].name, '.');
        char group[NAME_MAX_BYTES];
        if (!sdc_within(fields[i].offset, fields[i].size, size))
            continue;
        if (!dot) {
            put(object, fields[i].name, &fields[i], data, size);
            continue;
        }
        snprintf(group, sizeof group, "%.*s", (int)(dot - fields[i].name), fields[i].name);
        json_t *inner = json_object_get(object, group);
        put(inner ? inner : sdc_tree_object(object, group), dot + 1, &fields[i], data, size);
    }
}
