/* The life of an operation, from submission to completion: see iocp.h for its
   states and for who may touch what. */
#include "iocp.h"

#include <stdlib.h>

/* ---- steps ---- */

enum step op_step(portio_port *port, struct op *op)
{
    switch (op->kind) {
    case PORTIO_TIMER:
        return timer_step(port, op);
    case PORTIO_READ:
    case PORTIO_WRITE:
    case PORTIO_SYNC:
        return file_step(port, op);
    case PORTIO_SENDFILE:
        return sendfile_step(port, op);
    default:
        return socket_step(port, op);
    }
}

bool op_settle(struct op *op, uint32_t error, DWORD bytes)
{
    if (error != 0 && (op->handle->closing || error_is_abort(error))) {
        op->error = op_abort_error(op);
        return true;
    }
    switch (op->kind) {
    case PORTIO_READ:
    case PORTIO_WRITE:
        return file_settle(op, error, bytes);
    case PORTIO_SENDFILE:
        return sendfile_settle(op, error, bytes);
    default:
        return socket_settle(op, error, bytes);
    }
}

uint32_t op_abort_error(const struct op *op)
{
    bool received = op->kind == PORTIO_READ && op->handle->type == PORTIO_PIPE && op->nbytes > 0;
    return op->end_wanted || received ? 0 : ERROR_OPERATION_ABORTED;
}

void op_release(struct op *op)
{
    if (op->accepted != INVALID_SOCKET)
        closesocket(op->accepted);
    op->accepted = INVALID_SOCKET;
    if (op->source != NULL)
        CloseHandle(op->source);
    op->source = NULL;
    free(op->block);
    op->block = NULL;
}

void record_fill(struct op *op, portio_completion *record)
{
    record->token = op->token;
    record->nbytes = op->nbytes;
    record->status = (int64_t)op->error;
    if (op_goes_on(op)) {
        turn_fill(op, record);
        op->state = OP_TURN;
        return;
    }
    op->state = OP_FREE; /* from here on Python may use the slot again */
}

/* The head of a direction's queue, if it waits for its turn.  Lock held. */
static struct op *queue_claim(struct handle *handle, enum direction direction)
{
    struct op *head = handle->queue[direction].head;
    if (head == NULL || head->state != OP_QUEUED || head->parked ||
        order_is_held(handle, direction))
        return NULL;
    head->state = OP_CLAIMED;
    return head;
}

/* An operation is complete: gives who may go on in its place.  Lock held. */
static struct op *op_leave(portio_port *port, struct op *op)
{
    struct handle *handle = op->handle;
    struct op *next = NULL;
    port->active--;
    if (handle == NULL)
        return NULL;
    if (op_is_ordered(op)) {
        enum direction direction = op_direction(op);
        order_leave(handle, op);
        next = queue_claim(handle, direction);
    }
    if (!op_goes_on(op)) {
        handle_leave_locked(port, handle);
        if (op_is_pooled(op))
            pool_pass_on(port, op);
    }
    return next;
}

/* Queues the packet of a complete operation. */
static void op_queue(portio_port *port, struct op *op)
{
    if (PostQueuedCompletionStatus(port->port, 0, KEY_DONE, &op->overlapped))
        return;
    /* The system has no memory for it: we have. */
    port_lock(port);
    op_list_append(&port->stash, op);
    InterlockedExchange(&port->stashed, 1);
    port_unlock(port);
    threads_wake(port);
}

/* A claimed operation is complete; gives who may go on. */
static struct op *op_finish(portio_port *port, struct op *op)
{
    op_release(op);
    port_lock(port);
    struct op *next = op_leave(port, op);
    bool skipped = quiet_skips(op);
    op->state = skipped ? OP_FREE : OP_DONE;
    bool queued = !skipped && !op_is_unqueued(op);
    if (op_is_unqueued(op))
        SetEvent(op->done_event);
    bool closing = port_is_closing(port);
    port_unlock(port);
    if (closing)
        port_wake_closer(port);
    else if (queued)
        op_queue(port, op);
    heirs_run(port);
    return next;
}

void op_complete(portio_port *port, struct op *op)
{
    op_run(port, op_finish(port, op));
}

/* After a step was issued: a cancellation may have come when the system did not
   have the operation yet.  The record may be another's by now. */
static void op_cancel_again(portio_port *port, struct op *op, uint64_t token)
{
    port_lock(port);
    if (op->token == token && op->state == OP_ISSUED && op->cancel_wanted &&
        op->handle != NULL && !op->handle->abandoned)
        CancelIoEx(op->handle->handle, &op->overlapped);
    port_unlock(port);
}

/* `fresh`: the caller has checked what the handle's number means, just now. */
static void op_drive(portio_port *port, struct op *op, bool fresh)
{
    for (; op != NULL; fresh = false) {
        uint64_t token = op->token;
        struct handle *handle = op->handle;
        port_lock(port);
        bool cancelled = op->cancel_wanted || (handle != NULL && handle->closing);
        if (!cancelled) {
            if (handle != NULL)
                InterlockedIncrement(&handle->calls);
            op->state = OP_ISSUED;
        }
        port_unlock(port);
        if (cancelled) {
            op->error = op_abort_error(op);
            op = op_finish(port, op);
            continue;
        }
        enum step step = STEP_DONE;
        if (fresh || handle == NULL || socket_is_same(handle))
            step = op_step(port, op);
        else
            op->error = WSAENOTSOCK;
        if (handle != NULL)
            handle_calls_leave(port, handle);
        if (step == STEP_DONE) {
            op = op_finish(port, op);
        } else if (step == STEP_ISSUED) {
            if (op->cancel_wanted)
                op_cancel_again(port, op, token);
            return;
        }
    }
}

void op_run(portio_port *port, struct op *op)
{
    op_drive(port, op, false);
}

void op_continue(portio_port *port, struct op *op)
{
    port_lock(port);
    op->state = OP_CLAIMED;
    port_unlock(port);
    op_run(port, op);
}

/* What has become of a step, by what the system wrote to the record.  Wine 8 writes
   nothing there when the thread that began the step has ended meanwhile; then the
   packet alone knows.  NT_ALERTED is its word for what that thread had still to do:
   of an Accept, to fetch the addresses, which we do not look at. */
static uint32_t step_status(const struct op *op, const struct op_answer *answer)
{
    uint32_t written = (uint32_t)op->overlapped.Internal;
    uint32_t status = written != NT_PENDING ? written : answer->status;
    return status == NT_ALERTED && op->kind == PORTIO_ACCEPT ? 0 : status;
}

/* … and of a receive, to receive: what there is waits in the socket. */
static bool step_is_undone(const struct op *op, uint32_t status)
{
    return status == NT_ALERTED && (op->kind == PORTIO_RECV || op->kind == PORTIO_RECVFROM);
}

bool op_arrive(portio_port *port, struct op *op, struct op_answer answer,
               portio_completion *record)
{
    if (op->state != OP_ISSUED)
        return false; /* a packet that nobody has asked for */
    if (InterlockedCompareExchange(&op->calling, CALL_OVERTAKEN, CALL_RUNS) == CALL_RUNS)
        return false; /* who made the call goes on */
    uint32_t status = step_status(op, &answer);
    if (step_is_undone(op, status) ||
        !op_settle(op, error_of_status(op, status), answer.bytes)) {
        op_run(port, op);
        return false;
    }
    if (record == NULL || op_is_unqueued(op)) {
        op_complete(port, op);
        return false;
    }
    op_release(op);
    port_lock(port);
    struct op *next = op_leave(port, op);
    bool closing = port_is_closing(port);
    if (closing)
        op->state = OP_DONE;
    else
        record_fill(op, record);
    port_unlock(port);
    if (closing)
        port_wake_closer(port);
    heirs_run(port);
    op_run(port, next);
    return !closing;
}

/* ---- the thread pool ---- */

static void CALLBACK step_over(PTP_CALLBACK_INSTANCE instance, void *context, PTP_WAIT wait,
                               TP_WAIT_RESULT result)
{
    struct op *op = context;
    portio_port *port = op->port;
    (void)instance, (void)wait, (void)result;
    op_arrive(port, op, op_answer_written(op), NULL);
    port_callback_over(port);
}

bool op_help(portio_port *port, struct op *op, PTP_SIMPLE_CALLBACK work)
{
    port_lock(port);
    op->state = OP_HELPED;
    port_unlock(port);
    InterlockedIncrement(&port->callbacks);
    if (TrySubmitThreadpoolCallback(work, op, NULL))
        return true;
    op->error = GetLastError();
    port_lock(port);
    op->state = OP_CLAIMED;
    port_unlock(port);
    port_callback_over(port);
    return false;
}

static bool events_make(struct op *op)
{
    if (op->step_event == NULL)
        op->step_event = CreateEventW(NULL, TRUE, FALSE, NULL);
    if (op->done_event == NULL)
        op->done_event = CreateEventW(NULL, TRUE, FALSE, NULL);
    if (op->step_wait == NULL)
        op->step_wait = CreateThreadpoolWait(step_over, op, NULL);
    return op->step_event != NULL && op->done_event != NULL && op->step_wait != NULL;
}

void op_overlapped(struct op *op, uint64_t offset)
{
    memset(&op->overlapped, 0, sizeof op->overlapped);
    op->overlapped.Internal = NT_PENDING;
    op->overlapped.Offset = (DWORD)offset;
    op->overlapped.OffsetHigh = (DWORD)(offset >> 32);
    op->calling = CALL_RUNS;
    if (op_is_unqueued(op)) {
        ResetEvent(op->step_event);
        /* The low-order bit: the port hears nothing of it. */
        op->overlapped.hEvent = (HANDLE)((uintptr_t)op->step_event | 1);
    }
}

/* Of an error there is no packet, but of a warning there is one, although the call
   says that it failed: a message that does not fit (lalinsky/zio#733).  So what the
   system has written to the record tells, and not what the call has said. */
static bool packet_comes(const struct op *op, uint32_t error)
{
    return error == 0 || error == ERROR_IO_PENDING ||
           NT_SEVERITY(op->overlapped.Internal) == NT_WARNING;
}

enum step op_called(portio_port *port, struct op *op, uint32_t error)
{
    DWORD bytes = 0;
    if (error == 0 && op->handle->skips) {
        op->calling = CALL_OVER; /* there is no packet, so nobody else looks at it */
        bytes = (DWORD)op->overlapped.InternalHigh;
    } else if (packet_comes(op, error)) {
        if (op_is_unqueued(op)) {
            InterlockedIncrement(&port->callbacks);
            SetThreadpoolWait(op->step_wait, op->step_event, NULL);
        }
        if (InterlockedExchange(&op->calling, CALL_OVER) == CALL_RUNS)
            return STEP_ISSUED; /* the record may be another operation's from here on */
        error = error_of_status(op, (uint32_t)op->overlapped.Internal);
        bytes = (DWORD)op->overlapped.InternalHigh;
    } else {
        InterlockedExchange(&op->calling, CALL_OVER);
    }
    return op_settle(op, error, bytes) ? STEP_DONE : STEP_AGAIN;
}

/* ---- submission ---- */

static int request_check(portio_port *port, const portio_request *request)
{
    struct op *op = slots_find(&port->slots, request->token);
    if (op == NULL || (request->token & PORTIO_SLOT_MASK) == 0 || op->state != OP_FREE)
        return PORTIO_INVALID;
    if (request->kind < PORTIO_ACCEPT || request->kind > PORTIO_TIMER)
        return PORTIO_INVALID;
    const struct handle *handle = NULL;
    if (request->kind != PORTIO_TIMER &&
        (handle = handles_find(&port->handles, request->handle)) == NULL)
        return PORTIO_NO_HANDLE;
    if ((request->flags & PORTIO_MULTISHOT) != 0 && !turn_is_valid(request, handle->type))
        return PORTIO_INVALID;
    if ((request->flags & PORTIO_UNQUEUED) != 0 && !events_make(op))
        return PORTIO_NO_MEMORY;
    return 0;
}

static void op_begin(portio_port *port, const portio_request *request)
{
    struct op *op = slots_find(&port->slots, request->token);
    op->token = request->token;
    op->turns = 0;
    op->overlapped.Internal = NT_PENDING; /* for ops_collect */
    op->handle = NULL;
    op->next = op->previous = NULL;
    op->kind = (uint8_t)request->kind;
    op->flags = (uint8_t)request->flags;
    op->phase = 0;
    op->cancel_wanted = 0;
    op->calling = CALL_OVER;
    op->end_wanted = false;
    op->starting = op->skipped = false;
    op->error = 0;
    op->nbytes = 0;
    op->argument = request->argument;
    op->buffer = request->buffer;
    op->length = request->length;
    op->address = request->address;
    op->address_length = request->address_length;
    op->file = request->file;
    op->parked = false;
    if (op_is_pooled(op))
        pool_begin(op, request->buffer);
    op->state = OP_CLAIMED;
    if (op_is_unqueued(op))
        ResetEvent(op->done_event);
    transfer_begin(op);
    port->active++;
    if (request->kind == PORTIO_TIMER)
        return;
    op->handle = handles_find(&port->handles, request->handle);
    op->handle->pending++;
    if (op_is_ordered(op)) {
        op->state = OP_QUEUED;
        op_list_append(&op->handle->queue[op_direction(op)], op);
    }
}

/* Whether it is ours to start an operation that was just submitted: one without
   order is, one that has become the head of its queue may be.  Lock held. */
static bool op_claim(struct op *op, uint64_t token)
{
    if (op->token != token || op->state == OP_FREE)
        return false; /* somebody else has started it, and it is complete */
    if (op->handle == NULL || !op_is_ordered(op))
        return op->state == OP_CLAIMED;
    /* queue_claim would claim another one that is the head, and nobody start it. */
    enum direction direction = op_direction(op);
    return op->state == OP_QUEUED && op->handle->queue[direction].head == op &&
           queue_claim(op->handle, direction) == op;
}

/* 1: the only request was quiet and has ended already. */
static int requests_start(portio_port *port, const portio_request *requests, uint32_t count,
                          bool may_skip)
{
    int refused = port_enter(port);
    if (refused != 0)
        return refused;
    port_lock(port);
    if (port_is_closing(port))
        refused = PORTIO_CLOSED;
    for (uint32_t at = 0; at < count && refused == 0; at++)
        refused = request_check(port, &requests[at]);
    for (uint32_t at = 0; at < count && refused == 0; at++)
        op_begin(port, &requests[at]);
    may_skip = may_skip && refused == 0;
    struct op *single = may_skip ? slots_find(&port->slots, requests[0].token) : NULL;
    if (may_skip)
        single->starting = true;
    for (uint32_t at = 0; at < count && refused == 0; at++) {
        struct op *op = slots_find(&port->slots, requests[at].token);
        if (!op_claim(op, requests[at].token))
            continue;
        port_unlock(port);
        op_drive(port, op, true);
        port_lock(port);
    }
    if (may_skip)
        refused = quiet_end(single, requests[0].token);
    port_unlock(port);
    port_leave(port);
    return refused;
}

int portio_submit(portio_port *port, const portio_request *requests, uint32_t count)
{
    return requests_start(port, requests, count, false);
}

int portio_submit_one(portio_port *port, uint32_t kind, uint32_t flags, uint64_t handle,
                      uint64_t token, void *buffer, uint64_t length, int64_t argument)
{
    portio_request request = {
        .token = token,
        .handle = handle,
        .kind = kind,
        .flags = flags,
        .buffer = buffer,
        .length = length,
        .argument = argument,
    };
    return requests_start(port, &request, 1, quiet_may_skip(kind, flags));
}

int portio_skipped(portio_port *port, uint64_t token)
{
    int refused = port_enter(port);
    if (refused != 0)
        return refused;
    port_lock(port);
    int skipped = quiet_was_skipped(slots_find(&port->slots, token), token);
    port_unlock(port);
    port_leave(port);
    return skipped;
}

int portio_flush(portio_port *port)
{
    int refused = port_enter(port); /* submissions never wait here */
    if (refused == 0)
        port_leave(port);
    return refused;
}
