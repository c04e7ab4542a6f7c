// SPDX-License-Identifier: BSD-3-Clause
// Cards: a device on a backend, in the shape that a transport shows. This is where the names of devices become devices.
#pragma once

#include <sidecard/pci.h>

#include "backend/filter/stack.h"
#include "base/option.h"
#include "loop/poller.h"
#include "transport/vhost_user/vhost_user.h"

// What stands behind a card, or behind one namespace of it.
struct sdc_card_backend {
    const char *name; // as on the command line
    uint32_t nsid;    // of the namespace; 0: its place in the list
    struct sdc_block_open_options options;
};

// What the user can say about a card. Zero means the default where the comment names one.
struct sdc_card_options {
    uint16_t queues;     // default 1
    uint16_t queue_size; // entries, default 256, or 1024 over vhost-user
    uint32_t seg_max;    // default: what the queue size suggests
    uint32_t size_max;   // bytes, default: no limit
    bool shadow_doorbells; // of NVMe: offered
    bool write_cache;
    bool packed;        // packed rings are offered beside split ones
    enum sdc_poll_mode poll; // how its queues wait
    uint32_t poll_max_us;    // adaptive: the longest window; 0: the default
    bool in_order;      // the driver is offered to get requests back in the order in which it made them
    uint16_t vectors;   // of MSI-X, default one for each queue
    const char *serial; // default: made from the backend's name
    const char *model;  // default: the device's
    const char *nqn;    // default: made from the serial number
    const struct sdc_card_backend *backends;
    unsigned backends_count; // 1 to what the device takes
    bool backends_stay;      // they will never be others, since no file says what they are
};

// What a transport shows of a card.
enum sdc_card_shape {
    SDC_CARD_PCI,   // a PCI device: vfio-user
    SDC_CARD_VHOST, // a virtio device: vhost-user
};

struct sdc_card {
    const struct sdc_card_type *type;
    enum sdc_card_shape shape;
    union {
        struct sdc_pci_device *pci;
        struct sdc_vhu_card *vhost;
    };
    // Home loop: looks at what stands behind the card again.
    void (*refresh)(struct sdc_card *card);
    // Home loop: the card's configuration was read again. Brings about what of it can change while the card runs (namespaces), and
    // leaves the rest as it is. 0, or a negative errno with err filled: of the first thing that failed; the others were done. NULL: nothing
    // can change.
    int (*reload)(struct sdc_card *card, const struct sdc_card_options *options, struct sdc_error *err);
    void *device;
    // Frees what make keeps at `device`, after the card itself. May be NULL.
    void (*forget)(struct sdc_card *card);
    char identity[256]; // what must be the same for another process to go on with the card
};

// A kind of device.
struct sdc_card_type {
    const char *name;
    const struct sdc_options *options; // of its own, about struct sdc_card_options
    const char *options_why;           // what to say when another device is given one of them
    unsigned backends_max;             // that one card can have, each a namespace if there may be more than one
    // Fills in what of the card is the device's.
    int (*make)(struct sdc_card *card, const struct sdc_card_options *options, struct sdc_loop *const *loops, unsigned loops_count,
                struct sdc_error *err);
};

// Those that are in files of their own.
extern const struct sdc_card_type sdc_card_nvme;

enum { SDC_CARD_SERIAL_BYTES = 20 };
// The longest that an adaptive queue polls.
uint64_t sdc_card_poll_max_ns(const struct sdc_card_options *options);
// The serial number that was given, or one made of the first backend's name, which is the same when the card is served again.
void sdc_card_serial(const struct sdc_card_options *options, char serial[SDC_CARD_SERIAL_BYTES + 1]);

enum { SDC_CARD_FILTERS_BYTES = 96 };
// The filters in front of a backend, as identities have them: as they were typed, with a number for the rest if that is too long. Empty:
// there are none. Returns text.
const char *sdc_card_filters(const struct sdc_card_backend *backend, char text[SDC_CARD_FILTERS_BYTES]);

// The names of the devices, ended by NULL.
const char *const *sdc_card_names(void);
// NULL: there is no such device.
const struct sdc_card_type *sdc_card_type(const char *device);
// Makes the card `device`, in the shape that a transport wants. loops[0] is its home loop. What options point to may go afterwards. 0 or a
// negative errno with err filled.
int sdc_card_new(const char *device, const struct sdc_card_options *options, enum sdc_card_shape shape, struct sdc_loop *const *loops,
                 unsigned loops_count, struct sdc_card **card, struct sdc_error *err);
// A card of a device that somebody else has made; takes it over, also when this fails. Of options, those about waiting for requests count.
int sdc_card_of_pci(struct sdc_pci_device *device, enum sdc_card_shape shape, struct sdc_loop *home, struct sdc_card **card,
                    struct sdc_error *err);
int sdc_card_of_virtio(struct sdc_virtio_device *device, const struct sdc_card_options *options, enum sdc_card_shape shape,
                       struct sdc_loop *const *loops, unsigned loops_count, struct sdc_card **card, struct sdc_error *err);
// No session is connected, no loop runs.
void sdc_card_free(struct sdc_card *card);
