/* The registry of handles (registry.py), as far as C uses it. */
#ifndef PORTIO_REGISTRY_H
#define PORTIO_REGISTRY_H

#include "accelerator.h"

/* ---- registry_object.c ---- */

struct registry {
    PyObject_HEAD
    PyObject *lock;
    PyObject *entries; /* dict: entries, by descriptor */
    PyObject *sockets; /* dict: descriptors, by the identity of the socket */
};

/* Whether nobody holds the registry's lock, nor can before the GIL is let go. */
bool guard_is_free(PyObject *guard);

/* An entry without an identity, or NULL with an exception. */
PyObject *entry_make(PyObject *key);
bool entry_is(PyObject *entry);
void entry_set_identity(PyObject *entry, PyObject *identity);
PyObject *entry_identity(PyObject *entry); /* borrowed */
/* Whether it is of that key, which lives. */
bool entry_means(PyObject *entry, PyObject *key);

/* ---- registry.c ---- */

/* The registry, if nobody holds its lock: what follows has it for itself as long as it neither
   lets the GIL go nor runs anything of Python.  NULL: it is for the rule, which waits. */
struct registry *registry_look(void);
/* The lock, for who lets the GIL go meanwhile.  False: nobody has it now. */
bool registry_hold(struct registry *registry);
/* Gives it back.  An exception stays. */
void registry_release(struct registry *registry);

/* Whether one of its books has this, or fails. */
bool registry_has(PyObject *book, PyObject *what);
/* Enters a key by its descriptor, and by its identity if it is a socket's.  Neither
   is in the books.  False: an exception; nothing has changed. */
bool registry_add(const struct registry *registry, PyObject *descriptor, PyObject *identity,
                  PyObject *entry);
/* Takes the entry of a descriptor out, if it is `key`'s.  False: it is not, or an exception;
   nothing has changed. */
bool registry_remove(const struct registry *registry, long long descriptor, PyObject *key);

#endif
