/* The window of an operation: what is left of its buffers, when the system carries it
   out in several steps (O8, O11).  The same in every engine.  Included after struct op
   is defined; it uses `flags`, `buffer` and `length`.  Of a sequence of buffers the
   vectors themselves are changed, which the door allows. */
#ifndef PORTIO_OP_WINDOW_H
#define PORTIO_OP_WINDOW_H

/* Before the first step: drops leading empty vectors, so that a window never
   consists of nothing while bytes are left, and makes one vector a buffer. */
static inline void transfer_begin(struct op *op)
{
    if (!(op->flags & PORTIO_VECTORED))
        return;
    portio_vector *vector = op->buffer;
    while (op->length > 1 && vector->length == 0) {
        vector++;
        op->length--;
    }
    op->buffer = vector;
    if (op->length > 1)
        return;
    op->flags &= (uint8_t)~PORTIO_VECTORED;
    op->buffer = op->length == 1 ? vector->base : NULL;
    op->length = op->length == 1 ? vector->length : 0;
}

/* Bytes that are left. */
static inline uint64_t transfer_room(const struct op *op)
{
    if (!(op->flags & PORTIO_VECTORED))
        return op->length;
    const portio_vector *vectors = op->buffer;
    uint64_t room = 0;
    for (uint64_t at = 0; at < op->length; at++)
        room += vectors[at].length;
    return room;
}

/* Moves the window behind the bytes that are done; true when none are left. */
static inline bool transfer_consume(struct op *op, uint64_t done)
{
    if (!(op->flags & PORTIO_VECTORED)) {
        op->buffer = (char *)op->buffer + done;
        op->length -= done;
        return op->length == 0;
    }
    portio_vector *vector = op->buffer;
    while (op->length > 0 && done >= vector->length) {
        done -= vector->length;
        vector++;
        op->length--;
    }
    if (op->length > 0) {
        vector->base = (char *)vector->base + done;
        vector->length -= done;
    }
    op->buffer = vector;
    return op->length == 0;
}

#endif
