/* A turn of a multishot operation: a record becomes a completion, and the next turn begins
   (turns.py has the rule).  It has brought a piece of a stream, in a buffer of a pool
   (pools.py), or a connection. */
#include "book.h"
#include "take.h"

bool entry_is_pooled(PyObject *entry)
{
    return PyObject_TypeCheck(PyTuple_GetItem(entry, ENTRY_PIN), pool_type);
}

enum form entry_form(PyObject *entry)
{
    return (enum form)((struct operation *)PyTuple_GetItem(entry, ENTRY_OPERATION))->form;
}

bool record_is_turn(const portio_completion *record, PyObject *entry)
{
    return record->status == (int64_t)PORTIO_MORE << 32 && entry_form(entry) != FORM_OTHER &&
           (entry_is_pooled(entry) || settle_is_in_c(PyTuple_GetItem(entry, ENTRY_SETTLE)));
}

char *piece_find(const struct pool *pool, int64_t nbytes)
{
    Py_ssize_t length = (Py_ssize_t)(nbytes & UINT32_MAX), number = (Py_ssize_t)(nbytes >> 32);
    if (pool->memory == NULL || !PyByteArray_Check(pool->memory) || pool->size < 1 ||
        length > pool->size || number < 0 ||
        number >= PyByteArray_Size(pool->memory) / pool->size)
        return NULL;
    return PyByteArray_AsString(pool->memory) + number * pool->size;
}

PyObject *piece_copy(PyObject *entry, int64_t nbytes)
{
    const char *start = piece_find((struct pool *)PyTuple_GetItem(entry, ENTRY_PIN), nbytes);
    return start != NULL ? PyBytes_FromStringAndSize(start, (Py_ssize_t)(nbytes & UINT32_MAX))
                         : NULL;
}

/* What a completion has, and how the next turn is settled. */
struct settled {
    PyObject *nbytes;
    PyObject *outcome;
    PyObject *settle;
    PyObject *loan; /* NULL: the outcome is no memory of a pool */
};

/* A piece like the one before. */
static bool piece_settle(const portio_completion *record, PyObject *entry, struct settled *settled)
{
    struct pool *pool = (struct pool *)PyTuple_GetItem(entry, ENTRY_PIN);
    char *start = piece_find(pool, record->nbytes);
    if (start == NULL)
        return false;
    Py_ssize_t length = (Py_ssize_t)(record->nbytes & UINT32_MAX);
    if (entry_form(entry) == FORM_LENT)
        settled->outcome = loan_make(pool, (uint32_t)(record->nbytes >> 32), start, length,
                                     &settled->loan);
    else
        settled->outcome = PyBytes_FromStringAndSize(start, length);
    settled->nbytes = PyLong_FromSsize_t(length);
    settled->settle = Py_NewRef(PyTuple_GetItem(entry, ENTRY_SETTLE));
    return settled->outcome != NULL && settled->nbytes != NULL;
}

/* Every connection by something of its own.  One that the system refuses, whose completion has an
   error and is not the last, is for the rule. */
static bool connection_settle(const portio_completion *record, PyObject *entry,
                              struct settled *settled)
{
    PyObject *before = PyTuple_GetItem(entry, ENTRY_SETTLE);
    struct key *key = (struct key *)PyTuple_GetItem(entry, ENTRY_KEY);
    settled->settle = settle_is_adopting(before)
                          ? adopting_make(PyTuple_GetItem(entry, ENTRY_PORT), key)
                          : accepting_make(key);
    PyObject *value = settled->settle != NULL ? settle_in_c(before, record->nbytes) : NULL;
    if (value != NULL && !value_is_refusal(value)) {
        settled->nbytes = PyLong_FromLong(0);
        settled->outcome =
            settled->nbytes != NULL ? outcome_make(0, settled->nbytes, value) : NULL;
        if (settled->outcome != NULL)
            ((struct outcome *)settled->outcome)->more = 1;
    }
    Py_XDECREF(value);
    return settled->outcome != NULL;
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

/* Begins the turn: its buffer, if it has one still, goes back to the pool. */
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
    PyObject *again = NULL, *following = NULL;
    struct settled settled = {0};
    bool pooled = entry_is_pooled(entry);
    if (!key_ask(key, &number) || number != key->descriptor)
        goto end;
    following = PyLong_FromUnsignedLongLong(token_following(record->token));
    if (following == NULL || !(pooled ? piece_settle(record, entry, &settled)
                                      : connection_settle(record, entry, &settled)))
        goto end;
    again = entry_follow(entry, following, settled.settle);
    if (again == NULL || !completion_prepare(port))
        goto end;
    /* From here on nothing of Python runs until the claim. */
    if (port->native == NULL || !completion_append(out))
        goto end;
    if (!turn_claim(port, record->token, entry, again)) {
        completion_withdraw(out);
        if (!pooled)
            result = record_lose(self, record->token, entry, settled.nbytes, settled.outcome);
        goto end;
    }
    if (settled.loan != NULL)
        loan_begin(settled.loan);
    struct operation *operation = (struct operation *)PyTuple_GetItem(entry, ENTRY_OPERATION);
    completion_fill((PyObject *)operation, (PyObject *)key, settled.nbytes, settled.outcome);
    PyObject *before = operation->entry;
    operation->entry = Py_NewRef(again);
    Py_DECREF(before);
    result = turn_begin(self, record->token, following, handle_has_told(key)) ? TAKEN
                                                                              : TAKING_FAILED;
end:
    if (result == TAKEN_BY_RULE && !error_drop())
        result = TAKING_FAILED; /* nothing is claimed: the record is as it was */
    Py_XDECREF(settled.nbytes);
    Py_XDECREF(settled.outcome);
    Py_XDECREF(settled.loan);
    Py_XDECREF(settled.settle);
    Py_XDECREF(again);
    Py_XDECREF(following);
    return result;
}
