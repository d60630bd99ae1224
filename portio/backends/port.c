/* The door's functions for the port itself and for operations: validation,
   locking and bookkeeping; the engine does the work. */
#include "engine.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool port_is_owner(const portio_port *port)
{
    return atomic_load_explicit(&port->owner, memory_order_relaxed) == port_thread_mark();
}

int port_enter(portio_port *port)
{
    if (port->thread_bound)
        return port_is_owner(port) ? 0 : PORTIO_WRONG_THREAD;
    /* Sequentially consistent, like the store to `closing`: either this thread
       sees that the port closes, or the closer sees this user. */
    atomic_fetch_add(&port->users, 1);
    return 0;
}

void port_leave(portio_port *port)
{
    if (port->thread_bound)
        return;
    if (atomic_load(&port->closing)) {
        /* The closer may be asleep in the engine; wake it while we still count
           as a user, so that the engine is there to be woken. */
        port_lock(port);
        atomic_fetch_sub(&port->users, 1);
        port_balance(port);
        port_unlock(port);
        return;
    }
    atomic_fetch_sub(&port->users, 1);
    if (atomic_load(&port->closing)) {
        port_lock(port);
        port_balance(port);
        port_unlock(port);
    }
}

int portio_port_create(const portio_options *options, portio_port **out)
{
    *out = NULL;
    portio_port *port = calloc(1, sizeof *port);
    if (port == NULL)
        return PORTIO_NO_MEMORY;
    port->thread_bound = options->thread_bound != 0;
    port->lazy_submit = options->lazy_submit != 0;
    /* The owner of a thread-bound port is alone: it takes what there is. */
    port->concurrency = port->thread_bound ? UINT32_MAX : options->concurrency;
    port->main_thread = options->main_thread;
    port_set_lineage(port);
    port->interrupt_fd = port->park_fd = -1;
    pthread_mutex_init(&port->lock, NULL);
    pthread_mutex_init(&port->inbox_lock, NULL);
    if (port->thread_bound)
        atomic_store(&port->owner, port_thread_mark());
    int refused = slots_create(&port->slots);
    if (refused == 0)
        refused = handles_create(&port->handles);
    if (refused == 0)
        refused = slots_reserve(&port->slots, SLOT_CHUNK);
    if (refused == 0)
        refused = engine_open(port, options);
    if (refused != 0) {
        atomic_store(&port->closed_word, 1);
        portio_port_free(port);
        return refused;
    }
    *out = port;
    return 0;
}

void portio_port_free(portio_port *port)
{
    if (port == NULL)
        return;
    if (atomic_load(&port->closed_word) == 0) {
        /* Never closed: the system may still write to what we would free, so
           it is kept.  The Python layer does not let this happen. */
        return;
    }
    handles_destroy(&port->handles);
    slots_destroy(&port->slots);
    free(port->inbox);
    pthread_mutex_destroy(&port->inbox_lock);
    pthread_mutex_destroy(&port->lock);
    free(port);
}

int portio_reserve(portio_port *port, uint32_t slots)
{
    if (port->thread_bound && !port_is_owner(port)) {
        /* A post from another thread may need a new slot: the table is then
           grown under the inbox's lock, which the owner takes as well. */
        pthread_mutex_lock(&port->inbox_lock);
        int refused = slots_reserve(&port->slots, slots);
        pthread_mutex_unlock(&port->inbox_lock);
        return refused;
    }
    pthread_mutex_t *lock = port->thread_bound ? &port->inbox_lock : &port->lock;
    pthread_mutex_lock(lock);
    int refused = slots_reserve(&port->slots, slots);
    pthread_mutex_unlock(lock);
    return refused;
}

int64_t portio_fileno(portio_port *port)
{
    int refused = port_enter(port);
    if (refused != 0)
        return refused;
    port_lock(port);
    int64_t result = PORTIO_CLOSED;
    if (!atomic_load(&port->closing)) {
        result = engine_fileno(port);
        if (result >= 0 && !port->notifying) {
            port->notifying = true;
            port->notified = true;
            engine_notify(port); /* there may be packets already */
        }
    }
    port_unlock(port);
    port_leave(port);
    return result;
}

int64_t portio_system_handle(portio_port *port)
{
    int refused = port_enter(port);
    if (refused != 0)
        return refused;
    bool closing = atomic_load(&port->closing);
    port_leave(port);
    return closing ? PORTIO_CLOSED : PORTIO_UNSUPPORTED; /* it has a descriptor */
}

/* ---- operations ---- */

static int request_check(portio_port *port, const portio_request *request)
{
    struct op *op = slots_find(&port->slots, request->token);
    if (op == NULL || (request->token & PORTIO_SLOT_MASK) == 0 ||
        (request->token & INBOX_CANCEL) != 0 ||
        atomic_load_explicit(&op->state, memory_order_relaxed) != OP_FREE)
        return PORTIO_INVALID;
    if (request->kind < PORTIO_ACCEPT || request->kind > PORTIO_TIMER)
        return PORTIO_INVALID;
    const struct handle *handle = NULL;
    if (request->kind != PORTIO_TIMER &&
        (handle = handles_find(&port->handles, request->handle)) == NULL)
        return PORTIO_NO_HANDLE;
    if ((request->flags & PORTIO_MULTISHOT) != 0 && !turn_is_valid(request, handle->type))
        return PORTIO_INVALID;
    return 0;
}

static void operation_begin(portio_port *port, const portio_request *request)
{
    struct op *op = slots_find(&port->slots, request->token);
    op->token = request->token;
    op->turns = 0;
    op->next = op->previous = NULL;
    op->handle = NULL;
    op->kind = (uint8_t)request->kind;
    op->flags = (uint8_t)request->flags;
    op->phase = 0;
    atomic_store_explicit(&op->cancel_wanted, false, memory_order_relaxed);
    op->posted = false;
    op->retries = 0;
    op->waits = false;
    op->cancel = 0;
    op->starting = false;
    op->skipped = false;
    op->parked = false;
    op->error = 0;
    op->nbytes = 0;
    op->argument = request->argument;
    op->buffer = request->buffer;
    op->length = request->length;
    op->address = request->address;
    op->address_length = request->address_length;
    op->file = request->file;
    if (op_is_pooled(op)) { /* of others it is as it was at the beginning: not armed */
        pool_begin(op, request->buffer);
        op->stream = (struct stream){0};
    }
    if (request->kind != PORTIO_TIMER) {
        op->handle = handles_find(&port->handles, request->handle);
        op->handle->pending++;
    }
    port->active++;
    atomic_store_explicit(&op->state, OP_STARTING, memory_order_relaxed);
}

/* 1: the only request was quiet and has ended already.  Inline, for the one request of
   portio_submit_one: the loops are a tenth of what it takes. */
static inline int requests_start(portio_port *port, const portio_request *requests, uint32_t count,
                          bool may_skip)
{
    int refused = port_enter(port);
    if (refused != 0)
        return refused;
    port_lock(port);
    if (atomic_load_explicit(&port->closing, memory_order_relaxed))
        refused = PORTIO_CLOSED;
    for (uint32_t at = 0; at < count && refused == 0; at++)
        refused = request_check(port, &requests[at]);
    for (uint32_t at = 0; at < count && refused == 0; at++)
        operation_begin(port, &requests[at]);
    may_skip = may_skip && refused == 0;
    struct op *single = may_skip ? slots_find(&port->slots, requests[0].token) : NULL;
    if (may_skip)
        single->starting = true;
    port_unlock(port);
    if (refused == 0) {
        for (uint32_t at = 0; at < count; at++)
            engine_start(port, slots_find(&port->slots, requests[at].token));
        if (!port->lazy_submit)
            engine_flush(port);
    }
    if (may_skip) {
        port_lock(port);
        refused = quiet_end(single, requests[0].token);
        port_unlock(port);
    }
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

void port_cancel_token(portio_port *port, uint64_t token)
{
    port_lock(port);
    struct op *op = slots_find(&port->slots, token);
    bool pending = false;
    if (op != NULL && op_is_meant(op, token)) {
        enum op_state state = (enum op_state)atomic_load(&op->state);
        /* Between two turns the system may have something of it all the same. */
        pending = state == OP_STARTING || state == OP_QUEUED || state == OP_ISSUED ||
                  op->stream.armed != 0;
        token = op->token;
        /* A multishot operation between two turns finds it when it goes on. */
        if (pending || (op->flags & PORTIO_MULTISHOT))
            atomic_store(&op->cancel_wanted, true);
    }
    port_unlock(port);
    if (pending)
        engine_cancel(port, op, token);
}

int portio_cancel(portio_port *port, uint64_t token)
{
    if (port->thread_bound && !port_is_owner(port))
        return port_inbox_put(port, token | INBOX_CANCEL);
    int refused = port_enter(port);
    if (refused != 0)
        return refused;
    if (atomic_load(&port->closing)) {
        refused = PORTIO_CLOSED;
    } else {
        port_cancel_token(port, token);
        engine_flush(port);
    }
    port_leave(port);
    return refused;
}

int portio_flush(portio_port *port)
{
    int refused = port_enter(port);
    if (refused != 0)
        return refused;
    if (atomic_load(&port->closing))
        refused = PORTIO_CLOSED;
    else
        engine_flush(port);
    port_leave(port);
    return refused;
}

/* ---- packets ---- */

void port_queue_post(portio_port *port, uint64_t token)
{
    struct op *op = slots_find(&port->slots, token);
    op->token = token;
    op->handle = NULL;
    op->flags = 0;
    op->posted = true;
    op->error = 0;
    op->nbytes = 0;
    atomic_store_explicit(&op->state, OP_DONE, memory_order_relaxed);
    port_queue_packet(port, op);
}

int portio_post(portio_port *port, uint64_t token)
{
    if (slots_find(&port->slots, token) == NULL || (token & INBOX_CANCEL) != 0)
        return PORTIO_INVALID;
    if (port->thread_bound && !port_is_owner(port))
        return port_inbox_put(port, token);
    int refused = port_enter(port);
    if (refused != 0)
        return refused;
    port_lock(port);
    if (atomic_load_explicit(&port->closing, memory_order_relaxed)) {
        refused = PORTIO_CLOSED;
    } else {
        engine_harvest(port); /* what finished before comes before (P2) */
        port_queue_post(port, token);
        port_balance(port);
    }
    port_unlock(port);
    port_leave(port);
    return refused;
}

int portio_blocking(portio_port *port, int enter)
{
    bool closed = enter && atomic_load(&port->closing);
    if (port->thread_bound)
        return !port_is_owner(port) ? PORTIO_WRONG_THREAD : closed ? PORTIO_CLOSED : 0;
    struct member *member = port_member(port);
    if (member == NULL)
        return PORTIO_NO_MEMORY;
    int had_place = 0;
    port_lock(port);
    member_come(port, member);
    if (closed) {
        had_place = PORTIO_CLOSED;
    } else if (enter) {
        had_place = member_leave_place(port, member);
    } else {
        member_take_place(port, member); /* may overshoot the cap for a while (P4) */
    }
    port_balance(port);
    port_unlock(port);
    return had_place;
}

/* ---- closing ---- */

static void everything_cancel(portio_port *port)
{
    uint32_t slots = atomic_load(&port->slots.count);
    for (uint32_t slot = 1; slot < slots; slot++) {
        struct op *op = slots_at(&port->slots, slot);
        if (atomic_load(&op->state) != OP_FREE) {
            port_lock(port);
            uint64_t token = op->token;
            port_unlock(port);
            port_cancel_token(port, token);
        }
    }
}

/* Completions that nobody will take: an accepted socket has no owner yet. */
static void completions_discard(portio_port *port)
{
    uint32_t slots = atomic_load(&port->slots.count);
    port_lock(port); /* a thread in portio_wait may be taking one of them */
    for (uint32_t slot = 1; slot < slots; slot++) {
        struct op *op = slots_at(&port->slots, slot);
        if (atomic_load(&op->state) == OP_FREE)
            continue;
        if (atomic_load(&op->state) == OP_DONE && !op->posted && op->kind == PORTIO_ACCEPT &&
            op->error == 0)
            close((int)op->nbytes);
        atomic_store(&op->state, OP_FREE);
    }
    port->packets = (struct op_list){NULL, NULL};
    port_unlock(port);
}

static void handles_give_back(portio_port *port)
{
    for (uint32_t index = 0; index < port->handles.count; index++) {
        struct handle *handle = handles_at(&port->handles, index);
        if (handle->id != 0) {
            handle->id = 0;
            engine_handle_release(port, handle);
        }
    }
}

int portio_port_close(portio_port *port, int owner_ended)
{
    bool adopt = port->thread_bound && !port_is_owner(port);
    if (adopt && !owner_ended)
        return PORTIO_WRONG_THREAD;
    port_lock(port);
    if (atomic_exchange(&port->closing, true)) {
        port_unlock(port);
        port_wait_closed(port);
        return 0;
    }
    port_balance(port); /* wakes everybody: they leave */
    port_unlock(port);
    port_inbox_close(port);
    bool engine_lives = true;
    if (adopt) {
        atomic_store(&port->owner, port_thread_mark());
        engine_lives = engine_adopt(port);
    }
    if (engine_lives) {
        everything_cancel(port);
        engine_flush(port);
        port_wait_idle(port);
        handles_give_back(port);
        engine_close(port);
    }
    port_members_drop(port);
    completions_discard(port);
    port_park_close(port);
    port->active = 0;
    atomic_store(&port->closed_word, 1);
    futex_wake(&port->closed_word);
    return 0;
}
