/* What the files that submit share: a draft is made, claimed, and dropped. */
#ifndef PORTIO_SUBMIT_H
#define PORTIO_SUBMIT_H

#include "accelerator.h"

struct draft {
    struct operation *operation; /* the caller holds it */
    PyObject *key;
    PyObject *pin;    /* NULL: there is nothing to hold */
    PyObject *settle; /* NULL: its result is a number of bytes */
    PyObject *entry;        /* a tuple, filled by the claim */
    PyObject *token_object; /* from the claim on, or the look before it */
    uint64_t token;
    long long number;
    int64_t argument;
    void *start;
    Py_ssize_t length;
    unsigned int fits; /* which types of handle */
    uint32_t flags;    /* for the engine, beside the mode */
    bool brief;        /* submit.c */
    bool filled;       /* the entry */
    bool failed;       /* the handle itself has raised: that is not to be tried again */
};

/* Asks Python whatever there is to ask.  False: it is not the usual case, or an error; the
   draft is to be dropped all the same. */
bool draft_make(struct draft *draft, PyObject *port, struct operation *operation, int mode);
void draft_drop(struct draft *draft);
/* Looks at the state, and claims the operation: nothing can come in between.  False: it
   cannot be claimed, and nothing has changed. */
bool draft_claim(struct port *port, struct draft *draft, int mode);
/* Its two steps, between which one call of the engine may come that keeps the GIL, so that
   nobody else does: a look at the token that it would have, which stays free, and at all that
   may fail; then, if the operation has not ended by then, the claim, which cannot. */
bool draft_reserve(struct port *port, struct draft *draft, int mode);
void draft_enter(struct port *port, struct draft *draft, int mode);
/* Instead of the claim: the operation has ended, and with it this life of the token. */
void draft_pass(struct port *port, const struct draft *draft);
/* A claimed one is idle again: with an outcome, because it has ended; or as it was. */
void draft_end(struct port *port, struct draft *draft, PyObject *outcome);
void draft_undo(struct port *port, struct draft *draft);

PyObject *mode_object(int mode);

static inline bool form_is_pooled(enum form form)
{
    return form == FORM_POOLED || form == FORM_LENT;
}

/* Whether what the engine does of it is brief (submit.c). */
bool transfer_is_brief(uint32_t kind, Py_ssize_t length);
bool pool_is_brief(PyObject *pool);

#endif
