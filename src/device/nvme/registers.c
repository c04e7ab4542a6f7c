// SPDX-License-Identifier: BSD-3-Clause
// The controller's registers (base 3.1.3), as a table. What a write sets off is done at the end of the turn.
#include "base/check.h"
#include "device/nvme/controller.h"
#include "transport/common/registers.h"

enum {
    READY_500MS = 60, // CAP.TO and CRTO: a reset waits for I/O, which may take long
    CAP_READY_WITH_MEDIA = 59,
};

static struct nvme *registers_of(void *context)
{
    return context;
}

static uint64_t capabilities(const struct nvme *nvme)
{
    return (uint64_t)(nvme->options.depth - 1) << SDC_NVME_CAP_MQES | UINT64_C(1) << SDC_NVME_CAP_CQR |
           (uint64_t)READY_500MS << SDC_NVME_CAP_TO | UINT64_C(1) << SDC_NVME_CAP_NSSRS | UINT64_C(1) << SDC_NVME_CAP_CSS |
           UINT64_C(1) << CAP_READY_WITH_MEDIA;
}

static uint32_t read_cap_low(void *context)
{
    return (uint32_t)capabilities(context);
}

static uint32_t read_cap_high(void *context)
{
    return (uint32_t)(capabilities(context) >> 32);
}

static uint32_t read_version(void *context)
{
    (void)context;
    return SDC_NVME_VERSION_2_0;
}

// INTMS and INTMC both read as the mask (base 3.1.3.3). With MSI-X they mean nothing, and the host does not touch them.
static uint32_t read_mask(void *context)
{
    return registers_of(context)->intms;
}

static void write_mask_set(void *context, uint32_t value)
{
    registers_of(context)->intms |= value;
}

static void write_mask_clear(void *context, uint32_t value)
{
    struct nvme *nvme = context;

    nvme->intms &= ~value;
    if (nvme_intx_level(nvme))
        sdc_pci_interrupt(&nvme->pci, SDC_PCI_INTX, 0);
}

static uint32_t read_configuration(void *context)
{
    return registers_of(context)->cc;
}

static void write_configuration(void *context, uint32_t value)
{
    struct nvme *nvme = context;

    nvme->cc = value & NVME_CC_WRITABLE;
    nvme_step(nvme);
}

static uint32_t read_status(void *context)
{
    return registers_of(context)->csts;
}

// NSSRO is cleared by writing one; nothing else can be written (base 3.1.3.6).
static void write_status(void *context, uint32_t value)
{
    if (value & SDC_NVME_CSTS_NSSRO)
        registers_of(context)->csts &= ~(uint32_t)SDC_NVME_CSTS_NSSRO;
}

static void write_subsystem_reset(void *context, uint32_t value)
{
    struct nvme *nvme = context;

    if (value != SDC_NVME_NSSR_MAGIC)
        return;
    nvme->nssr = true;
    nvme_step(nvme);
}

static uint32_t read_aqa(void *context)
{
    return registers_of(context)->aqa;
}

static void write_aqa(void *context, uint32_t value)
{
    registers_of(context)->aqa = value & NVME_AQA_WRITABLE;
}

static void set_half(uint64_t *reg, unsigned shift, uint32_t value)
{
    *reg = (*reg & ~(UINT64_C(0xffffffff) << shift)) | (uint64_t)value << shift;
}

static uint32_t read_asq_low(void *context)
{
    return (uint32_t)registers_of(context)->asq;
}

static void write_asq_low(void *context, uint32_t value)
{
    set_half(&registers_of(context)->asq, 0, value & ~(uint32_t)(NVME_PAGE - 1));
}

static uint32_t read_asq_high(void *context)
{
    return (uint32_t)(registers_of(context)->asq >> 32);
}

static void write_asq_high(void *context, uint32_t value)
{
    set_half(&registers_of(context)->asq, 32, value);
}

static uint32_t read_acq_low(void *context)
{
    return (uint32_t)registers_of(context)->acq;
}

static void write_acq_low(void *context, uint32_t value)
{
    set_half(&registers_of(context)->acq, 0, value & ~(uint32_t)(NVME_PAGE - 1));
}

static uint32_t read_acq_high(void *context)
{
    return (uint32_t)(registers_of(context)->acq >> 32);
}

static void write_acq_high(void *context, uint32_t value)
{
    set_half(&registers_of(context)->acq, 32, value);
}

static uint32_t read_ready_timeouts(void *context)
{
    (void)context;
    return READY_500MS;
}

static const struct sdc_register table[] = {
    {SDC_NVME_CAP, 4, read_cap_low, NULL},
    {SDC_NVME_CAP + 4, 4, read_cap_high, NULL},
    {SDC_NVME_VS, 4, read_version, NULL},
    {SDC_NVME_INTMS, 4, read_mask, write_mask_set},
    {SDC_NVME_INTMC, 4, read_mask, write_mask_clear},
    {SDC_NVME_CC, 4, read_configuration, write_configuration},
    {SDC_NVME_CSTS, 4, read_status, write_status},
    {SDC_NVME_NSSR, 4, NULL, write_subsystem_reset},
    {SDC_NVME_AQA, 4, read_aqa, write_aqa},
    {SDC_NVME_ASQ, 4, read_asq_low, write_asq_low},
    {SDC_NVME_ASQ + 4, 4, read_asq_high, write_asq_high},
    {SDC_NVME_ACQ, 4, read_acq_low, write_acq_low},
    {SDC_NVME_ACQ + 4, 4, read_acq_high, write_acq_high},
    {SDC_NVME_CRTO, 4, read_ready_timeouts, NULL},
};

uint64_t nvme_register_read(struct nvme *nvme, uint64_t offset, uint32_t size)
{
    return sdc_registers_read(table, SDC_COUNT(table), nvme, offset, size);
}

void nvme_register_write(struct nvme *nvme, uint64_t offset, uint32_t size, uint64_t value)
{
    sdc_registers_write(table, SDC_COUNT(table), nvme, offset, size, value);
}
