// SPDX-License-Identifier: BSD-3-Clause
// What inspect has found is one tree of JSON values, objects in the order in which they were filled; --json writes it as it is, and
// the text is made of it, so that the two say the same. What counts is a number; addresses, offsets, identifiers and bit masks are
// hexadecimal strings; text that a device gave has printable ASCII only.
//
// Registers and structures are decoded by tables of fields.
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void sdc_tree_put_number(json_t *object, const char *key, uint64_t value);
// "0x" and at least so many digits.
void sdc_tree_put_hex(json_t *object, const char *key, uint64_t value, unsigned digits);
void sdc_tree_put_flag(json_t *object, const char *key, bool value);
// A string of ours, or of the host's: valid UTF-8 that drives no terminal stays as it is.
json_t *sdc_tree_string(const char *text);
void sdc_tree_put_string(json_t *object, const char *key, const char *text);
// Text in a field of `size` bytes: up to the first NUL, without the blanks around it.
void sdc_tree_put_text(json_t *object, const char *key, const void *bytes, size_t size);
// Two digits a byte, of at most 4096, with `between` (0: nothing) after each but the last.
void sdc_tree_put_bytes(json_t *object, const char *key, const void *bytes, size_t size, char between);
// {"id": "0x1af4", "name": "Red Hat, Inc."}; without a name if it is NULL or empty.
void sdc_tree_put_named(json_t *object, const char *key, uint64_t id, unsigned digits, const char *name);
// A new object at the end of an array, or in an object: both are the holder's.
json_t *sdc_tree_append(json_t *array);
json_t *sdc_tree_object(json_t *object, const char *key);
json_t *sdc_tree_array(json_t *object, const char *key);
// The names of the bits that are set, which name(context, bit) knows, "bit_N" for the others.
void sdc_tree_put_names(json_t *object, const char *key, uint64_t bits, const char *(*name)(unsigned context, unsigned bit),
                        unsigned context);

enum sdc_field_kind {
    SDC_FIELD_NUMBER, // the value, times `scale` if there is one
    SDC_FIELD_COUNT,  // the value is one less
    SDC_FIELD_POWER,  // scale << value
    SDC_FIELD_HEX,
    SDC_FIELD_FLAG,
    SDC_FIELD_WORD,   // words[value], else the number
    SDC_FIELD_TEXT,   // all of the bytes
    SDC_FIELD_BYTES,  // likewise, in hexadecimal
};

// A field of a structure in little-endian bytes.
struct sdc_field {
    const char *name; // "group.name" goes into an object of that name
    uint16_t offset;  // bytes
    uint8_t size;     // bytes of the number that it is in: 1, 2, 4 or 8; or of text
    uint8_t shift;    // bits
    uint8_t bits;     // 0: the whole number
    enum sdc_field_kind kind;
    uint32_t scale;
    const char *const *words; // ends with NULL
};

// The field's value. It lies inside size bytes at data, or this is 0.
uint64_t sdc_field_get(const struct sdc_field *field, const uint8_t *data, size_t size);
// Puts the fields that lie inside size bytes at data.
void sdc_fields_put(json_t *object, const struct sdc_field *fields, size_t count, const uint8_t *data, size_t size);
