/* What the files that take share: the next completion, made before it is needed, since a
   finalizer may run where memory is allocated, and nothing may come between the look at an
   entry and the claim. */
#ifndef PORTIO_TAKE_H
#define PORTIO_TAKE_H

#include "accelerator.h"

/* ---- take.c ---- */
/* Has one ready.  False: an exception. */
bool completion_prepare(const struct port *port);
/* Puts it at the end of a list.  False: an exception. */
bool completion_append(PyObject *out);
/* Takes it from there again. */
void completion_withdraw(PyObject *out);
/* It is what the list's end has, and no longer the one that is ready. */
void completion_fill(PyObject *operation, PyObject *key, PyObject *nbytes, PyObject *outcome);

/* ---- piece.c ---- */
enum piece { PIECE_TAKEN, PIECE_BY_RULE, PIECE_FAILED };
bool record_is_piece(const portio_completion *record, PyObject *entry);
enum piece piece_take(PyObject *self, PyObject *out, const portio_completion *record,
                      PyObject *entry);

#endif
