/* The base types of operations, pools and completions: members that Python uses like
   slots, at places that C knows. */
#include "fields.h"
#include "spares.h"

PyTypeObject *operation_type, *transfer_type, *pool_type, *completion_type, *outcome_type;

PyTypeObject *type_add(PyObject *module, PyType_Spec *spec, PyTypeObject *base)
{
    PyObject *bases = base != NULL ? PyTuple_Pack(1, base) : NULL;
    if (base != NULL && bases == NULL)
        return NULL;
    PyObject *type = PyType_FromSpecWithBases(spec, bases);
    Py_XDECREF(bases);
    if (type != NULL && PyModule_AddType(module, (PyTypeObject *)type) < 0)
        Py_CLEAR(type);
    return (PyTypeObject *)type; /* ours for good: types are never freed */
}

void object_free(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

int objects_visit(PyObject *self, PyObject *const *objects, size_t count, visitproc visit,
                  void *arg)
{
    for (size_t at = 0; at < count; at++)
        Py_VISIT(objects[at]);
    Py_VISIT(Py_TYPE(self));
    return 0;
}

int objects_clear(PyObject **objects, size_t count)
{
    for (size_t at = 0; at < count; at++)
        Py_CLEAR(objects[at]);
    return 0;
}

/* ---- operations ---- */

_Static_assert(offsetof(struct operation, key) - offsetof(struct operation, entry) ==
                   2 * sizeof(PyObject *),
               "three objects in a row");
_Static_assert(offsetof(struct transfer, argument) - offsetof(struct transfer, base.entry) ==
                   4 * sizeof(PyObject *),
               "five objects in a row");
_Static_assert(offsetof(struct bare, argument) - offsetof(struct bare, base.entry) ==
                   3 * sizeof(PyObject *),
               "four objects in a row");

/* One type for each kind. */
static struct kind {
    uint32_t number;
    enum form form;
    PyTypeObject *type;
} kinds[] = {
    {PORTIO_RECV, FORM_TRANSFER, NULL}, {PORTIO_SEND, FORM_TRANSFER, NULL},
    {PORTIO_READ, FORM_TRANSFER, NULL}, {PORTIO_WRITE, FORM_TRANSFER, NULL},
    {PORTIO_ACCEPT, FORM_ACCEPT, NULL}, {PORTIO_ACCEPT, FORM_ACCEPT_KEY, NULL},
    {PORTIO_RECV, FORM_POOLED, NULL},   {PORTIO_RECV, FORM_LENT, NULL},
};

/* The classes whose operations are for Python, by their addresses: to look for a class itself
   would ask its metaclass, which may be the program's.  Made when there is one. */
static PyObject *marked;

int class_mark(PyTypeObject *class)
{
    if (marked == NULL && (marked = PyDict_New()) == NULL)
        return -1;
    PyObject *address = PyLong_FromVoidPtr(class);
    int failed = address != NULL ? PyDict_SetItem(marked, address, (PyObject *)class) : -1;
    Py_XDECREF(address);
    return failed;
}

/* -1: an exception. */
static int class_is_marked(PyTypeObject *class)
{
    if (marked == NULL)
        return 0;
    PyObject *address = PyLong_FromVoidPtr(class);
    int is_marked = address != NULL ? PyDict_Contains(marked, address) : -1;
    Py_XDECREF(address);
    return is_marked;
}

/* The kind is found by asking, since of several bases the one that gives a class its tp_new
   need not be the one that says what it is.  Nothing of Python runs.  False: an exception. */
static bool class_look(PyTypeObject *class, uint32_t *form, uint32_t *number)
{
    int is_marked = class_is_marked(class);
    *form = FORM_OTHER;
    *number = 0;
    for (size_t at = 0; is_marked == 0 && at < sizeof kinds / sizeof *kinds; at++)
        if (PyType_IsSubtype(class, kinds[at].type)) {
            *form = kinds[at].form;
            *number = kinds[at].number;
            break;
        }
    return is_marked >= 0;
}

/* What was found of the last class that was asked for: programs make many of one after the
   other.  A class is marked when it is made, before it has any operation. */
static PyObject *operation_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    static PyObject *known; /* held, so that no other class is at this address */
    static uint32_t form, number;
    (void)arguments, (void)keywords; /* they are for __init__ */
    PyObject *self = PyType_GenericAlloc(type, 0), *before = NULL;
    if (self != NULL && (PyObject *)type != known) {
        before = known;
        known = class_look(type, &form, &number) ? Py_NewRef((PyObject *)type) : NULL;
        if (known == NULL)
            Py_CLEAR(self);
    }
    if (self != NULL) {
        ((struct operation *)self)->form = form;
        ((struct operation *)self)->kind = number;
    }
    Py_XDECREF(before); /* last: it may run anything */
    return self;
}

static PyMemberDef operation_members[] = {
    OBJECT("_entry", struct operation, entry),
    OBJECT("_outcome", struct operation, outcome),
    OBJECT("key", struct operation, key),
    {0},
};

COLLECTED(operation, struct operation, entry, 3)
static PyType_Slot operation_slots[] = {
    {Py_tp_new, operation_new},
    COLLECTED_SLOTS(operation),
    {0, NULL},
};
SPEC(operation, OperationFields, struct operation, Py_TPFLAGS_HAVE_GC);

/* Constructors.  The rule is that of Python's class, which Python has given away to this
   (`accelerator.construct`); it is asked where arguments have names, and by operations that
   are for Python. */
static int init_by_rule(PyObject *self, PyObject *arguments, PyObject *keywords)
{
    PyObject *rule = PyObject_GetAttrString(self, "_init_by_rule");
    PyObject *done = rule != NULL ? PyObject_Call(rule, arguments, keywords) : NULL;
    Py_XDECREF(rule);
    Py_XDECREF(done);
    return done != NULL ? 0 : -1;
}

static void field_set(PyObject **field, PyObject *value)
{
    PyObject *before = *field;
    *field = Py_NewRef(value);
    Py_XDECREF(before);
}

/* How many there are without a name; -1: it is for the rule. */
static Py_ssize_t arguments_count(PyObject *self, PyObject *arguments, PyObject *keywords)
{
    bool named = keywords != NULL && PyDict_Size(keywords) > 0;
    bool usual = !named && ((struct operation *)self)->form != FORM_OTHER;
    return usual ? PyTuple_Size(arguments) : -1;
}

/* (key, buffer, flags or offset = 0) */
static int transfer_init(PyObject *self, PyObject *arguments, PyObject *keywords)
{
    static PyObject *zero;
    struct transfer *transfer = (struct transfer *)self;
    Py_ssize_t count = arguments_count(self, arguments, keywords);
    if (count != 2 && count != 3)
        return init_by_rule(self, arguments, keywords);
    if (zero == NULL && (zero = PyLong_FromLong(0)) == NULL)
        return -1;
    field_set(&transfer->base.key, PyTuple_GetItem(arguments, 0));
    field_set(&transfer->buffer, PyTuple_GetItem(arguments, 1));
    field_set(&transfer->argument, count == 3 ? PyTuple_GetItem(arguments, 2) : zero);
    field_set(&transfer->base.entry, Py_None);
    return 0;
}

static void bare_set(PyObject *self, PyObject *key, PyObject *argument)
{
    struct bare *bare = (struct bare *)self;
    field_set(&bare->base.key, key);
    field_set(&bare->argument, argument);
    field_set(&bare->base.entry, Py_None);
}

/* (key, *, multishot = False) */
static int accept_init(PyObject *self, PyObject *arguments, PyObject *keywords)
{
    if (arguments_count(self, arguments, keywords) != 1)
        return init_by_rule(self, arguments, keywords);
    bare_set(self, PyTuple_GetItem(arguments, 0), Py_False);
    return 0;
}

/* (key, pool) */
static int pooled_init(PyObject *self, PyObject *arguments, PyObject *keywords)
{
    if (arguments_count(self, arguments, keywords) != 2)
        return init_by_rule(self, arguments, keywords);
    bare_set(self, PyTuple_GetItem(arguments, 0), PyTuple_GetItem(arguments, 1));
    return 0;
}

/* What `inspect` tells of them. */
#define SIGNATURE(Name, arguments) {Py_tp_doc, #Name "(" arguments ")\n--\n\nFields."}

/* ---- transfers ---- */

static PyMemberDef transfer_members[] = {OBJECT("buffer", struct transfer, buffer), {0}};

COLLECTED(transfer, struct transfer, base.entry, 5)
static PyType_Slot transfer_slots[] = {COLLECTED_SLOTS(transfer), {0, NULL}};
SPEC(transfer, TransferFields, struct transfer, Py_TPFLAGS_HAVE_GC);

/* The kinds inherit all that. */
#define KIND(lower, Name, argument_name)                                                       \
    static PyMemberDef lower##_members[] = {                                                   \
        OBJECT(argument_name, struct transfer, argument),                                      \
        {0},                                                                                   \
    };                                                                                         \
    static PyType_Slot lower##_slots[] = {                                                     \
        {Py_tp_members, lower##_members},                                                      \
        {Py_tp_init, transfer_init},                                                           \
        SIGNATURE(Name, "key, buffer, " argument_name "=0"),                                   \
        {0, NULL},                                                                             \
    };                                                                                         \
    SPEC(lower, Name, struct transfer, 0)

KIND(recv, RecvFields, "flags");
KIND(send, SendFields, "flags");
KIND(read, ReadFields, "offset");
KIND(write, WriteFields, "offset");

/* ---- accepts, and receives with a pool ---- */

#define BARE(lower, Name, argument_name, init, arguments)                                      \
    static PyMemberDef lower##_members[] = {                                                   \
        OBJECT(argument_name, struct bare, argument),                                          \
        {0},                                                                                   \
    };                                                                                         \
    COLLECTED(lower, struct bare, base.entry, 4)                                               \
    static PyType_Slot lower##_slots[] = {                                                     \
        COLLECTED_SLOTS(lower),                                                                \
        {Py_tp_init, init},                                                                    \
        SIGNATURE(Name, arguments),                                                            \
        {0, NULL},                                                                             \
    };                                                                                         \
    SPEC(lower, Name, struct bare, Py_TPFLAGS_HAVE_GC)

BARE(accept, AcceptFields, "multishot", accept_init, "key, *, multishot=False");
BARE(accept_key, AcceptKeyFields, "multishot", accept_init, "key, *, multishot=False");
BARE(pooled, RecvMultishotFields, "pool", pooled_init, "key, pool");
BARE(lent, RecvLentFields, "pool", pooled_init, "key, pool");

/* ---- pools ---- */

_Static_assert(offsetof(struct pool, keeper) - offsetof(struct pool, memory) ==
                   2 * sizeof(PyObject *),
               "three objects in a row");

static PyMemberDef pool_members[] = {
    OBJECT("_memory", struct pool, memory),
    OBJECT("_port", struct pool, port),
    OBJECT("_keeper", struct pool, keeper),
    {"size", T_PYSSIZET, offsetof(struct pool, size), 0, NULL},
    {"_address", T_ULONGLONG, offsetof(struct pool, address), 0, NULL},
    {0},
};

COLLECTED(pool, struct pool, memory, 3)
static PyType_Slot pool_slots[] = {COLLECTED_SLOTS(pool), {0, NULL}};
SPEC(pool, PoolFields, struct pool, Py_TPFLAGS_HAVE_GC);

/* ---- outcomes ---- */

_Static_assert(offsetof(struct outcome, last) - offsetof(struct outcome, nbytes) ==
                   2 * sizeof(PyObject *),
               "three objects in a row");

static PyMemberDef outcome_members[] = {
    OBJECT("nbytes", struct outcome, nbytes),
    OBJECT("value", struct outcome, value),
    OBJECT("last", struct outcome, last),
    {"error", T_LONGLONG, offsetof(struct outcome, error), 0, NULL},
    {"more", T_BOOL, offsetof(struct outcome, more), 0, NULL},
    {"queued", T_BOOL, offsetof(struct outcome, queued), 0, NULL},
    {0},
};

COLLECTED(outcome, struct outcome, nbytes, 3)
static PyType_Slot outcome_slots[] = {COLLECTED_SLOTS(outcome), {0, NULL}};
SPEC(outcome, OutcomeFields, struct outcome, Py_TPFLAGS_HAVE_GC);

/* ---- completions ---- */

_Static_assert(offsetof(struct completion, error) - offsetof(struct completion, operation) ==
                   4 * sizeof(PyObject *),
               "five objects in a row");

static PyMemberDef completion_members[] = {
    OBJECT("operation", struct completion, operation),
    OBJECT("key", struct completion, key),
    OBJECT("nbytes", struct completion, nbytes),
    OBJECT("_outcome", struct completion, outcome),
    OBJECT("_error", struct completion, error),
    {0},
};

static struct spares completions;

PyObject *completion_new(PyTypeObject *class)
{
    return spares_make(&completions, class);
}

static void completion_free(PyObject *self)
{
    spares_free(&completions, self);
}

COLLECTED_UNTIL(completion, struct completion, operation, 5, completion_free)
static PyType_Slot completion_slots[] = {COLLECTED_SLOTS(completion), {0, NULL}};
SPEC(completion, CompletionFields, struct completion, Py_TPFLAGS_HAVE_GC);

int fields_add(PyObject *module)
{
    operation_type = type_add(module, &operation_spec, NULL);
    pool_type = type_add(module, &pool_spec, NULL);
    completion_type = type_add(module, &completion_spec, NULL);
    outcome_type = type_add(module, &outcome_spec, NULL);
    if (operation_type == NULL || pool_type == NULL || completion_type == NULL ||
        outcome_type == NULL)
        return -1;
    transfer_type = type_add(module, &transfer_spec, operation_type);
    if (transfer_type == NULL)
        return -1;
    PyType_Spec *specs[] = {&recv_spec,   &send_spec,       &read_spec,  &write_spec,
                            &accept_spec, &accept_key_spec, &pooled_spec, &lent_spec};
    _Static_assert(sizeof specs / sizeof *specs == sizeof kinds / sizeof *kinds, "in one order");
    for (size_t at = 0; at < sizeof kinds / sizeof *kinds; at++) {
        bool is_transfer = kinds[at].form == FORM_TRANSFER;
        kinds[at].type = type_add(module, specs[at], is_transfer ? transfer_type : operation_type);
        if (kinds[at].type == NULL)
            return -1;
    }
    return 0;
}
