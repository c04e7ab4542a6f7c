// SPDX-License-Identifier: BSD-3-Clause
// A card in C++, in a poll loop of the program's own. Its one register tells how often a timer has ticked, and each tick raises an
// interrupt. The server is one fd among the others, and one function to call when that is readable.
#include <sidecard/server.h>

#include <csignal>
#include <cstdio>
#include <poll.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

namespace {

struct Clock {
    sdc_pci_device pci{}; // first: the library's pointer to it is ours to the clock
    uint32_t ticks = 0;

    void tick()
    {
        ticks++;
        sdc_pci_interrupt(&pci, SDC_PCI_MSIX, 0);
    }
};

int access_register(sdc_pci_device *pci, sdc_pci_access *access)
{
    if (!access->write)
        access->value = access->offset == 0 ? reinterpret_cast<Clock *>(pci)->ticks : 0;
    return 0;
}

void reset(sdc_pci_device *pci)
{
    reinterpret_cast<Clock *>(pci)->ticks = 0;
}

int timer(long milliseconds)
{
    const timespec period{milliseconds / 1000, milliseconds % 1000 * 1000000};
    const itimerspec setting{period, period};
    const int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);

    timerfd_settime(fd, 0, &setting, nullptr);
    return fd;
}

// The signals that end the program, as an fd.
int signals()
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, nullptr);
    return signalfd(-1, &set, SFD_CLOEXEC);
}

int serve(sdc_server *server, Clock &clock, sdc_error *err)
{
    const int fd = sdc_server_fd(server, err);
    pollfd fds[] = {{fd, POLLIN, 0}, {timer(10), POLLIN, 0}, {signals(), POLLIN, 0}};
    int ret = fd < 0 ? fd : static_cast<int>(SDC_SERVER_WAITS);

    while (ret >= 0 && ret != SDC_SERVER_ENDED) {
        uint64_t count;
        signalfd_siginfo signal;

        poll(fds, 3, ret == SDC_SERVER_GOES_ON ? 0 : -1);
        if (fds[1].revents && read(fds[1].fd, &count, sizeof count) == sizeof count)
            clock.tick();
        if (fds[2].revents && read(fds[2].fd, &signal, sizeof signal) == sizeof signal)
            sdc_server_stop(server); // sessions end in order: process says when they have
        ret = sdc_server_process(server, err);
    }
    close(fds[1].fd);
    close(fds[2].fd);
    return ret;
}

} // namespace

int main(int argc, char **argv)
{
    static constexpr sdc_pci_ops ops{.name = "clock", .access = access_register, .reset = reset, .destroy = sdc_pci_fini};
    static constexpr sdc_pci_identity identity{.vendor = 0x1234, .device = 0xc10c, .class_code = 0x088000};
    static Clock clock;
    sdc_server *server = nullptr;
    sdc_error err;

    if (argc != 2) {
        std::fprintf(stderr, "usage: own-loop SOCKET\n");
        return 2;
    }
    clock.pci.bars[0].size = 4096;
    if (sdc_server_new(nullptr, &server, &err) < 0 || sdc_pci_init(&clock.pci, &ops, &identity, &err) < 0 ||
        sdc_pci_add_msix(&clock.pci, 1, 1, &err) < 0 || sdc_server_add_pci(server, argv[1], &clock.pci, nullptr, &err) < 0 ||
        serve(server, clock, &err) < 0) {
        std::fprintf(stderr, "own-loop: %s\n", err.text);
        return 1;
    }
    sdc_server_free(server);
    return 0;
}
