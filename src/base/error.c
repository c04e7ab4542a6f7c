// SPDX-License-Identifier: BSD-3-Clause
// Filling a struct sdc_error.
#include <sidecard/error.h>

#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

int sdc_error_set(struct sdc_error *err, int code, enum sdc_fault fault, const char *format, ...)
{
    if (!err)
        return code;
    err->code = code;
    err->fault = fault;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(err->text, sizeof err->text, format, arguments);
    va_end(arguments);
    sdc_log_disarm(err->text); // names of files and keys may have anything in them
    return code;
}
