/* Accepts whose connections come with their keys (adoption.py has the rule). */
#include "attach.h"
#include "take.h"

struct adopting {
    PyObject_HEAD
    PyObject *port, *listener; /* the listener's key */
    PyObject *form;             /* what its connections are */
    PyObject *key;              /* NULL: it is not settled */
    PyObject *opened, *refused; /* the rule's */
};

static PyTypeObject *adopting_type;

#define OBJECTS 6

_Static_assert(offsetof(struct adopting, refused) - offsetof(struct adopting, port) ==
                   (OBJECTS - 1) * sizeof(PyObject *),
               "six objects in a row");

static int adopting_traverse(PyObject *self, visitproc visit, void *arg)
{
    return objects_visit(self, &((struct adopting *)self)->port, OBJECTS, visit, arg);
}

static int adopting_clear(PyObject *self)
{
    return objects_clear(&((struct adopting *)self)->port, OBJECTS);
}

static void adopting_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    adopting_clear(self);
    object_free(self);
}

static PyObject *adopting_of(PyObject *port, PyObject *listener, PyObject *form)
{
    struct adopting *self = (struct adopting *)PyType_GenericAlloc(adopting_type, 0);
    if (self == NULL)
        return NULL;
    self->port = Py_NewRef(port);
    self->listener = Py_NewRef(listener);
    self->form = Py_NewRef(form);
    return (PyObject *)self;
}

PyObject *adopting_make(PyObject *port, struct key *listener)
{
    PyObject *form = accepting_form(listener);
    PyObject *self = form != NULL ? adopting_of(port, (PyObject *)listener, form) : NULL;
    Py_XDECREF(form);
    return self;
}

bool adopting_may_go_on(PyObject *settle, Py_ssize_t holders)
{
    const struct adopting *self = (struct adopting *)settle;
    return Py_REFCNT(settle) == holders && self->opened == NULL && self->refused == NULL &&
           self->form == ((struct key *)self->listener)->accepting;
}

void adopting_go_on(PyObject *settle)
{
    Py_CLEAR(((struct adopting *)settle)->key); /* the completion has it, too */
}

/* Adopting(port, listener, form) */
static PyObject *adopting_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    (void)type, (void)keywords;
    PyObject *port, *listener, *form;
    if (!PyArg_ParseTuple(arguments, "O!O!O!", port_type, &port, key_type, &listener,
                          &PyTuple_Type, &form))
        return NULL;
    return adopting_of(port, listener, form);
}

/* Usual is a number that the registry does not know, and a system that does not refuse. */
static enum attached adopt_usual(struct adopting *self, PyObject *descriptor, int64_t number)
{
    if (self->key != NULL)
        return ATTACHED_BY_RULE;
    struct attachment plan = {
        .data = Py_None,
        .accepting = self->form,
        .descriptor = Py_NewRef(descriptor),
        .number = number,
        .listener = ((struct key *)self->listener)->id,
    };
    enum attached result = attachment_enter(self->port, &plan);
    if (result == ATTACHED)
        self->key = Py_NewRef(plan.key);
    attachment_drop(&plan);
    return result;
}

bool settle_is_adopting(PyObject *settle)
{
    return Py_TYPE(settle) == adopting_type && given.adopt != NULL;
}

PyObject *adopting_settle(PyObject *settle, int64_t number)
{
    struct adopting *self = (struct adopting *)settle;
    PyObject *descriptor = PyLong_FromLongLong(number), *result = NULL;
    if (descriptor == NULL)
        return NULL;
    switch (adopt_usual(self, descriptor, number)) {
    case ATTACHED:
        result = Py_NewRef(self->key);
        break;
    case ATTACHED_BY_RULE:
        if (error_drop())
            result = PyObject_CallFunctionObjArgs(given.adopt, settle, descriptor, NULL);
        break;
    case ATTACHING_FAILED:
        break;
    }
    Py_DECREF(descriptor);
    return result;
}

/* (nbytes, error): what every settling is asked; the record's nbytes are the descriptor. */
static PyObject *adopting_call(PyObject *object, PyObject *arguments, PyObject *keywords)
{
    (void)keywords;
    long long number;
    PyObject *error;
    if (!PyArg_ParseTuple(arguments, "LO", &number, &error))
        return NULL;
    if (given.adopt == NULL)
        return PyErr_Format(PyExc_RuntimeError, "portio has not been imported");
    int failed = PyObject_IsTrue(error);
    if (failed < 0)
        return NULL;
    if (failed)
        return Py_BuildValue("(iO)", 0, Py_None);
    PyObject *settled = adopting_settle(object, number);
    return settled != NULL ? Py_BuildValue("(iN)", 0, settled) : NULL;
}

static PyMemberDef adopting_members[] = {
    {"port", T_OBJECT_EX, offsetof(struct adopting, port), READONLY, NULL},
    {"listener", T_OBJECT_EX, offsetof(struct adopting, listener), READONLY, NULL},
    {"form", T_OBJECT_EX, offsetof(struct adopting, form), READONLY, NULL},
    {"key", T_OBJECT, offsetof(struct adopting, key), 0, NULL},
    {"opened", T_OBJECT, offsetof(struct adopting, opened), 0, NULL},
    {"refused", T_OBJECT, offsetof(struct adopting, refused), 0, NULL},
    {0},
};

static PyType_Slot adopting_slots[] = {
    {Py_tp_new, adopting_new},           {Py_tp_call, adopting_call},
    {Py_tp_traverse, adopting_traverse}, {Py_tp_clear, adopting_clear},
    {Py_tp_dealloc, adopting_dealloc},   {Py_tp_members, adopting_members},
    {0, NULL},
};

static PyType_Spec adopting_spec = {
    .name = "portio.accelerator.Adopting",
    .basicsize = sizeof(struct adopting),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = adopting_slots,
};

int adopt_add(PyObject *module)
{
    adopting_type = type_add(module, &adopting_spec, NULL);
    return adopting_type != NULL ? 0 : -1;
}
