/* A ring: two mappings and two pairs of indices.

   Memory ordering.  We are the producer of submissions: a submission is written,
   then `tail` is stored with release, so that the kernel's acquire load sees the
   whole of it; `head` is loaded with acquire before a slot is written again.
   For completions it is the other way round: `tail` is loaded with acquire
   before an entry is read, and `head` stored with release after it was.
   Who may prepare and reap is up to the caller (the port's lock); entering the
   kernel needs no lock. */
#ifndef PORTIO_IO_URING_RING_H
#define PORTIO_IO_URING_RING_H

#include <stdatomic.h>
#include <stdbool.h>

#include "io_uring_abi.h"

struct ring {
    int fd;
    uint32_t setup_flags;
    uint32_t features;
    void *rings;
    size_t rings_size;
    struct uring_sqe *sqes;
    size_t sqes_size;
    _Atomic uint32_t *sq_head;
    _Atomic uint32_t *sq_tail;
    _Atomic uint32_t *sq_flags;
    uint32_t sq_mask;
    uint32_t sq_entries;
    _Atomic uint32_t *cq_head;
    _Atomic uint32_t *cq_tail;
    struct uring_cqe *cqes;
    uint32_t cq_mask;
};

/* 0 or -errno.  The ring is not usable after a failure. */
int ring_open(struct ring *ring, uint32_t entries, uint32_t completions, uint32_t flags);
void ring_close(struct ring *ring);

/* A cleared submission, or NULL when the ring is full.  Published by ring_push. */
struct uring_sqe *ring_sqe(struct ring *ring);
void ring_push(struct ring *ring);

/* Submissions that the kernel has not consumed. */
static inline uint32_t ring_unsubmitted(const struct ring *ring)
{
    return atomic_load_explicit(ring->sq_tail, memory_order_relaxed) -
           atomic_load_explicit(ring->sq_head, memory_order_acquire);
}

static inline bool ring_has_completions(const struct ring *ring)
{
    return atomic_load_explicit(ring->cq_tail, memory_order_acquire) !=
           atomic_load_explicit(ring->cq_head, memory_order_relaxed);
}

/* The kernel holds completions that only a call with GETEVENTS brings out. */
static inline bool ring_wants_enter(const struct ring *ring)
{
    return (atomic_load_explicit(ring->sq_flags, memory_order_relaxed) &
            (URING_SQ_CQ_OVERFLOW | URING_SQ_TASKRUN)) != 0;
}

/* Completions wait for this thread's next call, which makes a part of them: 20 (6.18), and
   what else it can complete as it is submitted. */
static inline bool ring_has_work(const struct ring *ring)
{
    return (atomic_load_explicit(ring->sq_flags, memory_order_relaxed) & URING_SQ_TASKRUN) != 0;
}

/* Work that this thread has to do in the kernel shows nowhere: only a call does it. */
static inline bool ring_is_silent(const struct ring *ring)
{
    return (ring->setup_flags & (URING_SETUP_COOP_TASKRUN | URING_SETUP_TASKRUN_FLAG)) ==
           URING_SETUP_COOP_TASKRUN;
}

/* Submits, and with GETEVENTS waits for `least` completions, at most until the
   time-out (nanoseconds; below 0: none).  The number submitted, or -errno. */
int ring_enter(struct ring *ring, uint32_t submit, uint32_t least, uint32_t flags,
               int64_t timeout);

int ring_register(struct ring *ring, uint32_t opcode, void *argument, uint32_t count);

#endif
