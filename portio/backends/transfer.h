/* Progress of an operation that the system may carry out in several steps:
   whole transfers (O8), more than 2 GiB and more than IOV_MAX buffers (O11). */
#ifndef PORTIO_TRANSFER_H
#define PORTIO_TRANSFER_H

#include "handle.h"
#include "op_window.h"

/* MAX_RW_COUNT: the most that Linux moves in one call (read(2), NOTES). */
#define TRANSFER_MOST UINT64_C(0x7ffff000)
/* UIO_MAXIOV: the most vectors in one call; more is EINVAL (readv(2)). */
#define TRANSFER_VECTORS 1024

enum transfer_step {
    TRANSFER_COMPLETE, /* op->error and op->nbytes are the result */
    TRANSFER_AGAIN     /* issue the rest */
};

/* The buffers of the next system call. */
struct iovec *transfer_vectors(struct op *op, uint32_t *count);
/* The next call's length for an operation with one buffer. */
uint32_t transfer_length(const struct op *op);
/* Message flags for the next recv or send. */
int transfer_message_flags(const struct op *op);
/* The header of the next recvmsg or sendmsg, kept in the operation. */
struct msghdr *transfer_header(struct op *op);
/* What the system answered: bytes, or -errno. */
enum transfer_step transfer_advance(struct op *op, int64_t result);

#endif
