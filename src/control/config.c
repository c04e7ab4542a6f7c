// SPDX-License-Identifier: BSD-3-Clause
// The file is the user's own and trusted to mean well: it is checked so that mistakes are told, each with its place.
#include "control/config.h"

#include "base/check.h"
#include "base/limits.h"
#include "base/parse.h"
#include "control/outlet.h"

#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GROUPS_MAX = 16, VALUE_MAX = 40 };

// Where in the file something is: "cards[3].namespaces[1]".
struct place {
    const char *file;
    char path[64];
};

static struct place inside(const struct place *place, const char *list, size_t index)
{
    struct place in = {.file = place->file};

    snprintf(in.path, sizeof in.path, "%.32s%s%s[%zu]", place->path, *place->path ? "." : "", list, index);
    return in;
}

// "FILE: cards[3].key: ..."; key NULL: the place itself.
static int wrong(const struct place *place, const char *key, struct sdc_error *err, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static int wrong(const struct place *place, const char *key, struct sdc_error *err, const char *format, ...)
{
    char what[256];
    va_list list;

    va_start(list, format);
    vsnprintf(what, sizeof what, format, list);
    va_end(list);
    bool root = *place->path == '\0';
    return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "%s: %s%s%s%s%s", place->file, place->path, key && !root ? "." : "", key ? key : "",
                         key || !root ? ": " : "", what);
}

// --- values ---

// As it stands in the file, cut to what fits into a line.
static const char *show(const json_t *value, char text[VALUE_MAX + 4])
{
    char *all = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);

    snprintf(text, VALUE_MAX + 4, "%.*s%s", VALUE_MAX, all ? all : "?", all && strlen(all) > VALUE_MAX ? "..." : "");
    free(all);
    return text;
}

static bool is_number(const struct sdc_option *option)
{
    return option->kind == SDC_OPTION_NUMBER || option->kind == SDC_OPTION_POWER_OF_TWO;
}

static bool is_yes_or_no(const struct sdc_option *option)
{
    return option->kind == SDC_OPTION_FLAG || option->kind == SDC_OPTION_BOOL;
}

// A good entry, to be shown to who made a bad one.
static const char *example(const struct sdc_option *option, char text[80])
{
    if (is_yes_or_no(option))
        snprintf(text, 80, "\"%s\": %s", option->name, !option->example || strcmp(option->example, "on") == 0 ? "true" : "false");
    else
        snprintf(text, 80, is_number(option) ? "\"%s\": %s" : "\"%s\": \"%s\"", option->name, option->example);
    return text;
}

// The value as it would be typed on the command line; number has room for one. NULL: no value of this type can be meant.
static const char *typed(const struct sdc_option *option, const json_t *value, char number[32])
{
    if (is_yes_or_no(option))
        return json_is_boolean(value) ? json_is_true(value) ? "on" : "off" : NULL;
    if (json_is_string(value))
        return is_number(option) ? NULL : json_string_value(value);
    if (json_is_real(value) && option->kind == SDC_OPTION_CALL) {
        snprintf(number, 32, "%.12f", json_real_value(value));
        return number;
    }
    if (!json_is_integer(value) || option->kind == SDC_OPTION_TEXT)
        return NULL;
    snprintf(number, 32, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    return number;
}

static int set(const struct sdc_option *option, const struct sdc_option_group *group, const json_t *value, const struct place *place,
               struct sdc_error *err)
{
    char number[32], shown[VALUE_MAX + 4], good[80];
    struct sdc_error why = {0};

    if (!group->values)
        return wrong(place, option->name, err, "%s", group->why);
    const char *text = typed(option, value, number);
    if (!text)
        return wrong(place, option->name, err, "%s: must be %s; write for example %s", show(value, shown),
                     is_number(option)                ? "a number"
                     : is_yes_or_no(option)           ? "true or false"
                     : option->kind == SDC_OPTION_SIZE ? "a size in bytes, as a number or as text with a suffix"
                                                      : "text in quotation marks", example(option, good));
    if (sdc_option_set(option, group->values, text, &why) == 0)
        return 0;
    if (sdc_option_says_what(&why))
        return wrong(place, option->name, err, "%s: %s", show(value, shown), why.text);
    return wrong(place, option->name, err, "%s: %s; write for example %s", show(value, shown), why.text, example(option, good));
}

// --- objects and lists ---

static bool is_among(const char *key, const char *const *names)
{
    while (*names && strcmp(key, *names) != 0)
        names++;
    return *names != NULL;
}

// Reads an object's entries; `others` are the names of those that somebody else reads, ended by NULL.
static int read_object(const json_t *object, const char *const *others, const struct sdc_option_group *groups, size_t count,
                       const struct place *place, struct sdc_error *err)
{
    const struct sdc_option_group *group;
    const char *key;
    json_t *value;

    json_object_foreach((json_t *)object, key, value) {
        if (is_among(key, others))
            continue;
        const struct sdc_option *option = sdc_option_find(groups, count, key, strlen(key), &group);
        if (option) {
            int rc = set(option, group, value, place, err);
            if (rc < 0)
                return rc;
            continue;
        }
        const char *near = sdc_option_nearest(groups, count, key);
        if (!near)
            near = sdc_nearest(key, others);
        if (near)
            return wrong(place, key, err, "there is no such key; did you mean \"%s\"?", near);
        return wrong(place, key, err, "there is no such key; sidecard-serve(1) lists what there is");
    }
    return 0;
}

// The list of that name in object: how many entries it has, 1 to max, each an object. Negative with err filled.
static int list_size(const json_t *object, const char *name, size_t max, const char *entry, const struct place *place,
                     struct sdc_error *err)
{
    const json_t *list = json_object_get(object, name);
    char shown[VALUE_MAX + 4];

    if (!list)
        return wrong(place, NULL, err, "\"%s\" is missing; write for example \"%s\": [%s]", name, name, entry);
    if (!json_is_array(list) || json_array_size(list) == 0)
        return wrong(place, name, err, "%s: must be a list with something in it; write for example \"%s\": [%s]", show(list, shown), name,
                     entry);
    if (json_array_size(list) > max)
        return wrong(place, name, err, "%zu entries, the limit is %zu", json_array_size(list), max);
    for (size_t i = 0; i < json_array_size(list); i++) {
        struct place in = inside(place, name, i);
        const json_t *value = json_array_get(list, i);
        if (!json_is_object(value))
            return wrong(&in, NULL, err, "%s: must be an object; write for example %s", show(value, shown), entry);
    }
    return (int)json_array_size(list);
}

// --- backends ---

static const struct sdc_option backend_rows[] = {
    {"backend", SDC_OPTION_TEXT, SDC_OPTION_AT(struct sdc_card_backend, name), 0, 0, "disk.img", NULL},
};
static const struct sdc_options backend_name = {backend_rows, SDC_COUNT(backend_rows)};

// Read as a list; known here to those who find it elsewhere.
static const struct sdc_option filters_rows[] = {{"filters", SDC_OPTION_TEXT, 0, 0, 0, 0, "", NULL}};
static const struct sdc_options filters_key = {filters_rows, SDC_COUNT(filters_rows)};

static const struct sdc_option namespace_rows[] = {
    {"nsid", SDC_OPTION_NUMBER, SDC_OPTION_AT(struct sdc_card_backend, nsid), 1, SDC_LIMIT_NAMESPACES, "1", NULL},
};
static const struct sdc_options namespace_keys = {namespace_rows, SDC_COUNT(namespace_rows)};

static int need_backend(const struct sdc_card_backend *backend, const struct place *place, struct sdc_error *err)
{
    if (backend->name)
        return 0;
    return wrong(place, NULL, err, "\"backend\" is missing; write for example \"backend\": \"disk.img\"");
}

// --- filters ---

static const char *const only_type[] = {"type", NULL};
static const char *const only_filters[] = {"filters", NULL};
static const char *const only_cards[] = {"cards", NULL};
static const char *const of_a_card[] = {"namespaces", "filters", NULL};

// What filters come to on the command line.
struct filters_text {
    char bytes[1024];
    size_t length;
};

static void append(struct filters_text *text, const char *a, const char *b, const char *c, const char *d)
{
    int length = snprintf(text->bytes + text->length, sizeof text->bytes - text->length, "%s%s%s%s", a, b, c, d);

    text->length = sdc_min(text->length + (size_t)length, sizeof text->bytes);
}

static int filter_type(const json_t *filter, const struct place *place, const struct sdc_filter_type **type, struct sdc_error *err)
{
    const json_t *value = json_object_get(filter, "type");
    const char *name = json_string_value(value);
    char shown[VALUE_MAX + 4];

    if (!value)
        return wrong(place, NULL, err, "\"type\" is missing; write for example \"type\": \"readonly\"");
    *type = name ? sdc_filter_named(name, strlen(name)) : NULL;
    if (*type)
        return 0;
    const char *near = name ? sdc_filter_nearest(name) : NULL;
    if (near)
        return wrong(place, "type", err, "%s: there is no such filter; did you mean \"%s\"?", show(value, shown), near);
    return wrong(place, "type", err, "%s: there is no such filter; sidecard-filters(7) lists what there is", show(value, shown));
}

// One object of the list, as it would be typed.
static int read_filter(const json_t *filter, const struct place *place, struct filters_text *text, struct sdc_error *err)
{
    const struct sdc_filter_type *type;
    union sdc_filter_options options = {0};
    struct sdc_error why = {0};
    const char *key;
    json_t *value;
    int rc = filter_type(filter, place, &type, err);

    if (rc < 0)
        return rc;
    const struct sdc_option_group group = {type->options, &options, NULL}, *found;
    rc = read_object(filter, only_type, &group, 1, place, err);
    if (rc == 0 && type->check && type->check(&options, &why) < 0)
        rc = wrong(place, NULL, err, "%s", why.text);
    if (rc < 0)
        return rc;
    append(text, type->name, "", "", "");
    json_object_foreach((json_t *)filter, key, value) {
        char number[32];
        const struct sdc_option *option = sdc_option_find(&group, 1, key, strlen(key), &found);
        if (option)
            append(text, ",", key, "=", typed(option, value, number));
    }
    append(text, ":", "", "", "");
    return 0;
}

// Puts the filters that an object has in a list in front of its backend, whose name the document holds.
static int read_filters(const json_t *object, struct sdc_card_backend *backend, const struct place *place, struct sdc_error *err)
{
    struct filters_text text = {0};

    if (!json_object_get(object, "filters"))
        return 0;
    int count = list_size(object, "filters", SDC_BLOCK_FILTERS, "{\"type\": \"readonly\"}", place, err);
    for (int i = 0; i < count; i++) {
        struct place in = inside(place, "filters", (size_t)i);
        int rc = read_filter(json_array_get(json_object_get(object, "filters"), (size_t)i), &in, &text, err);
        if (rc < 0)
            return rc;
    }
    if (count < 0)
        return count;
    if (text.length == sizeof text.bytes)
        return wrong(place, "filters", err, "what they say is too long");
    json_t *name = json_sprintf("%s%s", text.bytes, backend->name);
    if (!name || json_object_set_new((json_t *)object, "backend", name) < 0)
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "%s: no memory for it", place->file);
    backend->name = json_string_value(name);
    return 0;
}

// --- several backends ---

static int read_namespaces(const json_t *card, struct sdc_card_backend *backends, size_t count, const struct place *place,
                           struct sdc_error *err)
{
    int rc = 0;

    for (size_t i = 0; i < count && rc == 0; i++) {
        struct place in = inside(place, "namespaces", i);
        const struct sdc_option_group groups[] = {
            {&backend_name, &backends[i], NULL}, {&namespace_keys, &backends[i], NULL}, {&sdc_backend_options, &backends[i], NULL}};
        const json_t *object = json_array_get(json_object_get(card, "namespaces"), i);
        rc = read_object(object, only_filters, groups, SDC_COUNT(groups), &in, err);
        if (rc == 0)
            rc = need_backend(&backends[i], &in, err);
        if (rc == 0)
            rc = read_filters(object, &backends[i], &in, err);
    }
    return rc;
}

// Makes room for the card's backends, and reads those that are a list. Several: *list.
static int take_backends(const json_t *card, struct sdc_serve_options *serve, bool *list, const struct place *place, struct sdc_error *err)
{
    const struct sdc_card_type *type = serve->device ? sdc_card_type(serve->device) : NULL;
    int count = 1;

    *list = json_object_get(card, "namespaces") != NULL;
    if (*list && type && type->backends_max == 1)
        return wrong(place, "namespaces", err, "%s has one backend; write \"backend\": \"disk.img\" instead", type->name);
    if (*list)
        count = list_size(card, "namespaces", type ? type->backends_max : 1, "{\"backend\": \"disk.img\"}", place, err);
    if (count < 0)
        return count;
    struct sdc_card_backend *backends = calloc((size_t)count, sizeof *backends);
    if (!backends)
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "%s: no memory for it", place->file);
    serve->card.backends = backends;
    serve->card.backends_count = (unsigned)count;
    return *list ? read_namespaces(card, backends, (size_t)count, place, err) : 0;
}

// --- cards ---

#define SERVE(member) SDC_OPTION_AT(struct sdc_serve_options, member)

// What the command line has as arguments.
static const struct sdc_option card_rows[] = {
    {"socket", SDC_OPTION_TEXT, SERVE(socket), 0, 0, "vm0.sock", NULL},
    {"device", SDC_OPTION_TEXT, SERVE(device), 0, 0, "virtio-blk", NULL},
};
static const struct sdc_options card_names = {card_rows, SDC_COUNT(card_rows)};

static int check_card(const struct sdc_serve_options *serve, bool list, const struct place *place, struct sdc_error *err)
{
    for (size_t i = 0; i < SDC_COUNT(card_rows); i++) {
        if (!*(const char *const *)(const void *)((const char *)serve + card_rows[i].place))
            return wrong(place, NULL, err, "\"%s\" is missing; write for example \"%s\": \"%s\"", card_rows[i].name, card_rows[i].name,
                         card_rows[i].example);
    }
    if (!sdc_card_type(serve->device)) {
        const char *near = sdc_nearest(serve->device, sdc_card_names());
        return wrong(place, "device", err, "\"%.40s\": there is no such device%s%s%s", serve->device, near ? "; did you mean \"" : "",
                     near ? near : "", near ? "\"?" : "");
    }
    return list ? 0 : need_backend(serve->card.backends, place, err);
}

static int read_card(const json_t *card, struct sdc_serve_options *serve, const struct place *place, struct sdc_error *err)
{
    static const char of_process[] = "it is said once for the process: write it beside \"cards\"";
    static const char of_namespace[] = "it is said of each namespace: write it inside \"namespaces\"";
    const char *device = json_string_value(json_object_get(card, "device"));
    struct sdc_option_group groups[GROUPS_MAX];
    bool list;

    sdc_serve_options_init(serve);
    serve->device = device;
    int rc = take_backends(card, serve, &list, place, err);
    if (rc < 0)
        return rc;
    void *backend = list ? NULL : (void *)serve->card.backends;
    unsigned count = 0;
    groups[count++] = (struct sdc_option_group){&card_names, serve, NULL};
    groups[count++] = (struct sdc_option_group){&sdc_serve_options, serve, NULL};
    groups[count++] = (struct sdc_option_group){&backend_name, backend, "there are \"namespaces\", which have backends of their own"};
    groups[count++] = (struct sdc_option_group){&sdc_backend_options, backend, of_namespace};
    groups[count++] = (struct sdc_option_group){&sdc_process_options, NULL, of_process};
    count += sdc_device_options(device ? device : "", &serve->card, groups + count, GROUPS_MAX - count);
    rc = read_object(card, of_a_card, groups, count, place, err);
    if (rc == 0)
        rc = check_card(serve, list, place, err);
    if (rc == 0 && list && json_object_get(card, "filters"))
        rc = wrong(place, "filters", err, "%s", of_namespace);
    return rc == 0 && backend ? read_filters(card, backend, place, err) : rc;
}

// --- duplicates ---

struct named {
    const char *path; // what stands behind the transport
    unsigned index;
};

static int by_path(const void *a, const void *b)
{
    const struct named *left = a, *right = b;
    int order = strcmp(left->path, right->path);

    return order != 0 ? order : left->index < right->index ? -1 : 1;
}

// No two cards may have the same socket.
static int check_sockets(const struct sdc_config *config, const struct place *place, struct sdc_error *err)
{
    struct named *named = calloc(config->cards_count, sizeof *named);
    int rc = named ? 0 : sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "%s: no memory for it", place->file);

    for (unsigned i = 0; rc == 0 && i < config->cards_count; i++) {
        enum sdc_card_shape shape;
        struct sdc_error why = {0};
        struct place in = inside(place, "cards", i);
        named[i].index = i;
        if (sdc_outlet_transport(config->cards[i].socket, &shape, &named[i].path, &why) < 0)
            rc = wrong(&in, NULL, err, "%s", why.text);
    }
    if (rc == 0)
        qsort(named, config->cards_count, sizeof *named, by_path);
    for (unsigned i = 1; rc == 0 && i < config->cards_count; i++) {
        struct place in = inside(place, "cards", named[i].index);
        if (strcmp(named[i].path, named[i - 1].path) == 0)
            rc = wrong(&in, "socket", err, "\"%.100s\" is that of cards[%u] too; each card has a socket of its own", named[i].path,
                       named[i - 1].index);
    }
    free(named);
    return rc;
}

// --- the document ---

static int read_cards(const json_t *root, struct sdc_config *config, const struct place *place, struct sdc_error *err)
{
    static const char entry[] = "{\"socket\": \"vm0.sock\", \"device\": \"virtio-blk\", \"backend\": \"disk.img\"}";
    int count = list_size(root, "cards", SDC_LIMIT_CARDS, entry, place, err);

    if (count < 0)
        return count;
    config->cards = calloc((size_t)count, sizeof *config->cards);
    if (!config->cards)
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "%s: no memory for it", place->file);
    config->cards_count = (unsigned)count;
    for (size_t i = 0; i < config->cards_count; i++) {
        struct place in = inside(place, "cards", i);
        int rc = read_card(json_array_get(json_object_get(root, "cards"), i), &config->cards[i], &in, err);
        if (rc < 0)
            return rc;
    }
    return check_sockets(config, place, err);
}

// An option of a card that was written beside the cards belongs into one.
static int read_root(const json_t *root, struct sdc_config *config, const struct place *place, struct sdc_error *err)
{
    static const char of_card[] = "it is said of each card: write it inside \"cards\"";
    struct sdc_option_group groups[GROUPS_MAX];
    unsigned count = 0;

    groups[count++] = (struct sdc_option_group){&sdc_process_options, &config->process, NULL};
    groups[count++] = (struct sdc_option_group){&card_names, NULL, of_card};
    groups[count++] = (struct sdc_option_group){&sdc_serve_options, NULL, of_card};
    groups[count++] = (struct sdc_option_group){&backend_name, NULL, of_card};
    groups[count++] = (struct sdc_option_group){&filters_key, NULL, of_card};
    groups[count++] = (struct sdc_option_group){&sdc_backend_options, NULL, of_card};
    unsigned devices = sdc_device_options("", NULL, groups + count, GROUPS_MAX - count);
    for (; devices > 0; devices--)
        groups[count++].why = of_card;
    int rc = read_object(root, only_cards, groups, count, place, err);
    return rc < 0 ? rc : read_cards(root, config, place, err);
}

// Takes root over; NULL: why says what is wrong with the JSON.
static int read_document(const char *name, json_t *root, const json_error_t *why, struct sdc_config *config, struct sdc_error *err)
{
    const struct place place = {.file = name};

    if (!root)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "%s:%d:%d: %s", name, why->line, why->column, why->text);
    *config = (struct sdc_config){.document = root};
    sdc_process_options_init(&config->process);
    int rc = json_is_object(root) ? read_root(root, config, &place, err)
                                  : wrong(&place, NULL, err, "must be an object; write {\"cards\": [...]}");
    if (rc < 0)
        sdc_config_free(config);
    return rc;
}

// Opens the file and looks whether it can be read, which a folder cannot. 0, or a negative errno.
static int open_file(const char *path, FILE **file)
{
    *file = fopen(path, "re");
    if (!*file)
        return -errno;
    int first = getc(*file);
    if (first == EOF && ferror(*file)) {
        int rc = -errno;
        fclose(*file);
        return rc;
    }
    ungetc(first, *file);
    return 0;
}

int sdc_config_read(const char *path, struct sdc_config *config, struct sdc_error *err)
{
    json_error_t why;
    FILE *file;

    int rc = open_file(path, &file);
    if (rc == -ENOENT)
        return sdc_error_set(err, rc, SDC_FAULT_USER, "no such file: %s; sidecard-serve(1) says what is in one", path);
    if (rc < 0)
        return sdc_error_set(err, rc, SDC_FAULT_USER, "%s: cannot read it: %s", path, strerror(-rc));
    json_t *root = json_loadf(file, JSON_REJECT_DUPLICATES, &why);
    fclose(file);
    return read_document(path, root, &why, config, err);
}

int sdc_config_parse(const char *name, const char *text, size_t length, struct sdc_config *config, struct sdc_error *err)
{
    json_error_t why;
    json_t *root = json_loadb(text, length, JSON_REJECT_DUPLICATES, &why);

    return read_document(name, root, &why, config, err);
}

void sdc_config_free(struct sdc_config *config)
{
    for (unsigned i = 0; i < config->cards_count; i++)
        free((void *)config->cards[i].card.backends);
    free(config->cards);
    json_decref(config->document);
    *config = (struct sdc_config){0};
}
