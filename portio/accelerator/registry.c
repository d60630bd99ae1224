/* The registry's books from C: the dicts are Python's own, and so is the lock, which is never
   waited for here: whoever finds it taken leaves all to the rule. */
#include "registry.h"

struct registry *registry_look(void)
{
    if (given.registry == NULL || !PyObject_TypeCheck(given.registry, registry_type))
        return NULL;
    struct registry *registry = (struct registry *)given.registry;
    bool usual = guard_is_free(registry->lock) && registry->entries != NULL &&
                 PyDict_CheckExact(registry->entries) && registry->sockets != NULL &&
                 PyDict_CheckExact(registry->sockets);
    return usual ? registry : NULL;
}

bool registry_hold(struct registry *registry)
{
    PyObject *taken =
        PyObject_CallMethodObjArgs(registry->lock, name_of.acquire, Py_False, NULL);
    Py_XDECREF(taken); /* True and False live for ever */
    return taken == Py_True;
}

void registry_release(struct registry *registry)
{
    PyObject *kind, *value, *trace;
    PyErr_Fetch(&kind, &value, &trace);
    Py_XDECREF(PyObject_CallMethodObjArgs(registry->lock, name_of.release, NULL));
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
    entry_set_identity(entry, identity);
    if (is_socket && PyDict_SetItem(registry->sockets, identity, descriptor) < 0)
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

bool registry_remove(const struct registry *registry, long long number, PyObject *key)
{
    PyObject *descriptor = PyLong_FromLongLong(number), *identity = NULL;
    bool removed = false;
    if (descriptor == NULL)
        return false;
    PyObject *entry = PyDict_GetItemWithError(registry->entries, descriptor);
    if (entry == NULL || !entry_is(entry) || !entry_means(entry, key))
        goto end;
    identity = Py_XNewRef(entry_identity(entry));
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
