/* A turn of a multishot operation: a record becomes a completion, and the next turn begins
   (turns.py has the rule).  It has brought a piece of a stream, in a buffer of a pool
   (pools.py), or a connection. */
#include "book.h"
#include "take.h"

bool entry_is_pooled(PyObject *entry)
{
    return PyObject_TypeCheck(PyTuple_GetItem(entry, ENTRY_PIN), pool_type);
}

static struct operation *entry_operation(PyObject *entry)
{
    return (struct operation *)PyTuple_GetItem(entry, ENTRY_OPERATION);
}

enum form entry_form(PyObject *entry)
{
    return (enum form)entry_operation(entry)->form;
}

bool record_is_turn(const portio_completion *record, PyObject *entry)
{
    return record->status == (int64_t)PORTIO_MORE << 32 && entry_form(entry) != FORM_OTHER;
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

/* Who holds an entry that nobody else has seen: the book, its operation, and who takes its record.
   Only then it may change. */
#define HOLDERS 3

static bool entry_may_change(PyObject *entry)
{
    return Py_REFCNT(entry) == HOLDERS && entry_operation(entry)->entry == entry;
}

/* The same, and that nobody else has seen what settles a connection, of which `mine` hold it. */
static bool connection_may_go_on(PyObject *entry, Py_ssize_t mine)
{
    PyObject *settle = PyTuple_GetItem(entry, ENTRY_SETTLE);
    return entry_may_change(entry) && settle_is_adopting(settle) &&
           adopting_may_go_on(settle, 1 + mine);
}

/* What settles the next connection.  One has what it has settled until that is claimed, and if
   somebody else might have seen it, for good. */
static PyObject *connection_following(PyObject *entry)
{
    PyObject *settle = PyTuple_GetItem(entry, ENTRY_SETTLE);
    struct key *key = (struct key *)PyTuple_GetItem(entry, ENTRY_KEY);
    if (connection_may_go_on(entry, 0))
        return Py_NewRef(settle);
    return settle_is_adopting(settle) ? adopting_make(PyTuple_GetItem(entry, ENTRY_PORT), key)
                                      : accepting_make(key);
}

/* One that the system refuses, whose completion has an error and is not the last, is for the
   rule. */
static bool connection_settle(const portio_completion *record, PyObject *entry,
                              struct settled *settled)
{
    PyObject *value = NULL;
    settled->settle = connection_following(entry);
    if (settled->settle != NULL)
        value = settle_in_c(PyTuple_GetItem(entry, ENTRY_SETTLE), record->nbytes);
    if (value != NULL && !value_is_refusal(value)) {
        settled->nbytes = PyLong_FromLong(0);
        if (settled->nbytes != NULL && PyObject_TypeCheck(value, key_type))
            settled->outcome = Py_NewRef(value);
        else if (settled->nbytes != NULL)
            settled->outcome = outcome_make(0, settled->nbytes, value);
        if (settled->outcome != NULL && settled->outcome != value)
            ((struct outcome *)settled->outcome)->more = 1;
    }
    Py_XDECREF(value);
    return settled->outcome != NULL;
}

static bool is_settled_by_same(PyObject *entry, const struct settled *settled)
{
    return settled->settle == PyTuple_GetItem(entry, ENTRY_SETTLE);
}

/* Whether the entry of a turn can be that of the next. */
static bool turn_may_keep(PyObject *entry, const struct settled *settled, bool pooled)
{
    if (pooled)
        return entry_may_change(entry);
    return is_settled_by_same(entry, settled) && connection_may_go_on(entry, 1);
}

/* Another entry for the next turn: the same with another token, and settled by another. */
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

/* The book and the operation have the next turn instead of this one, which is the claim; NULL for
   `again`: the same entry with another token.  False: somebody else has claimed it.  Nothing is
   freed but a number: the caller holds the entry as well. */
static bool turn_claim(struct port *port, uint64_t token, PyObject *entry, PyObject *again,
                       PyObject *following)
{
    struct operation *operation = entry_operation(entry);
    if (!books_are_open(port) || book_find(port_book(port), token) != entry)
        return false;
    Py_DECREF(book_remove(port_book(port), token));
    Py_DECREF(operation->entry);
    if (again == NULL) {
        again = entry;
        PyTuple_SetItem(again, ENTRY_TOKEN, Py_NewRef(following)); /* it has one holder now */
    }
    operation->entry = Py_NewRef(again);
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

enum taken turn_take(PyObject *self, struct sink *out, const portio_completion *record,
                     PyObject *entry)
{
    struct port *port = (struct port *)self;
    struct key *key = (struct key *)PyTuple_GetItem(entry, ENTRY_KEY);
    enum taken result = TAKEN_BY_RULE;
    long long number;
    PyObject *again = NULL, *following = NULL;
    struct settled settled = {0};
    bool pooled = entry_is_pooled(entry);
    if (!pooled && !settle_is_in_c(PyTuple_GetItem(entry, ENTRY_SETTLE)))
        goto end;
    if (!key_ask(key, &number) || number != key->descriptor)
        goto end;
    following = PyLong_FromUnsignedLongLong(token_following(record->token));
    if (following == NULL || !(pooled ? piece_settle(record, entry, &settled)
                                      : connection_settle(record, entry, &settled)))
        goto end;
    bool keeps = turn_may_keep(entry, &settled, pooled);
    if (!keeps && !pooled && is_settled_by_same(entry, &settled))
        goto end; /* somebody has seen it meanwhile */
    if (!keeps && (again = entry_follow(entry, following, settled.settle)) == NULL)
        goto end;
    if (!completion_prepare(port))
        goto end;
    /* From here on nothing of Python runs until the claim.  A finalizer may have got hold of the
       entry meanwhile. */
    if ((keeps && !turn_may_keep(entry, &settled, pooled)) || port->native == NULL ||
        entry_operation(entry)->entry != entry || !completion_append(out))
        goto end;
    if (!turn_claim(port, record->token, entry, again, following)) {
        completion_withdraw(out);
        if (!pooled)
            result = record_lose(self, record->token, entry, settled.nbytes, settled.outcome);
        goto end;
    }
    if (settled.loan != NULL)
        loan_begin(settled.loan);
    if (keeps && !pooled)
        adopting_go_on(settled.settle);
    completion_fill((PyObject *)entry_operation(entry), (PyObject *)key, settled.nbytes,
                    settled.outcome);
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
