/* The packet queue and the waiters: who gets the next packet, and who looks at
   the system.  Everything here runs under the port's lock. */
#include "engine.h"

void port_lock(portio_port *port)
{
    if (!port->thread_bound)
        pthread_mutex_lock(&port->lock);
}

void port_unlock(portio_port *port)
{
    if (port->thread_bound)
        return;
    _Atomic uint32_t *wakes[PORT_WAKES];
    uint32_t count = port->wake_count;
    bool wake_reaper = port->wake_reaper;
    for (uint32_t at = 0; at < count; at++)
        wakes[at] = port->wakes[at];
    port->wake_count = 0;
    port->wake_reaper = false;
    /* The reaper cannot leave engine_wait for good, and so the engine cannot be
       closed, before this wake-up: closing waits for the reaper, who needs the
       lock.  It is therefore sent before the lock is given back. */
    if (wake_reaper)
        engine_wake(port);
    pthread_mutex_unlock(&port->lock);
    /* The others after it, or they would wake up only to wait for the lock. */
    for (uint32_t at = 0; at < count; at++)
        futex_wake(wakes[at]);
}

void port_wake_waiter(portio_port *port, struct waiter *waiter)
{
    if (waiter == port->reaper && port->reaper_waits) {
        /* In the reaper's own thread the engine returns by itself. */
        if (port->reaper_thread != port_thread_mark())
            port->wake_reaper = true;
        return;
    }
    if (atomic_load_explicit(&waiter->word, memory_order_relaxed) != 0)
        return;
    atomic_store_explicit(&waiter->word, 1, memory_order_relaxed);
    if (port_unpark(port, waiter))
        return;
    if (port->wake_count < PORT_WAKES)
        port->wakes[port->wake_count++] = &waiter->word;
    else
        futex_wake(&waiter->word);
}

void port_wake_reaper(portio_port *port)
{
    if (port->reaper != NULL)
        port_wake_waiter(port, port->reaper);
}

void port_queue_packet(portio_port *port, struct op *op)
{
    op_list_append(&port->packets, op);
    if (port->notifying && !port->notified) {
        port->notified = true;
        engine_notify(port);
    }
}

void port_stack_remove(portio_port *port, struct waiter *waiter)
{
    if (!waiter->stacked)
        return;
    if (waiter->above != NULL)
        waiter->above->below = waiter->below;
    else
        port->top = waiter->below;
    if (waiter->below != NULL)
        waiter->below->above = waiter->above;
    waiter->stacked = false;
}

static void waiter_appoint(portio_port *port, struct waiter *waiter)
{
    port->reaper = waiter;
    port->reaper_waits = false;
    port_wake_waiter(port, waiter);
}

bool port_spares(const portio_port *port, const struct waiter *waiter)
{
    return waiter->asks &&
           (port->called != NULL || (waiter->stands_back && port->running > 0));
}

/* The newest waiter (P3) of those that may be called. */
static struct waiter *waiter_next(const portio_port *port)
{
    struct waiter *waiter = port->top;
    while (waiter != NULL && port_spares(port, waiter))
        waiter = waiter->below;
    return waiter;
}

void port_balance(portio_port *port)
{
    if (atomic_load_explicit(&port->closing, memory_order_relaxed)) {
        for (struct waiter *waiter = port->top; waiter != NULL; waiter = waiter->below)
            port_wake_waiter(port, waiter);
        for (struct waiter *waiter = port->others; waiter != NULL; waiter = waiter->below)
            port_wake_waiter(port, waiter);
        return;
    }
    struct waiter *waiter;
    while (port->packets.head != NULL && port->running < port->concurrency &&
           (waiter = waiter_next(port)) != NULL) {
        port_stack_remove(port, waiter);
        if (waiter->asks) {
            waiter->called = true;
            port->called = waiter->member;
        } else {
            waiter->granted = op_list_take(&port->packets);
            member_take_place(port, waiter->member);
        }
        port->grants++;
        port_wake_waiter(port, waiter);
    }
    if (port->reaper != NULL)
        return;
    if (port->running < port->concurrency && (waiter = waiter_next(port)) != NULL)
        waiter_appoint(port, waiter);
    else if (port->others != NULL)
        waiter_appoint(port, port->others);
}

void port_complete_locked(portio_port *port, struct op *op)
{
    if (op->handle != NULL && !op_goes_on(op)) {
        port_handle_leave_locked(port, op->handle);
        struct op *heir = op_is_pooled(op) ? pool_leave(op) : NULL;
        if (heir != NULL)
            engine_lend(port, heir);
    }
    port->active--; /* a closing port does not wait for a turn that nobody may begin */
    if (quiet_skips(op)) {
        /* portio_submit_one says so, under the lock; until then nobody can use
           the slot for another operation. */
        atomic_store_explicit(&op->state, OP_FREE, memory_order_relaxed);
    } else {
        atomic_store_explicit(&op->state, OP_DONE, memory_order_relaxed);
        if (!(op->flags & PORTIO_UNQUEUED))
            port_queue_packet(port, op);
        else
            for (struct waiter *waiter = port->others; waiter != NULL; waiter = waiter->below)
                port_wake_waiter(port, waiter);
    }
    if (port->active == 0 && atomic_load_explicit(&port->closing, memory_order_relaxed))
        port_balance(port);
}

void port_complete(portio_port *port, struct op *op)
{
    port_lock(port);
    port_complete_locked(port, op);
    port_balance(port);
    port_unlock(port);
}

void port_complete_error(portio_port *port, struct op *op, int error)
{
    op->error = error;
    port_complete(port, op);
}
