/* The extension itself: its types, and the methods that classes of Python get from it. */
#include "accelerator.h"

#include <string.h>

PyObject *array_type;

/* What Python calls the methods' arguments, for help() and inspect. */
static struct method {
    const char *signature;
    PyMethodDef definition;
} methods[] = {
    {"($self, *operations, queued=True, quiet=False)",
     {"submit", (PyCFunction)(void (*)(void))port_submit, METH_FASTCALL | METH_KEYWORDS, NULL}},
    {"($self, operation, /)", {"_start", port_start, METH_O, NULL}},
    {"($self, out, token, nbytes, status, /)",
     {"_take", (PyCFunction)(void (*)(void))port_take, METH_FASTCALL, NULL}},
};

/* method(class, name, doc): the method of that name, for a class of ports. */
static PyObject *method_make(PyObject *module, PyObject *arguments)
{
    (void)module;
    PyTypeObject *class;
    const char *name, *doc;
    if (!PyArg_ParseTuple(arguments, "O!sz", &PyType_Type, &class, &name, &doc))
        return NULL;
    if (!PyType_IsSubtype(class, port_type))
        return PyErr_Format(PyExc_TypeError, "%R is no class of ports", class);
    for (size_t at = 0; at < sizeof methods / sizeof *methods; at++) {
        struct method *method = &methods[at];
        if (strcmp(method->definition.ml_name, name) != 0)
            continue;
        if (method->definition.ml_doc == NULL) {
            PyObject *text = PyUnicode_FromFormat("%s%s\n--\n\n%s", name, method->signature,
                                                  doc != NULL ? doc : "");
            if (text == NULL)
                return NULL;
            /* For good, as the definition that refers to it. */
            method->definition.ml_doc = PyUnicode_AsUTF8AndSize(text, NULL);
            if (method->definition.ml_doc == NULL)
                return NULL;
        }
        return PyDescr_NewMethod(class, &method->definition);
    }
    return PyErr_Format(PyExc_ValueError, "there is no method %s", name);
}

/* mark(class) */
static PyObject *mark(PyObject *module, PyObject *class)
{
    (void)module;
    if (!PyType_Check(class))
        return PyErr_Format(PyExc_TypeError, "%R is no class", class);
    if (class_mark((PyTypeObject *)class) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"mark", mark, METH_O, "A class of operations of which every one is for Python."},
    {"method", method_make, METH_VARARGS, "Makes a method for a class of ports."},
    {0},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "portio.accelerator._accelerator",
    .m_doc = "The hot path in C; portio.accelerator has the reasons.",
    .m_size = -1,
    .m_methods = functions,
};

PyMODINIT_FUNC PyInit__accelerator(void);
PyMODINIT_FUNC PyInit__accelerator(void)
{
    PyObject *module = PyModule_Create(&definition);
    if (module == NULL)
        return NULL;
    PyObject *arrays = PyImport_ImportModule("array");
    if (arrays != NULL)
        array_type = PyObject_GetAttrString(arrays, "array");
    Py_XDECREF(arrays);
    if (array_type == NULL || fields_add(module) < 0 || pin_add(module) < 0 ||
        port_add(module) < 0) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
