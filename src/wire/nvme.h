// SPDX-License-Identifier: BSD-3-Clause
// NVM Express as it lies in registers and memory: offsets, bits and numbers of the base specification 2.0 ("base") and the NVM command
// set specification 1.0 ("nvm"). Everything is little-endian. Nothing here makes a system call.
#pragma once

#include <stdint.h>

// --- registers (base 3.1.3) ---

enum {
    SDC_NVME_CAP = 0x00,   // 8 bytes
    SDC_NVME_VS = 0x08,
    SDC_NVME_INTMS = 0x0c,
    SDC_NVME_INTMC = 0x10,
    SDC_NVME_CC = 0x14,
    SDC_NVME_CSTS = 0x1c,
    SDC_NVME_NSSR = 0x20,
    SDC_NVME_AQA = 0x24,
    SDC_NVME_ASQ = 0x28,   // 8 bytes
    SDC_NVME_ACQ = 0x30,   // 8 bytes
    SDC_NVME_CMBLOC = 0x38,
    SDC_NVME_CMBSZ = 0x3c,
    SDC_NVME_BPINFO = 0x40,
    SDC_NVME_CRTO = 0x68,
    SDC_NVME_DOORBELLS = 0x1000, // with CAP.DSTRD 0: submission queue y at 8 * y, completion queue y at 8 * y + 4
};

#define SDC_NVME_VERSION_2_0 UINT32_C(0x00020000)
#define SDC_NVME_NSSR_MAGIC  UINT32_C(0x4e564d65) // "NVMe"

// CAP: shifts of its fields, and its bits.
enum {
    SDC_NVME_CAP_MQES = 0,    // 16 bits, entries less one
    SDC_NVME_CAP_CQR = 16,
    SDC_NVME_CAP_AMS = 17,
    SDC_NVME_CAP_TO = 24,     // 8 bits, of 500 ms
    SDC_NVME_CAP_DSTRD = 32,  // 4 bits
    SDC_NVME_CAP_NSSRS = 36,
    SDC_NVME_CAP_CSS = 37,    // 8 bits; bit 0: the NVM command set
    SDC_NVME_CAP_MPSMIN = 48, // 4 bits, a page is 1 << (12 + it)
    SDC_NVME_CAP_MPSMAX = 52,
};

enum {
    SDC_NVME_CC_EN = 1 << 0,
    SDC_NVME_CC_CSS = 4,     // shifts of: 3 bits
    SDC_NVME_CC_MPS = 7,     // 4 bits
    SDC_NVME_CC_AMS = 11,    // 3 bits
    SDC_NVME_CC_SHN = 14,    // 2 bits: 1 normal, 2 abrupt
    SDC_NVME_CC_IOSQES = 16, // 4 bits
    SDC_NVME_CC_IOCQES = 20, // 4 bits
};

enum {
    SDC_NVME_CSTS_RDY = 1 << 0,
    SDC_NVME_CSTS_CFS = 1 << 1,
    SDC_NVME_CSTS_SHST = 3 << 2,
    SDC_NVME_CSTS_SHST_BUSY = 1 << 2,
    SDC_NVME_CSTS_SHST_DONE = 2 << 2,
    SDC_NVME_CSTS_NSSRO = 1 << 4,
    SDC_NVME_CSTS_PP = 1 << 5,
};

// --- queue entries (base 3.3.3) ---

enum { SDC_NVME_SQE = 64, SDC_NVME_CQE = 16, SDC_NVME_SQES = 6, SDC_NVME_CQES = 4 };

// Offsets in a submission queue entry.
enum {
    SDC_NVME_SQE_OPCODE = 0,
    SDC_NVME_SQE_FLAGS = 1, // bits 1:0 fused, 7:6 PRP or SGL for data transfer
    SDC_NVME_SQE_CID = 2,
    SDC_NVME_SQE_NSID = 4,
    SDC_NVME_SQE_CDW2 = 8,
    SDC_NVME_SQE_MPTR = 16,
    SDC_NVME_SQE_PRP1 = 24, // or the SGL descriptor of 16 bytes
    SDC_NVME_SQE_PRP2 = 32,
    SDC_NVME_SQE_CDW10 = 40,
    SDC_NVME_SQE_CDW11 = 44,
    SDC_NVME_SQE_CDW12 = 48,
    SDC_NVME_SQE_CDW13 = 52,
    SDC_NVME_SQE_CDW14 = 56,
    SDC_NVME_SQE_CDW15 = 60,
};
enum { SDC_NVME_FUSED = 3, SDC_NVME_PSDT = 3 << 6, SDC_NVME_PSDT_SGL = 1 << 6, SDC_NVME_PSDT_SGL_MPTR = 2 << 6 };

// Offsets in a completion queue entry.
enum {
    SDC_NVME_CQE_DW0 = 0,
    SDC_NVME_CQE_DW1 = 4,
    SDC_NVME_CQE_SQHD = 8,
    SDC_NVME_CQE_SQID = 10,
    SDC_NVME_CQE_CID = 12,
    SDC_NVME_CQE_STATUS = 14, // bit 0: phase tag; bits 15:1: the status field
};

#define SDC_NVME_NSID_ALL UINT32_C(0xffffffff)

enum sdc_nvme_admin_opcode {
    SDC_NVME_ADMIN_DELETE_SQ = 0x00,
    SDC_NVME_ADMIN_CREATE_SQ = 0x01,
    SDC_NVME_ADMIN_GET_LOG_PAGE = 0x02,
    SDC_NVME_ADMIN_DELETE_CQ = 0x04,
    SDC_NVME_ADMIN_CREATE_CQ = 0x05,
    SDC_NVME_ADMIN_IDENTIFY = 0x06,
    SDC_NVME_ADMIN_ABORT = 0x08,
    SDC_NVME_ADMIN_SET_FEATURES = 0x09,
    SDC_NVME_ADMIN_GET_FEATURES = 0x0a,
    SDC_NVME_ADMIN_ASYNC_EVENT = 0x0c,
    SDC_NVME_ADMIN_NS_MANAGEMENT = 0x0d,
    SDC_NVME_ADMIN_FW_COMMIT = 0x10,
    SDC_NVME_ADMIN_FW_DOWNLOAD = 0x11,
    SDC_NVME_ADMIN_SELF_TEST = 0x14,
    SDC_NVME_ADMIN_NS_ATTACHMENT = 0x15,
    SDC_NVME_ADMIN_KEEP_ALIVE = 0x18,
    SDC_NVME_ADMIN_DOORBELL_BUFFER = 0x7c,
    SDC_NVME_ADMIN_FORMAT = 0x80,
};

enum sdc_nvme_io_opcode {
    SDC_NVME_IO_FLUSH = 0x00,
    SDC_NVME_IO_WRITE = 0x01,
    SDC_NVME_IO_READ = 0x02,
    SDC_NVME_IO_WRITE_UNCORRECTABLE = 0x04,
    SDC_NVME_IO_COMPARE = 0x05,
    SDC_NVME_IO_WRITE_ZEROES = 0x08,
    SDC_NVME_IO_DSM = 0x09,
    SDC_NVME_IO_VERIFY = 0x0c,
    SDC_NVME_IO_COPY = 0x19,
};

// CDW12 of reads, writes, compares and write zeroes (nvm 3.2); its low 16 bits are the blocks less one.
#define SDC_NVME_RW_DEAC (UINT32_C(1) << 25) // write zeroes: may deallocate
#define SDC_NVME_RW_PRINFO (UINT32_C(15) << 26)
#define SDC_NVME_RW_FUA  (UINT32_C(1) << 30)
#define SDC_NVME_RW_LR   (UINT32_C(1) << 31)

// CDW11 of dataset management.
enum { SDC_NVME_DSM_IDR = 1, SDC_NVME_DSM_IDW = 2, SDC_NVME_DSM_AD = 4, SDC_NVME_DSM_RANGE = 16 };

// --- status (base 3.3.3.2): type in bits 10:8, code in bits 7:0, as sdc_nvme_status has it; the field is that and the two bits below ---

enum sdc_nvme_status {
    // Generic.
    SDC_NVME_SC_SUCCESS = 0x000,
    SDC_NVME_SC_INVALID_OPCODE = 0x001,
    SDC_NVME_SC_INVALID_FIELD = 0x002,
    SDC_NVME_SC_CID_CONFLICT = 0x003,
    SDC_NVME_SC_DATA_TRANSFER = 0x004,
    SDC_NVME_SC_POWER_LOSS = 0x005,
    SDC_NVME_SC_INTERNAL = 0x006,
    SDC_NVME_SC_ABORTED = 0x007,
    SDC_NVME_SC_ABORTED_SQ_DELETION = 0x008,
    SDC_NVME_SC_ABORTED_FUSED_FAIL = 0x009,
    SDC_NVME_SC_ABORTED_FUSED_MISSING = 0x00a,
    SDC_NVME_SC_INVALID_NS = 0x00b,
    SDC_NVME_SC_SEQUENCE = 0x00c,
    SDC_NVME_SC_SGL_LAST_SEGMENT = 0x00d, // invalid SGL segment descriptor
    SDC_NVME_SC_SGL_COUNT = 0x00e,        // invalid number of SGL descriptors
    SDC_NVME_SC_SGL_LENGTH = 0x00f,       // data SGL length invalid
    SDC_NVME_SC_SGL_METADATA = 0x010,
    SDC_NVME_SC_SGL_TYPE = 0x011,
    SDC_NVME_SC_PRP_OFFSET = 0x013,
    SDC_NVME_SC_SGL_OFFSET = 0x016,
    SDC_NVME_SC_KEEP_ALIVE_EXPIRED = 0x019,
    SDC_NVME_SC_KEEP_ALIVE_INVALID = 0x01a,
    SDC_NVME_SC_SGL_GRANULARITY = 0x01e,
    SDC_NVME_SC_WRITE_PROTECTED = 0x020,
    SDC_NVME_SC_LBA_RANGE = 0x080,
    SDC_NVME_SC_CAPACITY = 0x081,
    SDC_NVME_SC_NS_NOT_READY = 0x082,
    // Command specific.
    SDC_NVME_SC_CQ_INVALID = 0x100,
    SDC_NVME_SC_QID_INVALID = 0x101,
    SDC_NVME_SC_QSIZE_INVALID = 0x102,
    SDC_NVME_SC_ABORT_LIMIT = 0x103,
    SDC_NVME_SC_AER_LIMIT = 0x105,
    SDC_NVME_SC_VECTOR_INVALID = 0x108,
    SDC_NVME_SC_LOG_PAGE_INVALID = 0x109,
    SDC_NVME_SC_QUEUE_IN_USE = 0x10c, // invalid queue deletion
    SDC_NVME_SC_FEATURE_NOT_SAVEABLE = 0x10d,
    SDC_NVME_SC_FEATURE_NOT_CHANGEABLE = 0x10e,
    SDC_NVME_SC_FEATURE_NOT_NS = 0x10f, // feature not namespace specific
    SDC_NVME_SC_CONFLICTING_ATTRIBUTES = 0x180,
    SDC_NVME_SC_READ_ONLY = 0x182, // attempted write to read only range
    SDC_NVME_SC_SIZE_LIMIT = 0x183,
    // Media and data integrity.
    SDC_NVME_SC_WRITE_FAULT = 0x280,
    SDC_NVME_SC_READ_ERROR = 0x281,
    SDC_NVME_SC_COMPARE = 0x285,
};
enum { SDC_NVME_SC_MORE = 1 << 13, SDC_NVME_SC_DNR = 1 << 14 };

// --- SGL descriptors (base 4.1.2): address in bytes 7:0, length in 11:8, type and subtype in 15 ---

enum { SDC_NVME_SGL = 16, SDC_NVME_SGL_LENGTH = 8, SDC_NVME_SGL_KIND = 15 };
enum sdc_nvme_sgl_type {
    SDC_NVME_SGL_DATA = 0,
    SDC_NVME_SGL_BIT_BUCKET = 1,
    SDC_NVME_SGL_SEGMENT = 2,
    SDC_NVME_SGL_LAST_SEGMENT = 3,
};

// --- identify (base 5.17) ---

enum { SDC_NVME_IDENTIFY_BYTES = 4096 };
enum sdc_nvme_cns {
    SDC_NVME_CNS_NS = 0x00,
    SDC_NVME_CNS_CONTROLLER = 0x01,
    SDC_NVME_CNS_ACTIVE_NS = 0x02,
    SDC_NVME_CNS_NS_DESCRIPTORS = 0x03,
    SDC_NVME_CNS_CS_NS = 0x05,         // command set specific namespace
    SDC_NVME_CNS_CS_CONTROLLER = 0x06,
    SDC_NVME_CNS_CS_ACTIVE_NS = 0x07,
    SDC_NVME_CNS_NS_INDEPENDENT = 0x08,
    SDC_NVME_CNS_ALLOCATED_NS = 0x10,
    SDC_NVME_CNS_ALLOCATED = 0x11,
    SDC_NVME_CNS_NS_CONTROLLERS = 0x12,
    SDC_NVME_CNS_CONTROLLERS = 0x13,
    SDC_NVME_CNS_COMMAND_SETS = 0x1c,
};

// --- features (base 5.27.1, nvm 4.1.3) ---

enum sdc_nvme_feature {
    SDC_NVME_FEAT_ARBITRATION = 0x01,
    SDC_NVME_FEAT_POWER = 0x02,
    SDC_NVME_FEAT_LBA_RANGE = 0x03,
    SDC_NVME_FEAT_TEMPERATURE = 0x04,
    SDC_NVME_FEAT_ERROR_RECOVERY = 0x05,
    SDC_NVME_FEAT_WRITE_CACHE = 0x06,
    SDC_NVME_FEAT_QUEUES = 0x07,
    SDC_NVME_FEAT_COALESCING = 0x08,
    SDC_NVME_FEAT_VECTOR = 0x09,
    SDC_NVME_FEAT_ATOMICITY = 0x0a,
    SDC_NVME_FEAT_ASYNC_EVENTS = 0x0b,
    SDC_NVME_FEAT_TIMESTAMP = 0x0e,
    SDC_NVME_FEAT_KEEP_ALIVE = 0x0f,
    SDC_NVME_FEAT_HOST_BEHAVIOR = 0x16,
    SDC_NVME_FEAT_COMMAND_SET_PROFILE = 0x19,
};

// --- log pages (base 5.16.1) ---

enum sdc_nvme_log {
    SDC_NVME_LOG_SUPPORTED = 0x00,
    SDC_NVME_LOG_ERROR = 0x01,
    SDC_NVME_LOG_SMART = 0x02,
    SDC_NVME_LOG_FIRMWARE = 0x03,
    SDC_NVME_LOG_CHANGED_NS = 0x04,
    SDC_NVME_LOG_EFFECTS = 0x05,
    SDC_NVME_LOG_FEATURES = 0x12, // feature identifiers supported and effects
    SDC_NVME_LOG_MI = 0x13,       // management interface commands supported and effects
};

// --- asynchronous events (base 5.2): type in bits 2:0 of DW0, information in 15:8, log page in 23:16 ---

enum sdc_nvme_event {
    SDC_NVME_EVENT_ERROR = 0,
    SDC_NVME_EVENT_SMART = 1,
    SDC_NVME_EVENT_NOTICE = 2,
};
enum { SDC_NVME_EVENT_BAD_DOORBELL = 0, SDC_NVME_EVENT_BAD_DOORBELL_VALUE = 1 }; // of ERROR
enum { SDC_NVME_EVENT_NS_CHANGED = 0 };                                          // of NOTICE
