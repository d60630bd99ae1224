/* What this kernel's io_uring can do beyond the 5.15 that is required, found by
   asking it: a setup flag that it does not know is EINVAL. */
#include "io_uring.h"
#include "probe.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char *const feature_names[] = {
    "submit_all",    /* 5.18: one bad submission does not end the batch */
    "coop_taskrun",  /* 5.19: no interrupt to run completions */
    "single_issuer", /* 6.0: the kernel may rely on one submitting thread */
    "defer_taskrun", /* 6.1: completions run when the owner waits for them */
    "no_iowait",     /* 6.15: waiting does not count as I/O wait in top(1) */
    "registered_buffers", /* 5.13, unless a filter of system calls is in the way */
    "buffer_rings",  /* 5.19: the kernel takes the buffer of a receive from its pool */
    "multishot_receive", /* 6.0: and goes on with the receive */
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

/* Whether it holds for good. */
static bool probe_look(portio_probe *probe)
{
    struct ring ring;
    int error = ring_open(&ring, 4, 8, 0);
    if (error != 0) {
        probe->error = -error;
        snprintf(probe->failed_call, sizeof probe->failed_call, "%s",
                 ring.features != 0 ? "io_uring_setup: features of Linux 5.11" : "io_uring_setup");
        return !probe_is_passing(probe->error);
    }
    /* A system-call filter may let setup pass and refuse the call that counts. */
    int entered = ring_enter(&ring, 0, 0, URING_ENTER_GETEVENTS, -1);
    uint32_t features = ring.features;
    int nothing = -1; /* EBADF when the call is allowed */
    int registered = ring_register(&ring, URING_REGISTER_EVENTFD, &nothing, 1);
    int regions = regions_register(&ring);
    int groups = groups_try(&ring);
    int streams = stream_try(&ring);
    ring_close(&ring);
    if (entered < 0) {
        probe->error = -entered;
        snprintf(probe->failed_call, sizeof probe->failed_call, "io_uring_enter");
        return !probe_is_passing(probe->error);
    }
    if (registered != -EBADF) {
        probe->error = -registered;
        snprintf(probe->failed_call, sizeof probe->failed_call, "io_uring_register");
        return !probe_is_passing(probe->error);
    }
    probe->available = 1;
    for (uint32_t bit = 0; bit < sizeof feature_flags / sizeof *feature_flags; bit++) {
        if (ring_open(&ring, 1, 2, feature_flags[bit]) == 0) {
            probe->features |= UINT64_C(1) << bit;
            ring_close(&ring);
        }
    }
    if (features & URING_FEAT_NO_IOWAIT)
        probe->features |= UINT64_C(1) << FEATURE_NO_IOWAIT;
    if (regions >= 0)
        probe->features |= UINT64_C(1) << FEATURE_REGISTERED_BUFFERS;
    if (groups >= 0)
        probe->features |= UINT64_C(1) << FEATURE_BUFFER_RINGS;
    if (streams >= 0)
        probe->features |= UINT64_C(1) << FEATURE_MULTISHOT_RECEIVE;
    return !(regions < 0 && probe_is_passing(-regions)) &&
           !(streams < 0 && probe_is_passing(-streams)) &&
           !(groups < 0 && probe_is_passing(-groups));
}

void portio_probe_system(portio_probe *probe)
{
    probe_once(probe, probe_look);
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
