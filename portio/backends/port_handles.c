/* The door's functions for handles. */
#include "engine.h"

#include <errno.h>

void port_handle_leave_locked(portio_port *port, struct handle *handle)
{
    handle->pending--;
    if (handle->pending == 0 && handle->dead)
        handles_remove(&port->handles, handle);
}

/* What a listener accepts is like it. */
static void handle_inherit(portio_port *port, struct handle *handle, uint64_t listener)
{
    const struct handle *of = handles_find(&port->handles, listener);
    if (of == NULL)
        return; /* it was closed meanwhile: the system knows as well */
    handle->type = of->type;
    handle->family = of->family;
    handle->accepted = true;
}

/* `listener` is 0 where the descriptor comes from elsewhere. */
static int handle_begin(portio_port *port, uint64_t listener, int64_t descriptor,
                        portio_handle *out)
{
    if (descriptor < 0 || descriptor > INT32_MAX)
        return PORTIO_SYSTEM - EBADF;
    int refused = port_enter(port);
    if (refused != 0)
        return refused;
    port_lock(port);
    struct handle *handle = NULL;
    if (atomic_load(&port->closing))
        refused = PORTIO_CLOSED;
    else if ((handle = handles_add(&port->handles)) == NULL)
        refused = PORTIO_NO_MEMORY;
    else if (listener != 0)
        handle_inherit(port, handle, listener);
    port_unlock(port);
    if (refused == 0) {
        int error = handle_inspect(handle, (int)descriptor);
        if (error == 0)
            error = engine_handle_open(port, handle);
        if (error != 0) {
            port_lock(port);
            handles_remove(&port->handles, handle);
            port_unlock(port);
            refused = PORTIO_SYSTEM + error;
        } else {
            out->id = handle->id;
            out->type = handle->type;
            out->family = handle->family;
            out->device = handle->device;
            out->inode = handle->inode;
        }
    }
    port_leave(port);
    return refused;
}

int portio_handle_open(portio_port *port, int64_t descriptor, portio_handle *out)
{
    return handle_begin(port, 0, descriptor, out);
}

int portio_handle_adopt(portio_port *port, uint64_t listener, int64_t descriptor,
                        portio_handle *out)
{
    return handle_begin(port, listener, descriptor, out);
}

int portio_handle_release(portio_port *port, uint64_t id)
{
    int refused = port_enter(port);
    if (refused != 0)
        return refused;
    port_lock(port);
    struct handle *handle = handles_find(&port->handles, id);
    if (atomic_load(&port->closing))
        refused = PORTIO_CLOSED;
    else if (handle == NULL)
        refused = PORTIO_NO_HANDLE;
    else if (handle->pending > 0)
        refused = PORTIO_BUSY;
    else
        handle->id = 0; /* nothing can start on it any more */
    port_unlock(port);
    if (refused == 0) {
        engine_handle_release(port, handle);
        port_lock(port);
        handles_remove(&port->handles, handle);
        port_unlock(port);
    }
    port_leave(port);
    return refused;
}

static int handle_end(portio_port *port, uint64_t id, bool close_it)
{
    int refused = port_enter(port);
    if (refused != 0)
        return refused;
    port_lock(port);
    struct handle *handle = handles_find(&port->handles, id);
    if (atomic_load(&port->closing))
        refused = PORTIO_CLOSED;
    else if (handle == NULL)
        refused = PORTIO_NO_HANDLE;
    else {
        handle->id = 0;
        handle->dead = true;
        handle->pending++; /* as a visitor */
    }
    port_unlock(port);
    if (refused == 0) {
        engine_handle_close(port, handle, close_it);
        port_lock(port);
        port_handle_leave_locked(port, handle);
        port_unlock(port);
    }
    port_leave(port);
    return refused;
}

int portio_handle_close(portio_port *port, uint64_t id)
{
    return handle_end(port, id, true);
}

int portio_handle_abandon(portio_port *port, uint64_t id)
{
    return handle_end(port, id, false);
}
