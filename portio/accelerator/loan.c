/* What a RecvLent gives: memory of a pool that is the program's until it, and everything that
   shares it, was released or dropped (contract O20).  A loan exports it, a memoryview shows it,
   and Python's own rules of buffers tell when the last has let go of it. */
#include "accelerator.h"
#include "take.h"

struct loan {
    PyObject_HEAD
    PyObject *pool;
    PyObject *memory; /* of the pool; it stays as long as anybody looks at it */
    char *start;
    Py_ssize_t length;
    Py_ssize_t exports;
    uint32_t number;
    bool begun; /* the buffer is the program's, and has not gone back */
    bool over;
};

static PyTypeObject *loan_type;

_Static_assert(offsetof(struct loan, memory) - offsetof(struct loan, pool) == sizeof(PyObject *),
               "two objects in a row");

PyObject *loan_make(struct pool *pool, uint32_t number, char *start, Py_ssize_t length,
                    PyObject **loan)
{
    struct loan *made = (struct loan *)PyType_GenericAlloc(loan_type, 0);
    *loan = (PyObject *)made;
    if (made == NULL)
        return NULL;
    made->pool = Py_NewRef((PyObject *)pool);
    made->memory = Py_NewRef(pool->memory);
    made->start = start;
    made->length = length;
    made->number = number;
    return PyMemoryView_FromObject((PyObject *)made);
}

void loan_begin(PyObject *loan)
{
    ((struct loan *)loan)->begun = true;
}

/* Keeps the GIL: the engine's locks are held for moments, and never by who waits for the GIL.
   Of a port that is closed or the parent's there is nothing to give back to, nor of a pool that
   the collector has taken apart. */
static void loan_end(struct loan *loan)
{
    const struct pool *pool = (struct pool *)loan->pool;
    const struct port *port = pool != NULL ? (struct port *)pool->port : NULL;
    bool begun = loan->begun;
    loan->over = true;
    loan->begun = false;
    if (begun && port != NULL && port->native != NULL && pool->memory != NULL)
        (void)port->pool_return(port->native, (portio_pool *)(uintptr_t)pool->address,
                                loan->number);
}

static int loan_get_buffer(PyObject *self, Py_buffer *view, int flags)
{
    struct loan *loan = (struct loan *)self;
    if (loan->over) {
        view->obj = NULL;
        PyErr_SetString(PyExc_BufferError, "the buffer has gone back to its pool");
        return -1;
    }
    if (PyBuffer_FillInfo(view, self, loan->start, loan->length, 0, flags) < 0)
        return -1;
    loan->exports++;
    return 0;
}

static void loan_release_buffer(PyObject *self, Py_buffer *view)
{
    (void)view;
    struct loan *loan = (struct loan *)self;
    if (--loan->exports == 0)
        loan_end(loan);
}

static int loan_traverse(PyObject *self, visitproc visit, void *arg)
{
    return objects_visit(self, &((struct loan *)self)->pool, 2, visit, arg);
}

/* There is no tp_clear, as of pins: whatever else is in a cycle with it can be cleared. */
static void loan_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    loan_end((struct loan *)self); /* if nobody has ever looked at it */
    objects_clear(&((struct loan *)self)->pool, 2);
    object_free(self);
}

static PyType_Slot loan_slots[] = {
    {Py_tp_traverse, loan_traverse},
    {Py_tp_dealloc, loan_dealloc},
    {Py_bf_getbuffer, loan_get_buffer},
    {Py_bf_releasebuffer, loan_release_buffer},
    {0, NULL},
};

static PyType_Spec loan_spec = {
    .name = "portio.accelerator.Loan",
    .basicsize = sizeof(struct loan),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = loan_slots,
};

int loan_add(PyObject *module)
{
    loan_type = type_add(module, &loan_spec, NULL);
    return loan_type != NULL ? 0 : -1;
}
