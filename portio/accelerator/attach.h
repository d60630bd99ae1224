/* What becomes a handle of a port. */
#ifndef PORTIO_ATTACH_H
#define PORTIO_ATTACH_H

#include "registry.h"

struct attachment {
    PyObject *handle, *data, *accepting; /* the caller's, for the key; the handle may be NULL */
    PyObject *descriptor, *getter; /* a number, and what gives it at any later time, or NULL */
    PyObject *key, *entry;
    long long number;
    uint64_t listener; /* of which it is a connection; 0: it comes from elsewhere */
};

enum attached { ATTACHED, ATTACHED_BY_RULE, ATTACHING_FAILED };

/* Unless it is attached, nothing has changed. */
enum attached attachment_enter(PyObject *port, struct attachment *plan);
void attachment_drop(struct attachment *plan);

#endif
