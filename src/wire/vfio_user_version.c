// SPDX-License-Identifier: BSD-3-Clause
#include "wire/vfio_user_version.h"

#include "base/limits.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

// Objects and arrays within one another. The library recurses; a capability is three deep.
enum { DEPTH_MAX = 16 };

// Refuses deep nesting before the recursive parser sees it. Brackets inside strings don't count.
static bool too_deep(const char *json, size_t length)
{
    unsigned depth = 0;
    bool in_string = false;

    for (size_t i = 0; i < length; i++) {
        char c = json[i];
        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            if (++depth > DEPTH_MAX)
                return true;
        } else if ((c == '}' || c == ']') && depth > 0) {
            depth--;
        }
    }
    return false;
}

struct number_key {
    const char *name;
    size_t value;
    size_t has;
    uint64_t min;
    uint64_t max;
};

#define NUMBER(key, low, high)                                                                    \
    {#key, offsetof(struct sdc_vfu_capabilities, key), offsetof(struct sdc_vfu_capabilities, has_##key), low, high}

static const struct number_key number_keys[] = {
    NUMBER(max_msg_fds, 1, UINT32_MAX),
    NUMBER(max_data_xfer_size, 1, UINT32_MAX),
    NUMBER(max_dma_maps, 1, UINT32_MAX),
    NUMBER(pgsizes, 4096, INT64_MAX),
};

static int refuse(struct sdc_error *err, const char *key, const char *wanted)
{
    return sdc_error_set(err, -EINVAL, SDC_FAULT_PEER, "VERSION: capability \"%s\" must be %s", key, wanted);
}

static int read_numbers(json_t *object, struct sdc_vfu_capabilities *caps, struct sdc_error *err)
{
    for (size_t i = 0; i < sizeof number_keys / sizeof number_keys[0]; i++) {
        const struct number_key *key = &number_keys[i];
        json_t *value = json_object_get(object, key->name);
        if (!value)
            continue;
        if (!json_is_integer(value))
            return refuse(err, key->name, "a number");
        json_int_t number = json_integer_value(value);
        if (number < 0 || (uint64_t)number < key->min || (uint64_t)number > key->max)
            return sdc_error_set(err, -EINVAL, SDC_FAULT_PEER,
                                 "VERSION: capability \"%s\" is %" JSON_INTEGER_FORMAT ", must be %" PRIu64
                                 " to %" PRIu64, key->name, number, key->min, key->max);
        *(uint64_t *)(void *)((char *)caps + key->value) = (uint64_t)number;
        *(bool *)((char *)caps + key->has) = true;
    }
    return 0;
}

static int read_twin(json_t *twin, struct sdc_vfu_capabilities *caps, struct sdc_error *err)
{
    if (!twin)
        return 0;
    if (!json_is_object(twin))
        return refuse(err, "twin_socket", "an object");
    json_t *supported = json_object_get(twin, "supported");
    if (supported && !json_is_boolean(supported))
        return refuse(err, "twin_socket.supported", "true or false");
    json_t *index = json_object_get(twin, "fd_index");
    if (index && (!json_is_integer(index) || json_integer_value(index) < 0 || json_integer_value(index) > UINT16_MAX))
        return refuse(err, "twin_socket.fd_index", "the number of an fd");
    caps->has_twin_socket = true;
    caps->twin_supported = json_is_true(supported);
    caps->has_twin_fd_index = index != NULL;
    caps->twin_fd_index = (uint64_t)(index ? json_integer_value(index) : 0);
    return 0;
}

static int read_capabilities(json_t *root, struct sdc_vfu_capabilities *caps, struct sdc_error *err)
{
    if (!json_is_object(root))
        return sdc_error_set(err, -EINVAL, SDC_FAULT_PEER, "VERSION: the JSON is not an object");

    json_t *object = json_object_get(root, "capabilities");
    if (!object)
        return 0;
    if (!json_is_object(object))
        return refuse(err, "capabilities", "an object");

    json_t *multiple = json_object_get(object, "write_multiple");
    if (multiple) {
        if (!json_is_boolean(multiple))
            return refuse(err, "write_multiple", "true or false");
        caps->has_write_multiple = true;
        caps->write_multiple = json_is_true(multiple);
    }
    json_t *migration = json_object_get(object, "migration"); // of an older specification; QEMU and others still send it
    if (migration && !json_is_object(migration))
        return refuse(err, "migration", "an object");
    json_t *pgsize = migration ? json_object_get(migration, "pgsize") : NULL;
    if (pgsize && (!json_is_integer(pgsize) || json_integer_value(pgsize) <= 0))
        return refuse(err, "migration.pgsize", "a number of bytes");
    int rc = read_twin(json_object_get(object, "twin_socket"), caps, err);
    return rc < 0 ? rc : read_numbers(object, caps, err);
}

int sdc_vfu_capabilities_parse(const char *json, size_t size, struct sdc_vfu_capabilities *caps, struct sdc_error *err)
{
    *caps = (struct sdc_vfu_capabilities){
        .max_msg_fds = 1, .max_data_xfer_size = 1024 * 1024, .max_dma_maps = 65535, .pgsizes = 4096};
    if (size == 0)
        return 0;
    if (size > SDC_LIMIT_VERSION_JSON)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_PEER, "VERSION: %zu bytes of JSON, at most %d", size,
                             SDC_LIMIT_VERSION_JSON);
    if (strnlen(json, size) != size - 1)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_PEER, "VERSION: the JSON does not end in its one NUL");
    if (too_deep(json, size - 1))
        return sdc_error_set(err, -EINVAL, SDC_FAULT_PEER, "VERSION: JSON nested deeper than %d", DEPTH_MAX);

    json_error_t why;
    json_t *root = json_loadb(json, size - 1, JSON_REJECT_DUPLICATES, &why);
    if (!root)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_PEER, "VERSION: bad JSON: %.120s", why.text);
    int rc = read_capabilities(root, caps, err);
    json_decref(root);
    return rc;
}

struct printer {
    char *at;
    size_t left;
    bool overflow;
};

__attribute__((format(printf, 2, 3))) static void print(struct printer *out, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int length = vsnprintf(out->at, out->left, format, args);
    va_end(args);
    if (length < 0 || (size_t)length >= out->left) {
        out->overflow = true;
        return;
    }
    out->at += length;
    out->left -= (size_t)length;
}

int sdc_vfu_capabilities_print(const struct sdc_vfu_capabilities *caps, char *json, size_t size)
{
    struct printer out = {json, size, size == 0};
    const char *comma = "";

    print(&out, "{\"capabilities\":{");
    for (size_t i = 0; i < sizeof number_keys / sizeof number_keys[0]; i++) {
        const struct number_key *key = &number_keys[i];
        if (!*(const bool *)((const char *)caps + key->has))
            continue;
        print(&out, "%s\"%s\":%" PRIu64, comma, key->name,
              *(const uint64_t *)(const void *)((const char *)caps + key->value));
        comma = ",";
    }
    if (caps->has_write_multiple) {
        print(&out, "%s\"write_multiple\":%s", comma, caps->write_multiple ? "true" : "false");
        comma = ",";
    }
    if (caps->has_twin_socket) {
        print(&out, "%s\"twin_socket\":{\"supported\":%s", comma, caps->twin_supported ? "true" : "false");
        if (caps->has_twin_fd_index)
            print(&out, ",\"fd_index\":%" PRIu64, caps->twin_fd_index);
        print(&out, "}");
    }
    print(&out, "}}");
    return out.overflow ? -ENOSPC : (int)(out.at - json) + 1;
}
