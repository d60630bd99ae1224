/* A quiet operation that ends within portio_submit_one (O15).  The same in every engine.
   Included after struct op and struct handle are defined.  The port's lock is held.

   `starting` says that portio_submit_one has not returned.  A success until then is
   *skipped*: it gives no record, the call's result tells of it, and before that nobody
   can use the slot for another operation.  A failure gives its record; that may be taken,
   and the slot be another's, when the call returns, so the token is looked at. */
#ifndef PORTIO_OP_QUIET_H
#define PORTIO_OP_QUIET_H

static inline bool quiet_may_skip(uint32_t kind, uint32_t flags)
{
    return (flags & (PORTIO_QUIET | PORTIO_VECTORED)) == PORTIO_QUIET &&
           (kind == PORTIO_SEND || kind == PORTIO_WRITE || kind == PORTIO_READ);
}

/* The operation is complete.  True: it is skipped.  A read that is short is not, nor is
   one of a pipe, which hardly ever fills its buffer: the record tells how much it has
   read. */
static inline bool quiet_skips(struct op *op)
{
    bool whole = op->kind != PORTIO_READ ||
                 (op->handle->type == PORTIO_FILE && op->length == 0);
    op->skipped = op->starting && op->error == 0 && whole;
    return op->skipped;
}

static inline bool quiet_was_skipped(const struct op *op, uint64_t token)
{
    return op != NULL && op->token == token && op->skipped;
}

/* portio_submit_one is about to return. */
static inline bool quiet_end(struct op *op, uint64_t token)
{
    if (op->token == token)
        op->starting = false;
    return quiet_was_skipped(op, token);
}

#endif
