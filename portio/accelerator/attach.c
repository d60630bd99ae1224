/* A handle that nobody knows yet becomes a port's, with its key: what associating a socket and
   adopting a connection share. */
#include "attach.h"

void attachment_drop(struct attachment *plan)
{
    Py_XDECREF(plan->entry); /* before the key: it refers to it */
    Py_XDECREF(plan->key);
    Py_XDECREF(plan->getter);
    Py_XDECREF(plan->descriptor);
}

static void key_fill(struct key *key, PyObject *port, const struct attachment *plan,
                     const portio_handle *opened, PyObject *identity)
{
    key->number = Py_XNewRef(plan->getter);
    key->handle = Py_XNewRef(plan->handle);
    key->data = Py_NewRef(plan->data);
    key->accepting = Py_NewRef(plan->accepting);
    key->identity = Py_NewRef(identity);
    key->descriptor = plan->number;
    key->id = opened->id;
    key->fits = 1u << opened->type;
    key->family = opened->family;
    key->message_based = opened->type == PORTIO_DATAGRAM_SOCKET;
    key->closed = 0;
    key->port = Py_NewRef(port); /* last: with it the handle is the key's to give back */
}

/* Gives a handle back that nobody has a key of (`Port._forget`): without Python, where a signal
   handler might come first. */
static void handle_forget(const struct port *port, const portio_handle *opened)
{
    if (port->native != NULL && port->release(port->native, opened->id) == PORTIO_UNSUPPORTED)
        port->abandon(port->native, opened->id); /* it stays this port's, but open, and nobody's key */
}

static int engine_open(const struct port *port, const struct attachment *plan,
                       portio_handle *opened)
{
    portio_port *native = port->native; /* as they are while we have the GIL */
    adopt_function adopt = port->adopt;
    int refused;
    if (port->brief) /* so is this: submit.c */
        return adopt(native, plan->listener, plan->number, opened);
    Py_BEGIN_ALLOW_THREADS
    refused = adopt(native, plan->listener, plan->number, opened);
    Py_END_ALLOW_THREADS
    return refused;
}

/* As `identity_of` in registry.py, of a socket. */
static PyObject *identity_make(const portio_handle *opened)
{
    if (opened->device == 0) /* no device has this number: the engine does not tell */
        return Py_NewRef(Py_None);
    return PyLong_FromUnsignedLongLong(opened->inode);
}

/* From the look at the registry on nothing of Python runs; and others have the GIL only within
   the engine, if at all. */
static enum attached handle_enter(PyObject *self, struct attachment *plan,
                                  const struct registry *registry)
{
    struct port *port = (struct port *)self;
    portio_handle opened = {.id = 0};
    if (port->native == NULL || registry_has(registry->entries, plan->descriptor) ||
        engine_open(port, plan, &opened) != 0)
        return ATTACHED_BY_RULE;
    PyObject *identity = opened.family != 0 ? identity_make(&opened) : NULL;
    enum attached result = ATTACHED;
    if (identity != NULL && !registry_has(registry->sockets, identity) &&
        registry_add(registry, plan->descriptor, identity, plan->entry)) {
        key_fill((struct key *)plan->key, self, plan, &opened, identity);
    } else {
        result = PyErr_Occurred() != NULL ? ATTACHING_FAILED : ATTACHED_BY_RULE;
        handle_forget(port, &opened);
    }
    Py_XDECREF(identity);
    return result;
}

enum attached attachment_enter(PyObject *self, struct attachment *plan)
{
    /* First: it may run anything. */
    plan->key = PyType_GenericAlloc(given.key_class, 0);
    plan->entry = plan->key != NULL ? entry_make(plan->key) : NULL;
    struct registry *registry = plan->entry != NULL ? registry_look() : NULL;
    if (registry == NULL)
        return plan->entry != NULL ? ATTACHED_BY_RULE : ATTACHING_FAILED;
    bool holds = !((struct port *)self)->brief;
    if (holds && !registry_hold(registry))
        return ATTACHED_BY_RULE;
    enum attached result = handle_enter(self, plan, registry);
    if (holds)
        registry_release(registry);
    return result;
}
