/* Accepts: a descriptor becomes a socket of Python (operations/sockets.py has the rule). */
#include "take.h"

/* Settles an accept.  The socket exists from the submission on: if what makes it the owner of
   its descriptor is interrupted, it is not collected, and its connection not closed; the
   record is settled again, and storing the same descriptor does no harm. */
struct accepting {
    PyObject_HEAD
    PyObject *socket; /* closed, until it is settled */
    PyObject *form;   /* class, family, type and protocol */
};

static PyTypeObject *accepting_type;

_Static_assert(offsetof(struct accepting, form) - offsetof(struct accepting, socket) ==
                   sizeof(PyObject *),
               "two objects in a row");

static int accepting_traverse(PyObject *self, visitproc visit, void *arg)
{
    return objects_visit(self, &((struct accepting *)self)->socket, 2, visit, arg);
}

static int accepting_clear(PyObject *self)
{
    return objects_clear(&((struct accepting *)self)->socket, 2);
}

static void accepting_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    accepting_clear(self);
    object_free(self);
}

static PyObject *accepting_of(PyObject *form)
{
    if (!PyTuple_CheckExact(form) || PyTuple_Size(form) != FORM_SIZE ||
        !PyType_Check(PyTuple_GetItem(form, 0)))
        return PyErr_Format(PyExc_TypeError, "%R is no form of accepted sockets", form);
    PyTypeObject *class = (PyTypeObject *)PyTuple_GetItem(form, 0);
    newfunc make = (newfunc)(uintptr_t)PyType_GetSlot(class, Py_tp_new);
    PyObject *nothing = PyTuple_New(0);
    PyObject *socket = make != NULL && nothing != NULL ? make(class, nothing, NULL) : NULL;
    Py_XDECREF(nothing);
    PyObject *self = socket != NULL ? PyType_GenericAlloc(accepting_type, 0) : NULL;
    if (self == NULL) {
        Py_XDECREF(socket);
        return NULL;
    }
    ((struct accepting *)self)->socket = socket;
    ((struct accepting *)self)->form = Py_NewRef(form);
    return self;
}

PyObject *accepting_form(struct key *key)
{
    PyObject *form = key->accepting;
    if (form != NULL && PyTuple_CheckExact(form) && PyTuple_Size(form) == FORM_SIZE)
        return Py_NewRef(form);
    return PyObject_CallMethodObjArgs((PyObject *)key, name_of.accepting_form, NULL);
}

PyObject *accepting_make(struct key *key)
{
    PyObject *form = accepting_form(key);
    PyObject *self = form != NULL ? accepting_of(form) : NULL;
    Py_XDECREF(form);
    return self;
}

/* Accepting(form) */
static PyObject *accepting_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    (void)type, (void)keywords;
    PyObject *form;
    return PyArg_ParseTuple(arguments, "O", &form) ? accepting_of(form) : NULL;
}

/* As the class `socket.socket` has it, whatever class the socket is of. */
static bool socket_own(const struct accepting *self, PyObject *descriptor)
{
    PyObject *init = PyObject_GetAttr((PyObject *)given.socket_class, name_of.init);
    if (init == NULL)
        return false;
    PyObject *done = PyObject_CallFunctionObjArgs(
        init, self->socket, PyTuple_GetItem(self->form, 1), PyTuple_GetItem(self->form, 2),
        PyTuple_GetItem(self->form, 3), descriptor, NULL);
    Py_DECREF(init);
    Py_XDECREF(done);
    return done != NULL;
}

/* (nbytes, error): what every settling is asked; the record's nbytes are the descriptor. */
static PyObject *accepting_call(PyObject *object, PyObject *arguments, PyObject *keywords)
{
    (void)keywords;
    struct accepting *self = (struct accepting *)object;
    PyObject *descriptor, *error;
    if (!PyArg_ParseTuple(arguments, "OO", &descriptor, &error))
        return NULL;
    if (given.socket_class == NULL)
        return PyErr_Format(PyExc_RuntimeError, "portio has not been imported");
    int failed = PyObject_IsTrue(error);
    if (failed < 0)
        return NULL;
    if (failed)
        return Py_BuildValue("(iO)", 0, Py_None);
    if (!socket_own(self, descriptor))
        return NULL;
    return Py_BuildValue("(iO)", 0, self->socket);
}

bool settle_is_accept(PyObject *settle)
{
    return Py_TYPE(settle) == accepting_type && given.socket_class != NULL;
}

PyObject *accepting_settle(PyObject *settle, int64_t number)
{
    struct accepting *self = (struct accepting *)settle;
    PyObject *descriptor = PyLong_FromLongLong(number);
    bool owned = descriptor != NULL && socket_own(self, descriptor);
    Py_XDECREF(descriptor);
    return owned ? Py_NewRef(self->socket) : NULL;
}

static PyMemberDef accepting_members[] = {
    {"socket", T_OBJECT_EX, offsetof(struct accepting, socket), READONLY, NULL},
    {0},
};

static PyType_Slot accepting_slots[] = {
    {Py_tp_new, accepting_new},           {Py_tp_call, accepting_call},
    {Py_tp_traverse, accepting_traverse}, {Py_tp_clear, accepting_clear},
    {Py_tp_dealloc, accepting_dealloc},   {Py_tp_members, accepting_members},
    {0, NULL},
};

static PyType_Spec accepting_spec = {
    .name = "portio.accelerator.Accepting",
    .basicsize = sizeof(struct accepting),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = accepting_slots,
};

int accept_add(PyObject *module)
{
    accepting_type = type_add(module, &accepting_spec, NULL);
    return accepting_type != NULL ? 0 : -1;
}
