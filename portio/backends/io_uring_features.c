/* What this kernel's io_uring can do beyond the 5.15 that is required, found by
   asking it: a setup flag that it does not know is EINVAL. */
#include "io_uring.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

static const char *const feature_names[] = {
    "submit_all",    /* 5.18: one bad submission does not end the batch */
    "coop_taskrun",  /* 5.19: no interrupt to run completions */
    "single_issuer", /* 6.0: the kernel may rely on one submitting thread */
    "defer_taskrun", /* 6.1: completions run when the owner waits for them */
    "no_iowait",     /* 6.15: waiting does not count as I/O wait in top(1) */
    "registered_buffers", /* 5.13, unless a filter of system calls is in the way */
};

static const uint32_t feature_flags[] = {
    URING_SETUP_SUBMIT_ALL,
    URING_SETUP_COOP_TASKRUN | URING_SETUP_TASKRUN_FLAG,
    URING_SETUP_SINGLE_ISSUER,
    URING_SETUP_SINGLE_ISSUER | URING_SETUP_DEFER_TASKRUN | URING_SETUP_TASKRUN_FLAG,
};

_Static_assert(sizeof feature_names / sizeof *feature_names == FEATURE_COUNT, "a name for each");

const char *portio_feature_name(uint32_t bit)
{
    return bit < FEATURE_COUNT ? feature_names[bit] : NULL;
}

static pthread_mutex_t probe_lock = PTHREAD_MUTEX_INITIALIZER;
static bool probed;
static portio_probe the_probe;

/* What fails for want of descriptors or memory says nothing of the system, and
   is asked again. */
static bool is_passing(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOMEM || error == EAGAIN;
}

static void probe_fill(void)
{
    struct ring ring;
    the_probe = (portio_probe){0};
    int error = ring_open(&ring, 4, 8, 0);
    if (error != 0) {
        the_probe.error = -error;
        snprintf(the_probe.failed_call, sizeof the_probe.failed_call, "%s",
                 ring.features != 0 ? "io_uring_setup: features of Linux 5.11" : "io_uring_setup");
        return;
    }
    /* A system-call filter may let setup pass and refuse the call that counts. */
    int entered = ring_enter(&ring, 0, 0, URING_ENTER_GETEVENTS, -1);
    uint32_t features = ring.features;
    int nothing = -1; /* EBADF when the call is allowed */
    int registered = ring_register(&ring, URING_REGISTER_EVENTFD, &nothing, 1);
    bool registers = regions_register(&ring) >= 0;
    ring_close(&ring);
    if (entered < 0) {
        the_probe.error = -entered;
        snprintf(the_probe.failed_call, sizeof the_probe.failed_call, "io_uring_enter");
        return;
    }
    if (registered != -EBADF) {
        the_probe.error = -registered;
        snprintf(the_probe.failed_call, sizeof the_probe.failed_call, "io_uring_register");
        return;
    }
    the_probe.available = 1;
    for (uint32_t bit = 0; bit < sizeof feature_flags / sizeof *feature_flags; bit++) {
        if (ring_open(&ring, 1, 2, feature_flags[bit]) == 0) {
            the_probe.features |= UINT64_C(1) << bit;
            ring_close(&ring);
        }
    }
    if (features & URING_FEAT_NO_IOWAIT)
        the_probe.features |= UINT64_C(1) << FEATURE_NO_IOWAIT;
    if (registers)
        the_probe.features |= UINT64_C(1) << FEATURE_REGISTERED_BUFFERS;
}

void portio_probe_system(portio_probe *probe)
{
    pthread_mutex_lock(&probe_lock);
    if (!probed) {
        probe_fill();
        probed = the_probe.available || !is_passing(the_probe.error);
    }
    *probe = the_probe;
    pthread_mutex_unlock(&probe_lock);
}

uint64_t uring_features(const portio_options *options)
{
    portio_probe probe;
    portio_probe_system(&probe);
    uint64_t features = probe.features & ~options->disabled_features;
    /* DEFER_TASKRUN is refused without SINGLE_ISSUER. */
    if (!(features & (UINT64_C(1) << FEATURE_SINGLE_ISSUER)))
        features &= ~(UINT64_C(1) << FEATURE_DEFER_TASKRUN);
    return features;
}
