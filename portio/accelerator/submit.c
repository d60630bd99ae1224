/* `Port.submit` of one Recv, Send, Read or Write with one buffer. */
#include "accelerator.h"

/* A send or a receive of up to so many bytes keeps the GIL: it is a system call of a few
   microseconds that never blocks.  To give the GIL away for it would hand it to another
   thread that wants it, and this one would wait for it as long as that thread likes; with
   several workers at one port it would go to and fro for each packet. */
#define BRIEF (64 * 1024)

#define SOCKETS (1u << PORTIO_STREAM_SOCKET | 1u << PORTIO_DATAGRAM_SOCKET)
#define FILES (1u << PORTIO_FILE | 1u << PORTIO_PIPE)

/* What Python is asked about; all of it before the state is looked at. */
struct draft {
    PyObject *key;
    PyObject *pin;
    PyObject *entry; /* a tuple to be filled */
    PyObject *moved; /* the outcome, if it ends at once */
    long long number;
    int64_t argument;
    void *start;
    Py_ssize_t length;
};

static void draft_drop(struct draft *draft)
{
    Py_XDECREF(draft->key);
    Py_XDECREF(draft->pin);
    Py_XDECREF(draft->entry);
    Py_XDECREF(draft->moved);
}

/* False: it is not the usual case, or an error; the rule will say which. */
static bool draft_make(struct draft *draft, struct transfer *transfer, bool quiet)
{
    bool on_socket = transfer->kind == PORTIO_RECV || transfer->kind == PORTIO_SEND;
    bool fills = transfer->kind == PORTIO_RECV || transfer->kind == PORTIO_READ;
    PyObject *key = transfer->base.key, *argument = transfer->argument;
    if (key == NULL || argument == NULL || transfer->buffer == NULL ||
        !PyObject_TypeCheck(key, key_type) || !PyLong_CheckExact(argument))
        return false;
    int overflow;
    draft->argument = PyLong_AsLongLongAndOverflow(argument, &overflow);
    if (overflow != 0 || draft->argument < 0 || (on_socket && draft->argument > INT32_MAX))
        return false;
    draft->key = Py_NewRef(key);
    PyObject *getter = ((struct key *)key)->number;
    if (getter == NULL)
        return false;
    Py_INCREF(getter);
    PyObject *number = PyObject_CallNoArgs(getter);
    Py_DECREF(getter);
    if (number == NULL)
        return false;
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
    if (quiet) {
        draft->moved = PyLong_FromSsize_t(draft->length);
        if (draft->moved == NULL)
            return false;
    }
    draft->entry = PyTuple_New(ENTRY_SIZE);
    return draft->entry != NULL;
}

/* The last of the free tokens, which is taken from the list; NULL: there is none. */
static PyObject *token_pop(struct port *port, uint64_t *value)
{
    PyObject *list = port->free;
    if (list == NULL || !PyList_CheckExact(list))
        return NULL;
    Py_ssize_t last = PyList_Size(list) - 1;
    if (last < 0)
        return NULL;
    PyObject *token = Py_NewRef(PyList_GetItem(list, last));
    *value = PyLong_AsUnsignedLongLong(token);
    if (PyList_SetSlice(list, last, last + 1, NULL) < 0)
        Py_CLEAR(token);
    return token;
}

static void token_push(struct port *port, uint64_t value)
{
    PyObject *token = PyLong_FromUnsignedLongLong(value & (uint64_t)TOKENS);
    if (token == NULL || PyList_Append(port->free, token) < 0)
        PyErr_Clear(); /* no memory: a slot is not used any more, and nothing else is lost */
    Py_XDECREF(token);
}

static void entry_fill(PyObject *entry, PyObject *operation, const struct draft *draft,
                       PyObject *settle, PyObject *token, PyObject *port, PyObject *mode)
{
    PyTuple_SetItem(entry, ENTRY_OPERATION, Py_NewRef(operation));
    PyTuple_SetItem(entry, ENTRY_KEY, Py_NewRef(draft->key));
    PyTuple_SetItem(entry, ENTRY_SETTLE, Py_NewRef(settle));
    PyTuple_SetItem(entry, ENTRY_PIN, Py_NewRef(draft->pin));
    PyTuple_SetItem(entry, ENTRY_TOKEN, Py_NewRef(token));
    PyTuple_SetItem(entry, ENTRY_PORT, Py_NewRef(port));
    PyTuple_SetItem(entry, ENTRY_MODE, Py_NewRef(mode));
}

static void operation_set(struct operation *operation, PyObject *entry)
{
    PyObject *before = operation->entry;
    operation->entry = Py_NewRef(entry);
    Py_XDECREF(before); /* None, or an entry that the caller holds as well */
}

/* The entry leaves the books, if it is there still. */
static bool entry_withdraw(struct port *port, PyObject *token, PyObject *entry)
{
    if (PyDict_GetItemWithError(port->pending, token) == entry &&
        PyDict_DelItem(port->pending, token) == 0)
        return true;
    PyErr_Clear();
    return false;
}

/* From here to the engine there is nothing that could let anybody else in.  1: started;
   0: the rule has to say why not; -1: an exception. */
static int transfer_start(struct port *port, struct transfer *transfer, struct draft *draft,
                          PyObject *mode_object, uint32_t mode)
{
    struct operation *operation = &transfer->base;
    struct key *key = (struct key *)draft->key;
    bool on_socket = transfer->kind == PORTIO_RECV || transfer->kind == PORTIO_SEND;
    if (operation->entry != Py_None || operation->key != draft->key ||
        key->port != (PyObject *)port || !(key->fits & (on_socket ? SOCKETS : FILES)) ||
        key->descriptor != draft->number || port->native == NULL || port->pending == NULL)
        return 0;
    uint64_t token;
    PyObject *token_object = token_pop(port, &token);
    if (token_object == NULL)
        return 0;
    PyObject *entry = draft->entry;
    PyObject *settle = transfer->prompt ? prompt_settle : Py_None;
    entry_fill(entry, (PyObject *)operation, draft, settle, token_object, (PyObject *)port,
               mode_object);
    if (PyDict_SetItem(port->pending, token_object, entry) < 0) {
        token_push(port, token);
        Py_DECREF(token_object);
        return -1;
    }
    operation_set(operation, entry);

    if (transfer->prompt)
        mode |= PORTIO_QUIET;
    uint64_t handle = key->id, length = (uint64_t)draft->length;
    uint32_t kind = transfer->kind;
    int result;
    if (on_socket && draft->length <= BRIEF) {
        result = port->submit_one(port->native, kind, mode, handle, token, draft->start, length,
                                  draft->argument);
    } else {
        portio_port *native = port->native;
        submit_one_function submit_one = port->submit_one;
        Py_BEGIN_ALLOW_THREADS
        result = submit_one(native, kind, mode, handle, token, draft->start, length,
                            draft->argument);
        Py_END_ALLOW_THREADS
    }
    if (result > 0) {
        /* It has ended.  If the entry is gone, the port was closed meanwhile, and has said
           so to the operation. */
        if (entry_withdraw(port, token_object, entry)) {
            PyObject *before = operation->outcome;
            operation->outcome = Py_NewRef(draft->moved);
            operation_set(operation, Py_None);
            token_push(port, token + GENERATION);
            Py_XDECREF(before); /* last: it may run anything */
        }
    } else if (result < 0) {
        if (operation->entry == entry)
            operation_set(operation, Py_None);
        if (entry_withdraw(port, token_object, entry))
            token_push(port, token);
        Py_DECREF(token_object);
        PyObject *error = PyObject_CallMethod((PyObject *)port, "_refusal", "i", result);
        if (error != NULL) {
            PyErr_SetObject((PyObject *)Py_TYPE(error), error);
            Py_DECREF(error);
        }
        return -1;
    }
    Py_DECREF(token_object);
    return 1;
}

/* The mode that the keywords ask for; -1: the rule has to look at them. */
static int mode_of(PyObject *const *values, PyObject *names)
{
    if (names == NULL)
        return MODE_QUEUED;
    if (PyTuple_Size(names) != 1)
        return -1;
    PyObject *name = PyTuple_GetItem(names, 0);
    if (PyUnicode_CompareWithASCIIString(name, "quiet") == 0) {
        if (values[0] == Py_True)
            return PORTIO_QUIET;
        if (values[0] == Py_False)
            return MODE_QUEUED;
    } else if (PyUnicode_CompareWithASCIIString(name, "queued") == 0) {
        if (values[0] == Py_True)
            return MODE_QUEUED;
        if (values[0] == Py_False)
            return PORTIO_UNQUEUED;
    }
    return -1;
}

/* A check has failed: the rule makes it again, and finds the words.  What a signal handler
   raises is no check's. */
static bool error_is_for_the_rule(void)
{
    if (!PyErr_ExceptionMatches(PyExc_Exception))
        return false;
    PyErr_Clear();
    return true;
}

static PyObject *modes[PORTIO_QUIET + 1];

PyObject *port_submit(PyObject *self, PyObject *const *arguments, Py_ssize_t count,
                      PyObject *names)
{
    struct port *port = (struct port *)self;
    int mode;
    if (count == 1 && port->native != NULL && PyObject_TypeCheck(arguments[0], transfer_type) &&
        (mode = mode_of(arguments + 1, names)) >= 0) {
        struct transfer *transfer = (struct transfer *)arguments[0];
        if (modes[mode] == NULL && (modes[mode] = PyLong_FromLong(mode)) == NULL)
            return NULL;
        struct draft draft = {0};
        int started = 0;
        if (transfer->base.entry == Py_None && transfer->kind != 0 &&
            draft_make(&draft, transfer, (mode & PORTIO_QUIET) != 0 || transfer->prompt))
            started = transfer_start(port, transfer, &draft, modes[mode], (uint32_t)mode);
        else if (PyErr_Occurred() != NULL)
            started = error_is_for_the_rule() ? 0 : -1;
        draft_drop(&draft);
        if (started > 0)
            Py_RETURN_NONE;
        if (started < 0)
            return NULL;
    }
    return call_rule(self, "_submit_by_rule", arguments, count, names);
}
