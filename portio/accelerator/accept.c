/* Accepts: a descriptor becomes a socket of Python, and a record a completion
   (operations/sockets.py has the rule). */
#include "book.h"
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
static PyObject *init_name;

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
    if (!PyTuple_CheckExact(form) || PyTuple_Size(form) != 4 ||
        !PyType_Check(PyTuple_GetItem(form, 0)))
        return PyErr_Format(PyExc_TypeError, "%R is no form of accepted sockets", form);
    PyTypeObject *class = (PyTypeObject *)PyTuple_GetItem(form, 0);
    newfunc make = (newfunc)PyType_GetSlot(class, Py_tp_new);
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

PyObject *accepting_make(struct key *key)
{
    PyObject *form = key->accepting;
    if (form != NULL && form != Py_None)
        Py_INCREF(form);
    else
        form = PyObject_CallMethod((PyObject *)key, "accepting_form", NULL);
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
    PyObject *init = PyObject_GetAttr((PyObject *)given.socket_class, init_name);
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
    int failed = PyObject_IsTrue(error);
    if (failed < 0)
        return NULL;
    if (failed)
        return Py_BuildValue("(iO)", 0, Py_None);
    if (!socket_own(self, descriptor))
        return NULL;
    return Py_BuildValue("(iO)", 0, self->socket);
}

bool record_is_accept(const portio_completion *record, PyObject *entry)
{
    return record->status == 0 && given.outcome_class != NULL &&
           Py_TYPE(PyTuple_GetItem(entry, ENTRY_SETTLE)) == accepting_type &&
           PyLong_AsLong(PyTuple_GetItem(entry, ENTRY_MODE)) == MODE_QUEUED;
}

/* Somebody else has claimed it: if the port was closed, the socket is to be, too. */
static enum taken accept_lose(PyObject *self, uint64_t token, PyObject *entry, PyObject *nbytes,
                              PyObject *outcome)
{
    struct port *port = (struct port *)self;
    PyObject *lost = PyList_New(0), *told = NULL;
    if (lost != NULL && completion_prepare(port) && completion_append(lost)) {
        completion_fill(PyTuple_GetItem(entry, ENTRY_OPERATION), PyTuple_GetItem(entry, ENTRY_KEY),
                        nbytes, outcome);
        told = PyObject_CallMethod(self, "_lose", "KO", (unsigned long long)token,
                                   PyList_GetItem(lost, 0));
    }
    Py_XDECREF(lost);
    Py_XDECREF(told);
    return told != NULL ? TAKEN : TAKING_FAILED;
}

enum taken accept_take(PyObject *self, PyObject *out, const portio_completion *record,
                       PyObject *entry)
{
    struct port *port = (struct port *)self;
    struct accepting *accepting = (struct accepting *)PyTuple_GetItem(entry, ENTRY_SETTLE);
    enum taken result = TAKING_FAILED;
    PyObject *outcome = NULL, *nbytes = PyLong_FromLong(0);
    PyObject *descriptor = PyLong_FromLongLong(record->nbytes);
    if (nbytes == NULL || descriptor == NULL || !socket_own(accepting, descriptor))
        goto end;
    outcome = PyObject_CallFunctionObjArgs(given.outcome_class, nbytes, nbytes,
                                           accepting->socket, NULL);
    /* All memory before the look at the entry: see record_take. */
    if (outcome == NULL || !completion_prepare(port) || !completion_append(out))
        goto end;
    if (!books_are_open(port) || book_find(port_book(port), record->token) != entry) {
        completion_withdraw(out);
        result = accept_lose(self, record->token, entry, nbytes, outcome);
        goto end;
    }
    struct operation *operation = (struct operation *)PyTuple_GetItem(entry, ENTRY_OPERATION);
    Py_DECREF(book_remove(port_book(port), record->token)); /* the claim; the caller has it, too */
    completion_fill((PyObject *)operation, PyTuple_GetItem(entry, ENTRY_KEY), nbytes, outcome);
    PyObject *before = operation->outcome, *entry_before = operation->entry;
    operation->outcome = Py_NewRef(outcome);
    operation->entry = Py_NewRef(Py_None);
    tokens_return(port_tokens(port), token_following(record->token));
    Py_XDECREF(entry_before);
    Py_XDECREF(before); /* last: it may run anything */
    result = TAKEN;
end:
    Py_XDECREF(descriptor);
    Py_XDECREF(outcome);
    Py_XDECREF(nbytes);
    return result;
}

static PyType_Slot accepting_slots[] = {
    {Py_tp_new, accepting_new},           {Py_tp_call, accepting_call},
    {Py_tp_traverse, accepting_traverse}, {Py_tp_clear, accepting_clear},
    {Py_tp_dealloc, accepting_dealloc},   {0, NULL},
};

static PyType_Spec accepting_spec = {
    .name = "portio.accelerator.Accepting",
    .basicsize = sizeof(struct accepting),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = accepting_slots,
};

int accept_add(PyObject *module)
{
    init_name = PyUnicode_InternFromString("__init__");
    accepting_type = type_add(module, &accepting_spec, NULL);
    return init_name != NULL && accepting_type != NULL ? 0 : -1;
}
