// SPDX-License-Identifier: BSD-3-Clause
// The files that a loop does I/O on, by small numbers. There may be as many as the process can have open.
#include "loop/engine.h"

#include <stdlib.h>

enum { FILES_FIRST = 16 };

static bool make_room(struct sdc_loop *loop)
{
    int capacity = loop->files_capacity ? 2 * loop->files_capacity : FILES_FIRST;
    struct sdc_loop_file *files = realloc(loop->files, (size_t)capacity * sizeof *files);

    if (!files)
        return false;
    for (int i = loop->files_capacity; i < capacity; i++)
        files[i] = (struct sdc_loop_file){0};
    loop->files = files;
    loop->files_capacity = capacity;
    return true;
}

// The file that is fd, or one that is free, or the first behind all.
static int find(const struct sdc_loop *loop, int fd)
{
    int unused = loop->files_capacity;

    for (int i = loop->files_capacity - 1; i >= 0; i--) {
        if (loop->files[i].users == 0)
            unused = i;
        else if (loop->files[i].fd == fd)
            return i;
    }
    return unused;
}

// A disk's queues all add the same fd: it is the same file.
int sdc_loop_file_add(struct sdc_loop *loop, int fd)
{
    int number = find(loop, fd);

    if (number == loop->files_capacity && !make_room(loop))
        return -ENOMEM;
    struct sdc_loop_file *file = &loop->files[number];
    if (file->users++ == 0) {
        file->fd = fd;
        loop->ops->file_add(loop, number);
    }
    return number;
}

void sdc_loop_file_remove(struct sdc_loop *loop, int file)
{
    if (--loop->files[file].users == 0)
        loop->ops->file_remove(loop, file);
}

void sdc_loop_io(struct sdc_loop *loop, struct sdc_io *io)
{
    io->fd = loop->files[io->file].fd;
    loop->ops->io(loop, io);
}
