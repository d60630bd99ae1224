/* The books of a port: what is pending, by its token, and the tokens that are free.

   To Python they are a dict and a list, as far as those are used (engine.py); to C they are
   arrays, since a token names its slot, and no slot has more than one token at a time. */
#ifndef PORTIO_BOOK_H
#define PORTIO_BOOK_H

#include "accelerator.h"

struct line {
    uint64_t token;
    PyObject *entry; /* NULL: nothing is pending in this slot */
};

struct book {
    PyObject_HEAD
    struct line *lines; /* by slot */
    Py_ssize_t room;
    Py_ssize_t count;
};

struct tokens {
    PyObject_HEAD
    uint64_t *numbers; /* the last is the next to be used */
    Py_ssize_t room;
    Py_ssize_t count;
};

extern PyTypeObject *book_type, *tokens_type;

static inline Py_ssize_t token_slot(uint64_t token)
{
    return (Py_ssize_t)(token & (uint64_t)(GENERATION - 1));
}

/* The slot's next life. */
static inline uint64_t token_following(uint64_t token)
{
    return (token + GENERATION) & (uint64_t)TOKENS;
}

/* A borrowed entry, or NULL without an exception. */
static inline PyObject *book_find(const struct book *book, uint64_t token)
{
    Py_ssize_t slot = token_slot(token);
    return slot < book->room && book->lines[slot].entry != NULL &&
                   book->lines[slot].token == token
               ? book->lines[slot].entry
               : NULL;
}

/* Has room for the slot of a token.  False: an exception. */
bool book_reserve(struct book *book, uint64_t token);

/* Enters what there is room for, in a slot that nobody uses. */
static inline void book_enter(struct book *book, uint64_t token, PyObject *entry)
{
    struct line *line = &book->lines[token_slot(token)];
    *line = (struct line){token, Py_NewRef(entry)};
    book->count++;
}

/* Takes out an entry that book_find has found; it is the caller's now. */
static inline PyObject *book_remove(struct book *book, uint64_t token)
{
    struct line *line = &book->lines[token_slot(token)];
    PyObject *entry = line->entry;
    line->entry = NULL;
    book->count--;
    return entry;
}

/* The next token, which stays free; false: there is none. */
static inline bool tokens_look(const struct tokens *tokens, uint64_t *token)
{
    if (tokens->count == 0)
        return false;
    *token = tokens->numbers[tokens->count - 1];
    return true;
}

/* Takes what tokens_look has shown. */
static inline void tokens_take(struct tokens *tokens)
{
    tokens->count--;
}

/* False: an exception, which it cannot be for a token that was taken from here. */
bool tokens_give(struct tokens *tokens, uint64_t token);

/* The same where a failure is nobody's: a slot is not used any more, and nothing else is
   lost. */
static inline void tokens_return(struct tokens *tokens, uint64_t token)
{
    if (!tokens_give(tokens, token))
        PyErr_Clear();
}

/* The books of a port, if they are these: those of a forked child are not. */
static inline bool books_are_open(const struct port *port)
{
    return port->pending != NULL && Py_TYPE(port->pending) == book_type && port->free != NULL &&
           Py_TYPE(port->free) == tokens_type;
}

static inline struct book *port_book(const struct port *port)
{
    return (struct book *)port->pending;
}

static inline struct tokens *port_tokens(const struct port *port)
{
    return (struct tokens *)port->free;
}

#endif
