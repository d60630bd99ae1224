/* Rings and fork.  A child inherits the descriptors, and with them a reference to
   every ring: the parent could close a ring and yet have it live on, with all its
   requests, until the child ends.  So the child closes its copies at once.  Its
   memory has no copy of the rings (MADV_DONTFORK), and nothing else is touched. */
#include "io_uring.h"

#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct engine *engines; /* under `lock` */

static void before_fork(void)
{
    pthread_mutex_lock(&lock);
}

static void after_fork_in_parent(void)
{
    pthread_mutex_unlock(&lock);
}

static void after_fork_in_child(void)
{
    for (struct engine *engine = engines; engine != NULL; engine = engine->next) {
        close(engine->ring.fd);
        engine->ring.fd = -1;
        if (engine->sentinel >= 0)
            close(engine->sentinel);
        engine->sentinel = -1;
    }
    engines = NULL;
    pthread_mutex_unlock(&lock);
}

static void prepare(void)
{
    /* Failing for want of memory costs only what is said above. */
    (void)pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

void uring_enlist(struct engine *engine)
{
    pthread_once(&once, prepare);
    pthread_mutex_lock(&lock);
    engine->previous = NULL;
    engine->next = engines;
    if (engines != NULL)
        engines->previous = engine;
    engines = engine;
    pthread_mutex_unlock(&lock);
}

void uring_delist(struct engine *engine)
{
    pthread_mutex_lock(&lock);
    if (engine->previous != NULL)
        engine->previous->next = engine->next;
    else
        engines = engine->next;
    if (engine->next != NULL)
        engine->next->previous = engine->previous;
    pthread_mutex_unlock(&lock);
}
