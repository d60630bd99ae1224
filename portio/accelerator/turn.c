/* A turn of a multishot operation: a record becomes a completion, and the next turn begins
   (turns.py has the rule).  It has brought a piece of a stream, in a buffer of a pool
   (pools.py), or a connection. */
#include "book.h"
#include "take.h"

bool entry_is_pooled(PyObject *entry)
{
    return PyObject_TypeCheck(PyTuple_GetItem(entry, ENTRY_PIN), pool_type);
}

bool record_is_turn(const portio_completion *record, PyObject *entry)
{
    const struct operation *operation =
        (struct operation *)PyTuple_GetItem(entry, ENTRY_OPERATION);
    return record->status == (int64_t)PORTIO_MORE << 32 && operation->form != FORM_OTHER &&
           (entry_is_pooled(entry) || settle_is_in_c(PyTuple_GetItem(entry, ENTRY_SETTLE)));
}

PyObject *piece_copy(PyObject *entry, int64_t nbytes)
{
    const struct pool *pool = (struct pool *)PyTuple_GetItem(entry, ENTRY_PIN);
    Py_ssize_t length = (Py_ssize_t)(nbytes & UINT32_MAX), number = (Py_ssize_t)(nbytes >> 32);
    if (pool->memory == NULL || !PyByteArray_Check(pool->memory) || pool->size < 1 ||
        length > pool->size || number < 0 ||
        number >= PyByteArray_Size(pool->memory) / pool->size)
        return NULL;
    return PyBytes_FromStringAndSize(PyByteArray_AsString(pool->memory) + number * pool->size,
                                     length);
}

/* What the completion has, and how the next turn is settled: a piece like the one before. */
static bool piece_settle(const portio_completion *record, PyObject *entry, PyObject **nbytes,
                         PyObject **outcome, PyObject **settle)
{
    *outcome = piece_copy(entry, record->nbytes);
    *nbytes = PyLong_FromLongLong(record->nbytes & UINT32_MAX);
    *settle = Py_NewRef(PyTuple_GetItem(entry, ENTRY_SETTLE));
    return *outcome != NULL && *nbytes != NULL;
}

/* Every connection by something of its own.  One that the system refuses, whose completion has an
   error and is not the last, is for the rule. */
static bool connection_settle(const portio_completion *record, PyObject *entry, PyObject **nbytes,
                              PyObject **outcome, PyObject **settle)
{
    PyObject *before = PyTuple_GetItem(entry, ENTRY_SETTLE);
    struct key *key = (struct key *)PyTuple_GetItem(entry, ENTRY_KEY);
    *settle = settle_is_adopting(before)
                  ? adopting_make(PyTuple_GetItem(entry, ENTRY_PORT), key)
                  : accepting_make(key);
    PyObject *value = *settle != NULL ? settle_in_c(before, record->nbytes) : NULL;
    if (value != NULL && !value_is_refusal(value)) {
        *nbytes = PyLong_FromLong(0);
        *outcome = *nbytes != NULL ? outcome_make(0, *nbytes, value) : NULL;
        if (*outcome != NULL)
            ((struct outcome *)*outcome)->more = 1;
    }
    Py_XDECREF(value);
    return *outcome != NULL;
}

/* The entry of the next turn: the same with another token, and settled by another. */
static PyObject *entry_follow(PyObject *entry, PyObject *following, PyObject *settle)
{
    PyObject *again = PyTuple_New(ENTRY_SIZE);
    for (Py_ssize_t at = 0; again != NULL && at < ENTRY_SIZE; at++)
        PyTuple_SetItem(again, at,
                        Py_NewRef(at == ENTRY_TOKEN    ? following
                                  : at == ENTRY_SETTLE ? settle
                                                       : PyTuple_GetItem(entry, at)));
    return again;
}

/* The book has the next turn instead of this one, which is the claim.  False: somebody else
   has claimed it. */
static bool turn_claim(struct port *port, uint64_t token, PyObject *entry, PyObject *again)
{
    if (!books_are_open(port) || book_find(port_book(port), token) != entry)
        return false;
    Py_DECREF(book_remove(port_book(port), token)); /* the caller has it as well */
    book_enter(port_book(port), token_following(token), again);
    return true;
}

/* Whether the handle has told, just now, that it is open: a socket object does; of a mere number
   the engine has to find out. */
static int handle_has_told(const struct key *key)
{
    return key_is_bare(key) || (key->handle != NULL && given.socket_class != NULL &&
                                PyObject_TypeCheck(key->handle, given.socket_class));
}

/* Begins the turn: its buffer, if it has one, goes back to the pool. */
static bool turn_begin(PyObject *self, uint64_t token, PyObject *following, int same)
{
    struct port *port = (struct port *)self;
    portio_port *native = port->native;
    renew_function renew = port->renew;
    int refused;
    if (port->brief) {
        refused = renew(native, token, same);
    } else {
        Py_BEGIN_ALLOW_THREADS
        refused = renew(native, token, same);
        Py_END_ALLOW_THREADS
    }
    if (refused != PORTIO_CLOSED)
        return true;
    PyObject *told = PyObject_CallMethod(self, "_drop_turn", "O", following);
    Py_XDECREF(told);
    return told != NULL;
}

enum taken turn_take(PyObject *self, PyObject *out, const portio_completion *record,
                     PyObject *entry)
{
    struct port *port = (struct port *)self;
    struct key *key = (struct key *)PyTuple_GetItem(entry, ENTRY_KEY);
    enum taken result = TAKEN_BY_RULE;
    long long number;
    PyObject *again = NULL, *outcome = NULL, *nbytes = NULL, *settle = NULL, *following = NULL;
    bool pooled = entry_is_pooled(entry);
    if (!key_ask(key, &number) || number != key->descriptor)
        goto end;
    following = PyLong_FromUnsignedLongLong(token_following(record->token));
    if (following == NULL ||
        !(pooled ? piece_settle(record, entry, &nbytes, &outcome, &settle)
                 : connection_settle(record, entry, &nbytes, &outcome, &settle)))
        goto end;
    again = entry_follow(entry, following, settle);
    if (again == NULL || !completion_prepare(port))
        goto end;
    /* From here on nothing of Python runs until the claim. */
    if (port->native == NULL || !completion_append(out))
        goto end;
    if (!turn_claim(port, record->token, entry, again)) {
        completion_withdraw(out);
        if (!pooled)
            result = record_lose(self, record->token, entry, nbytes, outcome);
        goto end;
    }
    struct operation *operation = (struct operation *)PyTuple_GetItem(entry, ENTRY_OPERATION);
    completion_fill((PyObject *)operation, (PyObject *)key, nbytes, outcome);
    PyObject *before = operation->entry;
    operation->entry = Py_NewRef(again);
    Py_DECREF(before);
    result = turn_begin(self, record->token, following, handle_has_told(key)) ? TAKEN
                                                                              : TAKING_FAILED;
end:
    if (result == TAKEN_BY_RULE && !error_drop())
        result = TAKING_FAILED; /* nothing is claimed: the record is as it was */
    Py_XDECREF(nbytes);
    Py_XDECREF(outcome);
    Py_XDECREF(settle);
    Py_XDECREF(again);
    Py_XDECREF(following);
    return result;
}
