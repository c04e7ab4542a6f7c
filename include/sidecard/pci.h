// SPDX-License-Identifier: BSD-3-Clause
// The PCI device interface: identity, configuration space, BARs, interrupts, reset. A PCI device implements struct
// sdc_pci_ops; whoever shows it to a VMM (the vfio-user server) is its host. Everything here is called on the device's
// home loop, but where a comment says that any thread may.
//
// A device author fills in bars[], calls sdc_pci_init and what else the device has (sdc_pci_add_...), and plugs it into a server
// (sidecard/server.h). The library then keeps registers, MSI-X, INTx, doorbells, mappable memory and guest memory for it (sidecard/dma.h),
// and asks it for no more than it wants to do itself: every function of struct sdc_pci_ops may be NULL.
#pragma once

#include <sidecard/error.h>
#include <sidecard/memory.h>

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

struct sdc_loop;
struct sdc_map;
struct sdc_pci_core;
struct sdc_pci_device;
struct sdc_pci_host;

// Regions and interrupt kinds, numbered as in VFIO (linux/vfio.h) and vfio-user.
enum sdc_pci_region {
    SDC_PCI_BAR0 = 0, // to BAR5 = 5
    SDC_PCI_ROM = 6,
    SDC_PCI_CONFIG = 7,
    SDC_PCI_VGA = 8,
    SDC_PCI_REGIONS = 9,
};

enum sdc_pci_irq {
    SDC_PCI_INTX = 0,
    SDC_PCI_MSI = 1,
    SDC_PCI_MSIX = 2,
    SDC_PCI_ERR = 3,
    SDC_PCI_REQ = 4,
    SDC_PCI_IRQS = 5,
};

// One register access as a device sees it: inside its region, 1, 2, 4 or 8 bytes, aligned to its size.
struct sdc_pci_access {
    uint32_t region; // enum sdc_pci_region, not CONFIG: the configuration space is the library's
    uint64_t offset;
    uint32_t size;
    bool write;
    uint64_t value; // in for a write, out for a read
};

// An eventfd whose signal stands for a write to a part of a region.
struct sdc_pci_io_fd {
    uint64_t offset; // into the region
    uint64_t size;   // bytes of the write; 0: any
    int fd;          // the device's
};

// What of a device goes into the state record that a host keeps, bytes.
struct sdc_pci_state_needs {
    uint32_t registers; // of what state_save writes
    uint64_t live;      // of memory that the device writes by itself as it runs
};

// What a device does. Of a device that was made with sdc_pci_init the library calls the first group, in which all may be NULL; a default
// stands in brackets. None of them may throw a C++ exception.
struct sdc_pci_ops {
    const char *name;
    // Serves a register access. DMA that a write sets off may be begun here, and moves data after the access was answered; what takes
    // long besides is deferred (sidecard/loop.h). 0, or -EAGAIN: not now, ask again after sdc_pci_ready. [Reads as zero.]
    int (*access)(struct sdc_pci_device *device, struct sdc_pci_access *access);
    // The driver wrote to a doorbell (sdc_pci_add_doorbell), by a message or through its eventfd: perhaps more than once. access
    // does not hear of it. [Nothing.]
    void (*doorbell)(struct sdc_pci_device *device, uint32_t region, uint64_t offset);
    // Function-level reset, also after a client has gone: ends I/O, forgets all that the driver set. Registers of sdc_pci_add_registers
    // have been reset before. Starts; sdc_pci_ready follows when `busy` is false again. [Nothing.]
    void (*reset)(struct sdc_pci_device *device);
    // A reset is under way; of devices that keep guest memory themselves, or a set_map. [A reset has ended when it returns, and when no
    // window of sidecard/dma.h is left.]
    bool (*busy)(struct sdc_pci_device *device);
    // The client has gone, the device was reset and is not busy, what clients may map of BARs is full of zeroes again: the device is to be
    // as new for the next one. Of devices that keep eventfds and mappable memory themselves, they close what io_fds gave; what clients may
    // map may be other memory from now on. [Nothing.]
    void (*client_gone)(struct sdc_pci_device *device);
    // The configuration space was written at [offset, offset + size): look at what matters to you. May be NULL.
    void (*config_written)(struct sdc_pci_device *device, uint32_t offset, uint32_t size);
    // The driver is about to read [offset, offset + size) of the configuration space: bring it up to date. May be NULL.
    // 0 or -EAGAIN, as access.
    int (*config_read)(struct sdc_pci_device *device, uint32_t offset, uint32_t size);
    // Whether INTx is asserted right now (the host asks after an unmask). Any thread. May be NULL: no INTx.
    bool (*intx_level)(struct sdc_pci_device *device);
    // Nothing is under way. Frees device, after sdc_pci_fini if it was made with sdc_pci_init. Home loop, or when no loop runs: what the
    // device has there (watches, timers, deferred functions) is taken out, and its threads have ended when it returns. [sdc_pci_fini.]
    void (*destroy)(struct sdc_pci_device *device);

    // --- devices that keep guest memory, eventfds and a state record themselves: those inside the library ---

    // From now on guest memory is `map` (holding a reference is the device's affair). Starts; sdc_pci_ready follows when no
    // look-up uses an older one. Requests in flight hold the one that they were translated with. While that is all that the device is busy
    // with, it may be called once more, with a map in which everything is where it was before: it then waits for no request.
    void (*set_map)(struct sdc_pci_device *device, struct sdc_map *map);
    // Fills in at most max eventfds for writes to a region, the most useful first, and returns how many. They are the device's,
    // live as long as the client's session, a reset included, and are the same whenever the session asks. The device is not busy.
    // What a client does with its copy is its affair: any number of signals, at any time. May be NULL: none, like 0.
    uint32_t (*io_fds)(struct sdc_pci_device *device, uint32_t region, struct sdc_pci_io_fd *fds, uint32_t max);
    // Going on in another process (the state record). state_needs NULL: this device cannot, and the others are NULL too.
    void (*state_needs)(struct sdc_pci_device *device, struct sdc_pci_state_needs *needs);
    // Before any client: memory outlasts this process, and whoever takes the device over finds in it what the device last wrote. With
    // goes_on another process has written there, and state_load will follow; else what stands there counts for nothing.
    void (*state_keep)(struct sdc_pci_device *device, void *memory, bool goes_on);
    // All that is not in that memory: registers, configuration space. If something is under way, as it will be when that has ended.
    void (*state_save)(struct sdc_pci_device *device, void *registers);
    // The device is as new, and has its guest memory and its host: from now on it is what another process saved. Starts; sdc_pci_ready
    // follows. registers are not to be trusted: -EINVAL with err filled, then the device wants a reset.
    int (*state_load)(struct sdc_pci_device *device, const void *registers, struct sdc_error *err);
    // The device is not busy. Ends I/O so that another process can go on: what has not begun is left to it. Starts; sdc_pci_ready
    // follows when `busy` is false again. Nothing is asked of the device after that.
    void (*state_stop)(struct sdc_pci_device *device);
    // Eventfds that io_fds gave in another process, in the same order, which are the device's from now on. Before state_load. NULL if
    // io_fds is.
    void (*adopt_io_fds)(struct sdc_pci_device *device, uint32_t region, const int *fds, uint32_t count);
};

// What a host does for its device. A vector without an eventfd, or masked, is kept in msix_pending.
struct sdc_pci_host_ops {
    // Any thread: raise an interrupt. For INTx vector is 0.
    void (*interrupt)(struct sdc_pci_host *host, enum sdc_pci_irq kind, uint32_t vector);
    // Home loop: the device is not busy any more, or what it answered -EAGAIN to may be tried again.
    void (*ready)(struct sdc_pci_host *host);
};

struct sdc_pci_host {
    const struct sdc_pci_host_ops *ops;
};

enum { SDC_PCI_AREAS_MAX = 16 };

struct sdc_pci_area {
    uint64_t offset; // into the BAR; a multiple of 4096
    uint64_t size;   // bytes, likewise
};

// The parts of a BAR that a client may map instead of sending an access for each register. Accesses to them come all the same.
struct sdc_pci_mappable {
    struct sdc_pci_area areas[SDC_PCI_AREAS_MAX]; // in their order, disjoint
    uint32_t areas_count; // 0: none of it may be mapped
    int fd;             // the device's, which may have another for the next client; of a memfd whose size is sealed
    uint64_t fd_offset; // in fd, of the BAR's first byte; a multiple of 4096
};

struct sdc_pci_bar {
    uint64_t size; // bytes, 0: absent; power of two, at least 16, or of ports 4 to 256
    bool is_64bit;
    bool prefetchable;
    bool is_io; // I/O ports; neither of the two, and nothing in it can be mapped
    struct sdc_pci_mappable mappable;
};

enum {
    SDC_PCI_CONFIG_SIZE = 4096,
    SDC_PCI_CONFIG_KEPT = 256, // bytes of it that there is something in: no device has extended capabilities. The rest reads as zero
    SDC_PCI_MSIX_MAX = 2048,
};

// A device. Implementations embed it at the start of their own.
struct sdc_pci_device {
    const struct sdc_pci_ops *ops;
    struct sdc_pci_bar bars[6];
    uint32_t irq_counts[SDC_PCI_IRQS]; // REQ is the host's
    uint8_t config[SDC_PCI_CONFIG_KEPT];      // what the driver reads
    uint8_t config_mask[SDC_PCI_CONFIG_KEPT]; // bits that the driver may write
    uint8_t config_reset[SDC_PCI_CONFIG_KEPT]; // what config is after a reset
    uint8_t config_caps_end; // where the next capability goes; 0: none yet
    // MSI-X vectors that were raised while nobody could take them (the pending bit array). Any thread.
    SDC_ATOMIC(uint64_t) msix_pending[SDC_PCI_MSIX_MAX / 64];
    // Counts up when state_save would write something else than before. Home loop.
    uint64_t state_changes;
    SDC_ATOMIC(struct sdc_pci_host *) host; // NULL while no client is connected
    struct sdc_pci_core *core; // what the library keeps for a device that was made with sdc_pci_init; else NULL
};

// --- making a device ---

struct sdc_pci_identity {
    uint16_t vendor, device, subsystem_vendor, subsystem;
    uint8_t revision;
    uint32_t class_code; // 0xCCSSII
    bool intx;           // has INTx, on pin A
};

// Makes a device of *device, zeroed but for bars[]: ops and the configuration space's header. Power management and PCI Express (with
// function-level reset) follow behind the device's other capabilities. ops stay the caller's and outlive the device. -EINVAL: a BAR cannot
// be so, or the device was made already, or was not zeroed; -ENOMEM.
SDC_PUBLIC int sdc_pci_init(struct sdc_pci_device *device, const struct sdc_pci_ops *ops, const struct sdc_pci_identity *identity,
                            struct sdc_error *err);
// Gives back what the library keeps for it. Nothing happens if sdc_pci_init has failed. From ops->destroy, or if it is never plugged in.
SDC_PUBLIC void sdc_pci_fini(struct sdc_pci_device *device);

// What follows is called after sdc_pci_init and before the device is plugged in. All of these fail with -EINVAL, and err says why, or
// with -ENOMEM or the like.

// A register that the library keeps for its device. Bits that are neither writable nor cleared by ones are read-only.
struct sdc_pci_register {
    uint64_t offset;   // into the BAR; a multiple of size
    uint32_t size;     // 1, 2, 4 or 8 bytes
    uint64_t reset;    // its value at first, and after a reset
    uint64_t writable; // bits that the driver may set and clear
    uint64_t clears;   // bits that the driver clears by writing ones
    // The driver reads it: what it is to see, in place of what the register holds. May be NULL.
    uint64_t (*read)(struct sdc_pci_device *device);
    // The driver has written value to it, and the register has taken what it takes of that. Bytes of value that the driver left out are
    // the register's own. May be NULL.
    void (*written)(struct sdc_pci_device *device, uint64_t value);
};
// Registers of a BAR, count of them in the order of their offsets, disjoint. *values, the caller's like the table, holds them, laid out as
// in the BAR from the first register on, each in the host's byte order: as an array, or a structure. The device reads and changes them
// there at any time, on its home loop. A driver may access a part of a register, or several at once; ops->access hears of none of these,
// and is there for the rest of the BAR. Once for each BAR.
SDC_PUBLIC int sdc_pci_add_registers(struct sdc_pci_device *device, unsigned bar, const struct sdc_pci_register *registers, uint32_t count,
                                     void *values, struct sdc_error *err);

// MSI-X with 1 to SDC_PCI_MSIX_MAX vectors. BAR `bar`, whose size is 0 so far, becomes the library's, with the table and the pending bits.
SDC_PUBLIC int sdc_pci_add_msix(struct sdc_pci_device *device, uint32_t vectors, unsigned bar, struct sdc_error *err);
// MSI with 1, 2, 4, 8, 16 or 32 vectors.
SDC_PUBLIC int sdc_pci_add_msi(struct sdc_pci_device *device, uint32_t vectors, struct sdc_error *err);
// Another capability, of size bytes (a multiple of 4, its two-byte head included). *offset of it in device->config, where its bytes are
// zero and read-only: the caller fills them in there, and in config_mask.
SDC_PUBLIC int sdc_pci_add_capability(struct sdc_pci_device *device, uint8_t id, uint32_t size, uint32_t *offset, struct sdc_error *err);
// Makes size bytes at offset of a BAR, both multiples of 4096, or with size 0 all of it from there on, memory that a client may map. It is
// at *memory until sdc_pci_fini; messages read and write it too, and ops->access does not hear of that. A driver writes to it at any time.
// Each client finds it full of zeroes, or of what ops->client_gone has put there, and nobody who has gone can see it any more. At most
// SDC_PCI_AREAS_MAX times for a BAR.
SDC_PUBLIC int sdc_pci_add_memory(struct sdc_pci_device *device, unsigned bar, uint64_t offset, uint64_t size, void **memory,
                                  struct sdc_error *err);
// Writes of size bytes (1, 2, 4 or 8; 0: any of them) at offset of a BAR mean that something is to be done, and what they write does not
// matter: ops->doorbell is called for them, and a client may have KVM signal an eventfd instead of sending messages. At most 64.
SDC_PUBLIC int sdc_pci_add_doorbell(struct sdc_pci_device *device, unsigned bar, uint64_t offset, uint32_t size, struct sdc_error *err);

// --- for a device ---

// The home loop, from when the device is plugged in. Any thread.
SDC_PUBLIC struct sdc_loop *sdc_pci_loop(const struct sdc_pci_device *device);

// Raises an interrupt. Any thread. Nothing happens while no host is there.
SDC_PUBLIC void sdc_pci_interrupt(struct sdc_pci_device *device, enum sdc_pci_irq kind, uint32_t vector);
// The same by what the driver has switched on: MSI-X, MSI (of which it may have fewer vectors than there are: then the last one), or else
// INTx, which is asserted from then on; without INTx it is MSI-X, if the device has that. Any thread. Of a device that was made with
// sdc_pci_init, like the next.
SDC_PUBLIC void sdc_pci_raise(struct sdc_pci_device *device, uint32_t vector);
// Asserts INTx or takes it back: the driver has seen to it. A reset takes it back too. Any thread.
SDC_PUBLIC void sdc_pci_set_intx(struct sdc_pci_device *device, bool asserted);

// It is not busy any more, or what it answered -EAGAIN to may be tried again.
SDC_PUBLIC void sdc_pci_ready(struct sdc_pci_device *device);

#ifdef __cplusplus
}
#endif
