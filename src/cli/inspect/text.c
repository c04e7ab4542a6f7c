// SPDX-License-Identifier: BSD-3-Clause
#include "cli/inspect/text.h"

#include "base/check.h"
#include "base/parse.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum {
    WIDTH = 110,     // columns of a line
    LEAST = 20,      // of it that a value gets, however far to the right it begins
    STEP = 2,        // of what is in something
    COLUMNS_MAX = 8, // of a table
    SMALL = 6,       // members of an object that is written on one line
    GAP = 2,         // between a label and its value, and between columns
    DUMP_LINE = 16,  // bytes
};

#define CONFIG_SPACE "config_space"

static void spaces(FILE *to, size_t count)
{
    fprintf(to, "%*s", (int)count, "");
}

// Keys are ours: words with underscores between them, which stay where several labels share a line.
static void label(FILE *to, const char *key)
{
    for (; *key; key++)
        fputc(*key == '_' ? ' ' : *key, to);
}

// --- on one line ---

static bool is_scalar(const json_t *value)
{
    return !json_is_object(value) && !json_is_array(value);
}

static bool is_size(const char *key)
{
    size_t length = strlen(key);

    return strcmp(key, "size") == 0 || (length > 5 && strcmp(key + length - 5, "_size") == 0);
}

static void put_scalar(FILE *to, const char *key, const json_t *value)
{
    json_int_t number = json_integer_value(value);
    char text[32];

    if (json_is_string(value))
        fputs(json_string_value(value), to);
    else if (json_is_boolean(value))
        fputs(json_is_true(value) ? "yes" : "no", to);
    else if (json_is_integer(value) && number >= 1024 && is_size(key))
        fprintf(to, "%" JSON_INTEGER_FORMAT " (%s)", number, sdc_format_size((uint64_t)number, text));
    else
        fprintf(to, "%" JSON_INTEGER_FORMAT, number);
}

static void put_inline(FILE *to, const char *key, const json_t *value);

// "[0x40] 0x11 MSI-X, vectors 3, enabled-": where something is, its identifier and its name speak for themselves, and flags are
// written as lspci does.
static void put_member(FILE *to, const char *key, const json_t *value, bool speaks)
{
    bool group = json_is_object(value) && !json_object_get(value, "id");

    if (speaks && strcmp(key, "offset") == 0) {
        fprintf(to, "[%s]", json_string_value(value));
    } else if (speaks) {
        put_inline(to, key, value);
    } else if (json_is_boolean(value)) {
        fprintf(to, "%s%c", key, json_is_true(value) ? '+' : '-');
    } else {
        fprintf(to, "%s %s", key, group ? "(" : "");
        put_inline(to, key, value);
        fputs(group ? ")" : "", to);
    }
}

static void put_members(FILE *to, const json_t *object)
{
    bool has_id = json_object_get(object, "id") != NULL;
    const char *key, *between = "";
    json_t *value;

    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        bool head = has_id && (strcmp(key, "offset") == 0 || strcmp(key, "id") == 0);
        fputs(between, to);
        put_member(to, key, value, head || strcmp(key, "name") == 0);
        between = head || json_is_boolean(value) ? " " : ", ";
    }
}

static void put_inline(FILE *to, const char *key, const json_t *value)
{
    size_t i;
    json_t *element;

    if (json_is_object(value)) {
        put_members(to, value);
    } else if (json_is_array(value)) {
        json_array_foreach(value, i, element)
        {
            fputs(i == 0 ? "" : json_is_object(element) ? "; " : " ", to);
            put_inline(to, key, element);
        }
        if (i == 0)
            fputs("none", to);
    } else {
        put_scalar(to, key, value);
    }
}

// The same as a string, which is the caller's; NULL: no memory.
static char *inline_text(const char *key, const json_t *value)
{
    char *text = NULL;
    size_t size;
    FILE *to = open_memstream(&text, &size);

    if (!to)
        return NULL;
    put_inline(to, key, value);
    return fclose(to) == 0 ? text : NULL;
}

// Writes text where the line has come to column `indent`, and goes on there on further lines. A word that is longer than a line is
// broken: it is a device's.
static void put_wrapped(FILE *to, const char *text, size_t indent)
{
    size_t column = indent, room = indent < WIDTH - LEAST ? WIDTH - indent : LEAST;

    for (const char *word = text; *word;) {
        size_t length = sdc_min(strcspn(word, " "), room);
        if (column > indent && column + 1 + length > WIDTH) {
            fputc('\n', to);
            spaces(to, indent);
            column = indent;
        } else if (column > indent) {
            fputc(' ', to);
            column++;
        }
        fprintf(to, "%.*s", (int)length, word);
        column += length;
        word += length;
        word += strspn(word, " ");
    }
    fputc('\n', to);
}

static void put_inline_wrapped(FILE *to, const char *key, const json_t *value, size_t indent)
{
    char *text = inline_text(key, value);

    put_wrapped(to, text ? text : "(no memory)", indent);
    free(text);
}

// --- tables ---

struct table {
    const char *keys[COLUMNS_MAX];
    size_t widths[COLUMNS_MAX];
    size_t count;
};

static bool add_column(struct table *table, const char *key)
{
    for (size_t i = 0; i < table->count; i++) {
        if (strcmp(table->keys[i], key) == 0)
            return true;
    }
    if (table->count == COLUMNS_MAX)
        return false;
    table->keys[table->count] = key;
    table->widths[table->count++] = strlen(key);
    return true;
}

// Whether the objects are alike enough for a table: few keys in all.
static bool take_columns(struct table *table, const json_t *list)
{
    const char *key;
    json_t *row, *value;
    size_t i;

    json_array_foreach(list, i, row)
    {
        json_object_foreach(row, key, value)
        {
            if (!add_column(table, key))
                return false;
        }
    }
    return true;
}

static void measure(struct table *table, const json_t *list)
{
    json_t *row;
    size_t i;

    json_array_foreach(list, i, row)
    {
        for (size_t column = 0; column < table->count; column++) {
            json_t *value = json_object_get(row, table->keys[column]);
            char *text = value ? inline_text(table->keys[column], value) : NULL;
            table->widths[column] = sdc_max(table->widths[column], text ? strlen(text) : 0);
            free(text);
        }
    }
}

static void put_row(FILE *to, const struct table *table, const json_t *row, size_t indent)
{
    size_t at = indent, last = table->count - 1;

    while (last > 0 && !json_object_get(row, table->keys[last]))
        last--;
    spaces(to, indent);
    for (size_t column = 0; column <= last; column++) {
        const json_t *value = json_object_get(row, table->keys[column]);
        char *text = value ? inline_text(table->keys[column], value) : NULL;
        if (column == last)
            put_wrapped(to, text ? text : "", at);
        else
            fprintf(to, "%-*s", (int)(table->widths[column] + GAP), text ? text : "");
        at += table->widths[column] + GAP;
        free(text);
    }
}

static void put_table(FILE *to, struct table *table, const json_t *list, size_t indent)
{
    json_t *row;
    size_t i;

    measure(table, list);
    spaces(to, indent);
    for (size_t column = 0; column < table->count; column++) {
        fputs(table->keys[column], to);
        if (column + 1 < table->count)
            spaces(to, table->widths[column] + GAP - strlen(table->keys[column]));
    }
    fputc('\n', to);
    json_array_foreach(list, i, row)
        put_row(to, table, row, indent);
}

// --- objects ---

static bool is_text_list(const json_t *value)
{
    const json_t *first = json_array_get(value, 0);

    return json_is_string(first) && strchr(json_string_value(first), ' ');
}

// Whether a member is written behind its label.
static bool fits_line(const json_t *value)
{
    const char *key;
    json_t *member;
    bool flags = true, scalars = true;

    if (json_is_array(value))
        return json_array_size(value) == 0 || (is_scalar(json_array_get(value, 0)) && !is_text_list(value));
    if (!json_is_object(value))
        return true;
    json_object_foreach((json_t *)(uintptr_t)value, key, member)
    {
        flags &= json_is_boolean(member) || json_is_string(member);
        scalars &= is_scalar(member);
    }
    return flags || (scalars && json_object_size(value) <= SMALL);
}

static void put_object(FILE *to, const json_t *object, size_t indent);

static void put_list(FILE *to, const char *key, const json_t *list, size_t indent)
{
    struct table table = {0};
    json_t *element;
    size_t i;

    if (json_is_object(json_array_get(list, 0)) && take_columns(&table, list)) {
        put_table(to, &table, list, indent);
        return;
    }
    json_array_foreach(list, i, element)
    {
        spaces(to, indent);
        put_inline_wrapped(to, key, element, indent + STEP);
    }
}

static void put_below(FILE *to, const char *key, const json_t *value, size_t indent)
{
    spaces(to, indent);
    label(to, key);
    fputs(":\n", to);
    if (json_is_array(value))
        put_list(to, key, value, indent + STEP);
    else
        put_object(to, value, indent + STEP);
}

static void put_object(FILE *to, const json_t *object, size_t indent)
{
    const char *key;
    json_t *value;
    size_t width = 0;

    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        if (fits_line(value))
            width = sdc_max(width, strlen(key));
    }
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        if (!fits_line(value)) {
            put_below(to, key, value, indent);
            continue;
        }
        spaces(to, indent);
        label(to, key);
        spaces(to, width + GAP - strlen(key));
        put_inline_wrapped(to, key, value, indent + width + GAP);
    }
}

// --- the whole ---

static const char *text_in(const json_t *root, const char *object, const char *key, const char *otherwise)
{
    const char *text = json_string_value(json_object_get(json_object_get(json_object_get(root, "pci"), object), key));

    return text ? text : otherwise;
}

// What lspci -F reads.
static void put_dump(FILE *to, const json_t *root, const char *digits)
{
    fprintf(to, "\n00:00.0 %.80s: %.80s\n", text_in(root, "class", "name", "PCI function"),
            text_in(root, "device", "name", text_in(root, "device", "id", "")));
    for (size_t at = 0; digits[2 * at] && digits[2 * at + 1]; at++) {
        if (at % DUMP_LINE == 0)
            fprintf(to, "%s%02zx:", at > 0 ? "\n" : "", at);
        fprintf(to, " %.2s", digits + 2 * at);
    }
    fputc('\n', to);
}

void sdc_inspect_print_text(FILE *to, const json_t *root)
{
    const char *key, *digits = json_string_value(json_object_get(root, CONFIG_SPACE));
    json_t *value;

    fprintf(to, "%s: %s\n", json_string_value(json_object_get(root, "socket")), json_string_value(json_object_get(root, "protocol")));
    json_object_foreach((json_t *)(uintptr_t)root, key, value)
    {
        if (is_scalar(value) || (json_is_array(value) && json_array_size(value) == 0))
            continue;
        fputc('\n', to);
        put_below(to, key, value, 0);
    }
    if (digits)
        put_dump(to, root, digits);
}
