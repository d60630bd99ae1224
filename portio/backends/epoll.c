/* The epoll engine: the functions of engine.h.  How it works is told in
   epoll.h. */
#include "epoll.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "linux_abi.h"

/* ---- life ---- */

static int set_add(struct engine *engine, int fd, uint32_t events, uint64_t data)
{
    struct epoll_event event = {.events = events};
    event.data.u64 = data;
    return epoll_ctl(engine->set, EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : -errno;
}

/* The eventfd of engine_wake and the timerfd are edge-triggered: each write and
   each expiry is an event of its own, and nobody has to read them empty. */
static int engine_open_system(struct engine *engine)
{
    engine->set = epoll_create1(EPOLL_CLOEXEC);
    if (engine->set < 0)
        return -errno;
    engine->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (engine->wake < 0)
        return -errno;
    int error = timers_open(&engine->timers);
    if (error == 0)
        error = set_add(engine, engine->wake, EPOLLIN | EPOLLET, EVENT_WAKE);
    if (error == 0)
        error = set_add(engine, engine->timers.fd, EPOLLIN | EPOLLET, EVENT_TIMER);
    return error;
}

static void engine_free(struct engine *engine)
{
    timers_close(&engine->timers);
    int descriptors[] = {engine->notify, engine->wake, engine->set};
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
    engine->features = epoll_features(options);
    engine->pwait2 = epoll_has(engine->features, FEATURE_PWAIT2);
    engine->set = engine->wake = engine->notify = engine->timers.fd = -1;
    atomic_store(&engine->inline_budget, INLINE_BUDGET);
    int error = engine_open_system(engine);
    if (error == 0)
        error = helpers_open(&engine->helpers);
    if (error != 0) {
        engine_free(engine);
        return PORTIO_SYSTEM + error;
    }
    port->engine = engine;
    return 0;
}

void engine_close(portio_port *port)
{
    helpers_close(&port->engine->helpers); /* first: they use the rest */
    engine_free(port->engine);
    port->engine = NULL;
}

bool engine_adopt(portio_port *port)
{
    (void)port; /* nothing here belongs to a thread */
    return true;
}

/* ---- operations ---- */

static void timer_start(portio_port *port, struct op *op)
{
    op->u.timer.deadline = timers_after(op->argument);
    op->u.timer.handle = 0;
    atomic_store(&op->state, OP_ISSUED);
    int error = timers_add(port, op);
    if (error != 0)
        port_complete_error(port, op, error);
}

void engine_start(portio_port *port, struct op *op)
{
    if (op->handle == NULL)
        timer_start(port, op);
    else if (op->handle->type == PORTIO_FILE)
        file_start(port, op);
    else
        handle_start(port, op);
}

void engine_flush(portio_port *port)
{
    (void)port; /* what is started has been attempted */
}

void engine_cancel(portio_port *port, struct op *op, uint64_t token)
{
    struct engine *engine = port->engine;
    port_lock(port);
    bool pending = op->token == token && atomic_load(&op->state) != OP_DONE &&
                   atomic_load(&op->state) != OP_FREE;
    struct handle *handle = op->handle;
    if (pending && handle != NULL && handle->type != PORTIO_FILE) {
        port_unlock(port);
        handle_cancel(port, handle, op, token);
        return;
    }
    /* Under the port's lock the record stays this operation, and the locks of
       the heap and of the helpers may be taken. */
    bool withdrawn = false;
    if (pending && handle == NULL) {
        withdrawn = timers_remove(port, op);
    } else if (pending && helpers_take_back(&engine->helpers, op)) {
        handle_use_end(handle);
        withdrawn = true;
    }
    if (withdrawn) {
        op->error = ECANCELED;
        port_complete_locked(port, op);
        port_balance(port);
    }
    port_unlock(port);
}

void engine_harvest(portio_port *port)
{
    struct op *op = helpers_finished(&port->engine->helpers);
    while (op != NULL) {
        struct op *next = op->u.helper.next;
        op->place = PLACE_NONE;
        port_complete_locked(port, op);
        op = next;
    }
}

/* ---- waiting ---- */

static int set_wait_milliseconds(struct engine *engine, int64_t nanoseconds)
{
    /* Rounded up, or the last fraction of a millisecond would be waited for by
       polling; a wait of more than a month is made of several. */
    int64_t milliseconds = (nanoseconds + 999999) / 1000000;
    if (milliseconds > INT32_MAX)
        milliseconds = INT32_MAX;
    return epoll_wait(engine->set, engine->events, EVENTS_MOST, (int)milliseconds);
}

/* Like epoll_wait, until an absolute time: 0 is never early. */
static int set_wait(struct engine *engine, int64_t deadline)
{
    if (deadline == DEADLINE_NEVER)
        return epoll_wait(engine->set, engine->events, EVENTS_MOST, -1);
    for (;;) {
        int64_t left = deadline == DEADLINE_POLL ? 0 : deadline - monotonic_now();
        if (left <= 0)
            return epoll_wait(engine->set, engine->events, EVENTS_MOST, 0);
        int count = -1;
        if (engine->pwait2) {
            struct timespec timeout = {left / 1000000000, left % 1000000000};
            count = abi_epoll_pwait2(engine->set, engine->events, EVENTS_MOST, &timeout);
            if (count < 0 && errno != EINTR) /* a filter that came after the probe */
                engine->pwait2 = false;
        }
        if (!engine->pwait2)
            count = set_wait_milliseconds(engine, left);
        if (count != 0)
            return count;
    }
}

static void event_dispatch(portio_port *port, const struct epoll_event *event)
{
    switch (event->data.u64) {
    case EVENT_WAKE:
        /* Before anything is looked at that the waker may have changed: who
           comes after this writes again. */
        atomic_exchange(&port->engine->awake, false);
        break;
    case EVENT_TIMER:
        timers_expire(port);
        break;
    case EVENT_NOTIFY: /* there for who polls the set from outside */
        break;
    case EVENT_INTERRUPT:
        port_lock(port);
        port_interrupt(port);
        port_unlock(port);
        break;
    default:
        handle_event(port, event->data.u64, event->events);
        break;
    }
}

static void take_returned(portio_port *port)
{
    struct op *op = helpers_returned(&port->engine->helpers);
    while (op != NULL) {
        struct op *next = op->u.helper.next;
        handle_returned(port, op);
        op = next;
    }
}

/* The next engine_wait will visit what is unfinished; whoever polls the set from
   outside has to be told that it should come.  The wake-up that unfinished_add
   sent may have been taken in this very round. */
static void tell_unfinished(portio_port *port)
{
    struct engine *engine = port->engine;
    port_lock(port);
    if (engine->notify >= 0 && engine->unfinished != NULL)
        engine_wake(port);
    port_unlock(port);
}

bool engine_wait(portio_port *port, int64_t deadline)
{
    struct engine *engine = port->engine;
    atomic_store_explicit(&engine->inline_budget, INLINE_BUDGET, memory_order_relaxed);
    if (handle_visit_unfinished(port))
        deadline = DEADLINE_POLL; /* something may have completed, or is left */
    int count = set_wait(engine, deadline);
    if (count < 0)
        return errno != EINTR; /* nothing else is possible: the set is ours */
    if (count > 0) {
        /* With the lock once taken, the records of handles that others have
           opened, whose first events are here, can be seen by this thread. */
        port_lock(port);
        port_unlock(port);
    }
    for (int at = 0; at < count; at++)
        event_dispatch(port, &engine->events[at]);
    take_returned(port);
    tell_unfinished(port);
    return true;
}

void engine_wake(portio_port *port)
{
    struct engine *engine = port->engine;
    /* One event is enough for all who come before it is taken. */
    if (atomic_exchange(&engine->awake, true))
        return;
    uint64_t one = 1;
    (void)!write(engine->wake, &one, sizeof one); /* never full: 2^64 writes */
}

/* ---- memory ---- */

int engine_region_open(portio_port *port, void *memory, uint64_t length, uint32_t *number)
{
    (void)port, (void)memory, (void)length, (void)number; /* the system has no use for it */
    return PORTIO_UNSUPPORTED;
}

bool engine_region_close(portio_port *port, uint32_t *number)
{
    (void)port, (void)number;
    return false;
}

/* Edge-triggered: only the main thread reads it empty, and others must not see
   the same event again and again until then. */
int engine_watch(portio_port *port, int descriptor)
{
    return set_add(port->engine, descriptor, EPOLLIN | EPOLLET, EVENT_INTERRUPT);
}

/* ---- the descriptor of portio_fileno ---- */

/* It is the epoll set itself, which is readable while it has an event: of a
   handle, of a timer, of the helper threads, or of this level-triggered eventfd
   that stands for packets in the queue. */
int engine_fileno(portio_port *port)
{
    struct engine *engine = port->engine;
    if (engine->notify >= 0)
        return engine->set;
    int notify = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (notify < 0)
        return PORTIO_SYSTEM - errno;
    int error = set_add(engine, notify, EPOLLIN, EVENT_NOTIFY);
    if (error != 0) {
        close(notify);
        return PORTIO_SYSTEM + error;
    }
    engine->notify = notify;
    engine_wake(port); /* for the handles that are unfinished now */
    return engine->set;
}

void engine_notify(portio_port *port)
{
    uint64_t one = 1;
    (void)!write(port->engine->notify, &one, sizeof one);
}

void engine_unnotify(portio_port *port)
{
    uint64_t count;
    (void)!read(port->engine->notify, &count, sizeof count); /* EAGAIN: it was quiet */
}
