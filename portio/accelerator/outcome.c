/* Records whose result is more than a number of bytes: errors, and what has to be settled
   (`PacketQueue._take` is the rule). */
#include "book.h"
#include "take.h"

/* What C does not know: a turn that goes on, and an operation that somebody waits for. */
bool record_is_an_end(const portio_completion *record, PyObject *entry)
{
    long mode = PyLong_AsLong(PyTuple_GetItem(entry, ENTRY_MODE));
    return given.outcome_class != NULL && (uint64_t)record->status >> 32 == 0 &&
           (mode == MODE_QUEUED || mode == PORTIO_QUIET);
}

/* A result that is none: the system has refused what there was to do. */
bool value_is_refusal(PyObject *value)
{
    return given.refused_class != NULL && PyObject_TypeCheck(value, given.refused_class);
}

bool settle_is_in_c(PyObject *settle)
{
    return settle_is_accept(settle) || settle_is_adopting(settle);
}

PyObject *settle_in_c(PyObject *settle, int64_t number)
{
    return settle_is_adopting(settle) ? adopting_settle(settle, number)
                                      : accepting_settle(settle, number);
}

/* What is left of a stream: as a rule nothing, at its end or for an error.  NULL without an
   exception: it is for the rule. */
static PyObject *rest_make(PyObject *entry, int64_t nbytes)
{
    if (entry_form(entry) == FORM_POOLED)
        return piece_copy(entry, nbytes);
    if (entry_form(entry) != FORM_LENT || (nbytes & UINT32_MAX) != 0)
        return NULL;
    PyObject *empty = PyByteArray_FromStringAndSize(NULL, 0); /* writable, as all are */
    PyObject *rest = empty != NULL ? PyMemoryView_FromObject(empty) : NULL;
    Py_XDECREF(empty);
    return rest;
}

/* The bytes moved, and the result. */
static bool record_settle(const portio_completion *record, PyObject *entry, PyObject **nbytes,
                          PyObject **value)
{
    PyObject *settle = PyTuple_GetItem(entry, ENTRY_SETTLE);
    if (entry_is_pooled(entry)) {
        *nbytes = PyLong_FromLongLong(record->nbytes & UINT32_MAX);
        *value = *nbytes != NULL ? rest_make(entry, record->nbytes) : NULL;
        if (*value != NULL || PyErr_Occurred() != NULL)
            return *value != NULL;
        Py_CLEAR(*nbytes);
    }
    if (record->status == 0 && settle_is_in_c(settle)) {
        *nbytes = PyLong_FromLong(0);
        *value = *nbytes != NULL ? settle_in_c(settle, record->nbytes) : NULL;
        return *value != NULL;
    }
    PyObject *moved = PyLong_FromLongLong(record->nbytes);
    if (moved == NULL || settle == Py_None) {
        *nbytes = moved;
        *value = Py_XNewRef(moved);
        return moved != NULL;
    }
    PyObject *error = PyLong_FromLongLong(record->status);
    PyObject *settled =
        error != NULL ? PyObject_CallFunctionObjArgs(settle, moved, error, NULL) : NULL;
    Py_DECREF(moved);
    Py_XDECREF(error);
    if (settled == NULL)
        return false;
    PyObject *pair = PySequence_Tuple(settled);
    Py_DECREF(settled);
    if (pair != NULL && PyTuple_Size(pair) == 2) {
        *nbytes = Py_NewRef(PyTuple_GetItem(pair, 0));
        *value = Py_NewRef(PyTuple_GetItem(pair, 1));
    } else if (pair != NULL) {
        PyErr_SetString(PyExc_ValueError, "settling gives a pair");
    }
    Py_XDECREF(pair);
    return *value != NULL;
}

PyObject *outcome_make(int64_t error, PyObject *nbytes, PyObject *value)
{
    struct outcome *outcome =
        (struct outcome *)PyType_GenericAlloc((PyTypeObject *)given.outcome_class, 0);
    if (outcome == NULL)
        return NULL;
    outcome->error = error;
    outcome->nbytes = Py_NewRef(nbytes);
    outcome->value = Py_NewRef(value);
    outcome->last = Py_NewRef(Py_None);
    outcome->queued = 1;
    return (PyObject *)outcome;
}

enum taken record_lose(PyObject *self, uint64_t token, PyObject *entry, PyObject *nbytes,
                       PyObject *outcome)
{
    struct port *port = (struct port *)self;
    struct sink lost = {NULL, NULL};
    PyObject *told = NULL;
    if (completion_prepare(port) && completion_append(&lost)) {
        completion_fill(PyTuple_GetItem(entry, ENTRY_OPERATION), PyTuple_GetItem(entry, ENTRY_KEY),
                        nbytes, outcome);
        told = PyObject_CallMethod(self, "_lose", "KO", (unsigned long long)token, lost.one);
    }
    Py_XDECREF(lost.one);
    Py_XDECREF(told);
    return told != NULL ? TAKEN : TAKING_FAILED;
}

enum taken end_take(PyObject *self, struct sink *out, const portio_completion *record,
                    PyObject *entry)
{
    struct port *port = (struct port *)self;
    enum taken result = TAKING_FAILED;
    PyObject *nbytes = NULL, *value = NULL, *outcome = NULL;
    int64_t error = record->status;
    if (!record_settle(record, entry, &nbytes, &value))
        goto end;
    bool refused = value_is_refusal(value);
    if (refused)
        error = PyLong_AsLongLong(value);
    if ((outcome = outcome_make(error, nbytes, refused ? Py_None : value)) == NULL)
        goto end;
    bool silent = error == 0 &&
                  PyLong_AsLong(PyTuple_GetItem(entry, ENTRY_MODE)) == PORTIO_QUIET;
    /* All memory before the look at the entry: see record_take. */
    if (!completion_prepare(port) || (!silent && !completion_append(out)))
        goto end;
    if (!books_are_open(port) || book_find(port_book(port), record->token) != entry) {
        if (!silent)
            completion_withdraw(out);
        result = record_lose(self, record->token, entry, nbytes, outcome);
        goto end;
    }
    struct operation *operation = (struct operation *)PyTuple_GetItem(entry, ENTRY_OPERATION);
    Py_DECREF(book_remove(port_book(port), record->token)); /* the claim; the caller has it, too */
    if (!silent)
        completion_fill((PyObject *)operation, PyTuple_GetItem(entry, ENTRY_KEY), nbytes, outcome);
    tokens_return(port_tokens(port), token_following(record->token));
    operation_end(operation, outcome);
    result = TAKEN;
end:
    Py_XDECREF(outcome);
    Py_XDECREF(value);
    Py_XDECREF(nbytes);
    return result;
}
