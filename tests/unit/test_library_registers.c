// SPDX-License-Identifier: BSD-3-Clause
// Registers that the library keeps for a device: accesses of every size at every place, what the driver may change of them, and resets;
// held against a model that goes byte by byte.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sidecard/pci.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST = 0x40, BAR = 0x1000 };

// As the driver sees them from FIRST on.
struct values {
    uint32_t control;
    uint32_t status;
    uint64_t address;
    uint16_t half;
    uint8_t byte;
    uint8_t unused;
    uint32_t clock;
};

struct card {
    struct sdc_pci_device pci; // first
    struct values values;
    unsigned writes, accesses, resets, clock_reads;
    uint64_t written;
};

static struct card *card_of(struct sdc_pci_device *device)
{
    return (struct card *)(void *)device;
}

static void control_written(struct sdc_pci_device *device, uint64_t value)
{
    card_of(device)->writes++;
    card_of(device)->written = value;
}

static uint64_t read_clock(struct sdc_pci_device *device)
{
    return 0x01020300U + card_of(device)->clock_reads++;
}

static int access_rest(struct sdc_pci_device *device, struct sdc_pci_access *access)
{
    card_of(device)->accesses++;
    access->value = 0xee;
    return 0;
}

static void reset(struct sdc_pci_device *device)
{
    card_of(device)->resets++;
    assert_int_equal(card_of(device)->values.control, 0x11);
}

static const struct sdc_pci_register registers[] = {
    {.offset = FIRST, .size = 4, .reset = 0x11, .writable = 0x0000ffff, .written = control_written},
    {.offset = FIRST + 4, .size = 4, .reset = 0xff, .clears = 0x0f},
    {.offset = FIRST + 8, .size = 8, .writable = UINT64_MAX},
    {.offset = FIRST + 16, .size = 2, .writable = 0xffff},
    {.offset = FIRST + 18, .size = 1, .writable = 0xf0, .reset = 0x0a},
    {.offset = FIRST + 20, .size = 4, .read = read_clock},
};
enum { COUNT = sizeof registers / sizeof *registers };

static const struct sdc_pci_ops ops = {.name = "registers", .access = access_rest, .reset = reset};
static const struct sdc_pci_identity identity = {.vendor = 1, .device = 2};

static struct card *new_card(void)
{
    struct card *card = calloc(1, sizeof *card);
    struct sdc_error err = {0};

    assert_non_null(card);
    card->pci.bars[0].size = BAR;
    assert_int_equal(sdc_pci_init(&card->pci, &ops, &identity, &err), 0);
    if (sdc_pci_add_registers(&card->pci, 0, registers, COUNT, &card->values, &err) < 0)
        fail_msg("%s", err.text);
    return card;
}

static void free_card(struct card *card)
{
    sdc_pci_fini(&card->pci);
    sdc_pci_fini(&card->pci); // does nothing
    free(card);
}

static uint64_t get(struct card *card, uint64_t offset, uint32_t size)
{
    struct sdc_pci_access access = {.region = SDC_PCI_BAR0, .offset = offset, .size = size, .value = 0x5555555555555555};

    assert_int_equal(card->pci.ops->access(&card->pci, &access), 0);
    return access.value;
}

static void put(struct card *card, uint64_t offset, uint32_t size, uint64_t value)
{
    struct sdc_pci_access access = {.region = SDC_PCI_BAR0, .offset = offset, .size = size, .write = true, .value = value};

    assert_int_equal(card->pci.ops->access(&card->pci, &access), 0);
}

// --- tests ---

static void bits_are_what_the_table_says(void **state)
{
    struct card *card = new_card();

    (void)state;
    assert_int_equal(get(card, FIRST, 4), 0x11);
    put(card, FIRST, 4, 0xabcd1234);
    assert_int_equal(card->values.control, 0x1234);
    assert_int_equal(card->written, 0xabcd1234);
    put(card, FIRST + 4, 4, 0xf3);
    assert_int_equal(get(card, FIRST + 4, 4), 0xfc);
    put(card, FIRST + 18, 1, 0xff);
    assert_int_equal(card->values.byte, 0xf0 | (0x0a & 0x0f));
    card->values.status = 0x77;
    assert_int_equal(get(card, FIRST + 4, 4), 0x77);
    assert_int_equal(card->accesses, 0);
    free_card(card);
}

static void parts_and_several_are_accessed(void **state)
{
    struct card *card = new_card();

    (void)state;
    put(card, FIRST + 8, 4, 0x11223344);
    put(card, FIRST + 12, 4, 0x55667788);
    assert_true(card->values.address == UINT64_C(0x5566778811223344));
    put(card, FIRST + 14, 1, 0x99);
    assert_true(get(card, FIRST + 8, 8) == UINT64_C(0x5599778811223344));
    assert_int_equal(get(card, FIRST + 13, 1), 0x77);
    put(card, FIRST + 1, 1, 0xee);
    assert_int_equal(card->values.control, 0xee11);
    assert_int_equal(card->written, 0xee11);
    put(card, FIRST, 8, UINT64_C(0x0000000200004321));
    assert_int_equal(card->values.control, 0x4321);
    assert_int_equal(card->values.status, 0xfd);
    assert_true(get(card, FIRST, 8) == UINT64_C(0x000000fd00004321));
    put(card, FIRST + 16, 4, 0xffffffff);
    assert_int_equal(get(card, FIRST + 16, 4), 0x00faffff); // what lies between registers reads as zero
    assert_int_equal(card->accesses, 0);
    free_card(card);
}

static void what_is_computed_is_asked_for(void **state)
{
    struct card *card = new_card();

    (void)state;
    assert_int_equal(get(card, FIRST + 20, 4), 0x01020300);
    assert_int_equal(get(card, FIRST + 20, 1), 0x01);
    assert_int_equal(get(card, FIRST + 22, 2), 0x0102);
    assert_int_equal(card->clock_reads, 3);
    free_card(card);
}

static void the_rest_is_the_devices(void **state)
{
    struct card *card = new_card();

    (void)state;
    assert_int_equal(get(card, FIRST - 4, 4), 0xee);
    assert_int_equal(get(card, FIRST + 24, 8), 0xee);
    assert_int_equal(get(card, FIRST + 19, 1), 0xee);
    put(card, 0, 8, 1);
    assert_int_equal(card->accesses, 4);
    free_card(card);
}

static void a_reset_brings_back_what_the_table_says(void **state)
{
    struct card *card = new_card();

    (void)state;
    put(card, FIRST, 8, UINT64_MAX);
    put(card, FIRST + 8, 8, UINT64_MAX);
    card->pci.ops->reset(&card->pci);
    assert_int_equal(card->resets, 1);
    assert_true(get(card, FIRST, 8) == UINT64_C(0x000000ff00000011));
    assert_true(get(card, FIRST + 8, 8) == 0);
    assert_int_equal(card->values.byte, 0x0a);
    free_card(card);
}

// --- a model: bytes with masks ---

static struct {
    uint8_t now[24], writable[24], clears[24];
} model;

static void model_add(const struct sdc_pci_register *reg)
{
    for (uint32_t i = 0; i < reg->size; i++) {
        uint64_t at = reg->offset - FIRST + i;
        model.now[at] = (uint8_t)(reg->reset >> 8 * i);
        model.writable[at] = (uint8_t)(reg->writable >> 8 * i);
        model.clears[at] = (uint8_t)(reg->clears >> 8 * i);
    }
}

static void every_access_does_what_a_model_does(void **state)
{
    struct card *card = new_card();
    uint32_t seed = 1;

    (void)state;
    memset(&model, 0, sizeof model);
    for (unsigned i = 0; i < COUNT - 1; i++) // but for the clock
        model_add(&registers[i]);
    for (unsigned round = 0; round < 20000; round++) {
        seed = seed * 1103515245 + 12345;
        const uint32_t size = 1U << (seed >> 16 & 3);
        const uint64_t at = (seed >> 20) % (24 / size) * size;
        uint64_t value = (uint64_t)seed << 32 | ~seed, wanted = 0;
        if (at + size > 20)
            continue;
        for (uint32_t i = 0; i < size; i++)
            wanted |= (uint64_t)model.now[at + i] << 8 * i;
        if (size > 1 || at != 19)
            assert_true(get(card, FIRST + at, size) == wanted);
        put(card, FIRST + at, size, value);
        for (uint32_t i = 0; i < size; i++) {
            uint8_t bits = (uint8_t)(value >> 8 * i), *now = &model.now[at + i];
            *now = (uint8_t)((*now & ~model.writable[at + i]) | (bits & model.writable[at + i]));
            *now = (uint8_t)(*now & ~(bits & model.clears[at + i]));
        }
        if (round % 100 == 0)
            card->values.status = 0xffffffff, memset(&model.now[4], 0xff, 4);
    }
    free_card(card);
}

static void tables_that_cannot_be_are_refused(void **state)
{
    static const struct {
        struct sdc_pci_register registers[2];
        const char *text;
    } rows[] = {
        {{{.offset = 0, .size = 3}, {.offset = 8, .size = 4}}, "3 bytes"},
        {{{.offset = 0, .size = 16}, {.offset = 16, .size = 4}}, "16 bytes"},
        {{{.offset = 0, .size = 0}, {.offset = 8, .size = 4}}, "0 bytes"},
        {{{.offset = 2, .size = 4}, {.offset = 8, .size = 4}}, "aligned"},
        {{{.offset = 0, .size = 8}, {.offset = 4, .size = 4}}, "order"},
        {{{.offset = 8, .size = 4}, {.offset = 0, .size = 4}}, "order"},
        {{{.offset = 0, .size = 4}, {.offset = BAR, .size = 4}}, "outside"},
        {{{.offset = 0, .size = 4}, {.offset = UINT64_MAX - 7, .size = 8}}, "outside"},
        {{{.offset = 0, .size = 1, .writable = 0x100}, {.offset = 8, .size = 4}}, "bits"},
        {{{.offset = 0, .size = 4, .reset = UINT64_MAX}, {.offset = 8, .size = 4}}, "bits"},
        {{{.offset = 0, .size = 4, .writable = 3, .clears = 6}, {.offset = 8, .size = 4}}, "0x2"},
    };
    struct card *card = calloc(1, sizeof *card);
    struct sdc_error err;

    (void)state;
    assert_non_null(card);
    card->pci.bars[0].size = card->pci.bars[2].size = BAR;
    assert_int_equal(sdc_pci_add_registers(&card->pci, 0, registers, COUNT, &card->values, &err), -EINVAL);
    assert_non_null(strstr(err.text, "sdc_pci_init"));
    assert_int_equal(sdc_pci_init(&card->pci, &ops, &identity, &err), 0);
    assert_int_equal(sdc_pci_add_msix(&card->pci, 1, 1, &err), 0);
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_int_equal(sdc_pci_add_registers(&card->pci, 0, rows[i].registers, 2, &card->values, &err), -EINVAL);
        if (!strstr(err.text, rows[i].text))
            fail_msg("row %u: %s", i, err.text);
    }
    assert_int_equal(sdc_pci_add_registers(&card->pci, 0, registers, 0, &card->values, &err), -EINVAL);
    assert_int_equal(sdc_pci_add_registers(&card->pci, 0, NULL, 1, &card->values, &err), -EINVAL);
    assert_int_equal(sdc_pci_add_registers(&card->pci, 0, registers, COUNT, NULL, &err), -EINVAL);
    assert_int_equal(sdc_pci_add_registers(&card->pci, 1, registers, COUNT, &card->values, &err), -EINVAL); // the table of MSI-X
    assert_int_equal(sdc_pci_add_registers(&card->pci, 3, registers, COUNT, &card->values, &err), -EINVAL);
    assert_int_equal(sdc_pci_add_registers(&card->pci, 6, registers, COUNT, &card->values, &err), -EINVAL);
    assert_int_equal(sdc_pci_add_registers(&card->pci, 0, registers, COUNT, &card->values, &err), 0);
    assert_int_equal(sdc_pci_add_registers(&card->pci, 0, registers, COUNT, &card->values, &err), -EINVAL);
    assert_int_equal(sdc_pci_add_registers(&card->pci, 2, registers, COUNT, &card->values, &err), 0);
    free_card(card);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bits_are_what_the_table_says),
        cmocka_unit_test(parts_and_several_are_accessed),
        cmocka_unit_test(what_is_computed_is_asked_for),
        cmocka_unit_test(the_rest_is_the_devices),
        cmocka_unit_test(a_reset_brings_back_what_the_table_says),
        cmocka_unit_test(every_access_does_what_a_model_does),
        cmocka_unit_test(tables_that_cannot_be_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
