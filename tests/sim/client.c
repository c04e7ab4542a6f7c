// SPDX-License-Identifier: BSD-3-Clause
// The VMM: speaks vfio-user with the product's session, and answers its DMA messages late and in any order. It takes structures from
// the protocol's description only.
#include "sim.h"

#include "transport/vfio_user/session.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    COMMANDS = 64,
    QUESTIONS = 256,
    MESSAGE_MAX = 64 * 1024,
    HEAD = sizeof(struct sdc_vfu_dma_access),
};

// A DMA message that has not been answered.
struct question {
    struct sdc_vfu_header header;
    struct sdc_vfu_dma_access access;
    uint32_t data_offset;
    uint8_t *data; // that was read
    int error;
};

static struct sim_command commands[COMMANDS];
static struct question questions[QUESTIONS];
static unsigned questions_count;
static uint16_t next_id;
static uint8_t in[MESSAGE_MAX];
static size_t in_used;
static struct vfu_session *session;
static bool connected, agreed, ended, dma_asked;
static bool masked[SIM_QUEUES + 1];

static const struct sdc_vfu_options options = {.name = "sim"};

// --- commands ---

static void post(uint16_t id, uint16_t command, uint32_t flags, const void *payload, size_t size, const int *fds, unsigned count)
{
    uint8_t bytes[512];
    struct sdc_vfu_header header = {.msg_id = id, .cmd = command, .msg_size = (uint32_t)(sizeof header + size), .flags = flags};

    memcpy(bytes, &header, sizeof header);
    if (size > 0)
        memcpy(bytes + sizeof header, payload, size);
    sim_socket_write(bytes, header.msg_size, fds, count);
}

struct sim_command *sim_send(uint16_t command, const void *payload, size_t size, const int *fds, unsigned count)
{
    for (unsigned i = 0; i < COMMANDS; i++) {
        struct sim_command *made = &commands[i];
        if (made->busy)
            continue;
        *made = (struct sim_command){.busy = true, .id = next_id++, .command = command};
        EVENT("client: command %llu, id %llu", command, made->id);
        post(made->id, command, SDC_VFU_TYPE_COMMAND, payload, size, fds, count);
        return made;
    }
    sim_fail("too many commands are under way");
}

int sim_reply(struct sim_command *command, const char *what)
{
    sim_wait(&command->replied, what);
    command->busy = false;
    return command->error;
}

static void take_reply(const struct sdc_vfu_header *header, const uint8_t *payload, uint32_t size)
{
    for (unsigned i = 0; i < COMMANDS; i++) {
        struct sim_command *command = &commands[i];
        if (!command->busy || command->replied || command->id != header->msg_id || command->command != header->cmd)
            continue;
        EVENT("client: reply to id %llu, error %llu", header->msg_id, header->error);
        command->replied = true;
        command->error = header->flags & SDC_VFU_ERROR ? (int)header->error : 0;
        if (header->flags & SDC_VFU_ERROR && header->error == 0)
            sim_fail("an error reply without an error");
        command->size = size < sizeof command->data ? size : sizeof command->data;
        memcpy(command->data, payload, command->size);
        if (command->done)
            command->done(command);
        return;
    }
    sim_fail("a reply to nothing: id %u, command %u", header->msg_id, header->cmd);
}

// --- DMA messages ---

// Where the data stands. An older client's structure has a 32-bit count and is as long, so that the data begins inside of it.
static uint32_t data_offset(void)
{
    return dma_asked && plan.old_client ? 12 : HEAD;
}

static void take_question(const struct sdc_vfu_header *header, const uint8_t *payload, uint32_t size)
{
    struct question *question = &questions[questions_count++];
    bool write = header->cmd == SDC_VFU_DMA_WRITE;
    struct sdc_vfu_dma_access access = {0};

    if (questions_count > QUESTIONS - 1)
        sim_fail("%u DMA messages at a time", questions_count);
    if (size < HEAD)
        sim_fail("a short DMA message");
    memcpy(&access, payload, data_offset());
    *question = (struct question){.header = *header, .access = access, .data_offset = data_offset()};
    if (size != HEAD + (write ? access.count : 0))
        sim_fail("a DMA message of %u bytes for %llu", size, (unsigned long long)access.count);
    if (!dma_asked && (access.count != 0 || !write))
        sim_fail("the first DMA message is not the question");
    EVENT("client: DMA %llu (11 reads) of %llu bytes at %llx, id %llu", header->cmd, access.count, access.address, header->msg_id);
    if (access.count == 0) {
        dma_asked = true;
        return;
    }
    // A used ring of which a part is missing would tell the driver anything.
    bool sacred = write && sim_driver->rings_touch(access.address, access.count);
    if (!sacred && sim_chance(plan.refusals, 256)) {
        question->error = EIO;
        sim_driver->refused();
        return;
    }
    question->data = malloc(access.count);
    if (!question->data)
        abort();
    if (write)
        memcpy(question->data, payload + data_offset(), access.count);
    question->error = sim_guest_dma(access.address, question->data, access.count, write);
}

bool sim_client_can_answer(void)
{
    return questions_count > 0;
}

void sim_client_answer(void)
{
    static uint8_t bytes[MESSAGE_MAX];
    unsigned which = sim_below(questions_count);
    struct question question = questions[which];
    struct sdc_vfu_header header = question.header;
    bool write = header.cmd == SDC_VFU_DMA_WRITE;
    uint32_t count = (uint32_t)question.access.count;
    uint32_t size = 0;

    memset(bytes, 0, sizeof header + HEAD + (write ? 0 : count));
    if (!question.error && !(write && plan.old_client)) { // its answers to writes are bare
        memcpy(bytes + sizeof header, &question.access, question.data_offset);
        if (!write)
            memcpy(bytes + sizeof header + question.data_offset, question.data, count);
        size = HEAD + (write ? 0 : count);
    }
    header.flags = SDC_VFU_TYPE_REPLY | (question.error ? SDC_VFU_ERROR : 0);
    header.error = (uint32_t)question.error;
    header.msg_size = (uint32_t)sizeof header + size;
    memcpy(bytes, &header, sizeof header);
    EVENT("client: answers DMA id %llu, error %llu", header.msg_id, header.error);
    sim_socket_write(bytes, header.msg_size, NULL, 0);
    free(question.data);
    questions[which] = questions[--questions_count];
}

// --- messages ---

bool sim_client_connected(void)
{
    return connected;
}

static bool have_message(struct sdc_vfu_header *header)
{
    if (in_used < sizeof *header)
        return false;
    memcpy(header, in, sizeof *header);
    if (header->msg_size < sizeof *header || header->msg_size > sizeof in)
        sim_fail("a message of %u bytes", header->msg_size);
    return in_used >= header->msg_size;
}

bool sim_client_can_read(void)
{
    struct sdc_vfu_header header;

    return connected && (sim_socket_pending() > 0 || have_message(&header));
}

void sim_client_read(void)
{
    struct sdc_vfu_header header;

    if (!have_message(&header)) {
        in_used += sim_socket_read(in + in_used, sizeof in - in_used);
        if (!have_message(&header))
            return;
    }
    uint32_t size = header.msg_size - (uint32_t)sizeof header;
    if ((header.flags & SDC_VFU_TYPE_MASK) == SDC_VFU_TYPE_REPLY)
        take_reply(&header, in + sizeof header, size);
    else if (header.flags == SDC_VFU_TYPE_COMMAND && (header.cmd == SDC_VFU_DMA_READ || header.cmd == SDC_VFU_DMA_WRITE))
        take_question(&header, in + sizeof header, size);
    else
        sim_fail("a message of kind %u with flags %#x", header.cmd, header.flags);
    in_used -= header.msg_size;
    memmove(in, in + header.msg_size, in_used);
}

// --- what a VMM and its guest do ---

void sim_register_write(uint64_t offset, unsigned size, uint64_t value)
{
    uint8_t bytes[sizeof(struct sdc_vfu_region_access) + 8];
    struct sdc_vfu_region_access access = {.offset = offset, .region = sim_driver->bar, .count = size};

    memcpy(bytes, &access, sizeof access);
    memcpy(bytes + sizeof access, &value, size);
    if (sim_reply(sim_send(SDC_VFU_REGION_WRITE, bytes, sizeof access + size, NULL, 0), "a register is written"))
        sim_fail("writing the register at %#llx was refused", (unsigned long long)offset);
}

void sim_post_write(uint64_t offset, unsigned size, uint64_t value)
{
    uint8_t bytes[sizeof(struct sdc_vfu_region_access) + 8];
    struct sdc_vfu_region_access access = {.offset = offset, .region = sim_driver->bar, .count = size};

    memcpy(bytes, &access, sizeof access);
    memcpy(bytes + sizeof access, &value, size);
    post(next_id++, SDC_VFU_REGION_WRITE, SDC_VFU_TYPE_COMMAND | SDC_VFU_NO_REPLY, bytes, sizeof access + size, NULL, 0);
}

uint64_t sim_register_read(uint64_t offset, unsigned size)
{
    struct sdc_vfu_region_access access = {.offset = offset, .region = sim_driver->bar, .count = size};
    uint64_t value = 0;
    struct sim_command *command = sim_send(SDC_VFU_REGION_READ, &access, sizeof access, NULL, 0);

    if (sim_reply(command, "a register is read") || command->size != sizeof access + size)
        sim_fail("reading the register at %#llx was refused", (unsigned long long)offset);
    memcpy(&value, command->data + sizeof access, size);
    return value;
}

void sim_config_write(uint32_t offset, unsigned size, uint32_t value)
{
    uint8_t bytes[sizeof(struct sdc_vfu_region_access) + 4];
    struct sdc_vfu_region_access access = {.offset = offset, .region = SDC_PCI_CONFIG, .count = size};

    memcpy(bytes, &access, sizeof access);
    memcpy(bytes + sizeof access, &value, size);
    if (sim_reply(sim_send(SDC_VFU_REGION_WRITE, bytes, sizeof access + size, NULL, 0), "the configuration space is written"))
        sim_fail("writing the configuration space was refused");
}

int sim_device_reset(void)
{
    return sim_reply(sim_send(SDC_VFU_RESET, NULL, 0, NULL, 0), "DEVICE_RESET");
}

void sim_set_irqs(uint32_t vectors)
{
    int fds[16];
    struct sdc_vfu_set_irqs set = {.argsz = sizeof set,
                                   .flags = SDC_VFU_IRQ_DATA_EVENTFD | SDC_VFU_IRQ_ACTION_TRIGGER,
                                   .index = SDC_PCI_MSIX,
                                   .count = vectors};

    for (uint32_t i = 0; i < vectors; i++)
        fds[i] = sim_fd_new(SIM_FD_EVENT, i);
    if (sim_reply(sim_send(SDC_VFU_SET_IRQS, &set, sizeof set, fds, vectors), "SET_IRQS"))
        sim_fail("SET_IRQS was refused");
}

static void mask_irq(uint32_t vector, bool mask)
{
    struct sdc_vfu_set_irqs set = {.argsz = sizeof set,
                                   .flags = SDC_VFU_IRQ_DATA_NONE | (mask ? SDC_VFU_IRQ_ACTION_MASK : SDC_VFU_IRQ_ACTION_UNMASK),
                                   .index = SDC_PCI_MSIX,
                                   .start = vector,
                                   .count = 1};

    if (!mask)
        masked[vector] = false;
    if (sim_reply(sim_send(SDC_VFU_SET_IRQS, &set, sizeof set, NULL, 0), "a vector is masked or unmasked"))
        sim_fail("masking was refused");
    masked[vector] = mask;
}

void sim_mask_some_irq(void)
{
    uint32_t vector = sim_below(plan.queues + 1);

    if (!plan.masks)
        return;
    mask_irq(vector, !masked[vector]);
    EVENT("client: vector %llu masked: %llu", vector, masked[vector]);
}

void sim_unmask_irqs(void)
{
    for (uint32_t i = 0; i <= plan.queues; i++) {
        if (masked[i])
            mask_irq(i, false);
    }
}

bool sim_irq_masked(uint32_t vector)
{
    return masked[vector];
}

// --- life ---

static void session_ended(struct vfu_session *which)
{
    (void)which;
    ended = true;
    EVENT("the session has ended");
}

void sim_client_open(void)
{
    static const char json[] = "{\"capabilities\":{\"max_msg_fds\":8,\"max_data_xfer_size\":4096,\"pgsizes\":4096,"
                               "\"write_multiple\":true}}";
    uint8_t payload[sizeof(struct sdc_vfu_version) + sizeof json];
    struct sdc_vfu_version version = {.major = 0, .minor = 2};

    memset(commands, 0, sizeof commands);
    memset(masked, 0, sizeof masked);
    questions_count = 0;
    next_id = 0;
    in_used = 0;
    connected = true;
    agreed = ended = dma_asked = false;
    sim_socket_open();
    sim_home_enter();
    session = vfu_session_new(sim_loop(0), sim_fd_new(SIM_FD_SOCKET, 0), sim_card, &options, session_ended, NULL);
    sim_home_leave();
    memcpy(payload, &version, sizeof version);
    memcpy(payload + sizeof version, json, sizeof json);
    if (sim_reply(sim_send(SDC_VFU_VERSION, payload, sizeof payload, NULL, 0), "VERSION"))
        sim_fail("VERSION was refused");
    agreed = true;
}

static void drop_questions(void)
{
    while (questions_count > 0)
        free(questions[--questions_count].data);
}

void sim_client_close(void)
{
    EVENT("client: leaves");
    sim_driver->leave();
    connected = agreed = false;
    drop_questions();
    sim_socket_close();
    sim_wait(&ended, "the session ends");
    vfu_session_free(session);
    session = NULL;
    memset(commands, 0, sizeof commands);
    if (sim_fds_open() > 0)
        sim_fail("%u fds are open when the session has ended", sim_fds_open());
    sim_guest_forget();
    sim_driver->lost();
}

void sim_client_reconnect(void)
{
    sim_client_close();
    if (sim_disk_queues() > 0)
        sim_fail("the session is over with %u of the backend's queues open", sim_disk_queues());
    sim_client_open();
    sim_set_irqs(plan.queues + 1);
}

void sim_client_abort(void)
{
    drop_questions();
    session = NULL;
}

bool sim_client_ended(void)
{
    return ended;
}

bool sim_client_agreed(void)
{
    return agreed;
}

void sim_irq(uint32_t vector)
{
    if (!connected)
        return;
    EVENT("interrupt of vector %llu", vector);
    if (masked[vector])
        sim_fail("an interrupt of vector %u, which is masked", vector);
    sim_driver->irq(vector);
}
