/* The direction of an operation, and whether it takes its turn (O9): the same in
   every engine.  Included after struct op and struct handle are defined; it uses
   `kind`, `argument` and the handle's `type`, `queue` and `between`.

   A multishot receive keeps its turn until it has ended (O17).  Between two completions
   it is on no queue, since its packet is on a list; its handle remembers it in `between`,
   and nothing behind it is issued. */
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

/* Nothing that is ordered may be issued: who has the turn is between two completions. */
static inline bool order_is_held(const struct handle *handle, enum direction direction)
{
    return direction == DIRECTION_READ && handle->between != NULL;
}

/* The operation, or its next turn, begins.  True: it is back in its place, before all. */
static inline bool order_enter(struct handle *handle, struct op *op)
{
    struct op_list *queue = &handle->queue[op_direction(op)];
    if (handle->between != op) {
        op_list_append(queue, op);
        return false;
    }
    handle->between = NULL;
    op_list_prepend(queue, op);
    return true;
}

/* It is complete, `error` and `nbytes` being set. */
static inline void order_leave(struct handle *handle, struct op *op)
{
    op_list_remove(&handle->queue[op_direction(op)], op);
    if (op_is_pooled(op) && op_goes_on(op))
        handle->between = op;
}

#endif
