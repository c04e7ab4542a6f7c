// SPDX-License-Identifier: BSD-3-Clause
// A controller's process is killed before each store that another process would find, one store after the other, and another process goes
// on: every command of the driver completes once, with the status that it would have had.
#include "nvme_fixture.h"

#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    REGISTERS = 64 * 1024, // at most
    LIVE = 8 * 1024 * 1024,
    SIZE = 4, // entries of the I/O queues
    PATIENCE = 400, // turns
    KILLED = 77,
    SHADOW = 0xc000,
};

void (*sdc_step)(void);

// What both processes see: the guest, the record, and how far the driver has come.
static struct {
    uint8_t guest[GUEST_BYTES];
    uint8_t live[LIVE];
    uint8_t registers[REGISTERS];
    struct {
        bool pending; // not consumed: it is handled again
        uint64_t offset, value;
        uint32_t size;
    } message;
    unsigned done; // steps of the script
    uint32_t tail[NF_QUEUES + 1], head[NF_QUEUES + 1], size[NF_QUEUES + 1];
    bool phase[NF_QUEUES + 1];
    uint16_t cid;
} *shared;

static unsigned steps_left;
static unsigned killed_at; // for messages
static unsigned at; // step of the script

static void count_step(void)
{
    if (steps_left > 0 && --steps_left == 0)
        _exit(KILLED);
}

// --- a process ---

static void open_process(bool goes_on)
{
    struct sdc_nvme_options options = {.queues = NF_QUEUES, .depth = NF_DEPTH, .vectors = NF_QUEUES + 1,
                                       .shadow_doorbells = true, .write_cache = true};
    struct sdc_pci_state_needs needs;

    nf_start(&options);
    free(nf.guest.bytes);
    sdc_map_unref(nf.guest.map);
    nf.guest.bytes = shared->guest;
    nf.guest.map = guest_map(&nf.guest, false, UINT32_MAX);
    nf.guest.view = (struct sdc_memory){.map = nf.guest.map};
    nf.pci->ops->state_needs(nf.pci, &needs);
    assert_true(needs.registers <= REGISTERS && needs.live <= LIVE);
    nf.pci->ops->state_keep(nf.pci, shared->live, goes_on);
    nf.pci->ops->set_map(nf.pci, nf.guest.map);
    nf_run(2);
}

static void handle_message(void)
{
    uint64_t value = shared->message.value;

    assert_int_equal(nf_access(shared->message.offset, shared->message.size, true, &value), 0);
    nf.pci->ops->state_save(nf.pci, shared->registers);
    shared->message.pending = false;
    nf_run(3);
}

static void go_on(void)
{
    struct sdc_error err = {0};

    memcpy(nf.tail, shared->tail, sizeof nf.tail);
    memcpy(nf.head, shared->head, sizeof nf.head);
    memcpy(nf.size, shared->size, sizeof nf.size);
    memcpy(nf.phase, shared->phase, sizeof nf.phase);
    nf.cid = shared->cid;
    if (nf.pci->ops->state_load(nf.pci, shared->registers, &err) < 0)
        fail_msg("%s", err.text);
    while (nf.pci->ops->busy(nf.pci))
        nf_run(1);
    nf_run(2);
    if (shared->message.pending)
        handle_message();
}

// --- the script ---

static bool begin(void)
{
    return at++ == shared->done;
}

static void end(void)
{
    memcpy(shared->tail, nf.tail, sizeof nf.tail);
    memcpy(shared->head, nf.head, sizeof nf.head);
    memcpy(shared->size, nf.size, sizeof nf.size);
    memcpy(shared->phase, nf.phase, sizeof nf.phase);
    shared->cid = nf.cid;
    shared->done++;
}

static void set(uint64_t offset, uint32_t size, uint64_t value)
{
    if (!begin())
        return;
    shared->message.offset = offset;
    shared->message.size = size;
    shared->message.value = value;
    shared->message.pending = true;
    handle_message();
    end();
}

static void new_queue(unsigned id, uint32_t size)
{
    if (!begin())
        return;
    nf_new_queue(id, size);
    end();
}

static void put(unsigned sq, uint8_t opcode, uint32_t nsid, uint64_t prp1, uint32_t cdw10, uint32_t cdw11)
{
    if (!begin())
        return;
    uint64_t entry = 2 * (uint64_t)GUEST_PAGE * sq + (uint64_t)nf.tail[sq] * SDC_NVME_SQE;
    nf_put(sq, opcode, nsid, prp1, cdw10, cdw11);
    if (opcode == SDC_NVME_ADMIN_DOORBELL_BUFFER && sq == 0)
        guest_put(&nf.guest, entry + SDC_NVME_SQE_PRP2, prp1 + GUEST_PAGE, 8);
    end();
}

// The driver writes both, always: what is in its own words counts once it has shown them.
static void ring_doorbell(unsigned number, uint32_t value)
{
    if (number > 1 && at == shared->done)
        guest_put(&nf.guest, SHADOW + 4 * (uint64_t)number, value, 4);
    set(SDC_NVME_DOORBELLS + 4 * (uint64_t)number, 4, value);
}

static void ring(unsigned sq)
{
    ring_doorbell(2 * sq, nf.tail[sq]);
}

static void take(unsigned cq, int expected)
{
    int status = -1;

    if (begin()) {
        for (unsigned turns = 0; status < 0 && turns < PATIENCE; turns++) {
            nf_run(1);
            status = nf_take(cq);
        }
        if (status != expected)
            fail_msg("killed before store %u, step %u: queue %u says %d instead of %d", killed_at, at - 1, cq, status, expected);
        end();
    }
    ring_doorbell(2 * cq + 1, nf.head[cq]);
}

static void admin(uint8_t opcode, uint64_t prp1, uint32_t cdw10, uint32_t cdw11)
{
    put(0, opcode, 0, prp1, cdw10, cdw11);
    ring(0);
    take(0, 0);
}

static void flushes(unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        put(1, SDC_NVME_IO_FLUSH, 1, 0, 0, 0);
    ring(1);
    for (unsigned i = 0; i < count; i++)
        take(1, 0);
}

static void queue_pair(void)
{
    new_queue(1, SIZE);
    admin(SDC_NVME_ADMIN_CREATE_CQ, 3 * GUEST_PAGE, 1 | (SIZE - 1) << 16, 3);
    admin(SDC_NVME_ADMIN_CREATE_SQ, 2 * GUEST_PAGE, 1 | (SIZE - 1) << 16, 1 << 16 | 1);
}

static void nothing_is_left(void)
{
    nf_run(20);
    assert_int_equal(nf_take(0), -1);
    assert_int_equal(nf_take(1), -1);
    assert_int_equal(nf_csts(), SDC_NVME_CSTS_RDY);
}

static void run_script(void)
{
    at = 0;
    new_queue(0, NF_ADMIN_SIZE);
    set(SDC_NVME_AQA, 4, (NF_ADMIN_SIZE - 1) << 16 | (NF_ADMIN_SIZE - 1));
    set(SDC_NVME_ASQ, 8, NF_ASQ);
    set(SDC_NVME_ACQ, 8, NF_ACQ);
    set(SDC_NVME_CC, 4, nf_good_cc());
    queue_pair();
    flushes(3);
    flushes(2);
    admin(SDC_NVME_ADMIN_SET_FEATURES, 0, SDC_NVME_FEAT_COALESCING, 0x0102);
    admin(SDC_NVME_ADMIN_DOORBELL_BUFFER, SHADOW, 0, 0);
    admin(SDC_NVME_ADMIN_DELETE_SQ, 0, 1, 0);
    admin(SDC_NVME_ADMIN_DELETE_CQ, 0, 1, 0);
    queue_pair();
    flushes(3);
    // And the controller is begun anew.
    set(SDC_NVME_CC, 4, nf_good_cc() & ~(uint32_t)SDC_NVME_CC_EN);
    new_queue(0, NF_ADMIN_SIZE);
    set(SDC_NVME_CC, 4, nf_good_cc());
    queue_pair();
    flushes(3);
    nothing_is_left();
}

// Runs the script, or what is left of it, in a process of its own, which is killed before its n-th store. Whether it was.
static bool run_killed(bool goes_on, unsigned n)
{
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        open_process(goes_on);
        steps_left = n;
        sdc_step = count_step;
        if (goes_on)
            go_on();
        run_script();
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_true(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == KILLED);
    return WEXITSTATUS(status) == KILLED;
}

static void close_process(void)
{
    nf.pci->ops->reset(nf.pci);
    nf_run(6);
    nf.pci->ops->set_map(nf.pci, NULL);
    nf_run(4);
    nf.pci->ops->destroy(nf.pci);
    sdc_map_unref(nf.guest.map);
    sdc_loop_free(nf.loop);
}

// Killed while it was being disabled, and again when the driver had enabled it, but before it began: nothing of the queues before counts.
static void be_one_of_four(unsigned process)
{
    uint64_t value = nf_good_cc();

    open_process(process > 0);
    if (process == 0) {
        nf_enable();
        assert_int_equal(nf_csts(), SDC_NVME_CSTS_RDY);
        value &= ~(uint64_t)SDC_NVME_CC_EN;
    } else {
        go_on();
        assert_int_equal(nf_csts(), process == 1 ? 0 : SDC_NVME_CSTS_RDY);
    }
    // Handled and recorded, but the turn does not end.
    if (process < 2) {
        assert_int_equal(nf_access(SDC_NVME_CC, 4, true, &value), 0);
        nf.pci->ops->state_save(nf.pci, shared->registers);
    }
    if (process == 2) {
        nf_new_queue(0, NF_ADMIN_SIZE);
        nf_run(4);
        assert_int_equal(nf_csts(), SDC_NVME_CSTS_RDY);
    }
}

static void a_disable_that_was_not_done_is_done_by_the_next_process(void **state)
{
    (void)state;
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(shared, MAP_FAILED);
    sdc_step = NULL;
    fflush(stdout);
    for (unsigned process = 0; process < 3; process++) {
        int status;
        pid_t child = fork();
        if (child == 0) {
            be_one_of_four(process);
            _exit(0);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
    }
    be_one_of_four(3);
    close_process();
    munmap(shared, sizeof *shared);
}

static void another_process_goes_on_after_every_store(void **state)
{
    bool killed = true;
    unsigned n;

    (void)state;
    for (n = 1; killed; n++) {
        shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        assert_ptr_not_equal(shared, MAP_FAILED);
        killed_at = n;
        killed = run_killed(false, n);
        // So is the next one, soon after it went on.
        if (killed && run_killed(true, n % 13 + 1)) {
            sdc_step = NULL;
            open_process(true);
            go_on();
            run_script();
            close_process();
        }
        munmap(shared, sizeof *shared);
    }
    assert_in_range(n, 200, 100000); // stores there were
    print_message("killed before %u stores\n", n - 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(another_process_goes_on_after_every_store),
        cmocka_unit_test(a_disable_that_was_not_done_is_done_by_the_next_process),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
