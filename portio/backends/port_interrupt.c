/* Signals end the main thread's wait (P8).

   A signal ends a sleep in the system only if it finds the thread there, and only
   in the thread that the system gave it to.  So the main thread brings a
   descriptor that its signals make readable (portio_get_until), and becomes the
   port's *listener* while it waits.  Wherever it sleeps, that descriptor is
   watched too: as the reaper by the engine, which watches it for good
   (engine_watch); otherwise, because there may be no reaper, in the very call in
   which it sleeps, port_park, in place of its futex.

   The engine tells of the descriptor once each time, and perhaps to another
   thread, perhaps before the main thread is here.  `interrupted` keeps the news
   until the listener takes it; news that is old by then ends a wait for nothing,
   and the caller comes back.

   The listener is a waiter like any other, and everything here is under the
   port's lock, like the waiters. */
#include "engine.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

bool port_in_main_thread(const portio_port *port)
{
    return port->main_thread != 0 && (uint64_t)(uintptr_t)pthread_self() == port->main_thread;
}

static bool descriptor_watch(portio_port *port, int descriptor)
{
    if (port->interrupt_fd == descriptor)
        return true;
    if (port->interrupt_fd >= 0 || engine_watch(port, descriptor) != 0)
        return false;
    port->interrupt_fd = descriptor;
    if (!port->thread_bound) /* without it the listener parks on its futex */
        port->park_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return true;
}

/* False: no descriptor, or the system is short of what watching it takes; the wait
   is an ordinary one then.  A closing port, whose engine may be gone, has none. */
bool port_listen(portio_port *port, int64_t descriptor, struct waiter *me)
{
    if (descriptor < 0 || atomic_load_explicit(&port->closing, memory_order_relaxed) ||
        !descriptor_watch(port, (int)descriptor))
        return false;
    port->listener = me;
    return true;
}

bool port_heard(portio_port *port, const struct waiter *me)
{
    if (port->listener != me || !port->interrupted)
        return false;
    port->interrupted = false;
    return true;
}

void port_unlisten(portio_port *port, const struct waiter *me)
{
    if (port->listener == me)
        port->listener = NULL;
}

void port_interrupt(portio_port *port)
{
    port->interrupted = true;
    /* In the main thread itself it is seen without being woken. */
    if (port->listener != NULL && !port_in_main_thread(port))
        port_wake_waiter(port, port->listener);
}

bool port_unpark(portio_port *port, const struct waiter *waiter)
{
    if (waiter != port->listener || port->park_fd < 0)
        return false;
    /* With the lock held, so that the descriptor is open.  It is never full: each
       time the listener parks it is woken once at most. */
    uint64_t one = 1;
    (void)!write(port->park_fd, &one, sizeof one);
    return true;
}

/* Like futex_wait for the listener; the lock is given up meanwhile. */
enum futex_result port_park(portio_port *port, struct waiter *me, int64_t deadline)
{
    struct pollfd sources[] = {
        {.fd = port->park_fd, .events = POLLIN},
        {.fd = port->interrupt_fd, .events = POLLIN},
    };
    atomic_store_explicit(&me->word, 0, memory_order_relaxed);
    port_unlock(port);
    struct timespec left;
    if (deadline != DEADLINE_NEVER) {
        int64_t nanoseconds = deadline - monotonic_now();
        if (nanoseconds < 0)
            nanoseconds = 0;
        left = (struct timespec){nanoseconds / 1000000000, nanoseconds % 1000000000};
    }
    int count = ppoll(sources, 2, deadline == DEADLINE_NEVER ? NULL : &left, NULL);
    int error = errno;
    if (count > 0 && sources[0].revents != 0) {
        uint64_t wakes;
        (void)!read(sources[0].fd, &wakes, sizeof wakes);
    }
    port_lock(port);
    if (count == 0)
        return FUTEX_TIMED_OUT;
    if (count > 0)
        return sources[1].revents != 0 ? FUTEX_SIGNALLED : FUTEX_WOKEN;
    if (error == EINTR)
        return FUTEX_SIGNALLED;
    /* EINVAL: the limit of descriptors is below two; ENOMEM.  The futex works. */
    port_park_close(port);
    return FUTEX_WOKEN;
}

/* The end of parking, but not of watching, which lasts as long as the engine.  By
   the listener with the lock, or when the port is closed and has no waiters. */
void port_park_close(portio_port *port)
{
    if (port->park_fd >= 0)
        close(port->park_fd);
    port->park_fd = -1;
}
