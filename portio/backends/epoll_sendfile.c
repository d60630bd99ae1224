/* SendFile: from the page cache to the socket, not through the program.

   sendfile(2) sleeps when the data is not in the page cache.  So the cache is
   asked first, with a read of one byte at either end of the next chunk; when it
   has both, the chunk goes out in this thread, and otherwise in a helper thread.
   There sendfile still does not wait for the socket, which is non-blocking: a
   full socket gives the operation back, to be waited for as any other. */
#include "epoll.h"
#include "linux_abi.h"

#include <errno.h>
#include <signal.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK_MOST ((uint64_t)1 << 20)
#define COPY_BLOCK ((size_t)64 << 10)

static uint64_t chunk_of(const struct op *op)
{
    return op->length < CHUNK_MOST ? op->length : CHUNK_MOST;
}

/* True: reading this byte of the source does not sleep: it is cached, or is
   beyond the end, or cannot be read at all. */
static bool byte_is_at_hand(const struct op *op, int64_t offset)
{
    char byte;
    struct iovec vector = {&byte, 1};
    int64_t result = abi_read_nowait((int)op->file, &vector, 1, offset);
    return result >= 0 || (errno != EAGAIN && errno != EOPNOTSUPP);
}

/* Guessed from both ends: the page cache is filled in stretches. */
static bool chunk_is_at_hand(const struct op *op)
{
    struct stat status;
    if (!byte_is_at_hand(op, op->argument) || fstat((int)op->file, &status) != 0)
        return false;
    uint64_t chunk = chunk_of(op);
    int64_t left = status.st_size - op->argument;
    if (left > 0 && (uint64_t)left < chunk)
        chunk = (uint64_t)left;
    return byte_is_at_hand(op, op->argument + (int64_t)chunk - 1);
}

/* One step was made: what it means for the operation. */
static enum attempt sendfile_settle(struct op *op, int64_t result)
{
    if (result > 0) {
        op->nbytes += result;
        op->argument += result;
        op->length -= (uint64_t)result;
        return op->length == 0 ? ATTEMPT_COMPLETE : ATTEMPT_PROGRESS;
    }
    if (result == 0)
        return ATTEMPT_COMPLETE; /* the source has ended */
    switch (errno) {
    case EAGAIN:
        return ATTEMPT_BLOCKED;
    case EINTR:
        return ATTEMPT_PROGRESS;
    case EINVAL: /* a source without a page cache, says sendfile(2), */
    case ENOSYS: /* or a system call filter */
        if (op->phase != PHASE_COPYING) {
            op->phase = PHASE_COPYING;
            return ATTEMPT_PROGRESS;
        }
        break;
    default:
        break;
    }
    op->error = errno;
    return ATTEMPT_COMPLETE;
}

static enum attempt sendfile_step(struct op *op)
{
    off_t offset = op->argument;
    struct sigpipe_guard guard;
    sigpipe_begin(&guard); /* sendfile has no MSG_NOSIGNAL */
    int64_t result = sendfile(op->handle->fd, (int)op->file, &offset, chunk_of(op));
    sigpipe_end(&guard, result < 0 && errno == EPIPE);
    return sendfile_settle(op, result);
}

/* Sends a block that was read; what the socket does not take is read again. */
static enum attempt copy_step(struct op *op)
{
    char block[COPY_BLOCK];
    size_t most = op->length < sizeof block ? (size_t)op->length : sizeof block;
    ssize_t filled = pread((int)op->file, block, most, op->argument);
    if (filled < 0 && errno == EAGAIN) {
        op->error = EAGAIN; /* the source's, not the socket's: nothing to wait for */
        return ATTEMPT_COMPLETE;
    }
    if (filled <= 0)
        return sendfile_settle(op, filled);
    enum attempt result = ATTEMPT_PROGRESS;
    for (ssize_t sent = 0; sent < filled && result == ATTEMPT_PROGRESS;) {
        ssize_t step = send(op->handle->fd, block + sent, (size_t)(filled - sent),
                            MSG_DONTWAIT | MSG_NOSIGNAL);
        result = sendfile_settle(op, step);
        sent += step > 0 ? step : 0;
    }
    return result;
}

enum attempt sendfile_attempt(struct engine *engine, struct handle *handle, struct op *op)
{
    if (op->length == 0)
        return ATTEMPT_COMPLETE;
    if (!epoll_has(engine->features, FEATURE_SENDFILE))
        op->phase = PHASE_COPYING;
    handle_make_nonblocking(handle);
    if (op->phase == PHASE_COPYING || !epoll_has(engine->features, FEATURE_NOWAIT))
        return ATTEMPT_HELP;
    return chunk_is_at_hand(op) ? sendfile_step(op) : ATTEMPT_HELP;
}

enum attempt sendfile_help(struct op *op)
{
    enum attempt result;
    do {
        if (atomic_load(&op->cancel_wanted) || handle_use_ended(op->handle)) {
            op->error = ECANCELED;
            return ATTEMPT_COMPLETE;
        }
        result = op->phase == PHASE_COPYING ? copy_step(op) : sendfile_step(op);
    } while (result == ATTEMPT_PROGRESS);
    return result;
}
