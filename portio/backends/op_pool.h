/* An operation and the buffer that it has from its pool.  The same in every engine.
   Included after struct op is defined; it uses `kind`, `flags`, `pool`,
   `lent`, `parked`, op_parked, `buffer` and `length`.  The port's lock is held.

   An operation has a buffer from the moment that there is data for it until the program
   has the bytes, which is when its next turn begins, or until it has ended.  With PORTIO_LEND
   it has it until the record crosses the door; then the record has, and who claims it.  One that
   finds no buffer is *parked*: it waits in the pool, in the order of coming, and is lent
   the first buffer that is given back, so that no other can take it.

   Where free buffers are with the system (pool->store), it is the system that finds one,
   and pool_take is not used. */
#ifndef PORTIO_OP_POOL_H
#define PORTIO_OP_POOL_H

static inline bool op_is_pooled(const struct op *op)
{
    return (op->flags & PORTIO_MULTISHOT) != 0 && op->kind == PORTIO_RECV;
}

/* It is submitted: the request's buffer is its pool. */
static inline void pool_begin(struct op *op, void *pool)
{
    op->pool = pool;
    op->pool->lends = op->pool->lends || (op->flags & PORTIO_LEND) != 0;
    op->length = op->pool->size;
    op->lent = 0;
}

static inline void pool_lend(struct op *op, uint32_t number)
{
    op->lent = number + 1;
    op->buffer = op->pool->memory + (size_t)number * op->pool->size;
}

static inline void pool_park(struct op *op)
{
    struct portio_pool *pool = op->pool;
    op->parked = true;
    *op_parked(op) = (struct parked){NULL, pool->last};
    if (pool->last != NULL)
        op_parked(pool->last)->next = op;
    else
        pool->first = op;
    pool->last = op;
}

static inline void pool_unpark(struct op *op)
{
    struct portio_pool *pool = op->pool;
    struct parked *links = op_parked(op);
    op->parked = false;
    if (links->previous != NULL)
        op_parked(links->previous)->next = links->next;
    else
        pool->first = links->next;
    if (links->next != NULL)
        op_parked(links->next)->previous = links->previous;
    else
        pool->last = links->previous;
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
    if (!op->parked)
        pool_park(op);
    return false;
}

/* Nobody has it. */
static inline void pool_put(struct portio_pool *pool, uint32_t number)
{
    if (pool->store != NULL)
        pool->store->put(pool->store, number);
    else
        pool->free[pool->free_count++] = number;
}

/* Nobody has a buffer any more.  Gives the operation that has it now, and was parked
   until now. */
static inline struct op *pool_return(struct portio_pool *pool, uint32_t number)
{
    struct op *heir = pool->first;
    if (heir == NULL) {
        pool_put(pool, number);
        return NULL;
    }
    pool_unpark(heir);
    pool_lend(heir, number);
    return heir;
}

/* The operation needs its buffer no more, if it has one.  Gives who has it now. */
static inline struct op *pool_give(struct op *op)
{
    if (op->lent == 0)
        return NULL;
    uint32_t number = op->lent - 1;
    op->lent = 0;
    return pool_return(op->pool, number);
}

/* The same for an operation that has ended, and may be parked. */
static inline struct op *pool_leave(struct op *op)
{
    if (op->parked)
        pool_unpark(op);
    return pool_give(op);
}

#endif
