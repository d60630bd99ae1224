/* The base type of ports: their books, and the way to the engine. */
#include "accelerator.h"

PyTypeObject *port_type;

#define OBJECTS 8

_Static_assert(offsetof(struct port, keeper) - offsetof(struct port, pending) ==
                   (OBJECTS - 1) * sizeof(PyObject *),
               "eight objects in a row");

static int port_traverse(PyObject *self, visitproc visit, void *arg)
{
    return objects_visit(self, &((struct port *)self)->pending, OBJECTS, visit, arg);
}

static int port_clear(PyObject *self)
{
    struct port *port = (struct port *)self;
    port->native = NULL; /* before its keeper */
    return objects_clear(&port->pending, OBJECTS);
}

static void port_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    port_clear(self);
    object_free(self);
}

/* The class of completions, and the engine's port and nine of its functions, as
   addresses. */
static PyObject *port_connect(PyObject *self, PyObject *arguments)
{
    struct port *port = (struct port *)self;
    unsigned long long native, submit_one, submit, get, renew, adopt, close, release, abandon,
        pool_return;
    PyObject *class;
    if (!PyArg_ParseTuple(arguments, "O!KKKKKKKKKK", &PyType_Type, &class, &native, &submit_one,
                          &submit, &get, &renew, &adopt, &close, &release, &abandon,
                          &pool_return))
        return NULL;
    if (!PyType_IsSubtype((PyTypeObject *)class, completion_type))
        return PyErr_Format(PyExc_TypeError, "%R is no class of completions", class);
    Py_XDECREF(port->completions);
    port->completions = Py_NewRef(class);
    port->brief = true;
    port->submit_one = (submit_one_function)(uintptr_t)submit_one;
    port->submit = (submit_function)(uintptr_t)submit;
    port->get = (get_function)(uintptr_t)get;
    port->renew = (renew_function)(uintptr_t)renew;
    port->adopt = (adopt_function)(uintptr_t)adopt;
    port->close = (handle_function)(uintptr_t)close;
    port->release = (handle_function)(uintptr_t)release;
    port->abandon = (handle_function)(uintptr_t)abandon;
    port->pool_return = (pool_return_function)(uintptr_t)pool_return;
    port->native = (portio_port *)(uintptr_t)native;
    Py_RETURN_NONE;
}

/* From now on everything goes through Python. */
static PyObject *port_disconnect(PyObject *self, PyObject *nothing)
{
    (void)nothing;
    ((struct port *)self)->native = NULL;
    Py_RETURN_NONE;
}

void refusal_raise(struct port *port, int result)
{
    PyObject *error = PyObject_CallMethod((PyObject *)port, "_refusal", "i", result);
    if (error != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
        Py_DECREF(error);
    }
}

bool error_drop(void)
{
    if (PyErr_Occurred() != NULL && !PyErr_ExceptionMatches(PyExc_Exception))
        return false;
    PyErr_Clear();
    return true;
}

PyObject *call_rule(PyObject *self, const char *name, PyObject *const *arguments,
                    Py_ssize_t count, PyObject *names)
{
    PyObject *result = NULL, *positional = NULL, *keywords = NULL;
    PyObject *rule = PyObject_GetAttrString(self, name);
    if (rule == NULL)
        return NULL;
    positional = PyTuple_New(count);
    if (positional == NULL)
        goto end;
    for (Py_ssize_t at = 0; at < count; at++)
        PyTuple_SetItem(positional, at, Py_NewRef(arguments[at]));
    Py_ssize_t named = names != NULL ? PyTuple_Size(names) : 0;
    if (named > 0) {
        keywords = PyDict_New();
        if (keywords == NULL)
            goto end;
        for (Py_ssize_t at = 0; at < named; at++)
            if (PyDict_SetItem(keywords, PyTuple_GetItem(names, at), arguments[count + at]) < 0)
                goto end;
    }
    result = PyObject_Call(rule, positional, keywords);
end:
    Py_XDECREF(keywords);
    Py_XDECREF(positional);
    Py_DECREF(rule);
    return result;
}

static PyMemberDef port_members[] = {
    {"_pending", T_OBJECT_EX, offsetof(struct port, pending), 0, NULL},
    {"_free", T_OBJECT_EX, offsetof(struct port, free), 0, NULL},
    {"_rescued", T_OBJECT_EX, offsetof(struct port, rescued), 0, NULL},
    {"_native", T_OBJECT_EX, offsetof(struct port, address), 0, NULL},
    {"_keeper", T_OBJECT_EX, offsetof(struct port, keeper), 0, NULL},
    {"_kept", T_OBJECT_EX, offsetof(struct port, kept), 0, NULL},
    {"_left", T_PYSSIZET, offsetof(struct port, left), 0, NULL},
    {"_batch", T_INT, offsetof(struct port, batch), 0, NULL},
    {"_brief", T_BOOL, offsetof(struct port, brief), READONLY, NULL},
    {"_owner", T_ULONG, offsetof(struct port, owner), 0, NULL},
    {0},
};

static PyMethodDef port_methods[] = {
    {"_connect", port_connect, METH_VARARGS, "The engine's port and functions, as addresses."},
    {"_disconnect", port_disconnect, METH_NOARGS, "Everything goes through Python from now on."},
    {"_fill", (PyCFunction)(void (*)(void))port_fill, METH_FASTCALL,
     "Takes packets into a list; False: it is for Python to do."},
    {"_next", (PyCFunction)(void (*)(void))port_next, METH_FASTCALL,
     "Takes one packet into a list; False: it is for Python to do."},
    {0},
};

static PyType_Slot port_slots[] = {
    {Py_tp_traverse, port_traverse},
    {Py_tp_clear, port_clear},
    {Py_tp_dealloc, port_dealloc},
    {Py_tp_members, port_members},
    {Py_tp_methods, port_methods},
    {Py_tp_iternext, port_advance},
    {0, NULL},
};

static PyType_Spec port_spec = {
    .name = "portio.accelerator.PortFields",
    .basicsize = sizeof(struct port),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = port_slots,
};

int port_add(PyObject *module)
{
    port_type = type_add(module, &port_spec, NULL);
    return port_type != NULL ? 0 : -1;
}
