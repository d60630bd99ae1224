/* The registry of handles (registry.py), as far as C uses it. */
#ifndef PORTIO_REGISTRY_H
#define PORTIO_REGISTRY_H

#include "accelerator.h"

/* Takes the lock, if nobody else has it: the lock, or NULL, perhaps with an exception. */
PyObject *registry_lock(void);
/* Gives it back, and the reference to it.  An exception stays. */
void registry_unlock(PyObject *lock);

/* These need the lock. */

/* Whether a descriptor is in the books, or those fail. */
bool registry_knows(PyObject *descriptor);
/* Whether a socket with this identity is in the books, or those fail. */
bool registry_has_socket(PyObject *identity);
/* Enters a key by its descriptor, and by its identity if it is a socket's.  Neither
   is in the books.  False: an exception; nothing has changed. */
bool registry_add(PyObject *descriptor, PyObject *identity, PyObject *entry);
/* Takes the entry of a descriptor out, if it is `key`'s.  False: it is not, or an exception;
   nothing has changed. */
bool registry_remove(long long descriptor, PyObject *key);

#endif
