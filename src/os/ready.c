// SPDX-License-Identifier: BSD-3-Clause
#include "os/ready.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int sdc_ready_fd(int fd, struct sdc_error *err)
{
    static const char text[] = "READY\n";

    ssize_t written = write(fd, text, sizeof text - 1);
    int saved = errno;
    close(fd);
    if (written != (ssize_t)(sizeof text - 1))
        return sdc_error_set(err, -saved, SDC_FAULT_USER, "--ready-fd=%d cannot be written to: %s", fd, strerror(saved));
    return 0;
}

void sdc_ready_notify(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = getenv("NOTIFY_SOCKET");
    size_t length = path ? strlen(path) : 0;

    if (length < 2 || length >= sizeof address.sun_path || (path[0] != '/' && path[0] != '@'))
        return;
    memcpy(address.sun_path, path, length);
    if (path[0] == '@') // abstract (sd_notify(3))
        address.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    static const char text[] = "READY=1";
    (void)!sendto(fd, text, sizeof text - 1, MSG_NOSIGNAL, (struct sockaddr *)&address,
                  (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length));
    close(fd);
}
