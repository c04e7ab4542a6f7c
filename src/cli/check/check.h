// SPDX-License-Identifier: BSD-3-Clause
// What a test of sidecard check is made of.
//
// A test is a row of a table and a function. It runs in a process of its own, with a deadline, so that nothing that a server does (no
// answer, an endless one, a file that shrinks under a mapping) reaches the tester; and since what it opened and took goes with the
// process, it need not tidy up. It has passed when its function returns. sdc_check_fail and its kin end it at once, and do not return.
//
// After each test the server has to let a new client in.
#pragma once

#include "cli/protocol.h"
#include "os/socket.h"

#include <sidecard/error.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum sdc_check_result {
    SDC_CHECK_PASSED,
    SDC_CHECK_NOTED,       // passed; something is worth a remark, though the specification does not forbid it
    SDC_CHECK_FAILED,
    SDC_CHECK_NOT_OFFERED, // the server has not got what is tested
    SDC_CHECK_SKIPPED,     // it could be tested, but was not
    SDC_CHECK_RESULTS,
};

// What a test needs of the device, and of who runs it.
enum sdc_check_needs {
    SDC_CHECK_DESTRUCTIVE = 1 << 0, // may overwrite what is on a disk: --destructive
    SDC_CHECK_PCI = 1 << 1,
    SDC_CHECK_NVME = 1 << 2,
    SDC_CHECK_VIRTIO = 1 << 3,      // a virtio device, over either transport
    SDC_CHECK_BLK = 1 << 4,         // a virtio disk
    SDC_CHECK_DISK = 1 << 5,        // a disk of any kind
    SDC_CHECK_REQUESTS = 1 << 6,    // a virtio device of which a request is known that does no harm
};

enum { SDC_CHECK_OUT_MAX = 256, SDC_CHECK_IN_MAX = 65536 };

// A request that a virtio device on whose queue 0 it is put does at any time: bytes that it reads, and room for what it writes.
struct sdc_check_form {
    uint8_t out[SDC_CHECK_OUT_MAX];
    uint32_t out_size;
    uint32_t in_size; // bytes; 0 with `any_size`
    bool any_size;    // whatever room there is, the device writes some of it, and never nothing
};
// From "HEX,BYTES". 0, -EINVAL.
int sdc_check_form_parse(const char *text, struct sdc_check_form *form);
// An entropy device's (virtio 1.2, 5.4.6).
extern const struct sdc_check_form sdc_check_entropy;

struct sdc_check;

struct sdc_check_test {
    const char *name;    // "group/words-with-hyphens"
    const char *section; // of the specification: "vfio-user, Header", "virtio 1.2, 3.1.1"
    unsigned needs;      // enum sdc_check_needs
    void (*run)(struct sdc_check *check);
};

struct sdc_check_table {
    const struct sdc_check_test *tests;
    size_t count;
};

enum { SDC_CHECK_DEVICE_BLK = 2, SDC_CHECK_DEVICE_ENTROPY = 4 }; // virtio 1.2, 5

// What was found behind the socket before the first test.
struct sdc_check_target {
    unsigned has;   // enum sdc_check_needs
    char what[120]; // for people: "NVMe controller 1af4:0010"
};

enum { SDC_CHECK_TEXT = 600 };

// What was sent, and what came back; each may be empty.
struct sdc_check_exchange {
    char sent[SDC_CHECK_TEXT];
    char came[SDC_CHECK_TEXT];
};

// How a test ended.
struct sdc_check_outcome {
    enum sdc_check_result result;
    char section[80];
    char text[SDC_CHECK_TEXT]; // failed: what the specification asks; noted: the remark; else why
    struct sdc_check_exchange exchange; // of a failure
    bool unreached; // a failure: there was nobody to connect to
};

struct sdc_check_options {
    enum sdc_protocol protocol; // known when tests run
    const char *socket; // path
    const char *only;   // NULL: all
    uint64_t timeout_s; // for each answer
    const char *device; // a virtio device's kind, for people; NULL: not named
    unsigned device_number; // virtio 1.2, 5; 0: not named
    const char *request;    // as it was typed; NULL: what is known of the device
    struct sdc_check_form form; // what that says
    bool destructive;
    bool restarts; // the server ends with its client, and somebody starts it anew, with another socket file
    bool json;
    bool list;
    bool help;
};

// A transport: its tests, and how a client comes and goes there.
struct sdc_check_transport {
    const char *name;
    const struct sdc_check_table *const *tables;
    size_t tables_count;
    // Finds out what is there: fills the target. What it cannot find out it leaves; a server that cannot even be connected to it fails.
    void (*look)(struct sdc_check *check, struct sdc_check_target *target);
    // A client without faults comes, is let in, and goes. Fails if it is not.
    void (*greet)(struct sdc_check *check);
};
extern const struct sdc_check_transport sdc_check_vfio_user;
extern const struct sdc_check_transport sdc_check_vhost_user;

// What there is of a virtio device of that kind (virtio 1.2, 5; 0: not known), as enum sdc_check_needs.
unsigned sdc_check_virtio_has(const struct sdc_check_options *options, unsigned device);

// Tests of virtio devices over either transport.
extern const struct sdc_check_table sdc_check_ring_requests;
extern const struct sdc_check_table sdc_check_ring_events;
extern const struct sdc_check_table sdc_check_ring_mistakes;
extern const struct sdc_check_table sdc_check_data;

// --- for tests ---

struct sdc_check {
    const struct sdc_check_options *options;
    const struct sdc_check_target *target;
    struct sdc_check_outcome *outcome; // where the tester finds it: with `last`, in memory that it shares
    struct sdc_check_exchange *last;   // what was sent last, and what came back
    struct sdc_socket_file *served;    // with --restarts: the socket that the client before had connected to; shared, too
    uint64_t deadline_ns;              // of the whole test
};

// What the specification asks for and did not get. The section is the row's, or the one that was named last.
_Noreturn void sdc_check_fail(struct sdc_check *check, const char *format, ...) __attribute__((format(printf, 2, 3)));
// The same for what is not the test's own subject: the test has failed, in the section that is named, and goes on. The first one counts.
void sdc_check_violation(struct sdc_check *check, const char *section, const char *format, ...) __attribute__((format(printf, 3, 4)));
// The server has not got what is to be tested.
_Noreturn void sdc_check_not_offered(struct sdc_check *check, const char *format, ...) __attribute__((format(printf, 2, 3)));
// It cannot be tested here.
_Noreturn void sdc_check_skip(struct sdc_check *check, const char *format, ...) __attribute__((format(printf, 2, 3)));
// A remark; the first one of a test counts. The test goes on.
void sdc_check_note(struct sdc_check *check, const char *format, ...) __attribute__((format(printf, 2, 3)));
// From here on the test is about another section.
void sdc_check_section(struct sdc_check *check, const char *section);
// What a failure's report shows beside the text. `sent` begins a new exchange: nothing has come back.
void sdc_check_sent(struct sdc_check *check, const char *format, ...) __attribute__((format(printf, 2, 3)));
void sdc_check_came(struct sdc_check *check, const char *format, ...) __attribute__((format(printf, 2, 3)));
// Fails unless ret (of a function of our libraries') is 0 or more; err is what came back. Returns ret.
int sdc_check_must(struct sdc_check *check, int ret, const struct sdc_error *err, const char *what);
// Fails unless `holds`.
#define sdc_check_that(check, holds, ...)          \
    do {                                           \
        if (!(holds))                              \
            sdc_check_fail((check), __VA_ARGS__);  \
    } while (0)

// Milliseconds that an answer may take: what --timeout says, or what is left of the test if that is less. Never 0.
int sdc_check_patience(const struct sdc_check *check);
// A connected stream socket, blocking. Waits for a server that is about to listen again.
int sdc_check_connect(struct sdc_check *check);
// "01 02 ... (48 bytes)" of bytes, as many as fit. Returns buffer.
const char *sdc_check_hex(const void *bytes, size_t size, char *buffer, size_t room);

// --- the tester ---

struct sdc_check_entry {
    const struct sdc_check_test *test;
    struct sdc_check_outcome outcome;
};

struct sdc_check_run {
    const struct sdc_check_options *options;
    const struct sdc_check_transport *transport;
    struct sdc_check_target target;
    bool one_client; // the server goes away with its client, and somebody starts it anew
    bool ungreeted;  // not even a client without faults gets along with it: that is not asked after each test
    struct sdc_check_entry *entries; // those that --only chose
    size_t count;
    unsigned sums[SDC_CHECK_RESULTS];
};

// Runs the tests that are chosen and calls `done` after each. 0; 1: some failed; or a negative errno with err filled: none could
// be run.
int sdc_check_run_all(struct sdc_check_run *run, void (*done)(const struct sdc_check_run *run, const struct sdc_check_entry *entry),
                      struct sdc_error *err);

extern const char sdc_check_usage[];
int sdc_check_options_parse(int argc, char **argv, struct sdc_check_options *options, struct sdc_error *err);

// Tables as text: of all tests, of one that has ended, of the sums; and everything as JSON.
const char *sdc_check_result_name(enum sdc_check_result result);
void sdc_check_print_list(const struct sdc_check_transport *transport);
void sdc_check_print_head(const struct sdc_check_run *run);
void sdc_check_print_entry(const struct sdc_check_run *run, const struct sdc_check_entry *entry);
void sdc_check_print_sums(const struct sdc_check_run *run);
int sdc_check_print_json(const struct sdc_check_run *run);
