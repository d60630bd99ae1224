/* `Port.submit` of operations that are all a Recv, Send, Read or Write with one buffer, an
   AcceptKey, an Accept, a RecvMultishot or a RecvLent. */
#include "submit.h"

/* A send or a receive of up to 64 KiB keeps the GIL: it is a system call of a few
   microseconds that never blocks.  To give the GIL away for it would hand it to another
   thread that wants it, and this one would wait for it as long as that thread likes; with
   several workers at one port it would go to and fro for each packet.

   That holds as long as nothing else goes through the port (struct port, `brief`): a call
   of the engine may carry other operations on as well, and wait for one that another thread
   is starting. */

/* What the rule is about to start.  It may run Python, and leave an exception. */
static bool is_brief_operation(PyObject *object)
{
    struct operation *operation = (struct operation *)object;
    if (!PyObject_TypeCheck(object, operation_type))
        return false;
    if (form_is_pooled((enum form)operation->form)) {
        PyObject *pool = ((struct bare *)object)->argument;
        return pool != NULL && pool_is_brief(pool);
    }
    if (!PyObject_TypeCheck(object, transfer_type)) {
        PyObject *brief = PyObject_GetAttrString(object, "_brief");
        bool is_true = brief == Py_True;
        Py_XDECREF(brief);
        return is_true;
    }
    PyObject *buffer = ((struct transfer *)object)->buffer;
    if (buffer == NULL || !transfer_is_brief(operation->kind, 0))
        return false;
    Py_buffer view;
    Py_INCREF(buffer); /* another thread may change the field meanwhile */
    bool brief = PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE) == 0;
    if (brief) {
        brief = transfer_is_brief(operation->kind, view.len);
        PyBuffer_Release(&view);
    }
    Py_DECREF(buffer);
    return brief;
}

static PyObject *start_by_rule(struct port *port, const char *name, PyObject *const *arguments,
                               Py_ssize_t count, PyObject *names)
{
    for (Py_ssize_t at = 0; at < count && port->brief; at++) {
        if (!is_brief_operation(arguments[at]))
            port->brief = false; /* never true again, whatever has run meanwhile */
        if (!error_drop())
            return NULL;
    }
    return call_rule((PyObject *)port, name, arguments, count, names);
}

enum start { START_BY_RULE, STARTED, STARTED_AND_ENDED, START_FAILED };

static enum start start_refused(struct port *port, int result)
{
    refusal_raise(port, result);
    return START_FAILED;
}


/* Why there is no claim.  What asking the handle has raised goes on, in the words of the
   rule; what a check of ours was told, that a sequence is no buffer for one, is for the
   rule to look at again; and what comes from elsewhere, a signal handler for one, is no
   check's at all. */
static enum start not_claimed(PyObject *self, const struct draft *draft)
{
    if (PyErr_Occurred() == NULL)
        return START_BY_RULE;
    if (!draft->failed) {
        if (!PyErr_ExceptionMatches(PyExc_TypeError) && !PyErr_ExceptionMatches(PyExc_ValueError) &&
            !PyErr_ExceptionMatches(PyExc_BufferError) &&
            !PyErr_ExceptionMatches(PyExc_OverflowError) &&
            !PyErr_ExceptionMatches(PyExc_AttributeError))
            return START_FAILED;
        PyErr_Clear();
        return START_BY_RULE;
    }
    PyObject *kind, *value, *trace;
    PyErr_Fetch(&kind, &value, &trace);
    PyErr_NormalizeException(&kind, &value, &trace);
    PyObject *told = PyObject_CallMethod(self, "_told", "OO", (PyObject *)draft->operation, value);
    if (told == value || told == NULL) {
        PyErr_Clear();
        PyErr_Restore(kind, value, trace);
    } else {
        PyErr_SetObject((PyObject *)Py_TYPE(told), told);
        Py_XDECREF(kind);
        Py_XDECREF(value);
        Py_XDECREF(trace);
    }
    Py_XDECREF(told);
    return START_FAILED;
}

static int engine_submit(const struct port *port, const struct draft *draft, uint32_t flags)
{
    portio_port *native = port->native;
    submit_one_function submit_one = port->submit_one;
    uint64_t handle = ((struct key *)draft->key)->id, length = (uint64_t)draft->length;
    uint32_t kind = draft->operation->kind;
    int result;
    flags |= draft->flags;
    if (port->brief)
        return submit_one(native, kind, flags, handle, draft->token, draft->start, length,
                          draft->argument);
    Py_BEGIN_ALLOW_THREADS
    result = submit_one(native, kind, flags, handle, draft->token, draft->start, length,
                        draft->argument);
    Py_END_ALLOW_THREADS
    return result;
}

/* A quiet operation that is brief has nearly always ended when the engine returns, and then
   it was never pending for anybody. */
static enum start start_quiet(struct port *port, struct draft *draft, int mode, uint32_t flags,
                              PyObject *moved)
{
    if (!draft_reserve(port, draft, mode))
        return START_BY_RULE;
    int result = engine_submit(port, draft, flags);
    if (result == 0) {
        draft_enter(port, draft, mode);
        return STARTED;
    }
    if (result < 0)
        return start_refused(port, result);
    draft_pass(port, draft);
    struct operation *operation = draft->operation;
    PyObject *before = operation->outcome;
    operation->outcome = Py_NewRef(moved);
    Py_XDECREF(before); /* last: it may run anything */
    return STARTED_AND_ENDED;
}

static enum start start_claimed(struct port *port, struct draft *draft, int mode, uint32_t flags,
                                PyObject *moved)
{
    if (!draft_claim(port, draft, mode))
        return START_BY_RULE;
    port->brief = port->brief && draft->brief;
    int result = engine_submit(port, draft, flags);
    if (result > 0) {
        draft_end(port, draft, moved);
        return STARTED_AND_ENDED;
    }
    if (result < 0) {
        draft_undo(port, draft);
        return start_refused(port, result);
    }
    return STARTED;
}

/* `flags`: what the engine is asked for beside the mode. */
static enum start start_one(struct port *port, struct operation *operation, int mode,
                            uint32_t flags)
{
    struct draft draft;
    PyObject *moved = NULL;
    enum start start = START_BY_RULE;
    flags |= (uint32_t)mode;
    if (!draft_make(&draft, (PyObject *)port, operation, mode)) {
        start = not_claimed((PyObject *)port, &draft);
        goto end;
    }
    if (flags & PORTIO_QUIET && (moved = PyLong_FromSsize_t(draft.length)) == NULL) {
        start = START_FAILED;
        goto end;
    }
    if (moved != NULL && port->brief && draft.brief)
        start = start_quiet(port, &draft, mode, flags, moved);
    else
        start = start_claimed(port, &draft, mode, flags, moved);
    if (start == START_BY_RULE)
        start = not_claimed((PyObject *)port, &draft);
end:
    Py_XDECREF(moved);
    draft_drop(&draft);
    return start;
}

/* All are drafted before any is claimed, and claimed before any is started (contract O1). */
static enum start start_many(struct port *port, PyObject *const *operations, Py_ssize_t count,
                             int mode)
{
    enum start start = STARTED;
    Py_ssize_t made = 0, claimed = 0;
    size_t each = sizeof(struct draft) + sizeof(portio_request);
    if ((size_t)count > PY_SSIZE_T_MAX / each)
        return START_BY_RULE;
    struct draft *drafts = PyMem_Malloc((size_t)count * sizeof *drafts);
    portio_request *requests = PyMem_Malloc((size_t)count * sizeof *requests);
    if (drafts == NULL || requests == NULL) {
        start = START_BY_RULE;
        goto end;
    }
    while (made < count && start == STARTED) {
        struct operation *operation = (struct operation *)operations[made];
        struct draft *draft = &drafts[made++];
        if (!draft_make(draft, (PyObject *)port, operation, mode))
            start = not_claimed((PyObject *)port, draft);
    }
    while (claimed < count && start == STARTED) {
        struct draft *draft = &drafts[claimed];
        if (!draft_claim(port, draft, mode)) { /* perhaps it is there twice */
            start = not_claimed((PyObject *)port, draft);
            break;
        }
        port->brief = port->brief && draft->brief;
        requests[claimed++] = (portio_request){
            .token = draft->token,
            .handle = ((struct key *)draft->key)->id,
            .kind = draft->operation->kind,
            .flags = (uint32_t)mode | draft->flags,
            .buffer = draft->start,
            .length = (uint64_t)draft->length,
            .argument = draft->argument,
        };
    }
    int result = 0;
    if (start == STARTED) {
        portio_port *native = port->native;
        submit_function submit = port->submit;
        Py_BEGIN_ALLOW_THREADS
        result = submit(native, requests, (uint32_t)count);
        Py_END_ALLOW_THREADS
    }
    if (start != STARTED || result < 0)
        while (claimed > 0)
            draft_undo(port, &drafts[--claimed]);
    if (result < 0)
        start = start_refused(port, result);
end:
    while (made > 0)
        draft_drop(&drafts[--made]);
    PyMem_Free(requests);
    PyMem_Free(drafts);
    return start;
}

/* The mode that the keywords ask for; -1: the rule has to look at them. */
static int mode_of(PyObject *const *values, PyObject *names)
{
    if (names == NULL)
        return MODE_QUEUED;
    if (PyTuple_Size(names) != 1)
        return -1;
    PyObject *name = PyTuple_GetItem(names, 0);
    if (name == name_of.quiet || PyUnicode_CompareWithASCIIString(name, "quiet") == 0) {
        if (values[0] == Py_True)
            return PORTIO_QUIET;
        if (values[0] == Py_False)
            return MODE_QUEUED;
    } else if (name == name_of.queued || PyUnicode_CompareWithASCIIString(name, "queued") == 0) {
        if (values[0] == Py_True)
            return MODE_QUEUED;
        if (values[0] == Py_False)
            return PORTIO_UNQUEUED;
    }
    return -1;
}

static bool are_operations(PyObject *const *operations, Py_ssize_t count)
{
    for (Py_ssize_t at = 0; at < count; at++)
        if (!PyObject_TypeCheck(operations[at], operation_type))
            return false;
    return true;
}

PyObject *port_submit(PyObject *self, PyObject *const *arguments, Py_ssize_t count,
                      PyObject *names)
{
    struct port *port = (struct port *)self;
    enum start start = START_BY_RULE;
    int mode = mode_of(arguments + count, names);
    if (count > 0 && mode >= 0 && port->native != NULL && are_operations(arguments, count)) {
        if (count == 1)
            start = start_one(port, (struct operation *)arguments[0], mode, 0);
        else
            start = start_many(port, arguments, count, mode);
    }
    switch (start) {
    case STARTED:
    case STARTED_AND_ENDED:
        Py_RETURN_NONE;
    case START_FAILED:
        return NULL;
    default:
        return start_by_rule(port, "_submit_by_rule", arguments, count, names);
    }
}

/* `_start(operation)`: whether it has ended already. */
PyObject *port_start(PyObject *self, PyObject *operation)
{
    struct port *port = (struct port *)self;
    enum start start = START_BY_RULE;
    if (port->native != NULL && PyObject_TypeCheck(operation, operation_type) &&
        ((struct operation *)operation)->form == FORM_TRANSFER)
        start = start_one(port, (struct operation *)operation, MODE_QUEUED, PORTIO_QUIET);
    switch (start) {
    case STARTED:
        Py_RETURN_FALSE;
    case STARTED_AND_ENDED:
        Py_RETURN_TRUE;
    case START_FAILED:
        return NULL;
    default:
        return start_by_rule(port, "_start_by_rule", &operation, 1, NULL);
    }
}
