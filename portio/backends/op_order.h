/* The direction of an operation, and whether it takes its turn (O9): the same in
   every engine.  Included after struct op and struct handle are defined; it uses
   `kind`, `argument` and the handle's `type`. */
#ifndef PORTIO_OP_ORDER_H
#define PORTIO_OP_ORDER_H

enum direction { DIRECTION_READ = 0, DIRECTION_WRITE = 1 };

static inline enum direction op_direction(const struct op *op)
{
    switch (op->kind) {
    case PORTIO_ACCEPT:
    case PORTIO_RECV:
    case PORTIO_RECVFROM:
    case PORTIO_READ:
        return DIRECTION_READ;
    default:
        return DIRECTION_WRITE;
    }
}

/* True: takes its turn behind the operations of the same direction. */
static inline bool op_is_ordered(const struct op *op)
{
    int type = op->handle->type;
    if (type != PORTIO_STREAM_SOCKET && type != PORTIO_PIPE)
        return false;
    if (op->kind == PORTIO_ACCEPT)
        return false;
    /* Ending the receiving side must not wait for the receive that it ends. */
    return !(op->kind == PORTIO_SHUTDOWN && op->argument == 0);
}

#endif
