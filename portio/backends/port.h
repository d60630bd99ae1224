/* The emulated port object: what io_uring and epoll share and Windows has in
   its kernel.  A FIFO of packets, a LIFO stack of waiting threads, the
   concurrency value, posting, unqueued operations, closing.

   Who drives the engine.  At most one thread at a time, the *reaper*, waits in
   the system (engine_wait).  Every other waiting thread sleeps on a futex word
   of its own.  A thread that asks for a packet, finds none and sees no reaper
   becomes the reaper, and keeps its place in the stack: it has the role as well
   as the place.  Whoever leaves the role, or changes `running`, calls
   port_balance, which hands queued packets to the newest waiters (P3) while
   `running` is below the concurrency value (P4), and appoints a reaper when
   there is a waiter who could run and nobody looks at the system.  At the cap
   nobody needs to look: the running threads harvest in their next get.

   A packet is handed to a chosen waiter under the lock (waiter->granted), so it
   can be neither stolen nor lost to a time-out: a waiter that leaves for
   whatever reason takes what it was granted.

   Who only asks for news (portio_get with the limit 0) is not handed a packet but
   *called*: it has still to come for it, and who comes first takes it.  As long as one
   that was called is on its way no other is called: it may have to wait for Python's
   lock, and then more of them would only wait for the same.  A member that was called
   has come with its next call for packets or for an operation, or when it leaves.  If others
   have taken packets meanwhile it has come too late (PORTIO_AS_CALLED): whoever had the lock
   all the time looks after the packets, and has some in hand that lie until it has the lock
   again.  So who is too late takes nothing, and for a while is not called as long as anybody
   runs.  Who does not come back to the port is not waited for: it has taken nothing since.

   Locks, in this order:
     1. membership_lock (port_members.c), process-wide: which port a thread
        belongs to.
     2. handle->lock (epoll.c).
     3. port->lock: everything in struct portio_port that is not marked
        otherwise, the packet queue, the waiters, op->token, handle->id.
     4. the engine's own small locks (message inbox, helper threads' queue).
   No lock is held across a wait.  A thread-bound port has no lock: its owner
   alone touches it; other threads leave messages in `inbox`, under inbox_lock,
   and wake the owner. */
#ifndef PORTIO_PORT_H
#define PORTIO_PORT_H

#include <pthread.h>

#include "handle.h"
#include "operation.h"
#include "slots.h"

struct engine; /* io_uring.c, epoll.c */

struct waiter {
    struct waiter *below; /* the stack of port_get; a list for the others */
    struct waiter *above;
    struct op *granted;   /* a packet handed over, taken out of the queue */
    _Atomic uint32_t word; /* futex: 0 sleeping, 1 woken */
    struct member *member; /* whose place a granted packet takes; NULL: none */
    bool stacked;          /* in the stack */
    bool asks;             /* for news only: it is called, and nothing is granted */
    bool called;
    bool stands_back;      /* not called while others run */
};

#define PORT_WAKES 8

struct member; /* port_members.c: one thread's membership in a port */

struct portio_port {
    /* Set before anybody else sees the port. */
    bool thread_bound;
    bool lazy_submit;
    uint32_t concurrency;
    uint64_t main_thread;       /* port_interrupt.c; 0: unknown */
    uint32_t lineage;           /* port_members.c: of the process that made it */
    struct engine *engine;
    _Atomic(const void *) owner; /* thread-bound: port_thread_mark() of the owner */

    pthread_mutex_t lock;
    _Atomic bool closing;       /* also read without the lock, as a hint */
    _Atomic uint32_t closed_word; /* futex: 1 when the engine is gone */
    bool notifying;             /* portio_fileno was called */
    bool notified;              /* engine_notify was called since engine_unnotify */
    struct slots slots;
    struct handles handles;
    uint32_t active;            /* operations between submit and completion, and requests
                                   that the system goes on with by itself */
    _Atomic uint32_t users;     /* calls that may be in the engine without the lock */
    struct op_list packets;
    struct member *called;      /* who was called and has not come yet */
    uint32_t grants;            /* waiters with a packet, or called, that have yet to wake up */
    struct waiter *top;         /* newest waiter of port_get */
    struct waiter *others;      /* threads in portio_wait and portio_port_close */
    struct waiter *reaper;
    bool reaper_waits;          /* the reaper is inside engine_wait … */
    const void *reaper_thread;  /* … in this thread */
    uint32_t running;           /* threads between taking a packet and the next get */
    uint32_t unasked;           /* gets since somebody asked the system */
    uint64_t rounds;            /* gets that took packets, ever */
    struct member *members;
    int interrupt_fd;           /* readable: a signal has come; -1: not watched */
    int park_fd;                /* the listener sleeps on it; -1: on its futex */
    struct waiter *listener;    /* the main thread, when signals end its wait */
    bool interrupted;           /* interrupt_fd became readable; the listener's news */
    _Atomic uint32_t *wakes[PORT_WAKES]; /* futex words to wake after unlocking */
    uint32_t wake_count;
    bool wake_reaper;

    /* A thread-bound port's mail from other threads. */
    pthread_mutex_t inbox_lock;
    uint64_t *inbox;
    uint32_t inbox_count;
    uint32_t inbox_room;
    bool inbox_closed;
    portio_pool *returning; /* pools with buffers that are on their way back */
    _Atomic bool inbox_full; /* something is in there; a hint, read without lock */
};

/* Locking and leaving: port_unlock carries out the wake-ups that were decided
   under the lock. */
void port_lock(portio_port *port);
void port_unlock(portio_port *port);

/* The operation has left the engine with op->error and op->nbytes. */
void port_complete(portio_port *port, struct op *op);
void port_complete_locked(portio_port *port, struct op *op);
/* Ends an operation that the engine refuses to carry on. */
void port_complete_error(portio_port *port, struct op *op, int error);

int64_t monotonic_now(void);

/* How a sleep ended. */
enum futex_result { FUTEX_WOKEN, FUTEX_TIMED_OUT, FUTEX_SIGNALLED };

/* port_members.c: who belongs to which port, for the concurrency value. */
const void *port_thread_mark(void);              /* the same for each call of a thread */
void port_set_lineage(portio_port *port);        /* the port is this process's … */
bool port_is_inherited(const portio_port *port); /* … and this is a forked child of it */
struct member *port_member(portio_port *port);    /* joins; NULL: no memory */
bool member_leave_place(portio_port *port, struct member *member); /* lock held */
void member_take_place(portio_port *port, struct member *member);  /* lock held */
void member_come(portio_port *port, struct member *member);        /* lock held */
/* It has heard of packets, and perhaps is on its way; lock held. */
void member_hear(portio_port *port, struct member *member, bool comes);
/* It comes for what it has heard of, and its place is free.  False: it is too late, because
   others have taken packets since; lock held. */
bool member_come_for(portio_port *port, struct member *member);
/* Whether it was too late, and lets those run who have packets in hand; lock held. */
bool member_stands_back(const portio_port *port, const struct member *member);
void member_waits(struct member *member); /* it has begun to; lock held */
void port_members_drop(portio_port *port);        /* the port closes */

/* port_queue.c: packets and waiters; the lock is held for all of them. */
void port_queue_packet(portio_port *port, struct op *op);
void port_balance(portio_port *port);
/* Whether it would only wait for the lock that others need: somebody who was called is on his
   way, and will look at the system as well; or those who run are to be let alone. */
bool port_spares(const portio_port *port, const struct waiter *waiter);
void port_stack_remove(portio_port *port, struct waiter *waiter); /* of port_get; if it is there */
void port_wake_waiter(portio_port *port, struct waiter *waiter);
void port_wake_reaper(portio_port *port);

/* port_handles.c: one of handle->pending is gone, and the record with the last. */
void port_handle_leave_locked(portio_port *port, struct handle *handle);

/* port_inbox.c: mail for the owner of a thread-bound port. */
int port_inbox_put(portio_port *port, uint64_t message); /* any thread; wakes the owner */
void port_inbox_read(portio_port *port);                 /* the owner */
void port_inbox_close(portio_port *port);
void port_inbox_tell(portio_port *port); /* there is something in it; inbox_lock held */
#define INBOX_CANCEL (UINT64_C(1) << 63) /* token | INBOX_CANCEL; a bare token is a post */

/* port_pool.c: buffers that other threads than the owner have given back. */
void port_returned_read(portio_port *port); /* the owner */
void port_returned_drop(portio_port *port); /* the port closes, and nobody puts any there */

/* port_wait.c: threads that wait. */
bool port_drive(portio_port *port, struct waiter *me, int64_t deadline);
void port_wait_idle(portio_port *port);
void port_wait_closed(portio_port *port);

/* port_interrupt.c: signals end the main thread's wait.  The lock is held for all
   but port_in_main_thread; port_park_close is called when nobody waits, too. */
bool port_in_main_thread(const portio_port *port);
bool port_listen(portio_port *port, int64_t descriptor, struct waiter *me);
bool port_heard(portio_port *port, const struct waiter *me);
void port_unlisten(portio_port *port, const struct waiter *me);
void port_interrupt(portio_port *port); /* the descriptor has become readable */
bool port_unpark(portio_port *port, const struct waiter *waiter); /* true: it is awake */
enum futex_result port_park(portio_port *port, struct waiter *me, int64_t deadline);
void port_park_close(portio_port *port);

/* port.c: the door.  Between port_enter and port_leave the engine stays open. */
int port_enter(portio_port *port); /* 0 or PORTIO_WRONG_THREAD */
void port_leave(portio_port *port);
bool port_is_owner(const portio_port *port);
void port_cancel_token(portio_port *port, uint64_t token);
void port_queue_post(portio_port *port, uint64_t token); /* lock held */

/* futex.c */
enum futex_result futex_wait(_Atomic uint32_t *word, uint32_t expected, int64_t deadline);
void futex_wake(_Atomic uint32_t *word);

#endif
