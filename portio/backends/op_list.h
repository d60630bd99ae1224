/* A doubly linked list of operations, of whichever engine: removal from the middle
   is O(1), which cancelling ten thousand of them needs.  Included after struct op is
   defined; it uses `next` and `previous`. */
#ifndef PORTIO_OP_LIST_H
#define PORTIO_OP_LIST_H

struct op_list {
    struct op *head;
    struct op *tail;
};

static inline void op_list_append(struct op_list *list, struct op *op)
{
    op->next = NULL;
    op->previous = list->tail;
    if (list->tail != NULL)
        list->tail->next = op;
    else
        list->head = op;
    list->tail = op;
}

static inline void op_list_prepend(struct op_list *list, struct op *op)
{
    op->previous = NULL;
    op->next = list->head;
    if (list->head != NULL)
        list->head->previous = op;
    else
        list->tail = op;
    list->head = op;
}

static inline void op_list_remove(struct op_list *list, struct op *op)
{
    if (op->previous != NULL)
        op->previous->next = op->next;
    else
        list->head = op->next;
    if (op->next != NULL)
        op->next->previous = op->previous;
    else
        list->tail = op->previous;
    op->next = op->previous = NULL;
}

static inline struct op *op_list_take(struct op_list *list)
{
    struct op *op = list->head;
    if (op != NULL)
        op_list_remove(list, op);
    return op;
}

#endif
