/* Receives that the kernel goes on with: one request, many completions (since 6.0).

   Towards the port nothing changes: an operation has at most one piece under way, and a
   record and a token for each turn (op_turn.h).  What is different is where the rest is.
   The kernel's request stays *armed* from turn to turn, so a piece may arrive when nobody
   asks for it yet: before its packet has been taken, or between two turns.  It stays in
   its buffer, and waits in the operation's backlog; the next turn begins with it, and
   costs no call.  The pool bounds the backlog: when it is empty, the kernel ends the
   request with ENOBUFS.  So a turn begins with the first of these that there is:

     1. a piece of the backlog
     2. the request, if the kernel still has it: the turn waits for its next completion
     3. what it ended with, if that is an end: no bytes, or an error
     4. a new request

   A turn that is to end instead, since the operation was cancelled, its handle closed, or
   its descriptor is another's, waits for the end of the request first, which is asked for
   as soon as somebody wants it: what the kernel has taken from the stream by then is
   delivered before.  So an operation never ends while the kernel has a request of it, and
   no buffer comes without its operation.

   Between two turns a request counts among port->active, so that a closing port waits for
   its end (P7). */
#include "io_uring.h"

#include <errno.h>
#include <sys/socket.h>

/* Of Unix sockets the kernel loses the end of the stream: where it knows that nothing is left
   to receive (SO_INQ, since 6.17) it waits for the next event, and the one of the shutdown may
   have been together with the last data's (liburing#1549; seen on 6.18).  TCP says that there
   is more as long as the end was not received. */
bool stream_suits(const struct engine *engine, const struct handle *handle)
{
    return engine->streams && (handle->family == AF_INET || handle->family == AF_INET6);
}

void stream_armed(portio_port *port, struct op *op)
{
    op->stream.armed = op->token;
    port->active++;
}

static void piece_add(struct op *op, uint32_t number, uint32_t nbytes)
{
    struct group *group = group_of(op->pool);
    struct stream *stream = &op->stream;
    group->pieces[number] = (struct piece){.next = 0, .nbytes = nbytes};
    if (stream->first == 0)
        stream->first = number + 1;
    else
        group->pieces[stream->last - 1].next = number + 1;
    stream->last = number + 1;
}

/* The first piece of the backlog is the operation's result. */
static void piece_take(struct op *op)
{
    struct stream *stream = &op->stream;
    uint32_t number = stream->first - 1;
    const struct piece *piece = &group_of(op->pool)->pieces[number];
    stream->first = piece->next;
    pool_lend(op, number);
    op->nbytes = piece->nbytes;
}

/* The turn is to be answered; the operation is in its place, and has no buffer. */
static void turn_answer(portio_port *port, struct op *op)
{
    struct stream *stream = &op->stream;
    if (stream->first != 0) {
        piece_take(op);
        uring_finish(port, op);
    } else if (stream->armed != 0) {
        atomic_store(&op->state, OP_ISSUED);
        if (stream->stop != 0) {
            atomic_store(&op->cancel_wanted, true);
            uring_cancel(port, op); /* may let others at it, and is the last thing here */
        }
    } else if (stream->over) {
        stream->over = false;
        uring_advance(port, op, stream->told);
    } else if (stream->stop != 0) {
        op->error = stream->stop;
        uring_finish(port, op);
    } else {
        uring_issue_rest(port, op);
    }
}

bool stream_resume(portio_port *port, struct op *op, int error)
{
    struct stream *stream = &op->stream;
    if (stream->first == 0 && stream->armed == 0 && !stream->over)
        return false;
    op->error = 0;
    op->phase = PHASE_SELECT;
    stream->stop = error;
    turn_answer(port, op);
    return true;
}

void stream_arrive(portio_port *port, struct op *op, const struct uring_cqe *cqe)
{
    struct stream *stream = &op->stream;
    bool waited_for = atomic_load(&op->state) == OP_ISSUED;
    if (!(cqe->flags & URING_CQE_MORE)) {
        stream->armed = 0;
        op->cancel = CANCEL_NONE;
        port->active--;
    }
    if (cqe->flags & URING_CQE_BUFFER) {
        uint32_t number = cqe->flags >> URING_CQE_BUFFER_SHIFT;
        group_of(op->pool)->taken++;
        if (cqe->res > 0) {
            piece_add(op, number, (uint32_t)cqe->res);
        } else {
            struct op *heir = pool_return(op->pool, number);
            if (heir != NULL)
                engine_lend(port, heir);
        }
    }
    /* What passes needs no answer when nobody waits: the next turn asks again. */
    if (cqe->res <= 0 && (waited_for || !uring_is_passing(op, cqe->res))) {
        stream->over = true;
        stream->told = cqe->res;
    }
    if (waited_for)
        turn_answer(port, op);
    else if (port->active == 0 && atomic_load_explicit(&port->closing, memory_order_relaxed))
        port_balance(port);
}

/* A kernel that does not know the flag says EINVAL before it looks at the descriptor. */
int stream_try(struct ring *ring)
{
    struct uring_sqe *sqe = ring_sqe(ring);
    if (sqe == NULL)
        return -EAGAIN;
    sqe->opcode = URING_RECV;
    sqe->fd = -1;
    sqe->flags = URING_SQE_BUFFER_SELECT;
    sqe->ioprio = URING_RECV_MULTI;
    ring_push(ring);
    int result = ring_enter(ring, 1, 1, URING_ENTER_GETEVENTS, -1);
    if (result < 0)
        return result;
    if (!ring_has_completions(ring))
        return -EAGAIN;
    uint32_t head = atomic_load_explicit(ring->cq_head, memory_order_relaxed);
    result = ring->cqes[head & ring->cq_mask].res;
    atomic_store_explicit(ring->cq_head, head + 1, memory_order_release);
    return result == -EBADF ? 0 : result < 0 ? result : -EIO;
}
