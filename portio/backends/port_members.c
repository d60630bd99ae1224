/* Which thread belongs to which port, for the concurrency value (P4).

   A thread becomes a member of a port by its first get there and stays one
   until it ends, turns to another port, or the port closes: the rule of
   Windows.  `running` of a member says that it holds one of the port's places.

   A member's record is written by its own thread, except that a closing port
   detaches its members.  membership_lock makes the two exclude each other, so
   that no thread ever follows a pointer to a port that is gone.  It is taken
   only when a thread changes its port, ends, or a port closes. */
#include "port.h"

#include <stdlib.h>

struct member {
    portio_port *_Atomic port;
    struct member *next;
    struct member *previous;
    bool running;      /* under the lock of `port`, like what follows */
    bool has_heard;    /* of news, for which it has not come yet … */
    uint64_t heard;    /* … when port->rounds was this */
    bool late;         /* when it came it was too late, and has not waited since */
    uint32_t lineage;  /* fork_lineage when the record was made */
};

static pthread_mutex_t membership_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t ending;      /* its destructor runs when a thread ends */
static bool ending_works;
static _Atomic uint32_t fork_lineage;

static _Thread_local struct member *self;
static _Thread_local char mark;

const void *port_thread_mark(void)
{
    return &mark;
}

static void member_detach(struct member *member)
{
    portio_port *port = atomic_load(&member->port);
    if (port == NULL)
        return;
    port_lock(port);
    member_come(port, member);
    member_leave_place(port, member);
    port_balance(port);
    if (member->previous != NULL)
        member->previous->next = member->next;
    else
        port->members = member->next;
    if (member->next != NULL)
        member->next->previous = member->previous;
    atomic_store(&member->port, NULL);
    port_unlock(port);
}

static void thread_ended(void *argument)
{
    struct member *member = argument;
    /* In a forked child the port is the parent's: its lock may be held by a
       thread that does not exist here. */
    if (member->lineage == atomic_load(&fork_lineage)) {
        pthread_mutex_lock(&membership_lock);
        member_detach(member);
        pthread_mutex_unlock(&membership_lock);
    }
    self = NULL;
    free(member);
}

static void forked_child(void)
{
    atomic_fetch_add(&fork_lineage, 1);
    pthread_mutex_init(&membership_lock, NULL);
    self = NULL; /* the record stays with the parent's port */
}

static void prepare(void)
{
    ending_works = pthread_key_create(&ending, thread_ended) == 0 &&
                   pthread_atfork(NULL, NULL, forked_child) == 0;
}

void port_set_lineage(portio_port *port)
{
    pthread_once(&once, prepare);
    port->lineage = atomic_load(&fork_lineage);
}

bool port_is_inherited(const portio_port *port)
{
    return port->lineage != atomic_load(&fork_lineage);
}

struct member *port_member(portio_port *port)
{
    struct member *member = self;
    if (member != NULL && atomic_load_explicit(&member->port, memory_order_acquire) == port)
        return member;
    pthread_once(&once, prepare);
    if (!ending_works)
        return NULL;
    if (member == NULL) {
        member = calloc(1, sizeof *member);
        if (member == NULL)
            return NULL;
        if (pthread_setspecific(ending, member) != 0) {
            free(member);
            return NULL;
        }
        member->lineage = atomic_load(&fork_lineage);
        self = member;
    }
    pthread_mutex_lock(&membership_lock);
    member_detach(member);
    port_lock(port);
    if (!atomic_load(&port->closing)) {
        member->running = member->has_heard = member->late = false;
        member->previous = NULL;
        member->next = port->members;
        if (port->members != NULL)
            port->members->previous = member;
        port->members = member;
        atomic_store_explicit(&member->port, port, memory_order_release);
    }
    port_unlock(port);
    pthread_mutex_unlock(&membership_lock);
    return member;
}

bool member_leave_place(portio_port *port, struct member *member)
{
    if (member == NULL || !member->running || atomic_load(&member->port) != port)
        return false;
    member->running = false;
    port->running--;
    return true;
}

void member_come(portio_port *port, struct member *member)
{
    if (port->called == member)
        port->called = NULL;
    if (member != NULL)
        member->has_heard = false;
}

void member_hear(portio_port *port, struct member *member, bool comes)
{
    member->has_heard = true;
    member->heard = port->rounds;
    if (comes)
        port->called = member;
}

bool member_come_for(portio_port *port, struct member *member)
{
    member->late = member->has_heard && member->heard != port->rounds;
    return !member->late;
}

bool member_stands_back(const portio_port *port, const struct member *member)
{
    return member->late && port->running > 0;
}

void member_waits(struct member *member)
{
    member->late = false;
}

void member_take_place(portio_port *port, struct member *member)
{
    if (member == NULL || member->running || atomic_load(&member->port) != port)
        return;
    member->running = true;
    port->running++;
}

void port_members_drop(portio_port *port)
{
    pthread_mutex_lock(&membership_lock);
    port_lock(port);
    struct member *member = port->members;
    port->members = NULL;
    port->called = NULL;
    while (member != NULL) {
        struct member *next = member->next;
        member->next = member->previous = NULL;
        member->running = false;
        atomic_store(&member->port, NULL);
        member = next;
    }
    port->running = 0;
    port_unlock(port);
    pthread_mutex_unlock(&membership_lock);
}
