// SPDX-License-Identifier: BSD-3-Clause
#include "transport/common/mapped_page.h"

#include "os/fd.h"
#include "os/memfd.h"

// The file is as long as the BAR up to the page's end; only this page of it is ever touched.
int sdc_mapped_page_new(struct sdc_pci_mappable *mappable, const char *name, uint64_t offset, void **page)
{
    *mappable = (struct sdc_pci_mappable){0};
    *page = NULL;
    int fd = sdc_memfd_new(name, offset + SDC_MAPPED_PAGE);
    if (fd < 0)
        return fd;
    int rc = sdc_fd_map_part(fd, offset, SDC_MAPPED_PAGE, true, page);
    if (rc < 0) {
        sdc_fd_close(&fd);
        return rc;
    }
    *mappable = (struct sdc_pci_mappable){.areas = {{.offset = offset, .size = SDC_MAPPED_PAGE}}, .areas_count = 1, .fd = fd};
    return 0;
}

void sdc_mapped_page_free(struct sdc_pci_mappable *mappable, void **page)
{
    if (!*page)
        return;
    sdc_unmap(*page, SDC_MAPPED_PAGE);
    sdc_fd_close(&mappable->fd);
    *page = NULL;
    *mappable = (struct sdc_pci_mappable){0};
}
