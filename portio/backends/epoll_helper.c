/* Helper threads, for calls that may sleep: files whose data is not in the page
   cache, writes that the file system does not do at once, Sync.

   At most four, started when there is work that no idle thread will take, and
   ended with the port.  They run C alone and never need the GIL.  A signal is
   never delivered to them: the program's threads are to see it (P8).

   A helper thread owns an operation from PLACE_RUNNING until it has put it on
   one of the two lists of results.  In between it touches the operation, its
   buffers and the descriptor; of the handle nothing but `uses`, which is
   atomic.  So it works for a thread-bound port as it does for a shared one.

   Waking.  The list that was empty gets a write to the engine's eventfd.  The
   reader takes the list as a whole, so that a list with something on it always
   has a wake-up that came after the last taking, or is about to get it. */
#include "epoll.h"

#include <errno.h>
#include <signal.h>
#include <unistd.h>

static void queue_append(struct helpers *helpers, struct op *op)
{
    op->place = PLACE_WAITING;
    op->u.helper.next = NULL;
    op->u.helper.previous = helpers->last;
    if (helpers->last != NULL)
        helpers->last->u.helper.next = op;
    else
        helpers->first = op;
    helpers->last = op;
    helpers->waiting++;
}

static void queue_remove(struct helpers *helpers, struct op *op)
{
    struct op *next = op->u.helper.next, *previous = op->u.helper.previous;
    if (previous != NULL)
        previous->u.helper.next = next;
    else
        helpers->first = next;
    if (next != NULL)
        next->u.helper.previous = previous;
    else
        helpers->last = previous;
    op->u.helper.next = NULL;
    op->place = PLACE_NONE;
    helpers->waiting--;
}

/* Lock held.  True: the list was empty, and its reader has to be told. */
static bool result_append(struct helpers *helpers, struct op *op)
{
    bool on_file = op->handle->type == PORTIO_FILE;
    struct op **first = on_file ? &helpers->finished : &helpers->returned;
    struct op **last = on_file ? &helpers->finished_last : &helpers->returned_last;
    bool empty = *first == NULL;
    op->u.helper.next = NULL;
    if (empty)
        *first = op;
    else
        (*last)->u.helper.next = op;
    *last = op;
    /* A hint may be read as false too late, never too early: whoever is told
       reads it after the wake-up, which the kernel orders behind this store. */
    atomic_store_explicit(on_file ? &helpers->any_finished : &helpers->any_returned, true,
                          memory_order_release);
    return empty;
}

/* ---- the work ---- */

/* Carries an operation as far as it goes.  fd stays open meanwhile: `uses`. */
static enum place helper_work(struct op *op)
{
    if (op->handle->type != PORTIO_FILE && op->kind == PORTIO_SENDFILE)
        return sendfile_help(op) == ATTEMPT_BLOCKED ? PLACE_BLOCKED : PLACE_DONE;
    file_help(op);
    return PLACE_DONE;
}

/* Works on an operation and puts it on its list of results.  Lock held before
   and after, not during. */
static void helper_carry(portio_port *port, struct op *op)
{
    struct helpers *helpers = &port->engine->helpers;
    op->place = PLACE_RUNNING;
    pthread_mutex_unlock(&helpers->lock);
    enum place place = helper_work(op);
    /* Before the result can be seen: then the operation may complete, and the
       handle's record with it. */
    handle_use_end(op->handle);
    pthread_mutex_lock(&helpers->lock);
    op->place = (uint8_t)place;
    if (result_append(helpers, op))
        engine_wake(port); /* under the lock: a closing engine waits for it */
}

static void *helper_main(void *argument)
{
    portio_port *port = argument;
    struct helpers *helpers = &port->engine->helpers;
    pthread_setname_np(pthread_self(), "portio-helper"); /* for top(1), gdb(1) */
    pthread_mutex_lock(&helpers->lock);
    for (;;) {
        while (helpers->first == NULL && !helpers->stop) {
            helpers->idle++;
            pthread_cond_wait(&helpers->work, &helpers->lock);
            helpers->idle--;
        }
        struct op *op = helpers->first;
        if (op == NULL)
            break;
        queue_remove(helpers, op);
        helper_carry(port, op);
    }
    pthread_mutex_unlock(&helpers->lock);
    return NULL;
}

/* ---- for the engine ---- */

int helpers_open(struct helpers *helpers)
{
    int error = pthread_cond_init(&helpers->work, NULL);
    if (error != 0)
        return -error;
    pthread_mutex_init(&helpers->lock, NULL); /* cannot fail with default attributes */
    return 0;
}

/* Nothing is pending, so that there is nothing but idle threads to end. */
void helpers_close(struct helpers *helpers)
{
    pthread_mutex_lock(&helpers->lock);
    helpers->stop = true;
    pthread_cond_broadcast(&helpers->work);
    pthread_mutex_unlock(&helpers->lock);
    for (uint32_t at = 0; at < helpers->count; at++)
        pthread_join(helpers->threads[at], NULL);
    pthread_cond_destroy(&helpers->work);
    pthread_mutex_destroy(&helpers->lock);
}

/* Lock held.  One more thread, unless there are enough.  Failing for want of
   threads or memory (EAGAIN) is no error while there is another thread. */
static void helpers_grow(portio_port *port)
{
    struct helpers *helpers = &port->engine->helpers;
    if (helpers->count == HELPERS_MOST || helpers->waiting <= helpers->idle)
        return;
    sigset_t all, former;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &former); /* the new thread inherits it */
    pthread_t *thread = &helpers->threads[helpers->count];
    if (pthread_create(thread, NULL, helper_main, port) == 0)
        helpers->count++;
    pthread_sigmask(SIG_SETMASK, &former, NULL);
}

bool helpers_give(portio_port *port, struct op *op)
{
    struct helpers *helpers = &port->engine->helpers;
    if (!handle_use_begin(op->handle))
        return false;
    pthread_mutex_lock(&helpers->lock);
    /* Whoever cancels sets cancel_wanted, or ends the handle, before it looks
       into the queue under this lock: either it finds the operation there, or
       this finds the mark. */
    bool ended = atomic_load(&op->cancel_wanted) || handle_use_ended(op->handle);
    if (!ended) {
        queue_append(helpers, op);
        helpers_grow(port);
        if (helpers->count == 0) {
            /* No thread at all: sleep here rather than fail. */
            queue_remove(helpers, op);
            helper_carry(port, op);
        } else {
            pthread_cond_signal(&helpers->work);
        }
    }
    pthread_mutex_unlock(&helpers->lock);
    if (ended)
        handle_use_end(op->handle);
    return !ended;
}

bool helpers_take_back(struct helpers *helpers, struct op *op)
{
    pthread_mutex_lock(&helpers->lock);
    bool waiting = op->place == PLACE_WAITING;
    if (waiting)
        queue_remove(helpers, op);
    pthread_mutex_unlock(&helpers->lock);
    return waiting;
}

struct op *helpers_take_back_all(struct helpers *helpers, const struct handle *handle)
{
    struct op *taken = NULL, **end = &taken;
    pthread_mutex_lock(&helpers->lock);
    for (struct op *op = helpers->first, *next; op != NULL; op = next) {
        next = op->u.helper.next;
        if (op->handle != handle)
            continue;
        queue_remove(helpers, op);
        *end = op;
        end = &op->u.helper.next;
    }
    pthread_mutex_unlock(&helpers->lock);
    return taken;
}

static struct op *results_take(struct helpers *helpers, struct op **first, _Atomic bool *any)
{
    if (!atomic_load_explicit(any, memory_order_acquire))
        return NULL;
    pthread_mutex_lock(&helpers->lock);
    struct op *op = *first;
    *first = NULL;
    atomic_store_explicit(any, false, memory_order_relaxed);
    pthread_mutex_unlock(&helpers->lock);
    return op;
}

struct op *helpers_finished(struct helpers *helpers)
{
    return results_take(helpers, &helpers->finished, &helpers->any_finished);
}

struct op *helpers_returned(struct helpers *helpers)
{
    return results_take(helpers, &helpers->returned, &helpers->any_returned);
}
