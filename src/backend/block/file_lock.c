// SPDX-License-Identifier: BSD-3-Clause
// The image's lock, or that of a slice of it. A killed predecessor's is held by the kernel until its last write has ended, so that
// waiting for the lock is what makes it safe to start again on the same image.
#include "backend/block/file.h"
#include "base/log.h"
#include "os/clock.h"
#include "os/disk.h"

#include <errno.h>
#include <string.h>

// Somebody else has it. Said once for each time of waiting.
static int wait_or_give_up(struct sdc_file *file)
{
    uint64_t now = sdc_clock_ns();
    if (file->lock.deadline_ns == 0) {
        file->lock.deadline_ns = now + file->lock.wait_ns;
        bool part = file->lock.offset > 0 || file->lock.size > 0;
        sdc_log(SDC_LOG_WARNING, "%s%s is in use, locked by another process; waiting up to %u s for the lock",
                part ? "a slice of " : "", file->path, (unsigned)((file->lock.wait_ns + 999999999) / 1000000000));
    }
    return now < file->lock.deadline_ns ? -EAGAIN : -EBUSY;
}

// Holds the mutex.
static int try_locked(struct sdc_file *file)
{
    if (file->lock.held)
        return 0;
    int ret = sdc_disk_lock(file->fd, file->lock.offset, file->lock.size, !file->info.read_only);
    if (ret == -EAGAIN)
        return wait_or_give_up(file);
    if (ret < 0)
        sdc_log(SDC_LOG_WARNING,
                "%s: its file system keeps no locks (%s); nothing stops another process from writing to it",
                file->path, strerror(-ret));
    else if (file->lock.deadline_ns != 0)
        sdc_log(SDC_LOG_INFO, "%s: the other process has given its lock up", file->path);
    file->lock.held = true;
    file->lock.deadline_ns = 0;
    return 0;
}

int sdc_file_lock_try(struct sdc_file *file)
{
    pthread_mutex_lock(&file->lock.mutex);
    int ret = try_locked(file);
    pthread_mutex_unlock(&file->lock.mutex);
    return ret;
}

int sdc_file_lock_enter(struct sdc_file *file)
{
    pthread_mutex_lock(&file->lock.mutex);
    file->lock.users++;
    int ret = try_locked(file);
    pthread_mutex_unlock(&file->lock.mutex);
    return ret;
}

void sdc_file_lock_leave(struct sdc_file *file)
{
    pthread_mutex_lock(&file->lock.mutex);
    if (--file->lock.users == 0) {
        if (file->lock.held)
            sdc_disk_unlock(file->fd, file->lock.offset, file->lock.size);
        file->lock.held = false;
        file->lock.deadline_ns = 0;
    }
    pthread_mutex_unlock(&file->lock.mutex);
}
