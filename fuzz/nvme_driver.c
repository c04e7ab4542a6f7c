// SPDX-License-Identifier: BSD-3-Clause
// The NVMe driver at a controller that says anything: registers, what Identify brings, completions. The controller is the harness; what
// the driver would send over a connection comes here by --wrap, and the clock jumps. Whatever the controller says: calls return, a
// request comes back at most once, commands name memory of the driver's only, and nothing is left.
#include "base/check.h"
#include "card.h"
#include "driver/nvme.h"
#include "input.h"
#include "os/wait.h"
#include "wire/nvme.h"

#include <errno.h>

enum {
    MEMORIES = 8,
    QUEUES = 4, // with the admin queue
    REQUESTS = 32,
    OPS_MAX = 64,
    CONFIG = 7, // region
    DATA_BYTES = 1 << 20,
};

#define DATA_IOVA (UINT64_C(1) << 32)
#define TICK_NS UINT64_C(100000000)

struct queue {
    uint64_t sq, cq;
    uint32_t size;
    uint32_t taken; // entries of the submission queue
    uint32_t tail;  // of the completion queue
    bool phase;
};

static struct course {
    struct fuzz_input *input;
    struct sdc_client_memory memories[MEMORIES]; // as they were shown; not ours
    unsigned memories_count;
    uint64_t cap;
    uint32_t cc, version, aqa, vectors;
    uint64_t asq, acq, bar_size;
    uint32_t block_size; // as the driver knows it; 0: not yet
    uint8_t odd;         // of 256: how often it says something odd
    struct queue queues[QUEUES];
    uint64_t now;
} course;

static bool is_odd(void)
{
    return course.odd > 0 && fuzz_u8(course.input) < course.odd;
}

static uint8_t *host_of(uint64_t iova, uint64_t size)
{
    for (unsigned i = 0; i < course.memories_count; i++) {
        const struct sdc_client_memory *memory = &course.memories[i];
        if (iova >= memory->iova && sdc_within(iova - memory->iova, size, memory->size))
            return memory->base + (iova - memory->iova);
    }
    return NULL;
}

static uint64_t page_size(void)
{
    return UINT64_C(4096) << (course.cc >> SDC_NVME_CC_MPS & 0xf);
}

// --- what commands say ---

static void check_list(uint64_t at, uint64_t left)
{
    uint64_t page = page_size();

    while (left > 0) {
        uint8_t *list = host_of(at, 8);
        fuzz_check(list != NULL, "a list of PRPs where no memory is");
        uint64_t entry = sdc_get64(list);
        fuzz_check(entry % page == 0, "an entry of a list with an offset");
        if (at % page == page - 8 && left > page) {
            at = entry;
            continue;
        }
        fuzz_check(host_of(entry, sdc_min(left, page)) != NULL, "data where no memory is");
        left -= sdc_min(left, page);
        at += 8;
    }
}

static void check_data(const uint8_t *entry, uint64_t size)
{
    uint64_t page = page_size(), first = sdc_get64(entry + SDC_NVME_SQE_PRP1), second = sdc_get64(entry + SDC_NVME_SQE_PRP2);

    if ((entry[SDC_NVME_SQE_FLAGS] & SDC_NVME_PSDT) != 0) {
        fuzz_check(host_of(first, size) && sdc_get32(entry + SDC_NVME_SQE_PRP1 + SDC_NVME_SGL_LENGTH) == size, "an SGL of something else");
        return;
    }
    uint64_t step = sdc_min(size, page - first % page);
    fuzz_check(host_of(first, step) != NULL, "data where no memory is");
    size -= step;
    if (size > page)
        check_list(second, size);
    else if (size > 0)
        fuzz_check(second % page == 0 && host_of(second, size), "a second page where no memory is");
}

static void check_command(const uint8_t *entry)
{
    uint8_t opcode = entry[SDC_NVME_SQE_OPCODE];

    if (opcode == SDC_NVME_IO_DSM)
        check_data(entry, SDC_NVME_DSM_RANGE);
    else if (opcode == SDC_NVME_IO_READ || opcode == SDC_NVME_IO_WRITE || opcode == SDC_NVME_IO_COMPARE)
        check_data(entry, (uint64_t)(sdc_get16(entry + SDC_NVME_SQE_CDW12) + UINT64_C(1)) * course.block_size);
}

// --- what the controller says ---

static void identify(const uint8_t *entry)
{
    uint8_t data[SDC_NVME_IDENTIFY_BYTES] = {0};
    uint8_t *host = host_of(sdc_get64(entry + SDC_NVME_SQE_PRP1), sizeof data);

    fuzz_check(host != NULL, "Identify to where no memory is");
    sdc_put32(data + 536, 1);                   // SGLs
    sdc_put16(data + 256, 1 << 8);              // shadow doorbells
    sdc_put16(data + 520, 13);                  // optional commands
    if (entry[SDC_NVME_SQE_CDW10] == SDC_NVME_CNS_NS) {
        memset(data, 0, sizeof data);
        sdc_put64(data, 100000);
        sdc_put32(data + 128, 9 << 16);
    } else if (entry[SDC_NVME_SQE_CDW10] == SDC_NVME_CNS_ACTIVE_NS) {
        sdc_put32(data, 1);
    }
    for (unsigned i = 0; i < 8 && is_odd(); i++)
        fuzz_bytes(course.input, data + fuzz_u16(course.input) % (sizeof data - 8), 1 + fuzz_u8(course.input) % 8);
    memcpy(host, data, sizeof data);
}

static void note_queue(const uint8_t *entry)
{
    uint32_t word = sdc_get32(entry + SDC_NVME_SQE_CDW10);
    uint16_t id = (uint16_t)word;
    uint8_t opcode = entry[SDC_NVME_SQE_OPCODE];

    if (id == 0 || id >= QUEUES || (opcode != SDC_NVME_ADMIN_CREATE_CQ && opcode != SDC_NVME_ADMIN_CREATE_SQ))
        return;
    struct queue *queue = &course.queues[id];
    uint64_t iova = sdc_get64(entry + SDC_NVME_SQE_PRP1);
    queue->size = (word >> 16) + 1;
    queue->taken = queue->tail = 0;
    queue->phase = true;
    *(opcode == SDC_NVME_ADMIN_CREATE_CQ ? &queue->cq : &queue->sq) = iova;
    fuzz_check(host_of(iova, (uint64_t)queue->size * (opcode == SDC_NVME_ADMIN_CREATE_CQ ? SDC_NVME_CQE : SDC_NVME_SQE)) != NULL,
               "a queue where no memory is");
}

static void post(struct queue *queue, uint8_t *completion)
{
    uint8_t *at = host_of(queue->cq + (uint64_t)queue->tail * SDC_NVME_CQE, SDC_NVME_CQE);

    if (!at)
        return;
    completion[SDC_NVME_CQE_STATUS] = (uint8_t)((completion[SDC_NVME_CQE_STATUS] & ~1) | queue->phase);
    for (unsigned i = 0; i < 4 && is_odd(); i++)
        completion[fuzz_u8(course.input) % SDC_NVME_CQE] ^= fuzz_u8(course.input);
    memcpy(at, completion, SDC_NVME_CQE);
    if (++queue->tail == queue->size) {
        queue->tail = 0;
        queue->phase = !queue->phase;
    }
}

static void answer(uint16_t id, struct queue *queue, const uint8_t *entry)
{
    uint8_t completion[SDC_NVME_CQE] = {0};

    if (id == 0 && entry[0] == SDC_NVME_ADMIN_IDENTIFY)
        identify(entry);
    if (id == 0)
        note_queue(entry);
    else
        check_command(entry);
    sdc_put32(completion, id == 0 && entry[0] == SDC_NVME_ADMIN_SET_FEATURES ? (QUEUES - 2) << 16 | (QUEUES - 2) : 0);
    sdc_put16(completion + SDC_NVME_CQE_SQHD, (uint16_t)queue->taken);
    sdc_put16(completion + SDC_NVME_CQE_SQID, id);
    sdc_put16(completion + SDC_NVME_CQE_CID, sdc_get16(entry + SDC_NVME_SQE_CID));
    for (unsigned times = is_odd() ? fuzz_u8(course.input) % 4 : 1; times > 0; times--)
        post(queue, completion);
}

static void ring(uint64_t offset, uint32_t value)
{
    uint64_t stride = UINT64_C(4) << (course.cap >> SDC_NVME_CAP_DSTRD & 0xf), number = (offset - SDC_NVME_DOORBELLS) / stride;

    fuzz_check(offset >= SDC_NVME_DOORBELLS && sdc_within(offset, 4, course.bar_size), "a doorbell outside the BAR");
    if (number % 2 != 0 || number / 2 >= QUEUES)
        return;
    struct queue *queue = &course.queues[number / 2];
    fuzz_check(queue->size > 0 && value < queue->size, "a doorbell's value that no queue has");
    while (queue->taken != value) {
        uint8_t entry[SDC_NVME_SQE], *at = host_of(queue->sq + (uint64_t)queue->taken * SDC_NVME_SQE, SDC_NVME_SQE);
        fuzz_check(at != NULL, "a queue where no memory is");
        memcpy(entry, at, sizeof entry);
        queue->taken = (queue->taken + 1) % queue->size;
        answer((uint16_t)(number / 2), queue, entry);
    }
}

static void write_register(uint64_t offset, uint32_t value)
{
    if (offset == SDC_NVME_CC) {
        course.cc = value;
        course.queues[0] = (struct queue){
            .sq = course.asq, .cq = course.acq, .size = (course.aqa & 0xfff) + 1, .phase = true};
    } else if (offset == SDC_NVME_AQA) {
        course.aqa = value;
    } else if (offset == SDC_NVME_ASQ || offset == SDC_NVME_ACQ) {
        *(offset == SDC_NVME_ASQ ? &course.asq : &course.acq) = value; // the driver's own memory is below 4 GiB
    }
}

static uint32_t read_register(uint64_t offset)
{
    uint32_t status = course.cc & SDC_NVME_CC_EN ? SDC_NVME_CSTS_RDY : 0;

    if ((course.cc >> SDC_NVME_CC_SHN & 3) != 0)
        status |= SDC_NVME_CSTS_SHST_DONE;
    if (is_odd() && offset == SDC_NVME_CAP) // then that is where its doorbells are
        course.cap = fuzz_u64(course.input);
    else if (is_odd() && offset != SDC_NVME_CAP + 4)
        return fuzz_u32(course.input);
    return offset == SDC_NVME_CAP       ? (uint32_t)course.cap
           : offset == SDC_NVME_CAP + 4 ? (uint32_t)(course.cap >> 32)
           : offset == SDC_NVME_VS      ? course.version
           : offset == SDC_NVME_CC      ? course.cc
           : offset == SDC_NVME_CSTS    ? status
                                        : 0;
}

// --- the connection ---

int __wrap_sdc_vfio_client_device(struct sdc_vfio_client *client, struct sdc_vfio_device *device, struct sdc_error *err);
int __wrap_sdc_vfio_client_device(struct sdc_vfio_client *client, struct sdc_vfio_device *device, struct sdc_error *err)
{
    (void)client, (void)err;
    *device = (struct sdc_vfio_device){.is_pci = true, .regions_count = 9, .irqs_count = 5};
    return 0;
}

int __wrap_sdc_vfio_client_region(struct sdc_vfio_client *client, uint32_t index, struct sdc_vfio_region *region, struct sdc_error *err);
int __wrap_sdc_vfio_client_region(struct sdc_vfio_client *client, uint32_t index, struct sdc_vfio_region *region, struct sdc_error *err)
{
    (void)client, (void)err;
    *region = (struct sdc_vfio_region){
        .index = index, .readable = true, .writable = true, .size = index == 0 ? course.bar_size : 0, .fd = -1};
    return 0;
}

int __wrap_sdc_vfio_client_ioeventfds(struct sdc_vfio_client *client, const struct sdc_vfio_region *region,
                                      struct sdc_vfio_ioeventfds *list, struct sdc_error *err);
int __wrap_sdc_vfio_client_ioeventfds(struct sdc_vfio_client *client, const struct sdc_vfio_region *region,
                                      struct sdc_vfio_ioeventfds *list, struct sdc_error *err)
{
    (void)client, (void)region, (void)err;
    *list = (struct sdc_vfio_ioeventfds){0};
    return -EINVAL;
}

int __wrap_sdc_vfio_client_irq(struct sdc_vfio_client *client, uint32_t index, struct sdc_vfio_irq *irq, struct sdc_error *err);
int __wrap_sdc_vfio_client_irq(struct sdc_vfio_client *client, uint32_t index, struct sdc_vfio_irq *irq, struct sdc_error *err)
{
    (void)client, (void)err;
    *irq = (struct sdc_vfio_irq){.index = index, .count = course.vectors};
    return 0;
}

int __wrap_sdc_vfio_client_read(struct sdc_vfio_client *client, uint32_t region, uint64_t offset, void *data, size_t size,
                                struct sdc_error *err);
int __wrap_sdc_vfio_client_read(struct sdc_vfio_client *client, uint32_t region, uint64_t offset, void *data, size_t size,
                                struct sdc_error *err)
{
    uint8_t raw[256] = {0};

    (void)client, (void)err;
    fuzz_check(sdc_within(offset, size, region == CONFIG ? 256 : course.bar_size), "a read outside its region");
    if (region == CONFIG) {
        sdc_put32(raw + 8, 0x01080200);
        memcpy(data, raw + offset, size);
    } else {
        sdc_put32(raw, read_register(offset));
        memcpy(data, raw, size);
    }
    return is_odd() && is_odd() ? -ECONNRESET : 0;
}

int __wrap_sdc_vfio_client_write(struct sdc_vfio_client *client, uint32_t region, uint64_t offset, const void *data, size_t size,
                                 struct sdc_error *err);
int __wrap_sdc_vfio_client_write(struct sdc_vfio_client *client, uint32_t region, uint64_t offset, const void *data, size_t size,
                                 struct sdc_error *err)
{
    (void)client, (void)err;
    fuzz_check(sdc_within(offset, size, region == CONFIG ? 256 : course.bar_size), "a write outside its region");
    if (region == 0)
        write_register(offset, sdc_get32(data));
    return 0;
}

int __wrap_sdc_vfio_client_post(struct sdc_vfio_client *client, uint32_t region, uint64_t offset, const void *data, size_t size,
                                struct sdc_error *err);
int __wrap_sdc_vfio_client_post(struct sdc_vfio_client *client, uint32_t region, uint64_t offset, const void *data, size_t size,
                                struct sdc_error *err)
{
    (void)client, (void)err;
    fuzz_check(region == 0 && size == 4, "a posted write to something else than a doorbell");
    ring(offset, sdc_get32(data));
    return 0;
}

int __wrap_sdc_vfio_client_write_multi(struct sdc_vfio_client *client, const struct sdc_vfio_write *writes, size_t count, bool posted,
                                       struct sdc_error *err);
int __wrap_sdc_vfio_client_write_multi(struct sdc_vfio_client *client, const struct sdc_vfio_write *writes, size_t count, bool posted,
                                       struct sdc_error *err)
{
    (void)client, (void)posted, (void)err;
    for (size_t i = 0; i < count; i++)
        ring(writes[i].offset, sdc_get32(writes[i].data));
    return 0;
}

int __wrap_sdc_vfio_client_map(struct sdc_vfio_client *client, uint64_t iova, uint64_t size, uint32_t flags, int fd, uint64_t offset,
                               struct sdc_error *err);
int __wrap_sdc_vfio_client_map(struct sdc_vfio_client *client, uint64_t iova, uint64_t size, uint32_t flags, int fd, uint64_t offset,
                               struct sdc_error *err)
{
    (void)client, (void)iova, (void)size, (void)flags, (void)fd, (void)offset, (void)err;
    return -EINVAL; // all memory here is private
}

int __wrap_sdc_vfio_client_map_private(struct sdc_vfio_client *client, uint64_t iova, uint64_t size, uint32_t flags, void *host,
                                       struct sdc_error *err);
int __wrap_sdc_vfio_client_map_private(struct sdc_vfio_client *client, uint64_t iova, uint64_t size, uint32_t flags, void *host,
                                       struct sdc_error *err)
{
    (void)client, (void)flags, (void)err;
    fuzz_check(course.memories_count < MEMORIES, "so many pieces of memory");
    course.memories[course.memories_count++] = (struct sdc_client_memory){.base = host, .iova = iova, .size = size};
    return 0;
}

int __wrap_sdc_vfio_client_serve_start(struct sdc_vfio_client *client, struct sdc_error *err);
int __wrap_sdc_vfio_client_serve_start(struct sdc_vfio_client *client, struct sdc_error *err)
{
    (void)client, (void)err;
    return 0;
}

int __wrap_sdc_vfio_client_process(struct sdc_vfio_client *client, struct sdc_error *err);
int __wrap_sdc_vfio_client_process(struct sdc_vfio_client *client, struct sdc_error *err)
{
    (void)client, (void)err;
    return 0;
}

int __wrap_sdc_vfio_client_fd(const struct sdc_vfio_client *client);
int __wrap_sdc_vfio_client_fd(const struct sdc_vfio_client *client)
{
    (void)client;
    return -1;
}

void __wrap_sdc_vfio_client_close(struct sdc_vfio_client *client);
void __wrap_sdc_vfio_client_close(struct sdc_vfio_client *client)
{
    (void)client;
}

int __wrap_sdc_wait_fd(int fd, unsigned wanted, int timeout_ms);
int __wrap_sdc_wait_fd(int fd, unsigned wanted, int timeout_ms)
{
    (void)fd, (void)wanted, (void)timeout_ms;
    return 0;
}

uint64_t __wrap_sdc_clock_ns(void);
uint64_t __wrap_sdc_clock_ns(void)
{
    return course.now += TICK_NS;
}

// --- the driver's user ---

struct user {
    struct sdc_driver_disk *disk;
    struct sdc_driver_disk_queue *queue;
    struct sdc_driver_disk_request requests[REQUESTS];
    bool in_flight[REQUESTS];
};

static void submit(struct user *user, struct fuzz_input *input)
{
    uint32_t block = sdc_driver_disk_info(user->disk)->block_size;

    for (unsigned i = 0; i < REQUESTS; i++) {
        struct sdc_driver_disk_request *request = &user->requests[i], *list = request;
        if (user->in_flight[i])
            continue;
        uint8_t what = fuzz_u8(input);
        *request = (struct sdc_driver_disk_request){.op = what & 7,
                                                    .offset = (uint64_t)fuzz_u16(input) * block,
                                                    .size = (uint64_t)(fuzz_u8(input) + 1) * block,
                                                    .data = DATA_IOVA + (fuzz_u16(input) & ~3u)};
        if (request->data + request->size > DATA_IOVA + DATA_BYTES)
            request->size = block;
        user->in_flight[i] = sdc_driver_disk_submit(user->queue, &list, 1) == 1;
        if (what & 8)
            break;
    }
    sdc_driver_disk_kick(user->queue, NULL);
}

static void take(struct user *user, unsigned most)
{
    struct sdc_driver_disk_request *done[REQUESTS];
    int count = sdc_driver_disk_take(user->queue, done, most % REQUESTS + 1, NULL);

    for (int i = 0; i < count; i++) {
        size_t which = (size_t)(done[i] - user->requests);
        fuzz_check(which < REQUESTS && user->in_flight[which], "a request comes back that is not in flight");
        user->in_flight[which] = false;
    }
}

static void use(struct user *user, struct fuzz_input *input)
{
    for (unsigned i = 0; i < OPS_MAX && fuzz_more(input); i++) {
        uint8_t op = fuzz_u8(input);
        if (op % 8 < 4)
            submit(user, input);
        else if (op % 8 < 6)
            take(user, op >> 3);
        else if (op % 8 == 6)
            sdc_driver_disk_check(user->disk, NULL);
        else if (sdc_driver_disk_reset_queue(user->disk, 0, NULL) < 0)
            break;
        else
            memset(user->in_flight, 0, sizeof user->in_flight);
    }
}

static int open_disk(struct user *user, struct fuzz_input *input, struct sdc_client_memory *data)
{
    uint8_t how = fuzz_u8(input);
    struct sdc_driver_nvme_options options = {.nsid = how & 1, .sgl = how & 2, .memory = SDC_CLIENT_MEMORY_PRIVATE};
    struct sdc_driver_disk_options setup = {
        .queues = 1 + (how >> 2) % 3, .queue_size = fuzz_u8(input), .depth = fuzz_u8(input) % 64, .poll = true,
        .memory = SDC_CLIENT_MEMORY_PRIVATE};
    int ret = sdc_driver_nvme_open((struct sdc_vfio_client *)(void *)&course, &options, &user->disk, NULL);

    if (ret < 0)
        return ret;
    const struct sdc_driver_disk_info *info = sdc_driver_disk_info(user->disk);
    fuzz_check(sdc_is_power_of_two(info->block_size) && info->block_size >= 512 && info->block_size <= 65536 && info->size > 0 &&
                   info->queues > 0 && info->request_max > 0,
               "a disk that makes no sense");
    course.block_size = info->block_size;
    setup.request_max = sdc_min(info->request_max, 256 * (uint64_t)info->block_size);
    ret = sdc_driver_disk_start(user->disk, &setup, NULL);
    if (ret == 0)
        ret = sdc_client_memory_new_private(data, DATA_IOVA, DATA_BYTES, NULL);
    if (ret == 0)
        ret = sdc_driver_disk_map(user->disk, data, NULL);
    return ret;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    struct sdc_client_memory memory = {.fd = -1};
    static struct user user;

    user = (struct user){0};
    course = (struct course){.input = &input, .bar_size = 0x4000, .version = SDC_NVME_VERSION_2_0};
    course.odd = fuzz_u8(&input);
    course.cap = 255 | UINT64_C(1) << SDC_NVME_CAP_CSS | UINT64_C(1) << SDC_NVME_CAP_TO;
    if (is_odd())
        course.cap ^= fuzz_u64(&input);
    if (is_odd())
        course.bar_size = fuzz_u16(&input);
    course.vectors = fuzz_u8(&input);
    if (open_disk(&user, &input, &memory) == 0) {
        user.queue = sdc_driver_disk_queue(user.disk, 0);
        use(&user, &input);
    }
    sdc_driver_disk_close(user.disk);
    sdc_client_memory_free(&memory);
    return 0;
}
