/* What a RecvLent gives: memory of a pool that is the program's until it, and everything that
   shares it, was released or dropped (contract O20).  A loan exports it, a memoryview shows it,
   and Python's own rules of buffers tell when the last has let go of it. */
#include "spares.h"
#include "submit.h"
#include "take.h"

struct loan {
    PyObject_HEAD
    PyObject *pool;
    PyObject *memory; /* of the pool; it stays as long as anybody looks at it */
    char *start;
    Py_ssize_t length;
    Py_ssize_t exports;
    uint32_t number;
    char begun; /* the buffer is the program's, and has not gone back */
    char over;
};

static PyTypeObject *loan_type;
static struct spares spares;

_Static_assert(offsetof(struct loan, memory) - offsetof(struct loan, pool) == sizeof(PyObject *),
               "two objects in a row");

PyObject *loan_make(struct pool *pool, uint32_t number, char *start, Py_ssize_t length,
                    PyObject **loan)
{
    struct loan *made = (struct loan *)spares_make(&spares, loan_type);
    *loan = (PyObject *)made;
    if (made == NULL)
        return NULL;
    made->pool = Py_NewRef((PyObject *)pool);
    made->memory = Py_NewRef(pool->memory);
    made->start = start;
    made->length = length;
    made->exports = 0;
    made->number = number;
    made->begun = made->over = false;
    PyObject_GC_Track((PyObject *)made);
    return PyMemoryView_FromObject((PyObject *)made);
}

void loan_begin(PyObject *loan)
{
    ((struct loan *)loan)->begun = true;
}

/* Everything is left to Python, which may find that the port is its parent's. */
static void loan_end_by_rule(struct loan *loan)
{
    PyObject *kind, *value, *trace;
    PyErr_Fetch(&kind, &value, &trace);
    PyObject *told = PyObject_CallMethod(loan->pool, "take_back", "I", (unsigned int)loan->number);
    if (told == NULL)
        PyErr_WriteUnraisable(loan->pool);
    Py_XDECREF(told);
    PyErr_Restore(kind, value, trace);
}

/* Gives the buffer back.  The engine may receive into it at once, for whoever has waited, so the
   GIL is kept where that is brief alone; no lock of the engine's is held by who waits for the GIL.
   What the collector has begun to take apart has nothing to give back to. */
static void loan_end(struct loan *loan)
{
    struct pool *pool = (struct pool *)loan->pool;
    bool begun = loan->begun;
    loan->over = true;
    loan->begun = false;
    if (!begun || pool->memory == NULL || pool->port == NULL)
        return;
    const struct port *port = (struct port *)pool->port;
    portio_port *native = port->native;
    portio_pool *address = (portio_pool *)(uintptr_t)pool->address;
    pool_return_function pool_return = port->pool_return;
    if (native == NULL) {
        loan_end_by_rule(loan);
    } else if (port->brief && pool_is_brief((PyObject *)pool)) {
        (void)pool_return(native, address, loan->number);
    } else {
        Py_BEGIN_ALLOW_THREADS
        (void)pool_return(native, address, loan->number);
        Py_END_ALLOW_THREADS
    }
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
    spares_free(&spares, self);
}

static PyMemberDef loan_members[] = {
    {"begun", T_BOOL, offsetof(struct loan, begun), 0, NULL}, /* for turns.py */
    {0},
};

static PyType_Slot loan_slots[] = {
    {Py_tp_members, loan_members},
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

PyObject *lend(PyObject *module, PyObject *arguments)
{
    (void)module;
    PyObject *pool, *loan = NULL;
    unsigned long long nbytes;
    if (!PyArg_ParseTuple(arguments, "O!K", pool_type, &pool, &nbytes))
        return NULL;
    char *start = piece_find((struct pool *)pool, (int64_t)nbytes);
    if (start == NULL)
        return PyErr_Format(PyExc_ValueError, "the pool has no such piece");
    PyObject *view = loan_make((struct pool *)pool, (uint32_t)(nbytes >> 32), start,
                               (Py_ssize_t)(nbytes & UINT32_MAX), &loan);
    PyObject *both = view != NULL ? PyTuple_Pack(2, view, loan) : NULL;
    Py_XDECREF(view);
    Py_XDECREF(loan);
    return both;
}

int loan_add(PyObject *module)
{
    loan_type = type_add(module, &loan_spec, NULL);
    return loan_type != NULL ? 0 : -1;
}
