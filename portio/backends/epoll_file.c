/* Operations on regular files and block devices.  epoll knows nothing of them:
   they are always "ready", and may sleep all the same.  So the starter asks for
   what can be done without sleeping (RWF_NOWAIT), and a helper thread does the
   rest.  Operations of one file run in parallel, in no order. */
#include "epoll.h"
#include "linux_abi.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

/* More than this is not copied in the starter's thread, cached or not. */
#define INLINE_MOST (UINT64_C(2) << 20)
/* Helper threads look for a cancellation between two steps of this size. */
#define STEP_MOST ((size_t)16 << 20)

void file_open(struct engine *engine, struct handle *handle)
{
    bool nowait = epoll_has(engine->features, FEATURE_NOWAIT);
    int flags = fcntl(handle->fd, F_GETFL);
    /* Without the page cache in between, RWF_NOWAIT avoids locks but waits for
       the device; and so does the sync at the end of an O_SYNC write. */
    bool direct = flags >= 0 && (flags & O_DIRECT) != 0;
    bool syncs = flags >= 0 && (flags & (O_SYNC | O_DSYNC)) != 0;
    atomic_store(&handle->nowait[DIRECTION_READ], nowait && !direct);
    atomic_store(&handle->nowait[DIRECTION_WRITE], nowait && !direct && !syncs);
    /* tmpfs does not take RWF_NOWAIT (seen in 6.18), and does not need it. */
    struct statfs system;
    handle->in_memory = nowait && fstatfs(handle->fd, &system) == 0 &&
                        (system.f_type == TMPFS_MAGIC || system.f_type == RAMFS_MAGIC);
}

static bool file_is_short(const struct op *op)
{
    if (!(op->flags & PORTIO_VECTORED))
        return op->length <= INLINE_MOST;
    const portio_vector *vectors = op->buffer;
    uint64_t bytes = 0;
    for (uint64_t at = 0; at < op->length && bytes <= INLINE_MOST; at++)
        bytes += vectors[at].length;
    return bytes <= INLINE_MOST;
}

/* Linux 5.9 and 5.10 may say 0 to RWF_NOWAIT where the file has not ended
   (preadv2(2), BUGS). */
static bool file_has_ended(const struct op *op)
{
    struct stat status;
    bool empty = !(op->flags & PORTIO_VECTORED) && op->length == 0;
    return empty || (fstat(op->handle->fd, &status) == 0 && S_ISREG(status.st_mode) &&
                     op->argument >= status.st_size);
}

/* True: complete. */
static bool file_attempt(struct engine *engine, struct op *op)
{
    struct handle *handle = op->handle;
    enum direction direction = op_direction(op);
    while (atomic_load_explicit(&handle->nowait[direction], memory_order_relaxed)) {
        uint32_t count;
        struct iovec *vectors = transfer_vectors(op, &count);
        int64_t result =
            direction == DIRECTION_READ
                ? abi_read_nowait(handle->fd, vectors, count, op->argument)
                : nowait_write(engine, handle->fd, vectors, count, op->argument);
        if (result < 0) {
            switch (errno) {
            case EINTR:
                continue;
            case EAGAIN: /* not in the cache, or a lock is held */
                return false;
            case EOPNOTSUPP: /* not this file system; ext4 cannot for writes */
                atomic_store_explicit(&handle->nowait[direction], false, memory_order_relaxed);
                return false;
            default:
                return transfer_advance(op, -errno) == TRANSFER_COMPLETE;
            }
        }
        if (result == 0 && direction == DIRECTION_READ && !file_has_ended(op))
            return false;
        if (transfer_advance(op, result) == TRANSFER_COMPLETE)
            return true;
    }
    return false;
}

static bool file_begin(struct engine *engine, struct op *op)
{
    switch (op->kind) {
    case PORTIO_READ:
    case PORTIO_WRITE:
        transfer_begin(op);
        if (!file_is_short(op))
            return false;
        break;
    case PORTIO_SYNC:
        break;
    default:
        op->error = ENOTSOCK; /* as the system would say */
        return true;
    }
    if (op->handle->in_memory) {
        file_help(op);
        return true;
    }
    return op->kind != PORTIO_SYNC && file_attempt(engine, op);
}

void file_start(portio_port *port, struct op *op)
{
    struct handle *handle = op->handle;
    atomic_store_explicit(&op->state, OP_ISSUED, memory_order_relaxed);
    bool complete = false;
    bool cancelled = !handle_use_begin(handle);
    if (!cancelled) {
        cancelled = atomic_load(&op->cancel_wanted);
        if (!cancelled)
            complete = file_begin(port->engine, op);
        handle_use_end(handle);
    }
    if (!complete && (cancelled || !helpers_give(port, op))) {
        op->error = ECANCELED;
        complete = true;
    }
    if (complete)
        port_complete(port, op);
}

static int64_t file_step(struct op *op)
{
    int fd = op->handle->fd;
    if (op->kind == PORTIO_SYNC)
        return op->flags & PORTIO_DATA_ONLY ? fdatasync(fd) : fsync(fd);
    uint32_t count;
    struct iovec *vectors = transfer_vectors(op, &count);
    if (count == 1 && !(op->flags & PORTIO_VECTORED) && vectors->iov_len > STEP_MOST)
        vectors->iov_len = STEP_MOST;
    /* A device without poll: its calls may sleep, and have no offset. */
    if (op->handle->type != PORTIO_FILE)
        return op->kind == PORTIO_READ ? readv(fd, vectors, (int)count)
                                       : writev(fd, vectors, (int)count);
    return op->kind == PORTIO_READ ? preadv(fd, vectors, (int)count, op->argument)
                                   : pwritev(fd, vectors, (int)count, op->argument);
}

void file_help(struct op *op)
{
    int64_t result;
    do {
        /* What was moved so far is told with the cancellation. */
        if (atomic_load(&op->cancel_wanted) || handle_use_ended(op->handle)) {
            op->error = ECANCELED;
            return;
        }
        result = file_step(op);
        if (result < 0)
            result = -errno;
    } while (result == -EINTR || transfer_advance(op, result) == TRANSFER_AGAIN);
}
