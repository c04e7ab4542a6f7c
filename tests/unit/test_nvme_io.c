// SPDX-License-Identifier: BSD-3-Clause
// I/O commands on a worker whose backends and completions are the test's: what is asked of a backend, and what the driver is told.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/limits.h"
#include "device/nvme/controller.h"
#include "nvme_namespace_fixture.h"
#include "ring_fixture.h"

#include <errno.h>

enum {
    DNR = SDC_NVME_SC_DNR,
    INVALID_FIELD = SDC_NVME_SC_INVALID_FIELD | DNR,
    INVALID_OPCODE = SDC_NVME_SC_INVALID_OPCODE | DNR,
    INVALID_NS = SDC_NVME_SC_INVALID_NS | DNR,
    RANGE = SDC_NVME_SC_LBA_RANGE | DNR,
    READ_ONLY = SDC_NVME_SC_READ_ONLY | DNR,
    NOT_YET = 0xffff,
    COMMANDS = 160,
    SENT = 200,
    DATA = 2 * GUEST_PAGE,
    LIST = 12 * GUEST_PAGE, // of PRP entries
};

struct backend {
    struct sdc_block_queue base;
    unsigned batches;
};

static struct {
    struct guest guest;
    struct three_namespaces three;
    struct backend backends[3];
    struct nvme_ns_queue queues[3];
    struct nvme_ns_queue *by_nsid[NVME_NAMESPACES_MAX];
    struct sdc_map_use use;
    struct nvme nvme;
    struct nvme_worker worker;
    struct nvme_sq sq;
    struct nvme_command commands[COMMANDS];
    struct sdc_block_request *sent[SENT]; // and not answered
    unsigned sent_count;
} t;

// --- both sides of the commands ---

static void submit(struct sdc_block_queue *queue, struct sdc_block_request **requests, unsigned count)
{
    struct backend *backend = sdc_container(queue, struct backend, base);

    backend->batches++;
    for (unsigned i = 0; i < count; i++) {
        assert_true(t.sent_count < SENT);
        t.sent[t.sent_count++] = requests[i];
    }
}

// Instead of queue.c's.
void __wrap_nvme_complete(struct nvme_command *command, uint16_t status, uint32_t dw0);
void __wrap_nvme_complete(struct nvme_command *command, uint16_t status, uint32_t dw0)
{
    assert_int_equal(command->status, NOT_YET);
    assert_int_equal(dw0, 0);
    command->status = status;
}

static void open_worker(void)
{
    static const struct sdc_block_queue_ops ops = {.submit = submit};

    memset(&t, 0, sizeof t);
    guest_open(&t.guest, false);
    three_open(&t.three);
    atomic_store(&t.nvme.admin.features.write_cache, true);
    t.use = (struct sdc_map_use){.map = t.guest.map, .in_flight = 1};
    t.worker = (struct nvme_worker){.nvme = &t.nvme, .use = &t.use, .memory = t.guest.view, .namespaces = t.by_nsid};
    t.sq = (struct nvme_sq){.nvme = &t.nvme, .id = 1, .worker = &t.worker};
    for (unsigned i = 0; i < 3; i++) {
        t.backends[i].base = (struct sdc_block_queue){.ops = &ops, .block = &t.three.blocks[i].base};
        t.queues[i] = (struct nvme_ns_queue){.ns = &t.three.namespaces[i], .backend = &t.backends[i].base};
        t.by_nsid[t.three.namespaces[i].nsid - 1] = &t.queues[i];
    }
    for (unsigned i = 0; i < COMMANDS; i++) {
        sdc_payload_init(&t.commands[i].data.payload);
        t.commands[i].sq = &t.sq;
    }
}

static void close_worker(void)
{
    assert_int_equal(t.sent_count, 0);
    for (unsigned i = 0; i < COMMANDS; i++)
        sdc_payload_destroy(&t.commands[i].data.payload);
    for (unsigned i = 0; i < 3; i++)
        nvme_jobs_close(&t.queues[i]);
    guest_close(&t.guest);
}

struct fields {
    uint8_t opcode;
    uint8_t flags;
    uint32_t nsid;
    uint64_t slba;
    uint32_t dw12;
    uint64_t prp1, prp2;
};

// Runs command n. Its status is that with which it has ended, or NOT_YET.
static struct nvme_command *run(unsigned n, const struct fields *fields)
{
    struct nvme_command *command = &t.commands[n];

    memset(command->sqe, 0, sizeof command->sqe);
    command->sqe[SDC_NVME_SQE_OPCODE] = fields->opcode;
    command->sqe[SDC_NVME_SQE_FLAGS] = fields->flags;
    sdc_put32(command->sqe + SDC_NVME_SQE_NSID, fields->nsid);
    sdc_put64(command->sqe + SDC_NVME_SQE_PRP1, fields->prp1);
    sdc_put64(command->sqe + SDC_NVME_SQE_PRP2, fields->prp2);
    sdc_put64(command->sqe + SDC_NVME_SQE_CDW10, fields->slba);
    sdc_put32(command->sqe + SDC_NVME_SQE_CDW12, fields->dw12);
    command->status = NOT_YET;
    memset(&command->words, 0xa5, sizeof command->words); // of the command before
    memset(&command->block, 0xa5, sizeof command->block);
    int rc = nvme_io_run(command);
    if (rc != NVME_PENDING) {
        assert_true(rc >= 0);
        assert_int_equal(command->status, NOT_YET);
        command->status = (uint16_t)rc;
    }
    nvme_submit_batch(&t.worker);
    return command;
}

// The first request that was sent is done.
static void answer(int result)
{
    struct sdc_block_request *request = t.sent[0];

    assert_true(t.sent_count > 0);
    memmove(t.sent, t.sent + 1, --t.sent_count * sizeof t.sent[0]);
    request->result = result;
    nvme_io_done(&t.worker, &request, 1);
}

static void answer_all(void)
{
    while (t.sent_count > 0)
        answer(0);
}

// --- what is refused at once ---

enum { R = SDC_NVME_IO_READ, W = SDC_NVME_IO_WRITE, F = SDC_NVME_IO_FLUSH, C = SDC_NVME_IO_COMPARE, Z = SDC_NVME_IO_WRITE_ZEROES,
       D = SDC_NVME_IO_DSM };

static void what_is_wrong_is_refused(void **state)
{
    static const struct {
        const char *name;
        struct fields fields;
        uint16_t status;
    } cases[] = {
        {"write uncorrectable", {.opcode = SDC_NVME_IO_WRITE_UNCORRECTABLE, .nsid = 1}, INVALID_OPCODE},
        {"verify", {.opcode = SDC_NVME_IO_VERIFY, .nsid = 1}, INVALID_OPCODE},
        {"copy", {.opcode = SDC_NVME_IO_COPY, .nsid = 1}, INVALID_OPCODE},
        {"a fabrics command", {.opcode = 0x7f, .nsid = 1}, INVALID_OPCODE},
        {"a vendor's command", {.opcode = 0xff, .nsid = 1}, INVALID_OPCODE},
        {"an unknown command for nobody", {.opcode = 0x0d}, INVALID_OPCODE},
        {"first of a pair", {.opcode = C, .flags = 1, .nsid = 1}, INVALID_FIELD},
        {"second of a pair", {.opcode = W, .flags = 2, .nsid = 1}, INVALID_FIELD},
        {"both of a pair", {.opcode = R, .flags = 3, .nsid = 1}, INVALID_FIELD},
        {"the fourth kind of pointer", {.opcode = R, .flags = 0xc0, .nsid = 1}, INVALID_FIELD},
        {"the fourth kind of pointer to nothing", {.opcode = F, .flags = 0xc0, .nsid = 1}, INVALID_FIELD},
        {"namespace 0", {.opcode = R}, INVALID_NS},
        {"flush of namespace 0", {.opcode = F}, INVALID_NS},
        {"a read of all namespaces", {.opcode = R, .nsid = SDC_NVME_NSID_ALL}, INVALID_NS},
        {"a write to all namespaces", {.opcode = W, .nsid = SDC_NVME_NSID_ALL}, INVALID_NS},
        {"zeroes in all namespaces", {.opcode = Z, .nsid = SDC_NVME_NSID_ALL}, INVALID_NS},
        {"a namespace that none can be", {.opcode = R, .nsid = 257}, INVALID_NS},
        {"a namespace near all", {.opcode = F, .nsid = SDC_NVME_NSID_ALL - 1}, INVALID_NS},
        {"a namespace that is not there", {.opcode = R, .nsid = 3}, INVALID_FIELD},
        {"a flush of one that is not there", {.opcode = F, .nsid = 255}, INVALID_FIELD},
        {"a write to one that is read-only", {.opcode = W, .nsid = 256}, READ_ONLY},
        {"zeroes in one that is read-only", {.opcode = Z, .nsid = 256}, READ_ONLY},
        {"a trim of one that is read-only", {.opcode = D, .nsid = 256}, READ_ONLY},
        {"more than 1 MiB", {.opcode = R, .nsid = 1, .dw12 = 2048}, INVALID_FIELD},
        {"more than 1 MiB to write", {.opcode = W, .nsid = 1, .dw12 = 0xffff}, INVALID_FIELD},
        {"more than 1 MiB to compare", {.opcode = C, .nsid = 1, .dw12 = 2048}, INVALID_FIELD},
        {"more than 1 MiB in large blocks", {.opcode = R, .nsid = 2, .dw12 = 256}, INVALID_FIELD},
        {"more than 32 MiB of zeroes", {.opcode = Z, .nsid = 2, .dw12 = 8192}, INVALID_FIELD},
        {"a first block that no disk has", {.opcode = R, .nsid = 1, .slba = UINT64_MAX}, RANGE},
        {"one that wraps to 0", {.opcode = W, .nsid = 1, .slba = UINT64_C(1) << 55}, RANGE},
        {"blocks around the end", {.opcode = R, .nsid = 1, .slba = (UINT64_C(1) << 55) - 1, .dw12 = 1}, RANGE},
        {"zeroes around the end", {.opcode = Z, .nsid = 2, .slba = (UINT64_C(1) << 52) - 1, .dw12 = 1}, RANGE},
        {"data outside", {.opcode = R, .nsid = 1, .prp1 = UINT64_C(1) << 40}, SDC_NVME_SC_DATA_TRANSFER},
        {"data at an odd address", {.opcode = W, .nsid = 1, .prp1 = DATA + 1}, SDC_NVME_SC_PRP_OFFSET | DNR},
        {"an SGL of nothing", {.opcode = W, .flags = 0x40, .nsid = 1, .prp1 = DATA}, SDC_NVME_SC_SGL_LENGTH | DNR},
        {"an SGL, and one for metadata", {.opcode = W, .flags = 0x80, .nsid = 1, .prp1 = DATA}, SDC_NVME_SC_SGL_LENGTH | DNR},
        {"a trim whose ranges are outside", {.opcode = D, .nsid = 1, .slba = (uint64_t)SDC_NVME_DSM_AD << 32, .prp1 = UINT64_C(1) << 40},
         SDC_NVME_SC_DATA_TRANSFER},
    };

    (void)state;
    open_worker();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct nvme_command *command = run(0, &cases[i].fields);
        if (command->status != cases[i].status)
            fail_msg("%s: %#x", cases[i].name, command->status);
        assert_int_equal(t.sent_count, 0);
    }
    close_worker();
}

// --- what goes to the backend ---

static void commands_become_requests(void **state)
{
    static const struct {
        const char *name;
        struct fields fields;
        enum sdc_block_op op;
        uint32_t flags;
        uint64_t offset, size;
    } cases[] = {
        {"read", {.opcode = R, .nsid = 1, .slba = 7, .prp1 = DATA}, SDC_BLOCK_READ, 0, 7 * 512, 512},
        {"read large blocks", {.opcode = R, .nsid = 2, .slba = 7, .prp1 = DATA}, SDC_BLOCK_READ, 0, 7 * 4096, 4096},
        {"read from one that is read-only", {.opcode = R, .nsid = 256, .prp1 = DATA}, SDC_BLOCK_READ, 0, 0, 512},
        {"read two pages", {.opcode = R, .nsid = 1, .dw12 = 15, .prp1 = DATA, .prp2 = DATA + 8192}, SDC_BLOCK_READ, 0, 0, 8192},
        {"read with few retries", {.opcode = R, .nsid = 1, .dw12 = SDC_NVME_RW_LR, .prp1 = DATA}, SDC_BLOCK_READ, 0, 0, 512},
        {"read with protection that is not there", {.opcode = R, .nsid = 1, .dw12 = SDC_NVME_RW_PRINFO, .prp1 = DATA}, SDC_BLOCK_READ, 0, 0,
         512},
        {"read far behind the end", {.opcode = R, .nsid = 1, .slba = UINT64_C(1) << 50, .prp1 = DATA}, SDC_BLOCK_READ, 0,
         UINT64_C(1) << 59, 512},
        {"durable read where nothing is lost", {.opcode = R, .nsid = 2, .dw12 = SDC_NVME_RW_FUA, .prp1 = DATA}, SDC_BLOCK_READ, 0, 0, 4096},
        {"write", {.opcode = W, .nsid = 1, .slba = 1, .dw12 = 1, .prp1 = DATA}, SDC_BLOCK_WRITE, 0, 512, 1024},
        {"durable write", {.opcode = W, .nsid = 1, .dw12 = SDC_NVME_RW_FUA, .prp1 = DATA}, SDC_BLOCK_WRITE, SDC_BLOCK_FUA, 0, 512},
        {"flush", {.opcode = F, .nsid = 1, .slba = 99, .dw12 = 99}, SDC_BLOCK_FLUSH, 0, 0, 0},
        {"flush of one that is read-only", {.opcode = F, .nsid = 256}, SDC_BLOCK_FLUSH, 0, 0, 0},
        {"zeroes", {.opcode = Z, .nsid = 1, .slba = 3, .dw12 = 0xffff}, SDC_BLOCK_WRITE_ZEROES, 0, 3 * 512, 65536 * 512},
        {"32 MiB of zeroes", {.opcode = Z, .nsid = 2, .dw12 = 8191}, SDC_BLOCK_WRITE_ZEROES, 0, 0, 32 << 20},
        {"durable zeroes", {.opcode = Z, .nsid = 1, .dw12 = SDC_NVME_RW_FUA}, SDC_BLOCK_WRITE_ZEROES, SDC_BLOCK_FUA, 0, 512},
        {"zeroes that need no place", {.opcode = Z, .nsid = 2, .dw12 = SDC_NVME_RW_DEAC}, SDC_BLOCK_WRITE_ZEROES, SDC_BLOCK_UNMAP, 0, 4096},
    };

    (void)state;
    open_worker();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct nvme_command *command = run(0, &cases[i].fields);
        uint64_t bytes = 0;
        if (command->status != NOT_YET || t.sent_count != 1)
            fail_msg("%s: %#x, %u requests", cases[i].name, command->status, t.sent_count);
        const struct sdc_block_request *request = t.sent[0];
        if (request->op != cases[i].op || request->flags != cases[i].flags || request->offset != cases[i].offset ||
            request->size != cases[i].size)
            fail_msg("%s: %d, %u, %llu, %llu", cases[i].name, (int)request->op, request->flags, (unsigned long long)request->offset,
                     (unsigned long long)request->size);
        for (uint32_t k = 0; k < request->spans_count; k++)
            bytes += request->spans[k].size;
        assert_int_equal(bytes, cases[i].op == SDC_BLOCK_READ || cases[i].op == SDC_BLOCK_WRITE ? cases[i].size : 0);
        answer(0);
        assert_int_equal(command->status, SDC_NVME_SC_SUCCESS);
    }
    close_worker();
}

static void without_a_cache_every_write_is_durable(void **state)
{
    (void)state;
    open_worker();
    atomic_store(&t.nvme.admin.features.write_cache, false);
    run(0, &(struct fields){.opcode = W, .nsid = 1, .prp1 = DATA});
    run(1, &(struct fields){.opcode = Z, .nsid = 1});
    assert_int_equal(t.sent[0]->flags, SDC_BLOCK_FUA);
    assert_int_equal(t.sent[1]->flags, SDC_BLOCK_FUA);
    answer_all();
    close_worker();
}

static void results_become_statuses(void **state)
{
    static const struct {
        uint8_t opcode;
        int result;
        uint16_t status;
    } cases[] = {
        {R, -EIO, SDC_NVME_SC_READ_ERROR}, {W, -EIO, SDC_NVME_SC_WRITE_FAULT}, {F, -EIO, SDC_NVME_SC_WRITE_FAULT},
        {Z, -EIO, SDC_NVME_SC_WRITE_FAULT}, {R, -EINVAL, RANGE}, {W, -EINVAL, RANGE}, {Z, -EINVAL, RANGE}, {W, -EROFS, READ_ONLY},
        {W, -ENOSPC, SDC_NVME_SC_CAPACITY}, {R, -EBUSY, SDC_NVME_SC_NS_NOT_READY}, {W, -EBUSY, SDC_NVME_SC_NS_NOT_READY},
        {R, -ECANCELED, SDC_NVME_SC_ABORTED}, {W, -ENOMEM, SDC_NVME_SC_INTERNAL}, {R, -ENXIO, SDC_NVME_SC_READ_ERROR},
        {F, -EDQUOT, SDC_NVME_SC_WRITE_FAULT},
    };

    (void)state;
    open_worker();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct nvme_command *command = run(0, &(struct fields){.opcode = cases[i].opcode, .nsid = 1, .prp1 = DATA});
        answer(cases[i].result);
        assert_int_equal(command->status, cases[i].status);
    }
    close_worker();
}

static void a_batch_goes_down_as_one(void **state)
{
    (void)state;
    open_worker();
    for (unsigned i = 0; i < 130; i++) {
        struct nvme_command *command = &t.commands[i];
        memset(command->sqe, 0, sizeof command->sqe);
        command->sqe[SDC_NVME_SQE_OPCODE] = R;
        command->status = NOT_YET;
        sdc_put32(command->sqe + SDC_NVME_SQE_NSID, i < 2 ? 2 : 1);
        sdc_put64(command->sqe + SDC_NVME_SQE_PRP1, DATA);
        assert_int_equal(nvme_io_run(command), NVME_PENDING);
    }
    nvme_submit_batch(&t.worker);
    assert_int_equal(t.backends[0].batches, 2); // of 64 each
    assert_int_equal(t.backends[1].batches, 1);
    assert_int_equal(t.sent_count, 130);
    nvme_submit_batch(&t.worker);
    assert_int_equal(t.backends[0].batches, 2);
    answer_all();
    close_worker();
}

// Commands of 512 pieces each: a queue takes no more when there are too many spans.
static void heavy_commands_are_few(void **state)
{
    uint8_t raw[SDC_NVME_SGL] = {0};
    unsigned taken = 0;

    (void)state;
    open_worker();
    t.sq.ring.awake = true;
    t.sq.cq = &(struct nvme_cq){.nvme = &t.nvme};
    for (uint32_t i = 0; i < 512; i++) {
        sdc_put64(raw, DATA + 2 * (uint64_t)(511 - i));
        sdc_put32(raw + SDC_NVME_SGL_LENGTH, 1);
        assert_int_equal(sdc_memory_write(&t.guest.view, LIST + (uint64_t)i * sizeof raw, raw, sizeof raw), 0);
    }
    while (nvme_may_take(&t.sq)) {
        assert_true(taken < COMMANDS);
        struct fields fields = {.opcode = W, .flags = SDC_NVME_PSDT_SGL, .nsid = 1, .prp1 = LIST,
                                .prp2 = (uint64_t)SDC_NVME_SGL_LAST_SEGMENT << 60 | 512 * sizeof raw};
        assert_int_equal(run(taken++, &fields)->status, NOT_YET);
    }
    assert_int_equal(taken, SDC_LIMIT_QUEUE_SPANS / 512 + 1);
    answer_all();
    close_worker();
}

// --- commands of several requests ---

static void a_durable_read_flushes_first(void **state)
{
    static const struct fields read = {.opcode = R, .nsid = 1, .slba = 5, .dw12 = SDC_NVME_RW_FUA, .prp1 = DATA};
    struct nvme_command *command;

    (void)state;
    open_worker();
    command = run(0, &read);
    assert_int_equal(t.sent[0]->op, SDC_BLOCK_FLUSH);
    assert_int_equal(t.sent[0]->spans_count, 0);
    answer(0);
    assert_int_equal(t.sent[0]->op, SDC_BLOCK_READ);
    assert_int_equal(t.sent[0]->offset, 5 * 512);
    assert_int_equal(t.sent[0]->spans_count, 1);
    answer(0);
    assert_int_equal(command->status, SDC_NVME_SC_SUCCESS);

    command = run(0, &read);
    answer(-EIO);
    assert_int_equal(command->status, SDC_NVME_SC_WRITE_FAULT);
    close_worker();
}

static void a_flush_of_all_flushes_each(void **state)
{
    static const struct fields all = {.opcode = F, .nsid = SDC_NVME_NSID_ALL};
    struct nvme_command *command;

    (void)state;
    open_worker();
    command = run(0, &all);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(command->status, NOT_YET);
        assert_int_equal(t.backends[i].batches, 1);
        answer(0);
    }
    assert_int_equal(command->status, SDC_NVME_SC_SUCCESS);

    command = run(0, &all);
    answer(0);
    answer(-EIO);
    assert_int_equal(command->status, SDC_NVME_SC_WRITE_FAULT);

    // A worker that stops has asked for what waits long to be given up: nothing is begun after that.
    command = run(0, &all);
    t.worker.stopping = true;
    answer(0);
    assert_int_equal(command->status, SDC_NVME_SC_ABORTED);
    t.worker.stopping = false;

    memset(t.by_nsid, 0, sizeof t.by_nsid);
    command = run(0, &all);
    assert_int_equal(command->status, SDC_NVME_SC_SUCCESS);
    close_worker();
}

// --- compare ---

enum { COMPARED = 160 * 1024 }; // bytes: three pieces of 64 KiB

// Every page of it is the guest's page at DATA.
static const struct fields *comparison(uint32_t bytes)
{
    static struct fields fields;

    for (unsigned i = 0; i < 300; i++)
        guest_put(&t.guest, LIST + 8 * (uint64_t)i, DATA, 8);
    fields = (struct fields){.opcode = C, .nsid = 1, .slba = 11, .dw12 = bytes / 512 - 1, .prp1 = DATA,
                             .prp2 = bytes > 2 * GUEST_PAGE ? LIST : DATA};
    return &fields;
}

// The backend's answer to a read of a comparison: what the guest has, but for the byte at `wrong` of the disk.
static void answer_read(uint64_t wrong)
{
    const struct sdc_block_request *request = t.sent[0];

    assert_int_equal(request->op, SDC_BLOCK_READ);
    assert_int_equal(request->spans_count, 1);
    uint8_t *bytes = request->spans[0].base;
    for (uint64_t i = 0; i < request->size; i++) {
        bytes[i] = t.guest.bytes[DATA + (request->offset - 11 * 512 + i) % GUEST_PAGE];
        bytes[i] ^= request->offset + i == wrong;
    }
    answer(0);
}

static void data_is_compared(void **state)
{
    static const struct {
        uint32_t bytes;
        uint64_t wrong; // offset in the data
        unsigned reads;
        uint16_t status;
    } cases[] = {
        {512, UINT64_MAX / 2, 1, SDC_NVME_SC_SUCCESS}, {512, 0, 1, SDC_NVME_SC_COMPARE | DNR}, {512, 511, 1, SDC_NVME_SC_COMPARE | DNR},
        {512, 512, 1, SDC_NVME_SC_SUCCESS}, {65536, UINT64_MAX / 2, 1, SDC_NVME_SC_SUCCESS},
        {COMPARED, UINT64_MAX / 2, 3, SDC_NVME_SC_SUCCESS}, {COMPARED, 65536, 2, SDC_NVME_SC_COMPARE | DNR},
        {COMPARED, COMPARED - 1, 3, SDC_NVME_SC_COMPARE | DNR}, {1024 * 1024, UINT64_MAX / 2, 16, SDC_NVME_SC_SUCCESS},
    };

    (void)state;
    open_worker();
    for (unsigned i = 0; i < GUEST_PAGE; i++)
        t.guest.bytes[DATA + i] = (uint8_t)(i * 7 >> 3);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        unsigned reads = 0;
        struct nvme_command *command = run(0, comparison(cases[i].bytes));
        for (; command->status == NOT_YET; reads++)
            answer_read(cases[i].wrong + 11 * 512);
        assert_int_equal(command->status, cases[i].status);
        assert_int_equal(reads, cases[i].reads);
    }
    close_worker();
}

static void a_comparison_that_cannot_read(void **state)
{
    (void)state;
    open_worker();
    struct nvme_command *command = run(0, comparison(COMPARED));
    answer_read(0);
    answer(-EIO);
    assert_int_equal(command->status, SDC_NVME_SC_READ_ERROR);
    command = run(0, comparison(COMPARED));
    answer(-EINVAL);
    assert_int_equal(command->status, RANGE);
    command = run(0, comparison(COMPARED));
    t.worker.stopping = true;
    answer_read(0);
    assert_int_equal(command->status, SDC_NVME_SC_ABORTED);
    close_worker();
}

// --- dataset management ---

struct trim {
    uint64_t slba;
    uint32_t blocks;
};

static struct nvme_command *run_trim(unsigned n, const struct trim *ranges, unsigned count, uint32_t attributes)
{
    for (unsigned i = 0; i < count; i++) {
        guest_put(&t.guest, DATA + 16 * (uint64_t)i, 0x12345678, 4); // attributes of its context
        guest_put(&t.guest, DATA + 16 * (uint64_t)i + 4, ranges[i].blocks, 4);
        guest_put(&t.guest, DATA + 16 * (uint64_t)i + 8, ranges[i].slba, 8);
    }
    return run(n, &(struct fields){.opcode = D, .nsid = 1, .slba = (uint64_t)attributes << 32 | (count - 1), .prp1 = DATA});
}

static void ranges_are_discarded(void **state)
{
    static const struct {
        const char *name;
        struct trim ranges[4];
        unsigned count;
        uint16_t status;
        struct trim discards[4]; // up to the first that is empty
    } cases[] = {
        {"one", {{5, 3}}, 1, SDC_NVME_SC_SUCCESS, {{5, 3}}},
        {"two", {{5, 3}, {100, 1}}, 2, SDC_NVME_SC_SUCCESS, {{5, 3}, {100, 1}}},
        {"two in a row", {{5, 3}, {8, 1}, {10, 1}}, 3, SDC_NVME_SC_SUCCESS, {{5, 4}, {10, 1}}},
        {"two the other way round", {{8, 1}, {5, 3}}, 2, SDC_NVME_SC_SUCCESS, {{8, 1}, {5, 3}}},
        {"empty ones", {{5, 0}, {7, 1}, {0, 0}}, 3, SDC_NVME_SC_SUCCESS, {{7, 1}}},
        {"nothing", {{5, 0}}, 1, SDC_NVME_SC_SUCCESS, {{0}}},
        {"all of it", {{0, 1000}}, 1, SDC_NVME_SC_SUCCESS, {{0, 1000}}},
        {"one block more", {{0, 1001}}, 1, RANGE, {{0}}},
        {"a good one and one outside", {{5, 3}, {1000, 1}}, 2, RANGE, {{0}}},
        {"an empty one outside", {{1001, 0}}, 1, RANGE, {{0}}},
        {"around the end", {{UINT64_MAX, 2}}, 1, RANGE, {{0}}},
        {"wraps to 0", {{UINT64_C(1) << 55, 1}}, 1, RANGE, {{0}}},
        {"as many as there can be", {{0, UINT32_MAX}}, 1, RANGE, {{0}}},
    };

    (void)state;
    open_worker();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct nvme_command *command = run_trim(0, cases[i].ranges, cases[i].count, SDC_NVME_DSM_AD | SDC_NVME_DSM_IDR);
        unsigned count = 0;
        for (; count < t.sent_count; count++) {
            assert_int_equal(t.sent[count]->op, SDC_BLOCK_DISCARD);
            assert_int_equal(t.sent[count]->offset, cases[i].discards[count].slba * 512);
            assert_int_equal(t.sent[count]->size, cases[i].discards[count].blocks * UINT64_C(512));
        }
        assert_int_equal(cases[i].discards[count].blocks, 0);
        answer_all();
        if (command->status != cases[i].status)
            fail_msg("%s: %#x", cases[i].name, command->status);
    }
    close_worker();
}

static void hints_are_taken_and_nothing_is_done(void **state)
{
    (void)state;
    open_worker();
    struct nvme_command *command = run_trim(0, (struct trim[]){{2000, 1}}, 1, SDC_NVME_DSM_IDR | SDC_NVME_DSM_IDW);
    assert_int_equal(command->status, SDC_NVME_SC_SUCCESS);
    close_worker();
}

static void many_ranges_go_down_in_batches(void **state)
{
    struct trim ranges[256];
    unsigned discarded = 0;

    (void)state;
    open_worker();
    for (unsigned i = 0; i < 256; i++)
        ranges[i] = (struct trim){i * 3, 1};
    struct nvme_command *command = run_trim(0, ranges, 256, SDC_NVME_DSM_AD);
    while (t.sent_count > 0) {
        assert_in_range(t.sent_count, 1, 16);
        discarded++;
        answer(0);
    }
    assert_int_equal(discarded, 256);
    assert_int_equal(t.backends[0].batches, 16);
    assert_int_equal(command->status, SDC_NVME_SC_SUCCESS);

    // What fails is told when all that is under way has ended; the rest is not begun.
    command = run_trim(0, ranges, 256, SDC_NVME_DSM_AD);
    answer(-EIO);
    for (unsigned i = 1; i < 16; i++) {
        assert_int_equal(command->status, NOT_YET);
        answer(i == 1 ? -EINVAL : 0);
    }
    assert_int_equal(command->status, SDC_NVME_SC_WRITE_FAULT);
    assert_int_equal(t.sent_count, 0);

    command = run_trim(0, ranges, 256, SDC_NVME_DSM_AD);
    t.worker.stopping = true;
    answer_all();
    assert_int_equal(command->status, SDC_NVME_SC_ABORTED);
    close_worker();
}

// --- those that wait for one another ---

static void they_are_done_one_after_the_other(void **state)
{
    struct nvme_command *commands[5];

    (void)state;
    open_worker();
    for (unsigned i = 0; i < 3; i++)
        commands[i] = run(i, comparison(512));
    commands[3] = run(3, &(struct fields){.opcode = R, .nsid = 1, .prp1 = DATA}); // waits for nobody
    assert_int_equal(t.sent_count, 2);
    answer(-EIO);
    assert_int_equal(commands[0]->status, SDC_NVME_SC_READ_ERROR);
    answer(0);
    assert_int_equal(commands[3]->status, SDC_NVME_SC_SUCCESS);
    commands[4] = run_trim(4, (struct trim[]){{0, 0}}, 1, SDC_NVME_DSM_AD); // ends without a request
    answer(0);
    assert_int_equal(commands[1]->status, SDC_NVME_SC_COMPARE | DNR); // the disk is empty, the guest's page is not any more
    assert_int_equal(commands[4]->status, NOT_YET);
    t.worker.stopping = true;
    answer(-ECANCELED);
    assert_int_equal(commands[2]->status, SDC_NVME_SC_ABORTED);
    assert_int_equal(commands[4]->status, SDC_NVME_SC_ABORTED);
    t.worker.stopping = false;

    commands[0] = run(0, comparison(512));
    commands[1] = run_trim(1, (struct trim[]){{0, 0}}, 1, SDC_NVME_DSM_AD);
    commands[2] = run(2, comparison(512));
    answer(-EIO);
    assert_int_equal(commands[1]->status, SDC_NVME_SC_SUCCESS);
    assert_int_equal(commands[2]->status, NOT_YET);
    answer_all();
    assert_int_not_equal(commands[2]->status, NOT_YET);
    assert_null(t.queues[0].first_job);
    close_worker();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_wrong_is_refused),
        cmocka_unit_test(commands_become_requests),
        cmocka_unit_test(without_a_cache_every_write_is_durable),
        cmocka_unit_test(results_become_statuses),
        cmocka_unit_test(a_batch_goes_down_as_one),
        cmocka_unit_test(heavy_commands_are_few),
        cmocka_unit_test(a_durable_read_flushes_first),
        cmocka_unit_test(a_flush_of_all_flushes_each),
        cmocka_unit_test(data_is_compared),
        cmocka_unit_test(a_comparison_that_cannot_read),
        cmocka_unit_test(ranges_are_discarded),
        cmocka_unit_test(hints_are_taken_and_nothing_is_done),
        cmocka_unit_test(many_ranges_go_down_in_batches),
        cmocka_unit_test(they_are_done_one_after_the_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
