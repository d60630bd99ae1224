/* The base type of files and pipes: an object that knows its descriptor.  Each submission asks
   for it (contract K6), and a method of Python is an eighth of the instructions of a read. */
#include "accelerator.h"

struct file_handle {
    PyObject_HEAD
    long long descriptor; /* -1: closed, or __init__ was not called */
};

PyTypeObject *file_handle_type;

static PyObject *handle_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    (void)arguments, (void)keywords; /* they are for __init__ */
    PyObject *self = PyType_GenericAlloc(type, 0);
    if (self != NULL)
        ((struct file_handle *)self)->descriptor = -1;
    return self;
}

static void handle_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

PyObject *handle_fileno(PyObject *self, PyObject *nothing)
{
    (void)nothing;
    long long descriptor = ((struct file_handle *)self)->descriptor;
    if (descriptor < 0)
        return call_rule(self, "_fileno_by_rule", NULL, 0, NULL);
    return PyLong_FromLongLong(descriptor);
}

static PyMemberDef handle_members[] = {
    {"_descriptor", T_LONGLONG, offsetof(struct file_handle, descriptor), 0, NULL},
    {0},
};

static PyType_Slot handle_slots[] = {
    {Py_tp_new, handle_new},
    {Py_tp_dealloc, handle_dealloc},
    {Py_tp_members, handle_members},
    {0, NULL},
};

static PyType_Spec handle_spec = {
    .name = "portio.accelerator.HandleFields",
    .basicsize = sizeof(struct file_handle),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = handle_slots,
};

int handle_add(PyObject *module)
{
    file_handle_type = type_add(module, &handle_spec, NULL);
    return file_handle_type != NULL ? 0 : -1;
}
