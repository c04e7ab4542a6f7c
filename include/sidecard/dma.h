// SPDX-License-Identifier: BSD-3-Clause
// DMA for PCI devices that were made with sdc_pci_init: the guest's memory, copied or by span. It is the same whether that memory is shared
// with this process or is reached by messages to the client. Everything here is called on the device's home loop, and so are the functions
// that it calls, never from inside of the call that began it.
//
// Nothing dangles. When the device is reset, and that is also before a client's memory goes away for good, all that is under way ends with
// -ECANCELED before ops->reset is called. When the client takes back some of its memory, a copy from or to it has been done or fails with
// -EFAULT.
//
// No order is kept between what is under way at the same time: what has to come second is begun when the first is done.
#pragma once

#include <sidecard/memory.h>
#include <sidecard/pci.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    SDC_DMA_SIZE_MAX = 8 * 1024 * 1024, // bytes of one copy or window
    SDC_DMA_UNDER_WAY_MAX = 1024,       // copies and windows of a device
};

// How it went: 0; -EFAULT: a part of the range is not in the guest's memory; -EACCES: or may not be accessed so; -EIO: the client does not
// answer; -ECANCELED; -ENOMEM.
typedef void sdc_dma_done(void *context, int result);

// Copies size bytes at iova to local, or from local, and calls done once. Until then local stays as and where it is; after an error it may
// be changed in part. 0; -EINVAL: size is larger than SDC_DMA_SIZE_MAX; -EAGAIN: too much is under way, try again when some of it is done;
// -ECANCELED: the device is being reset; -ENOMEM. When it is not 0, done is not called.
SDC_PUBLIC int sdc_dma_read(struct sdc_pci_device *device, uint64_t iova, void *local, size_t size, sdc_dma_done *done, void *context);
SDC_PUBLIC int sdc_dma_write(struct sdc_pci_device *device, uint64_t iova, const void *local, size_t size, sdc_dma_done *done,
                             void *context);

// A range of guest memory as spans, to hand to the kernel or to compute on in place. Memory that is shared is there itself; of other memory
// it is a copy, brought before and, if it is to be written, taken back when it is unmapped.
struct sdc_dma_window;
// window is NULL when result is not 0.
typedef void sdc_dma_mapped(void *context, struct sdc_dma_window *window, int result);

// Makes size bytes at iova (more than 0) accessible, to read or to write: one of the two. Returns as sdc_dma_read; when that is 0, mapped
// is called once. The window is the device's until sdc_dma_unmap. A window to write does not show what the memory held.
//
// While it is there it keeps the client waiting that takes the memory back, which after 4 s is told that it cannot, and a reset: windows
// are for I/O that ends. Memory that is shared can change under the reader at any time: what decides anything is copied (sdc_dma_read).
SDC_PUBLIC int sdc_dma_map(struct sdc_pci_device *device, uint64_t iova, uint64_t size, enum sdc_access access, sdc_dma_mapped *mapped,
                           void *context);
SDC_PUBLIC const struct sdc_span *sdc_dma_spans(const struct sdc_dma_window *window, uint32_t *count);
// Gives it back, once. Its first `written` bytes were written, and are in the guest's memory when done is called with 0; done may be NULL,
// and a window that was read has 0 written. The spans are gone when this returns. A window that is NULL does nothing.
SDC_PUBLIC void sdc_dma_unmap(struct sdc_dma_window *window, uint64_t written, sdc_dma_done *done, void *context);

// All that is under way ends with -ECANCELED, before this returns, but for windows, which the device has to unmap as ever. What was written
// so far stays written. From inside of a done or mapped, too.
SDC_PUBLIC void sdc_dma_cancel(struct sdc_pci_device *device);

#ifdef __cplusplus
}
#endif
