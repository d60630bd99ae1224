/* A futex word per waiter instead of a condition variable: a signal must end
   the wait (Ctrl-C, P8), and pthread_cond_wait never returns for one. */
#include "port.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int64_t monotonic_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

enum futex_result futex_wait(_Atomic uint32_t *word, uint32_t expected, int64_t deadline)
{
    struct timespec at = {deadline / 1000000000, deadline % 1000000000};
    /* WAIT_BITSET takes an absolute CLOCK_MONOTONIC time (futex(2)). */
    long result = syscall(SYS_futex, word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, expected,
                          deadline == DEADLINE_NEVER ? NULL : &at, NULL, FUTEX_BITSET_MATCH_ANY);
    if (result == 0)
        return FUTEX_WOKEN;
    switch (errno) {
    case EINTR:
        return FUTEX_SIGNALLED;
    case ETIMEDOUT:
        return FUTEX_TIMED_OUT;
    default: /* EAGAIN: the word had changed; nothing else is possible here */
        return FUTEX_WOKEN;
    }
}

void futex_wake(_Atomic uint32_t *word)
{
    /* The waiter may be gone by now and the address be another's: a waker of a
       futex must expect that, and a sleeper a wake-up without a reason. */
    syscall(SYS_futex, word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, NULL, NULL, 0);
}
