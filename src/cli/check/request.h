// SPDX-License-Identifier: BSD-3-Clause
// Requests of a virtio device in chains of any shape, on a bed's raw rings: a disk's (virtio 1.2, 5.2.6), or, of another device, bytes that
// it reads and then bytes that it writes (struct sdc_check_form). A request has a head that the device reads, data, and, of a disk, a
// status.
#pragma once

#include "cli/check/disk.h"

enum { SDC_CHECK_PIECES_MAX = 1024 };

// How a request is cut into descriptors.
enum sdc_check_cut {
    SDC_CHECK_CUT_PLAIN,  // header, data, status
    SDC_CHECK_CUT_BYTES,  // the header and the status byte by byte, data at odd places
    SDC_CHECK_CUT_MANY,   // data in as many pieces as the disk takes
    SDC_CHECK_CUT_JOINED, // header and data, or data and status, in one
    SDC_CHECK_CUTS,
};
const char *sdc_check_cut_name(enum sdc_check_cut cut);

// A request, and memory for it. The parts lie one behind another, so that they may be joined; around them is memory that nobody may write.
struct sdc_check_request {
    const struct sdc_check_form *form; // NULL: it is a disk's
    uint32_t type;                     // a disk's: enum sdc_virtio_blk_type
    uint64_t sector;
    uint32_t size;  // bytes of data
    uint8_t *memory;
    uint64_t iova;
    uint32_t room; // bytes of data that the memory has room for
    uint8_t *table; // for an indirect table
    uint64_t table_iova;
    uint32_t flags; // DISCARD, WRITE_ZEROES: of the range
    uint32_t sectors; // likewise
    int id;           // in the ring
};

// How requests of the device are made that is tested. NULL: as those of a disk.
const struct sdc_check_form *sdc_check_form_of(const struct sdc_check *check);

// Memory for a request with up to `room` bytes of data, and one with a table of SDC_CHECK_PIECES_MAX descriptors.
void sdc_check_request_new(struct sdc_check_bed *bed, uint32_t room, struct sdc_check_request *request);
uint8_t *sdc_check_request_data(const struct sdc_check_request *request);
uint8_t sdc_check_request_status(const struct sdc_check_request *request);
// Where its parts lie, to be put into chains of one's own.
uint64_t sdc_check_request_header_iova(const struct sdc_check_request *request);
uint64_t sdc_check_request_data_iova(const struct sdc_check_request *request);
uint64_t sdc_check_request_status_iova(const struct sdc_check_request *request);
// Whether all that the device may write is as it was prepared.
bool sdc_check_request_untouched(const struct sdc_check_request *request);
// Bytes from the beginning of the data that the device has written, once it is used: those of the status are among them.
uint32_t sdc_check_request_written(const struct sdc_check_bed *bed, uint16_t queue, const struct sdc_check_request *request);
// Fills header, guards, and, for what the device writes, poison.
void sdc_check_request_prepare(struct sdc_check_request *request);
// Cuts a prepared request into pieces (SDC_CHECK_PIECES_MAX at most, and no more than `most`). How many.
unsigned sdc_check_request_cut(const struct sdc_check_request *request, const struct sdc_check_disk *disk, enum sdc_check_cut cut,
                               unsigned most, struct sdc_check_piece *pieces);
// Cuts it into exactly three, which lie in the order of the plain cut. Ends the test if it is too short for that.
void sdc_check_request_three(struct sdc_check_bed *bed, const struct sdc_check_request *request, const struct sdc_check_disk *disk,
                             struct sdc_check_piece *pieces);
// Puts it into a queue's ring, with `indirect` as a table. False: the ring is full.
bool sdc_check_request_add(struct sdc_check_bed *bed, uint16_t queue, struct sdc_check_request *request, const struct sdc_check_disk *disk,
                          enum sdc_check_cut cut, bool indirect);
// Whether the device has written where it may not: outside of the data and the status.
void sdc_check_request_guards(struct sdc_check_bed *bed, const struct sdc_check_request *request);
// Once it is used: the used length, guards, what the device must not have written; and a disk's `status` (-1: any that there is).
void sdc_check_request_judge(struct sdc_check_bed *bed, uint16_t queue, const struct sdc_check_request *request, int status);
// Prepares, adds, shows, waits, judges that it is done well.
void sdc_check_request_do(struct sdc_check_bed *bed, uint16_t queue, struct sdc_check_request *request, const struct sdc_check_disk *disk,
                         enum sdc_check_cut cut, bool indirect);
