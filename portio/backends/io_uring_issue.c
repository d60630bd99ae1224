/* An operation becomes a submission. */
#include "io_uring.h"
#include "linux_abi.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

static uint64_t address_of(const void *pointer)
{
    return (uint64_t)(uintptr_t)pointer;
}

static void prepare_poll(struct uring_sqe *sqe, const struct op *op)
{
    sqe->opcode = URING_POLL_ADD;
    sqe->op_flags = op_direction(op) == DIRECTION_READ ? POLLIN : POLLOUT;
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    sqe->op_flags = sqe->op_flags << 16 | sqe->op_flags >> 16; /* io_uring_enter(2), poll32 */
#endif
}

void uring_time_set(struct op *op, int64_t deadline)
{
    op->u.time.seconds = deadline / 1000000000;
    op->u.time.nanoseconds = deadline % 1000000000;
}

static void prepare_timeout(struct uring_sqe *sqe, const struct op *op)
{
    sqe->opcode = URING_TIMEOUT;
    sqe->fd = -1;
    sqe->address = address_of(&op->u.time); /* CLOCK_MONOTONIC, absolute */
    sqe->length = 1;
    sqe->op_flags = URING_TIMEOUT_ABS;
}

static void prepare_message(struct uring_sqe *sqe, struct op *op, bool sends)
{
    bool plain = !(op->flags & PORTIO_VECTORED) && op->address == NULL;
    sqe->op_flags = (uint32_t)transfer_message_flags(op);
    /* A datagram that has to wait is made anew: when the kernel tries again by
       itself, the first attempt has used up the buffers, and an empty datagram
       goes out (seen with Unix sockets on 6.18). */
    if (sends && op->handle->type == PORTIO_DATAGRAM_SOCKET)
        sqe->op_flags |= MSG_DONTWAIT;
    if (op_is_pooled(op))
        sqe->op_flags |= MSG_DONTWAIT; /* or it would wait, and keep the buffer */
    if (plain) {
        sqe->opcode = sends ? URING_SEND : URING_RECV;
        sqe->address = address_of(op->buffer);
        sqe->length = transfer_length(op);
    } else {
        sqe->opcode = sends ? URING_SENDMSG : URING_RECVMSG;
        sqe->address = address_of(transfer_header(op));
        sqe->length = 1;
    }
}

/* The kernel waits for data, and takes a buffer from the pool's group when there is some. */
static void prepare_select(portio_port *port, struct uring_sqe *sqe, struct op *op)
{
    const struct group *group = group_of(op->pool);
    op->u.select.pushed = group->pushed;
    sqe->opcode = URING_RECV;
    sqe->flags |= URING_SQE_BUFFER_SELECT;
    sqe->ioprio = op->phase == PHASE_AWAIT ? URING_POLL_FIRST : 0;
    sqe->buffer = group->number;
    sqe->op_flags = (uint32_t)transfer_message_flags(op);
    if (stream_suits(port->engine, op->handle)) {
        sqe->ioprio |= URING_RECV_MULTI; /* the length must be 0: the buffers have theirs */
        stream_armed(port, op);
    } else {
        sqe->length = transfer_length(op);
    }
}

static void prepare_file(struct engine *engine, struct uring_sqe *sqe, struct op *op, bool writes)
{
    /* -1: no offset, or the file's own position (since 5.6). */
    sqe->offset = op->handle->type == PORTIO_FILE ? (uint64_t)op->argument : UINT64_MAX;
    if (op->flags & PORTIO_VECTORED) {
        uint32_t count;
        sqe->opcode = writes ? URING_WRITEV : URING_READV;
        sqe->address = address_of(transfer_vectors(op, &count));
        sqe->length = count;
    } else {
        sqe->opcode = writes ? URING_WRITE : URING_READ;
        sqe->address = address_of(op->buffer);
        sqe->length = transfer_length(op);
        if (engine->regions == NULL || op->handle->type != PORTIO_FILE)
            return;
        op->region = uring_region_enter(engine, op->buffer, sqe->length);
        if (op->region != 0) {
            sqe->opcode = writes ? URING_WRITE_FIXED : URING_READ_FIXED;
            sqe->buffer = op->region - 1;
        }
    }
}

static void prepare_sendfile(struct uring_sqe *sqe, struct op *op)
{
    if (op->phase == PHASE_FILL) {
        sqe->opcode = URING_READ;
        sqe->fd = (int)op->file;
        sqe->offset = (uint64_t)op->argument;
        sqe->address = address_of(op->u.sendfile.block);
        sqe->length = op->length < SENDFILE_BLOCK ? (uint32_t)op->length : SENDFILE_BLOCK;
    } else {
        sqe->opcode = URING_SEND;
        sqe->op_flags = MSG_NOSIGNAL;
        sqe->address = address_of(op->u.sendfile.block + op->u.sendfile.sent);
        sqe->length = op->u.sendfile.filled - op->u.sendfile.sent;
    }
}

static void prepare(portio_port *port, struct uring_sqe *sqe, struct op *op)
{
    struct engine *engine = port->engine;
    sqe->user_data = op->token;
    sqe->fd = op->handle != NULL ? op->handle->fd : -1;
    if (op->phase == PHASE_POLL) {
        prepare_poll(sqe, op);
        return;
    }
    if (op->phase == PHASE_PAUSE) {
        prepare_timeout(sqe, op);
        return;
    }
    if (op->phase == PHASE_SELECT || op->phase == PHASE_AWAIT) {
        prepare_select(port, sqe, op);
        return;
    }
    if (op->phase == PHASE_ASYNC)
        sqe->flags |= URING_SQE_ASYNC;
    switch ((enum portio_kind)op->kind) {
    case PORTIO_ACCEPT:
        sqe->opcode = URING_ACCEPT;
        sqe->op_flags = SOCK_CLOEXEC;
        break;
    case PORTIO_CONNECT:
        sqe->opcode = URING_CONNECT;
        sqe->address = address_of(op->address);
        sqe->offset = *op->address_length;
        break;
    case PORTIO_RECV:
    case PORTIO_RECVFROM:
        prepare_message(sqe, op, false);
        /* Tried as it is submitted, it would overtake those that the kernel has put off; under
           load it does so again and again, and they wait ten times as long. */
        if (engine->defers && ring_has_work(&engine->ring))
            sqe->ioprio = URING_POLL_FIRST;
        break;
    case PORTIO_SEND:
    case PORTIO_SENDTO:
        prepare_message(sqe, op, true);
        break;
    case PORTIO_SHUTDOWN:
        sqe->opcode = URING_SHUTDOWN;
        sqe->length = (uint32_t)op->argument;
        break;
    case PORTIO_SENDFILE:
        prepare_sendfile(sqe, op);
        break;
    case PORTIO_READ:
        prepare_file(engine, sqe, op, false);
        break;
    case PORTIO_WRITE:
        prepare_file(engine, sqe, op, true);
        break;
    case PORTIO_SYNC:
        sqe->opcode = URING_FSYNC;
        sqe->op_flags = op->flags & PORTIO_DATA_ONLY ? URING_FSYNC_DATASYNC : 0;
        break;
    case PORTIO_TIMER:
        prepare_timeout(sqe, op);
        break;
    }
}

/* Under the lock of a shared port nobody may copy more than this. */
#define AT_ONCE_MOST (64u * 1024)

static bool send_at_once(struct op *op)
{
    int flags = transfer_message_flags(op) | MSG_DONTWAIT;
    int64_t result = send(op->handle->fd, op->buffer, transfer_length(op), flags);
    if (result >= 0)
        return transfer_advance(op, result) == TRANSFER_COMPLETE;
    if (errno == EAGAIN || errno == EINTR)
        return false; /* the ring waits, and goes on */
    transfer_advance(op, -errno);
    return true;
}

/* Whatever does not give all its bytes from the page cache is the ring's: the end of the
   file, errors, and a kernel or a file system without the flag. */
static bool read_at_once(struct op *op)
{
    struct handle *handle = op->handle;
    struct iovec vector = {.iov_base = op->buffer, .iov_len = (size_t)op->length};
    if (op->length > AT_ONCE_MOST ||
        !atomic_load_explicit(&handle->nowait[DIRECTION_READ], memory_order_relaxed))
        return false;
    int64_t result = abi_read_nowait(handle->fd, &vector, 1, op->argument);
    if (result < 0 && errno == EOPNOTSUPP)
        atomic_store_explicit(&handle->nowait[DIRECTION_READ], false, memory_order_relaxed);
    return result == (int64_t)op->length && transfer_advance(op, result) == TRANSFER_COMPLETE;
}

/* A quiet operation: most sends find room, and many reads the page cache, and then one
   system call does what a submission, a completion and a packet would.  True: it has
   ended. */
bool uring_do_at_once(portio_port *port, struct op *op)
{
    switch (op->kind) {
    case PORTIO_SEND:
        return (port->thread_bound || op->length <= AT_ONCE_MOST) && send_at_once(op);
    case PORTIO_READ:
        return read_at_once(op);
    default:
        return false;
    }
}

void uring_issue(portio_port *port, struct op *op)
{
    struct engine *engine = port->engine;
    /* Behind those that wait already, or order would be lost. */
    struct uring_sqe *sqe = engine->waiting == NULL ? ring_sqe(&engine->ring) : NULL;
    if (sqe == NULL) {
        atomic_store(&op->state, OP_QUEUED);
        op->waits = true;
        op->next_waiting = NULL;
        if (engine->waiting == NULL)
            engine->waiting = op;
        else
            engine->waiting_last->next_waiting = op;
        engine->waiting_last = op;
        return;
    }
    prepare(port, sqe, op);
    ring_push(&engine->ring);
    atomic_store(&op->state, OP_ISSUED);
}

void uring_issue_waiting(portio_port *port)
{
    struct engine *engine = port->engine;
    while (engine->waiting != NULL) {
        struct op *op = engine->waiting;
        if (!atomic_load(&op->cancel_wanted)) {
            struct uring_sqe *sqe = ring_sqe(&engine->ring);
            if (sqe == NULL)
                return;
            prepare(port, sqe, op);
            ring_push(&engine->ring);
            atomic_store(&op->state, OP_ISSUED);
        }
        engine->waiting = op->next_waiting;
        op->waits = false;
        if (atomic_load(&op->state) == OP_QUEUED) {
            op->error = ECANCELED;
            uring_finish(port, op);
        }
    }
    uring_cancel_owed(port);
}

bool uring_prepare_wake(portio_port *port)
{
    struct engine *engine = port->engine;
    struct uring_sqe *sqe = ring_sqe(&engine->ring);
    if (sqe == NULL)
        return false;
    sqe->opcode = URING_NOP;
    sqe->fd = -1;
    sqe->user_data = USER_WAKE;
    ring_push(&engine->ring);
    return true;
}

bool uring_prepare_poll(portio_port *port, int fd, uint64_t user_data)
{
    struct engine *engine = port->engine;
    struct uring_sqe *sqe = ring_sqe(&engine->ring);
    if (sqe == NULL)
        return false;
    sqe->opcode = URING_POLL_ADD;
    sqe->fd = fd;
    sqe->op_flags = POLLIN;
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    sqe->op_flags <<= 16;
#endif
    sqe->length = URING_POLL_MULTI;
    sqe->user_data = user_data;
    ring_push(&engine->ring);
    return true;
}
