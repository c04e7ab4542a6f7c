// SPDX-License-Identifier: BSD-3-Clause
// The JSON of a VERSION message.
#include "base/limits.h"
#include "card.h"
#include "wire/vfio_user_version.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

// What we print is what we read.
static void check_round_trip(const struct sdc_vfu_capabilities *said)
{
    struct sdc_vfu_capabilities again;
    struct sdc_error err;
    char json[256];
    int length = sdc_vfu_capabilities_print(said, json, sizeof json);

    fuzz_check(length > 0, "capabilities cannot be printed");
    fuzz_check(sdc_vfu_capabilities_parse(json, (size_t)length, &again, &err) == 0, "our own JSON is refused");
    fuzz_check(again.max_msg_fds == said->max_msg_fds && again.max_data_xfer_size == said->max_data_xfer_size &&
                   again.max_dma_maps == said->max_dma_maps && again.pgsizes == said->pgsizes &&
                   again.write_multiple == said->write_multiple,
               "our own JSON says something else");
    fuzz_check(sdc_vfu_capabilities_print(said, json, (size_t)length - 1) == -ENOSPC, "a buffer that is too small suffices");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sdc_vfu_capabilities said;
    struct sdc_error err = {0};
    char *json = malloc(size ? size : 1); // so that a byte behind it is found out

    fuzz_check(json != NULL, "no memory");
    if (size)
        memcpy(json, data, size);
    int rc = sdc_vfu_capabilities_parse(json, size, &said, &err);
    free(json);
    if (rc < 0) {
        fuzz_check(rc == -EINVAL && err.code == rc && err.text[0] != '\0', "refused without a reason");
        return 0;
    }
    fuzz_check(size <= SDC_LIMIT_VERSION_JSON, "JSON beyond the limit is taken");
    fuzz_check(said.max_msg_fds >= 1 && said.max_data_xfer_size >= 1 && said.max_dma_maps >= 1 && said.pgsizes >= 4096,
               "a capability out of range is taken");
    check_round_trip(&said);
    return 0;
}
