#include "book.h"

PyTypeObject *book_type, *tokens_type;

static bool token_read(PyObject *object, uint64_t *token)
{
    *token = PyLong_AsUnsignedLongLong(object);
    return *token != UINT64_MAX || PyErr_Occurred() == NULL;
}

static Py_ssize_t room_for(Py_ssize_t needed, Py_ssize_t room)
{
    return needed > 2 * room ? needed : 2 * room;
}

/* ---- what is pending ---- */

bool book_reserve(struct book *book, uint64_t token)
{
    Py_ssize_t slot = token_slot(token);
    if (slot < book->room)
        return true;
    Py_ssize_t room = room_for(slot + 1, book->room);
    struct line *lines = PyMem_Realloc(book->lines, (size_t)room * sizeof *lines);
    if (lines == NULL) {
        PyErr_NoMemory();
        return false;
    }
    for (Py_ssize_t at = book->room; at < room; at++)
        lines[at] = (struct line){0, NULL};
    book->lines = lines;
    book->room = room;
    return true;
}

static Py_ssize_t book_length(PyObject *self)
{
    return ((struct book *)self)->count;
}

static PyObject *book_get(PyObject *self, PyObject *key)
{
    uint64_t token;
    if (!token_read(key, &token))
        return NULL;
    PyObject *entry = book_find((struct book *)self, token);
    if (entry == NULL)
        PyErr_SetObject(PyExc_KeyError, key);
    return Py_XNewRef(entry);
}

static int book_contains(PyObject *self, PyObject *key)
{
    uint64_t token;
    if (!token_read(key, &token))
        return -1;
    return book_find((struct book *)self, token) != NULL;
}

/* Sets, or deletes where the value is NULL. */
static int book_set(PyObject *self, PyObject *key, PyObject *value)
{
    struct book *book = (struct book *)self;
    uint64_t token;
    if (!token_read(key, &token))
        return -1;
    PyObject *before = book_find(book, token);
    if (before != NULL)
        book_remove(book, token);
    if (value == NULL && before == NULL) {
        PyErr_SetObject(PyExc_KeyError, key);
        return -1;
    }
    if (value != NULL) {
        if (!book_reserve(book, token))
            return -1;
        if (book->lines[token_slot(token)].entry != NULL) {
            PyErr_Format(PyExc_RuntimeError, "the slot of %R is used", key);
            return -1;
        }
        book_enter(book, token, value);
    }
    Py_XDECREF(before); /* last: it may run anything */
    return 0;
}

static PyObject *book_pop(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    uint64_t token;
    if (count != 2)
        return PyErr_Format(PyExc_TypeError, "pop() takes a token and a default");
    if (!token_read(arguments[0], &token))
        return NULL;
    if (book_find((struct book *)self, token) == NULL)
        return Py_NewRef(arguments[1]);
    return book_remove((struct book *)self, token);
}

static PyObject *book_copy(PyObject *self, PyObject *nothing)
{
    (void)nothing;
    struct book *book = (struct book *)self;
    PyObject *copy = PyDict_New();
    for (Py_ssize_t at = 0; copy != NULL && at < book->room; at++) {
        struct line line = book->lines[at];
        if (line.entry == NULL)
            continue;
        Py_INCREF(line.entry); /* making the number may run a finalizer */
        PyObject *token = PyLong_FromUnsignedLongLong(line.token);
        if (token == NULL || PyDict_SetItem(copy, token, line.entry) < 0)
            Py_CLEAR(copy);
        Py_XDECREF(token);
        Py_DECREF(line.entry);
    }
    return copy;
}

/* What tests and debuggers want of a dict. */
static PyObject *book_iterate(PyObject *self)
{
    PyObject *copy = book_copy(self, NULL);
    PyObject *iterator = copy != NULL ? PyObject_GetIter(copy) : NULL;
    Py_XDECREF(copy);
    return iterator;
}

static PyObject *book_compare(PyObject *self, PyObject *other, int operator)
{
    if (!PyDict_Check(other))
        Py_RETURN_NOTIMPLEMENTED;
    PyObject *copy = book_copy(self, NULL);
    PyObject *result = copy != NULL ? PyObject_RichCompare(copy, other, operator) : NULL;
    Py_XDECREF(copy);
    return result;
}

static PyObject *book_repr(PyObject *self)
{
    PyObject *copy = book_copy(self, NULL);
    PyObject *text = copy != NULL ? PyObject_Repr(copy) : NULL;
    Py_XDECREF(copy);
    return text;
}

static int book_traverse(PyObject *self, visitproc visit, void *arg)
{
    struct book *book = (struct book *)self;
    for (Py_ssize_t at = 0; at < book->room; at++)
        Py_VISIT(book->lines[at].entry);
    Py_VISIT(Py_TYPE(self));
    return 0;
}

static int book_clear(PyObject *self)
{
    struct book *book = (struct book *)self;
    for (Py_ssize_t at = 0; at < book->room; at++) {
        PyObject *entry = book->lines[at].entry;
        if (entry == NULL)
            continue;
        book->lines[at].entry = NULL;
        book->count--;
        Py_DECREF(entry); /* it may run anything, also change the array */
    }
    return 0;
}

static void book_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    book_clear(self);
    PyMem_Free(((struct book *)self)->lines);
    object_free(self);
}

static PyMethodDef book_methods[] = {
    {"pop", (PyCFunction)(void (*)(void))book_pop, METH_FASTCALL,
     "Takes an entry out; the default if there is none."},
    {"copy", book_copy, METH_NOARGS, "A dict of all entries."},
    {0},
};

static PyType_Slot book_slots[] = {
    {Py_mp_length, book_length},
    {Py_mp_subscript, book_get},
    {Py_mp_ass_subscript, book_set},
    {Py_sq_contains, book_contains},
    {Py_tp_iter, book_iterate},
    {Py_tp_richcompare, book_compare},
    {Py_tp_hash, PyObject_HashNotImplemented},
    {Py_tp_repr, book_repr},
    {Py_tp_traverse, book_traverse},
    {Py_tp_clear, book_clear},
    {Py_tp_dealloc, book_dealloc},
    {Py_tp_methods, book_methods},
    {0, NULL},
};

static PyType_Spec book_spec = {
    .name = "portio.accelerator.Book",
    .basicsize = sizeof(struct book),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = book_slots,
};

/* ---- free tokens ---- */

static bool tokens_reserve(struct tokens *tokens, Py_ssize_t count)
{
    if (count <= tokens->room)
        return true;
    Py_ssize_t room = room_for(count, tokens->room);
    uint64_t *numbers = PyMem_Realloc(tokens->numbers, (size_t)room * sizeof *numbers);
    if (numbers == NULL) {
        PyErr_NoMemory();
        return false;
    }
    tokens->numbers = numbers;
    tokens->room = room;
    return true;
}

bool tokens_give(struct tokens *tokens, uint64_t token)
{
    if (!tokens_reserve(tokens, tokens->count + 1))
        return false;
    tokens->numbers[tokens->count++] = token;
    return true;
}

static Py_ssize_t tokens_length(PyObject *self)
{
    return ((struct tokens *)self)->count;
}

static PyObject *tokens_item(PyObject *self, Py_ssize_t at)
{
    struct tokens *tokens = (struct tokens *)self;
    if (at < 0 || at >= tokens->count) {
        PyErr_SetString(PyExc_IndexError, "there is no such token");
        return NULL;
    }
    return PyLong_FromUnsignedLongLong(tokens->numbers[at]);
}

static PyObject *tokens_pop(PyObject *self, PyObject *nothing)
{
    (void)nothing;
    struct tokens *tokens = (struct tokens *)self;
    uint64_t number;
    if (!tokens_look(tokens, &number)) {
        PyErr_SetString(PyExc_IndexError, "no token is free");
        return NULL;
    }
    PyObject *token = PyLong_FromUnsignedLongLong(number);
    if (token != NULL)
        tokens_take(tokens);
    return token;
}

static PyObject *tokens_append(PyObject *self, PyObject *token)
{
    uint64_t number;
    if (!token_read(token, &number) || !tokens_give((struct tokens *)self, number))
        return NULL;
    Py_RETURN_NONE;
}

/* All or none. */
static PyObject *tokens_add(PyObject *self, PyObject *list)
{
    struct tokens *tokens = (struct tokens *)self;
    uint64_t number;
    if (!PyList_Check(list))
        return PyErr_Format(PyExc_TypeError, "%R is no list", list);
    Py_ssize_t count = PyList_Size(list);
    if (!tokens_reserve(tokens, tokens->count + count))
        return NULL;
    for (Py_ssize_t at = 0; at < count; at++) {
        if (!token_read(PyList_GetItem(list, at), &number))
            return NULL;
        tokens->numbers[tokens->count + at] = number;
    }
    tokens->count += count;
    return Py_NewRef(self);
}

static void tokens_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    PyMem_Free(((struct tokens *)self)->numbers);
    release(self);
    Py_DECREF(type);
}

static PyMethodDef tokens_methods[] = {
    {"pop", tokens_pop, METH_NOARGS, "Takes the last; IndexError."},
    {"append", tokens_append, METH_O, "Adds one."},
    {0},
};

static PyType_Slot tokens_slots[] = {
    {Py_sq_length, tokens_length},
    {Py_sq_item, tokens_item},
    {Py_sq_inplace_concat, tokens_add},
    {Py_tp_dealloc, tokens_dealloc},
    {Py_tp_methods, tokens_methods},
    {0, NULL},
};

static PyType_Spec tokens_spec = {
    .name = "portio.accelerator.Tokens",
    .basicsize = sizeof(struct tokens),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = tokens_slots,
};

int book_add(PyObject *module)
{
    book_type = type_add(module, &book_spec, NULL);
    tokens_type = type_add(module, &tokens_spec, NULL);
    return book_type != NULL && tokens_type != NULL ? 0 : -1;
}
