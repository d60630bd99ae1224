/* The hot path of the Python layer in C: what every operation passes, from `submit` until
   its completion has left the port.

   It is a second form of a part of submission.py and packets.py, for the usual case, and
   hands everything else to the Python methods that it stands for: they are the rule, and
   this follows it.  It uses the engines through the same door (native.cdef.txt), whose
   functions Python gives it the addresses of, and the same books: what is pending, and the
   free tokens (book.h).

   Rules
   - Everything here runs with the GIL, except for the engine's functions where it says so.
   - Python code may run wherever an object is called, a buffer is asked for, or memory is
     allocated that the collector counts (its finalizers).  All of that comes first; then
     the state is looked at, and from there to the engine, or to the end of a claim,
     nothing can come in between: no thread, no signal handler, no finalizer.
   - The limited API of CPython 3.11, and nothing beyond it. */
#ifndef PORTIO_ACCELERATOR_H
#define PORTIO_ACCELERATOR_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include "../backends/native.h"

/* As in engine.py and operations/base.py. */
#define GENERATION (INT64_C(1) << 24)
#define TOKENS INT64_MAX
#define MODE_QUEUED 0
#define FORM_SIZE 4   /* of keys.py's AcceptingForm */
#define POSTED_SIZE 2 /* numbers in the tuple of a posted packet; of an operation ENTRY_SIZE */
enum entry_field {
    ENTRY_OPERATION,
    ENTRY_KEY,
    ENTRY_SETTLE,
    ENTRY_PIN,
    ENTRY_TOKEN,
    ENTRY_PORT,
    ENTRY_MODE,
    ENTRY_SIZE
};

/* ---- objects whose fields C reaches without asking Python ---- */

/* What C knows an operation as. */
enum form {
    FORM_OTHER,      /* it is for Python */
    FORM_TRANSFER,   /* Recv, Send, Read, Write: one buffer, one number */
    FORM_ACCEPT,     /* Accept */
    FORM_ACCEPT_KEY, /* AcceptKey */
    FORM_POOLED,     /* RecvMultishot */
    FORM_LENT        /* RecvLent */
};

struct operation {
    PyObject_HEAD
    uint32_t form;
    uint32_t kind;     /* portio_kind, unless it is for Python */
    PyObject *entry;   /* NULL: __init__ was not called; None: idle */
    PyObject *outcome; /* NULL: it has never completed */
    PyObject *key;
};

struct transfer {
    struct operation base;
    PyObject *buffer;
    PyObject *argument; /* flags, or the offset */
};

/* Accept, AcceptKey, RecvMultishot, RecvLent: no memory of its own. */
struct bare {
    struct operation base;
    PyObject *argument; /* whether it is multishot, or the pool */
};

struct key {
    PyObject_HEAD
    PyObject *port;   /* None: it has none */
    PyObject *number; /* what to call for the descriptor's number; NULL: there is no object … */
    PyObject *handle;    /* … for the handle: key_is_bare */
    PyObject *data;      /* the program's */
    PyObject *accepting; /* what it accepts, a tuple, or what it is; None: nobody has asked */
    PyObject *identity;  /* registry.py */
    long long descriptor;
    unsigned long long id;
    unsigned int fits; /* a bit for the type of handle */
    /* Python's alone; here because they take less room than as objects. */
    int family;
    char closed;
    char message_based;
};

/* Of a RecvMultishot or a RecvLent. */
struct pool {
    PyObject_HEAD
    PyObject *memory; /* a bytearray that is never resized; NULL: it is being taken apart */
    PyObject *port;
    PyObject *keeper; /* of the engine's portio_pool; the last to go (keepers.py) */
    Py_ssize_t size;  /* of one buffer */
    unsigned long long address; /* of the engine's portio_pool */
};

/* How an operation has ended, when there is more to say than a number of bytes. */
struct outcome {
    PyObject_HEAD
    PyObject *nbytes;
    PyObject *value;
    PyObject *last; /* the completion that Operation.wait gave: a weak reference, or None */
    long long error;
    char more;
    char queued;
};

struct completion {
    PyObject_HEAD
    PyObject *operation;
    PyObject *key;
    PyObject *nbytes;
    PyObject *outcome;
    PyObject *error;
};

typedef int (*submit_one_function)(portio_port *port, uint32_t kind, uint32_t flags,
                                   uint64_t handle, uint64_t token, void *buffer,
                                   uint64_t length, int64_t argument);
typedef int (*submit_function)(portio_port *port, const portio_request *requests,
                               uint32_t count);
typedef int (*get_function)(portio_port *port, portio_completion *records, uint32_t limit,
                            int64_t timeout);

typedef int (*renew_function)(portio_port *port, uint64_t token, int same);
typedef int (*adopt_function)(portio_port *port, uint64_t listener, int64_t handle,
                              portio_handle *out);
typedef int (*handle_function)(portio_port *port, uint64_t id);
typedef int (*pool_return_function)(portio_port *port, portio_pool *pool, uint32_t number);

struct port {
    PyObject_HEAD
    PyObject *pending; /* a book: token to entry (book.h) */
    PyObject *free;    /* tokens */
    PyObject *rescued; /* list; see packets.py */
    PyObject *kept;    /* array: a batch that was taken ahead; nobody resizes it */
    PyObject *looked_at; /* the array, NULL or an old one, of which `kept_end` is the end */
    PyObject *completions; /* the class of them */
    PyObject *address; /* of the engine's port, for Python */
    PyObject *keeper;  /* of the engine's port; the last to go (keepers.py) */
    const char *kept_end;
    Py_ssize_t left;   /* numbers of `kept` that were not used yet */
    int batch;         /* how many packets are taken when one is asked for */
    unsigned long owner; /* the thread of a thread-bound port; else 0 */
    portio_port *native; /* the engine's port; NULL when everything is to go through Python */
    char brief; /* only brief operations were ever started: see submit.c */
    submit_one_function submit_one;
    submit_function submit;
    get_function get;
    renew_function renew;
    adopt_function adopt;
    handle_function close, release, abandon;
    pool_return_function pool_return;
};

extern PyTypeObject *operation_type, *transfer_type, *key_type, *pool_type, *completion_type,
    *outcome_type, *port_type, *registry_type;
extern PyObject *array_type;

/* Classes and objects of Python that C makes or uses; NULL: Python has not given them yet. */
extern struct given {
    PyTypeObject *socket_class;
    PyObject *socket_detach, *socket_close; /* in C: no signal handler runs within */
    PyTypeObject *key_class;
    PyObject *outcome_class;
    PyObject *registry;
    PyTypeObject *refused_class;
    PyObject *adopt; /* the rule for a connection that comes with its key */
} given;

/* Names of attributes, made once: who asks by a text makes a new one each time, and the cache of
   a type's attributes does not know it. */
#define NAMES(name)                                                                            \
    name(accepting_form) name(acquire) name(detach) name(fileno) name(lend) name(queued)       \
    name(quiet) name(release) name(settle) name(_orphans)
extern struct names {
    PyObject *init;
#define NAME(name) PyObject *name;
    NAMES(NAME)
#undef NAME
} name_of;

/* ---- fields.c ---- */
int fields_add(PyObject *module);
PyTypeObject *type_add(PyObject *module, PyType_Spec *spec, PyTypeObject *base);
void object_free(PyObject *self); /* the end of every dealloc, or spares_free */
PyObject *completion_new(PyTypeObject *class); /* the collector does not know of it yet */
/* What tp_traverse and tp_clear do with objects that stand in a row. */
int objects_visit(PyObject *self, PyObject *const *objects, size_t count, visitproc visit,
                  void *arg);
int objects_clear(PyObject **objects, size_t count);
int class_mark(PyTypeObject *class);

/* ---- key.c ---- */
int key_add(PyObject *module);
/* The number that the key's handle has now, -1 for one that none can have.  False: it has
   raised, or there is no number and no exception. */
bool key_ask(struct key *key, long long *number);
/* Whether it came with its connection, and nobody has asked for the socket (keys.py): the
   number is the key's own. */
bool key_is_bare(const struct key *key);

/* ---- pin.c ---- */
int pin_add(PyObject *module);
/* What keeps a buffer in place, or NULL with an exception; where it is and how long. */
PyObject *pin_make(PyObject *buffer, bool writable, void **start, Py_ssize_t *length);

/* ---- book.c ---- */
int book_add(PyObject *module);

/* ---- accept.c ---- */
int accept_add(PyObject *module);
/* What settles an accept on this handle, or NULL with an exception. */
PyObject *accepting_make(struct key *key);
/* What the connections are that it accepts: a tuple, or NULL with an exception. */
PyObject *accepting_form(struct key *key);

/* ---- adopt.c ---- */
int adopt_add(PyObject *module);
/* The same for an accept whose connections come with their keys. */
PyObject *adopting_make(PyObject *port, struct key *listener);
/* Whether one that has settled a connection, and is held by `holders`, may settle the next; and
   has it forget the one before. */
bool adopting_may_go_on(PyObject *settle, Py_ssize_t holders);
void adopting_go_on(PyObject *settle);

/* ---- handle.c ---- */
extern PyTypeObject *file_handle_type;
int handle_add(PyObject *module);
PyObject *handle_fileno(PyObject *self, PyObject *nothing);

/* ---- loan.c ---- */
int loan_add(PyObject *module);
/* lend(pool, nbytes): the memory of a piece, and its loan, for the rule. */
PyObject *lend(PyObject *module, PyObject *arguments);

/* ---- registry_object.c ---- */
int registry_add_types(PyObject *module);

/* ---- port_object.c ---- */
int port_add(PyObject *module);
/* Calls a method of Python with the arguments of a C one. */
PyObject *call_rule(PyObject *self, const char *name, PyObject *const *arguments,
                    Py_ssize_t count, PyObject *names);

/* Raises what the engine's refusal means. */
void refusal_raise(struct port *port, int result);

/* ---- answers.c ---- */
PyObject *operation_pending(PyObject *self, void *closure);
PyObject *completion_result(PyObject *self, PyObject *nothing);

/* Drops an exception, if there is one, where the rule looks again.  False: it is no Exception
   but an interrupt or the like, which has to go on. */
bool error_drop(void);

/* ---- submit.c, associate.c, close.c, take.c ---- */
PyObject *port_submit(PyObject *self, PyObject *const *arguments, Py_ssize_t count,
                      PyObject *names);
PyObject *port_start(PyObject *self, PyObject *operation);
PyObject *key_close(PyObject *self, PyObject *nothing);
PyObject *port_associate(PyObject *self, PyObject *const *arguments, Py_ssize_t count,
                         PyObject *names);
PyObject *port_fill(PyObject *self, PyObject *const *arguments, Py_ssize_t count);
PyObject *port_next(PyObject *self, PyObject *const *arguments, Py_ssize_t count);
PyObject *port_take(PyObject *self, PyObject *const *arguments, Py_ssize_t count);
PyObject *port_advance(PyObject *self);

#endif
