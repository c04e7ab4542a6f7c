// SPDX-License-Identifier: BSD-3-Clause
// A server: devices at their sockets, and the loops that they run in. The author's devices are plugged in, then the server runs until it is
// stopped, in threads of the library's (sdc_server_run) or in the caller's own loop (sdc_server_fd, sdc_server_process).
//
// The library touches neither the program's signals nor its standard streams, and writes no log unless sdc_log_set says where to. There may
// be any number of servers in a process, each in a thread of its own, or several in one loop of the caller's.
#pragma once

#include <sidecard/log.h>
#include <sidecard/loop.h>
#include <sidecard/pci.h>
#include <sidecard/virtio.h>

#ifdef __cplusplus
extern "C" {
#endif

struct sdc_server;

// Zero means: as said.
struct sdc_server_options {
    uint32_t threads;        // loops, over which queues of virtio devices are spread: 1 to 64; 0: 1
    enum sdc_loop_kind loop; // 0: io_uring, or epoll where that is refused
    // SIGTERM and SIGINT stop the server in order. They are blocked from sdc_server_new on, in the calling thread and in those that it
    // makes later.
    bool take_signals;
};

// How a device is reached. Zero means: as said.
struct sdc_socket_options {
    uint32_t mode;          // permissions of the socket file; 0: as umask says
    bool allow_file_memory; // guest memory may be a plain file, which whoever can truncate it can use to kill this process
    bool connect;           // vhost-user: the front end listens at the path, and is connected to
    bool never_poll;        // virtio: queues sleep until they are notified. Else they look for a while first
    bool always_poll;       // virtio: queues never sleep, and their loops use all of a processor
    uint32_t poll_max_us;   // virtio: the longest that queues look before they sleep; 0: 50
};

// options may be NULL. -EINVAL, -ENOMEM, -EPERM: io_uring is asked for and refused.
SDC_PUBLIC int sdc_server_new(const struct sdc_server_options *options, struct sdc_server **server, struct sdc_error *err);

// Plugs a device into a socket: PATH, vfio-user:PATH, vhost-user:PATH, or with fd:N for a path, a listening socket that was passed in and
// stays the caller's. The device is the server's from then on, also when this fails, and is destroyed (ops->destroy) with it, or when it is
// removed. Clients can connect, and are let in when the server runs. Any thread, at any time: before the server runs, while it does, and
// from inside a callback. options may be NULL.
//
// -EINVAL: there is no such transport, or the device is not well made, and *err says how; -EADDRINUSE: somebody serves at this path;
// -EBUSY: the device is plugged in already, and stays so; -ECANCELED: the server has been stopped; others from making the socket.
SDC_PUBLIC int sdc_server_add_pci(struct sdc_server *server, const char *socket, struct sdc_pci_device *device,
                                  const struct sdc_socket_options *options, struct sdc_error *err);
// A virtio device, over vfio-user (it is shown as a PCI device) or vhost-user.
SDC_PUBLIC int sdc_server_add_virtio(struct sdc_server *server, const char *socket, struct sdc_virtio_device *device,
                                     const struct sdc_socket_options *options, struct sdc_error *err);

// Unplugs a device. Its session ends in order, as by sdc_server_stop, the socket's file is removed, and then the device is destroyed, on
// its home loop; that is how the caller hears of it. Any thread, at any time; one that does not run yet does so when it runs, or is freed.
// -ENOENT: it is not plugged in, or was removed before.
SDC_PUBLIC int sdc_server_remove_pci(struct sdc_server *server, const struct sdc_pci_device *device, struct sdc_error *err);
SDC_PUBLIC int sdc_server_remove_virtio(struct sdc_server *server, const struct sdc_virtio_device *device, struct sdc_error *err);

// Serves until sdc_server_stop, then ends every session in order. In the calling thread, and others if there is more than one loop. 0, or
// -EAGAIN: threads cannot be made; -ECANCELED: it has come to its end before.
SDC_PUBLIC int sdc_server_run(struct sdc_server *server, struct sdc_error *err);

// Ends sdc_server_run, or has sdc_server_process say that it has ended: every session ends in order, which takes a moment (3 s for a client
// that wants to be told before). Any thread, also from a signal handler, any number of times. The server is not freed meanwhile.
SDC_PUBLIC void sdc_server_stop(struct sdc_server *server);

// --- in the caller's loop ---

enum {
    SDC_SERVER_WAITS = 0, // call again when the fd is readable
    SDC_SERVER_GOES_ON = 1, // there is more to do: call again soon, without waiting for anything (the fd is readable until then)
    SDC_SERVER_ENDED = 2, // it has been stopped: there is nothing more to do than to free it
};

// An fd that is readable, for poll, epoll or whatever else waits for that, when sdc_server_process is to be called; it is the server's. Or
// a negative errno. From the first of these two calls on, all of them come from one thread, and none is made inside a callback of the
// server's. With io_uring, epoll_wait in that thread may end with EINTR though no signal came: wait again.
SDC_PUBLIC int sdc_server_fd(struct sdc_server *server, struct sdc_error *err);
// Does what there is to do, for a bounded time, and never waits. Queues that look for work before they sleep are looked at meanwhile: it
// then goes on for as long as they want that, at most a tenth of a millisecond a call. One of SDC_SERVER_..., or a negative errno.
SDC_PUBLIC int sdc_server_process(struct sdc_server *server, struct sdc_error *err);

// After sdc_server_run has returned, sdc_server_process has said ENDED, or instead of them; never while a session lives. Destroys the
// devices. NULL is fine.
SDC_PUBLIC void sdc_server_free(struct sdc_server *server);

// --- a program that is one device ---

// Serves a device at a socket until SIGINT or SIGTERM comes: a server with take_signals is made, run and freed. The device is destroyed
// when this returns, whatever that says. Errors as above. options may be NULL.
SDC_PUBLIC int sdc_serve_pci(const char *socket, struct sdc_pci_device *device, const struct sdc_socket_options *options,
                             struct sdc_error *err);
SDC_PUBLIC int sdc_serve_virtio(const char *socket, struct sdc_virtio_device *device, const struct sdc_socket_options *options,
                                struct sdc_error *err);

// The library's version, as in "0.1.0".
SDC_PUBLIC const char *sdc_version(void);

#ifdef __cplusplus
}
#endif
