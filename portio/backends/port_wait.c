/* Threads that wait: for any packet (portio_get), for one unqueued operation
   (portio_wait), or for a port to become idle (portio_port_close). */
#include "engine.h"

/* Waits in the system as the reaper.  Lock held before and after, not during.
   False: a signal arrived. */
bool port_drive(portio_port *port, struct waiter *me, int64_t deadline)
{
    port->unasked = 0;
    port->reaper = me;
    port->reaper_waits = true;
    port->reaper_thread = port_thread_mark();
    port_unlock(port);
    bool undisturbed = engine_wait(port, deadline);
    port_lock(port);
    port->reaper_waits = false;
    /* In this order: harvesting takes back the wake-up that a full inbox sent. */
    engine_harvest(port);
    if (port->thread_bound)
        port_inbox_read(port);
    return undisturbed;
}

static int64_t deadline_after(int64_t timeout)
{
    if (timeout == 0 || timeout == PORTIO_AS_CALLED)
        return DEADLINE_POLL;
    if (timeout < 0)
        return DEADLINE_NEVER;
    int64_t now = monotonic_now();
    return timeout < DEADLINE_NEVER - now ? now + timeout : DEADLINE_NEVER;
}

static void record_packet(struct op *op, portio_completion *record)
{
    record->token = op->token;
    record->nbytes = op->nbytes;
    record->status = (int64_t)(uint32_t)op->error;
    if (op_goes_on(op)) {
        turn_fill(op, record);
        atomic_store_explicit(&op->state, OP_TURN, memory_order_release);
        return;
    }
    /* From here on Python may use the slot for another operation. */
    atomic_store_explicit(&op->state, OP_FREE, memory_order_release);
}

/* Takes what may be taken; the thread holds a place afterwards.  With the limit 0 it takes
   nothing: 1 if there is something. */
static uint32_t packets_take(portio_port *port, struct member *member,
                             portio_completion *records, uint32_t count, uint32_t limit)
{
    if (port->packets.head == NULL || (count == 0 && port->running >= port->concurrency))
        return count;
    if (limit == 0)
        return 1;
    while (count < limit && port->packets.head != NULL)
        record_packet(op_list_take(&port->packets), &records[count++]);
    member_take_place(port, member);
    return count;
}

static void stack_push(portio_port *port, struct waiter *me)
{
    me->above = NULL;
    me->below = port->top;
    if (port->top != NULL)
        port->top->above = me;
    port->top = me;
    me->stacked = true;
}

static void others_add(portio_port *port, struct waiter *me)
{
    me->above = NULL;
    me->below = port->others;
    if (port->others != NULL)
        port->others->above = me;
    port->others = me;
}

static void others_remove(portio_port *port, struct waiter *me)
{
    if (me->above != NULL)
        me->above->below = me->below;
    else
        port->others = me->below;
    if (me->below != NULL)
        me->below->above = me->above;
}

/* True when this waiter should look at the system itself. */
static bool may_drive(const portio_port *port, const struct waiter *me)
{
    if ((port->reaper != NULL && port->reaper != me) || port_spares(port, me))
        return false;
    return port->running < port->concurrency || port->others != NULL || !me->stacked;
}

/* One sleep of a waiter, in the system or on its futex.  Lock held before and
   after.  False: a signal arrived. */
static bool waiter_sleep(portio_port *port, struct waiter *me, int64_t deadline)
{
    if (may_drive(port, me)) {
        bool undisturbed = port_drive(port, me, deadline);
        port_balance(port);
        return undisturbed;
    }
    if (port->reaper == me) {
        port->reaper = NULL; /* at the cap: whoever frees a place appoints again */
        port_balance(port);
    }
    if (me->granted != NULL || me->called)
        return true;
    if (me == port->listener && port->park_fd >= 0)
        return port_park(port, me, deadline) != FUTEX_SIGNALLED;
    atomic_store_explicit(&me->word, 0, memory_order_relaxed);
    port_unlock(port);
    enum futex_result result = futex_wait(&me->word, 0, deadline);
    port_lock(port);
    return result != FUTEX_SIGNALLED;
}

/* After the queue was emptied: the descriptor of portio_fileno must say so. */
static void quiet_descriptor(portio_port *port)
{
    if (!port->notifying || port->packets.head != NULL)
        return;
    port->notified = false;
    engine_unnotify(port);
    engine_harvest(port);
    if (port->thread_bound) {
        port_inbox_read(port); /* its signal may be the one that was taken back */
        if (!port->lazy_submit)
            engine_flush(port);
    }
    if (port->packets.head != NULL && !port->notified) {
        port->notified = true;
        engine_notify(port);
    }
}

/* How long a waiter stands back, in nanoseconds: as long as Python lets a thread have its lock
   when others want it (sys.setswitchinterval). */
#define STANDING_BACK 5000000

static int64_t earlier(int64_t one, int64_t other)
{
    return one < other ? one : other;
}

/* The wait of portio_get.  Lock held before and after. */
static int get_waiting(portio_port *port, struct member *member, portio_completion *records,
                       uint32_t limit, int64_t deadline, int64_t descriptor)
{
    struct waiter me = {.member = member, .asks = limit == 0};
    int64_t comes_forward = DEADLINE_NEVER;
    if (me.asks && member_stands_back(port, member)) {
        me.stands_back = true;
        comes_forward = monotonic_now() + STANDING_BACK;
    }
    if (member != NULL)
        member_waits(member);
    int result = 0;
    bool listens = port_listen(port, descriptor, &me);
    stack_push(port, &me);
    while (me.granted == NULL && !me.called) {
        if (atomic_load_explicit(&port->closing, memory_order_relaxed)) {
            result = PORTIO_CLOSED;
            break;
        }
        if (listens && port_heard(port, &me)) {
            result = PORTIO_INTERRUPTED;
            break;
        }
        bool undisturbed = waiter_sleep(port, &me, earlier(deadline, comes_forward));
        if (me.granted != NULL || me.called)
            break;
        if (!undisturbed) {
            result = PORTIO_INTERRUPTED;
            break;
        }
        if (me.stands_back && monotonic_now() >= comes_forward) {
            me.stands_back = false;
            comes_forward = DEADLINE_NEVER;
            port_balance(port);
            continue;
        }
        if (deadline != DEADLINE_NEVER && monotonic_now() >= deadline)
            break;
    }
    port_stack_remove(port, &me);
    port_unlisten(port, &me);
    if (port->reaper == &me)
        port->reaper = NULL;
    if (me.granted == NULL && !me.called)
        return result;
    port->grants--;
    if (me.called)
        return 1;
    record_packet(me.granted, &records[0]);
    return (int)packets_take(port, member, records, 1, limit);
}

static int get_polling(portio_port *port, struct member *member, portio_completion *records,
                       uint32_t limit)
{
    if (port->reaper != NULL)
        return 0; /* that thread takes care of what the system has */
    struct waiter me = {.member = NULL};
    port_drive(port, &me, DEADLINE_POLL);
    port->reaper = NULL;
    uint32_t count = packets_take(port, member, records, 0, limit);
    if (count == 0) {
        quiet_descriptor(port);
        count = packets_take(port, member, records, 0, limit);
    }
    return (int)count;
}

/* Packets that are always there, because handlers post or because operations
   complete as they start, must not keep the system from being asked about the
   others: every so many gets ask without waiting. */
#define GETS_UNASKED 32

static void ask_in_turn(portio_port *port)
{
    if (port->reaper != NULL || ++port->unasked < GETS_UNASKED)
        return;
    struct waiter me = {.member = NULL};
    port_drive(port, &me, DEADLINE_POLL);
    port->reaper = NULL;
}

/* Who waits for news waits in line: see port.h.  Who polls does not. */
static int news_queue(const portio_port *port, const struct member *member, int result,
                      int64_t deadline)
{
    bool waits = port->called != NULL || member_stands_back(port, member);
    return waits && deadline != DEADLINE_POLL ? 0 : result;
}

/* What portio_get does with the descriptor SLEEP_NOT in the main thread: see
   PORTIO_WOULD_SLEEP. */
#define SLEEP_NOT (-2)

static int packets_get(portio_port *port, portio_completion *records, uint32_t limit,
                       int64_t timeout, int64_t descriptor)
{
    if (limit > 0)
        records[0].token = 0;
    struct member *member = NULL;
    if (port->thread_bound) {
        if (!port_is_owner(port))
            return PORTIO_WRONG_THREAD;
        if (limit == 0)
            return PORTIO_UNSUPPORTED;
    } else if ((member = port_member(port)) == NULL) {
        return PORTIO_NO_MEMORY;
    }
    int64_t deadline = deadline_after(timeout);
    int result = 0;
    port_lock(port);
    bool late = timeout == PORTIO_AS_CALLED && member != NULL && !member_come_for(port, member);
    member_come(port, member);
    member_leave_place(port, member);
    if (atomic_load_explicit(&port->closing, memory_order_relaxed)) {
        result = PORTIO_CLOSED;
    } else if (!late) {
        ask_in_turn(port);
        engine_harvest(port);
        if (port->thread_bound) {
            port_inbox_read(port);
            if (port->lazy_submit && port->packets.head != NULL) {
                engine_flush(port); /* else engine_wait submits and waits in one */
                engine_harvest(port);
            }
        }
        result = (int)packets_take(port, member, records, 0, limit);
        if (limit == 0)
            result = news_queue(port, member, result, deadline);
        if (result == 0) {
            bool stays_awake = deadline != DEADLINE_POLL && descriptor == SLEEP_NOT &&
                               port_in_main_thread(port);
            if (deadline == DEADLINE_POLL || stays_awake)
                result = get_polling(port, member, records, limit);
            else
                result = get_waiting(port, member, records, limit, deadline, descriptor);
            if (stays_awake && limit == 0)
                result = news_queue(port, member, result, deadline);
            if (result == 0 && stays_awake)
                result = PORTIO_WOULD_SLEEP;
        }
    }
    if (result > 0 && limit == 0) {
        member_hear(port, member, deadline != DEADLINE_POLL);
    } else if (result > 0) {
        port->rounds++;
        if ((uint32_t)result < limit)
            records[result].token = 0; /* marks the end, for who salvages a batch */
        if (port->thread_bound && !port->lazy_submit)
            engine_flush(port); /* cancels that came by mail */
        quiet_descriptor(port);
    }
    port_balance(port);
    port_unlock(port);
    return result;
}

int portio_get(portio_port *port, portio_completion *records, uint32_t limit, int64_t timeout)
{
    return packets_get(port, records, limit, timeout, SLEEP_NOT);
}

int portio_get_until(portio_port *port, portio_completion *records, uint32_t limit,
                     int64_t timeout, int64_t descriptor)
{
    return packets_get(port, records, limit, timeout, descriptor);
}

static int operation_wait(portio_port *port, uint64_t token, portio_completion *record,
                          int64_t timeout, int64_t descriptor)
{
    record->token = 0;
    if (port->thread_bound && !port_is_owner(port))
        return PORTIO_WRONG_THREAD;
    struct member *member = port->thread_bound ? NULL : port_member(port);
    int64_t deadline = deadline_after(timeout);
    bool stays_awake = deadline != DEADLINE_POLL && descriptor == SLEEP_NOT &&
                       port_in_main_thread(port);
    if (stays_awake)
        deadline = DEADLINE_POLL;
    struct waiter me = {.member = NULL};
    int result = 0;
    bool waited = false;
    port_lock(port);
    struct op *op = slots_find(&port->slots, token);
    /* A thread that waits for an operation is blocked: its place is free. */
    member_come(port, member);
    bool had_place = member_leave_place(port, member);
    others_add(port, &me);
    bool listens = port_listen(port, descriptor, &me);
    for (;;) {
        bool closing = atomic_load(&port->closing);
        if (!closing) { /* a closing port's engine may be gone; the closer harvests */
            engine_harvest(port);
            if (port->thread_bound)
                port_inbox_read(port);
        }
        enum op_state state = op == NULL ? OP_FREE : (enum op_state)atomic_load(&op->state);
        if (state == OP_FREE || op->token != token || !(op->flags & PORTIO_UNQUEUED)) {
            result = closing ? PORTIO_CLOSED : PORTIO_INVALID;
            break;
        }
        if (state == OP_DONE) {
            record_packet(op, record);
            result = 1;
            break;
        }
        if (closing) {
            result = PORTIO_CLOSED;
            break;
        }
        if (waited && deadline != DEADLINE_NEVER && monotonic_now() >= deadline)
            break;
        if (deadline == DEADLINE_POLL && port->reaper != NULL)
            break;
        if (listens && port_heard(port, &me)) {
            result = PORTIO_INTERRUPTED;
            break;
        }
        port_balance(port);
        if (!waiter_sleep(port, &me, deadline)) {
            result = PORTIO_INTERRUPTED;
            break;
        }
        waited = true;
    }
    others_remove(port, &me);
    port_unlisten(port, &me);
    if (port->reaper == &me)
        port->reaper = NULL;
    if (had_place)
        member_take_place(port, member);
    port_balance(port);
    port_unlock(port);
    return result == 0 && stays_awake ? PORTIO_WOULD_SLEEP : result;
}

int portio_wait(portio_port *port, uint64_t token, portio_completion *record, int64_t timeout)
{
    return operation_wait(port, token, record, timeout, SLEEP_NOT);
}

int portio_wait_until(portio_port *port, uint64_t token, portio_completion *record,
                      int64_t timeout, int64_t descriptor)
{
    return operation_wait(port, token, record, timeout, descriptor);
}

static bool port_is_idle(const portio_port *port, const struct waiter *me)
{
    /* A thread that was granted a packet has left the stack, but not the port. */
    return port->active == 0 && atomic_load(&port->users) == 0 && port->top == NULL &&
           port->grants == 0 && port->others == me && me->below == NULL &&
           (port->reaper == NULL || port->reaper == me);
}

/* Waits until nothing is pending and nobody is in the port; for a closing port. */
void port_wait_idle(portio_port *port)
{
    struct waiter me = {.member = NULL};
    port_lock(port);
    others_add(port, &me);
    port_balance(port);
    for (;;) {
        engine_harvest(port);
        if (port->thread_bound)
            port_inbox_read(port);
        if (port_is_idle(port, &me))
            break;
        /* Signals have to wait: memory is given back after this. */
        if (port->reaper == NULL || port->reaper == &me) {
            port_drive(port, &me, DEADLINE_NEVER);
        } else {
            atomic_store_explicit(&me.word, 0, memory_order_relaxed);
            port_unlock(port);
            futex_wait(&me.word, 0, DEADLINE_NEVER);
            port_lock(port);
        }
    }
    others_remove(port, &me);
    port->reaper = NULL;
    port_unlock(port);
}

/* Waits until another thread has closed the port. */
void port_wait_closed(portio_port *port)
{
    while (atomic_load(&port->closed_word) == 0)
        futex_wait(&port->closed_word, 0, DEADLINE_NEVER);
    futex_wake(&port->closed_word); /* each wakes the next */
}
