/* Packets: posted, taken, and the waits for them. */
#include "iocp.h"

#define MOST_ENTRIES 256

int portio_post(portio_port *port, uint64_t token)
{
    /* Any thread may, also where the port is thread-bound. */
    InterlockedIncrement(&port->users);
    int refused = port_is_closing(port) ? PORTIO_CLOSED : 0;
    if (refused == 0 && slots_find(&port->slots, token) == NULL)
        refused = PORTIO_INVALID;
    if (refused == 0 && !PostQueuedCompletionStatus(port->port, 0, KEY_POST,
                                                    (OVERLAPPED *)(uintptr_t)token)) {
        DWORD error = GetLastError();
        bool memory = error == ERROR_NO_SYSTEM_RESOURCES || error == ERROR_NOT_ENOUGH_MEMORY ||
                      error == ERROR_NOT_ENOUGH_QUOTA || error == ERROR_WORKING_SET_QUOTA;
        refused = memory ? PORTIO_NO_MEMORY : PORTIO_SYSTEM - (int)error;
    }
    port_leave(port);
    return refused;
}

/* A packet whose operation is complete. */
static void done_take(portio_port *port, struct op *op, portio_completion *record)
{
    port_lock(port);
    record_fill(op, record);
    port_unlock(port);
}

/* True: `record` is what the packet has brought. */
static bool packet_open(portio_port *port, const OVERLAPPED_ENTRY *entry,
                        portio_completion *record)
{
    if (entry->lpCompletionKey == KEY_POST) {
        record->token = (uint64_t)(uintptr_t)entry->lpOverlapped;
        record->nbytes = 0;
        record->status = 0;
        return true;
    }
    if (entry->lpCompletionKey == KEY_DONE) {
        done_take(port, (struct op *)entry->lpOverlapped, record);
        return true;
    }
    if (entry->lpCompletionKey != KEY_IO)
        return false; /* KEY_WAKE, or somebody else's */
    struct op *op = slots_of_packet(&port->slots, entry->lpOverlapped);
    return op != NULL && op_arrive(port, op, op_answer_of(entry), record);
}

/* Packets that the system had no memory for. */
static uint32_t stash_take(portio_port *port, portio_completion *records, uint32_t limit)
{
    uint32_t count = 0;
    port_lock(port);
    while (count < limit && port->stash.head != NULL) {
        record_fill(op_list_take(&port->stash), &records[count++]);
    }
    if (port->stash.head == NULL)
        InterlockedExchange(&port->stashed, 0);
    port_unlock(port);
    return count;
}

enum took { TOOK_PACKETS, TOOK_NOTHING, TOOK_ERROR };

/* One call of the system; `count` says how many of its packets were for the program. */
static enum took packets_take(portio_port *port, portio_completion *records, uint32_t limit,
                         DWORD milliseconds, uint32_t *count)
{
    OVERLAPPED_ENTRY entries[MOST_ENTRIES];
    ULONG wanted = limit < MOST_ENTRIES ? limit : MOST_ENTRIES;
    ULONG taken = 0;
    *count = 0;
    if (!GetQueuedCompletionStatusEx(port->port, entries, wanted, &taken, milliseconds,
                                     milliseconds != 0)) {
        DWORD error = GetLastError();
        /* The time is over, or a wake-up has come (iocp_thread.c). */
        bool usual = error == WAIT_TIMEOUT || error == WAIT_IO_COMPLETION;
        return usual ? TOOK_NOTHING : TOOK_ERROR;
    }
    for (ULONG at = 0; at < taken; at++) {
        if (!packet_open(port, &entries[at], &records[*count]))
            continue;
        if (++*count < limit)
            records[*count].token = 0; /* marks the end, for who salvages a batch */
    }
    return TOOK_PACKETS;
}

static int get_polling(portio_port *port, portio_completion *records, uint32_t limit)
{
    uint32_t count = 0;
    enum took took = TOOK_PACKETS;
    while (count == 0 && took == TOOK_PACKETS)
        took = packets_take(port, records, limit, 0, &count);
    return took != TOOK_ERROR ? (int)count : PORTIO_SYSTEM - (int)GetLastError();
}

/* Waits for the first packet, and takes it and what is behind it. */
static int get_waiting(portio_port *port, portio_completion *records, uint32_t limit,
                       const struct deadline *deadline)
{
    struct thread *thread = thread_here();
    if (thread == NULL)
        return PORTIO_NO_MEMORY;
    uint32_t count = 0;
    int refused = 0;
    thread_enter_wait(thread, port);
    while (count == 0) {
        if (port_is_closing(port))
            refused = PORTIO_CLOSED;
        else if (interrupt_take(port))
            refused = PORTIO_INTERRUPTED;
        if (refused != 0)
            break;
        if (port->stashed && (count = stash_take(port, records, limit)) > 0)
            break;
        DWORD left = deadline_left(deadline);
        enum took took = packets_take(port, records, limit, left, &count);
        if (took == TOOK_ERROR)
            refused = PORTIO_SYSTEM - (int)GetLastError();
        if (took == TOOK_ERROR || (took == TOOK_NOTHING && left == 0))
            break;
    }
    thread_leave_wait(thread);
    return refused != 0 ? refused : (int)count;
}

int portio_get(portio_port *port, portio_completion *records, uint32_t limit, int64_t timeout)
{
    if (timeout == PORTIO_AS_CALLED) /* nobody is: there are no news */
        timeout = 0;
    if (limit == 0)
        return PORTIO_UNSUPPORTED;
    records[0].token = 0;
    int result = port_enter(port);
    if (result != 0)
        return result;
    if (port->stashed)
        result = (int)stash_take(port, records, limit);
    if (result == 0 && timeout == 0)
        result = get_polling(port, records, limit);
    if (result == 0 && timeout != 0) {
        struct deadline deadline = deadline_after(timeout);
        result = get_waiting(port, records, limit, &deadline);
    }
    if (result > 0 && (uint32_t)result < limit)
        records[result].token = 0;
    port_leave(port);
    return result;
}

/* ---- one operation ---- */

/* What portio_wait finds: 1 and the record; 0: it is pending; or a refusal. */
static int operation_look(portio_port *port, struct op *op, uint64_t token,
                          portio_completion *record)
{
    bool closing = port_is_closing(port);
    int result = 0;
    port_lock(port);
    if (op->state == OP_FREE || op->token != token || !op_is_unqueued(op)) {
        result = closing ? PORTIO_CLOSED : PORTIO_INVALID;
    } else if (op->state == OP_DONE) {
        record_fill(op, record);
        result = 1;
    } else if (closing) {
        result = PORTIO_CLOSED;
    }
    port_unlock(port);
    return result;
}

/* Several threads may wait for one operation.  Whoever takes its record wakes the
   others: its event may be the slot's next operation's before they have seen it. */
static void waiter_enter(portio_port *port, struct op *op)
{
    port_lock(port);
    op->waiters++;
    port_unlock(port);
}

static void waiter_leave(portio_port *port, struct op *op, bool taken)
{
    port_lock(port);
    bool others = --op->waiters > 0;
    port_unlock(port);
    if (taken && others)
        threads_wake(port);
}

int portio_wait(portio_port *port, uint64_t token, portio_completion *record, int64_t timeout)
{
    record->token = 0;
    int result = port_enter(port);
    if (result != 0)
        return result;
    struct thread *thread = thread_here();
    struct op *op = slots_find(&port->slots, token);
    struct deadline deadline = deadline_after(timeout);
    if (thread == NULL || op == NULL) {
        port_leave(port);
        return thread == NULL ? PORTIO_NO_MEMORY : PORTIO_INVALID;
    }
    thread_enter_wait(thread, port);
    waiter_enter(port, op);
    while ((result = operation_look(port, op, token, record)) == 0) {
        if (timeout != 0 && interrupt_take(port)) {
            result = PORTIO_INTERRUPTED;
            break;
        }
        DWORD left = deadline_left(&deadline);
        if (left == 0)
            break;
        /* The event is the record's for ever.  It is set when the operation is
           complete, and stays so until the slot's next unqueued operation. */
        WaitForSingleObjectEx(op->done_event, left, TRUE);
    }
    waiter_leave(port, op, result == 1);
    thread_leave_wait(thread);
    port_leave(port);
    return result;
}

/* A wait of the main thread hears of Ctrl-C by itself (iocp_thread.c), so nothing
   here ever answers PORTIO_WOULD_SLEEP. */
int portio_get_until(portio_port *port, portio_completion *records, uint32_t limit,
                     int64_t timeout, int64_t descriptor)
{
    (void)port;
    (void)records;
    (void)limit;
    (void)timeout;
    (void)descriptor;
    return PORTIO_UNSUPPORTED;
}

int portio_wait_until(portio_port *port, uint64_t token, portio_completion *record,
                      int64_t timeout, int64_t descriptor)
{
    (void)port;
    (void)token;
    (void)record;
    (void)timeout;
    (void)descriptor;
    return PORTIO_UNSUPPORTED;
}
