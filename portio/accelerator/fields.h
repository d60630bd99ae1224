/* What the types have in common whose fields Python uses like slots. */
#ifndef PORTIO_FIELDS_H
#define PORTIO_FIELDS_H

#include "accelerator.h"

#define OBJECT(name, type, field) {name, T_OBJECT_EX, offsetof(type, field), 0, NULL}

/* What the collector and the end need of a type whose objects, `count` of them, stand one
   after the other from the field `first` on. */
#define COLLECTED(lower, type, first, count)                                                   \
    COLLECTED_UNTIL(lower, type, first, count, object_free)
#define COLLECTED_UNTIL(lower, type, first, count, end)                                        \
    static PyObject **lower##_objects(PyObject *self)                                          \
    {                                                                                          \
        return (PyObject **)(void *)((char *)self + offsetof(type, first));                    \
    }                                                                                          \
    static int lower##_traverse(PyObject *self, visitproc visit, void *arg)                    \
    {                                                                                          \
        return objects_visit(self, lower##_objects(self), count, visit, arg);                  \
    }                                                                                          \
    static int lower##_clear(PyObject *self)                                                   \
    {                                                                                          \
        return objects_clear(lower##_objects(self), count);                                    \
    }                                                                                          \
    static void lower##_dealloc(PyObject *self)                                                \
    {                                                                                          \
        PyObject_GC_UnTrack(self);                                                             \
        lower##_clear(self);                                                                   \
        end(self);                                                                             \
    }

#define COLLECTED_SLOTS(lower)                                                                 \
    {Py_tp_traverse, lower##_traverse}, {Py_tp_clear, lower##_clear},                          \
        {Py_tp_dealloc, lower##_dealloc}, {Py_tp_members, lower##_members}

#define SPEC(lower, Name, type, extra)                                                         \
    static PyType_Spec lower##_spec = {                                                        \
        .name = "portio.accelerator." #Name,                                                   \
        .basicsize = sizeof(type),                                                             \
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | (extra),                           \
        .slots = lower##_slots,                                                                \
    }

#endif
