/* A pool of equal buffers, from which receives are given one when there is data for
   them (O17).  The memory is Python's, and a pool is used by the operations of one port
   alone, so that port's lock protects everything here but what never changes, and what is
   marked otherwise.

   A buffer is free, or an operation's, or was lent to the program with a record (O20).  The
   program may give it back in any thread; where that is not the owner of a thread-bound port,
   it waits behind the free ones until the owner looks (port_pool.c). */
#ifndef PORTIO_POOL_H
#define PORTIO_POOL_H

#include "native.h"

#ifndef _WIN32
#include <stdatomic.h>
#endif

struct op;

/* Where free buffers are kept instead of `free`: with the system (io_uring_group.c). */
struct pool_store {
    void (*put)(struct pool_store *store, uint32_t number); /* the port's lock is held */
    void (*drop)(struct pool_store *store); /* the pool is freed; any thread, no lock */
};

/* An operation's place among those that wait for a buffer. */
struct parked {
    struct op *next;
    struct op *previous;
};

struct portio_pool {
    char *memory;
    uint32_t count;
    uint32_t size;       /* of one buffer */
    bool lends;          /* buffers of it may be the program's (PORTIO_LEND) */
    bool asked;          /* the engine has seen it, and given it a store, or will not */
    struct pool_store *store; /* NULL: the free ones are in `free` */
    uint32_t free_count; /* 0 with a store */
    struct op *first;    /* operations that have data and no buffer, first come first served */
    struct op *last;
#ifndef _WIN32 /* there the owner of a thread-bound port is not alone */
    _Atomic uint32_t holders; /* besides Python: a port that has it in its list */
    /* Under the port's inbox_lock: */
    portio_pool *next_returning;
    uint32_t returned_count;
#endif
    uint32_t free[];     /* the numbers of the buffers that nobody has; the last is next; and behind
                            them, from `count` on, those that are on their way back */
};

/* Nobody has it any more. */
void pool_destroy(portio_pool *pool);

#endif
