// SPDX-License-Identifier: BSD-3-Clause
// Errors. Functions return 0 or a negative errno; functions that set something up also fill a struct sdc_error
// that says in one line what was wrong, with which value, whose fault it is, and what to do about it.
#pragma once

#ifdef __cplusplus
extern "C" {
#endif

#define SDC_PUBLIC __attribute__((visibility("default")))

// Members that several threads touch, all of them the library's. C++ sees them as plain ones of the same size, and leaves them alone.
#ifdef __cplusplus
#define SDC_ATOMIC(type) type
#else
#define SDC_ATOMIC(type) _Atomic(type)
#endif

// Whose fault an error is. It decides the tone of a message and the exit status of the command.
enum sdc_fault {
    SDC_FAULT_NONE,
    SDC_FAULT_USER, // the command line or the caller's arguments
    SDC_FAULT_PEER, // the VMM, the guest or the server at the other end of the socket
    SDC_FAULT_HOST, // the host: no memory, no permission, a file that is not there or not an image
};

struct sdc_error {
    int code; // negative errno, 0 while nothing has gone wrong
    enum sdc_fault fault;
    char text[384];
};

// Fills *err (which may be NULL) and returns code, so that a caller can `return sdc_error_set(...)`.
// Any thread. code is a negative errno. Text that is too long is cut.
SDC_PUBLIC int sdc_error_set(struct sdc_error *err, int code, enum sdc_fault fault, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#ifdef __cplusplus
}
#endif
