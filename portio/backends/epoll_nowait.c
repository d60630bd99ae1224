/* Calls that neither sleep nor raise a signal. */
#include "epoll.h"

#include <errno.h>
#include <signal.h>

#include "linux_abi.h"

/* Writing to a pipe that nobody reads raises SIGPIPE in the calling thread
   before the call gives EPIPE, and so does sendfile to a broken socket; neither
   has a flag like MSG_NOSIGNAL (before 6.18).  CPython ignores the signal, but
   a program that embeds it may not, and a library must not end it: the signal
   is blocked for the call, and taken back if the call has raised it. */
void sigpipe_begin(struct sigpipe_guard *guard)
{
    struct sigaction action;
    guard->blocks = false;
    if (sigaction(SIGPIPE, NULL, &action) == 0 && action.sa_handler == SIG_IGN)
        return;
    sigset_t pending, sigpipe;
    guard->was_pending = sigpending(&pending) == 0 && sigismember(&pending, SIGPIPE) == 1;
    sigemptyset(&sigpipe);
    sigaddset(&sigpipe, SIGPIPE);
    guard->blocks = pthread_sigmask(SIG_BLOCK, &sigpipe, &guard->former) == 0;
}

void sigpipe_end(const struct sigpipe_guard *guard, bool broken)
{
    if (!guard->blocks)
        return;
    int error = errno;
    if (broken && !guard->was_pending) {
        struct timespec at_once = {0, 0};
        sigset_t sigpipe;
        sigemptyset(&sigpipe);
        sigaddset(&sigpipe, SIGPIPE);
        while (sigtimedwait(&sigpipe, NULL, &at_once) < 0 && errno == EINTR)
            continue;
    }
    pthread_sigmask(SIG_SETMASK, &guard->former, NULL);
    errno = error;
}

int64_t nowait_write(struct engine *engine, int fd, const struct iovec *vectors,
                     uint32_t count, int64_t offset)
{
    if (epoll_has(engine->features, FEATURE_NOSIGNAL))
        return abi_without_flag(
            abi_pwritev2(fd, vectors, count, offset, ABI_RWF_NOWAIT | ABI_RWF_NOSIGNAL));
    struct sigpipe_guard guard;
    sigpipe_begin(&guard);
    int64_t result =
        abi_without_flag(abi_pwritev2(fd, vectors, count, offset, ABI_RWF_NOWAIT));
    sigpipe_end(&guard, result < 0 && errno == EPIPE);
    return result;
}
