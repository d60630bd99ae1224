/* The base type of keys. */
#include "fields.h"

PyTypeObject *key_type;

_Static_assert(offsetof(struct key, identity) - offsetof(struct key, port) ==
                   5 * sizeof(PyObject *),
               "six objects in a row");

static PyMemberDef key_members[] = {
    OBJECT("_port", struct key, port),
    OBJECT("_handle", struct key, handle),
    OBJECT("data", struct key, data),
    OBJECT("_accepting", struct key, accepting),
    OBJECT("_identity", struct key, identity),
    {"_descriptor", T_LONGLONG, offsetof(struct key, descriptor), 0, NULL},
    {"_id", T_ULONGLONG, offsetof(struct key, id), 0, NULL},
    {"_fits", T_UINT, offsetof(struct key, fits), 0, NULL},
    {"_family", T_INT, offsetof(struct key, family), 0, NULL},
    {"_closed", T_BOOL, offsetof(struct key, closed), 0, NULL},
    {"_message_based", T_BOOL, offsetof(struct key, message_based), 0, NULL},
    {0},
};

/* What a connection that came with its key has only when somebody asks for it (keys.py). */
static struct absent {
    const char *name;
    size_t offset;
} handle_field = {"handle", offsetof(struct key, handle)},
  number_field = {"_number", offsetof(struct key, number)};

static PyObject **absent_place(PyObject *self, const struct absent *field)
{
    return (PyObject **)(void *)((char *)self + field->offset);
}

static PyObject *absent_get(PyObject *self, void *closure)
{
    PyObject *value = *absent_place(self, closure);
    return value != NULL ? Py_NewRef(value)
                         : PyObject_CallMethod(self, "_absent", "s",
                                               ((const struct absent *)closure)->name);
}

static int absent_set(PyObject *self, PyObject *value, void *closure)
{
    PyObject **place = absent_place(self, closure), *before = *place;
    if (value == NULL && before == NULL) {
        PyErr_SetString(PyExc_AttributeError, ((const struct absent *)closure)->name);
        return -1;
    }
    *place = Py_XNewRef(value);
    Py_XDECREF(before); /* last: it may run anything */
    return 0;
}

static PyGetSetDef key_properties[] = {
    {"handle", absent_get, absent_set, NULL, &handle_field},
    {"_number", absent_get, absent_set, NULL, &number_field},
    {0},
};

/* A key that was closed, as most are, has nothing to give back. */
static void key_finalize(PyObject *self)
{
    const struct key *key = (struct key *)self;
    PyObject *kind, *value, *trace;
    if (key->port == NULL || key->port == Py_None)
        return;
    PyErr_Fetch(&kind, &value, &trace);
    PyObject *rule = PyObject_GetAttrString((PyObject *)Py_TYPE(self), "_dropped");
    PyObject *told = rule != NULL ? PyObject_CallFunctionObjArgs(rule, self, NULL) : NULL;
    if (told == NULL)
        PyErr_WriteUnraisable(rule); /* not the key, which somebody might keep */
    Py_XDECREF(told);
    Py_XDECREF(rule);
    PyErr_Restore(kind, value, trace);
}

COLLECTED(key, struct key, port, 6)
static PyType_Slot key_slots[] = {
    COLLECTED_SLOTS(key),
    {Py_tp_getset, key_properties},
    {Py_tp_finalize, key_finalize},
    {0, NULL},
};
SPEC(key, KeyFields, struct key, Py_TPFLAGS_HAVE_GC);

int key_add(PyObject *module)
{
    key_type = type_add(module, &key_spec, NULL);
    return key_type != NULL ? 0 : -1;
}

bool key_is_bare(const struct key *key)
{
    return key->handle == NULL && key->number == NULL && key->port != NULL &&
           key->port != Py_None && key->accepting != NULL && PyTuple_Check(key->accepting) &&
           PyTuple_Size(key->accepting) == FORM_SIZE; /* more: it is being made */
}

bool key_ask(struct key *key, long long *number)
{
    PyObject *getter = key->number;
    if (getter == NULL) {
        *number = key->descriptor;
        return key_is_bare(key);
    }
    Py_INCREF(getter); /* another thread may change the field meanwhile */
    PyObject *object = PyObject_CallNoArgs(getter);
    Py_DECREF(getter);
    if (object == NULL)
        return false;
    bool is_number = PyLong_Check(object);
    *number = is_number ? PyLong_AsLongLong(object) : -1;
    Py_DECREF(object);
    if (is_number && *number == -1)
        PyErr_Clear(); /* too large, if it is an error: no handle has it */
    return is_number;
}
