#include "io_uring_ring.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Without these there is no port: time-outs for a wait, completions that are
   never dropped, poll-armed sockets, the file position of pipes.  All since 5.11. */
#define RING_NEEDS                                                                       \
    (URING_FEAT_SINGLE_MMAP | URING_FEAT_NODROP | URING_FEAT_SUBMIT_STABLE |              \
     URING_FEAT_RW_CUR_POS | URING_FEAT_FAST_POLL | URING_FEAT_EXT_ARG)

static int ring_map(struct ring *ring, const struct uring_params *params)
{
    size_t sq_end = params->sq.array + params->sq_entries * sizeof(uint32_t);
    size_t cq_end = params->cq.cqes + params->cq_entries * sizeof(struct uring_cqe);
    ring->rings_size = sq_end > cq_end ? sq_end : cq_end;
    ring->rings = mmap(NULL, ring->rings_size, PROT_READ | PROT_WRITE,
                       MAP_SHARED | MAP_POPULATE, ring->fd, URING_OFF_SQ_RING);
    if (ring->rings == MAP_FAILED) {
        ring->rings = NULL;
        return -errno;
    }
    ring->sqes_size = params->sq_entries * sizeof(struct uring_sqe);
    void *sqes = mmap(NULL, ring->sqes_size, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_POPULATE, ring->fd, URING_OFF_SQES);
    if (sqes == MAP_FAILED)
        return -errno;
    ring->sqes = sqes;
    /* A forked child must not write to the parent's ring: there the pages do
       not exist.  A failure here costs only that protection. */
    (void)madvise(ring->rings, ring->rings_size, MADV_DONTFORK);
    (void)madvise(ring->sqes, ring->sqes_size, MADV_DONTFORK);

    char *base = ring->rings;
    ring->sq_head = (_Atomic uint32_t *)(base + params->sq.head);
    ring->sq_tail = (_Atomic uint32_t *)(base + params->sq.tail);
    ring->sq_flags = (_Atomic uint32_t *)(base + params->sq.flags);
    ring->sq_mask = *(uint32_t *)(base + params->sq.ring_mask);
    ring->sq_entries = params->sq_entries;
    ring->cq_head = (_Atomic uint32_t *)(base + params->cq.head);
    ring->cq_tail = (_Atomic uint32_t *)(base + params->cq.tail);
    ring->cqes = (struct uring_cqe *)(base + params->cq.cqes);
    ring->cq_mask = *(uint32_t *)(base + params->cq.ring_mask);
    /* Submissions are always used in the order of their places. */
    uint32_t *array = (uint32_t *)(base + params->sq.array);
    for (uint32_t at = 0; at < params->sq_entries; at++)
        array[at] = at;
    return 0;
}

int ring_open(struct ring *ring, uint32_t entries, uint32_t completions, uint32_t flags)
{
    struct uring_params params;
    memset(&params, 0, sizeof params);
    memset(ring, 0, sizeof *ring);
    params.flags = flags | URING_SETUP_CLAMP | URING_SETUP_CQSIZE;
    params.cq_entries = completions;
    ring->fd = (int)syscall(__NR_io_uring_setup, entries, &params);
    if (ring->fd < 0)
        return -errno; /* the descriptor is close-on-exec by itself */
    ring->setup_flags = params.flags;
    ring->features = params.features;
    int error = (params.features & RING_NEEDS) == RING_NEEDS ? ring_map(ring, &params) : -ENOSYS;
    if (error != 0)
        ring_close(ring);
    return error;
}

void ring_close(struct ring *ring)
{
    if (ring->sqes != NULL)
        munmap(ring->sqes, ring->sqes_size);
    if (ring->rings != NULL)
        munmap(ring->rings, ring->rings_size);
    if (ring->fd >= 0)
        close(ring->fd);
    ring->sqes = NULL;
    ring->rings = NULL;
    ring->fd = -1;
}

struct uring_sqe *ring_sqe(struct ring *ring)
{
    if (ring_unsubmitted(ring) >= ring->sq_entries)
        return NULL;
    uint32_t tail = atomic_load_explicit(ring->sq_tail, memory_order_relaxed);
    struct uring_sqe *sqe = &ring->sqes[tail & ring->sq_mask];
    memset(sqe, 0, sizeof *sqe);
    return sqe;
}

void ring_push(struct ring *ring)
{
    uint32_t tail = atomic_load_explicit(ring->sq_tail, memory_order_relaxed);
    atomic_store_explicit(ring->sq_tail, tail + 1, memory_order_release);
}

int ring_enter(struct ring *ring, uint32_t submit, uint32_t least, uint32_t flags, int64_t timeout)
{
    struct uring_timespec time = {timeout / 1000000000, timeout % 1000000000};
    struct uring_getevents_arg argument = {
        .sigmask_size = _NSIG / 8,
        .timespec = (uint64_t)(uintptr_t)&time,
    };
    long result;
    if (timeout >= 0)
        result = syscall(__NR_io_uring_enter, ring->fd, submit, least,
                         flags | URING_ENTER_EXT_ARG, &argument, sizeof argument);
    else
        result = syscall(__NR_io_uring_enter, ring->fd, submit, least, flags, NULL, 0);
    return result < 0 ? -errno : (int)result;
}

int ring_register(struct ring *ring, uint32_t opcode, void *argument, uint32_t count)
{
    long result = syscall(__NR_io_uring_register, ring->fd, opcode, argument, count);
    return result < 0 ? -errno : (int)result;
}
