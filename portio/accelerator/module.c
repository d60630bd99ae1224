/* The extension itself: its types, and the methods that classes of Python get from it. */
#include "accelerator.h"

#include <string.h>

PyObject *array_type;
struct given given;
struct names name_of;

/* What Python calls the methods' arguments, for help() and inspect; and whose they are. */
static struct method {
    const char *signature;
    PyTypeObject **owner;
    PyMethodDef definition;
} methods[] = {
    {"($self, *operations, queued=True, quiet=False)",
     &port_type,
     {"submit", (PyCFunction)(void (*)(void))port_submit, METH_FASTCALL | METH_KEYWORDS, NULL}},
    {"($self, operation, /)", &port_type, {"_start", port_start, METH_O, NULL}},
    {"($self, handle, data=None)",
     &port_type,
     {"associate", (PyCFunction)(void (*)(void))port_associate, METH_FASTCALL | METH_KEYWORDS, NULL}},
    {"($self, out, token, nbytes, status, /)",
     &port_type,
     {"_take", (PyCFunction)(void (*)(void))port_take, METH_FASTCALL, NULL}},
    {"($self)", &key_type, {"close", key_close, METH_NOARGS, NULL}},
    {"($self)", &file_handle_type, {"fileno", handle_fileno, METH_NOARGS, NULL}},
    {"($self)", &completion_type, {"result", completion_result, METH_NOARGS, NULL}},
};

static struct property {
    PyTypeObject **owner;
    PyGetSetDef definition;
} properties[] = {
    {&operation_type, {"pending", operation_pending, NULL, NULL, NULL}},
};

/* A text for good, as the definition that refers to it. */
static const char *text_keep(PyObject *text)
{
    return text != NULL ? PyUnicode_AsUTF8AndSize(text, NULL) : NULL;
}

static bool is_for(PyTypeObject *class, PyTypeObject *owner)
{
    if (PyType_IsSubtype(class, owner))
        return true;
    PyErr_Format(PyExc_TypeError, "%R is no class for it", class);
    return false;
}

/* method(class, name, doc): the method or property of that name. */
static PyObject *method_make(PyObject *module, PyObject *arguments)
{
    (void)module;
    PyTypeObject *class;
    const char *name, *doc;
    if (!PyArg_ParseTuple(arguments, "O!sz", &PyType_Type, &class, &name, &doc))
        return NULL;
    if (doc == NULL)
        doc = "";
    for (size_t at = 0; at < sizeof methods / sizeof *methods; at++) {
        struct method *method = &methods[at];
        if (strcmp(method->definition.ml_name, name) != 0)
            continue;
        if (!is_for(class, *method->owner))
            return NULL;
        if (method->definition.ml_doc == NULL)
            method->definition.ml_doc = text_keep(
                PyUnicode_FromFormat("%s%s\n--\n\n%s", name, method->signature, doc));
        return method->definition.ml_doc != NULL ? PyDescr_NewMethod(class, &method->definition)
                                                 : NULL;
    }
    for (size_t at = 0; at < sizeof properties / sizeof *properties; at++) {
        struct property *property = &properties[at];
        if (strcmp(property->definition.name, name) != 0)
            continue;
        if (!is_for(class, *property->owner))
            return NULL;
        if (property->definition.doc == NULL)
            property->definition.doc = text_keep(PyUnicode_FromString(doc));
        return property->definition.doc != NULL ? PyDescr_NewGetSet(class, &property->definition)
                                                : NULL;
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

/* give(socket, detach, close, key, outcome, registry, refused, adopt) */
static PyObject *give(PyObject *module, PyObject *arguments)
{
    (void)module;
    PyObject *socket, *detach, *close, *key, *outcome, *registry, *refused, *adopt;
    if (!PyArg_ParseTuple(arguments, "O!OOO!O!O!O!O", &PyType_Type, &socket, &detach, &close,
                          &PyType_Type, &key, &PyType_Type, &outcome, registry_type, &registry,
                          &PyType_Type, &refused, &adopt))
        return NULL;
    if (!is_for((PyTypeObject *)key, key_type) || !is_for((PyTypeObject *)outcome, outcome_type))
        return NULL;
    given = (struct given){ /* once, and for good */
        .socket_class = (PyTypeObject *)Py_NewRef(socket),
        .socket_detach = Py_NewRef(detach),
        .socket_close = Py_NewRef(close),
        .key_class = (PyTypeObject *)Py_NewRef(key),
        .outcome_class = Py_NewRef(outcome),
        .registry = Py_NewRef(registry),
        .refused_class = (PyTypeObject *)Py_NewRef(refused),
        .adopt = Py_NewRef(adopt),
    };
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"give", give, METH_VARARGS, "Classes and objects of Python that C makes or uses."},
    {"lend", lend, METH_VARARGS, "The memory of a piece, and its loan."},
    {"mark", mark, METH_O, "A class of operations of which every one is for Python."},
    {"method", method_make, METH_VARARGS, "Makes a method or a property for a class."},
    {0},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "portio.accelerator._accelerator",
    .m_doc = "The hot path in C; portio.accelerator has the reasons.",
    .m_size = -1,
    .m_methods = functions,
};

static bool names_make(void)
{
    name_of.init = PyUnicode_InternFromString("__init__");
    bool made = name_of.init != NULL;
#define NAME(name) made = (name_of.name = PyUnicode_InternFromString(#name)) != NULL && made;
    NAMES(NAME)
#undef NAME
    return made;
}

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
    if (array_type == NULL || !names_make() || fields_add(module) < 0 || key_add(module) < 0 ||
        pin_add(module) < 0 || book_add(module) < 0 || accept_add(module) < 0 ||
        adopt_add(module) < 0 || handle_add(module) < 0 || loan_add(module) < 0 ||
        registry_add_types(module) < 0 || port_add(module) < 0) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
