/* What this kernel offers beyond the epoll of Linux 2.6.28, found by asking it:
   a system-call filter may refuse what the version promises. */
#include "epoll.h"
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/sendfile.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "linux_abi.h"

static const char *const feature_names[] = {
    "epoll_pwait2", /* 5.11: waits in nanoseconds; without it, in milliseconds */
    "rwf_nowait",   /* 4.14: cached files are read at once, pipes as they are;
                       without it, helper threads, and O_NONBLOCK on pipes */
    "rwf_nosignal", /* 6.18: writes to a broken pipe raise no SIGPIPE; without
                       it, the signal is blocked around the call */
    "sendfile",     /* without it, helper threads copy through a buffer */
};

_Static_assert(sizeof feature_names / sizeof *feature_names == FEATURE_COUNT, "a name for each");

const char *portio_feature_name(uint32_t bit)
{
    return bit < FEATURE_COUNT ? feature_names[bit] : NULL;
}

static void feature_found(portio_probe *probe, enum epoll_feature feature)
{
    probe->features |= UINT64_C(1) << feature;
}

/* True: the kernel knows the call; what it says of our arguments is no matter. */
static bool call_exists(int64_t result)
{
    return result >= 0 || (errno != ENOSYS && errno != EPERM && errno != EACCES);
}

static void probe_pipes(portio_probe *probe)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0)
        return;
    char byte = 0;
    struct iovec vector = {&byte, 1};
    /* EAGAIN, or EOPNOTSUPP before pipes had it (6.4): some files have it.  A
       kernel older than the flag says EOPNOTSUPP for every file. */
    if (call_exists(abi_preadv2(ends[0], &vector, 1, -1, ABI_RWF_NOWAIT)))
        feature_found(probe, FEATURE_NOWAIT);
    if (abi_pwritev2(ends[1], &vector, 1, -1, ABI_RWF_NOSIGNAL) == 1)
        feature_found(probe, FEATURE_NOSIGNAL);
    /* A pipe is no source that sendfile takes, so this moves nothing. */
    if (call_exists(sendfile(ends[1], ends[0], NULL, 0)))
        feature_found(probe, FEATURE_SENDFILE);
    close(ends[0]);
    close(ends[1]);
}

static const char *probe_parts(portio_probe *probe, int *set, int *other)
{
    *set = epoll_create1(EPOLL_CLOEXEC);
    if (*set < 0)
        return "epoll_create1";
    *other = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (*other < 0)
        return "timerfd_create";
    close(*other);
    *other = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
    if (*other < 0)
        return "eventfd2";
    struct epoll_event event = {.events = EPOLLIN};
    if (epoll_ctl(*set, EPOLL_CTL_ADD, *other, &event) != 0)
        return "epoll_ctl";
    if (epoll_wait(*set, &event, 1, 0) < 0)
        return "epoll_wait";
    struct timespec now = {0, 0};
    if (call_exists(abi_epoll_pwait2(*set, &event, 1, &now)))
        feature_found(probe, FEATURE_PWAIT2);
    return NULL;
}

static bool probe_look(portio_probe *probe)
{
    int set = -1, other = -1;
    const char *failed = probe_parts(probe, &set, &other);
    if (failed != NULL) {
        probe->error = errno;
        snprintf(probe->failed_call, sizeof probe->failed_call, "%s", failed);
    } else {
        probe->available = 1;
        probe_pipes(probe);
    }
    if (other >= 0)
        close(other);
    if (set >= 0)
        close(set);
    return probe->available || !probe_is_passing(probe->error);
}

void portio_probe_system(portio_probe *probe)
{
    probe_once(probe, probe_look);
}

uint64_t epoll_features(const portio_options *options)
{
    portio_probe probe;
    portio_probe_system(&probe);
    return probe.features & ~options->disabled_features;
}
