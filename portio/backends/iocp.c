/* The port itself: created, closed and drained.

   Closing (P7) has two parts.  Threads that are inside of the door must leave:
   those that wait are woken, the others are not waiting.  And every operation must
   come back from the system, whatever the peer does: all are cancelled, and the
   closing thread takes their packets.  Only then is the port's handle closed and
   may memory be freed. */
#include "iocp.h"

#include <stdlib.h>

/* Different values, so that no linker finds them to be one. */
const char iocp_key_io = 1, iocp_key_done = 2, iocp_key_post = 3, iocp_key_wake = 4;

/* While it closes, a thread looks this often whether the others have left: their
   leaving makes a packet, but at the concurrency cap the kernel may keep it. */
#define CLOSING_LOOK_MS 10

bool port_may(const portio_port *port)
{
    return port->owner == 0 || thread_serial() == port->owner;
}

int port_enter(portio_port *port)
{
    if (!port_may(port)) /* the owner may have ended, and another thread have closed it */
        return port_is_closing(port) ? PORTIO_CLOSED : PORTIO_WRONG_THREAD;
    InterlockedIncrement(&port->users);
    /* A full barrier is in between: we see that the port closes, or who closes it
       sees us. */
    if (!port_is_closing(port))
        return 0;
    port_leave(port);
    return PORTIO_CLOSED;
}

/* The last access to the port of a call, or of a callback.  While the port closes
   it is made under the lock: who frees the port afterwards has had it since. */
static void count_down(portio_port *port, volatile LONG *count)
{
    if (!port_is_closing(port)) {
        InterlockedDecrement(count);
        return;
    }
    port_lock(port);
    InterlockedDecrement(count);
    if (!port->closed)
        PostQueuedCompletionStatus(port->port, 0, KEY_WAKE, NULL);
    port_unlock(port);
}

void port_leave(portio_port *port)
{
    count_down(port, &port->users);
}

void port_callback_over(portio_port *port)
{
    count_down(port, &port->callbacks);
}

void port_wake_closer(portio_port *port)
{
    PostQueuedCompletionStatus(port->port, 0, KEY_WAKE, NULL);
}

int portio_port_create(const portio_options *options, portio_port **out)
{
    *out = NULL;
    portio_port *port = calloc(1, sizeof *port);
    if (port == NULL)
        return PORTIO_NO_MEMORY;
    InitializeSRWLock(&port->lock);
    InitializeSRWLock(&port->timers.gate);
    InitializeConditionVariable(&port->calls_done);
    InitializeConditionVariable(&port->closed_now);
    port->features = features_find() & ~(uint32_t)options->disabled_features;
    port->main_thread = (DWORD)options->main_thread;
    if (port->main_thread != 0)
        interrupt_watch(port->main_thread);
    int refused = slots_reserve(&port->slots, port, 1);
    if (refused == 0 && options->thread_bound) {
        port->owner = thread_serial();
        refused = port->owner != 0 ? 0 : PORTIO_NO_MEMORY;
    }
    if (refused == 0)
        refused = timers_open(port);
    if (refused == 0) {
        /* The owner of a thread-bound port is alone: nothing is to hold it up. */
        DWORD concurrency = options->thread_bound ? MAXLONG : options->concurrency;
        if (concurrency > MAXLONG)
            concurrency = MAXLONG; /* the kernel's number is signed */
        port->port = CreateIoCompletionPort(INVALID_HANDLE_VALUE, NULL, 0, concurrency);
        if (port->port == NULL)
            refused = PORTIO_SYSTEM - (int)GetLastError();
    }
    if (refused != 0) {
        timers_close(port);
        port->closed = true;
        portio_port_free(port);
        return refused;
    }
    *out = port;
    return 0;
}

void portio_port_free(portio_port *port)
{
    if (port == NULL || !port->closed)
        return; /* never closed: the system may still write to what we would free */
    handles_destroy(&port->handles);
    slots_destroy(&port->slots);
    free(port);
}

int portio_reserve(portio_port *port, uint32_t slots)
{
    port_lock(port);
    int refused = slots_reserve(&port->slots, port, slots);
    port_unlock(port);
    return refused;
}

int64_t portio_fileno(portio_port *port)
{
    int refused = port_enter(port);
    if (refused != 0)
        return refused;
    port_leave(port);
    return PORTIO_UNSUPPORTED; /* completion ports have no descriptor … */
}

/* ReadFile and WriteFile have no such thing.  (SetFileIoOverlappedRange is about the OVERLAPPED
   structures; I/O rings, since Windows 11, have registered buffers, but no completion port.) */
int portio_region_open(portio_port *port, void *memory, uint64_t length, uint32_t *number)
{
    (void)memory, (void)number;
    int refused = port_enter(port);
    if (refused != 0)
        return refused;
    port_leave(port);
    return length == 0 ? PORTIO_INVALID : PORTIO_UNSUPPORTED;
}

int portio_region_close(portio_port *port, uint32_t *number)
{
    (void)port, (void)number;
    return PORTIO_INVALID;
}

int64_t portio_system_handle(portio_port *port)
{
    int refused = port_enter(port);
    if (refused != 0)
        return refused;
    port_leave(port);
    return (int64_t)(intptr_t)port->port; /* … but they are one handle */
}

int portio_blocking(portio_port *port, int enter)
{
    if (!port_may(port))
        return PORTIO_WRONG_THREAD;
    /* The kernel sees by itself that a thread blocks. */
    return enter && port_is_closing(port) ? PORTIO_CLOSED : 0;
}

/* ---- closing ---- */

static void packets_drain(portio_port *port)
{
    OVERLAPPED_ENTRY entries[64];
    ULONG count = 0;
    if (!GetQueuedCompletionStatusEx(port->port, entries, 64, &count, CLOSING_LOOK_MS, FALSE))
        return;
    for (ULONG at = 0; at < count; at++) {
        if (entries[at].lpCompletionKey != KEY_IO)
            continue; /* complete already, or nothing at all */
        struct op *op = slots_of_packet(&port->slots, entries[at].lpOverlapped);
        if (op != NULL)
            op_arrive(port, op, op_answer_of(&entries[at]), NULL);
    }
}

static void port_drain(portio_port *port)
{
    for (;;) {
        port_lock(port);
        bool alone = port->users == 0 && port->callbacks == 0;
        bool idle = alone && port->active == 0;
        port_unlock(port);
        if (idle)
            return;
        threads_wake(port);
        packets_drain(port);
        if (alone)
            ops_collect(port);
    }
}

int portio_port_close(portio_port *port, int owner_ended)
{
    if (!port_may(port) && !owner_ended)
        return PORTIO_WRONG_THREAD;
    port_lock(port);
    if (InterlockedExchange(&port->closing, 1) != 0) {
        while (!port->closed)
            SleepConditionVariableSRW(&port->closed_now, &port->lock, INFINITE, 0);
        port_unlock(port);
        return 0;
    }
    port_unlock(port);
    ops_cancel_all(port);
    port_drain(port);
    timers_close(port);
    handles_give_back(port);
    ops_discard(port);
    port_lock(port);
    port->closed = true; /* first: from now on nobody uses the number */
    WakeAllConditionVariable(&port->closed_now);
    port_unlock(port);
    CloseHandle(port->port);
    return 0;
}
