/* Mail for the owner of a thread-bound port: other threads may post and cancel, and give
   buffers back (port_pool.c), and the owner carries it out at its next call (P9). */
#include "engine.h"

#include <stdlib.h>

void port_inbox_tell(portio_port *port)
{
    /* One wake-up for a full inbox: the owner empties it as a whole. */
    if (!atomic_exchange(&port->inbox_full, true))
        engine_wake(port);
}

int port_inbox_put(portio_port *port, uint64_t message)
{
    int refused = 0;
    pthread_mutex_lock(&port->inbox_lock);
    if (port->inbox_closed) {
        refused = PORTIO_CLOSED;
    } else if (port->inbox_count == port->inbox_room) {
        uint32_t room = port->inbox_room == 0 ? 16 : port->inbox_room * 2;
        uint64_t *larger = realloc(port->inbox, room * sizeof *larger);
        if (larger == NULL) {
            refused = PORTIO_NO_MEMORY;
        } else {
            port->inbox = larger;
            port->inbox_room = room;
        }
    }
    if (refused == 0) {
        port->inbox[port->inbox_count++] = message;
        port_inbox_tell(port); /* under the lock: the engine cannot be closed meanwhile */
    }
    pthread_mutex_unlock(&port->inbox_lock);
    return refused;
}

void port_inbox_read(portio_port *port)
{
    if (!atomic_load_explicit(&port->inbox_full, memory_order_relaxed))
        return;
    for (;;) {
        pthread_mutex_lock(&port->inbox_lock);
        uint64_t *messages = port->inbox;
        uint32_t count = port->inbox_count;
        port->inbox = NULL;
        port->inbox_count = port->inbox_room = 0;
        bool returning = port->returning != NULL;
        atomic_store(&port->inbox_full, false);
        pthread_mutex_unlock(&port->inbox_lock);
        if (count == 0 && !returning) {
            free(messages);
            return;
        }
        if (returning)
            port_returned_read(port);
        for (uint32_t at = 0; at < count; at++) {
            if (messages[at] & INBOX_CANCEL)
                port_cancel_token(port, messages[at] & ~INBOX_CANCEL);
            else
                port_queue_post(port, messages[at]);
        }
        free(messages);
    }
}

void port_inbox_close(portio_port *port)
{
    pthread_mutex_lock(&port->inbox_lock);
    port->inbox_closed = true;
    pthread_mutex_unlock(&port->inbox_lock);
    port_returned_drop(port);
}
