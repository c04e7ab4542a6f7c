// SPDX-License-Identifier: BSD-3-Clause
// PCI configuration space: the header, BARs and their sizes, capabilities, MSI-X.
#include "cli/check/vfio.h"

#include "base/bytes.h"
#include "base/check.h"

#include <inttypes.h>
#include <string.h>

#define PCI(section) "PCI 3.0, " section

enum {
    VENDOR = 0x00,
    DEVICE = 0x02,
    COMMAND = 0x04,
    STATUS = 0x06,
    REVISION = 0x08,
    HEADER_TYPE = 0x0e,
    BAR0 = 0x10,
    BARS = 6,
    SUBSYSTEM = 0x2c,
    CAPABILITIES = 0x34,
    INTERRUPT_LINE = 0x3c,
    INTERRUPT_PIN = 0x3d,
    STATUS_CAPABILITIES = 1 << 4,
    COMMAND_MEMORY = 1 << 1,
    COMMAND_MASTER = 1 << 2,
    COMMAND_RESERVED = 0xf800,
    BAR_IO = 1 << 0,
    BAR_TYPE = 6,
    BAR_64 = 4,
    CONFIG_SIZE = 256,
    EXTENDED = 0x100,
    CAP_MSIX = 0x11,
    CAP_VENDOR = 0x09,
    MSIX_ENABLE = 1 << 15,
    MSIX_MASK_ALL = 1 << 14,
    MSIX_ENTRY = 16, // bytes of a vector in the table
    WALK_MAX = 48,   // capabilities that fit behind the header
};

static uint32_t get(struct sdc_check_vfio *vfio, uint32_t offset, uint32_t size)
{
    return (uint32_t)sdc_check_vfio_read(vfio, SDC_CHECK_REGION_CONFIG, offset, size);
}

static void put(struct sdc_check_vfio *vfio, uint32_t offset, uint32_t value, uint32_t size)
{
    sdc_check_vfio_write(vfio, SDC_CHECK_REGION_CONFIG, offset, value, size);
}

// A write to a register that may refuse it, or not.
static void try_put(struct sdc_check_vfio *vfio, uint32_t offset, uint32_t value, uint32_t size)
{
    struct sdc_check_reply reply;
    uint8_t raw[4];
    sdc_put32(raw, value);
    sdc_check_vfio_try_write(vfio, SDC_CHECK_REGION_CONFIG, offset, raw, size, &reply);
}

static void header(struct sdc_check *check)
{
    struct sdc_check_vfio vfio;
    sdc_check_vfio_open(&vfio, check);
    sdc_check_that(check, get(&vfio, VENDOR, 2) != 0xffff && get(&vfio, VENDOR, 2) != 0, "0 and 0xffff are nobody's vendor ID");
    sdc_check_that(check, (get(&vfio, HEADER_TYPE, 1) & 0x7f) == 0, "a function that is no bridge has the header layout 0");
    sdc_check_that(check, get(&vfio, INTERRUPT_PIN, 1) <= 4, "the Interrupt Pin is none, or one of A to D");
    struct sdc_vfu_irq_info intx = sdc_check_vfio_irq(&vfio, SDC_CHECK_IRQ_INTX);
    if (intx.count > 0 && get(&vfio, INTERRUPT_PIN, 1) == 0)
        sdc_check_note(check, "there is an INTx interrupt, and the Interrupt Pin says that there is none");
}

static void read_only(struct sdc_check *check)
{
    static const struct {
        uint32_t offset, size;
        const char *name;
    } fields[] = {{VENDOR, 2, "Vendor ID"}, {DEVICE, 2, "Device ID"}, {REVISION, 4, "Revision ID and Class Code"},
                  {HEADER_TYPE, 1, "Header Type"}, {SUBSYSTEM, 4, "the Subsystem IDs"}, {CAPABILITIES, 1, "Capabilities Pointer"},
                  {INTERRUPT_PIN, 1, "Interrupt Pin"}};
    struct sdc_check_vfio vfio;
    sdc_check_vfio_open(&vfio, check);
    for (size_t i = 0; i < SDC_COUNT(fields); i++) {
        uint32_t before = get(&vfio, fields[i].offset, fields[i].size);
        try_put(&vfio, fields[i].offset, ~before, fields[i].size);
        uint32_t after = get(&vfio, fields[i].offset, fields[i].size);
        try_put(&vfio, fields[i].offset, before, fields[i].size); // a device that let itself be changed is put right
        sdc_check_that(check, after == before, "%s is read-only", fields[i].name);
    }
}

static void command_register(struct sdc_check *check)
{
    struct sdc_check_vfio vfio;
    sdc_check_vfio_open(&vfio, check);
    uint32_t before = get(&vfio, COMMAND, 2);
    try_put(&vfio, COMMAND, 0xffff, 2);
    uint32_t all = get(&vfio, COMMAND, 2);
    put(&vfio, COMMAND, 0, 2);
    uint32_t none = get(&vfio, COMMAND, 2);
    put(&vfio, COMMAND, before, 2);
    sdc_check_that(check, none == 0, "the Command register's bits can be cleared (0x%04" PRIx32 " was left)", none);
    if (all & COMMAND_RESERVED)
        sdc_check_note(check, "reserved bits of the Command register can be set (0x%04" PRIx32 ")", all);
    if (!(all & COMMAND_MASTER))
        sdc_check_note(check, "Bus Master cannot be set");
    sdc_check_that(check, get(&vfio, COMMAND, 2) == (before & all), "the Command register keeps what is written to it");
}

static void status_register(struct sdc_check *check)
{
    struct sdc_check_vfio vfio;
    sdc_check_vfio_open(&vfio, check);
    uint32_t before = get(&vfio, STATUS, 2);
    put(&vfio, STATUS, 0xffff, 2); // clears the bits that are cleared by writing 1, and no others
    uint32_t after = get(&vfio, STATUS, 2);
    sdc_check_that(check, (after & 0x00ff) == (before & 0x00ff), "what the function is capable of is read-only in the Status register");
    sdc_check_that(check, (after & 0xf900) == 0, "bits of the Status register are cleared by writing 1, and none can be set");
}

static void interrupt_line(struct sdc_check *check)
{
    struct sdc_check_vfio vfio;
    sdc_check_vfio_open(&vfio, check);
    uint32_t before = get(&vfio, INTERRUPT_LINE, 1);
    put(&vfio, INTERRUPT_LINE, 0x5a, 1);
    uint32_t after = get(&vfio, INTERRUPT_LINE, 1);
    put(&vfio, INTERRUPT_LINE, before, 1);
    if (get(&vfio, INTERRUPT_PIN, 1) == 0 && after != 0x5a)
        sdc_check_not_offered(check, "the function has no interrupt pin");
    sdc_check_that(check, after == 0x5a, "the Interrupt Line is read/write");
}

// --- BARs ---

// What a guest finds out by writing ones, with the BAR put back. 0: there is none.
static uint64_t bar_size(struct sdc_check_vfio *vfio, unsigned bar, uint32_t *flags)
{
    uint32_t at = BAR0 + 4 * bar, low = get(vfio, at, 4), high = 0;
    *flags = low & (low & BAR_IO ? 3 : 15);
    bool wide = !(low & BAR_IO) && (low & BAR_TYPE) == BAR_64 && bar + 1 < BARS;
    if (wide)
        high = get(vfio, at + 4, 4);
    put(vfio, at, UINT32_MAX, 4);
    if (wide)
        put(vfio, at + 4, UINT32_MAX, 4);
    uint64_t mask = get(vfio, at, 4) & ~(uint64_t)(low & BAR_IO ? 3 : 15);
    mask |= (uint64_t)(wide ? get(vfio, at + 4, 4) : mask != 0 ? UINT32_MAX : 0) << 32;
    put(vfio, at, low, 4);
    if (wide)
        put(vfio, at + 4, high, 4);
    sdc_check_that(vfio->check, get(vfio, at, 4) == low && (!wide || get(vfio, at + 4, 4) == high),
                   "a BAR keeps the address that is written to it (BAR %u)", bar);
    return mask == 0 ? 0 : ~mask + 1;
}

static void bars(struct sdc_check *check)
{
    struct sdc_check_vfio vfio;
    bool any = false;
    sdc_check_vfio_open(&vfio, check);
    for (unsigned bar = 0; bar < BARS; bar++) {
        uint32_t flags;
        uint64_t size = bar_size(&vfio, bar, &flags), region = sdc_check_vfio_region(&vfio, bar).size;
        bool wide = !(flags & BAR_IO) && (flags & BAR_TYPE) == BAR_64;
        any = any || region > 0 || size > 0;
        if (size == 0 && region > 0) {
            sdc_check_note(check, "region %u has %" PRIu64 " bytes, and writing ones to its BAR shows no size", bar, region);
            continue;
        }
        sdc_check_that(check, size == 0 || sdc_is_power_of_two(size), "a BAR's size is a power of two (BAR %u: 0x%" PRIx64 ")", bar, size);
        sdc_check_that(check, size >= region,
                       "the region is what lies behind its BAR: BAR %u has 0x%" PRIx64 " bytes, the region 0x%" PRIx64,
                       bar, size, region);
        sdc_check_that(check, size == 0 || (flags & BAR_IO) || size >= 16, "a memory BAR has at least 16 bytes");
        sdc_check_that(check, !wide || bar + 1 < BARS, "a 64-bit BAR needs the one behind it");
        bar += wide;
    }
    if (!any)
        sdc_check_not_offered(check, "the function has no BARs");
}

// --- capabilities ---

static void capabilities(struct sdc_check *check)
{
    struct sdc_check_vfio vfio;
    uint8_t seen[CONFIG_SIZE] = {0};
    sdc_check_vfio_open(&vfio, check);
    if (!(get(&vfio, STATUS, 2) & STATUS_CAPABILITIES))
        sdc_check_not_offered(check, "the function has no list of capabilities");
    uint32_t at = get(&vfio, CAPABILITIES, 1);
    while (at != 0) {
        sdc_check_that(check, at >= 0x40, "capabilities lie behind the header, from 0x40 on (one is at 0x%02" PRIx32 ")", at);
        sdc_check_that(check, at % 4 == 0, "a capability is aligned to 4 bytes (one is at 0x%02" PRIx32 ")", at);
        sdc_check_that(check, !seen[at], "the list of capabilities has an end; it comes back to 0x%02" PRIx32, at);
        seen[at] = 1;
        uint32_t id = get(&vfio, at, 1), next = get(&vfio, at + 1, 1);
        sdc_check_that(check, id != 0xff, "there is no capability 0xff (at 0x%02" PRIx32 ")", at);
        try_put(&vfio, at, ~(id | next << 8), 2);
        sdc_check_that(check, get(&vfio, at, 1) == id && get(&vfio, at + 1, 1) == next,
                       "a capability's ID and next pointer are read-only (at 0x%02" PRIx32 ")", at);
        at = next;
    }
}

static void extended(struct sdc_check *check)
{
    struct sdc_check_vfio vfio;
    sdc_check_vfio_open(&vfio, check);
    uint64_t size = sdc_check_vfio_region(&vfio, SDC_CHECK_REGION_CONFIG).size;
    if (size <= EXTENDED)
        sdc_check_not_offered(check, "the configuration space has 256 bytes");
    uint32_t at = EXTENDED, steps = 0;
    if (get(&vfio, at, 4) == 0)
        sdc_check_not_offered(check, "there are no extended capabilities");
    while (at != 0) {
        uint32_t head = get(&vfio, at, 4);
        sdc_check_that(check, head != UINT32_MAX, "a list without entries begins with 0");
        sdc_check_that(check, steps++ < (size - EXTENDED) / 4, "the list of extended capabilities has an end");
        at = head >> 20;
        sdc_check_that(check, at == 0 || (at >= EXTENDED && at % 4 == 0 && at < size),
                       "extended capabilities lie in extended configuration space, aligned to 4 bytes (0x%03" PRIx32 ")", at);
    }
}

// --- MSI-X ---

static uint32_t find(struct sdc_check_vfio *vfio, uint32_t id)
{
    uint32_t at = get(vfio, STATUS, 2) & STATUS_CAPABILITIES ? get(vfio, CAPABILITIES, 1) : 0;
    for (unsigned i = 0; i < WALK_MAX && at >= 0x40; i++) {
        if (get(vfio, at, 1) == id)
            return at;
        at = get(vfio, at + 1, 1);
    }
    return 0;
}

static uint32_t open_msix(struct sdc_check_vfio *vfio, struct sdc_check *check)
{
    sdc_check_vfio_open(vfio, check);
    uint32_t at = find(vfio, CAP_MSIX);
    if (at == 0)
        sdc_check_not_offered(check, "the function has no MSI-X");
    return at;
}

// Where the table or the PBA is, and that its BAR has so many bytes there.
static uint64_t placed(struct sdc_check_vfio *vfio, uint32_t at, uint64_t size, const char *what, uint32_t *bar)
{
    uint32_t place = get(vfio, at, 4);
    *bar = place & 7;
    uint64_t offset = place & ~UINT32_C(7);
    sdc_check_that(vfio->check, *bar < BARS, "%s lies in one of six BARs", what);
    sdc_check_that(vfio->check, sdc_within(offset, size, sdc_check_vfio_region(vfio, *bar).size),
                   "%s, 0x%" PRIx64 " bytes at 0x%" PRIx64 ", lies in its BAR %" PRIu32, what, size, offset, *bar);
    return offset;
}

static void msix_places(struct sdc_check *check)
{
    struct sdc_check_vfio vfio;
    uint32_t at = open_msix(&vfio, check), table_bar, pba_bar;
    uint32_t count = (get(&vfio, at + 2, 2) & 0x7ff) + 1;
    uint64_t table_size = (uint64_t)count * MSIX_ENTRY, pba_size = (count + 63) / 64 * 8;
    uint64_t table = placed(&vfio, at + 4, table_size, "the MSI-X table", &table_bar);
    uint64_t pba = placed(&vfio, at + 8, pba_size, "the Pending Bit Array", &pba_bar);
    sdc_check_that(check, table_bar != pba_bar || table + table_size <= pba || pba + pba_size <= table,
                   "the MSI-X table and the Pending Bit Array do not overlap");
    struct sdc_vfu_irq_info irq = sdc_check_vfio_irq(&vfio, SDC_CHECK_IRQ_MSIX);
    if (irq.count != count)
        sdc_check_note(check, "MSI-X has %" PRIu32 " vectors in its capability, and %" PRIu32 " in DEVICE_GET_IRQ_INFO", count, irq.count);
}

static void msix_control(struct sdc_check *check)
{
    struct sdc_check_vfio vfio;
    uint32_t at = open_msix(&vfio, check) + 2;
    uint32_t before = get(&vfio, at, 2);
    static const uint32_t values[] = {MSIX_ENABLE, MSIX_ENABLE | MSIX_MASK_ALL, MSIX_MASK_ALL, 0};
    for (size_t i = 0; i < SDC_COUNT(values); i++) {
        put(&vfio, at, values[i] | 0x5a5, 2);
        uint32_t now = get(&vfio, at, 2);
        sdc_check_that(check, (now & (MSIX_ENABLE | MSIX_MASK_ALL)) == values[i], "MSI-X Enable and Function Mask are read/write");
        sdc_check_that(check, (now & 0x7ff) == (before & 0x7ff), "the table size is read-only");
    }
    uint32_t table = get(&vfio, at + 2, 4), pba = get(&vfio, at + 6, 4);
    try_put(&vfio, at + 2, ~table, 4);
    try_put(&vfio, at + 6, ~pba, 4);
    sdc_check_that(check, get(&vfio, at + 2, 4) == table && get(&vfio, at + 6, 4) == pba,
                   "where the table and the Pending Bit Array are is read-only");
}

// A capability lies where mapped accesses would not reach the device: then nobody would see what is written to it.
static void msix_not_mapped(struct sdc_check *check)
{
    struct sdc_check_vfio vfio;
    uint32_t at = open_msix(&vfio, check), bar;
    uint32_t count = (get(&vfio, at + 2, 2) & 0x7ff) + 1;
    uint64_t table = placed(&vfio, at + 4, (uint64_t)count * MSIX_ENTRY, "the MSI-X table", &bar);
    for (uint32_t i = 0; i < 2 && i < count; i++) {
        uint64_t entry = table + (uint64_t)i * MSIX_ENTRY;
        sdc_check_vfio_write(&vfio, bar, entry + 8, 0x12345678, 4);
        if (sdc_check_vfio_read(&vfio, bar, entry + 8, 4) != 0x12345678)
            sdc_check_note(check, "the MSI-X table keeps nothing; a client has to keep it");
        sdc_check_vfio_write(&vfio, bar, entry + 8, 0, 4);
    }
}

static const struct sdc_check_test tests[] = {
    {"pci/header", PCI("6.2.1"), SDC_CHECK_PCI, header},
    {"pci/read-only", PCI("6.2.1"), SDC_CHECK_PCI, read_only},
    {"pci/command", PCI("6.2.2"), SDC_CHECK_PCI, command_register},
    {"pci/status", PCI("6.2.3"), SDC_CHECK_PCI, status_register},
    {"pci/interrupt-line", PCI("6.2.4"), SDC_CHECK_PCI, interrupt_line},
    {"pci/bars", PCI("6.2.5.1"), SDC_CHECK_PCI, bars},
    {"pci/capabilities", PCI("6.7"), SDC_CHECK_PCI, capabilities},
    {"pci/extended-capabilities", "PCI Express, Extended Capabilities", SDC_CHECK_PCI, extended},
    {"pci/msix-places", PCI("6.8.2"), SDC_CHECK_PCI, msix_places},
    {"pci/msix-control", PCI("6.8.2.3"), SDC_CHECK_PCI, msix_control},
    {"pci/msix-table", PCI("6.8.2.9"), SDC_CHECK_PCI, msix_not_mapped},
};

const struct sdc_check_table sdc_check_vfio_pci = {tests, SDC_COUNT(tests)};
