/* The base types of operations, keys and completions: members that Python uses like
   slots, at places that C knows. */
#include "accelerator.h"

PyTypeObject *operation_type, *transfer_type, *key_type, *completion_type;

#define OBJECT(name, type, field) {name, T_OBJECT_EX, offsetof(type, field), 0, NULL}

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
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static PyObject *object_make(PyTypeObject *type)
{
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    return allocate(type, 0);
}

/* Arguments are for __init__. */
static PyObject *plain_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    (void)arguments, (void)keywords;
    return object_make(type);
}

/* ---- operations ---- */

static int operation_traverse(PyObject *self, visitproc visit, void *arg)
{
    struct operation *operation = (struct operation *)self;
    Py_VISIT(operation->entry);
    Py_VISIT(operation->outcome);
    Py_VISIT(operation->key);
    Py_VISIT(Py_TYPE(self));
    return 0;
}

static int operation_clear(PyObject *self)
{
    struct operation *operation = (struct operation *)self;
    Py_CLEAR(operation->entry);
    Py_CLEAR(operation->outcome);
    Py_CLEAR(operation->key);
    return 0;
}

static void operation_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    operation_clear(self);
    object_free(self);
}

static PyMemberDef operation_members[] = {
    OBJECT("_entry", struct operation, entry),
    OBJECT("_outcome", struct operation, outcome),
    OBJECT("key", struct operation, key),
    {0},
};

static PyType_Slot operation_slots[] = {
    {Py_tp_new, plain_new},
    {Py_tp_traverse, operation_traverse},
    {Py_tp_clear, operation_clear},
    {Py_tp_dealloc, operation_dealloc},
    {Py_tp_members, operation_members},
    {0, NULL},
};

#define FLAGS Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC

static PyType_Spec operation_spec = {
    .name = "portio.accelerator.OperationFields",
    .basicsize = sizeof(struct operation),
    .flags = FLAGS,
    .slots = operation_slots,
};

/* ---- transfers ---- */

static int transfer_traverse(PyObject *self, visitproc visit, void *arg)
{
    struct transfer *transfer = (struct transfer *)self;
    Py_VISIT(transfer->buffer);
    Py_VISIT(transfer->argument);
    return operation_traverse(self, visit, arg);
}

static int transfer_clear(PyObject *self)
{
    struct transfer *transfer = (struct transfer *)self;
    Py_CLEAR(transfer->buffer);
    Py_CLEAR(transfer->argument);
    return operation_clear(self);
}

static void transfer_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    transfer_clear(self);
    object_free(self);
}

/* One type for each kind. */
static struct kind {
    uint32_t number;
    PyTypeObject *type;
} kinds[] = {{PORTIO_RECV, NULL}, {PORTIO_SEND, NULL}, {PORTIO_READ, NULL}, {PORTIO_WRITE, NULL}};

/* The classes whose operations are for Python: a set, made when there is one. */
static PyObject *marked;

int class_mark(PyTypeObject *class)
{
    if (marked == NULL && (marked = PySet_New(NULL)) == NULL)
        return -1;
    return PySet_Add(marked, (PyObject *)class);
}

/* The kind is found by asking, since of several bases the one that gives a class its tp_new
   need not be the one that says what it is. */
static PyObject *transfer_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    PyObject *self = plain_new(type, arguments, keywords);
    int is_marked = marked != NULL && self != NULL ? PySet_Contains(marked, (PyObject *)type) : 0;
    if (is_marked < 0)
        Py_CLEAR(self);
    if (is_marked != 0)
        return self;
    for (size_t at = 0; self != NULL && at < sizeof kinds / sizeof *kinds; at++)
        if (PyType_IsSubtype(type, kinds[at].type))
            ((struct transfer *)self)->kind = kinds[at].number;
    return self;
}

#define TRANSFER(lower, Name, members)                                                         \
    static PyType_Slot lower##_slots[] = {                                                     \
        {Py_tp_new, transfer_new},                                                             \
        {Py_tp_traverse, transfer_traverse},                                                   \
        {Py_tp_clear, transfer_clear},                                                         \
        {Py_tp_dealloc, transfer_dealloc},                                                     \
        {Py_tp_members, members},                                                              \
        {0, NULL},                                                                             \
    };                                                                                         \
    static PyType_Spec lower##_spec = {                                                        \
        .name = "portio.accelerator." #Name "Fields",                                          \
        .basicsize = sizeof(struct transfer),                                                  \
        .flags = FLAGS,                                                                        \
        .slots = lower##_slots,                                                                \
    }

static PyMemberDef transfer_members[] = {
    OBJECT("buffer", struct transfer, buffer),
    {0},
};
static PyMemberDef flags_members[] = {OBJECT("flags", struct transfer, argument), {0}};
static PyMemberDef offset_members[] = {OBJECT("offset", struct transfer, argument), {0}};

TRANSFER(transfer, Transfer, transfer_members);
TRANSFER(recv, Recv, flags_members);
TRANSFER(send, Send, flags_members);
TRANSFER(read, Read, offset_members);
TRANSFER(write, Write, offset_members);

/* ---- keys ---- */

static int key_traverse(PyObject *self, visitproc visit, void *arg)
{
    struct key *key = (struct key *)self;
    Py_VISIT(key->port);
    Py_VISIT(key->number);
    Py_VISIT(Py_TYPE(self));
    return 0;
}

static int key_clear(PyObject *self)
{
    struct key *key = (struct key *)self;
    Py_CLEAR(key->port);
    Py_CLEAR(key->number);
    return 0;
}

static void key_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    key_clear(self);
    object_free(self);
}

static PyMemberDef key_members[] = {
    OBJECT("_port", struct key, port),
    OBJECT("_number", struct key, number),
    {"_descriptor", T_LONGLONG, offsetof(struct key, descriptor), 0, NULL},
    {"_id", T_ULONGLONG, offsetof(struct key, id), 0, NULL},
    {"_fits", T_UINT, offsetof(struct key, fits), 0, NULL},
    {"_family", T_INT, offsetof(struct key, family), 0, NULL},
    {"_closed", T_BOOL, offsetof(struct key, closed), 0, NULL},
    {"_message_based", T_BOOL, offsetof(struct key, message_based), 0, NULL},
    {0},
};

static PyType_Slot key_slots[] = {
    {Py_tp_new, plain_new},
    {Py_tp_traverse, key_traverse},
    {Py_tp_clear, key_clear},
    {Py_tp_dealloc, key_dealloc},
    {Py_tp_members, key_members},
    {0, NULL},
};

static PyType_Spec key_spec = {
    .name = "portio.accelerator.KeyFields",
    .basicsize = sizeof(struct key),
    .flags = FLAGS,
    .slots = key_slots,
};

/* ---- completions ---- */

static int completion_traverse(PyObject *self, visitproc visit, void *arg)
{
    struct completion *completion = (struct completion *)self;
    Py_VISIT(completion->operation);
    Py_VISIT(completion->key);
    Py_VISIT(completion->nbytes);
    Py_VISIT(completion->outcome);
    Py_VISIT(completion->error);
    Py_VISIT(Py_TYPE(self));
    return 0;
}

static int completion_clear(PyObject *self)
{
    struct completion *completion = (struct completion *)self;
    Py_CLEAR(completion->operation);
    Py_CLEAR(completion->key);
    Py_CLEAR(completion->nbytes);
    Py_CLEAR(completion->outcome);
    Py_CLEAR(completion->error);
    return 0;
}

static void completion_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    completion_clear(self);
    object_free(self);
}

static PyMemberDef completion_members[] = {
    OBJECT("operation", struct completion, operation),
    OBJECT("key", struct completion, key),
    OBJECT("nbytes", struct completion, nbytes),
    OBJECT("_outcome", struct completion, outcome),
    OBJECT("_error", struct completion, error),
    {0},
};

static PyType_Slot completion_slots[] = {
    {Py_tp_new, plain_new},
    {Py_tp_traverse, completion_traverse},
    {Py_tp_clear, completion_clear},
    {Py_tp_dealloc, completion_dealloc},
    {Py_tp_members, completion_members},
    {0, NULL},
};

static PyType_Spec completion_spec = {
    .name = "portio.accelerator.CompletionFields",
    .basicsize = sizeof(struct completion),
    .flags = FLAGS,
    .slots = completion_slots,
};

int fields_add(PyObject *module)
{
    operation_type = type_add(module, &operation_spec, NULL);
    key_type = type_add(module, &key_spec, NULL);
    completion_type = type_add(module, &completion_spec, NULL);
    if (operation_type == NULL || key_type == NULL || completion_type == NULL)
        return -1;
    transfer_type = type_add(module, &transfer_spec, operation_type);
    if (transfer_type == NULL)
        return -1;
    PyType_Spec *specs[] = {&recv_spec, &send_spec, &read_spec, &write_spec};
    for (size_t at = 0; at < sizeof kinds / sizeof *kinds; at++) {
        kinds[at].type = type_add(module, specs[at], transfer_type);
        if (kinds[at].type == NULL)
            return -1;
    }
    return 0;
}
