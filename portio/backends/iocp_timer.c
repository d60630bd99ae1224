/* Time: deadlines that are never early, and timers.

   Never early by which clock?  The system's waits count ticks of about 15.6 ms and
   may end a little before the time by a finer clock; Python's time.monotonic is the
   tick count up to 3.12 and the performance counter from 3.13.  So a time has come
   when both say so.

   Timers are a heap in the port and one timer of the thread pool, set for the
   earliest.  Its callback completes what is due, in the order of the deadlines;
   `gate` keeps a second callback from overtaking it. */
#include "iocp.h"

#include <stdlib.h>

#define SECOND INT64_C(1000000000)
#define MILLISECOND INT64_C(1000000)

static int64_t clock_now(void)
{
    static LARGE_INTEGER frequency; /* the same whoever writes it */
    LARGE_INTEGER counter;
    if (frequency.QuadPart == 0)
        QueryPerformanceFrequency(&frequency);
    QueryPerformanceCounter(&counter);
    int64_t seconds = counter.QuadPart / frequency.QuadPart;
    int64_t rest = counter.QuadPart % frequency.QuadPart;
    return seconds * SECOND + rest * SECOND / frequency.QuadPart;
}

struct deadline deadline_after(int64_t nanoseconds)
{
    struct deadline deadline = {INT64_MAX, UINT64_MAX};
    if (nanoseconds < 0)
        return deadline;
    int64_t now = clock_now();
    if (nanoseconds >= INT64_MAX - now)
        return deadline;
    deadline.time = now + nanoseconds;
    deadline.tick = GetTickCount64() +
                    (uint64_t)(nanoseconds / MILLISECOND + (nanoseconds % MILLISECOND != 0));
    return deadline;
}

/* Nanoseconds until the deadline; 0: it has passed. */
static int64_t time_left(const struct deadline *deadline)
{
    if (deadline->time == INT64_MAX)
        return INT64_MAX;
    int64_t now = clock_now();
    if (now < deadline->time)
        return deadline->time - now;
    uint64_t tick = GetTickCount64();
    return tick < deadline->tick ? (int64_t)(deadline->tick - tick) * MILLISECOND : 0;
}

DWORD deadline_left(const struct deadline *deadline)
{
    int64_t left = time_left(deadline);
    if (left == INT64_MAX)
        return INFINITE;
    int64_t milliseconds = left / MILLISECOND + (left % MILLISECOND != 0);
    /* INFINITE is the largest DWORD; a longer wait is made in parts. */
    return milliseconds < INT32_MAX ? (DWORD)milliseconds : INT32_MAX;
}

/* ---- the heap; the port's lock is held ---- */

static void heap_put(struct timers *timers, struct op *op, uint32_t at)
{
    timers->heap[at] = op;
    op->heap_index = at + 1;
}

static void heap_rise(struct timers *timers, struct op *op, uint32_t at)
{
    for (; at > 0; at = (at - 1) / 2) {
        struct op *parent = timers->heap[(at - 1) / 2];
        if (parent->deadline <= op->deadline)
            break;
        heap_put(timers, parent, at);
    }
    heap_put(timers, op, at);
}

static void heap_sink(struct timers *timers, struct op *op, uint32_t at)
{
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child + 1 < timers->count &&
            timers->heap[child + 1]->deadline < timers->heap[child]->deadline)
            child++;
        if (child >= timers->count || op->deadline <= timers->heap[child]->deadline)
            break;
        heap_put(timers, timers->heap[child], at);
        at = child;
    }
    heap_put(timers, op, at);
}

static void timers_arm(struct timers *timers)
{
    if (timers->count == 0 || timers->heap[0]->deadline >= timers->armed)
        return;
    struct deadline first = {timers->heap[0]->deadline, timers->heap[0]->tick};
    /* Relative times are negative, in units of 100 ns; rounded up. */
    int64_t units = time_left(&first) / 100 + 1;
    ULARGE_INTEGER due;
    due.QuadPart = (ULONGLONG)-units;
    FILETIME time = {due.LowPart, due.HighPart};
    timers->armed = first.time;
    SetThreadpoolTimer(timers->timer, &time, 0, 0);
}

void timer_remove(portio_port *port, struct op *op)
{
    struct timers *timers = &port->timers;
    uint32_t at = op->heap_index - 1;
    struct op *last = timers->heap[--timers->count];
    op->heap_index = 0;
    if (last == op)
        return;
    if (at > 0 && last->deadline < timers->heap[(at - 1) / 2]->deadline)
        heap_rise(timers, last, at);
    else
        heap_sink(timers, last, at);
}

static void CALLBACK timers_fire(PTP_CALLBACK_INSTANCE instance, void *context, PTP_TIMER timer)
{
    portio_port *port = context;
    struct timers *timers = &port->timers;
    (void)instance, (void)timer;
    AcquireSRWLockExclusive(&timers->gate);
    port_lock(port);
    timers->armed = INT64_MAX;
    while (timers->count > 0) {
        struct op *op = timers->heap[0];
        struct deadline deadline = {op->deadline, op->tick};
        if (time_left(&deadline) > 0) {
            timers_arm(timers);
            break;
        }
        timer_remove(port, op);
        op->state = OP_CLAIMED;
        port_unlock(port);
        op_complete(port, op);
        port_lock(port);
    }
    port_unlock(port);
    ReleaseSRWLockExclusive(&timers->gate);
}

int timers_open(portio_port *port)
{
    port->timers.armed = INT64_MAX;
    port->timers.timer = CreateThreadpoolTimer(timers_fire, port, NULL);
    return port->timers.timer != NULL ? 0 : PORTIO_NO_MEMORY;
}

void timers_close(portio_port *port)
{
    if (port->timers.timer == NULL)
        return;
    SetThreadpoolTimer(port->timers.timer, NULL, 0, 0);
    WaitForThreadpoolTimerCallbacks(port->timers.timer, TRUE);
    CloseThreadpoolTimer(port->timers.timer);
    port->timers.timer = NULL;
    free(port->timers.heap);
    port->timers.heap = NULL;
}

static bool heap_grow(struct timers *timers)
{
    if (timers->count < timers->room)
        return true;
    uint32_t room = timers->room != 0 ? 2 * timers->room : 64;
    struct op **heap = realloc(timers->heap, room * sizeof *heap);
    if (heap == NULL)
        return false;
    timers->heap = heap;
    timers->room = room;
    return true;
}

enum step timer_step(portio_port *port, struct op *op)
{
    struct timers *timers = &port->timers;
    struct deadline deadline = deadline_after(op->argument);
    op->deadline = deadline.time;
    op->tick = deadline.tick;
    port_lock(port);
    bool cancelled = op->cancel_wanted != 0;
    bool entered = !cancelled && heap_grow(timers);
    if (entered) {
        op->state = OP_TIMED;
        heap_rise(timers, op, timers->count++);
        timers_arm(timers);
    }
    port_unlock(port);
    if (entered)
        return STEP_ISSUED;
    op->error = cancelled ? ERROR_OPERATION_ABORTED : ERROR_NOT_ENOUGH_MEMORY;
    return STEP_DONE;
}
