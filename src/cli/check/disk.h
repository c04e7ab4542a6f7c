// SPDX-License-Identifier: BSD-3-Clause
// Requests of a virtio disk (virtio 1.2, 5.2.6) in chains of any shape, on a bed's raw rings.
#pragma once

#include "cli/check/bed.h"

enum {
    SDC_CHECK_SECTOR = 512,
    SDC_CHECK_PIECES_MAX = 1024,
};

enum sdc_check_disk_type {
    SDC_CHECK_DISK_IN = 0,
    SDC_CHECK_DISK_OUT = 1,
    SDC_CHECK_DISK_FLUSH = 4,
    SDC_CHECK_DISK_GET_ID = 8,
    SDC_CHECK_DISK_DISCARD = 11,
    SDC_CHECK_DISK_WRITE_ZEROES = 13,
};

enum { SDC_CHECK_DISK_OK = 0, SDC_CHECK_DISK_IOERR = 1, SDC_CHECK_DISK_UNSUPP = 2, SDC_CHECK_DISK_UNTOUCHED = 0xa5 };

// Features of the device's own (5.2.3).
#define SDC_CHECK_BLK_F_SIZE_MAX (UINT64_C(1) << 1)
#define SDC_CHECK_BLK_F_SEG_MAX (UINT64_C(1) << 2)
#define SDC_CHECK_BLK_F_RO (UINT64_C(1) << 5)
#define SDC_CHECK_BLK_F_BLK_SIZE (UINT64_C(1) << 6)
#define SDC_CHECK_BLK_F_FLUSH (UINT64_C(1) << 9)
#define SDC_CHECK_BLK_F_MQ (UINT64_C(1) << 12)
#define SDC_CHECK_BLK_F_DISCARD (UINT64_C(1) << 13)
#define SDC_CHECK_BLK_F_WRITE_ZEROES (UINT64_C(1) << 14)
#define SDC_CHECK_BLK_FEATURES                                                                                          \
    (SDC_CHECK_BLK_F_SIZE_MAX | SDC_CHECK_BLK_F_SEG_MAX | SDC_CHECK_BLK_F_RO | SDC_CHECK_BLK_F_BLK_SIZE |               \
     SDC_CHECK_BLK_F_FLUSH | SDC_CHECK_BLK_F_MQ | SDC_CHECK_BLK_F_DISCARD | SDC_CHECK_BLK_F_WRITE_ZEROES)

// What the disk says of itself.
struct sdc_check_disk {
    uint64_t sectors;
    uint32_t block_sectors; // of its logical blocks
    uint32_t size_max;      // bytes of one descriptor
    uint32_t seg_max;       // descriptors of a request's data
    uint16_t queues;
    uint32_t discard_sectors, discard_segments;
    uint32_t zeroes_sectors, zeroes_segments;
};
void sdc_check_disk_read(struct sdc_check_bed *bed, struct sdc_check_disk *disk);

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
    uint32_t type;
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

// Memory for a request with up to `room` bytes of data, and one with a table of SDC_CHECK_PIECES_MAX descriptors.
void sdc_check_request_new(struct sdc_check_bed *bed, uint32_t room, struct sdc_check_request *request);
uint8_t *sdc_check_request_data(const struct sdc_check_request *request);
uint8_t sdc_check_request_status(const struct sdc_check_request *request);
// Where its parts lie, to be put into chains of one's own.
uint64_t sdc_check_request_header_iova(const struct sdc_check_request *request);
uint64_t sdc_check_request_data_iova(const struct sdc_check_request *request);
uint64_t sdc_check_request_status_iova(const struct sdc_check_request *request);
// Fills header, guards, and, for what the device writes, poison.
void sdc_check_request_prepare(struct sdc_check_request *request);
// Cuts a prepared request into pieces (SDC_CHECK_PIECES_MAX at most, and no more than `most`). How many.
unsigned sdc_check_request_cut(const struct sdc_check_request *request, const struct sdc_check_disk *disk, enum sdc_check_cut cut,
                               unsigned most, struct sdc_check_piece *pieces);
// Puts it into a queue's ring, with `indirect` as a table. False: the ring is full.
bool sdc_check_request_add(struct sdc_check_bed *bed, uint16_t queue, struct sdc_check_request *request, const struct sdc_check_disk *disk,
                          enum sdc_check_cut cut, bool indirect);
// Whether the device has written where it may not: outside of the data and the status.
void sdc_check_request_guards(struct sdc_check_bed *bed, const struct sdc_check_request *request);
// Once it is used: the used length, guards, what the device must not have written; and `status` (-1: any that there is).
void sdc_check_request_judge(struct sdc_check_bed *bed, uint16_t queue, const struct sdc_check_request *request, int status);
// Prepares, adds, shows, waits, judges that it is done well.
void sdc_check_request_do(struct sdc_check_bed *bed, uint16_t queue, struct sdc_check_request *request, const struct sdc_check_disk *disk,
                         enum sdc_check_cut cut, bool indirect);
