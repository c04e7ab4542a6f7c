// SPDX-License-Identifier: BSD-3-Clause
#include "wire/state.h"

#include "base/bytes.h"
#include "base/check.h"

#include <errno.h>
#include <inttypes.h>

#define MAGIC UINT64_C(0x0a45544154534453) // "SDSTATE\n"

enum {
    // The header.
    HEAD_MAGIC = 0,
    HEAD_VERSION = 8,
    HEAD_SECTIONS = 12,
    HEAD_SIZE = 16,
    HEAD_CHECKSUM = 24, // of all before HEADER but itself and what stands between it and the directory
    HEAD_GENERATION = 32,
    HEAD_REGIONS = 40, // entries of their table from here on were never used
    HEAD_DIRECTORY = 64,
    // An entry of the directory.
    DIR_TYPE = 0,
    DIR_VERSION = 4,
    DIR_OFFSET = 8,
    DIR_LENGTH = 16,
    DIR_BYTES = 24,
    HEADER = 4096,
    ALIGN = 4096,
    // A copy of a pair.
    COPY_GENERATION = 0,
    COPY_CHECKSUM = 8,
    COPY_DATA = 16,
    // An entry of the regions' table.
    REGION_IOVA = 0,
    REGION_SIZE = 8,
    REGION_OFFSET = 16,
    REGION_SLOT = 24,
    REGION_ACCESS = 28,
    REGION_BORN = 32,
    REGION_DIED = 40,
    REGION_BYTES = 48,
};

enum kind { FIXED, PAIR, TABLE, LIVE };

// The sections' versions: one that changes its form counts up.
static const struct {
    const char *name;
    enum kind kind;
    uint32_t version;
} sections[SDC_STATE_SECTIONS] = {
    [SDC_STATE_IDENTITY] = {"identity", FIXED, 1},     [SDC_STATE_SESSION] = {"session", PAIR, 1},
    [SDC_STATE_REGISTERS] = {"registers", PAIR, 1},    [SDC_STATE_INTERRUPTS] = {"interrupts", PAIR, 1},
    [SDC_STATE_REGIONS] = {"regions", TABLE, 1},       [SDC_STATE_RECEIVED] = {"received", LIVE, 1},
    [SDC_STATE_OWED] = {"owed", LIVE, 1},              [SDC_STATE_QUEUES] = {"queues", LIVE, 1},
};

// --- stores in the program's order: a kill leaves those before it and none behind it ---

static void store64(uint8_t *to, uint64_t value)
{
    __atomic_store_n((uint64_t *)(void *)to, htole64(value), __ATOMIC_RELEASE);
}

static uint64_t load64(const uint8_t *from)
{
    return le64toh(__atomic_load_n((const uint64_t *)(const void *)from, __ATOMIC_ACQUIRE));
}

// FNV-1a by words. It finds what went wrong by chance; who wants to deceive us writes a good one.
static uint64_t checksum(uint64_t sum, const uint8_t *bytes, uint64_t size)
{
    uint8_t last[8] = {0};

    for (; size >= 8; bytes += 8, size -= 8)
        sum = (sum ^ sdc_get64(bytes)) * UINT64_C(1099511628211);
    memcpy(last, bytes, (size_t)size);
    return (sum ^ sdc_get64(last)) * UINT64_C(1099511628211);
}

static uint64_t header_checksum(const uint8_t *bytes)
{
    uint64_t sum = checksum(UINT64_C(14695981039346656037), bytes, HEAD_CHECKSUM);

    return checksum(sum, bytes + HEAD_DIRECTORY, HEADER - HEAD_DIRECTORY);
}

static uint64_t copy_checksum(const uint8_t *copy, uint64_t length)
{
    return checksum(load64(copy + COPY_GENERATION), copy + COPY_DATA, length);
}

// --- the layout ---

static uint64_t round_up(uint64_t value, uint64_t to)
{
    return (value + to - 1) / to * to;
}

static uint64_t data_length(const struct sdc_state_shape *shape, enum sdc_state_section section)
{
    switch (section) {
    case SDC_STATE_SESSION:
        return shape->session;
    case SDC_STATE_REGISTERS:
        return shape->registers;
    case SDC_STATE_INTERRUPTS:
        return shape->interrupts;
    case SDC_STATE_REGIONS:
        return shape->regions;
    case SDC_STATE_RECEIVED:
        return shape->received;
    case SDC_STATE_OWED:
        return shape->owed;
    case SDC_STATE_QUEUES:
        return shape->queues;
    default:
        return SDC_STATE_IDENTITY_BYTES;
    }
}

// Bytes of one copy of a pair.
static uint64_t copy_size(uint64_t length)
{
    return COPY_DATA + round_up(length, 8);
}

static uint64_t section_length(const struct sdc_state_shape *shape, enum sdc_state_section section)
{
    uint64_t length = data_length(shape, section);

    switch (sections[section].kind) {
    case PAIR:
        return 2 * copy_size(length);
    case TABLE:
        return length * REGION_BYTES;
    default:
        return length;
    }
}

// Where everything is; returns the record's size.
static uint64_t lay_out(struct sdc_state *state, const struct sdc_state_shape *shape)
{
    uint64_t at = HEADER;

    for (unsigned i = 0; i < SDC_STATE_SECTIONS; i++) {
        state->offsets[i] = at;
        state->lengths[i] = sections[i].kind == PAIR || sections[i].kind == TABLE ? data_length(shape, i) : section_length(shape, i);
        at = round_up(at + section_length(shape, i), ALIGN);
    }
    return at;
}

uint64_t sdc_state_size(const struct sdc_state_shape *shape)
{
    struct sdc_state state;

    return lay_out(&state, shape);
}

static uint8_t *directory_entry(const struct sdc_state *state, unsigned section)
{
    return state->bytes + HEAD_DIRECTORY + (uint64_t)section * DIR_BYTES;
}

void sdc_state_format(struct sdc_state *state, void *bytes, const struct sdc_state_shape *shape)
{
    *state = (struct sdc_state){.bytes = bytes};
    state->size = lay_out(state, shape);
    for (unsigned i = 0; i < SDC_STATE_SECTIONS; i++) {
        uint8_t *entry = directory_entry(state, i);
        sdc_put32(entry + DIR_TYPE, i);
        sdc_put32(entry + DIR_VERSION, sections[i].version);
        sdc_put64(entry + DIR_OFFSET, state->offsets[i]);
        sdc_put64(entry + DIR_LENGTH, section_length(shape, i));
    }
    memcpy(state->bytes + state->offsets[SDC_STATE_IDENTITY], shape->identity, SDC_STATE_IDENTITY_BYTES);
    sdc_put32(state->bytes + HEAD_VERSION, SDC_STATE_VERSION);
    sdc_put32(state->bytes + HEAD_SECTIONS, SDC_STATE_SECTIONS);
    sdc_put64(state->bytes + HEAD_SIZE, state->size);
    sdc_put64(state->bytes + HEAD_MAGIC, MAGIC);
    // A record only when it is one.
    store64(state->bytes + HEAD_CHECKSUM, header_checksum(state->bytes));
}

// --- pairs ---

static uint8_t *copy_of(const struct sdc_state *state, enum sdc_state_section section, unsigned which)
{
    return state->bytes + state->offsets[section] + which * copy_size(state->lengths[section]);
}

// The copy with the highest generation up to `limit`, or -1.
static int newest(const struct sdc_state *state, enum sdc_state_section section, uint64_t limit)
{
    uint64_t best = 0;
    int which = -1;

    for (int i = 0; i < 2; i++) {
        uint64_t generation = load64(copy_of(state, section, (unsigned)i) + COPY_GENERATION);
        if (generation > best && generation <= limit) {
            best = generation;
            which = i;
        }
    }
    return which;
}

void sdc_state_prepare(struct sdc_state *state, enum sdc_state_section section, const void *data, uint32_t size)
{
    // Never the copy that counts; one that was prepared before is made again.
    unsigned which = newest(state, section, state->generation) == 0 ? 1 : 0;
    uint8_t *copy = copy_of(state, section, which);
    uint64_t length = state->lengths[section];

    store64(copy + COPY_GENERATION, 0);
    uint64_t kept = sdc_min(size, length);
    memcpy(copy + COPY_DATA, data, (size_t)kept);
    memset(copy + COPY_DATA + kept, 0, (size_t)(length - kept));
    uint64_t sum = checksum(state->generation + 1, copy + COPY_DATA, length);
    store64(copy + COPY_CHECKSUM, sum);
    store64(copy + COPY_GENERATION, state->generation + 1);
}

const uint8_t *sdc_state_now(const struct sdc_state *state, enum sdc_state_section section)
{
    int which = newest(state, section, state->generation);

    return which < 0 ? NULL : copy_of(state, section, (unsigned)which) + COPY_DATA;
}

// --- regions ---

static uint8_t *region_entry(const struct sdc_state *state, uint32_t index)
{
    return state->bytes + state->offsets[SDC_STATE_REGIONS] + (uint64_t)index * REGION_BYTES;
}

void sdc_state_region_born(struct sdc_state *state, uint32_t index, const struct sdc_state_region *region)
{
    uint8_t *entry = region_entry(state, index);

    if (index >= load64(state->bytes + HEAD_REGIONS))
        store64(state->bytes + HEAD_REGIONS, index + UINT64_C(1));
    store64(entry + REGION_BORN, 0);
    store64(entry + REGION_DIED, 0);
    store64(entry + REGION_IOVA, region->iova);
    store64(entry + REGION_SIZE, region->size);
    store64(entry + REGION_OFFSET, region->offset);
    store64(entry + REGION_SLOT, region->slot | (uint64_t)region->access << 32);
    store64(entry + REGION_BORN, state->generation + 1);
}

uint32_t sdc_state_regions_end(const struct sdc_state *state)
{
    return (uint32_t)sdc_min(load64(state->bytes + HEAD_REGIONS), state->lengths[SDC_STATE_REGIONS]);
}

void sdc_state_region_died(struct sdc_state *state, uint32_t index)
{
    store64(region_entry(state, index) + REGION_DIED, state->generation + 1);
}

bool sdc_state_region_now(const struct sdc_state *state, uint32_t index, struct sdc_state_region *region)
{
    const uint8_t *entry = region_entry(state, index);
    uint64_t born = load64(entry + REGION_BORN), died = load64(entry + REGION_DIED);

    if (born == 0 || born > state->generation || (died != 0 && died <= state->generation))
        return false;
    *region = (struct sdc_state_region){
        .iova = sdc_get64(entry + REGION_IOVA),
        .size = sdc_get64(entry + REGION_SIZE),
        .offset = sdc_get64(entry + REGION_OFFSET),
        .slot = sdc_get32(entry + REGION_SLOT),
        .access = sdc_get32(entry + REGION_ACCESS),
    };
    return true;
}

// --- the rest ---

void *sdc_state_live(const struct sdc_state *state, enum sdc_state_section section)
{
    return state->bytes + state->offsets[section];
}

void sdc_state_commit(struct sdc_state *state)
{
    store64(state->bytes + HEAD_GENERATION, ++state->generation);
}

// --- parsing ---

static int refuse(struct sdc_error *err, const char *what)
{
    return sdc_error_set(err, -EINVAL, SDC_FAULT_PEER, "the state record is corrupt: %s", what);
}

static int check_header(const struct sdc_state *state, const uint8_t *bytes, uint64_t size, struct sdc_error *err)
{
    if (size < HEADER || sdc_get64(bytes + HEAD_MAGIC) != MAGIC)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_PEER, "there is no state record in these %" PRIu64 " bytes", size);
    uint32_t version = sdc_get32(bytes + HEAD_VERSION);
    if (version != SDC_STATE_VERSION)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_PEER, "the state record is of version %" PRIu32 ", this program reads version %d",
                             version, SDC_STATE_VERSION);
    if (load64(bytes + HEAD_CHECKSUM) != header_checksum(bytes))
        return refuse(err, "its header's checksum is wrong");
    if (sdc_get64(bytes + HEAD_SIZE) > size)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_PEER, "the state record is cut: %" PRIu64 " of %" PRIu64 " bytes are there", size,
                             sdc_get64(bytes + HEAD_SIZE));
    (void)state;
    return 0;
}

// The sections are those that this program would make for the same card.
static int check_directory(const struct sdc_state *state, const struct sdc_state_shape *shape, struct sdc_error *err)
{
    const uint8_t *identity = state->bytes + state->offsets[SDC_STATE_IDENTITY];

    if (sdc_get32(state->bytes + HEAD_SECTIONS) != SDC_STATE_SECTIONS)
        return refuse(err, "it has another number of sections");
    for (unsigned i = 0; i < SDC_STATE_SECTIONS; i++) {
        const uint8_t *entry = directory_entry(state, i);
        if (sdc_get32(entry + DIR_TYPE) != i)
            return refuse(err, "its sections are not in order");
        if (sdc_get32(entry + DIR_VERSION) != sections[i].version)
            return sdc_error_set(err, -EINVAL, SDC_FAULT_PEER, "the state record's section '%s' is of version %" PRIu32
                                 ", this program reads version %" PRIu32, sections[i].name, sdc_get32(entry + DIR_VERSION),
                                 sections[i].version);
        // The first section is at a fixed place, so what the record says of itself can be read before the rest is believed.
        if (i == SDC_STATE_IDENTITY && memcmp(identity, shape->identity, SDC_STATE_IDENTITY_BYTES) != 0)
            return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "the state record is of another card: '%.*s', and this one is '%s'",
                                 (int)strnlen((const char *)identity, 200), identity, shape->identity);
        if (sdc_get64(entry + DIR_OFFSET) != state->offsets[i] || sdc_get64(entry + DIR_LENGTH) != section_length(shape, i))
            return sdc_error_set(err, -EINVAL, SDC_FAULT_PEER, "the state record's section '%s' has another size or place than this "
                                 "program's", sections[i].name);
    }
    return 0;
}

// Forgets what was prepared and not committed; checks the copies that count.
static int check_pair(struct sdc_state *state, enum sdc_state_section section, struct sdc_error *err)
{
    for (unsigned i = 0; i < 2; i++) {
        uint8_t *copy = copy_of(state, section, i);
        if (load64(copy + COPY_GENERATION) > state->generation)
            store64(copy + COPY_GENERATION, 0);
    }
    int which = newest(state, section, state->generation);
    if (which < 0)
        return 0;
    const uint8_t *copy = copy_of(state, section, (unsigned)which);
    if (load64(copy + COPY_CHECKSUM) != copy_checksum(copy, state->lengths[section]))
        return sdc_error_set(err, -EINVAL, SDC_FAULT_PEER, "the state record is corrupt: section '%s' has a wrong checksum",
                             sections[section].name);
    return 0;
}

static void settle_regions(struct sdc_state *state)
{
    for (uint32_t i = 0; i < sdc_state_regions_end(state); i++) {
        uint8_t *entry = region_entry(state, i);
        if (load64(entry + REGION_BORN) > state->generation)
            store64(entry + REGION_BORN, 0);
        if (load64(entry + REGION_DIED) > state->generation)
            store64(entry + REGION_DIED, 0);
    }
}

int sdc_state_parse(struct sdc_state *state, void *bytes, uint64_t size, const struct sdc_state_shape *shape, struct sdc_error *err)
{
    *state = (struct sdc_state){.bytes = bytes};
    state->size = lay_out(state, shape);
    int rc = check_header(state, bytes, size, err);
    if (rc == 0 && size < state->offsets[SDC_STATE_SESSION])
        rc = refuse(err, "it is cut");
    if (rc == 0)
        rc = check_directory(state, shape, err);
    if (rc == 0 && (sdc_get64(state->bytes + HEAD_SIZE) != state->size || size < state->size))
        rc = refuse(err, "it is cut");
    if (rc < 0)
        return rc;

    state->generation = load64(state->bytes + HEAD_GENERATION);
    if (state->generation > UINT64_MAX / 2) // nobody commits so often
        return refuse(err, "its generation is impossible");
    for (unsigned i = 0; rc == 0 && i < SDC_STATE_SECTIONS; i++) {
        if (sections[i].kind == PAIR)
            rc = check_pair(state, i, err);
    }
    if (rc == 0 && load64(state->bytes + HEAD_REGIONS) > state->lengths[SDC_STATE_REGIONS])
        rc = refuse(err, "it has more regions than there is room for");
    if (rc == 0)
        settle_regions(state);
    return rc;
}
