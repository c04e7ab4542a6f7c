// SPDX-License-Identifier: BSD-3-Clause
#include "transport/common/registers.h"

uint64_t sdc_registers_read(const struct sdc_register *table, size_t count, void *context, uint64_t offset, uint32_t size)
{
    uint64_t value = 0;

    for (size_t i = 0; i < count; i++) {
        const struct sdc_register *reg = &table[i];
        if (reg->offset + reg->size <= offset || reg->offset >= offset + size || !reg->read)
            continue;
        uint64_t mask = (UINT64_C(1) << (8 * reg->size)) - 1;
        uint64_t bits = reg->read(context) & mask;
        if (reg->offset >= offset)
            value |= bits << (8 * (reg->offset - offset));
        else
            value |= bits >> (8 * (offset - reg->offset));
    }
    return size == 8 ? value : value & ((UINT64_C(1) << (8 * size)) - 1);
}

void sdc_registers_write(const struct sdc_register *table, size_t count, void *context, uint64_t offset, uint32_t size,
                         uint64_t value)
{
    for (size_t i = 0; i < count; i++) {
        const struct sdc_register *reg = &table[i];
        if (reg->offset < offset || reg->offset + reg->size > offset + size || !reg->write)
            continue;
        uint64_t mask = (UINT64_C(1) << (8 * reg->size)) - 1;
        reg->write(context, (uint32_t)((value >> (8 * (reg->offset - offset))) & mask));
    }
}
