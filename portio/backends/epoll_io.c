/* One attempt at an operation on a socket, a pipe or a character device: a
   system call that does not sleep, and what its answer means. */
#include "epoll.h"
#include "linux_abi.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

enum attempt io_settle(struct op *op, int64_t result)
{
    if (result >= 0)
        return transfer_advance(op, result) == TRANSFER_COMPLETE ? ATTEMPT_COMPLETE
                                                                 : ATTEMPT_PROGRESS;
    switch (errno) {
    case EAGAIN: /* EWOULDBLOCK is the same on Linux */
        return ATTEMPT_BLOCKED;
    case EINTR:
        return ATTEMPT_PROGRESS;
    default:
        transfer_advance(op, -errno);
        return ATTEMPT_COMPLETE;
    }
}

/* Which of these events, an end or an error is there now. */
static short descriptor_events(int fd, short events)
{
    struct pollfd asked = {.fd = fd, .events = events};
    return poll(&asked, 1, 0) > 0 ? asked.revents : 0;
}

static enum attempt attempt_accept(struct handle *handle, struct op *op)
{
    handle_make_nonblocking(handle); /* accept4(2) has no flag for the call itself */
    int64_t result = accept4(handle->fd, NULL, NULL, SOCK_CLOEXEC);
    if (result >= 0)
        return io_settle(op, result);
    switch (errno) {
    /* The connection broke before it was accepted: the next one, please. */
    case ECONNABORTED:
    /* The network's errors that wait on a new connection are handed over by
       accept(2), which wants them treated like EAGAIN.  It names EOPNOTSUPP as
       well, which is also what a socket that cannot listen says, for ever. */
    case ENETDOWN:
    case EPROTO:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case ENONET:
    case EHOSTUNREACH:
    case ENETUNREACH:
        return ATTEMPT_PROGRESS;
    default:
        return io_settle(op, result);
    }
}

static enum attempt attempt_connect(struct handle *handle, struct op *op)
{
    if (op->phase == PHASE_CONNECTING) {
        /* Asked anew, because the event may be older than the connect. */
        short events = descriptor_events(handle->fd, POLLOUT | POLLPRI | POLLRDHUP);
        if (!(events & (POLLOUT | POLLERR | POLLHUP)))
            return ATTEMPT_BLOCKED;
        int error = 0;
        socklen_t length = sizeof error;
        if (getsockopt(handle->fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0)
            error = errno;
        if (events == POLLOUT)
            handle_is_connected(handle);
        transfer_advance(op, -error);
        return ATTEMPT_COMPLETE;
    }
    handle_make_nonblocking(handle);
    if (connect(handle->fd, op->address, *op->address_length) == 0)
        return io_settle(op, 0);
    switch (errno) {
    case EINPROGRESS:
    case EALREADY: /* a connect that was cancelled goes on in the kernel */
    case EINTR:    /* and so does an interrupted one (connect(2)) */
        op->phase = PHASE_CONNECTING;
        return ATTEMPT_BLOCKED;
    case EAGAIN:
        /* Unix: the listener's queue is full, and no event tells when it has
           room.  A blocking connect in a helper thread would hear of it, but
           could not be cancelled, and four of them would stop all others.
           Elsewhere: no free local port; that is an error. */
        if (handle->family == AF_UNIX)
            return ATTEMPT_LATER;
        transfer_advance(op, -EAGAIN);
        return ATTEMPT_COMPLETE;
    default:
        return io_settle(op, -1);
    }
}

static enum attempt attempt_receive(struct handle *handle, struct op *op)
{
    int flags = transfer_message_flags(op) | MSG_DONTWAIT;
    if (op->flags & PORTIO_VECTORED || op->address != NULL)
        return io_settle(op, recvmsg(handle->fd, transfer_header(op), flags));
    uint32_t length = transfer_length(op);
    int64_t result = recv(handle->fd, op->buffer, length, flags);
    /* Spares the call that would say EAGAIN (epoll(7), the question of reading
       until EAGAIN): not with flags, which may stop short for other reasons. */
    if (result > 0 && result < length && op->argument == 0 && handle_short_is_empty(handle))
        handle->ready[DIRECTION_READ] = false;
    return io_settle(op, result);
}

static enum attempt attempt_send(struct handle *handle, struct op *op)
{
    int flags = transfer_message_flags(op) | MSG_DONTWAIT;
    if (!(op->flags & PORTIO_VECTORED) && op->address == NULL)
        return io_settle(op, send(handle->fd, op->buffer, transfer_length(op), flags));
    enum attempt result = io_settle(op, sendmsg(handle->fd, transfer_header(op), flags));
    /* Of a named receiver whose queue is full, a Unix socket hears nothing more:
       its own descriptor stays writable. */
    if (result == ATTEMPT_BLOCKED && op->address != NULL && handle->family == AF_UNIX)
        return ATTEMPT_LATER;
    return result;
}

static int64_t call_nowait(struct engine *engine, struct handle *handle, struct op *op)
{
    uint32_t count;
    struct iovec *vectors = transfer_vectors(op, &count);
    return op->kind == PORTIO_READ ? abi_read_nowait(handle->fd, vectors, count, -1)
                                   : nowait_write(engine, handle->fd, vectors, count, -1);
}

static int64_t call_plain(struct handle *handle, struct op *op)
{
    uint32_t count;
    struct iovec *vectors = transfer_vectors(op, &count);
    handle_make_nonblocking(handle);
    if (op->kind == PORTIO_READ)
        return readv(handle->fd, vectors, (int)count);
    struct sigpipe_guard guard;
    sigpipe_begin(&guard);
    int64_t result = writev(handle->fd, vectors, (int)count);
    sigpipe_end(&guard, result < 0 && errno == EPIPE);
    return result;
}

/* Pipes, terminals, devices.  The flag of a single call first: O_NONBLOCK would
   be seen by everybody who shares the open file, a parent's shell for example.
   Pipes have known the flag since 6.4; terminals and named pipes do not (6.18),
   and get O_NONBLOCK for as long as they belong to the port. */
static enum attempt attempt_stream(struct engine *engine, struct handle *handle, struct op *op)
{
    enum direction direction = op_direction(op);
    if (atomic_load_explicit(&handle->nowait[direction], memory_order_relaxed)) {
        int64_t result = call_nowait(engine, handle, op);
        if (result >= 0 || errno != EOPNOTSUPP)
            return io_settle(op, result);
        atomic_store_explicit(&handle->nowait[direction], false, memory_order_relaxed);
    }
    /* A device that cannot be polled may sleep in spite of O_NONBLOCK. */
    if (handle->events == 0)
        return ATTEMPT_HELP;
    return io_settle(op, call_plain(handle, op));
}

enum attempt io_attempt(struct engine *engine, struct handle *handle, struct op *op)
{
    if (op_is_readiness_probe(op)) {
        if (handle->events != 0 && descriptor_events(handle->fd, POLLIN | POLLRDHUP) == 0)
            return ATTEMPT_BLOCKED;
        return io_settle(op, 0);
    }
    switch ((enum portio_kind)op->kind) {
    case PORTIO_ACCEPT:
        return attempt_accept(handle, op);
    case PORTIO_CONNECT:
        return attempt_connect(handle, op);
    case PORTIO_RECV:
    case PORTIO_RECVFROM:
        return attempt_receive(handle, op);
    case PORTIO_SEND:
    case PORTIO_SENDTO:
        return attempt_send(handle, op);
    case PORTIO_SHUTDOWN:
        return io_settle(op, shutdown(handle->fd, (int)op->argument));
    case PORTIO_SENDFILE:
        return sendfile_attempt(engine, handle, op);
    case PORTIO_READ:
    case PORTIO_WRITE:
        return attempt_stream(engine, handle, op);
    case PORTIO_SYNC:
        return ATTEMPT_HELP; /* most of these cannot sync (EINVAL); who can may sleep */
    case PORTIO_TIMER:
        break;
    }
    op->error = EINVAL; /* not reached: a Timer has no handle */
    return ATTEMPT_COMPLETE;
}
