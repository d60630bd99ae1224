/* The door's functions for memory that the system shall know. */
#include "engine.h"

int portio_region_open(portio_port *port, void *memory, uint64_t length, uint32_t *number)
{
    int refused = port_enter(port);
    if (refused != 0)
        return refused;
    if (atomic_load(&port->closing))
        refused = PORTIO_CLOSED;
    else if (length == 0)
        refused = PORTIO_INVALID;
    else
        refused = engine_region_open(port, memory, length, number);
    port_leave(port);
    return refused;
}

int portio_region_close(portio_port *port, uint32_t *number)
{
    int refused = port_enter(port);
    if (refused != 0)
        return refused;
    if (atomic_load(&port->closing))
        refused = PORTIO_CLOSED;
    else if (!engine_region_close(port, number))
        refused = PORTIO_INVALID;
    port_leave(port);
    return refused;
}
