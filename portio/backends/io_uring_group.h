/* The free buffers of a pool, in a ring that they share with the kernel: a *group*.

   A receive names the group, and the kernel takes a buffer from the ring when there is
   data.  Its completion says which one, whatever else it says: also a request that fails,
   or was cancelled, may have taken one.

   Who owns what.
   - The mapping that holds the ring, and its registration, are the engine's.  It gives
     them up when it finds that the pool is gone, which is when another pool gets its
     group, or when the port closes.
   - The struct has two owners, the pool and the engine, and goes with the last of them.
     A pool is freed in any thread, after the port or before, and does no more than give
     up its share; `owners` is the only thing here that is not under the port's lock.
     A forked child does the same to its own copy, and unmaps nothing.
   - A buffer is the kernel's from group_put until group_took.  The memory behind it is
     Python's: no request names the group of a pool that Python has freed. */
#ifndef PORTIO_IO_URING_GROUP_H
#define PORTIO_IO_URING_GROUP_H

#include <stdatomic.h>
#include <stdbool.h>

#include "io_uring_ring.h"
#include "operation.h"

struct engine;

/* What a buffer has in it while it waits for its turn (io_uring_stream.c). */
struct piece {
    uint32_t next; /* of the same operation: its number plus one; 0: it is the last */
    uint32_t nbytes;
};

struct group {
    struct pool_store store; /* the first: what the pool knows of it */
    struct group *next;      /* the engine's, in the order of their numbers */
    _Atomic uint32_t owners;
    uint16_t number;
    uint32_t entries;
    struct uring_buf *ring;  /* NULL: the engine has given it up */
    char *memory;            /* the pool's */
    uint32_t size;
    uint64_t pushed;         /* buffers put into the ring since the beginning … */
    uint64_t taken;          /* … and those that completions have named */
    struct piece pieces[];   /* one for each buffer */
};

/* Of a pool with a store. */
static inline struct group *group_of(const struct portio_pool *pool)
{
    return (struct group *)pool->store;
}

/* How many are in the ring as far as we know: the kernel may have taken some of them. */
static inline uint64_t group_room(const struct group *group)
{
    return group->pushed - group->taken;
}

/* The kernel has taken a buffer for a submission of the operation, which has it now. */
static inline void group_took(struct op *op, uint32_t number)
{
    group_of(op->pool)->taken++;
    pool_lend(op, number);
}

/* Whether the kernel takes the buffers of this pool.  The first time, when all of them are
   free, they are made a group; if the kernel refuses, that holds for good.  Lock held; on
   a thread-bound port the caller is the owner, who alone may register. */
bool group_serves(struct engine *engine, struct portio_pool *pool);
/* The ring is about to be closed, and nothing is pending. */
void groups_close(struct engine *engine);
/* Whether the kernel has such rings, on a ring that is closed afterwards.  0 or -errno. */
int groups_try(struct ring *ring);

#endif
