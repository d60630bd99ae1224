/* What the registry consists of (registry.py): its lock, its entries, and the ground of the
   registry itself, whose books C reaches without asking. */
#include "registry.h"

PyTypeObject *registry_type;

/* ---- the lock ---- */

/* A threading.RLock that tells, to who has the GIL, whether anybody holds it. */
struct guard {
    PyObject_HEAD
    PyObject *lock;
    unsigned long depth; /* how often it is held */
};

static PyTypeObject *guard_type;

static PyObject *guard_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    (void)arguments, (void)keywords;
    PyObject *threads = PyImport_ImportModule("_thread");
    PyObject *lock = threads != NULL ? PyObject_CallMethod(threads, "RLock", NULL) : NULL;
    Py_XDECREF(threads);
    PyObject *self = lock != NULL ? PyType_GenericAlloc(type, 0) : NULL;
    if (self == NULL)
        Py_XDECREF(lock);
    else
        ((struct guard *)self)->lock = lock;
    return self;
}

static void guard_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_XDECREF(((struct guard *)self)->lock);
    PyObject_Free(self);
    Py_DECREF(type);
}

/* Nothing comes between the lock and the count: no signal handler runs in here. */
static PyObject *guard_acquire(PyObject *self, PyObject *arguments)
{
    struct guard *guard = (struct guard *)self;
    PyObject *acquire = PyObject_GetAttr(guard->lock, name_of.acquire);
    PyObject *taken = acquire != NULL ? PyObject_Call(acquire, arguments, NULL) : NULL;
    Py_XDECREF(acquire);
    if (taken == Py_True)
        guard->depth++;
    return taken;
}

static PyObject *guard_release(PyObject *self, PyObject *arguments)
{
    (void)arguments;
    struct guard *guard = (struct guard *)self;
    PyObject *done = PyObject_CallMethodObjArgs(guard->lock, name_of.release, NULL);
    if (done != NULL)
        guard->depth--;
    return done;
}

static PyObject *guard_enter(PyObject *self, PyObject *nothing)
{
    (void)nothing;
    PyObject *arguments = PyTuple_New(0);
    PyObject *taken = arguments != NULL ? guard_acquire(self, arguments) : NULL;
    Py_XDECREF(arguments);
    return taken;
}

static PyMethodDef guard_methods[] = {
    {"acquire", guard_acquire, METH_VARARGS, "As of a threading.RLock."},
    {"release", guard_release, METH_NOARGS, "As of a threading.RLock."},
    {"__enter__", guard_enter, METH_NOARGS, "Acquires it."},
    {"__exit__", guard_release, METH_VARARGS, "Releases it."},
    {0},
};

static PyType_Slot guard_slots[] = {
    {Py_tp_new, guard_new},
    {Py_tp_dealloc, guard_dealloc},
    {Py_tp_methods, guard_methods},
    {0, NULL},
};

static PyType_Spec guard_spec = {
    .name = "portio.accelerator.Guard",
    .basicsize = sizeof(struct guard),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = guard_slots,
};

bool guard_is_free(PyObject *guard)
{
    return guard != NULL && Py_TYPE(guard) == guard_type && ((struct guard *)guard)->depth == 0;
}

/* ---- an entry ---- */

/* A weak reference to a key, and what its descriptor meant then: no part of any cycle, and
   unknown to the collector. */
struct entry {
    PyObject_HEAD
    PyObject *key;
    PyObject *identity;
};

static PyTypeObject *entry_type;

PyObject *entry_make(PyObject *key)
{
    PyObject *reference = PyWeakref_NewRef(key, NULL);
    struct entry *entry = reference != NULL ? PyObject_New(struct entry, entry_type) : NULL;
    if (entry == NULL) {
        Py_XDECREF(reference);
        return NULL;
    }
    entry->key = reference;
    entry->identity = NULL;
    return (PyObject *)entry;
}

bool entry_is(PyObject *entry)
{
    return Py_TYPE(entry) == entry_type;
}

void entry_set_identity(PyObject *entry, PyObject *identity)
{
    struct entry *self = (struct entry *)entry;
    PyObject *before = self->identity;
    self->identity = Py_NewRef(identity);
    Py_XDECREF(before);
}

PyObject *entry_identity(PyObject *entry)
{
    return ((struct entry *)entry)->identity;
}

bool entry_means(PyObject *entry, PyObject *key)
{
    return PyWeakref_GetObject(((struct entry *)entry)->key) == key;
}

static PyObject *entry_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    (void)type, (void)keywords;
    PyObject *key;
    return PyArg_ParseTuple(arguments, "O", &key) ? entry_make(key) : NULL;
}

static PyObject *entry_call(PyObject *self, PyObject *arguments, PyObject *keywords)
{
    (void)arguments, (void)keywords;
    return Py_NewRef(PyWeakref_GetObject(((struct entry *)self)->key));
}

static void entry_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_XDECREF(((struct entry *)self)->key);
    Py_XDECREF(((struct entry *)self)->identity);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyMemberDef entry_members[] = {
    {"identity", T_OBJECT_EX, offsetof(struct entry, identity), 0, NULL},
    {0},
};

static PyType_Slot entry_slots[] = {
    {Py_tp_new, entry_new},         {Py_tp_call, entry_call},
    {Py_tp_dealloc, entry_dealloc}, {Py_tp_members, entry_members},
    {0, NULL},
};

static PyType_Spec entry_spec = {
    .name = "portio.accelerator.Entry",
    .basicsize = sizeof(struct entry),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = entry_slots,
};

/* ---- the registry ---- */

#define OBJECTS 3

_Static_assert(offsetof(struct registry, sockets) - offsetof(struct registry, lock) ==
                   (OBJECTS - 1) * sizeof(PyObject *),
               "three objects in a row");

static int registry_traverse(PyObject *self, visitproc visit, void *arg)
{
    return objects_visit(self, &((struct registry *)self)->lock, OBJECTS, visit, arg);
}

static int registry_clear(PyObject *self)
{
    return objects_clear(&((struct registry *)self)->lock, OBJECTS);
}

static void registry_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    registry_clear(self);
    object_free(self);
}

static PyMemberDef registry_members[] = {
    {"lock", T_OBJECT_EX, offsetof(struct registry, lock), 0, NULL},
    {"entries", T_OBJECT_EX, offsetof(struct registry, entries), 0, NULL},
    {"sockets", T_OBJECT_EX, offsetof(struct registry, sockets), 0, NULL},
    {0},
};

static PyType_Slot registry_slots[] = {
    {Py_tp_traverse, registry_traverse},
    {Py_tp_clear, registry_clear},
    {Py_tp_dealloc, registry_dealloc},
    {Py_tp_members, registry_members},
    {0, NULL},
};

static PyType_Spec registry_spec = {
    .name = "portio.accelerator.RegistryFields",
    .basicsize = sizeof(struct registry),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = registry_slots,
};

int registry_add_types(PyObject *module)
{
    guard_type = type_add(module, &guard_spec, NULL);
    entry_type = type_add(module, &entry_spec, NULL);
    registry_type = type_add(module, &registry_spec, NULL);
    return guard_type != NULL && entry_type != NULL && registry_type != NULL ? 0 : -1;
}
