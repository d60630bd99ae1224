/* A ring for one thread, by raw system calls.

   The submission queue is filled by ring_next() and handed over, together with
   the wait for completions, by ring_enter().  The kernel consumes every entry
   during that call, so an entry's memory is free again as soon as it returns. */

#ifndef BENCHMARKS_RING_H
#define BENCHMARKS_RING_H

#include "program.h"

#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>

/* Newer than the oldest kernel headers that these programs are compiled with. */
#ifndef IORING_SETUP_SINGLE_ISSUER
#define IORING_SETUP_SINGLE_ISSUER (1U << 12)
#endif
#ifndef IORING_SETUP_DEFER_TASKRUN
#define IORING_SETUP_DEFER_TASKRUN (1U << 13)
#endif

struct ring {
    int fd;
    uint32_t entries;
    uint32_t mask;
    uint32_t local_tail; /* what has been filled in */
    uint32_t submitted;  /* what the kernel has been told of */
    uint32_t *sq_tail;
    struct io_uring_sqe *sqes;
    uint32_t cq_mask;
    uint32_t *cq_head;
    uint32_t *cq_tail;
    struct io_uring_cqe *cqes;
};

static inline void *ring_map(int fd, size_t length, off_t offset)
{
    void *memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd,
                        offset);
    if (memory == MAP_FAILED)
        fail("mmap of a ring");
    return memory;
}

static inline void ring_open(struct ring *ring, uint32_t entries)
{
    struct io_uring_params params;
    memset(&params, 0, sizeof params);
    params.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
    long fd = syscall(__NR_io_uring_setup, entries, &params);
    if (fd < 0 && errno == EINVAL) { /* before Linux 6.1 */
        memset(&params, 0, sizeof params);
        fd = syscall(__NR_io_uring_setup, entries, &params);
    }
    if (fd < 0)
        fail("io_uring_setup");

    memset(ring, 0, sizeof *ring);
    ring->fd = (int)fd;
    ring->entries = params.sq_entries;
    ring->mask = params.sq_entries - 1;
    char *sq = ring_map(ring->fd, params.sq_off.array + params.sq_entries * sizeof(uint32_t),
                        IORING_OFF_SQ_RING);
    char *cq = ring_map(ring->fd,
                        params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe),
                        IORING_OFF_CQ_RING);
    ring->sqes = ring_map(ring->fd, params.sq_entries * sizeof(struct io_uring_sqe),
                          IORING_OFF_SQES);
    ring->sq_tail = (uint32_t *)(void *)(sq + params.sq_off.tail);
    uint32_t *array = (uint32_t *)(void *)(sq + params.sq_off.array);
    for (uint32_t index = 0; index < params.sq_entries; index++)
        array[index] = index;
    ring->cq_mask = params.cq_entries - 1;
    ring->cq_head = (uint32_t *)(void *)(cq + params.cq_off.head);
    ring->cq_tail = (uint32_t *)(void *)(cq + params.cq_off.tail);
    ring->cqes = (struct io_uring_cqe *)(void *)(cq + params.cq_off.cqes);
}

/* Submits what is filled in and waits for at least `wait` completions. */
static inline void ring_enter(struct ring *ring, uint32_t wait)
{
    __atomic_store_n(ring->sq_tail, ring->local_tail, __ATOMIC_RELEASE);
    for (;;) {
        uint32_t pending = ring->local_tail - ring->submitted;
        long done = syscall(__NR_io_uring_enter, ring->fd, pending, wait,
                            wait > 0 ? IORING_ENTER_GETEVENTS : 0, NULL, 0);
        if (done >= 0) {
            ring->submitted += (uint32_t)done;
            if (ring->submitted == ring->local_tail)
                return;
        } else if (errno != EINTR && errno != EAGAIN && errno != EBUSY) {
            fail("io_uring_enter");
        }
    }
}

/* A cleared submission entry; makes room first when the queue is full. */
static inline struct io_uring_sqe *ring_next(struct ring *ring)
{
    if (ring->local_tail - ring->submitted == ring->entries)
        ring_enter(ring, 0);
    struct io_uring_sqe *sqe = &ring->sqes[ring->local_tail++ & ring->mask];
    memset(sqe, 0, sizeof *sqe);
    return sqe;
}

/* The next completion, copied out and given back to the kernel. */
static inline bool ring_take(struct ring *ring, struct io_uring_cqe *cqe)
{
    uint32_t head = *ring->cq_head;
    if (head == __atomic_load_n(ring->cq_tail, __ATOMIC_ACQUIRE))
        return false;
    *cqe = ring->cqes[head & ring->cq_mask];
    __atomic_store_n(ring->cq_head, head + 1, __ATOMIC_RELEASE);
    return true;
}

#endif
