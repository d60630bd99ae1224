/* Drafts: what a submission needs to know of an operation, and its claim. */
#include "book.h"
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

/* An empty entry for the next draft: most sends end before they need one.  The collector
   does not know of it, nor does gc.get_objects(), until it is filled. */
static PyObject *spare_entry;

static PyObject *entry_new(void)
{
    PyObject *entry = spare_entry;
    spare_entry = NULL;
    return entry != NULL ? entry : PyTuple_New(ENTRY_SIZE);
}

static void entry_keep(PyObject *entry)
{
    if (spare_entry != NULL || entry == NULL) {
        Py_XDECREF(entry);
        return;
    }
    PyObject_GC_UnTrack(entry);
    spare_entry = entry;
}

void draft_drop(struct draft *draft)
{
    Py_XDECREF(draft->key);
    Py_XDECREF(draft->pin);
    Py_XDECREF(draft->settle);
    if (draft->filled)
        Py_DECREF(draft->entry);
    else
        entry_keep(draft->entry);
    Py_XDECREF(draft->token_object);
}

/* Asks the handle for its number. */
static bool key_look(struct draft *draft, unsigned int fits)
{
    PyObject *key = draft->operation->key;
    if (key == NULL || !PyObject_TypeCheck(key, key_type))
        return false;
    draft->key = Py_NewRef(key);
    draft->fits = fits;
    if (key_ask((struct key *)key, &draft->number))
        return true;
    draft->failed = PyErr_Occurred() != NULL;
    return false;
}

/* A send or a receive of up to so many bytes is a system call of a few microseconds that
   never blocks (submit.c).  A read of a file may: where the file is not in memory the kernel begins
   to fetch it in the thread that asks, and waits there while the device's queue is full. */
#define BRIEF (64 * 1024)

bool pool_is_brief(PyObject *pool)
{
    return PyObject_TypeCheck(pool, pool_type) && ((struct pool *)pool)->size <= BRIEF;
}

bool transfer_is_brief(uint32_t kind, Py_ssize_t length)
{
    return (kind == PORTIO_RECV || kind == PORTIO_SEND) && length <= BRIEF;
}

static bool transfer_look(struct draft *draft)
{
    struct transfer *transfer = (struct transfer *)draft->operation;
    uint32_t kind = transfer->base.kind;
    bool on_socket = kind == PORTIO_RECV || kind == PORTIO_SEND;
    bool fills = kind == PORTIO_RECV || kind == PORTIO_READ;
    PyObject *argument = transfer->argument;
    if (argument == NULL || transfer->buffer == NULL || !PyLong_CheckExact(argument))
        return false;
    int overflow;
    draft->argument = PyLong_AsLongLongAndOverflow(argument, &overflow);
    if (overflow != 0 || draft->argument < 0 || (on_socket && draft->argument > INT32_MAX))
        return false;
    if (!key_look(draft, on_socket ? SOCKETS : FILES))
        return false;
    PyObject *buffer = transfer->buffer;
    if (buffer == NULL)
        return false;
    Py_INCREF(buffer); /* another thread may change the field while Python is asked */
    draft->pin = pin_make(buffer, fills, &draft->start, &draft->length);
    Py_DECREF(buffer);
    draft->brief = transfer_is_brief(kind, draft->length);
    return draft->pin != NULL;
}

static bool accept_look(struct draft *draft, PyObject *port)
{
    PyObject *multishot = ((struct bare *)draft->operation)->argument;
    if ((multishot != Py_False && multishot != Py_True) || !key_look(draft, SOCKETS))
        return false;
    struct key *key = (struct key *)draft->key;
    draft->flags = multishot == Py_True ? PORTIO_MULTISHOT : 0;
    draft->brief = true;
    draft->settle = draft->operation->form == FORM_ACCEPT ? accepting_make(key)
                                                          : adopting_make(port, key);
    return draft->settle != NULL;
}

static bool pooled_look(struct draft *draft)
{
    PyObject *pool = ((struct bare *)draft->operation)->argument;
    if (pool == NULL || !PyObject_TypeCheck(pool, pool_type))
        return false;
    draft->pin = Py_NewRef(pool);
    if (!key_look(draft, 1u << PORTIO_STREAM_SOCKET))
        return false;
    bool lends = draft->operation->form == FORM_LENT;
    draft->flags = PORTIO_MULTISHOT | (lends ? PORTIO_LEND : 0);
    draft->brief = pool_is_brief(pool);
    draft->start = (void *)(uintptr_t)((struct pool *)pool)->address;
    draft->settle = PyObject_GetAttr(pool, lends ? name_of.lend : name_of.settle);
    return draft->settle != NULL && draft->start != NULL;
}

bool draft_make(struct draft *draft, PyObject *port, struct operation *operation, int mode)
{
    *draft = (struct draft){.operation = operation};
    if (operation->entry != Py_None)
        return false;
    bool usual = false;
    switch ((enum form)operation->form) {
    case FORM_OTHER:
        break;
    case FORM_TRANSFER:
        usual = transfer_look(draft);
        break;
    case FORM_ACCEPT:
    case FORM_ACCEPT_KEY:
        usual = mode == MODE_QUEUED && accept_look(draft, port);
        break;
    case FORM_POOLED:
    case FORM_LENT:
        usual = mode == MODE_QUEUED && pooled_look(draft);
        break;
    }
    if (!usual)
        return false;
    draft->entry = entry_new();
    return draft->entry != NULL;
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
    if (!books_are_open(port) || book_find(port_book(port), draft->token) != draft->entry)
        return false;
    Py_DECREF(book_remove(port_book(port), draft->token)); /* the draft has it as well */
    return true;
}

static bool draft_is_claimable(struct port *port, const struct draft *draft)
{
    struct operation *operation = draft->operation;
    struct key *key = (struct key *)draft->key;
    if (form_is_pooled((enum form)operation->form) &&
        ((struct pool *)draft->pin)->port != (PyObject *)port)
        return false;
    return operation->entry == Py_None && operation->key == draft->key &&
           key->port == (PyObject *)port && (key->fits & draft->fits) &&
           key->descriptor == draft->number && port->native != NULL && books_are_open(port);
}

static void entry_fill(struct port *port, struct draft *draft, PyObject *mode)
{
    PyObject *entry = draft->entry;
    draft->filled = true;
    if (!PyObject_GC_IsTracked(entry))
        PyObject_GC_Track(entry);
    PyTuple_SetItem(entry, ENTRY_OPERATION, Py_NewRef((PyObject *)draft->operation));
    PyTuple_SetItem(entry, ENTRY_KEY, Py_NewRef(draft->key));
    PyTuple_SetItem(entry, ENTRY_SETTLE, Py_NewRef(draft->settle != NULL ? draft->settle : Py_None));
    PyTuple_SetItem(entry, ENTRY_PIN, Py_NewRef(draft->pin != NULL ? draft->pin : Py_None));
    PyTuple_SetItem(entry, ENTRY_TOKEN, Py_NewRef(draft->token_object));
    PyTuple_SetItem(entry, ENTRY_PORT, Py_NewRef((PyObject *)port));
    PyTuple_SetItem(entry, ENTRY_MODE, Py_NewRef(mode));
}

bool draft_reserve(struct port *port, struct draft *draft, int mode)
{
    if (mode_object(mode) == NULL || !draft_is_claimable(port, draft) ||
        !tokens_look(port_tokens(port), &draft->token) ||
        !book_reserve(port_book(port), draft->token))
        return false;
    draft->token_object = PyLong_FromUnsignedLongLong(draft->token);
    return draft->token_object != NULL;
}

void draft_enter(struct port *port, struct draft *draft, int mode)
{
    entry_fill(port, draft, mode_object(mode));
    tokens_take(port_tokens(port));
    book_enter(port_book(port), draft->token, draft->entry);
    operation_set(draft->operation, draft->entry);
}

bool draft_claim(struct port *port, struct draft *draft, int mode)
{
    if (!draft_reserve(port, draft, mode))
        return false;
    draft_enter(port, draft, mode);
    return true;
}

void draft_pass(struct port *port, const struct draft *draft)
{
    tokens_take(port_tokens(port));
    tokens_return(port_tokens(port), token_following(draft->token));
}

void draft_end(struct port *port, struct draft *draft, PyObject *outcome)
{
    struct operation *operation = draft->operation;
    if (!entry_withdraw(port, draft))
        return; /* the port was closed meanwhile, and has said so to the operation */
    PyObject *before = operation->outcome;
    operation->outcome = Py_NewRef(outcome);
    operation_set(operation, Py_None);
    tokens_return(port_tokens(port), token_following(draft->token));
    Py_XDECREF(before); /* last: it may run anything */
}

void draft_undo(struct port *port, struct draft *draft)
{
    struct operation *operation = draft->operation;
    if (operation->entry == draft->entry)
        operation_set(operation, Py_None);
    if (entry_withdraw(port, draft))
        tokens_return(port_tokens(port), draft->token);
}
