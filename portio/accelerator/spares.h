/* Objects that have come to their end, kept for the next ones of their type: some of them are
   made and dropped for every packet.  What is kept is memory alone; it has no reference, refers to
   nothing, and the collector does not know of it. */
#ifndef PORTIO_SPARES_H
#define PORTIO_SPARES_H

#include "accelerator.h"

#define SPARES 64 /* as many packets as a thread-bound port takes when it is asked for one */

struct spares {
    PyTypeObject *type; /* of the first that was made */
    Py_ssize_t count;
    PyObject *objects[SPARES];
};

/* A new object that the collector does not know of yet.  Its references are NULL, since those who
   free clear them; other fields are as its predecessor has left them.  NULL: an exception. */
PyObject *spares_make(struct spares *spares, PyTypeObject *type);
/* The end of a dealloc, instead of object_free: it refers to nothing, and is not tracked. */
void spares_free(struct spares *spares, PyObject *self);

#endif
