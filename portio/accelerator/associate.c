/* `Port.associate` of a socket that nobody knows yet, which is every connection that a server
   accepts (port.py has the rule, registry.py the books). */
#include "attach.h"

/* False: it is for the rule, which also raises what there is to raise. */
static bool plan_make(struct attachment *plan)
{
    plan->getter = PyObject_GetAttr(plan->handle, name_of.fileno);
    plan->descriptor = plan->getter != NULL ? PyObject_CallNoArgs(plan->getter) : NULL;
    if (plan->descriptor == NULL || !PyLong_CheckExact(plan->descriptor))
        return false;
    int overflow;
    plan->number = PyLong_AsLongLongAndOverflow(plan->descriptor, &overflow);
    return overflow == 0 && plan->number >= 0;
}

static enum attached associate_socket(PyObject *self, PyObject *handle, PyObject *data,
                                      PyObject **key)
{
    struct attachment plan = {.handle = handle, .data = data, .accepting = Py_None};
    enum attached result = plan_make(&plan) ? attachment_enter(self, &plan) : ATTACHED_BY_RULE;
    if (result == ATTACHED)
        *key = Py_NewRef(plan.key);
    attachment_drop(&plan);
    return result;
}

static bool is_true(PyObject *self, PyObject *name)
{
    PyObject *object = PyObject_GetAttr(self, name);
    bool answer = object == NULL || PyObject_IsTrue(object) != 0;
    Py_XDECREF(object);
    return answer;
}

PyObject *port_associate(PyObject *self, PyObject *const *arguments, Py_ssize_t count,
                         PyObject *names)
{
    struct port *port = (struct port *)self;
    Py_ssize_t named = names != NULL ? PyTuple_Size(names) : 0;
    PyObject *data = Py_None;
    bool usual = given.registry != NULL && port->native != NULL && count >= 1 &&
                 count + named <= 2 &&
                 PyObject_TypeCheck(arguments[0], given.socket_class) &&
                 (named == 0 ||
                  PyUnicode_CompareWithASCIIString(PyTuple_GetItem(names, 0), "data") == 0);
    if (usual && count + named == 2)
        data = arguments[1];
    if (usual && !is_true(self, name_of._orphans)) {
        PyObject *key = NULL;
        enum attached result = associate_socket(self, arguments[0], data, &key);
        if (result != ATTACHED_BY_RULE)
            return key;
    }
    if (!error_drop())
        return NULL;
    return call_rule(self, "_associate_by_rule", arguments, count, names);
}
