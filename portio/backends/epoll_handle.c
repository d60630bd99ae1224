/* A handle in the epoll set: its two queues, its events, its end. */
#include "epoll.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

/* Always reported are EPOLLERR and EPOLLHUP.  EPOLLPRI, because a receive stops
   short at urgent data.  EPOLLOUT is asked for when a write has found no room:
   every fresh socket is writable, and the event that says so wakes for nothing. */
#define EVENTS_AT_FIRST (EPOLLIN | EPOLLRDHUP | EPOLLPRI | EPOLLET)
#define EVENTS_READ (EPOLLIN | EPOLLRDHUP | EPOLLPRI | EPOLLERR | EPOLLHUP)
#define EVENTS_WRITE (EPOLLOUT | EPOLLERR | EPOLLHUP)
/* After these a short receive may be followed by more: the end, an error, or
   the data behind the urgent mark, for which there is no new edge. */
#define EVENTS_OF_AN_END (EPOLLRDHUP | EPOLLPRI | EPOLLERR | EPOLLHUP)

/* The first wait when no event will tell, doubled each time. */
#define LATER_FIRST INT64_C(1000000)
#define LATER_DOUBLINGS 6

/* ---- uses of the descriptor without the handle's lock ---- */

bool handle_use_begin(struct handle *handle)
{
    uint32_t uses = atomic_load_explicit(&handle->uses, memory_order_relaxed);
    do {
        if (uses & USES_ENDED)
            return false;
    } while (!atomic_compare_exchange_weak(&handle->uses, &uses, uses + 1));
    return true;
}

void handle_use_end(struct handle *handle)
{
    int fd = handle->fd; /* while this use still keeps it */
    uint32_t former = atomic_fetch_sub(&handle->uses, 1);
    if ((former & USES_CLOSE) && (former & USES_COUNT) == 1)
        close(fd); /* EINTR: it is closed all the same (close(2)) */
}

bool handle_use_ended(struct handle *handle)
{
    return (atomic_load(&handle->uses) & USES_ENDED) != 0;
}

/* ---- the open file's flags ---- */

void handle_make_nonblocking(struct handle *handle)
{
    if (handle->original_flags >= 0)
        return;
    int flags = fcntl(handle->fd, F_GETFL);
    if (flags < 0)
        return; /* it is closed: the call that follows says so */
    handle->original_flags = flags;
    if (!(flags & O_NONBLOCK))
        fcntl(handle->fd, F_SETFL, flags | O_NONBLOCK);
}

static void handle_restore_flags(struct handle *handle)
{
    if (handle->original_flags < 0 || (handle->original_flags & O_NONBLOCK))
        return;
    int flags = fcntl(handle->fd, F_GETFL);
    if (flags >= 0) /* the other flags may have been changed meanwhile */
        fcntl(handle->fd, F_SETFL, flags & ~O_NONBLOCK);
}

/* ---- the list of handles whose edge was not used up ---- */

/* The port's lock is held. */
static void unfinished_add_locked(portio_port *port, struct handle *handle)
{
    struct engine *engine = port->engine;
    if (!handle->unfinished) {
        handle->unfinished = true;
        handle->next_unfinished = NULL;
        handle->previous_unfinished = engine->unfinished_last;
        if (engine->unfinished_last != NULL)
            engine->unfinished_last->next_unfinished = handle;
        else
            engine->unfinished = handle;
        engine->unfinished_last = handle;
        engine->unfinished_count++;
        /* The reaper may be asleep, with no event to come; and the descriptor of
           portio_fileno has to be readable (tell_unfinished). */
        if (!port->thread_bound || engine->notify >= 0)
            engine_wake(port);
    }
}

static void unfinished_add(portio_port *port, struct handle *handle)
{
    port_lock(port);
    unfinished_add_locked(port, handle);
    port_unlock(port);
}

/* Its handle is still `ready`, so the next visit attempts it again.  It is not attempted
   here, because this may happen under another handle's lock. */
void engine_lend(portio_port *port, struct op *op)
{
    unfinished_add_locked(port, op->handle);
}

/* The port's lock is held. */
static void unfinished_remove(struct engine *engine, struct handle *handle)
{
    if (!handle->unfinished)
        return;
    handle->unfinished = false;
    struct handle *next = handle->next_unfinished, *previous = handle->previous_unfinished;
    if (previous != NULL)
        previous->next_unfinished = next;
    else
        engine->unfinished = next;
    if (next != NULL)
        next->previous_unfinished = previous;
    else
        engine->unfinished_last = previous;
    engine->unfinished_count--;
}

/* ---- carrying operations forward; the handle's lock is held ---- */

/* Takes an operation that is not among the helpers off its handle. */
static void operation_finish(portio_port *port, struct handle *handle, struct op *op)
{
    order_leave(handle, op);
    port_complete(port, op);
}

static void operation_fail(portio_port *port, struct handle *handle, struct op *op, int error)
{
    op->error = error;
    operation_finish(port, handle, op);
}

/* After EAGAIN: has an edge to come.  EPOLL_CTL_MOD looks at the descriptor
   anew, so room that came since the EAGAIN is not missed.  0 or an errno. */
static int handle_watch(struct engine *engine, struct handle *handle, enum direction direction)
{
    if (direction == DIRECTION_WRITE && !(handle->events & EPOLLOUT)) {
        struct epoll_event event = {.events = handle->events | EPOLLOUT};
        event.data.u64 = handle->event_id;
        if (epoll_ctl(engine->set, EPOLL_CTL_MOD, handle->fd, &event) != 0)
            return errno == ENOENT ? EBADF : errno; /* closed behind our back */
        handle->events = event.events;
    }
    handle->ready[direction] = false;
    return 0;
}

static int operation_wait_a_while(portio_port *port, struct handle *handle, struct op *op)
{
    int doublings = op->retries < LATER_DOUBLINGS ? op->retries++ : LATER_DOUBLINGS;
    op->u.timer.deadline = timers_after(LATER_FIRST << doublings);
    op->u.timer.handle = handle->event_id;
    return timers_add(port, op);
}

static void operation_give(portio_port *port, struct handle *handle, struct op *op)
{
    /* An edge that comes while the helper finds the socket full is remembered
       in `ready`, and read when the operation is back. */
    int error = handle->events == 0 ? 0 : handle_watch(port->engine, handle, op_direction(op));
    if (error == 0) {
        atomic_store_explicit(&op->state, OP_ISSUED, memory_order_relaxed);
        if (helpers_give(port, op))
            return;
        error = ECANCELED;
    }
    operation_fail(port, handle, op, error);
}

/* One attempt at a receive with a buffer of its pool, which it keeps only if there was
   something to receive. */
static enum attempt receive_attempt(portio_port *port, struct handle *handle, struct op *op)
{
    port_lock(port);
    bool lent = pool_take(op);
    port_unlock(port);
    if (!lent)
        return ATTEMPT_PARKED;
    enum attempt result = io_attempt(port->engine, handle, op);
    if (result == ATTEMPT_BLOCKED) {
        port_lock(port);
        struct op *heir = pool_give(op);
        if (heir != NULL)
            engine_lend(port, heir);
        port_unlock(port);
    }
    return result;
}

/* Attempts an operation until it ends or cannot go on.  False: the budget is
   used up. */
static bool operation_carry(portio_port *port, struct handle *handle, struct op *op,
                            uint32_t *budget)
{
    struct engine *engine = port->engine;
    enum direction direction = op_direction(op);
    if (op->retries > 0)
        timers_remove(port, op);
    while (*budget > 0) {
        --*budget;
        int error = 0;
        switch (op_is_pooled(op) ? receive_attempt(port, handle, op)
                                 : io_attempt(engine, handle, op)) {
        case ATTEMPT_PROGRESS:
            continue;
        case ATTEMPT_COMPLETE:
            operation_finish(port, handle, op);
            return true;
        case ATTEMPT_BLOCKED:
            if (handle->events == 0) {
                operation_give(port, handle, op); /* nothing else can wait for it */
                return true;
            }
            error = handle_watch(engine, handle, direction);
            break;
        case ATTEMPT_LATER:
            error = operation_wait_a_while(port, handle, op);
            break;
        case ATTEMPT_HELP:
            operation_give(port, handle, op);
            return true;
        case ATTEMPT_PARKED:
            return true;
        }
        if (error != 0)
            operation_fail(port, handle, op, error);
        return true;
    }
    return false;
}

static bool op_needs_readiness(const struct op *op)
{
    return op->kind != PORTIO_SHUTDOWN && op->kind != PORTIO_SYNC;
}

/* Attempts what is queued in a direction, within the budget. */
static void queue_carry(portio_port *port, struct handle *handle, enum direction direction,
                        uint32_t budget)
{
    struct op *op = handle->queue[direction].head;
    while (op != NULL && (handle->ready[direction] || !op_needs_readiness(op))) {
        struct op *next = op->next;
        bool ordered = op_is_ordered(op);
        if (ordered && order_is_held(handle, direction))
            return;
        /* One that a helper thread has keeps its turn until it is back. */
        bool issued = atomic_load_explicit(&op->state, memory_order_relaxed) == OP_ISSUED;
        if (!issued && !operation_carry(port, handle, op, &budget)) {
            unfinished_add(port, handle);
            return;
        }
        if (ordered && handle->queue[direction].head == op)
            return;
        op = next;
    }
}

static void queues_carry(portio_port *port, struct handle *handle)
{
    queue_carry(port, handle, DIRECTION_READ, HANDLE_BUDGET);
    queue_carry(port, handle, DIRECTION_WRITE, HANDLE_BUDGET);
}

/* ---- what moves them: starters, events, timers, helpers ---- */

/* Whether what it waits for is what the set tells of: the set knows neither of urgent data that
   never came, nor that a socket does not listen. */
static bool op_is_plain_receive(const struct op *op)
{
    return op->kind == PORTIO_RECV && op->argument == 0;
}

static bool inline_allowed(struct engine *engine)
{
    return atomic_fetch_sub_explicit(&engine->inline_budget, 1, memory_order_relaxed) > 0;
}

void handle_start(portio_port *port, struct op *op)
{
    struct handle *handle = op->handle;
    enum direction direction = op_direction(op);
    bool ordered = op_is_ordered(op);
    transfer_begin(op);
    epoll_lock(port, &handle->lock);
    bool back = order_enter(handle, op);
    bool closing = handle->closing; /* if it is, the record may be another's in the end */
    atomic_store_explicit(&op->state, OP_QUEUED, memory_order_relaxed);
    if (handle->accepted && direction == DIRECTION_READ && !op_is_plain_receive(op))
        handle->ready[DIRECTION_READ] = true; /* as far as anybody knows */
    /* Whoever cancels sets cancel_wanted before it takes the handle's lock:
       either it finds the operation in the queue, or this finds the mark. */
    if (op->error != 0) {
        operation_finish(port, handle, op);
    } else if (closing || atomic_load(&op->cancel_wanted)) {
        operation_fail(port, handle, op, ECANCELED);
    } else if (!ordered || (handle->queue[direction].head == op &&
                            !order_is_held(handle, direction))) {
        uint32_t budget = HANDLE_BUDGET;
        /* Those that need no readiness take one attempt, and no budget: behind
           an ordered one an unordered one would not be found again. */
        bool at_once = !op_needs_readiness(op);
        if (at_once || handle->ready[direction]) {
            if (!(at_once || inline_allowed(port->engine)) ||
                !operation_carry(port, handle, op, &budget))
                unfinished_add(port, handle);
        }
    }
    /* It has had its turn for long, others wait behind it, and it may have ended. */
    if (back && !closing && handle->queue[direction].head != op)
        queues_carry(port, handle);
    epoll_unlock(port, &handle->lock);
}

/* The record of a handle by what its events carry; the lock is held then. */
static struct handle *handle_enter(portio_port *port, uint64_t event_id)
{
    struct handle *handle =
        handles_at(&port->handles, (uint32_t)(event_id & PORTIO_SLOT_MASK));
    epoll_lock(port, &handle->lock);
    if (handle->event_id == event_id)
        return handle;
    epoll_unlock(port, &handle->lock); /* an event of a former life (K6) */
    return NULL;
}

void handle_event(portio_port *port, uint64_t event_id, uint32_t events)
{
    struct handle *handle = handle_enter(port, event_id);
    if (handle == NULL)
        return;
    if (events & EVENTS_OF_AN_END)
        handle->short_receive = SHORT_IS_NOTHING;
    if (events & EVENTS_READ)
        handle->ready[DIRECTION_READ] = true;
    if (events & EVENTS_WRITE)
        handle->ready[DIRECTION_WRITE] = true;
    queues_carry(port, handle);
    epoll_unlock(port, &handle->lock);
}

void handle_retry(portio_port *port, uint64_t event_id, enum direction direction)
{
    struct handle *handle = handle_enter(port, event_id);
    if (handle == NULL)
        return;
    handle->ready[direction] = true;
    queues_carry(port, handle);
    epoll_unlock(port, &handle->lock);
}

bool handle_visit_unfinished(portio_port *port)
{
    struct engine *engine = port->engine;
    port_lock(port);
    uint32_t count = engine->unfinished_count; /* each once: they may come again */
    port_unlock(port);
    for (uint32_t at = 0; at < count; at++) {
        uint64_t id = 0;
        port_lock(port);
        struct handle *handle = engine->unfinished;
        if (handle != NULL) {
            unfinished_remove(engine, handle);
            id = handle->id; /* 0: it is being closed */
        }
        port_unlock(port);
        if (id != 0 && (handle = handle_enter(port, id)) != NULL) {
            queues_carry(port, handle);
            epoll_unlock(port, &handle->lock);
        }
    }
    return count > 0;
}

void handle_returned(portio_port *port, struct op *op)
{
    struct handle *handle = op->handle;
    enum direction direction = op_direction(op);
    epoll_lock(port, &handle->lock);
    bool full = op->place == PLACE_BLOCKED;
    bool closing = handle->closing;
    op->place = PLACE_NONE;
    atomic_store_explicit(&op->state, OP_QUEUED, memory_order_relaxed);
    if (!full)
        operation_finish(port, handle, op);
    else if (closing || atomic_load(&op->cancel_wanted))
        operation_fail(port, handle, op, ECANCELED);
    /* The record is still this handle's, unless it was closing: releasing would
       need the lock. */
    if (!closing) {
        if (!full)
            handle->ready[direction] = true; /* as far as anybody knows */
        queues_carry(port, handle);
    }
    epoll_unlock(port, &handle->lock);
}

/* ---- cancelling ---- */

/* The handle's lock is held.  False: a helper thread is at it; it has won the
   race, or will look at cancel_wanted. */
static bool operation_withdraw(portio_port *port, struct handle *handle, struct op *op)
{
    if (atomic_load_explicit(&op->state, memory_order_relaxed) == OP_ISSUED) {
        if (!helpers_take_back(&port->engine->helpers, op))
            return false;
        handle_use_end(handle);
    } else if (op->retries > 0) {
        timers_remove(port, op);
    }
    operation_fail(port, handle, op, ECANCELED);
    return true;
}

void handle_cancel(portio_port *port, struct handle *handle, struct op *op, uint64_t token)
{
    epoll_lock(port, &handle->lock);
    port_lock(port);
    uint8_t state = atomic_load(&op->state);
    bool here = op->token == token && op->handle == handle &&
                (state == OP_QUEUED || state == OP_ISSUED);
    port_unlock(port);
    if (here && operation_withdraw(port, handle, op) && !handle->closing)
        queues_carry(port, handle); /* its turn may be another's now */
    epoll_unlock(port, &handle->lock);
}

/* ---- beginning and end ---- */

static bool is_tcp(const struct handle *handle)
{
    if (handle->type != PORTIO_STREAM_SOCKET ||
        (handle->family != AF_INET && handle->family != AF_INET6))
        return false;
    int protocol = 0;
    socklen_t length = sizeof protocol;
    return getsockopt(handle->fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &length) == 0 &&
           protocol == IPPROTO_TCP;
}

/* Known of TCP alone: a Unix socket stops short at ancillary data, and others at the borders of
   their records.  Asked when it is needed first: many connections are silent. */
bool handle_short_is_empty(struct handle *handle)
{
    if (handle->short_receive == SHORT_UNKNOWN)
        handle->short_receive = is_tcp(handle) ? SHORT_IS_EMPTY : SHORT_IS_NOTHING;
    return handle->short_receive == SHORT_IS_EMPTY;
}

void handle_is_connected(struct handle *handle)
{
    /* An unconnected socket reports EPOLLHUP, which was no end. */
    handle->short_receive = SHORT_UNKNOWN;
}

/* The epoll set knows a descriptor by its number and its open file.  Both may
   be in there already: the program closed the number while a duplicate kept the
   file open, and then got the same number for the same file. */
static int set_add(struct engine *engine, struct handle *handle)
{
    struct epoll_event event = {.events = EVENTS_AT_FIRST};
    event.data.u64 = handle->id;
    int result = epoll_ctl(engine->set, EPOLL_CTL_ADD, handle->fd, &event);
    if (result != 0 && errno == EEXIST)
        result = epoll_ctl(engine->set, EPOLL_CTL_MOD, handle->fd, &event);
    if (result == 0)
        handle->events = event.events;
    else if (errno == EPERM)
        handle->events = 0; /* no poll for this device: always ready, as far as we see */
    else
        return -errno; /* ENOSPC: fs.epoll.max_user_watches; ENOMEM */
    return 0;
}

int engine_handle_open(portio_port *port, struct handle *handle)
{
    struct engine *engine = port->engine;
    int error = 0;
    epoll_lock(port, &handle->lock);
    handle->events = 0;
    handle->ready[DIRECTION_READ] = handle->ready[DIRECTION_WRITE] = true;
    handle->in_memory = false;
    handle->original_flags = -1;
    atomic_store(&handle->uses, 0);
    if (handle->type == PORTIO_FILE) {
        file_open(engine, handle);
    } else {
        bool nowait = epoll_has(engine->features, FEATURE_NOWAIT);
        atomic_store(&handle->nowait[DIRECTION_READ], nowait);
        atomic_store(&handle->nowait[DIRECTION_WRITE], nowait);
        handle->short_receive = SHORT_UNKNOWN;
        error = set_add(engine, handle);
        /* The set tells at once of what is there already (epoll(7), EPOLL_CTL_ADD; MOD does, too),
           and most fresh connections are silent: to receive before that would find nothing. */
        if (handle->accepted && handle->events != 0)
            handle->ready[DIRECTION_READ] = false;
    }
    if (error == 0)
        handle->event_id = handle->id;
    epoll_unlock(port, &handle->lock);
    return error;
}

/* The handle's lock is held: no event, no timer and no list leads here now.
   False: the descriptor is not what it was, because the program has closed it
   behind our back, and its number may be another's by now. */
static bool handle_detach(portio_port *port, struct handle *handle, bool descriptor_is_ours)
{
    struct engine *engine = port->engine;
    handle->event_id = 0;
    handle->closing = true;
    port_lock(port);
    unfinished_remove(engine, handle);
    port_unlock(port);
    /* Closing would not do: a duplicate, in a child process perhaps, keeps the
       open file in the set, and its events coming. */
    if (descriptor_is_ours && handle->events != 0)
        descriptor_is_ours = epoll_ctl(engine->set, EPOLL_CTL_DEL, handle->fd, NULL) == 0;
    handle->events = 0;
    return descriptor_is_ours;
}

void engine_handle_release(portio_port *port, struct handle *handle)
{
    epoll_lock(port, &handle->lock);
    if (handle_detach(port, handle, true))
        handle_restore_flags(handle);
    epoll_unlock(port, &handle->lock);
}

/* The descriptor's end.  While helper threads use it, the last of them closes
   it; a socket is shut down at once then, for its peer (K5).  True: it is the
   caller's to close. */
static bool descriptor_end(struct handle *handle)
{
    int fd = handle->fd;
    bool used = (atomic_load(&handle->uses) & USES_COUNT) != 0;
    if (!used)
        handle_restore_flags(handle); /* others may have the file open */
    else if (handle->type == PORTIO_STREAM_SOCKET)
        shutdown(fd, SHUT_RDWR); /* ENOTCONN: then there is no peer */
    uint32_t former = atomic_fetch_or(&handle->uses, USES_ENDED | USES_CLOSE);
    return (former & USES_COUNT) == 0;
}

void engine_handle_close(portio_port *port, struct handle *handle, bool close_it)
{
    struct helpers *helpers = &port->engine->helpers;
    epoll_lock(port, &handle->lock);
    close_it = handle_detach(port, handle, close_it);
    /* Before looking among the helpers: an operation that is not there yet will
       find the mark (helpers_give). */
    atomic_fetch_or(&handle->uses, USES_ENDED);
    for (int direction = 0; direction < 2; direction++)
        for (struct op *op = handle->queue[direction].head, *next; op != NULL; op = next) {
            next = op->next;
            operation_withdraw(port, handle, op);
        }
    if (handle->type == PORTIO_FILE) /* these are on no queue of the handle */
        for (struct op *op = helpers_take_back_all(helpers, handle), *next; op != NULL; op = next) {
            next = op->u.helper.next;
            handle_use_end(handle);
            port_complete_error(port, op, ECANCELED);
        }
    int fd = handle->fd;
    bool ours = close_it && descriptor_end(handle);
    epoll_unlock(port, &handle->lock);
    /* Without the lock: it may take as long as SO_LINGER says. */
    if (ours)
        close(fd);
}
