/* A piece of a stream that a RecvMultishot has received: a record becomes a completion, and
   the operation's next turn begins (turns.py has the rule, pools.py the memory). */
#include "book.h"
#include "take.h"

bool entry_is_pooled(PyObject *entry)
{
    return PyObject_TypeCheck(PyTuple_GetItem(entry, ENTRY_PIN), pool_type);
}

bool record_is_piece(const portio_completion *record, PyObject *entry)
{
    return record->status == (int64_t)PORTIO_MORE << 32 && entry_is_pooled(entry);
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

/* The entry of the next turn: the same with another token. */
static PyObject *entry_follow(PyObject *entry, PyObject *following)
{
    PyObject *again = PyTuple_New(ENTRY_SIZE);
    for (Py_ssize_t at = 0; again != NULL && at < ENTRY_SIZE; at++)
        PyTuple_SetItem(again, at,
                        Py_NewRef(at == ENTRY_TOKEN ? following : PyTuple_GetItem(entry, at)));
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

/* Begins the turn: its buffer goes back to the pool.  The handle was asked just now. */
static bool turn_begin(PyObject *self, uint64_t token, PyObject *following)
{
    struct port *port = (struct port *)self;
    portio_port *native = port->native;
    renew_function renew = port->renew;
    int refused;
    if (port->brief) {
        refused = renew(native, token, 1);
    } else {
        Py_BEGIN_ALLOW_THREADS
        refused = renew(native, token, 1);
        Py_END_ALLOW_THREADS
    }
    if (refused != PORTIO_CLOSED)
        return true;
    PyObject *told = PyObject_CallMethod(self, "_drop_turn", "O", following);
    Py_XDECREF(told);
    return told != NULL;
}

enum taken piece_take(PyObject *self, PyObject *out, const portio_completion *record,
                      PyObject *entry)
{
    struct port *port = (struct port *)self;
    struct key *key = (struct key *)PyTuple_GetItem(entry, ENTRY_KEY);
    enum taken result = TAKEN_BY_RULE;
    long long number;
    PyObject *again = NULL, *bytes = NULL, *length = NULL, *following = NULL;
    if (!key_ask(key, &number) || number != key->descriptor)
        goto end;
    following = PyLong_FromUnsignedLongLong(token_following(record->token));
    if (following == NULL)
        goto end;
    again = entry_follow(entry, following);
    bytes = piece_copy(entry, record->nbytes);
    length = PyLong_FromLongLong(record->nbytes & UINT32_MAX);
    if (again == NULL || bytes == NULL || length == NULL || !completion_prepare(port))
        goto end;
    /* From here on nothing of Python runs until the claim. */
    if (port->native == NULL || !completion_append(out))
        goto end;
    if (!turn_claim(port, record->token, entry, again)) {
        completion_withdraw(out);
        goto end;
    }
    struct operation *operation = (struct operation *)PyTuple_GetItem(entry, ENTRY_OPERATION);
    completion_fill((PyObject *)operation, (PyObject *)key, length, bytes);
    PyObject *before = operation->entry;
    operation->entry = Py_NewRef(again);
    Py_DECREF(before);
    result = turn_begin(self, record->token, following) ? TAKEN : TAKING_FAILED;
end:
    if (result == TAKEN_BY_RULE && !error_drop())
        result = TAKING_FAILED; /* nothing is claimed: the record is as it was */
    Py_XDECREF(length);
    Py_XDECREF(bytes);
    Py_XDECREF(again);
    Py_XDECREF(following);
    return result;
}
