// SPDX-License-Identifier: BSD-3-Clause
#include "os/signals.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

int sdc_signals_open(const int *signals)
{
    sigset_t set;

    sigemptyset(&set);
    for (; *signals; signals++)
        sigaddset(&set, *signals);
    int rc = pthread_sigmask(SIG_BLOCK, &set, NULL);
    if (rc != 0)
        return -rc;
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return fd < 0 ? -errno : fd;
}

void sdc_signal_catch_once(int signal, void (*caught)(int signal))
{
    struct sigaction action = {.sa_handler = caught, .sa_flags = (int)SA_RESETHAND | SA_RESTART};

    sigaction(signal, &action, NULL);
}

int sdc_signals_take(int fd)
{
    struct signalfd_siginfo info;

    return read(fd, &info, sizeof info) == (ssize_t)sizeof info ? (int)info.ssi_signo : 0;
}
