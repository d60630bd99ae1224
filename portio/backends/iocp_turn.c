/* Multishot operations: the next turn (op_turn.h), and buffers from pools (op_pool.h).

   A receive that is lent a buffer by another that gives it back is claimed at once, and
   is an *heir* until somebody runs it, which is who has brought that about, when the lock
   is released. */
#include "iocp.h"

/* ---- pools ---- */

static void heir_add(portio_port *port, struct op *heir)
{
    if (heir == NULL)
        return;
    heir->state = OP_CLAIMED;
    heir->links.next = port->heirs;
    port->heirs = heir;
}

void pool_pass_on(portio_port *port, struct op *op)
{
    heir_add(port, pool_leave(op));
}

void heirs_run(portio_port *port)
{
    while (port->heirs != NULL) { /* a hint; who has added one looks after it anyway */
        port_lock(port);
        struct op *heir = port->heirs;
        if (heir != NULL)
            port->heirs = heir->links.next;
        port_unlock(port);
        if (heir == NULL)
            return;
        op_run(port, heir);
    }
}

bool pool_borrow(portio_port *port, struct op *op, bool *done)
{
    port_lock(port);
    /* Who cancels it from now on finds it in the queue; who has, did not. */
    bool cancelled = op->lent == 0 && (op->cancel_wanted || op->handle->closing);
    bool lent = !cancelled && pool_take(op);
    if (cancelled)
        op->error = op_abort_error(op);
    else if (!lent)
        op->state = OP_QUEUED;
    port_unlock(port);
    *done = cancelled;
    return lent;
}

void portio_pool_free(portio_pool *pool)
{
    pool_destroy(pool);
}

int portio_pool_return(portio_port *port, portio_pool *pool, uint32_t number)
{
    if (number >= pool->count)
        return PORTIO_INVALID;
    /* Any thread may, also where the port is thread-bound. */
    if (port_is_closing(port))
        return PORTIO_CLOSED;
    InterlockedIncrement(&port->users);
    int refused = port_is_closing(port) ? PORTIO_CLOSED : 0;
    if (refused == 0) {
        port_lock(port);
        heir_add(port, pool_return(pool, number));
        port_unlock(port);
        heirs_run(port);
    }
    port_leave(port);
    return refused;
}

/* ---- turns ---- */

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
    order_enter(op->handle, op); /* its place is the first: nobody has it */
    return true;
}

int portio_renew(portio_port *port, uint64_t token, int same)
{
    (void)same; /* nothing tells here (K6) */
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
    else {
        if (op_is_pooled(op))
            heir_add(port, pool_give(op));
        claimed = turn_claim(port, op);
    }
    port_unlock(port);
    heirs_run(port);
    if (claimed)
        op_run(port, op);
    port_leave(port);
    return refused;
}
