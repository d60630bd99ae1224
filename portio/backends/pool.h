/* A pool of equal buffers, from which receives are given one when there is data for
   them (O17).  The memory is Python's, and a pool is used by the operations of one port
   alone, so that port's lock protects everything here but what never changes. */
#ifndef PORTIO_POOL_H
#define PORTIO_POOL_H

#include "native.h"

struct op;

/* An operation's place among those that wait for a buffer. */
struct parked {
    struct op *next;
    struct op *previous;
};

struct portio_pool {
    char *memory;
    uint32_t size;       /* of one buffer */
    uint32_t free_count;
    struct op *first;    /* operations that have data and no buffer, first come first served */
    struct op *last;
    uint32_t free[];     /* the numbers of the buffers that nobody has; the last is next */
};

#endif
