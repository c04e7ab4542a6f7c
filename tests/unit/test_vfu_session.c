// SPDX-License-Identifier: BSD-3-Clause
// A session with a card that does nothing. A client that does not read its replies: they are kept up to a limit, and the rest of what
// it asked for waits. A card of which a client may map a part. Interrupts that are held back, and features, of which no card has any.
#include "base/bytes.h"
#include "os/fd.h"
#include "os/memfd.h"
#include "vfu_fixture.h"

// --- replies that nobody reads ---

enum { COMMANDS = 120 };

// A client that has errors padded to the good reply's length gets 1 MiB for each of these 32 bytes. It reads none of them.
static void ask_for_much(struct fixture *f)
{
    static const char json[] = "\0\0\1\0{\"capabilities\":{\"max_msg_fds\":1}}"; // version 0.1: as Cloud Hypervisor
    struct sdc_vfu_region_access access = {.region = 0, .count = UINT32_MAX};

    send_message(f, 1000, SDC_VFU_VERSION, json, sizeof json);
    run_turns(f, 4);
    assert_int_equal(receive_reply(f).msg_id, 1000);
    assert_true(f->session->pads_errors);
    for (uint16_t id = 0; id < COMMANDS; id++)
        send_message(f, id, SDC_VFU_REGION_READ, &access, sizeof access);
    run_turns(f, 8);
}

static void replies_that_nobody_reads_are_bounded(void **state)
{
    struct fixture f;

    (void)state;
    open_session(&f);
    ask_for_much(&f);
    size_t unsent = vfu_stream_unsent(&f.session->stream);
    assert_true(unsent >= SDC_LIMIT_UNSENT / 2);
    assert_true(unsent <= SDC_LIMIT_UNSENT + SDC_LIMIT_MESSAGE);
    assert_false(f.ended);

    // It reads after all: every reply comes, in order, none twice.
    for (uint16_t id = 0; id < COMMANDS; id++) {
        struct sdc_vfu_header reply = receive_reply(&f);
        assert_int_equal(reply.msg_id, id);
        assert_true(f.session->stream.out_size <= SDC_LIMIT_UNSENT + 2 * SDC_LIMIT_MESSAGE); // what was sent takes no room
        assert_int_equal(reply.error, EINVAL);
        assert_int_equal(reply.msg_size, sizeof reply + sizeof(struct sdc_vfu_region_access) + SDC_LIMIT_DATA_XFER);
    }
    assert_int_equal(vfu_stream_unsent(&f.session->stream), 0);
    close_session(&f);
}

static void a_client_that_goes_without_reading_is_noticed(void **state)
{
    struct fixture f;

    (void)state;
    open_session(&f);
    ask_for_much(&f);
    close_session(&f);
}

// --- regions that may be mapped ---

enum { BAR = 0x4000, MEMORY = 0x10000, SPARSE = sizeof(struct sdc_vfu_cap_sparse_mmap) + sizeof(struct sdc_vfu_mmap_area) };

// BAR 0 may be mapped in part, BAR 2 as a whole, BAR 4 not at all.
static int offer_regions(struct fixture *f)
{
    int fd = sdc_memfd_new("bars", MEMORY);

    assert_true(fd >= 0);
    f->card.bars[0] = (struct sdc_pci_bar){
        .size = BAR, .mappable = {.areas = {{0x1000, 0x2000}}, .areas_count = 1, .fd = fd, .fd_offset = 0x8000}};
    f->card.bars[2] = (struct sdc_pci_bar){.size = BAR, .mappable = {.areas = {{0, BAR}}, .areas_count = 1, .fd = fd}};
    f->card.bars[4] = (struct sdc_pci_bar){.size = BAR};
    return fd;
}

// What came with the reply to a region info request, in one piece.
struct region_answer {
    struct sdc_vfu_header header;
    struct sdc_vfu_region_info info;
    struct sdc_vfu_cap_sparse_mmap cap;
    struct sdc_vfu_mmap_area area;
    int fds[SDC_SOCKET_FDS_MAX];
    int fds_count;
};

static struct region_answer ask_region(struct fixture *f, uint32_t index, uint32_t argsz, uint32_t size)
{
    uint8_t payload[4096] = {0};
    struct sdc_vfu_region_info request = {.argsz = argsz, .index = index};
    struct sdc_vfu_header header = {.cmd = SDC_VFU_GET_REGION_INFO, .msg_size = (uint32_t)sizeof header + size};
    struct region_answer answer = {0};

    memcpy(payload, &request, sizeof request);
    assert_int_equal(send(f->client, &header, sizeof header, MSG_DONTWAIT), sizeof header);
    assert_int_equal(send(f->client, payload, size, MSG_DONTWAIT), size);
    run_turns(f, 8);
    ssize_t got = sdc_socket_receive(f->client, &answer, offsetof(struct region_answer, fds), answer.fds, &answer.fds_count);
    assert_int_equal(got, answer.header.msg_size);
    assert_int_equal(answer.header.error, 0);
    assert_int_equal(answer.info.index, index);
    return answer;
}

static void close_fds(struct region_answer *answer)
{
    while (answer->fds_count > 0)
        sdc_fd_close(&answer->fds[--answer->fds_count]);
}

static void a_part_of_a_region_is_one_area_and_one_fd(void **state)
{
    // As SPDK asks, as QEMU and Cloud Hypervisor ask the second time, and with all that a client may say.
    static const struct {
        uint32_t argsz, size;
    } cases[] = {{4064, 4064}, {32 + SPARSE, 32}, {32 + SPARSE, 32 + SPARSE}, {UINT32_MAX, 32}};
    struct fixture f;

    (void)state;
    open_session(&f);
    int fd = offer_regions(&f);
    say_version(&f, "{\"capabilities\":{\"max_msg_fds\":1}}");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct region_answer answer = ask_region(&f, 0, cases[i].argsz, cases[i].size);
        assert_int_equal(answer.header.msg_size, 48 + SPARSE);
        assert_int_equal(answer.info.argsz, 32 + SPARSE); // Cloud Hypervisor asserts that the two agree
        assert_int_equal(answer.info.flags, SDC_VFU_REGION_READABLE | SDC_VFU_REGION_WRITABLE | SDC_VFU_REGION_MMAP | SDC_VFU_REGION_CAPS);
        assert_int_equal(answer.info.cap_offset, 32);
        assert_int_equal(answer.info.size, BAR);
        assert_int_equal(answer.info.offset, 0x8000);
        assert_int_equal(answer.cap.header.id, SDC_VFU_CAP_SPARSE_MMAP);
        assert_int_equal(answer.cap.header.version, 1);
        assert_int_equal(answer.cap.header.next, 0);
        assert_int_equal(answer.cap.nr_areas, 1);
        assert_int_equal(answer.area.offset, 0x1000);
        assert_int_equal(answer.area.size, 0x2000);
        assert_int_equal(answer.fds_count, 1);
        close_fds(&answer);
    }
    close_session(&f);
    assert_true(sdc_fd_is_open(fd)); // it is the card's
    close(fd);
}

static void a_short_argsz_learns_how_much_to_bring(void **state)
{
    static const uint32_t argsz[] = {32, 33, 48, 63};
    struct fixture f;

    (void)state;
    open_session(&f);
    int fd = offer_regions(&f);
    say_version(&f, "{\"capabilities\":{}}");
    for (size_t i = 0; i < sizeof argsz / sizeof argsz[0]; i++) {
        struct region_answer answer = ask_region(&f, 0, argsz[i], 32);
        assert_int_equal(answer.header.msg_size, 48);
        assert_int_equal(answer.info.argsz, 32 + SPARSE);
        assert_int_equal(answer.info.flags, SDC_VFU_REGION_READABLE | SDC_VFU_REGION_WRITABLE);
        assert_int_equal(answer.info.cap_offset, 0);
        assert_int_equal(answer.info.size, BAR);
        assert_int_equal(answer.fds_count, 0);
    }
    close_session(&f);
    close(fd);
}

static void a_whole_region_needs_no_capability(void **state)
{
    struct fixture f;
    void *mapped;

    (void)state;
    open_session(&f);
    int fd = offer_regions(&f);
    say_version(&f, "{\"capabilities\":{}}");
    struct region_answer answer = ask_region(&f, 2, 32, 32);
    assert_int_equal(answer.header.msg_size, 48);
    assert_int_equal(answer.info.argsz, 32);
    assert_int_equal(answer.info.flags, SDC_VFU_REGION_READABLE | SDC_VFU_REGION_WRITABLE | SDC_VFU_REGION_MMAP);
    assert_int_equal(answer.info.cap_offset, 0);
    assert_int_equal(answer.info.offset, 0);
    assert_int_equal(answer.fds_count, 1);
    assert_int_equal(sdc_fd_map(answer.fds[0], BAR, true, &mapped), 0);
    assert_int_equal(ftruncate(answer.fds[0], 0), -1); // the card's memory stays
    sdc_unmap(mapped, BAR);
    close_fds(&answer);

    answer = ask_region(&f, 4, 4064, 32);
    assert_int_equal(answer.header.msg_size, 48);
    assert_int_equal(answer.info.argsz, 32);
    assert_int_equal(answer.info.flags, SDC_VFU_REGION_READABLE | SDC_VFU_REGION_WRITABLE);
    assert_int_equal(answer.fds_count, 0);
    close_session(&f);
    close(fd);
}

// The kernel counts fds on their way against the sender's user: what a client does not take is refused to it.
static void fds_that_nobody_takes_are_bounded(void **state)
{
    struct sdc_vfu_region_info request = {.argsz = 4064, .index = 0};
    struct fixture f;
    unsigned refused = 0;

    (void)state;
    open_session(&f);
    int fd = offer_regions(&f);
    say_version(&f, "{\"capabilities\":{}}");
    for (uint16_t id = 0; id < 200; id++) {
        send_message(&f, id, SDC_VFU_GET_REGION_INFO, &request, sizeof request);
        run_turns(&f, 4);
    }
    for (uint16_t id = 0; id < 200; id++) {
        struct sdc_vfu_header reply = receive_reply(&f); // which leaves the fds to the kernel
        assert_int_equal(reply.msg_id, id);
        assert_int_equal(reply.error, id < SDC_LIMIT_UNREAD_FDS ? 0 : EBUSY);
        refused += reply.error != 0;
    }
    assert_int_equal(refused, 200 - SDC_LIMIT_UNREAD_FDS);
    struct region_answer answer = ask_region(&f, 0, 4064, 32);
    assert_int_equal(answer.fds_count, 1);
    close_fds(&answer);
    close_session(&f);
    close(fd);
}

// Several messages with fds stand in the queue at once: each takes its own along, however the bytes are cut.
static void fds_go_with_their_own_messages(void **state)
{
    struct fixture f;

    (void)state;
    open_session(&f);
    int fd = offer_regions(&f);
    say_version(&f, "{\"capabilities\":{}}");
    for (uint16_t id = 0; id < 12; id++) {
        struct sdc_vfu_region_info request = {.argsz = 4064, .index = id % 3 == 0 ? 4 : 0};
        send_message(&f, id, SDC_VFU_GET_REGION_INFO, &request, sizeof request);
    }
    run_turns(&f, 8);
    for (uint16_t id = 0; id < 12; id++) {
        struct region_answer answer = {0};
        ssize_t got = sdc_socket_receive(f.client, &answer, sizeof answer.header, answer.fds, &answer.fds_count);
        assert_int_equal(got, sizeof answer.header);
        assert_int_equal(answer.header.msg_id, id);
        assert_int_equal(answer.fds_count, id % 3 == 0 ? 0 : 1);
        close_fds(&answer);
        receive(&f, NULL, answer.header.msg_size - sizeof answer.header);
    }
    close_session(&f);
    close(fd);
}

// --- MSI, which keeps no pending bits of its own ---

static void set_irqs(struct fixture *f, uint32_t flags, uint32_t start, uint32_t count, int fd)
{
    struct {
        struct sdc_vfu_header header;
        struct sdc_vfu_set_irqs set;
    } message = {
        .header = {.cmd = SDC_VFU_SET_IRQS, .msg_size = sizeof message},
        .set = {.argsz = sizeof message.set, .flags = flags, .index = SDC_PCI_MSI, .start = start, .count = count},
    };
    struct iovec iov = {&message, sizeof message};

    assert_int_equal(sdc_socket_send(f->client, &iov, 1, &fd, fd >= 0), sizeof message);
    assert_int_equal(receive_reply(f).error, 0);
}

static void a_masked_msi_comes_with_the_unmask_or_is_forgotten(void **state)
{
    static const uint32_t mask = SDC_VFU_IRQ_DATA_NONE | SDC_VFU_IRQ_ACTION_MASK;
    static const uint32_t unmask = SDC_VFU_IRQ_DATA_NONE | SDC_VFU_IRQ_ACTION_UNMASK;
    int event = sdc_eventfd_new();
    struct fixture f;

    (void)state;
    open_session(&f);
    say_version(&f, "{\"capabilities\":{}}");
    sdc_pci_interrupt(&f.card, SDC_PCI_MSI, 1); // nobody is there to take it, and nobody will
    set_irqs(&f, SDC_VFU_IRQ_DATA_EVENTFD | SDC_VFU_IRQ_ACTION_TRIGGER, 1, 1, event);
    assert_int_equal(sdc_eventfd_take(event), 0);
    sdc_pci_interrupt(&f.card, SDC_PCI_MSI, 1);
    sdc_pci_interrupt(&f.card, SDC_PCI_MSI, 0); // without an eventfd
    sdc_pci_interrupt(&f.card, SDC_PCI_MSI, 2); // there is none
    assert_int_equal(sdc_eventfd_take(event), 1);

    set_irqs(&f, mask, 0, 2, -1);
    sdc_pci_interrupt(&f.card, SDC_PCI_MSI, 1);
    sdc_pci_interrupt(&f.card, SDC_PCI_MSI, 1);
    assert_int_equal(sdc_eventfd_take(event), 0);
    set_irqs(&f, unmask, 0, 2, -1);
    assert_int_equal(sdc_eventfd_take(event), 1);
    set_irqs(&f, unmask, 0, 2, -1);
    assert_int_equal(sdc_eventfd_take(event), 0);

    set_irqs(&f, mask, 1, 1, -1);
    sdc_pci_interrupt(&f.card, SDC_PCI_MSI, 1);
    send_message(&f, 1, SDC_VFU_RESET, "", 0);
    assert_int_equal(receive_reply(&f).error, 0);
    set_irqs(&f, unmask, 1, 1, -1);
    assert_int_equal(sdc_eventfd_take(event), 0); // it was of the time before the reset
    sdc_pci_interrupt(&f.card, SDC_PCI_MSI, 1);
    assert_int_equal(sdc_eventfd_take(event), 1);
    close_session(&f);
    close(event);
}

// --- features ---

static unsigned served; // by serve_feature

static int serve_feature(struct vfu_session *session, struct vfu_message *message)
{
    served++;
    return vfu_reply(session, &message->header, 0) ? 0 : -EIO;
}

static void a_feature_is_probed_got_and_set_as_its_row_says(void **state)
{
    enum { GET = SDC_VFU_FEATURE_GET, SET = SDC_VFU_FEATURE_SET, PROBE = SDC_VFU_FEATURE_PROBE };
    static const struct vfu_feature table[] = {
        [1] = {.methods = GET, .serve = serve_feature},
        [2] = {.methods = GET | SET, .set_size = 8, .serve = serve_feature},
        [3] = {.methods = SET, .set_size = 16, .serve = serve_feature},
        [4] = {.methods = GET, .get_size = 24, .serve = serve_feature},
    };
    static const struct {
        uint32_t flags, size, argsz;
        int rc;
        uint32_t reply; // bytes of payload; probes only
    } cases[] = {
        {1 | PROBE, 8, 8, 0, 8},
        {1 | PROBE | GET, 8, 8, 0, 8},
        {1 | PROBE | SET, 8, 8, -EINVAL, 0},
        {1 | PROBE | GET | SET, 8, 8, -EINVAL, 0},
        {2 | PROBE | GET | SET, 8, 8, 0, 8},
        {3 | PROBE | GET, 8, 8, -EINVAL, 0},
        {3 | PROBE | SET, 8, 8, 0, 8}, // without the data that a SET needs
        {1 | GET, 8, 8, 0, 0},
        {1 | GET, 8, 7, -EINVAL, 0},
        {1 | GET, 8, 0, -EINVAL, 0},
        {1 | GET, 8, UINT32_MAX, 0, 0},
        {1 | SET, 8, 8, -EINVAL, 0},
        {1, 8, 8, -EINVAL, 0}, // neither
        {2 | GET | SET, 32, 32, -EINVAL, 0}, // both
        {2 | SET, 15, 64, -EINVAL, 0}, // a byte of the data is missing, whatever argsz says
        {2 | SET, 16, 16, 0, 0},
        {2 | GET, 8, 16, 0, 0},
        {4 | GET, 31, 64, -EINVAL, 0},
        {4 | GET, 32, 64, 0, 0},
        {1 | GET | 1u << 19, 8, 8, -EINVAL, 0},
        {1 | GET | 1u << 31, 8, 8, -EINVAL, 0},
        {0 | GET, 8, 8, -ENOTTY, 0},
        {0 | PROBE, 8, 8, -ENOTTY, 0},
        {5 | PROBE, 8, 8, -ENOTTY, 0}, // past the table
        {0xffff | GET, 8, 8, -ENOTTY, 0},
        {0x101 | GET, 8, 8, -ENOTTY, 0},
    };
    struct fixture f;

    (void)state;
    open_session(&f);
    say_version(&f, "{\"capabilities\":{}}");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct sdc_vfu_device_feature request[8] = {{.argsz = cases[i].argsz, .flags = cases[i].flags}};
        struct vfu_message message = {
            .header = {.cmd = SDC_VFU_DEVICE_FEATURE}, .payload = (const uint8_t *)request, .size = cases[i].size};
        bool probe = cases[i].flags & PROBE;
        unsigned before = served;
        assert_int_equal(vfu_feature_serve(f.session, &message, table, sizeof table / sizeof table[0]), cases[i].rc);
        assert_int_equal(served - before, cases[i].rc == 0 && !probe);
        if (cases[i].rc < 0)
            continue;
        vfu_session_step(f.session);
        struct sdc_vfu_header header;
        struct sdc_vfu_device_feature reply;
        receive(&f, &header, sizeof header);
        assert_int_equal(header.msg_size, sizeof header + cases[i].reply);
        if (probe) { // the request again
            receive(&f, &reply, sizeof reply);
            assert_memory_equal(&reply, request, sizeof reply);
        }
    }
    close_session(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replies_that_nobody_reads_are_bounded),
        cmocka_unit_test(a_client_that_goes_without_reading_is_noticed),
        cmocka_unit_test(a_part_of_a_region_is_one_area_and_one_fd),
        cmocka_unit_test(a_short_argsz_learns_how_much_to_bring),
        cmocka_unit_test(a_whole_region_needs_no_capability),
        cmocka_unit_test(fds_that_nobody_takes_are_bounded),
        cmocka_unit_test(fds_go_with_their_own_messages),
        cmocka_unit_test(a_masked_msi_comes_with_the_unmask_or_is_forgotten),
        cmocka_unit_test(a_feature_is_probed_got_and_set_as_its_row_says),
    };

    RUN_WITH_EVERY_LOOP(tests);
}
