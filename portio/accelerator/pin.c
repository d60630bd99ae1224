/* Pins: what holds a buffer in place, from the submission until the completion has left
   the port (contract O3). */
#include "spares.h"

struct pin {
    PyObject_HEAD
    Py_buffer view;
};

static PyTypeObject *pin_type;
static struct spares spares;

static int pin_traverse(PyObject *self, visitproc visit, void *arg)
{
    return objects_visit(self, &((struct pin *)self)->view.obj, 1, visit, arg);
}

/* There is no tp_clear: the collector must not let go of memory that the system uses, and
   whatever else is in a cycle with a pin can be cleared. */
static void pin_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    PyBuffer_Release(&((struct pin *)self)->view); /* and its reference is NULL */
    spares_free(&spares, self);
}

static PyType_Slot pin_slots[] = {
    {Py_tp_traverse, pin_traverse},
    {Py_tp_dealloc, pin_dealloc},
    {0, NULL},
};

static PyType_Spec pin_spec = {
    .name = "portio.accelerator.Pin",
    .basicsize = sizeof(struct pin),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = pin_slots,
};

PyObject *pin_make(PyObject *buffer, bool writable, void **start, Py_ssize_t *length)
{
    if (!writable && PyBytes_CheckExact(buffer)) { /* it never moves: it is its own pin */
        char *bytes;
        if (PyBytes_AsStringAndSize(buffer, &bytes, length) < 0)
            return NULL;
        *start = bytes;
        return Py_NewRef(buffer);
    }
    struct pin *pin = (struct pin *)spares_make(&spares, pin_type);
    if (pin == NULL)
        return NULL;
    if (PyObject_GetBuffer(buffer, &pin->view, writable ? PyBUF_WRITABLE : PyBUF_SIMPLE) < 0) {
        Py_DECREF(pin);
        return NULL;
    }
    PyObject_GC_Track((PyObject *)pin);
    *start = pin->view.buf;
    *length = pin->view.len;
    return (PyObject *)pin;
}

int pin_add(PyObject *module)
{
    pin_type = type_add(module, &pin_spec, NULL);
    return pin_type != NULL ? 0 : -1;
}
