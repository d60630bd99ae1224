/* Records become completions: what `Port.get_many` and `Port.get` do as a rule, and the step
   that takes one record (packets.py). */
#include "book.h"
#include "take.h"

#include <string.h>

#define MOST 256 /* records that one call of the engine can give, as ARRAY in packets.py */
#define BATCH_MOST 64 /* as BATCH */
#define RECORD_NUMBERS 3
#define FOREVER INT64_C(-1)

static PyObject *array_make(const portio_completion *records, uint32_t count)
{
    const char *bytes = count > 0 ? (const char *)records : ""; /* of NULL it would make None */
    return PyObject_CallFunction(array_type, "sy#", "q", bytes,
                                 (Py_ssize_t)(count * sizeof *records));
}

/* Keeps a completion, if there is one, and records that an exception would lose, as
   PacketQueue._rescue does.  The exception, if there is one, stays. */
static void rescue(PyObject *self, PyObject *one, const portio_completion *records, uint32_t count)
{
    struct port *port = (struct port *)self;
    PyObject *kind, *value, *trace;
    PyErr_Fetch(&kind, &value, &trace);
    PyObject *done = PyList_New(0), *array = array_make(records, count), *item = NULL;
    bool listed = done != NULL && (one == NULL || PyList_Append(done, one) == 0);
    count += one != NULL;
    if (listed && array != NULL)
        item = PyTuple_Pack(2, done, array);
    if (item != NULL && PyList_Insert(port->rescued, 0, item) == 0) {
        /* From here on nothing can be lost; others have to hear of it. */
        PyObject *told = PyObject_CallMethod(self, "_tell_of_rescued", "n", (Py_ssize_t)count);
        Py_XDECREF(told);
    }
    Py_XDECREF(item);
    Py_XDECREF(array);
    Py_XDECREF(done);
    if (kind != NULL) {
        PyErr_Clear();
        PyErr_Restore(kind, value, trace);
    }
}

static void records_rescue(PyObject *self, const portio_completion *records, uint32_t count)
{
    rescue(self, NULL, records, count);
}

static bool is_plain(PyObject *entry)
{
    return PyTuple_GetItem(entry, ENTRY_SETTLE) == Py_None &&
           PyLong_AsLong(PyTuple_GetItem(entry, ENTRY_MODE)) == MODE_QUEUED;
}

static bool sink_put(struct sink *out, PyObject *completion)
{
    if (out->list != NULL)
        return PyList_Append(out->list, completion) == 0;
    out->one = Py_NewRef(completion);
    return true;
}

static bool sink_has_any(const struct sink *out)
{
    return out->list != NULL ? PyList_Size(out->list) > 0 : out->one != NULL;
}

/* The packet that a program has posted is its completion already; a nudge has none. */
static bool posted_take(struct port *port, struct sink *out, uint64_t token, PyObject *entry)
{
    PyObject *completion = PyTuple_GetItem(entry, 1);
    if (completion != Py_None && !sink_put(out, completion))
        return false;
    Py_DECREF(book_remove(port_book(port), token)); /* the claim; the caller has it as well */
    tokens_return(port_tokens(port), token_following(token));
    return true;
}

/* Empty: nobody has set its fields, and the collector does not know of it. */
static PyObject *prepared;

bool completion_prepare(const struct port *port)
{
    if (prepared != NULL && (PyObject *)Py_TYPE(prepared) == port->completions)
        return true;
    PyObject *made = completion_new((PyTypeObject *)port->completions);
    PyObject *before = prepared; /* perhaps a finalizer's */
    prepared = made;
    Py_XDECREF(before);
    return prepared != NULL;
}

bool completion_append(struct sink *out)
{
    return sink_put(out, prepared);
}

void completion_withdraw(struct sink *out)
{
    if (out->list == NULL) {
        Py_CLEAR(out->one);
        return;
    }
    Py_ssize_t count = PyList_Size(out->list);
    PyList_SetSlice(out->list, count - 1, count, NULL);
}

void completion_fill(PyObject *operation, PyObject *key, PyObject *nbytes, PyObject *outcome)
{
    struct completion *completion = (struct completion *)prepared;
    prepared = NULL;
    completion->operation = Py_NewRef(operation);
    completion->key = Py_NewRef(key);
    completion->nbytes = Py_NewRef(nbytes);
    completion->outcome = Py_NewRef(outcome);
    PyObject_GC_Track((PyObject *)completion);
    Py_DECREF((PyObject *)completion); /* the sink has it */
}

void operation_end(struct operation *operation, PyObject *outcome)
{
    PyObject *before = operation->outcome, *entry_before = operation->entry;
    operation->outcome = Py_NewRef(outcome);
    operation->entry = Py_NewRef(Py_None);
    Py_XDECREF(entry_before);
    Py_XDECREF(before);
}

static bool take_by_rule(PyObject *self, struct sink *out, const portio_completion *record)
{
    PyObject *list = out->list != NULL ? Py_NewRef(out->list) : PyList_New(0);
    if (list == NULL)
        return false;
    PyObject *told = PyObject_CallMethod(self, "_take_by_rule", "OKLL", list,
                                         (unsigned long long)record->token,
                                         (long long)record->nbytes, (long long)record->status);
    if (out->list == NULL && PyList_Size(list) > 0) /* also what has raised may be there */
        out->one = Py_NewRef(PyList_GetItem(list, 0));
    Py_XDECREF(told);
    Py_DECREF(list);
    return told != NULL;
}

/* The same for a record whose result is more than a number of bytes. */
static bool record_take_special(PyObject *self, struct sink *out,
                                const portio_completion *record, PyObject *entry)
{
    enum taken taken = TAKEN_BY_RULE;
    bool is_operation = entry != NULL && PyTuple_Size(entry) == ENTRY_SIZE;
    if (is_operation && record_is_turn(record, entry))
        taken = turn_take(self, out, record, entry);
    else if (is_operation && record_is_an_end(record, entry))
        taken = end_take(self, out, record, entry);
    return taken == TAKEN_BY_RULE ? take_by_rule(self, out, record) : taken == TAKEN;
}

/* A new reference, or NULL without an exception. */
static PyObject *record_entry(const struct port *port, const portio_completion *record)
{
    return books_are_open(port) ? Py_XNewRef(book_find(port_book(port), record->token)) : NULL;
}

/* Turns a record into a completion in `out`, or nothing if somebody else has
   claimed it.  False: an exception, and the record is as it was. */
static bool record_take(PyObject *self, struct sink *out, const portio_completion *record)
{
    struct port *port = (struct port *)self;
    bool done = false;
    PyObject *entry = NULL, *nbytes = NULL;
    if (record->status != 0) {
        entry = record_entry(port, record);
        done = record_take_special(self, out, record, entry);
        goto end;
    }
    /* All memory first: a finalizer may run where it is allocated, and nothing else may
       come between the look at the entry and the claim. */
    if (!completion_prepare(port) || (nbytes = PyLong_FromLongLong(record->nbytes)) == NULL)
        goto end;
    entry = record_entry(port, record);
    if (entry != NULL && PyTuple_Size(entry) == POSTED_SIZE) {
        done = posted_take(port, out, record->token, entry);
        goto end;
    }
    if (entry == NULL || !is_plain(entry)) {
        done = record_take_special(self, out, record, entry);
        goto end;
    }
    struct operation *operation = (struct operation *)PyTuple_GetItem(entry, ENTRY_OPERATION);
    /* Room first, so that nothing can fail once it is claimed. */
    if (!completion_append(out))
        goto end;
    Py_DECREF(book_remove(port_book(port), record->token)); /* the claim; we have it as well */
    completion_fill((PyObject *)operation, PyTuple_GetItem(entry, ENTRY_KEY), nbytes, Py_None);
    tokens_return(port_tokens(port), token_following(record->token));
    operation_end(operation, nbytes);
    done = true;
end:
    Py_XDECREF(nbytes);
    Py_XDECREF(entry);
    return done;
}

static bool records_take(PyObject *self, struct sink *out, const portio_completion *records,
                         uint32_t count)
{
    for (uint32_t at = 0; at < count; at++) {
        if (!record_take(self, out, &records[at])) {
            records_rescue(self, records + at, count - at);
            return false;
        }
    }
    return true;
}

/* `_take(out, token, nbytes, status)` */
PyObject *port_take(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    portio_completion record;
    if (count != 4 || !PyList_CheckExact(arguments[0]))
        return call_rule(self, "_take_by_rule", arguments, count, NULL);
    record.token = PyLong_AsUnsignedLongLong(arguments[1]);
    record.nbytes = PyLong_AsLongLong(arguments[2]);
    record.status = PyLong_AsLongLong(arguments[3]);
    if (PyErr_Occurred() != NULL)
        return NULL;
    if (((struct port *)self)->native == NULL)
        return call_rule(self, "_take_by_rule", arguments, count, NULL);
    if (!record_take(self, &(struct sink){arguments[0], NULL}, &record))
        return NULL;
    Py_RETURN_NONE;
}

static bool rescued_is_empty(struct port *port)
{
    return port->rescued != NULL && PyList_Size(port->rescued) == 0;
}

/* The usual time-outs are None and 0. */
static bool timeout_read(PyObject *object, int64_t *timeout)
{
    int overflow = 0;
    *timeout = object == Py_None ? FOREVER : 0;
    return object == Py_None || (PyLong_CheckExact(object) && overflow == 0 &&
                                 PyLong_AsLongLongAndOverflow(object, &overflow) == 0 &&
                                 overflow == 0);
}

/* Asks the engine.

   On a shared port, while everything there is brief, it looks with the GIL whether there is
   something: a worker that goes on at once does not hand the GIL to another.  Where there is
   nothing it waits, without the GIL, for news only.  A packet that it took then would lie
   until the GIL comes back, which is up to 5 ms (sys.setswitchinterval) while another worker
   is busy, who would have had time for it.  And where the GIL has come because those 5 ms were
   over, it is the other's packets that lie now: if he has taken some meanwhile, he is left to
   it (PORTIO_AS_CALLED). */
static int records_get(struct port *port, portio_completion *records, uint32_t most,
                       int64_t timeout)
{
    portio_port *native = port->native;
    get_function get = port->get;
    int taken;
    while (port->brief && port->owner == 0 && timeout != 0) {
        if ((taken = get(native, records, most, PORTIO_AS_CALLED)) != 0)
            return taken;
        int news;
        Py_BEGIN_ALLOW_THREADS
        news = get(native, NULL, 0, timeout);
        Py_END_ALLOW_THREADS
        if (news == PORTIO_UNSUPPORTED)
            break;
        if (news < 0)
            return news;
        if (port->native == NULL)
            return PORTIO_CLOSED;
    }
    Py_BEGIN_ALLOW_THREADS
    taken = get(native, records, most, timeout);
    Py_END_ALLOW_THREADS
    return taken;
}

/* For the rule: None when it is the main thread that has to sleep, False for a signal or an
   error. */
static PyObject *not_taken(int result)
{
    return Py_NewRef(result == PORTIO_WOULD_SLEEP ? Py_None : Py_False);
}

/* `_fill(out, limit, timeout)`: what `get_many` does.  If it is not True nothing was taken,
   and the rule has to go on.  What was taken is in the caller's list, since a signal handler may
   raise as soon as this returns. */
PyObject *port_fill(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    struct port *port = (struct port *)self;
    int64_t timeout;
    if (count != 3 || !PyList_CheckExact(arguments[0]) || !PyLong_CheckExact(arguments[1]) ||
        !timeout_read(arguments[2], &timeout))
        Py_RETURN_FALSE;
    PyObject *out = arguments[0];
    struct sink sink = {out, NULL};
    Py_ssize_t limit = PyLong_AsSsize_t(arguments[1]);
    if (PyErr_Occurred() != NULL)
        PyErr_Clear();
    while (limit >= 1 && port->native != NULL && port->left == 0 && rescued_is_empty(port)) {
        portio_completion records[MOST];
        Py_ssize_t room = limit - PyList_Size(out), most = room < MOST ? room : MOST;
        int64_t wait = PyList_Size(out) == 0 ? timeout : 0;
        int taken = records_get(port, records, (uint32_t)most, wait);
        if (taken > 0 && !records_take(self, &sink, records, (uint32_t)taken))
            return NULL;
        if (PyList_Size(out) > 0) {
            if (taken < most || PyList_Size(out) >= limit)
                Py_RETURN_TRUE; /* and if the port was closed meanwhile, the next call says so */
        } else if (taken == 0) {
            Py_RETURN_TRUE;
        } else if (taken < 0) {
            return not_taken(taken);
        }
    }
    return PyBool_FromLong(PyList_Size(out) > 0);
}

/* Where the batch that is kept has its end.  Python may have kept it, or some of it taken. */
static bool kept_look(struct port *port)
{
    Py_buffer view;
    if (port->kept == NULL || PyObject_GetBuffer(port->kept, &view, PyBUF_SIMPLE) < 0)
        return false;
    PyObject *before = port->looked_at;
    bool whole = port->left >= RECORD_NUMBERS &&
                 port->left * (Py_ssize_t)sizeof(int64_t) <= view.len;
    port->looked_at = whole ? Py_NewRef(port->kept) : NULL;
    port->kept_end = (const char *)view.buf + view.len;
    PyBuffer_Release(&view);
    Py_XDECREF(before);
    return whole;
}

/* Takes the next record of it. */
static bool kept_take(PyObject *self, struct sink *out)
{
    struct port *port = (struct port *)self;
    portio_completion record;
    if ((port->looked_at == NULL || port->looked_at != port->kept) && !kept_look(port))
        return false;
    memcpy(&record, port->kept_end - port->left * (Py_ssize_t)sizeof(int64_t), sizeof record);
    port->left -= RECORD_NUMBERS;
    return records_take(self, out, &record, 1);
}

/* What one packet is to a caller: it is there, or the time-out has passed; or it is for the rule:
   because there was a signal, or something else than a packet; because the main thread has to
   sleep; and an exception. */
enum looked { LOOKED, LOOKED_IN_VAIN, LOOKED_AWAKE, LOOKING_FAILED };

/* `done`: nothing has gone wrong.  If something has, there need not be an exception. */
static enum looked looked_at(const struct sink *out, bool done)
{
    if (!done && PyErr_Occurred() != NULL)
        return LOOKING_FAILED;
    return sink_has_any(out) ? LOOKED : LOOKED_IN_VAIN;
}

/* Takes one packet; what came with it is kept. */
static enum looked packet_take(PyObject *self, struct sink *out, int64_t timeout)
{
    struct port *port = (struct port *)self;
    portio_completion records[BATCH_MOST];
    if (port->native == NULL || !rescued_is_empty(port) || port->batch < 1 ||
        port->batch > BATCH_MOST)
        return LOOKED_IN_VAIN;
    if (port->left != 0) {
        bool mine = port->owner == PyThread_get_thread_ident();
        return mine ? looked_at(out, kept_take(self, out)) : LOOKED_IN_VAIN;
    }
    int taken = records_get(port, records, (uint32_t)port->batch, timeout);
    if (taken < 0)
        return taken == PORTIO_WOULD_SLEEP ? LOOKED_AWAKE : LOOKED_IN_VAIN;
    if (taken == 0)
        return LOOKED;
    if (taken > 1) { /* the rest first: taking one may run anything */
        PyObject *kept = array_make(records + 1, (uint32_t)taken - 1);
        if (kept == NULL || port->left != 0) { /* a finalizer was here, and has kept some */
            records_rescue(self, records, (uint32_t)taken);
            Py_XDECREF(kept);
            return looked_at(out, false);
        }
        PyObject *before = port->kept;
        port->kept = kept;
        port->left = ((Py_ssize_t)taken - 1) * RECORD_NUMBERS;
        Py_XDECREF(before);
    }
    return looked_at(out, records_take(self, out, records, 1));
}

/* `_next(out, timeout)`: what `get` does; else like `_fill`. */
PyObject *port_next(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    int64_t timeout;
    if (count != 2 || !PyList_CheckExact(arguments[0]) || !timeout_read(arguments[1], &timeout))
        Py_RETURN_FALSE;
    switch (packet_take(self, &(struct sink){arguments[0], NULL}, timeout)) {
    case LOOKED:
        Py_RETURN_TRUE;
    case LOOKED_AWAKE:
        Py_RETURN_NONE;
    case LOOKING_FAILED:
        return NULL;
    default:
        Py_RETURN_FALSE;
    }
}

/* As `get` does with an exception: others may come for what this thread has heard of. */
static void packet_give_up(PyObject *self, PyObject *one)
{
    PyObject *kind, *value, *trace;
    if (one != NULL)
        rescue(self, one, NULL, 0);
    PyErr_Fetch(&kind, &value, &trace);
    PyObject *told = PyObject_CallMethod(self, "_come", NULL);
    if (told == NULL)
        PyErr_Clear();
    Py_XDECREF(told);
    PyErr_Restore(kind, value, trace);
}

/* A step of a `for` statement.  No signal handler runs between this and the variable of the loop,
   so a packet need not be in a list of the caller's. */
PyObject *port_advance(PyObject *self)
{
    struct sink out = {NULL, NULL};
    enum looked looked = packet_take(self, &out, FOREVER);
    if (looked == LOOKING_FAILED) {
        packet_give_up(self, out.one);
        Py_XDECREF(out.one);
        return NULL;
    }
    if (out.one != NULL)
        return out.one;
    return PyObject_CallMethod(self, "_advance", "O", looked == LOOKED_AWAKE ? Py_None : Py_False);
}
