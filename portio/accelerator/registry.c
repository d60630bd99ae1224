/* The registry's books from C: the dicts and the weak references are Python's own, and so is the
   lock, which is never waited for here: whoever finds it taken leaves all to the rule. */
#include "registry.h"

static void registry_drop(struct registry *registry)
{
    Py_XDECREF(registry->sockets);
    Py_XDECREF(registry->entries);
    Py_XDECREF(registry->lock);
}

/* All of it is new in a forked child, so it is asked for each time. */
static PyObject *book_get(PyObject *name)
{
    PyObject *book = PyObject_GetAttr(given.registry, name);
    if (book != NULL && !PyDict_CheckExact(book))
        Py_CLEAR(book);
    return book;
}

bool registry_open(struct registry *registry)
{
    *registry = (struct registry){
        .lock = PyObject_GetAttr(given.registry, name_of.lock),
        .entries = book_get(name_of.entries),
        .sockets = book_get(name_of.sockets),
    };
    PyObject *taken = NULL;
    if (registry->lock != NULL && registry->entries != NULL && registry->sockets != NULL)
        taken = PyObject_CallMethodObjArgs(registry->lock, name_of.acquire, Py_False, NULL);
    Py_XDECREF(taken); /* True and False live for ever */
    if (taken != Py_True)
        registry_drop(registry);
    return taken == Py_True;
}

void registry_close(struct registry *registry)
{
    PyObject *kind, *value, *trace;
    PyErr_Fetch(&kind, &value, &trace);
    Py_XDECREF(PyObject_CallMethodObjArgs(registry->lock, name_of.release, NULL));
    registry_drop(registry);
    if (kind != NULL)
        PyErr_Restore(kind, value, trace);
}

bool registry_has(PyObject *book, PyObject *what)
{
    return PyDict_Contains(book, what) != 0;
}

bool registry_add(const struct registry *registry, PyObject *descriptor, PyObject *identity,
                  PyObject *entry)
{
    bool is_socket = PyLong_CheckExact(identity);
    if (PyObject_SetAttr(entry, name_of.identity, identity) < 0 ||
        (is_socket && PyDict_SetItem(registry->sockets, identity, descriptor) < 0))
        return false;
    if (PyDict_SetItem(registry->entries, descriptor, entry) == 0)
        return true;
    if (is_socket) {
        PyObject *kind, *value, *trace;
        PyErr_Fetch(&kind, &value, &trace);
        PyDict_DelItem(registry->sockets, identity);
        PyErr_Restore(kind, value, trace);
    }
    return false;
}

/* Whether a weak reference is to `key`. */
static bool entry_is_of(PyObject *entry, PyObject *key)
{
    PyObject *found = PyObject_CallNoArgs(entry);
    Py_XDECREF(found); /* the caller holds what it compares with */
    return found == key;
}

bool registry_remove(const struct registry *registry, long long number, PyObject *key)
{
    PyObject *descriptor = PyLong_FromLongLong(number), *identity = NULL;
    bool removed = false;
    if (descriptor == NULL)
        return false;
    PyObject *entry = PyDict_GetItemWithError(registry->entries, descriptor);
    if (entry == NULL || !entry_is_of(entry, key))
        goto end;
    identity = PyObject_GetAttr(entry, name_of.identity);
    if (identity == NULL || PyDict_DelItem(registry->entries, descriptor) < 0)
        goto end;
    removed = true;
    PyObject *known = PyDict_GetItemWithError(registry->sockets, identity);
    if (known != NULL && PyObject_RichCompareBool(known, descriptor, Py_EQ) == 1)
        PyDict_DelItem(registry->sockets, identity);
end:
    Py_XDECREF(identity);
    Py_DECREF(descriptor);
    return removed;
}
