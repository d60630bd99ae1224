/* Timers: a binary heap of deadlines, and one timerfd in the epoll set that
   expires with the earliest.  A timerfd, and not the time-out of epoll_wait, so
   that the descriptor of portio_fileno tells of timers too, and so that a timer
   started by one thread reaches the reaper, asleep in another, by itself.

   Operations on the heap are Timers, which are on no other list, and those to
   be attempted again after a while (ATTEMPT_LATER), which stay on the queue of
   their handle.

   The heap has a lock of its own, one of the small ones of port.h: it is taken
   with a handle's lock or the port's lock held, never the other way round. */
#include "epoll.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/timerfd.h>
#include <unistd.h>

int timers_open(struct timers *timers)
{
    timers->armed = DEADLINE_NEVER;
    timers->fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (timers->fd < 0)
        return -errno;
    pthread_mutex_init(&timers->lock, NULL); /* cannot fail with default attributes */
    return 0;
}

void timers_close(struct timers *timers)
{
    if (timers->fd < 0)
        return;
    close(timers->fd);
    free(timers->heap);
    pthread_mutex_destroy(&timers->lock);
}

int64_t timers_after(int64_t nanoseconds)
{
    int64_t now = monotonic_now();
    if (nanoseconds < 0)
        nanoseconds = 0;
    return nanoseconds < DEADLINE_NEVER - now ? now + nanoseconds : DEADLINE_NEVER;
}

static void heap_put(struct timers *timers, struct op *op, uint32_t at)
{
    timers->heap[at] = op;
    op->heap_index = at + 1;
}

static void heap_rise(struct timers *timers, struct op *op, uint32_t at)
{
    while (at > 0) {
        uint32_t parent = (at - 1) / 2;
        if (timers->heap[parent]->u.timer.deadline <= op->u.timer.deadline)
            break;
        heap_put(timers, timers->heap[parent], at);
        at = parent;
    }
    heap_put(timers, op, at);
}

static void heap_sink(struct timers *timers, struct op *op, uint32_t at)
{
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= timers->count)
            break;
        if (child + 1 < timers->count && timers->heap[child + 1]->u.timer.deadline <
                                             timers->heap[child]->u.timer.deadline)
            child++;
        if (op->u.timer.deadline <= timers->heap[child]->u.timer.deadline)
            break;
        heap_put(timers, timers->heap[child], at);
        at = child;
    }
    heap_put(timers, op, at);
}

static void heap_remove(struct timers *timers, struct op *op)
{
    uint32_t at = op->heap_index - 1;
    struct op *last = timers->heap[--timers->count];
    op->heap_index = 0;
    if (last == op)
        return;
    if (at > 0 && last->u.timer.deadline < timers->heap[(at - 1) / 2]->u.timer.deadline)
        heap_rise(timers, last, at);
    else
        heap_sink(timers, last, at);
}

/* Lock held.  A timer that goes away leaves the timerfd as it is: it expires
   once for nothing, which costs less than setting it for each cancellation. */
static void timers_arm(struct timers *timers)
{
    if (timers->count == 0 || timers->heap[0]->u.timer.deadline >= timers->armed)
        return;
    int64_t deadline = timers->heap[0]->u.timer.deadline;
    timers->armed = deadline;
    if (deadline <= 0)
        deadline = 1; /* zero would disarm; monotonic time has passed both */
    struct itimerspec at = {.it_value = {deadline / 1000000000, deadline % 1000000000}};
    /* Cannot fail: the descriptor and the value are ours. */
    (void)timerfd_settime(timers->fd, TFD_TIMER_ABSTIME, &at, NULL);
}

int timers_add(portio_port *port, struct op *op)
{
    struct timers *timers = &port->engine->timers;
    int error = 0;
    epoll_lock(port, &timers->lock);
    /* Whoever cancels leaves this mark before it looks into the heap: either it
       finds the operation there, or this finds the mark. */
    if (atomic_load(&op->cancel_wanted)) {
        error = ECANCELED;
    } else if (timers->count == timers->room) {
        uint32_t room = timers->room == 0 ? 64 : timers->room * 2;
        struct op **larger = realloc(timers->heap, room * sizeof *larger);
        if (larger == NULL) {
            error = ENOMEM;
        } else {
            timers->heap = larger;
            timers->room = room;
        }
    }
    if (error == 0) {
        heap_rise(timers, op, timers->count++);
        timers_arm(timers);
    }
    epoll_unlock(port, &timers->lock);
    return error;
}

bool timers_remove(portio_port *port, struct op *op)
{
    struct timers *timers = &port->engine->timers;
    epoll_lock(port, &timers->lock);
    bool found = op->heap_index != 0;
    if (found)
        heap_remove(timers, op);
    epoll_unlock(port, &timers->lock);
    return found;
}

/* Takes one operation that is due.  A Timer is then the caller's alone, since
   cancelling does not find it any more.  Of another only the handle is told:
   it may be completed, cancelled and gone by the time the caller looks. */
static bool timers_take(portio_port *port, int64_t now, struct op **timer, uint64_t *handle)
{
    struct timers *timers = &port->engine->timers;
    *timer = NULL;
    epoll_lock(port, &timers->lock);
    struct op *op = timers->count > 0 ? timers->heap[0] : NULL;
    bool due = op != NULL && op->u.timer.deadline <= now;
    if (due) {
        heap_remove(timers, op);
        *handle = op->u.timer.handle;
        if (op->kind == PORTIO_TIMER)
            *timer = op;
    } else {
        /* Whatever was armed has expired, or its event is still to come: then
           setting it again to the same time does no harm. */
        timers->armed = DEADLINE_NEVER;
        timers_arm(timers);
    }
    epoll_unlock(port, &timers->lock);
    return due;
}

void timers_expire(portio_port *port)
{
    int64_t now = monotonic_now();
    struct op *timer;
    uint64_t handle = 0;
    while (timers_take(port, now, &timer, &handle)) {
        if (timer != NULL)
            port_complete(port, timer);
        else
            handle_retry(port, handle, DIRECTION_WRITE);
    }
}
