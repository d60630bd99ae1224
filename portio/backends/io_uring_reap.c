/* A completion of the ring becomes the end of an operation, or its next step. */
#include "io_uring.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* Linux-internal, but seen by some completions of interrupted kernel threads. */
#define ERESTARTSYS 512

void uring_finish(portio_port *port, struct op *op)
{
    struct handle *handle = op->handle;
    struct op *next = NULL;
    if (op->kind == PORTIO_SENDFILE) {
        free(op->u.sendfile.block);
        op->u.sendfile.block = NULL;
    }
    if (handle != NULL) {
        enum direction direction = op_direction(op);
        order_leave(handle, op);
        next = order_is_held(handle, direction) ? NULL : handle->queue[direction].head;
    }
    atomic_store_explicit(&((struct engine *)port->engine)->finished, true,
                          memory_order_relaxed);
    port_complete_locked(port, op);
    /* The one behind it on a stream; in a closing handle it was cancelled. */
    if (next == NULL || handle->closing || next->waits || next->parked ||
        atomic_load(&next->state) != OP_QUEUED)
        return;
    if (handle_is_same(handle)) {
        uring_issue(port, next);
        return;
    }
    struct op_list *queue = &handle->queue[op_direction(next)];
    while ((next = queue->head) != NULL && atomic_load(&next->state) == OP_QUEUED &&
           !next->waits) {
        op_list_remove(queue, next);
        next->error = EBADF;
        port_complete_locked(port, next);
    }
}

static void finish_with(portio_port *port, struct op *op, int error)
{
    op->error = error;
    uring_finish(port, op);
}

/* An error that is not the operation's own.  A thread that submits and ends
   takes its requests along: they fail with ECANCELED, or EFAULT where the kernel
   was about to go on with them (io_req_task_submit).  Interrupted kernel threads
   say EINTR.  Nothing was moved, so the request is simply made again; EFAULT
   may also be the buffer's fault, which the bound on retries finds out. */
static bool is_foreign(const struct op *op, int32_t result)
{
    switch (result) {
    case -ECANCELED:
    case -EINTR:
    case -ERESTARTSYS:
        return true;
    case -EFAULT:
        return op->retries < RETRIES_MOST;
    default:
        return false;
    }
}

bool uring_is_passing(const struct op *op, int32_t result)
{
    return is_foreign(op, result) || result == -ENOBUFS || result == -EAGAIN;
}

/* Closing the handle ended the stream under the operation (K5): that is the
   cancel at work, and must not look like the peer's doing (O6). */
static bool is_own_shutdown(const struct op *op, int32_t result)
{
    if (op->handle == NULL || !op->handle->closing)
        return false;
    if (result < 0)
        return true;
    return result == 0 && (op->kind == PORTIO_RECV || op->kind == PORTIO_RECVFROM);
}

/* The next step of an operation that has moved some of its bytes.  A submission
   names a number: it must not be another file's by now (K6). */
void uring_issue_rest(portio_port *port, struct op *op)
{
    if (op->handle == NULL || handle_is_same(op->handle))
        uring_issue(port, op);
    else
        finish_with(port, op, EBADF);
}

void engine_lend(portio_port *port, struct op *op)
{
    uring_issue_rest(port, op);
}

/* There is data for a receive with a pool. */
static void receive_pooled(portio_port *port, struct op *op)
{
    if (op->pool->store != NULL) {
        op->phase = PHASE_SELECT;
        uring_issue_rest(port, op);
    } else if (pool_take(op)) {
        uring_issue_rest(port, op);
    } else {
        atomic_store(&op->state, OP_QUEUED); /* parked: engine_lend goes on */
    }
}

/* What the kernel looks for before it makes a receive, and it does also for urgent data. */
static bool is_readable(const struct op *op)
{
    struct pollfd look = {.fd = op->handle->fd, .events = POLLIN | POLLPRI};
    return poll(&look, 1, 0) != 0; /* an error, too, is told by the receive */
}

/* The kernel has found no buffer in the group of its pool, and received nothing.

   It looks for a buffer before it looks for data.  An idle receive must not take its place
   among those that wait for a buffer: it is submitted again, to wait for data first.  One
   that has data is parked, and then the next buffer that is given back is its own, also
   when others are in the ring by now: so it cannot be overtaken for ever.  That one will
   be given back is certain if one is out; if none is, one that was put into the ring since
   we asked must be looked for there.  Where a pool lends, one that is out may be the program's
   for good, and any that is in the ring has to be looked for: a receive may be overtaken then.
   Each further attempt needs such a put, or that data has come and gone, so nothing spins. */
static void receive_starved(portio_port *port, struct op *op)
{
    const struct group *group = group_of(op->pool);
    uint64_t inside = group_room(group);
    bool certain = inside < op->pool->count && !(op->pool->lends && inside > 0);
    if (!is_readable(op)) {
        op->phase = PHASE_AWAIT;
        uring_issue_rest(port, op);
    } else if (!certain && group->pushed != op->u.select.pushed) {
        op->phase = PHASE_SELECT;
        uring_issue_rest(port, op);
    } else {
        op->phase = PHASE_DIRECT; /* into the buffer that it will be lent */
        pool_park(op);
        atomic_store(&op->state, OP_QUEUED); /* engine_lend goes on */
    }
}

static void sendfile_advance(portio_port *port, struct op *op, int32_t result)
{
    if (result < 0) {
        finish_with(port, op, -result);
        return;
    }
    if (op->phase == PHASE_FILL) {
        if (result == 0) {
            finish_with(port, op, 0); /* the end of the file */
            return;
        }
        op->argument += result;
        op->length -= (uint32_t)result;
        op->u.sendfile.filled = (uint32_t)result;
        op->u.sendfile.sent = 0;
        op->phase = PHASE_DRAIN;
    } else {
        op->nbytes += result;
        op->u.sendfile.sent += (uint32_t)result;
        if (op->u.sendfile.sent == op->u.sendfile.filled) {
            if (op->length == 0) {
                finish_with(port, op, 0);
                return;
            }
            op->phase = PHASE_FILL;
        }
    }
    if (atomic_load(&op->cancel_wanted))
        finish_with(port, op, ECANCELED);
    else
        uring_issue_rest(port, op);
}

/* It would have blocked, and the kernel did not arm a poll by itself. */
static void again_when_ready(portio_port *port, struct op *op)
{
    if (op->kind == PORTIO_SENDFILE) {
        finish_with(port, op, EAGAIN); /* a source that is no file, SO_SNDTIMEO */
        return;
    }
    struct op *heir = op_is_pooled(op) ? pool_give(op) : NULL;
    if (heir != NULL)
        engine_lend(port, heir);
    if (op->handle->type == PORTIO_FILE) {
        op->phase = PHASE_ASYNC;
    } else if (op->handle->family == AF_UNIX && op->address != NULL) {
        /* The receiver's queue is full, and no poll tells when it has room:
           unix_dgram_poll looks at a connected peer only. */
        int64_t pause = INT64_C(1000000) << (op->retries < 5 ? op->retries++ : 5);
        uring_time_set(op, monotonic_now() + pause);
        op->phase = PHASE_PAUSE;
    } else {
        /* The program made the descriptor non-blocking: pipes, listeners.  Or somebody
           else has received what there was for a receive with a pool. */
        op->phase = PHASE_POLL;
    }
    uring_issue_rest(port, op);
}

void uring_advance(portio_port *port, struct op *op, int32_t result)
{
    bool cancelled = atomic_load(&op->cancel_wanted);
    if (is_own_shutdown(op, result)) {
        finish_with(port, op, ECANCELED);
        return;
    }
    if (is_foreign(op, result)) {
        if (cancelled) {
            finish_with(port, op, ECANCELED);
        } else {
            if (result == -EFAULT)
                op->retries++;
            uring_issue_rest(port, op);
        }
        return;
    }
    if (op->phase == PHASE_PAUSE) {
        op->phase = PHASE_DIRECT;
        if (cancelled)
            finish_with(port, op, ECANCELED);
        else
            uring_issue_rest(port, op);
        return;
    }
    if (op->phase == PHASE_POLL) {
        /* A poll that ends with an error flag is told by the operation itself. */
        if (result < 0) {
            finish_with(port, op, -result);
        } else if (op_is_readiness_probe(op)) {
            finish_with(port, op, 0);
        } else if (cancelled) {
            finish_with(port, op, ECANCELED);
        } else {
            op->phase = PHASE_DIRECT;
            if (op_is_pooled(op))
                receive_pooled(port, op);
            else
                uring_issue_rest(port, op);
        }
        return;
    }
    if (op->kind == PORTIO_TIMER) {
        finish_with(port, op, result == -ETIME ? 0 : -result);
        return;
    }
    if (result == -ENOBUFS && (op->phase == PHASE_SELECT || op->phase == PHASE_AWAIT)) {
        if (cancelled)
            finish_with(port, op, ECANCELED);
        else
            receive_starved(port, op);
        return;
    }
    if (result == -EAGAIN) {
        if (cancelled)
            finish_with(port, op, ECANCELED);
        else
            again_when_ready(port, op);
        return;
    }
    if (op->kind == PORTIO_CONNECT && (result == -EALREADY || result == -EINPROGRESS)) {
        /* The system is connecting already, for a Connect that was cancelled. */
        if (cancelled) {
            finish_with(port, op, ECANCELED);
        } else {
            op->phase = PHASE_POLL;
            uring_issue_rest(port, op);
        }
        return;
    }
    if (op->kind == PORTIO_SENDFILE) {
        sendfile_advance(port, op, result);
        return;
    }
    if (transfer_advance(op, result) == TRANSFER_COMPLETE)
        uring_finish(port, op);
    else if (cancelled)
        finish_with(port, op, ECANCELED);
    else
        uring_issue_rest(port, op);
}

static void completion_handle(portio_port *port, const struct uring_cqe *cqe)
{
    struct engine *engine = port->engine;
    if (cqe->user_data & USER_CANCEL) {
        uring_cancel_answered(port, cqe->user_data & ~USER_CANCEL, cqe->res);
        return;
    }
    if ((cqe->user_data & PORTIO_SLOT_MASK) == 0) {
        if (cqe->user_data == USER_WAKE_POLL) {
            uint64_t count;
            if (!(cqe->flags & URING_CQE_MORE))
                engine->wake_armed = false;
            /* Before the inbox is read: what is put there later wakes again. */
            (void)!read(engine->wake_fd, &count, sizeof count);
        } else if (cqe->user_data == USER_INTERRUPT) {
            uring_interrupted(port, cqe);
        } else if (cqe->user_data == USER_WAKE && port->reaper_waits) {
            /* It was meant for the reaper, who has not fallen asleep yet and
               would not find it any more: port_unlock sends another. */
            port->wake_reaper = true;
        }
        return;
    }
    struct op *op = slots_find(&port->slots, cqe->user_data);
    if (op != NULL && op->stream.armed == cqe->user_data) {
        stream_arrive(port, op, cqe);
        return;
    }
    if (op != NULL && op->token == cqe->user_data && atomic_load(&op->state) == OP_ISSUED) {
        if (op->region != 0)
            uring_region_leave(port, op);
        if (cqe->flags & URING_CQE_BUFFER) {
            /* Whatever the result is.  A submission has this one completion, and before it
               the operation cannot end: so no buffer comes without its operation. */
            group_took(op, cqe->flags >> URING_CQE_BUFFER_SHIFT);
            op->phase = PHASE_DIRECT; /* if it has to be tried again, then with this buffer */
        }
        uring_advance(port, op, cqe->res);
    }
}

static bool ring_drain(portio_port *port)
{
    struct ring *ring = &((struct engine *)port->engine)->ring;
    uint32_t head = atomic_load_explicit(ring->cq_head, memory_order_relaxed);
    uint32_t tail = atomic_load_explicit(ring->cq_tail, memory_order_acquire);
    if (head == tail)
        return false;
    do {
        struct uring_cqe cqe = ring->cqes[head++ & ring->cq_mask];
        completion_handle(port, &cqe);
    } while (head != tail);
    atomic_store_explicit(ring->cq_head, head, memory_order_release);
    return true;
}

void engine_harvest(portio_port *port)
{
    struct ring *ring = &((struct engine *)port->engine)->ring;
    bool any = ring_drain(port);
    /* More completions than the ring has places wait in the kernel (NODROP) until
       somebody makes room and asks: the one system call here, and a rare one. */
    while (atomic_load_explicit(ring->sq_flags, memory_order_relaxed) & URING_SQ_CQ_OVERFLOW) {
        int result = ring_enter(ring, 0, 0, URING_ENTER_GETEVENTS, -1);
        if (!ring_drain(port) && result < 0 && result != -EINTR)
            break; /* nothing moves; the next wait asks again */
        any = true;
    }
    if (!any)
        return;
    uring_issue_waiting(port);
    /* The next steps of what has completed must not wait until this thread comes
       back: the reaper may be asleep in the kernel already.  Only lazy_submit says
       that they may. */
    uint32_t count;
    while (!port->lazy_submit && (count = ring_unsubmitted(ring)) > 0) {
        int result = ring_enter(ring, count, 0, 0, -1);
        if (result > 0 || result == -EINTR)
            continue; /* a bad submission ends a batch early without SUBMIT_ALL */
        if (ring_unsubmitted(ring) > 0)
            port_wake_reaper(port); /* refused for now; its next wait submits them */
        break;
    }
}
