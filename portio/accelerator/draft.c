/* Drafts: what a submission needs to know of an operation, and its claim. */
#include "submit.h"

#define SOCKETS (1u << PORTIO_STREAM_SOCKET | 1u << PORTIO_DATAGRAM_SOCKET)
#define FILES (1u << PORTIO_FILE | 1u << PORTIO_PIPE)

static PyObject *modes[PORTIO_QUIET + 1];

PyObject *mode_object(int mode)
{
    if (modes[mode] == NULL)
        modes[mode] = PyLong_FromLong(mode);
    return modes[mode];
}

void draft_drop(struct draft *draft)
{
    Py_XDECREF(draft->key);
    Py_XDECREF(draft->pin);
    Py_XDECREF(draft->entry);
    Py_XDECREF(draft->token_object);
}

bool draft_make(struct draft *draft, struct transfer *transfer)
{
    bool on_socket = transfer->kind == PORTIO_RECV || transfer->kind == PORTIO_SEND;
    bool fills = transfer->kind == PORTIO_RECV || transfer->kind == PORTIO_READ;
    PyObject *key = transfer->base.key, *argument = transfer->argument;
    *draft = (struct draft){.transfer = transfer};
    if (transfer->base.entry != Py_None || transfer->kind == 0 || key == NULL ||
        argument == NULL || transfer->buffer == NULL || !PyObject_TypeCheck(key, key_type) ||
        !PyLong_CheckExact(argument))
        return false;
    int overflow;
    draft->argument = PyLong_AsLongLongAndOverflow(argument, &overflow);
    if (overflow != 0 || draft->argument < 0 || (on_socket && draft->argument > INT32_MAX))
        return false;
    draft->key = Py_NewRef(key);
    draft->fits = on_socket ? SOCKETS : FILES;
    PyObject *getter = ((struct key *)key)->number;
    if (getter == NULL)
        return false;
    Py_INCREF(getter);
    PyObject *number = PyObject_CallNoArgs(getter);
    Py_DECREF(getter);
    if (number == NULL) {
        draft->failed = true;
        return false;
    }
    draft->number = PyLong_AsLongLong(number);
    Py_DECREF(number);
    PyObject *buffer = transfer->buffer;
    if (buffer == NULL || (draft->number == -1 && PyErr_Occurred() != NULL))
        return false;
    Py_INCREF(buffer); /* another thread may change the field while Python is asked */
    draft->pin = pin_make(buffer, fills, &draft->start, &draft->length);
    Py_DECREF(buffer);
    if (draft->pin == NULL)
        return false;
    draft->entry = PyTuple_New(ENTRY_SIZE);
    return draft->entry != NULL;
}

/* Takes the last of the free tokens; false: there is none. */
static bool token_pop(struct port *port, struct draft *draft)
{
    PyObject *list = port->free;
    if (list == NULL || !PyList_CheckExact(list))
        return false;
    Py_ssize_t last = PyList_Size(list) - 1;
    if (last < 0)
        return false;
    draft->token_object = Py_NewRef(PyList_GetItem(list, last));
    draft->token = PyLong_AsUnsignedLongLong(draft->token_object);
    return PyList_SetSlice(list, last, last + 1, NULL) == 0;
}

static void token_push(struct port *port, uint64_t value)
{
    PyObject *token = PyLong_FromUnsignedLongLong(value & (uint64_t)TOKENS);
    if (token == NULL || PyList_Append(port->free, token) < 0)
        PyErr_Clear(); /* no memory: a slot is not used any more, and nothing else is lost */
    Py_XDECREF(token);
}

static void operation_set(struct operation *operation, PyObject *entry)
{
    PyObject *before = operation->entry;
    operation->entry = Py_NewRef(entry);
    Py_XDECREF(before); /* None, or an entry that the draft holds as well */
}

/* The entry leaves the books, if it is there still. */
static bool entry_withdraw(struct port *port, const struct draft *draft)
{
    if (PyDict_GetItemWithError(port->pending, draft->token_object) == draft->entry &&
        PyDict_DelItem(port->pending, draft->token_object) == 0)
        return true;
    PyErr_Clear();
    return false;
}

bool draft_claim(struct port *port, struct draft *draft, int mode)
{
    struct operation *operation = &draft->transfer->base;
    struct key *key = (struct key *)draft->key;
    PyObject *number = mode_object(mode);
    if (operation->entry != Py_None || operation->key != draft->key ||
        key->port != (PyObject *)port || !(key->fits & draft->fits) ||
        key->descriptor != draft->number || port->native == NULL || port->pending == NULL ||
        number == NULL || !token_pop(port, draft))
        return false;
    PyObject *entry = draft->entry;
    PyTuple_SetItem(entry, ENTRY_OPERATION, Py_NewRef((PyObject *)operation));
    PyTuple_SetItem(entry, ENTRY_KEY, Py_NewRef(draft->key));
    PyTuple_SetItem(entry, ENTRY_SETTLE, Py_NewRef(Py_None));
    PyTuple_SetItem(entry, ENTRY_PIN, Py_NewRef(draft->pin));
    PyTuple_SetItem(entry, ENTRY_TOKEN, Py_NewRef(draft->token_object));
    PyTuple_SetItem(entry, ENTRY_PORT, Py_NewRef((PyObject *)port));
    PyTuple_SetItem(entry, ENTRY_MODE, Py_NewRef(number));
    if (PyDict_SetItem(port->pending, draft->token_object, entry) < 0) {
        token_push(port, draft->token);
        return false;
    }
    operation_set(operation, entry);
    return true;
}

void draft_end(struct port *port, struct draft *draft, PyObject *outcome)
{
    struct operation *operation = &draft->transfer->base;
    if (!entry_withdraw(port, draft))
        return; /* the port was closed meanwhile, and has said so to the operation */
    PyObject *before = operation->outcome;
    operation->outcome = Py_NewRef(outcome);
    operation_set(operation, Py_None);
    token_push(port, draft->token + GENERATION);
    Py_XDECREF(before); /* last: it may run anything */
}

void draft_undo(struct port *port, struct draft *draft)
{
    struct operation *operation = &draft->transfer->base;
    if (operation->entry == draft->entry)
        operation_set(operation, Py_None);
    if (entry_withdraw(port, draft))
        token_push(port, draft->token);
}
