/* Multishot operations (O16): one submission, many completions.  The same in every
   engine.  Included after struct op is defined, and after op_pool.h; it uses `token`,
   `turns`, `flags`, `error`, `nbytes` and `kind`.

   What lies between two completions is a *turn*.  A turn that succeeds does not end the
   operation: its record carries PORTIO_MORE, the slot stays the operation's, and the
   operation stays pending on its handle, but it has nothing to tell (state OP_TURN, from
   the moment that the record crosses the door), and only io_uring_stream.c leaves
   something of it with the system meanwhile.  portio_renew begins the
   next turn, under the next token of the slot, and is called when the record has been
   claimed.  So an operation never has more than one completion under way: the order of
   its completions, exactly once, and the back-pressure all follow from that.

   Whoever cancels has read the token from an entry in Python, without a lock, and may
   be late or early by then: every token that the operation has had means it, and so
   does the one that it gets next. */
#ifndef PORTIO_OP_TURN_H
#define PORTIO_OP_TURN_H

#define TOKEN_LIFE (UINT64_C(1) << PORTIO_SLOT_BITS) /* from a slot's token to its next */
#define TOKEN_BITS ((UINT64_C(1) << 63) - 1)

/* Whether a request for one is what the door allows; `type` is its handle's. */
static inline bool turn_is_valid(const portio_request *request, int type)
{
    if ((request->flags & (PORTIO_UNQUEUED | PORTIO_QUIET | PORTIO_VECTORED)) != 0)
        return false;
    return (request->kind == PORTIO_ACCEPT && (request->flags & PORTIO_LEND) == 0) ||
           (request->kind == PORTIO_RECV && request->buffer != NULL &&
            type == PORTIO_STREAM_SOCKET);
}

/* Whether a turn that is over, `error` and `nbytes` being set, leaves more to come. */
static inline bool op_goes_on(const struct op *op)
{
    return (op->flags & PORTIO_MULTISHOT) != 0 && op->error == 0 &&
           (op->kind == PORTIO_ACCEPT || op->nbytes > 0); /* 0 bytes: the end of the stream */
}

/* Whether `token`, which names this slot, means the operation in it. */
static inline bool op_is_meant(const struct op *op, uint64_t token)
{
    if (op->token == token)
        return true;
    uint64_t before_next = (op->token + TOKEN_LIFE - token) & TOKEN_BITS;
    return (op->flags & PORTIO_MULTISHOT) != 0 && before_next <= ((uint64_t)op->turns + 1) * TOKEN_LIFE;
}

/* The next turn: the operation is as it was when it was submitted, but for its token,
   and for a request to cancel it, which stands. */
static inline void op_turn_begin(struct op *op)
{
    op->token = (op->token + TOKEN_LIFE) & TOKEN_BITS;
    op->turns++;
    op->nbytes = 0;
    op->phase = 0;
    op->next = op->previous = NULL;
}

/* What the record of a turn says besides, when there is more to come. */
static inline void turn_fill(struct op *op, portio_completion *record)
{
    record->status |= (int64_t)PORTIO_MORE << 32;
    if (op_is_pooled(op))
        record->nbytes |= (int64_t)(op->lent - 1) << 32;
    if (op->flags & PORTIO_LEND)
        op->lent = 0; /* it is who has the record that gives it back */
}

#endif
