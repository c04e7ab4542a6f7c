// SPDX-License-Identifier: BSD-3-Clause
#include "os/child.h"

#include "os/clock.h"
#include "os/fd.h"
#include "os/wait.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

_Noreturn void sdc_child_end(void)
{
    _exit(0);
}

static _Noreturn void be_child(void (*work)(void *argument), void *argument, pid_t parent)
{
    // Whoever waits for it may be killed. It may have been already.
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() == parent)
        work(argument);
    sdc_child_end();
}

// Waits for the child, which is of the caller's until then: its number is nobody else's.
static int reap(pid_t child, bool late, int *number)
{
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (late)
        return SDC_CHILD_LATE;
    *number = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    return WIFSIGNALED(status) ? SDC_CHILD_KILLED : SDC_CHILD_ENDED;
}

int sdc_child_run(void (*work)(void *argument), void *argument, int timeout_ms, int *number)
{
    pid_t parent = getpid();
    *number = 0;
    fflush(NULL); // or it would be written twice
    pid_t child = fork();
    if (child < 0)
        return -errno;
    if (child == 0)
        be_child(work, argument, parent);
    int fd = (int)syscall(SYS_pidfd_open, child, 0);
    if (fd < 0) {
        int ret = -errno;
        kill(child, SIGKILL);
        reap(child, true, number);
        return ret;
    }
    bool late = sdc_wait_fd(fd, SDC_WAIT_INPUT, timeout_ms) <= 0;
    if (late)
        kill(child, SIGKILL);
    sdc_fd_close(&fd);
    return reap(child, late, number);
}

int sdc_child_share(uint64_t size, void **base)
{
    void *made = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (made == MAP_FAILED)
        return -errno;
    *base = made;
    return 0;
}
