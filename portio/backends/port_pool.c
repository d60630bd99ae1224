/* Buffers of pools that the program has had, and gives back (O20).

   Any thread may, whenever it drops the last reference to one, which may be inside of the
   collector.  On a thread-bound port the owner alone may touch a pool, so that others leave
   the number in the pool, and the pool in the port's list, for the owner to see when it reads
   its mail.  There is room for every buffer, so nothing is allocated and nothing can be lost. */
#include "engine.h"

/* One holder less: Python, which the count leaves out, or a port whose list has had it.  The
   last one sees all that the others have done. */
void portio_pool_free(portio_pool *pool)
{
    if (atomic_fetch_sub_explicit(&pool->holders, 1, memory_order_acq_rel) == 0)
        pool_destroy(pool);
}

/* True: a receive that waited for it goes on. */
static bool buffer_return(portio_port *port, portio_pool *pool, uint32_t number)
{
    struct op *heir = pool_return(pool, number);
    if (heir != NULL)
        engine_lend(port, heir);
    return heir != NULL;
}

/* Somebody goes on who has not been submitted just now.  Where submissions wait for the next get
   this may, too; but who watches the port's descriptor does not call unless it tells of something. */
static void heirs_flush(portio_port *port)
{
    if (!port->lazy_submit || port->notifying)
        engine_flush(port);
}

/* The list holds the pool: Python may drop it before the owner has looked. */
static int returned_put(portio_port *port, portio_pool *pool, uint32_t number)
{
    int refused = 0;
    pthread_mutex_lock(&port->inbox_lock);
    if (port->inbox_closed) {
        refused = PORTIO_CLOSED;
    } else {
        if (pool->returned_count == 0) {
            atomic_fetch_add_explicit(&pool->holders, 1, memory_order_relaxed);
            pool->next_returning = port->returning;
            port->returning = pool;
        }
        pool->free[pool->count + pool->returned_count++] = number;
        port_inbox_tell(port);
    }
    pthread_mutex_unlock(&port->inbox_lock);
    return refused;
}

void port_returned_read(portio_port *port)
{
    bool lent = false;
    for (;;) {
        pthread_mutex_lock(&port->inbox_lock);
        portio_pool *pool = port->returning;
        uint32_t number = 0;
        bool last = false;
        if (pool != NULL) {
            number = pool->free[pool->count + --pool->returned_count];
            last = pool->returned_count == 0;
            if (last)
                port->returning = pool->next_returning;
        }
        pthread_mutex_unlock(&port->inbox_lock);
        if (pool == NULL)
            break;
        /* If Python has dropped the pool there is no operation that could use it again. */
        lent = buffer_return(port, pool, number) || lent;
        if (last)
            portio_pool_free(pool);
    }
    if (lent)
        heirs_flush(port);
}

void port_returned_drop(portio_port *port)
{
    pthread_mutex_lock(&port->inbox_lock);
    portio_pool *pool = port->returning;
    port->returning = NULL;
    pthread_mutex_unlock(&port->inbox_lock);
    while (pool != NULL) {
        portio_pool *next = pool->next_returning;
        pool->returned_count = 0;
        portio_pool_free(pool);
        pool = next;
    }
}

int portio_pool_return(portio_port *port, portio_pool *pool, uint32_t number)
{
    if (number >= pool->count)
        return PORTIO_INVALID;
    /* The collector may call this in a forked child before Python knows that the port is its
       parent's; a thread that is not here may have its lock. */
    if (port_is_inherited(port))
        return PORTIO_CLOSED;
    if (port->thread_bound && !port_is_owner(port))
        return returned_put(port, pool, number);
    int refused = port_enter(port);
    if (refused != 0)
        return refused;
    bool lent = false;
    port_lock(port);
    if (atomic_load_explicit(&port->closing, memory_order_relaxed)) {
        refused = PORTIO_CLOSED;
    } else {
        lent = buffer_return(port, pool, number);
        port_balance(port); /* the heir may have ended at once */
    }
    port_unlock(port);
    if (lent)
        heirs_flush(port);
    port_leave(port);
    return refused;
}
