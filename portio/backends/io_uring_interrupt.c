/* The descriptor of signals (port_interrupt.c) in the ring: a multishot poll, which
   the thread makes that is about to look at the system. */
#include "io_uring.h"

#include <errno.h>

int engine_watch(portio_port *port, int descriptor)
{
    struct engine *engine = port->engine;
    atomic_store(&engine->interrupt_fd, descriptor);
    return 0;
}

/* Whoever looks at the system watches the descriptor of signals too.  A full ring
   is no reason to sleep without it: what is in there is submitted first. */
void uring_watch_interrupts(portio_port *port)
{
    struct engine *engine = port->engine;
    while (atomic_load(&engine->interrupt_fd) >= 0 && !atomic_load(&engine->interrupt_armed)) {
        port_lock(port);
        int fd = atomic_load(&engine->interrupt_fd);
        bool prepared = fd < 0 || atomic_load(&engine->interrupt_armed) ||
                        uring_prepare_poll(port, fd, USER_INTERRUPT);
        if (prepared && fd >= 0)
            atomic_store(&engine->interrupt_armed, true);
        port_unlock(port);
        if (prepared)
            return;
        engine_flush(port);
        if (ring_unsubmitted(&engine->ring) == engine->ring.sq_entries)
            return; /* refused for now, as the wait will be: it comes back soon */
    }
}

/* The poll of the descriptor of signals.  The kernel cancels it when the thread
   that has submitted it ends; the next engine_wait makes it again. */
void uring_interrupted(portio_port *port, const struct uring_cqe *cqe)
{
    struct engine *engine = port->engine;
    if (!(cqe->flags & URING_CQE_MORE))
        atomic_store(&engine->interrupt_armed, false);
    if (cqe->res < 0 && cqe->res != -ECANCELED)
        atomic_store(&engine->interrupt_fd, -1); /* it cannot be watched */
    port_interrupt(port);
}
