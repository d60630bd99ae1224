/* An operation and the buffer that it has from its pool.  The same in every engine.
   Included after struct op is defined; it uses `pool`, `lent`, `parked` and its links,
   and `buffer`.  The port's lock is held.

   An operation has a buffer from the moment that there is data for it until the program
   has the bytes, which is when its next turn begins, or until it has ended.  One that
   finds no buffer is *parked*: it waits in the pool, in the order of coming, and is lent
   the first buffer that is given back, so that no other can take it. */
#ifndef PORTIO_OP_POOL_H
#define PORTIO_OP_POOL_H

#include "pool.h"

static inline void pool_lend(struct op *op, uint32_t number)
{
    op->lent = number + 1;
    op->buffer = op->pool->memory + (size_t)number * op->pool->size;
}

static inline void pool_unpark(struct op *op)
{
    struct portio_pool *pool = op->pool;
    op->parked = false;
    if (op->previous_parked != NULL)
        op->previous_parked->next_parked = op->next_parked;
    else
        pool->first = op->next_parked;
    if (op->next_parked != NULL)
        op->next_parked->previous_parked = op->previous_parked;
    else
        pool->last = op->previous_parked;
}

/* True: it has a buffer now.  False: it is parked. */
static inline bool pool_take(struct op *op)
{
    struct portio_pool *pool = op->pool;
    if (op->lent != 0)
        return true;
    if (pool->free_count > 0) {
        pool_lend(op, pool->free[--pool->free_count]);
        return true;
    }
    if (!op->parked) {
        op->parked = true;
        op->next_parked = NULL;
        op->previous_parked = pool->last;
        if (pool->last != NULL)
            pool->last->next_parked = op;
        else
            pool->first = op;
        pool->last = op;
    }
    return false;
}

/* The operation needs its buffer no more, if it has one.  Gives the operation that has
   it now, and was parked until now. */
static inline struct op *pool_give(struct op *op)
{
    struct portio_pool *pool = op->pool;
    if (op->lent == 0)
        return NULL;
    uint32_t number = op->lent - 1;
    op->lent = 0;
    struct op *heir = pool->first;
    if (heir == NULL) {
        pool->free[pool->free_count++] = number;
        return NULL;
    }
    pool_unpark(heir);
    pool_lend(heir, number);
    return heir;
}

/* The same for an operation that has ended, and may be parked. */
static inline struct op *pool_leave(struct op *op)
{
    if (op->parked)
        pool_unpark(op);
    return pool_give(op);
}

#endif
