#include "spares.h"

#if defined(__SANITIZE_ADDRESS__)
#define HAS_SPARES false /* it is to find what is used after its end */
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAS_SPARES false
#endif
#endif
#ifndef HAS_SPARES
#define HAS_SPARES true
#endif

PyObject *spares_make(struct spares *spares, PyTypeObject *type)
{
    if (spares->type == NULL)
        spares->type = (PyTypeObject *)Py_NewRef((PyObject *)type);
    if (spares->count > 0 && spares->type == type)
        return PyObject_Init(spares->objects[--spares->count], type);
    PyObject *made = PyType_GenericAlloc(type, 0);
    if (made != NULL)
        PyObject_GC_UnTrack(made);
    return made;
}

void spares_free(struct spares *spares, PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    /* A finalizer is called once in an object's life, and that mark would outlive it: a program may
       give the class a __del__. */
    if (!HAS_SPARES || spares->type != type || spares->count == SPARES ||
        PyObject_GC_IsFinalized(self)) {
        object_free(self);
        return;
    }
    spares->objects[spares->count++] = self;
    Py_DECREF(type);
}
