/* The registry's books from C: the dicts and the weak references are Python's own, and so is the
   lock, which is never waited for here: whoever finds it taken leaves all to the rule. */
#include "registry.h"

PyObject *registry_lock(void)
{
    PyObject *lock = PyObject_GetAttr(given.registry, name_of.lock);
    PyObject *taken =
        lock != NULL ? PyObject_CallMethodObjArgs(lock, name_of.acquire, Py_False, NULL) : NULL;
    if (taken != Py_True)
        Py_CLEAR(lock);
    Py_XDECREF(taken);
    return lock;
}

void registry_unlock(PyObject *lock)
{
    PyObject *kind, *value, *trace;
    PyErr_Fetch(&kind, &value, &trace);
    Py_XDECREF(PyObject_CallMethodObjArgs(lock, name_of.release, NULL));
    Py_DECREF(lock);
    if (kind != NULL)
        PyErr_Restore(kind, value, trace);
}

/* Another in a forked child. */
static PyObject *book_get(PyObject *name)
{
    PyObject *book = PyObject_GetAttr(given.registry, name);
    if (book != NULL && !PyDict_CheckExact(book))
        Py_CLEAR(book);
    return book;
}

bool registry_knows(PyObject *descriptor)
{
    PyObject *entries = book_get(name_of.entries);
    bool knows = entries == NULL || PyDict_Contains(entries, descriptor) != 0;
    Py_XDECREF(entries);
    return knows;
}

bool registry_has_socket(PyObject *identity)
{
    if (!PyLong_CheckExact(identity))
        return false;
    PyObject *sockets = book_get(name_of.sockets);
    bool has = sockets == NULL || PyDict_Contains(sockets, identity) != 0;
    Py_XDECREF(sockets);
    return has;
}

bool registry_add(PyObject *descriptor, PyObject *identity, PyObject *entry)
{
    PyObject *entries = book_get(name_of.entries), *sockets = book_get(name_of.sockets);
    bool is_socket = PyLong_CheckExact(identity), added = false;
    if (entries == NULL || sockets == NULL ||
        PyObject_SetAttr(entry, name_of.identity, identity) < 0 ||
        (is_socket && PyDict_SetItem(sockets, identity, descriptor) < 0))
        goto end;
    added = PyDict_SetItem(entries, descriptor, entry) == 0;
    if (!added && is_socket) {
        PyObject *kind, *value, *trace;
        PyErr_Fetch(&kind, &value, &trace);
        PyDict_DelItem(sockets, identity);
        PyErr_Restore(kind, value, trace);
    }
end:
    Py_XDECREF(sockets);
    Py_XDECREF(entries);
    return added;
}

/* Whether a weak reference is to `key`. */
static bool entry_is_of(PyObject *entry, PyObject *key)
{
    PyObject *found = PyObject_CallNoArgs(entry);
    Py_XDECREF(found); /* the caller holds what it compares with */
    return found == key;
}

bool registry_remove(long long number, PyObject *key)
{
    PyObject *entries = book_get(name_of.entries), *sockets = book_get(name_of.sockets);
    PyObject *descriptor = PyLong_FromLongLong(number), *identity = NULL;
    bool removed = false;
    if (entries == NULL || sockets == NULL || descriptor == NULL)
        goto end;
    PyObject *entry = PyDict_GetItemWithError(entries, descriptor);
    if (entry == NULL || !entry_is_of(entry, key))
        goto end;
    identity = PyObject_GetAttr(entry, name_of.identity);
    if (identity == NULL || PyDict_DelItem(entries, descriptor) < 0)
        goto end;
    removed = true;
    PyObject *known = PyDict_GetItemWithError(sockets, identity);
    if (known != NULL && PyObject_RichCompareBool(known, descriptor, Py_EQ) == 1)
        PyDict_DelItem(sockets, identity);
end:
    Py_XDECREF(identity);
    Py_XDECREF(descriptor);
    Py_XDECREF(sockets);
    Py_XDECREF(entries);
    return removed;
}
