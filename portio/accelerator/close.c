/* `CompletionKey.close` of a socket that is what it was (keys.py has the rule). */
#include "registry.h"

/* Whether it is a case for this: the number is the socket's own, and this thread may. */
static bool key_is_usual(struct key *key, struct port **port, PyObject **handle)
{
    long long number;
    if (given.registry == NULL || key->closed || key->port == NULL || key->handle == NULL ||
        !PyObject_TypeCheck(key->port, port_type) ||
        !PyObject_TypeCheck(key->handle, given.socket_class))
        return false;
    *port = (struct port *)Py_NewRef(key->port);
    *handle = Py_NewRef(key->handle);
    return (*port)->native != NULL &&
           ((*port)->owner == 0 || (*port)->owner == PyThread_get_thread_ident()) &&
           key_ask(key, &number) && number == key->descriptor;
}

/* The registry's lock is held.  False: another thread was faster, or it is for the rule; nothing
   has changed. */
static bool key_end(struct key *key, PyObject *port, PyObject *handle)
{
    if (key->closed || key->port != port || key->handle != handle ||
        !registry_remove(key->descriptor, (PyObject *)key))
        return false;
    key->closed = 1;
    key->port = Py_NewRef(Py_None);
    key->handle = Py_NewRef(Py_None);
    Py_DECREF(port); /* the caller holds both as well */
    Py_DECREF(handle);
    return true;
}

/* From here on the number is ours alone; an exception goes on when it is closed. */
static PyObject *descriptor_close(struct port *port, struct key *key, PyObject *handle)
{
    PyObject *kind, *value, *trace;
    PyObject *detached = PyObject_CallMethodObjArgs(handle, name_of.detach, NULL);
    PyErr_Fetch(&kind, &value, &trace);
    Py_XDECREF(detached);
    portio_port *native = port->native;
    close_function close = port->close;
    uint64_t id = key->id;
    int refused = PORTIO_CLOSED;
    if (native != NULL) {
        Py_BEGIN_ALLOW_THREADS /* it may take as long as SO_LINGER says */
        refused = close(native, id);
        Py_END_ALLOW_THREADS
    }
    PyObject *done = refused == 0 ? Py_NewRef(Py_None)
                                  : PyObject_CallMethod((PyObject *)port, "_close_refused", "Oi",
                                                        (PyObject *)key, refused);
    if (kind == NULL)
        return done;
    Py_XDECREF(done);
    PyErr_Clear();
    PyErr_Restore(kind, value, trace);
    return NULL;
}

PyObject *key_close(PyObject *self, PyObject *nothing)
{
    (void)nothing;
    struct key *key = (struct key *)self;
    struct port *port = NULL;
    PyObject *handle = NULL, *lock = NULL, *result = NULL;
    bool ended = false;
    if (key_is_usual(key, &port, &handle) && (lock = registry_lock()) != NULL) {
        ended = key_end(key, (PyObject *)port, handle);
        registry_unlock(lock);
    }
    if (ended)
        result = descriptor_close(port, key, handle);
    else if (error_drop())
        result = call_rule(self, "_close_by_rule", NULL, 0, NULL);
    Py_XDECREF(handle);
    Py_XDECREF((PyObject *)port);
    return result;
}
