/* `Port.associate` of a socket that nobody knows yet, which is every connection that a server
   accepts (port.py has the rule, registry.py the books). */
#include "registry.h"

struct plan {
    PyObject *handle, *data;       /* the caller's */
    PyObject *descriptor, *getter; /* a number, and what gives it at any later time */
    PyObject *key, *entry;
    long long number;
};

static void plan_drop(struct plan *plan)
{
    Py_XDECREF(plan->entry); /* before the key: it refers to it */
    Py_XDECREF(plan->key);
    Py_XDECREF(plan->getter);
    Py_XDECREF(plan->descriptor);
}

/* False: it is for the rule, which also raises what there is to raise. */
static bool plan_make(struct plan *plan)
{
    plan->getter = PyObject_GetAttr(plan->handle, name_of.fileno);
    plan->descriptor = plan->getter != NULL ? PyObject_CallNoArgs(plan->getter) : NULL;
    if (plan->descriptor == NULL || !PyLong_CheckExact(plan->descriptor))
        return false;
    int overflow;
    plan->number = PyLong_AsLongLongAndOverflow(plan->descriptor, &overflow);
    return overflow == 0 && plan->number >= 0;
}

/* The key and its place in the registry.  It is made when nothing but memory can be wanting: the
   end of an empty key would run Python. */
static bool key_make(struct plan *plan)
{
    plan->key = PyType_GenericAlloc(given.key_class, 0);
    plan->entry = plan->key != NULL
                      ? PyObject_CallFunctionObjArgs(given.registry_entry, plan->key, NULL)
                      : NULL;
    return plan->entry != NULL;
}

static void key_fill(struct key *key, PyObject *port, const struct plan *plan,
                     const portio_handle *opened, PyObject *identity)
{
    key->number = Py_NewRef(plan->getter);
    key->handle = Py_NewRef(plan->handle);
    key->data = Py_NewRef(plan->data);
    key->accepting = Py_NewRef(Py_None);
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

static int engine_open(const struct port *port, long long number, portio_handle *opened)
{
    portio_port *native = port->native;
    open_function open = port->open;
    int refused;
    if (port->brief) /* so is this: submit.c */
        return open(native, number, opened);
    Py_BEGIN_ALLOW_THREADS
    refused = open(native, number, opened);
    Py_END_ALLOW_THREADS
    return refused;
}

/* As `identity_of` in registry.py. */
static PyObject *identity_make(const portio_handle *opened)
{
    if (opened->device == 0) /* no device has this number: the engine does not tell */
        return Py_NewRef(Py_None);
    if (opened->family != 0)
        return PyLong_FromUnsignedLongLong(opened->inode);
    return Py_BuildValue("(KK)", (unsigned long long)opened->device,
                         (unsigned long long)opened->inode);
}

enum association { ASSOCIATED, ASSOCIATED_BY_RULE, ASSOCIATION_FAILED };

/* Unless it is associated, nothing has changed. */
static enum association handle_enter(PyObject *self, struct plan *plan,
                                     const struct registry *registry)
{
    struct port *port = (struct port *)self;
    portio_handle opened = {.id = 0};
    if (port->native == NULL || registry_has(registry->entries, plan->descriptor) ||
        engine_open(port, plan->number, &opened) != 0)
        return ASSOCIATED_BY_RULE;
    PyObject *identity = identity_make(&opened);
    enum association result = ASSOCIATED;
    if (identity != NULL && !registry_has(registry->sockets, identity) && key_make(plan) &&
        registry_add(registry, plan->descriptor, identity, plan->entry)) {
        key_fill((struct key *)plan->key, self, plan, &opened, identity);
    } else {
        result = PyErr_Occurred() != NULL ? ASSOCIATION_FAILED : ASSOCIATED_BY_RULE;
        handle_forget(port, &opened);
    }
    Py_XDECREF(identity);
    return result;
}

static enum association associate_socket(PyObject *self, PyObject *handle, PyObject *data,
                                         PyObject **key)
{
    struct plan plan = {.handle = handle, .data = data};
    enum association result = ASSOCIATED_BY_RULE;
    struct registry registry;
    if (plan_make(&plan) && registry_open(&registry)) {
        result = handle_enter(self, &plan, &registry);
        registry_close(&registry);
    }
    if (result == ASSOCIATED)
        *key = Py_NewRef(plan.key);
    plan_drop(&plan);
    return result;
}

static bool is_true(PyObject *self, PyObject *name)
{
    PyObject *object = PyObject_GetAttr(self, name);
    bool answer = object == NULL || PyObject_IsTrue(object) != 0;
    Py_XDECREF(object);
    return answer;
}

PyObject *port_associate(PyObject *self, PyObject *const *arguments, Py_ssize_t count,
                         PyObject *names)
{
    struct port *port = (struct port *)self;
    Py_ssize_t named = names != NULL ? PyTuple_Size(names) : 0;
    PyObject *data = Py_None;
    bool usual = given.registry != NULL && port->native != NULL && count >= 1 &&
                 count + named <= 2 &&
                 PyObject_TypeCheck(arguments[0], given.socket_class) &&
                 (named == 0 ||
                  PyUnicode_CompareWithASCIIString(PyTuple_GetItem(names, 0), "data") == 0);
    if (usual && count + named == 2)
        data = arguments[1];
    if (usual && !is_true(self, name_of._orphans)) {
        PyObject *key = NULL;
        enum association result = associate_socket(self, arguments[0], data, &key);
        if (result != ASSOCIATED_BY_RULE)
            return key;
    }
    if (!error_drop())
        return NULL;
    return call_rule(self, "_associate_by_rule", arguments, count, names);
}
