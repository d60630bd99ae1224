/* The end of operations that did not complete by themselves: cancelled one by one,
   with their handle, with the receiving side of their stream, or with the port. */
#include "iocp.h"

/* Asks for the end of a pending operation.  Lock held.  True: it is claimed, and
   the caller completes it when the lock is released. */
static bool op_cancel_locked(portio_port *port, struct op *op)
{
    op->cancel_wanted = 1;
    switch (op->state) {
    case OP_TIMED:
        timer_remove(port, op);
        break;
    case OP_QUEUED:
        /* It stays on the queue until it is complete: the head's successor is
           found there. */
        if (op->parked)
            pool_unpark(op); /* before it is claimed: it must not become an heir */
        break;
    case OP_ISSUED:
        if (op->handle != NULL && !op->handle->abandoned)
            CancelIoEx(op->handle->handle, &op->overlapped);
        return false;
    default:
        return false; /* who has claimed it sees cancel_wanted */
    }
    op->error = op_abort_error(op);
    op->state = OP_CLAIMED;
    return true;
}

int portio_cancel(portio_port *port, uint64_t token)
{
    /* Any thread may, also where the port is thread-bound. */
    if (port_is_closing(port))
        return PORTIO_CLOSED;
    InterlockedIncrement(&port->users);
    int refused = port_is_closing(port) ? PORTIO_CLOSED : 0;
    struct op *op = slots_find(&port->slots, token);
    if (refused == 0 && op != NULL) {
        port_lock(port);
        /* One that is multishot finds it when it goes on. */
        bool pending = op_is_meant(op, token) && op->state != OP_FREE &&
                       (op->state != OP_DONE || (op->flags & PORTIO_MULTISHOT) != 0);
        bool claimed = pending && op_cancel_locked(port, op);
        port_unlock(port);
        if (claimed)
            op_complete(port, op);
    }
    port_leave(port);
    return refused;
}

void ops_cancel_all(portio_port *port)
{
    uint32_t count = (uint32_t)port->slots.count;
    for (uint32_t slot = 1; slot < count; slot++) {
        struct op *op = slots_at(&port->slots, slot);
        port_lock(port);
        bool pending = op->state != OP_FREE && op->state != OP_DONE && op->state != OP_TURN;
        bool claimed = pending && op_cancel_locked(port, op);
        port_unlock(port);
        if (claimed)
            op_complete(port, op);
    }
}

/* For a closing port that nobody else is in.  At the concurrency cap the kernel
   gives no packet to the thread that closes; but what it has written to a record
   tells that it has finished with the operation. */
void ops_collect(portio_port *port)
{
    uint32_t count = (uint32_t)port->slots.count;
    for (uint32_t slot = 1; slot < count; slot++) {
        struct op *op = slots_at(&port->slots, slot);
        volatile ULONG_PTR *status = &op->overlapped.Internal;
        if (op->state == OP_ISSUED && !op_is_unqueued(op) && *status != NT_PENDING) {
            MemoryBarrier(); /* the bytes were written before the status */
            op_arrive(port, op, op_answer_written(op), NULL);
        }
    }
}

void ops_discard(portio_port *port)
{
    uint32_t count = (uint32_t)port->slots.count;
    port_lock(port); /* a thread in portio_wait may be taking one of them */
    for (uint32_t slot = 1; slot < count; slot++) {
        struct op *op = slots_at(&port->slots, slot);
        if (op->state == OP_DONE && op->kind == PORTIO_ACCEPT && op->error == 0)
            closesocket((SOCKET)op->nbytes); /* it has no owner yet */
        op->state = OP_FREE;
    }
    port->stash = (struct op_list){NULL, NULL};
    port_unlock(port);
}

/* The first operation of a queue that is not with the system.  Lock held. */
static struct op *queue_first_waiting(struct handle *handle, enum direction direction)
{
    struct op *op = handle->queue[direction].head;
    while (op != NULL && op->state != OP_QUEUED)
        op = op->next;
    return op;
}

static void queue_cancel(portio_port *port, struct handle *handle, enum direction direction,
                         bool end)
{
    for (;;) {
        port_lock(port);
        struct op *op = queue_first_waiting(handle, direction);
        if (op != NULL) {
            op->end_wanted = end;
            op_cancel_locked(port, op);
        }
        port_unlock(port);
        if (op == NULL)
            return;
        op_complete(port, op);
    }
}

void handle_cancel_queued(portio_port *port, struct handle *handle)
{
    queue_cancel(port, handle, DIRECTION_READ, false);
    queue_cancel(port, handle, DIRECTION_WRITE, false);
}

void handle_end_receives(portio_port *port, struct handle *handle)
{
    port_lock(port);
    handle->ended = true;
    struct op *head = handle->queue[DIRECTION_READ].head;
    if (head != NULL && head->state != OP_QUEUED) {
        head->end_wanted = true;
        op_cancel_locked(port, head);
    }
    port_unlock(port);
    queue_cancel(port, handle, DIRECTION_READ, true);
}
