/* The registry of handles (registry.py), as far as C uses it. */
#ifndef PORTIO_REGISTRY_H
#define PORTIO_REGISTRY_H

#include "accelerator.h"

/* Its lock, held, and its books. */
struct registry {
    PyObject *lock;
    PyObject *entries; /* dict: weak references to keys, by descriptor */
    PyObject *sockets; /* dict: descriptors, by the identity of the socket */
};

/* Takes the lock, if nobody else has it.  False: nothing is held; perhaps an exception. */
bool registry_open(struct registry *registry);
/* Gives everything back.  An exception stays. */
void registry_close(struct registry *registry);

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
