/* Handles: the descriptors that belong to a port.

   A handle has two queues, one for each direction.  Every operation on the
   handle is on one of them from its start until it is complete.  On a stream
   (a stream socket or a pipe) only the head of a queue is issued, which gives
   contract O9; elsewhere operations are issued at once.  (In epoll.c those on a
   regular file are on neither: they have no order, and no event moves them.)

   Who may touch what
   - id, pending, dead: under the port's lock.  An id is checked when an
     operation is submitted; from then on `pending` keeps the record in place.
   - fd, closing, the queues and the engine's fields: under the engine's lock of
     the handle: the port's lock in io_uring.c, `lock` in epoll.c.  On a
     thread-bound port there is no lock: the owner alone comes here.
   - Lock order: a handle's lock, then the port's lock.

   A record is used again only when it is dead and nothing is pending, and then
   with another id: what is left of its former life can not match (K6). */
#ifndef PORTIO_HANDLE_H
#define PORTIO_HANDLE_H

#include <pthread.h>

#include "operation.h"

struct handle {
    uint64_t id;      /* index in the low 24 bits, life above; 0: closed */
    uint32_t index;
    uint32_t pending; /* operations from submit to completion, and visitors */
    struct handle *next_free;
    int fd;
    int type;         /* portio_handle_type */
    int family;
    uint64_t device;  /* which file fd was when it was associated … */
    uint64_t inode;   /* … for handle_is_same */
    bool dead;        /* give the record back when pending reaches 0 */
    bool closing;     /* operations that arrive now are cancelled */
    bool accepted;    /* by a listener of this port: type and family are the listener's */
    struct op_list queue[2];
    struct op *between; /* op_order.h */
    _Atomic bool nowait[2]; /* a file: preadv2, pwritev2 with RWF_NOWAIT may be tried */

    /* The epoll engine's (epoll_handle.c). */
    pthread_mutex_t lock;
    uint64_t event_id;       /* what events of this life carry; 0: none may match */
    uint32_t events;         /* asked of the epoll set; 0: it cannot be waited for */
    bool ready[2];           /* the next attempt may succeed */
    uint8_t short_receive;   /* what it tells (epoll.h) */
    bool unfinished;         /* on the engine's list (the port's lock) … */
    struct handle *next_unfinished;
    struct handle *previous_unfinished;
    bool in_memory;          /* a file whose bytes are always in memory */
    int original_flags;      /* of the open file, before we changed them; -1: we did not */
    _Atomic uint32_t uses;   /* who uses fd without the lock, and two marks */
};

#include "op_order.h"
#include "op_quiet.h"

struct handles {
    struct handle **chunks;
    uint32_t count;          /* records that exist */
    struct handle *free;
    uint64_t life;           /* the next id's upper part */
};

int handles_create(struct handles *handles);
void handles_destroy(struct handles *handles);
/* A record with a new id, or NULL when memory is exhausted. */
struct handle *handles_add(struct handles *handles);
struct handle *handles_at(struct handles *handles, uint32_t index);
struct handle *handles_find(struct handles *handles, uint64_t id);
void handles_remove(struct handles *handles, struct handle *handle);

/* What the descriptor is: fills type and family, unless they are known.  0 or -errno. */
int handle_inspect(struct handle *handle, int fd);

/* False when the number has become another file's: the program has closed it
   behind our back (K6). */
bool handle_is_same(const struct handle *handle);

/* True: completes without data once the stream is readable (a zero-byte
   receive, which IOCP servers use to wait without a buffer). */
bool op_is_readiness_probe(const struct op *op);

#endif
