/* `CompletionKey.close` of a socket that is what it was (keys.py has the rule). */
#include "registry.h"

/* Whether it is a case for this: the number is the socket's own, or the key's, and this thread
   may.  There is no handle where the number is the key's. */
static bool key_is_usual(struct key *key, struct port **port, PyObject **handle)
{
    long long number;
    if (given.registry == NULL || key->closed || key->port == NULL ||
        !PyObject_TypeCheck(key->port, port_type) ||
        !(key_is_bare(key) ||
          (key->handle != NULL && PyObject_TypeCheck(key->handle, given.socket_class))))
        return false;
    *port = (struct port *)Py_NewRef(key->port);
    *handle = Py_XNewRef(key->handle);
    return (*port)->native != NULL &&
           ((*port)->owner == 0 || (*port)->owner == PyThread_get_thread_ident()) &&
           key_ask(key, &number) && number == key->descriptor;
}

/* False: another thread was faster, or it is for the rule; nothing
   has changed. */
static bool key_end(struct key *key, struct port *port, PyObject *handle,
                    const struct registry *registry)
{
    if (key->closed || key->port != (PyObject *)port || key->handle != handle ||
        port->native == NULL || !registry_remove(registry, key->descriptor, (PyObject *)key))
        return false;
    key->closed = 1;
    key->port = Py_NewRef(Py_None);
    key->handle = Py_NewRef(Py_None);
    Py_DECREF((PyObject *)port); /* the caller holds both as well */
    Py_XDECREF(handle);
    return true;
}

/* Takes the number out of the socket.  True: it is the one that we know, and ours alone now.

   No thread and no signal handler comes between the key's end and this; but between the look
   at the number (key_is_usual) and the end of the key one may have come, and closed the socket,
   and then the number is another's. */
static bool number_take(const struct key *key, PyObject *handle)
{
    if (handle == NULL)
        return true;
    PyObject *number = PyObject_CallFunctionObjArgs(given.socket_detach, handle, NULL);
    bool ours = number != NULL && PyLong_AsLongLong(number) == key->descriptor;
    Py_XDECREF(number);
    return ours;
}

/* Closes the number, whatever the engine says: a refusal is told afterwards. */
static int number_close(const struct port *port, const struct key *key)
{
    portio_port *native = port->native;
    handle_function close = port->close;
    uint64_t id = key->id;
    int refused;
    Py_BEGIN_ALLOW_THREADS /* it may take as long as SO_LINGER says */
    refused = close(native, id);
    Py_END_ALLOW_THREADS
    if (refused != 0) {
        PyObject *number = PyLong_FromLongLong(key->descriptor);
        PyObject *done = number != NULL
                             ? PyObject_CallFunctionObjArgs(given.socket_close, number, NULL)
                             : NULL;
        Py_XDECREF(done);
        Py_XDECREF(number);
    }
    return refused == PORTIO_CLOSED ? 0 : refused;
}

/* The number is another's by now, and not to be closed: ends the operations. */
static void number_abandon(const struct port *port, const struct key *key)
{
    portio_port *native = port->native;
    handle_function abandon = port->abandon;
    uint64_t id = key->id;
    Py_BEGIN_ALLOW_THREADS
    abandon(native, id);
    Py_END_ALLOW_THREADS
}

static PyObject *handle_end(struct port *port, struct key *key, PyObject *handle, bool ours)
{
    int refused = 0;
    if (ours)
        refused = number_close(port, key);
    else
        number_abandon(port, key);
    if (PyErr_Occurred() == NULL && refused != 0)
        refusal_raise(port, refused);
    if (PyErr_Occurred() != NULL)
        return NULL;
    if (handle == NULL)
        Py_RETURN_NONE;
    /* It has no number any more; a class of the program's may do more. */
    PyObject *done = PyObject_CallMethodObjArgs(handle, name_of.detach, NULL);
    if (done == NULL)
        return NULL;
    Py_DECREF(done);
    Py_RETURN_NONE;
}

PyObject *key_close(PyObject *self, PyObject *nothing)
{
    (void)nothing;
    struct key *key = (struct key *)self;
    struct port *port = NULL;
    PyObject *handle = NULL, *result = NULL;
    const struct registry *registry;
    bool ended = false, ours = false;
    /* Nothing of Python runs, and nobody else, from the look at the registry on. */
    if (key_is_usual(key, &port, &handle) && (registry = registry_look()) != NULL) {
        ended = key_end(key, port, handle, registry);
        ours = ended && number_take(key, handle);
    }
    if (ended)
        result = handle_end(port, key, handle, ours);
    else if (error_drop())
        result = call_rule(self, "_close_by_rule", NULL, 0, NULL);
    Py_XDECREF(handle);
    Py_XDECREF((PyObject *)port);
    return result;
}
