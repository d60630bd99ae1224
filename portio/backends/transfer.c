#include "transfer.h"

#include <errno.h>
#include <string.h>

_Static_assert(sizeof(struct iovec) == sizeof(portio_vector), "a vector is an iovec");
_Static_assert(offsetof(struct iovec, iov_base) == offsetof(portio_vector, base), "iov_base");
_Static_assert(offsetof(struct iovec, iov_len) == offsetof(portio_vector, length), "iov_len");

struct iovec *transfer_vectors(struct op *op, uint32_t *count)
{
    if (op->flags & PORTIO_VECTORED) {
        *count = op->length < TRANSFER_VECTORS ? (uint32_t)op->length : TRANSFER_VECTORS;
        return op->buffer;
    }
    op->u.message.one.iov_base = op->buffer;
    op->u.message.one.iov_len = op->length;
    *count = 1;
    return &op->u.message.one;
}

uint32_t transfer_length(const struct op *op)
{
    return (uint32_t)(op->length < TRANSFER_MOST ? op->length : TRANSFER_MOST);
}

int transfer_message_flags(const struct op *op)
{
    int flags = (int)op->argument | MSG_NOSIGNAL;
    bool receives = op_direction(op) == DIRECTION_READ;
    /* With MSG_TRUNC the result is the datagram's real length, which tells that
       it did not fit (O12).  On a stream the flag would throw data away. */
    if (receives && op->handle->type == PORTIO_DATAGRAM_SOCKET)
        flags |= MSG_TRUNC;
    return flags;
}

struct msghdr *transfer_header(struct op *op)
{
    struct msghdr *header = &op->u.message.header;
    uint32_t count;
    memset(header, 0, sizeof *header);
    header->msg_iov = transfer_vectors(op, &count);
    header->msg_iovlen = count;
    if (op->address != NULL) {
        header->msg_name = op->address;
        header->msg_namelen = *op->address_length;
    }
    return header;
}

static bool op_moves_everything(const struct op *op)
{
    switch (op->kind) {
    case PORTIO_SEND:
        return op->handle->type == PORTIO_STREAM_SOCKET;
    case PORTIO_WRITE:
        return true;
    case PORTIO_READ:
        return op->handle->type == PORTIO_FILE;
    case PORTIO_RECV:
        /* The flag of one call does not outlast a call that would block. */
        return op->handle->type == PORTIO_STREAM_SOCKET &&
               (op->argument & (MSG_WAITALL | MSG_PEEK | MSG_OOB)) == MSG_WAITALL;
    default:
        return false;
    }
}

enum transfer_step transfer_advance(struct op *op, int64_t result)
{
    if (result < 0) {
        op->error = (int32_t)-result;
        return TRANSFER_COMPLETE;
    }
    switch (op->kind) {
    case PORTIO_ACCEPT:
        op->nbytes = result;
        return TRANSFER_COMPLETE;
    case PORTIO_RECVFROM:
    case PORTIO_RECV:
        if (op_moves_everything(op))
            break;
        if (op->address != NULL)
            *op->address_length = op->u.message.header.msg_namelen;
        op->nbytes = result;
        if (op->handle->type == PORTIO_DATAGRAM_SOCKET) {
            uint64_t room = transfer_room(op);
            if ((uint64_t)result > room) {
                op->nbytes = (int64_t)room;
                op->error = EMSGSIZE;
            }
        }
        return TRANSFER_COMPLETE;
    default:
        break;
    }
    op->nbytes += result;
    if (!op_moves_everything(op))
        return TRANSFER_COMPLETE;
    if (transfer_consume(op, (uint64_t)result))
        return TRANSFER_COMPLETE;
    if (result == 0) {
        /* A read at the end of the file is short (O8).  A write that moves
           nothing, without an error, has no reason that a retry could mend. */
        if (op_direction(op) == DIRECTION_WRITE)
            op->error = EIO;
        return TRANSFER_COMPLETE;
    }
    if (op->handle->type == PORTIO_FILE)
        op->argument += result; /* the offset */
    return TRANSFER_AGAIN;
}
