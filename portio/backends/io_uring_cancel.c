/* The request for the end of an operation that the kernel has, and its answer.

   An operation that is to be cancelled is asked for until it has ended, however often
   the kernel does not find it: a cancellation that got lost would leave an operation
   that nobody can end any more.  There is one request at a time, however often the
   program asks. */
#include "io_uring.h"

#include <errno.h>

/* So often at once, and then with pauses of 1, 2, 4, … 32 milliseconds in between. */
#define CANCELS_AT_ONCE 4
#define DOUBLINGS_MOST 5

/* Copied by the kernel when it takes the submission. */
static const struct uring_timespec pauses[DOUBLINGS_MOST + 1] = {
    {0, 1000000}, {0, 2000000}, {0, 4000000}, {0, 8000000}, {0, 16000000}, {0, 32000000},
};

/* A submission that speaks of `op`; NULL when the ring is full. */
static struct uring_sqe *cancel_sqe(portio_port *port, const struct op *op)
{
    struct uring_sqe *sqe = ring_sqe(&((struct engine *)port->engine)->ring);
    if (sqe == NULL)
        return NULL;
    sqe->fd = -1;
    sqe->user_data = uring_request(op) | USER_CANCEL;
    return sqe;
}

static bool cancel_prepare(portio_port *port, struct op *op)
{
    struct uring_sqe *sqe = cancel_sqe(port, op);
    if (sqe == NULL)
        return false;
    op->cancel = CANCEL_ASKED;
    sqe->opcode = URING_ASYNC_CANCEL;
    sqe->address = uring_request(op);
    ring_push(&((struct engine *)port->engine)->ring);
    return true;
}

static bool pause_prepare(portio_port *port, const struct op *op, int doublings)
{
    struct uring_sqe *sqe = cancel_sqe(port, op);
    if (sqe == NULL)
        return false;
    sqe->opcode = URING_TIMEOUT;
    sqe->address = (uint64_t)(uintptr_t)&pauses[doublings];
    sqe->length = 1;
    ring_push(&((struct engine *)port->engine)->ring);
    return true;
}

void uring_cancel(portio_port *port, struct op *op)
{
    uint64_t token = uring_request(op);
    while (uring_request(op) == token && uring_has(op) &&
           op->cancel == CANCEL_NONE && !cancel_prepare(port, op)) {
        port_unlock(port);
        engine_flush(port);
        port_lock(port);
    }
}

/* 0: it was found, and its own completion tells how it ended.  ENOENT while it is still
   out: it was between two steps inside the kernel, and will be found a moment later.
   EALREADY: a thread of the kernel works on it, and may have been about to wait when it
   was told not to.  ETIME: the pause is over; ECANCELED: the thread that had asked for
   the pause has ended. */
void uring_cancel_answered(portio_port *port, uint64_t token, int32_t result)
{
    struct op *op = slots_find(&port->slots, token);
    if (result == 0 || op == NULL || uring_request(op) != token || !uring_has(op))
        return;
    bool prepared;
    if (result == -ETIME || (result == -ENOENT && op->retries < CANCELS_AT_ONCE)) {
        prepared = cancel_prepare(port, op);
    } else {
        int doublings = op->retries - CANCELS_AT_ONCE;
        doublings = doublings < 0 ? 0 : doublings;
        prepared = pause_prepare(port, op, doublings < DOUBLINGS_MOST ? doublings : DOUBLINGS_MOST);
    }
    if (op->retries < CANCELS_AT_ONCE + DOUBLINGS_MOST)
        op->retries++;
    if (!prepared) {
        op->cancel = CANCEL_OWED;
        atomic_store(&((struct engine *)port->engine)->cancels_owed, true);
    }
}

/* There may be room in the ring for those that found none.  They are looked for among
   all: that one is lost for want of room is rarer than rare. */
void uring_cancel_owed(portio_port *port)
{
    struct engine *engine = port->engine;
    if (!atomic_load(&engine->cancels_owed))
        return;
    uint32_t count = atomic_load(&port->slots.count);
    for (uint32_t slot = 1; slot < count; slot++) {
        struct op *op = slots_at(&port->slots, slot);
        if (op->cancel != CANCEL_OWED)
            continue;
        if (!uring_has(op))
            op->cancel = CANCEL_NONE;
        else if (!cancel_prepare(port, op))
            return;
    }
    atomic_store(&engine->cancels_owed, false);
}
