/* What the files that take share: the next completion, made before it is needed, since a
   finalizer may run where memory is allocated, and nothing may come between the look at an
   entry and the claim. */
#ifndef PORTIO_TAKE_H
#define PORTIO_TAKE_H

#include "accelerator.h"

/* What has become of a record: it is a completion in the sink, or nothing because
   somebody else has claimed it; it is for the rule; or there is an exception, and it is as
   it was. */
enum taken { TAKEN, TAKEN_BY_RULE, TAKING_FAILED };

/* Where completions go: to the end of a list, or where one is asked for, into a place of its own. */
struct sink {
    PyObject *list; /* NULL: there is room for one */
    PyObject *one;
};

/* ---- take.c ---- */
/* Has one ready.  False: an exception. */
bool completion_prepare(const struct port *port);
/* Puts it into a sink.  False: an exception. */
bool completion_append(struct sink *out);
/* Takes it from there again. */
void completion_withdraw(struct sink *out);
/* The operation is idle again, and this is what came of it.  The last step of a claim: it may
   run anything. */
void operation_end(struct operation *operation, PyObject *outcome);
/* It is what the sink has got last, and no longer the one that is ready. */
void completion_fill(PyObject *operation, PyObject *key, PyObject *nbytes, PyObject *outcome);

/* ---- turn.c ---- */
bool record_is_turn(const portio_completion *record, PyObject *entry);
enum taken turn_take(PyObject *self, struct sink *out, const portio_completion *record,
                     PyObject *entry);
bool entry_is_pooled(PyObject *entry);
enum form entry_form(PyObject *entry); /* of its operation */
/* Where a piece is that a record tells of; NULL: it is for the rule. */
char *piece_find(const struct pool *pool, int64_t nbytes);
/* The bytes that a record of such an entry says have arrived; NULL: an exception, or it is for
   the rule. */
PyObject *piece_copy(PyObject *entry, int64_t nbytes);

/* ---- loan.c ---- */
/* A memoryview of a part of a pool's memory, and what stands for the buffer: it goes back when
   that memory is nobody's any more, if the loan has begun by then.  NULL: an exception. */
PyObject *loan_make(struct pool *pool, uint32_t number, char *start, Py_ssize_t length,
                    PyObject **loan);
void loan_begin(PyObject *loan);

/* ---- outcome.c ---- */
bool record_is_an_end(const portio_completion *record, PyObject *entry);
enum taken end_take(PyObject *self, struct sink *out, const portio_completion *record,
                    PyObject *entry);
/* The result of a descriptor that an accept has given, or NULL with an exception. */
bool settle_is_in_c(PyObject *settle);
PyObject *settle_in_c(PyObject *settle, int64_t number);
bool value_is_refusal(PyObject *value);
PyObject *outcome_make(int64_t error, PyObject *nbytes, PyObject *value);
/* Somebody else has claimed it: if the port was closed, what was accepted is to be, too. */
enum taken record_lose(PyObject *self, uint64_t token, PyObject *entry, PyObject *nbytes,
                       PyObject *outcome);

/* ---- accept.c ---- */
bool settle_is_accept(PyObject *settle);
/* Makes its socket the owner of a descriptor, and gives it. */
PyObject *accepting_settle(PyObject *settle, int64_t number);

/* ---- adopt.c ---- */
bool settle_is_adopting(PyObject *settle);
/* Makes a descriptor a handle of the port, and gives its key, or what the system has refused. */
PyObject *adopting_settle(PyObject *settle, int64_t number);

#endif
