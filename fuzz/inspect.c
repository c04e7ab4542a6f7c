// SPDX-License-Identifier: BSD-3-Clause
// What sidecard inspect decodes, and how it prints it. The first byte of the input says what the rest is.
#include "base/check.h"
#include "card.h"
#include "cli/inspect/inspect.h"
#include "cli/inspect/text.h"
#include "input.h"

#include <stdlib.h>
#include <string.h>

enum kind { CONFIG_SPACE, VIRTIO_CONFIG, REGISTERS, CONTROLLER, NAMESPACE, DESCRIPTORS, NAMES, KINDS };

enum { LINE_MAX_BYTES = 250 }; // that lspci reads

// lspci reads a dump with lines of that length; nothing drives a terminal.
static void check_text(const json_t *root)
{
    char *text = NULL;
    size_t size;
    FILE *to = open_memstream(&text, &size);

    fuzz_check(to != NULL, "no memory");
    sdc_inspect_print_text(to, root);
    fclose(to);
    for (size_t i = 0, column = 0; i < size; i++) {
        column = text[i] == '\n' ? 0 : column + 1;
        fuzz_check(column <= LINE_MAX_BYTES, "a line is too long");
        fuzz_check(text[i] == '\n' || (text[i] >= 0x20 && text[i] < 0x7f), "a byte is printed that is no text");
    }
    free(text);
}

static void config_space(json_t *root, struct fuzz_input *input, json_t *problems)
{
    static struct sdc_inspect_config config;
    struct sdc_inspect_ids none = {0};

    config = (struct sdc_inspect_config){.size = sdc_min(input->left, sizeof config.bytes), .bar_sizes = {4096, 0, 1 << 20}};
    fuzz_bytes(input, config.bytes, config.size);
    json_t *pci = sdc_tree_object(root, "pci");
    sdc_inspect_pci(pci, &config, &none, problems);
    fuzz_check(json_array_size(json_object_get(pci, "capabilities")) <= 48, "a list of capabilities is longer than there is room for");
    fuzz_check(json_array_size(json_object_get(pci, "extended_capabilities")) <= 960, "so is one of extended capabilities");
    fuzz_check(json_array_size(problems) <= 2, "there are more problems than lists");
    sdc_tree_put_bytes(root, "config_space", config.bytes, config.size, 0);
}

static void virtio_config(json_t *root, struct fuzz_input *input)
{
    json_t *virtio = sdc_tree_object(root, "virtio");
    uint64_t features = fuzz_u64(input);
    unsigned device = fuzz_u8(input);
    uint8_t bytes[256];
    size_t size = sdc_min(input->left, sizeof bytes);

    fuzz_bytes(input, bytes, size);
    if (device == 0)
        device = sdc_inspect_virtio_guess(features, bytes, size);
    sdc_inspect_virtio_config_put(virtio, device, features, bytes, size, true);
}

// A file of the host's, which may be cut off or be no such file.
static void names(struct fuzz_input *input)
{
    struct sdc_inspect_ids ids = {.size = input->left, .text = malloc(input->left + 1)};
    char name[SDC_INSPECT_NAME];

    fuzz_check(ids.text != NULL, "no memory");
    fuzz_bytes(input, ids.text, ids.size);
    fuzz_check(strlen(sdc_inspect_subsystem_name(&ids, 0x8086, 0x1533, 0x103c, 3, name)) < sizeof name, "a name is too long");
    sdc_inspect_vendor_name(&ids, 0x8086, name);
    sdc_inspect_class_name(&ids, 0x010802, name);
    sdc_inspect_ids_close(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    json_t *root = json_object(), *problems = json_array(), *nvme;
    uint8_t page[4096];
    enum kind kind = fuzz_u8(&input) % KINDS;

    sdc_tree_put_string(root, "socket", "a.sock");
    sdc_tree_put_string(root, "protocol", "vfio-user");
    if (kind == CONFIG_SPACE)
        config_space(root, &input, problems);
    else if (kind == VIRTIO_CONFIG)
        virtio_config(root, &input);
    else if (kind == NAMES)
        names(&input);
    nvme = sdc_tree_object(root, "nvme");
    if (kind == REGISTERS)
        sdc_inspect_nvme_registers_put(nvme, input.at, input.left);
    fuzz_bytes(&input, page, sizeof page);
    if (kind == CONTROLLER)
        sdc_inspect_nvme_controller_put(nvme, page);
    else if (kind == NAMESPACE)
        sdc_inspect_nvme_namespace_put(nvme, page);
    else if (kind == DESCRIPTORS)
        sdc_inspect_nvme_descriptors_put(nvme, page);
    json_object_set(root, "problems", problems);
    check_text(root);
    json_decref(problems);
    json_decref(root);
    return 0;
}
