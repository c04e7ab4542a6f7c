// SPDX-License-Identifier: BSD-3-Clause
// Every limit of the project, in one place.
#pragma once

// vfio-user
#define SDC_LIMIT_DATA_XFER (1024 * 1024)             // bytes of data in one message, as negotiated
#define SDC_LIMIT_MESSAGE (SDC_LIMIT_DATA_XFER + 64)  // bytes of one message with its header
#define SDC_LIMIT_MESSAGE_FDS 16                      // fds with one message
#define SDC_LIMIT_REPLY_FDS 64                        // fds with one reply of ours, if the client takes so many
#define SDC_LIMIT_UNREAD_FDS 128                      // fds of ours that a client may leave in its socket
#define SDC_LIMIT_VHOST_SLOTS 509                     // regions that a vhost-user front end may show, as KVM has slots
#define SDC_LIMIT_IOTLB_ENTRIES 65535                 // of an IOMMU's translations; with one more all are forgotten, and asked for again
#define SDC_LIMIT_IOTLB_ASKS 65536                    // for one range; then it is held to be unreachable
#define SDC_LIMIT_WRITE_MULTI 200                     // writes in one REGION_WRITE_MULTI, as QEMU sends
#define SDC_LIMIT_VERSION_JSON 4096                   // bytes of a VERSION request's JSON
#define SDC_LIMIT_VERSION_REPLY_JSON 194              // bytes of ours: QEMU takes no longer reply
#define SDC_LIMIT_DMA_REGIONS 65535                   // regions in a session
#define SDC_LIMIT_DMA_REGION_BYTES (UINT64_C(8) << 40) // bytes of one region
#define SDC_LIMIT_MESSAGE_SECONDS 5                   // for the rest of a message that has begun
#define SDC_LIMIT_HANDSHAKE_SECONDS 10                // for VERSION, or the first request, to arrive after connect
#define SDC_LIMIT_UNMAP_MS 4000                       // then a DMA_UNMAP or DEVICE_RESET answers EBUSY
#define SDC_LIMIT_NOTICE_MS 3000                      // for a client that wants to be told before the server ends (REQ)
#define SDC_LIMIT_UNSENT (8 * 1024 * 1024)            // bytes of replies a peer may leave unread before we stop reading

// virtio
#define SDC_LIMIT_QUEUES 1024
#define SDC_LIMIT_QUEUE_SIZE 32768 // entries
#define SDC_LIMIT_INDIRECT 32768   // descriptors in an indirect table
#define SDC_LIMIT_BOUNCE (8 * 1024 * 1024)        // bytes of one request whose buffers are in remote memory
#define SDC_LIMIT_QUEUE_BOUNCE (16 * 1024 * 1024) // bytes of all of a queue's; more wait
#define SDC_LIMIT_QUEUE_SPANS 65536 // spans of a queue's requests in flight (16 bytes each); more wait
#define SDC_LIMIT_TURN 256         // requests that a queue takes before others have their turn

// NVMe
#define SDC_LIMIT_NAMESPACES 256 // of a controller

// guest memory that is registered with io_uring
#define SDC_LIMIT_WINDOW_BYTES (64 * 1024) // smaller regions are not: they are many, and come and go
#define SDC_LIMIT_WINDOWS 512                // regions of a session

// waiting
#define SDC_LIMIT_POLL_US 50        // that an adaptive queue looks before it sleeps, at most, unless the user says otherwise
#define SDC_LIMIT_POLL_MAX_US 10000 // what the user may say

// filters
#define SDC_LIMIT_FILTER_SECONDS 86400 // that a delay or a burst may last

// the process
#define SDC_LIMIT_THREADS 64
#define SDC_LIMIT_CARDS 65536
#define SDC_LIMIT_LOCK_SECONDS 30 // a starting disk waits that long for its predecessor's lock

// the keeper
#define SDC_LIMIT_SLOTS 16384     // fds that it holds for a device process
#define SDC_LIMIT_KEEPER_MS 30000 // for it to hand over what it has, or to read what it is sent
#define SDC_LIMIT_STOP_MS 4000    // for I/O to end when another process is to go on; the rest is left to that one
