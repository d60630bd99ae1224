/* The next turn of a multishot operation: see op_turn.h. */
#include "iocp.h"

/* True: the caller starts it.  Lock held. */
static bool turn_claim(portio_port *port, struct op *op)
{
    op_turn_begin(op);
    op->overlapped.Internal = NT_PENDING; /* for ops_collect */
    op->calling = CALL_OVER;
    op->state = OP_CLAIMED;
    port->active++;
    if (!op_is_ordered(op))
        return true;
    struct op_list *queue = &op->handle->queue[op_direction(op)];
    op_list_append(queue, op);
    if (queue->head == op)
        return true;
    op->state = OP_QUEUED;
    return false;
}

int portio_renew(portio_port *port, uint64_t token)
{
    int refused = port_enter(port);
    if (refused != 0)
        return refused;
    bool claimed = false;
    port_lock(port);
    struct op *op = slots_find(&port->slots, token);
    if (port_is_closing(port))
        refused = PORTIO_CLOSED;
    else if (op == NULL || op->token != token || op->state != OP_TURN)
        refused = PORTIO_INVALID;
    else
        claimed = turn_claim(port, op);
    port_unlock(port);
    if (claimed)
        op_run(port, op);
    port_leave(port);
    return refused;
}
