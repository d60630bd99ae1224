/* The io_uring engine: Linux' own completion queue behind engine.h.

   A shared port has a ring that every thread may submit to.  The thread that has
   submitted a request runs the rest of it when it is in the kernel next, for a call,
   an interrupt or the tick of its clock, and completions appear for all (COOP_TASKRUN,
   since 5.19; before, the kernel interrupts that thread at once).  A thread-bound port
   has a SINGLE_ISSUER | DEFER_TASKRUN ring where the kernel offers it (6.1): completions
   are made when the owner waits for them. */
#include "io_uring.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define DEFAULT_SUBMISSIONS 256
#define DEFAULT_COMPLETIONS 4096
#define RING_ATTEMPTS 50 /* a hundredth of a second apart */

/* ---- life ---- */

static bool has(uint64_t features, enum uring_feature feature)
{
    return (features >> feature & 1) != 0;
}

static uint32_t setup_flags(const portio_port *port, uint64_t features)
{
    uint32_t flags = has(features, FEATURE_SUBMIT_ALL) ? URING_SETUP_SUBMIT_ALL : 0;
    if (!port->thread_bound)
        /* Without the flag that says who has work: it would be another thread's. */
        return has(features, FEATURE_COOP_TASKRUN) ? flags | URING_SETUP_COOP_TASKRUN : flags;
    if (has(features, FEATURE_SINGLE_ISSUER))
        flags |= URING_SETUP_SINGLE_ISSUER;
    if (has(features, FEATURE_DEFER_TASKRUN))
        flags |= URING_SETUP_DEFER_TASKRUN | URING_SETUP_TASKRUN_FLAG;
    else if (has(features, FEATURE_COOP_TASKRUN))
        flags |= URING_SETUP_COOP_TASKRUN | URING_SETUP_TASKRUN_FLAG;
    return flags;
}

/* The kernel frees a closed ring some time later, in a thread of its own.  The
   registered write end of a pipe is freed with it, so the read end tells when. */
static int sentinel_open(struct engine *engine)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        return -errno;
    int error = ring_register(&engine->ring, URING_REGISTER_FILES, &ends[1], 1);
    close(ends[1]);
    if (error < 0) {
        close(ends[0]);
        return error;
    }
    engine->sentinel = ends[0];
    return 0;
}

static int engine_open_system(portio_port *port, struct engine *engine,
                              const portio_options *options)
{
    uint64_t features = uring_features(options);
    uint32_t submissions = options->submission_entries;
    uint32_t completions = options->completion_entries;
    if (submissions == 0)
        submissions = DEFAULT_SUBMISSIONS;
    if (completions == 0)
        completions = DEFAULT_COMPLETIONS;
    if (completions < submissions)
        completions = submissions; /* else EINVAL */
    uint32_t flags = setup_flags(port, features);
    int error = ring_open(&engine->ring, submissions, completions, flags);
    /* The rings count as locked memory, which users without privileges may have
       little of (RLIMIT_MEMLOCK); a small ring works as well, only slower. */
    while (error == -ENOMEM && options->submission_entries == 0 &&
           options->completion_entries == 0 && submissions > 16) {
        submissions /= 4;
        completions /= 8;
        error = ring_open(&engine->ring, submissions, completions, flags);
    }
    /* The kernel gives the memory of closed rings back some time later. */
    for (int attempt = 0; error == -ENOMEM && attempt < RING_ATTEMPTS; attempt++) {
        nanosleep(&(struct timespec){0, 10000000}, NULL);
        error = ring_open(&engine->ring, submissions, completions, flags);
    }
    if (error != 0)
        return error;
    engine->defers = (engine->ring.setup_flags & URING_SETUP_DEFER_TASKRUN) != 0;
    if (has(features, FEATURE_NO_IOWAIT))
        engine->enter_flags = URING_ENTER_NO_IOWAIT;
    engine->registers = has(features, FEATURE_REGISTERED_BUFFERS);
    engine->groups_wanted = has(features, FEATURE_BUFFER_RINGS);
    engine->streams = has(features, FEATURE_MULTISHOT_RECEIVE);
    if (!port->thread_bound)
        return 0;
    engine->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (engine->wake_fd < 0)
        return -errno;
    return engine->ring.setup_flags & URING_SETUP_SINGLE_ISSUER ? sentinel_open(engine) : 0;
}

static void engine_free(struct engine *engine)
{
    groups_close(engine);
    ring_close(&engine->ring);
    free(engine->regions);
    int descriptors[] = {engine->wake_fd, atomic_load(&engine->notify_fd), engine->sentinel};
    for (size_t at = 0; at < sizeof descriptors / sizeof *descriptors; at++)
        if (descriptors[at] >= 0)
            close(descriptors[at]);
    free(engine);
}

int engine_open(portio_port *port, const portio_options *options)
{
    struct engine *engine = calloc(1, sizeof *engine);
    if (engine == NULL)
        return PORTIO_NO_MEMORY;
    engine->ring.fd = engine->wake_fd = engine->sentinel = -1;
    atomic_store(&engine->notify_fd, -1);
    atomic_store(&engine->interrupt_fd, -1);
    int error = engine_open_system(port, engine, options);
    if (error != 0) {
        engine_free(engine);
        return PORTIO_SYSTEM + error;
    }
    port->engine = engine;
    uring_enlist(engine);
    return 0;
}

void engine_close(portio_port *port)
{
    uring_delist(port->engine);
    engine_free(port->engine);
    port->engine = NULL;
}

bool engine_adopt(portio_port *port)
{
    struct engine *engine = port->engine;
    if (!(engine->ring.setup_flags & URING_SETUP_SINGLE_ISSUER))
        return true;
    /* Nobody but the owner may enter this ring.  Completed accepts that are in
       it already are brought out, so that their sockets can be closed; closing
       the ring cancels the rest. */
    engine_harvest(port);
    int sentinel = engine->sentinel;
    uring_delist(engine);
    engine->sentinel = -1;
    engine_free(engine);
    port->engine = NULL;
    struct pollfd end = {.fd = sentinel, .events = POLLIN};
    while (poll(&end, 1, -1) < 0 && errno == EINTR)
        continue;
    close(sentinel);
    return false;
}

/* ---- handles ---- */

int engine_handle_open(portio_port *port, struct handle *handle)
{
    (void)port; /* a ring takes any descriptor as it is */
    int flags = handle->type == PORTIO_FILE ? fcntl(handle->fd, F_GETFL) : -1;
    /* Past the page cache RWF_NOWAIT would wait for the device. */
    atomic_store(&handle->nowait[DIRECTION_READ], flags >= 0 && (flags & O_DIRECT) == 0);
    return 0;
}

void engine_handle_release(portio_port *port, struct handle *handle)
{
    (void)port;
    (void)handle;
}

static struct op *find_cancellable(const struct op_list *queue, enum op_state state)
{
    for (struct op *op = queue->head; op != NULL; op = op->next)
        if (atomic_load(&op->state) == (uint8_t)state && !op->waits &&
            (state == OP_QUEUED || !atomic_load(&op->cancel_wanted)))
            return op;
    return NULL;
}

/* A listener has no peer that waits for the end, and shutting it down would end
   it for everybody who shares it, like the workers of a forking server. */
static bool is_listener(int fd)
{
    int listens = 0;
    socklen_t length = sizeof listens;
    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &length) == 0 && listens != 0;
}

void engine_handle_close(portio_port *port, struct handle *handle, bool close_it)
{
    bool in_kernel = false;
    port_lock(port);
    handle->closing = true;
    struct op *between = handle->between;
    if (between != NULL && uring_has(between)) {
        in_kernel = true;
        atomic_store(&between->cancel_wanted, true);
        uring_cancel(port, between);
    }
    for (int direction = 0; direction < 2; direction++) {
        struct op_list *queue = &handle->queue[direction];
        struct op *op;
        for (op = queue->head; op != NULL; op = op->next) {
            in_kernel |= atomic_load(&op->state) == OP_ISSUED;
            if (op->waits)
                atomic_store(&op->cancel_wanted, true);
        }
        while ((op = find_cancellable(queue, OP_QUEUED)) != NULL) {
            op->error = ECANCELED;
            uring_finish(port, op);
        }
        while ((op = find_cancellable(queue, OP_ISSUED)) != NULL) {
            atomic_store(&op->cancel_wanted, true);
            uring_cancel(port, op);
        }
    }
    port_balance(port);
    port_unlock(port);
    engine_flush(port);
    /* Of an accepted socket no object of Python's knows whether its number is still its own. */
    if (!close_it || (handle->accepted && !handle_is_same(handle)))
        return;
    struct engine *engine = port->engine;
    if (engine->defers && in_kernel) /* let the cancelled requests drop the file now */
        ring_enter(&engine->ring, 0, 0, URING_ENTER_GETEVENTS, -1);
    /* A request that is still in the kernel keeps the socket open, so the peer
       would see no end (K5): say it explicitly.  Errors: it is not connected. */
    if (in_kernel && handle->type == PORTIO_STREAM_SOCKET &&
        (handle->accepted || !is_listener(handle->fd)))
        (void)shutdown(handle->fd, SHUT_RDWR);
    /* The kernel may have refused the flush for want of memory: submissions that
       name the number have to be consumed before it can be another file's. */
    while (ring_unsubmitted(&engine->ring) > 0) {
        ring_enter(&engine->ring, 0, 1, URING_ENTER_GETEVENTS, 1000000);
        engine_flush(port);
    }
    close(handle->fd);
}

/* ---- operations ---- */

static void timer_begin(struct op *op)
{
    int64_t now = monotonic_now();
    uring_time_set(op, op->argument < INT64_MAX - now ? now + op->argument : INT64_MAX);
}

static int operation_prepare(portio_port *port, struct op *op)
{
    switch ((enum portio_kind)op->kind) {
    case PORTIO_TIMER:
        timer_begin(op);
        break;
    case PORTIO_SENDFILE:
        op->phase = PHASE_FILL;
        if (lseek((int)op->file, 0, SEEK_CUR) < 0)
            return errno; /* ESPIPE: no file; the kernel would ignore the offset */
        op->u.sendfile.block = malloc(SENDFILE_BLOCK);
        if (op->u.sendfile.block == NULL)
            return ENOMEM;
        break;
    default:
        transfer_begin(op);
        /* A receive with a pool is lent a buffer when there is data, and not before: by
           the kernel, or else by us, when a poll has told. */
        if (op_is_pooled(op))
            op->phase = group_serves(port->engine, op->pool) ? PHASE_SELECT : PHASE_POLL;
        else
            op->phase = op_is_readiness_probe(op) ? PHASE_POLL : PHASE_DIRECT;
        break;
    }
    return 0;
}

void engine_start(portio_port *port, struct op *op)
{
    struct handle *handle = op->handle;
    port_lock(port);
    int error = op->error; /* of a turn whose handle is not what it was */
    if (op->kind == PORTIO_SENDFILE)
        op->u.sendfile.block = NULL;
    if (error == 0 && (atomic_load(&op->cancel_wanted) || (handle != NULL && handle->closing) ||
                       atomic_load(&port->closing)))
        error = ECANCELED;
    if (error == 0)
        error = operation_prepare(port, op);
    bool first = true;
    if (handle != NULL) {
        enum direction direction = op_direction(op);
        order_enter(handle, op);
        first = handle->queue[direction].head == op && !order_is_held(handle, direction);
    }
    if (stream_resume(port, op, error)) {
        port_balance(port);
    } else if (error != 0) {
        op->error = error;
        uring_finish(port, op);
        port_balance(port);
    } else if (first || !op_is_ordered(op)) {
        if (op->starting && uring_do_at_once(port, op)) {
            uring_finish(port, op);
            port_balance(port); /* a failure gives a packet */
        } else {
            uring_issue(port, op);
        }
    } else {
        atomic_store(&op->state, OP_QUEUED);
    }
    port_unlock(port);
}

void engine_cancel(portio_port *port, struct op *op, uint64_t token)
{
    port_lock(port);
    if (op->token == token) {
        enum op_state state = (enum op_state)atomic_load(&op->state);
        if (state == OP_QUEUED && !op->waits) {
            op->error = ECANCELED;
            uring_finish(port, op);
            port_balance(port);
        } else if (uring_has(op)) {
            uring_cancel(port, op);
        }
        /* OP_STARTING and those that wait for room look at cancel_wanted. */
    }
    port_unlock(port);
}

/* Submits everything.  What the kernel refuses for want of room or memory stays
   in the ring, is tried again after making room, and at the latest by the next
   wait: nothing is lost, nothing spins. */
void engine_flush(portio_port *port)
{
    struct engine *engine = port->engine;
    int refusals = 0;
    for (;;) {
        if (uring_is_behind(engine) || refusals > 0) {
            port_lock(port);
            uring_issue_waiting(port);
            port_balance(port);
            port_unlock(port);
        }
        uint32_t count = ring_unsubmitted(&engine->ring);
        if (count == 0)
            return;
        int result = ring_enter(&engine->ring, count, 0, 0, -1);
        if (result > 0 || result == -EINTR)
            continue;
        /* 0: another thread has submitted them.  EBUSY: the kernel keeps
           completions that found no place; EAGAIN, ENOMEM: no memory now. */
        if (result == 0 && ring_unsubmitted(&engine->ring) == 0)
            continue;
        if (++refusals > 4) {
            port_lock(port);
            port_wake_reaper(port);
            port_unlock(port);
            return;
        }
        port_lock(port);
        engine_harvest(port);
        port_balance(port);
        port_unlock(port);
        ring_enter(&engine->ring, 0, 0, URING_ENTER_GETEVENTS, -1);
    }
}

/* ---- waiting ---- */

static bool engine_poll(struct engine *engine)
{
    uint32_t count = ring_unsubmitted(&engine->ring);
    if (count > 0 || ring_wants_enter(&engine->ring) || ring_is_silent(&engine->ring))
        ring_enter(&engine->ring, count, 0, URING_ENTER_GETEVENTS, -1);
    return true;
}

/* Mail for the owner must end its sleep in engine_wait. */
static void wake_arm(portio_port *port)
{
    struct engine *engine = port->engine;
    if (!port->thread_bound || engine->wake_armed)
        return;
    bool prepared = uring_prepare_poll(port, engine->wake_fd, USER_WAKE_POLL);
    if (!prepared) {
        engine_flush(port);
        prepared = uring_prepare_poll(port, engine->wake_fd, USER_WAKE_POLL);
    }
    engine->wake_armed = prepared;
}

bool engine_wait(portio_port *port, int64_t deadline)
{
    struct engine *engine = port->engine;
    atomic_store(&engine->finished, false);
    if (uring_is_behind(engine))
        engine_flush(port);
    wake_arm(port);
    uring_watch_interrupts(port);
    /* What these have ended may be what this thread waits for. */
    if (atomic_load(&engine->finished))
        deadline = DEADLINE_POLL;
    if (deadline == DEADLINE_POLL)
        return engine_poll(engine);
    int64_t timeout = -1;
    if (deadline != DEADLINE_NEVER) {
        timeout = deadline - monotonic_now();
        if (timeout <= 0)
            return engine_poll(engine);
    }
    uint32_t count = ring_unsubmitted(&engine->ring);
    int result = ring_enter(&engine->ring, count, 1, URING_ENTER_GETEVENTS | engine->enter_flags,
                            timeout);
    if (result == -EINTR)
        return false;
    if (result == -EBUSY || result == -EAGAIN || result == -ENOMEM) {
        /* The submissions were refused; the completions that make room are
           waited for without them. */
        result = ring_enter(&engine->ring, 0, ring_has_completions(&engine->ring) ? 0 : 1,
                            URING_ENTER_GETEVENTS | engine->enter_flags,
                            timeout < 0 || timeout > 1000000 ? 1000000 : timeout);
        return result != -EINTR;
    }
    /* A call that submitted something says so instead of EINTR: without a
       completion a signal is the likely reason.  The caller comes back. */
    return !(result > 0 && !ring_has_completions(&engine->ring));
}

void engine_wake(portio_port *port)
{
    struct engine *engine = port->engine;
    if (port->thread_bound) {
        uint64_t one = 1;
        (void)!write(engine->wake_fd, &one, sizeof one); /* EAGAIN: it is full, so awake */
        /* An owner that sleeps in an event loop is woken directly: Linux 6.18 loses
           the signal of a ring's registered eventfd when the event behind it is a
           write to an eventfd (nested signals are put off, and once only). */
        int notify_fd = atomic_load(&engine->notify_fd);
        if (notify_fd >= 0)
            (void)!write(notify_fd, &one, sizeof one);
        return;
    }
    /* A NOP, whose completion ends the wait.  When the ring is full, what is in
       there goes first. */
    bool prepared = false;
    do {
        prepared = uring_prepare_wake(port);
        uint32_t count = ring_unsubmitted(&engine->ring);
        int result = ring_enter(&engine->ring, count, 0, 0, -1);
        if (result < 0 && result != -EINTR)
            return; /* completions without a place: then nobody sleeps */
    } while (!prepared || ring_unsubmitted(&engine->ring) > 0);
}

/* ---- the descriptor of portio_fileno ---- */

int engine_fileno(portio_port *port)
{
    struct engine *engine = port->engine;
    if (engine->notify_fd >= 0)
        return engine->notify_fd;
    int descriptor = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (descriptor < 0)
        return PORTIO_SYSTEM - errno;
    /* Not the variant for asynchronous completions only: it misses others. */
    int error = ring_register(&engine->ring, URING_REGISTER_EVENTFD, &descriptor, 1);
    if (error < 0) {
        close(descriptor);
        return PORTIO_SYSTEM + error;
    }
    atomic_store(&engine->notify_fd, descriptor);
    return descriptor;
}

void engine_notify(portio_port *port)
{
    uint64_t one = 1;
    struct engine *engine = port->engine;
    (void)!write(engine->notify_fd, &one, sizeof one);
}

void engine_unnotify(portio_port *port)
{
    uint64_t count;
    struct engine *engine = port->engine;
    (void)!read(engine->notify_fd, &count, sizeof count);
    /* What arrived before the read has lost its signal; the caller looks into
       the ring, but deferred work shows only here. */
    if (ring_wants_enter(&engine->ring))
        engine_notify(port);
}
