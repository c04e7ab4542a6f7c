// SPDX-License-Identifier: BSD-3-Clause
// A register file as a table. Accesses of any size and place are taken apart by register, so that a handler only ever sees
// its own register, whole.
#pragma once

#include <stddef.h>
#include <stdint.h>

struct sdc_register {
    uint16_t offset;
    uint16_t size;                                 // bytes, 1 to 4
    uint32_t (*read)(void *context);               // NULL: reads as zero
    void (*write)(void *context, uint32_t value); // NULL: writes are ignored
};

// Reads size (1, 2, 4 or 8) bytes at offset. What lies between registers reads as zero.
uint64_t sdc_registers_read(const struct sdc_register *table, size_t count, void *context, uint64_t offset, uint32_t size);
// Writes. A register that the access covers only in part is left alone.
void sdc_registers_write(const struct sdc_register *table, size_t count, void *context, uint64_t offset, uint32_t size,
                         uint64_t value);
