/* What a program asks of each operation and each completion: whether it is pending, and
   what came of it. */
#include "accelerator.h"

PyObject *operation_pending(PyObject *self, void *closure)
{
    (void)closure;
    PyObject *entry = ((struct operation *)self)->entry;
    if (entry == NULL) /* __init__ was not called: the rule says so */
        return PyObject_GetAttrString(self, "_entry");
    return PyBool_FromLong(entry != Py_None);
}

PyObject *completion_result(PyObject *self, PyObject *nothing)
{
    (void)nothing;
    struct completion *completion = (struct completion *)self;
    PyObject *outcome = completion->outcome;
    if (outcome == Py_None && completion->operation != NULL && completion->nbytes != NULL)
        return Py_NewRef(completion->operation != Py_None ? completion->nbytes : Py_None);
    /* A piece of a stream, or a connection. */
    if (outcome != NULL && (PyBytes_CheckExact(outcome) || PyMemoryView_Check(outcome) ||
                            PyObject_TypeCheck(outcome, key_type)))
        return Py_NewRef(outcome);
    if (outcome != NULL && PyObject_TypeCheck(outcome, outcome_type)) {
        struct outcome *known = (struct outcome *)outcome;
        if (known->error == 0 && known->value != NULL)
            return Py_NewRef(known->value);
    }
    return call_rule(self, "_result_by_rule", NULL, 0, NULL);
}
