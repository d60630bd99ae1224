/* The door's function for the next turn of a multishot operation (op_turn.h). */
#include "engine.h"

#include <errno.h>

/* A number that the program has closed behind our back may be another file's by now
   (K6), and the next turn would name it.  `dead` is set before we close one ourselves,
   so the order of the two looks tells which it was.  0 or an errno. */
static int handle_look(portio_port *port, struct handle *handle)
{
    if (handle_is_same(handle))
        return 0;
    port_lock(port);
    int error = handle->dead ? ECANCELED : EBADF;
    port_unlock(port);
    return error;
}

int portio_renew(portio_port *port, uint64_t token, int same)
{
    int refused = port_enter(port);
    if (refused != 0)
        return refused;
    port_lock(port);
    struct op *op = slots_find(&port->slots, token);
    if (atomic_load_explicit(&port->closing, memory_order_relaxed)) {
        refused = PORTIO_CLOSED;
    } else if (op == NULL || op->token != token ||
               atomic_load_explicit(&op->state, memory_order_relaxed) != OP_TURN) {
        refused = PORTIO_INVALID;
    } else {
        struct op *heir = op_is_pooled(op) ? pool_give(op) : NULL;
        if (heir != NULL)
            engine_lend(port, heir);
        op_turn_begin(op);
        if (op->stream.armed == 0) {
            op->retries = 0;
            op->cancel = 0;
        }
        port->active++;
        atomic_store_explicit(&op->state, OP_STARTING, memory_order_relaxed);
        port_balance(port); /* the heir may have ended at once */
    }
    port_unlock(port);
    if (refused == 0) {
        op->error = same ? 0 : handle_look(port, op->handle);
        engine_start(port, op);
        if (!port->lazy_submit)
            engine_flush(port);
    }
    port_leave(port);
    return refused;
}
