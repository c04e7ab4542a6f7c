// SPDX-License-Identifier: BSD-3-Clause
// Registers of BARs that the library keeps for an author's device: what of them the driver may write, and what they are after a reset,
// stands in the author's table; their values are in the author's memory. Not to be taken for registers.c, whose registers are functions.
#include "base/check.h"
#include "transport/common/pci_core.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

static uint64_t ones(uint32_t size)
{
    return size == 8 ? UINT64_MAX : (UINT64_C(1) << 8 * size) - 1;
}

// What stands at one offset as it is seen from another, less than 8 bytes away.
static uint64_t moved(uint64_t value, uint64_t from, uint64_t to)
{
    return from >= to ? value << 8 * (from - to) : value >> 8 * (to - from);
}

static uint8_t *place_of(const struct sdc_pci_block *block, const struct sdc_pci_register *reg)
{
    return block->values + (reg->offset - block->registers[0].offset);
}

static uint64_t load(const struct sdc_pci_block *block, const struct sdc_pci_register *reg)
{
    const uint8_t *at = place_of(block, reg);
    uint64_t whole;
    uint32_t word;
    uint16_t half;

    switch (reg->size) {
    case 1:
        return *at;
    case 2:
        return memcpy(&half, at, sizeof half), half;
    case 4:
        return memcpy(&word, at, sizeof word), word;
    default:
        return memcpy(&whole, at, sizeof whole), whole;
    }
}

static void store(const struct sdc_pci_block *block, const struct sdc_pci_register *reg, uint64_t value)
{
    uint8_t *at = place_of(block, reg);
    const uint32_t word = (uint32_t)value;
    const uint16_t half = (uint16_t)value;

    switch (reg->size) {
    case 1:
        *at = (uint8_t)value;
        break;
    case 2:
        memcpy(at, &half, sizeof half);
        break;
    case 4:
        memcpy(at, &word, sizeof word);
        break;
    default:
        memcpy(at, &value, sizeof value);
        break;
    }
}

// --- in use ---

static uint64_t read_part(struct sdc_pci_core *core, const struct sdc_pci_block *block, const struct sdc_pci_register *reg,
                          const struct sdc_pci_access *access)
{
    uint64_t value = reg->read ? reg->read(core->device) : load(block, reg);

    return moved(value & ones(reg->size), reg->offset, access->offset) & ones(access->size);
}

static void write_part(struct sdc_pci_core *core, const struct sdc_pci_block *block, const struct sdc_pci_register *reg,
                       const struct sdc_pci_access *access)
{
    const uint64_t touched = moved(ones(access->size), access->offset, reg->offset) & ones(reg->size);
    const uint64_t bits = moved(access->value & ones(access->size), access->offset, reg->offset) & touched;
    uint64_t value = load(block, reg);

    value = (value & ~(touched & reg->writable)) | (bits & reg->writable);
    value &= ~(bits & reg->clears);
    store(block, reg, value);
    if (reg->written)
        reg->written(core->device, bits | (value & ~touched));
}

bool sdc_pci_registers_access(struct sdc_pci_core *core, struct sdc_pci_access *access)
{
    const struct sdc_pci_block *block = access->region < SDC_PCI_ROM ? &core->blocks[access->region] : NULL;
    uint64_t value = 0;
    bool any = false;

    for (uint32_t i = 0; block && i < block->count && block->registers[i].offset < access->offset + access->size; i++) {
        const struct sdc_pci_register *reg = &block->registers[i];
        if (reg->offset + reg->size <= access->offset)
            continue;
        any = true;
        if (access->write)
            write_part(core, block, reg, access);
        else
            value |= read_part(core, block, reg, access);
    }
    if (any && !access->write)
        access->value = value;
    return any;
}

static void reset_block(const struct sdc_pci_block *block)
{
    for (uint32_t i = 0; i < block->count; i++)
        store(block, &block->registers[i], block->registers[i].reset);
}

void sdc_pci_registers_reset(struct sdc_pci_core *core)
{
    for (unsigned bar = 0; bar < SDC_COUNT(core->blocks); bar++)
        reset_block(&core->blocks[bar]);
}

// --- making them ---

static int check_register(const struct sdc_pci_register *reg, uint64_t begin, uint64_t end, uint64_t bar_size, struct sdc_error *err)
{
    if (reg->size > 8 || !sdc_is_power_of_two(reg->size) || reg->offset % reg->size != 0)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "register at 0x%" PRIx64 ": it has %u bytes; it has to have 1, 2, 4 or 8, and "
                             "to be aligned to that", reg->offset, reg->size);
    if (reg->offset < end && end > begin)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "register at 0x%" PRIx64 ": it begins before the end of the one before it, at "
                             "0x%" PRIx64 "; the table is in the order of offsets", reg->offset, end);
    if (!sdc_within(reg->offset, reg->size, bar_size))
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "register at 0x%" PRIx64 ": it lies outside of the BAR, which has 0x%" PRIx64
                             " bytes", reg->offset, bar_size);
    if ((reg->reset | reg->writable | reg->clears) & ~ones(reg->size))
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "register at 0x%" PRIx64 ": reset, writable or clears has bits that a register "
                             "of %u bytes has not", reg->offset, reg->size);
    if (reg->writable & reg->clears)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "register at 0x%" PRIx64 ": bits 0x%" PRIx64 " are writable and cleared by "
                             "ones; each can be one of the two", reg->offset, reg->writable & reg->clears);
    return 0;
}

int sdc_pci_add_registers(struct sdc_pci_device *device, unsigned bar, const struct sdc_pci_register *registers, uint32_t count,
                          void *values, struct sdc_error *err)
{
    int rc = sdc_pci_check_new(device, "registers", err);
    uint64_t end = 0;

    if (rc < 0)
        return rc;
    struct sdc_pci_core *core = device->core;
    if (!registers || count == 0 || !values)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "registers in BAR %u: the table has none, or there is no place for their values",
                             bar);
    if (bar >= SDC_PCI_ROM || device->bars[bar].size == 0 || core->blocks[bar].count > 0 ||
        (core->msix_vectors > 0 && core->msix_bar == bar))
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "registers in BAR %u: the device has no such BAR, or it has registers already, "
                             "or MSI-X", bar);
    for (uint32_t i = 0; i < count && rc == 0; i++) {
        rc = check_register(&registers[i], registers[0].offset, end, device->bars[bar].size, err);
        end = registers[i].offset + registers[i].size;
    }
    if (rc < 0)
        return rc;
    core->blocks[bar] = (struct sdc_pci_block){.registers = registers, .count = count, .values = values};
    reset_block(&core->blocks[bar]);
    return 0;
}

int sdc_pci_registers_check(const struct sdc_pci_core *core, struct sdc_error *err)
{
    for (unsigned bar = 0; bar < SDC_COUNT(core->blocks); bar++) {
        for (uint32_t i = 0; i < core->blocks[bar].count; i++) {
            const struct sdc_pci_register *reg = &core->blocks[bar].registers[i];
            if (sdc_pci_memory_has(core->device, bar, reg->offset, 1))
                return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "register at 0x%" PRIx64 " of BAR %u: it lies in memory that clients "
                                     "may map, where nobody hears of a write", reg->offset, bar);
        }
    }
    return 0;
}
