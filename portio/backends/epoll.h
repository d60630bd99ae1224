/* The epoll engine, inside: readiness turned into completion.

   epoll.c           the engine's functions (engine.h): open, start, wait, close
   epoll_handle.c    a handle in the epoll set: its queues, its end
   epoll_io.c        one attempt at an operation on a socket or a pipe
   epoll_sendfile.c  one attempt at SendFile
   epoll_file.c      operations on regular files
   epoll_helper.c    the helper threads, for what may sleep
   epoll_timer.c     the timer heap and its timerfd
   epoll_nowait.c    calls that neither sleep nor raise SIGPIPE
   epoll_feature.c   what the kernel can do

   Try first.  An operation is attempted in the thread that starts it, when it
   is its turn and handle->ready says that an attempt may succeed.  EAGAIN
   clears `ready`; the descriptor has been in the epoll set, edge-triggered,
   since before the attempt, so whatever happens after the EAGAIN makes a new
   event.  The event sets `ready` again, and the reaper attempts what is queued
   until EAGAIN or until the queue is empty.  An edge is told once: `ready` is
   the memory of it, and is cleared by nothing but an attempt that found
   nothing.

   Nobody has the engine for himself.  Each visit of a handle has a budget of
   attempts; what is left then is on the list of unfinished handles, which the
   next engine_wait visits before it would sleep.  Between two engine_waits the
   starters have a budget too (`inline_budget`): a peer that always has data
   would else complete each operation at its start, the packet queue would
   never run dry, and nobody would ask epoll about the other handles.

   Order and locks.  A handle's queues and `ready` belong to handle->lock, which
   is held during an attempt and while the completion is queued: so the
   completions of one direction are queued in order.  The lock is no obstacle,
   because attempts never sleep.  What may sleep goes to a helper thread, which
   takes no lock but the helpers' own and touches nothing but the operation: the
   port may be thread-bound.  Regular files have neither order nor readiness and
   use no handle lock: the helpers' lock and handle->uses are enough, so that
   engine_harvest can complete them under the port's lock.

   A record of a handle never leaves its address, so its lock may be taken on
   the strength of an event that is older than the record's present life; the
   event_id, checked under the lock, tells (K6).  Whoever holds the lock and has
   seen the id, or an operation on its queue, may use the record until the
   unlock: closing and releasing take the lock before the record can have
   another life.

   After a fork the child has no helper threads and shares the epoll set; it
   never gets here, because the Python layer refuses every call (P10). */
#ifndef PORTIO_EPOLL_H
#define PORTIO_EPOLL_H

#include <sys/epoll.h>

#include "engine.h"
#include "transfer.h"

/* ---- epoll_feature.c ---- */

enum epoll_feature {
    FEATURE_PWAIT2,    /* epoll_pwait2: time-outs in nanoseconds */
    FEATURE_NOWAIT,    /* preadv2, pwritev2: RWF_NOWAIT */
    FEATURE_NOSIGNAL,  /* pwritev2: RWF_NOSIGNAL */
    FEATURE_SENDFILE,  /* sendfile(2) */
    FEATURE_COUNT
};

uint64_t epoll_features(const portio_options *options);

static inline bool epoll_has(uint64_t features, enum epoll_feature feature)
{
    return (features >> feature & 1) != 0;
}

/* ---- the engine ---- */

/* What an event carries when it is no handle's; ids of handles are larger. */
#define EVENT_WAKE 1
#define EVENT_TIMER 2
#define EVENT_NOTIFY 3
#define EVENT_INTERRUPT 4

/* Events taken in one call.  What the operations of one round receive is used when the round
   is over: 32 times 16 KiB are in the cache then, 256 times are not, and cost a fifth more. */
#define EVENTS_MOST 32
#define HANDLE_BUDGET 32     /* attempts in one visit of a handle */
#define INLINE_BUDGET 1024   /* attempts of starters between two engine_waits */

struct timers {
    pthread_mutex_t lock; /* one of the small locks: level 4 of port.h */
    int fd;
    struct op **heap;     /* the earliest at 0 */
    uint32_t count;
    uint32_t room;
    int64_t armed;        /* the timerfd expires not later; DEADLINE_NEVER: not armed */
};

#define HELPERS_MOST 4

struct helpers {
    pthread_mutex_t lock; /* level 4; taken on thread-bound ports as well */
    pthread_cond_t work;
    struct op *first;     /* the queue: first come, first served */
    struct op *last;
    uint32_t waiting;     /* its length */
    uint32_t idle;        /* threads that wait for work */
    uint32_t count;       /* threads that exist */
    bool stop;
    struct op *finished;  /* operations on files: completed by engine_harvest */
    struct op *finished_last;
    struct op *returned;  /* others: their handle's queue goes on, in engine_wait */
    struct op *returned_last;
    _Atomic bool any_finished; /* hints, set under the lock and read without */
    _Atomic bool any_returned;
    pthread_t threads[HELPERS_MOST];
};

struct engine {
    uint64_t features;
    int set;                  /* the epoll descriptor */
    int wake;                 /* eventfd, edge-triggered: each write is an event */
    int notify;               /* eventfd of portio_fileno, level-triggered; -1 before */
    _Atomic bool awake;       /* a write to `wake` is on its way to engine_wait */
    _Atomic int32_t inline_budget;
    bool pwait2;              /* epoll_pwait2 works; the reaper's */
    struct timers timers;
    struct helpers helpers;
    struct handle *unfinished; /* the port's lock, like its length */
    struct handle *unfinished_last;
    uint32_t unfinished_count;
    struct epoll_event events[EVENTS_MOST];
};

/* The locks that a thread-bound port does without. */
static inline void epoll_lock(const portio_port *port, pthread_mutex_t *lock)
{
    if (!port->thread_bound)
        pthread_mutex_lock(lock);
}

static inline void epoll_unlock(const portio_port *port, pthread_mutex_t *lock)
{
    if (!port->thread_bound)
        pthread_mutex_unlock(lock);
}

/* ---- attempts: epoll_io.c, epoll_sendfile.c ---- */

enum attempt {
    ATTEMPT_COMPLETE, /* op->error and op->nbytes are the result */
    ATTEMPT_PROGRESS, /* a part is done, or a passing error: attempt again */
    ATTEMPT_BLOCKED,  /* an event will tell when to attempt again */
    ATTEMPT_LATER,    /* no event will tell: attempt again after a while */
    ATTEMPT_HELP,     /* it may sleep: a helper thread has to do it */
    ATTEMPT_PARKED    /* its pool has no buffer, and will see that it goes on (engine_lend) */
};

/* op->phase */
enum epoll_phase {
    PHASE_START,
    PHASE_CONNECTING, /* connect(2) is under way */
    PHASE_COPYING     /* SendFile: the source cannot be given to sendfile(2) */
};

/* One attempt; the handle's lock is held. */
enum attempt io_attempt(struct engine *engine, struct handle *handle, struct op *op);
/* What a system call answered, errno included. */
enum attempt io_settle(struct op *op, int64_t result);
enum attempt sendfile_attempt(struct engine *engine, struct handle *handle, struct op *op);
/* In a helper thread, or as the last resort without one: may sleep for the
   source, never for the socket.  COMPLETE or BLOCKED. */
enum attempt sendfile_help(struct op *op);

/* ---- epoll_nowait.c ---- */

struct sigpipe_guard {
    bool blocks;
    bool was_pending;
    sigset_t former;
};

/* Between begin and end a write to a broken pipe gives EPIPE and no signal. */
void sigpipe_begin(struct sigpipe_guard *guard);
void sigpipe_end(const struct sigpipe_guard *guard, bool broken);

/* pwritev2 as abi_read_nowait reads, and without a signal. */
int64_t nowait_write(struct engine *engine, int fd, const struct iovec *vectors,
                     uint32_t count, int64_t offset);

/* ---- epoll_handle.c ---- */

/* An event of the epoll set. */
void handle_event(portio_port *port, uint64_t event_id, uint32_t events);
/* Attempts again what waits in the direction; for a timer. */
void handle_retry(portio_port *port, uint64_t event_id, enum direction direction);
/* What a helper thread gave back. */
void handle_returned(portio_port *port, struct op *op);
/* Visits what the last visit left; true: there was something. */
bool handle_visit_unfinished(portio_port *port);
/* Starts, and cancels, an operation on anything but a regular file. */
void handle_start(portio_port *port, struct op *op);
void handle_cancel(portio_port *port, struct handle *handle, struct op *op, uint64_t token);
/* The open file becomes non-blocking, for calls that have no flag for it. */
void handle_make_nonblocking(struct handle *handle);
/* A socket is connected, and neither its end nor urgent data has been seen. */
void handle_is_connected(struct handle *handle);

/* What a receive tells that did not fill its buffer. */
enum short_receive {
    SHORT_UNKNOWN,
    SHORT_IS_EMPTY,  /* that no more is there */
    SHORT_IS_NOTHING /* nothing */
};
bool handle_short_is_empty(struct handle *handle);

/* handle->uses: a count of those who use fd without the handle's lock, and two
   marks.  Whoever finds USES_CLOSE and a count of 0 closes the descriptor: the
   closing thread, or the last user. */
#define USES_ENDED (UINT32_C(1) << 31) /* no new user */
#define USES_CLOSE (UINT32_C(1) << 30) /* the last user closes fd */
#define USES_COUNT (USES_CLOSE - 1)

bool handle_use_begin(struct handle *handle); /* false: it has ended */
void handle_use_end(struct handle *handle);
bool handle_use_ended(struct handle *handle);

/* ---- epoll_file.c ---- */

void file_open(struct engine *engine, struct handle *handle);
void file_start(portio_port *port, struct op *op);
/* In a helper thread: carries it out, unless it is cancelled on the way. */
void file_help(struct op *op);

/* ---- epoll_helper.c ---- */

enum place {
    PLACE_NONE,
    PLACE_WAITING,  /* in the queue: may be taken back (helpers.lock) */
    PLACE_RUNNING,  /* a helper thread works on it */
    PLACE_DONE,     /* it is complete */
    PLACE_BLOCKED   /* the socket is full */
};

int helpers_open(struct helpers *helpers);
void helpers_close(struct helpers *helpers);
/* Gives an operation to the helper threads; fd is in use by it until it is
   back.  False: it is cancelled, or its handle has ended, and it was not. */
bool helpers_give(portio_port *port, struct op *op);
/* True: it waited, and is the caller's again. */
bool helpers_take_back(struct helpers *helpers, struct op *op);
/* Takes everything that waits for the handle, as a list linked by u.helper. */
struct op *helpers_take_back_all(struct helpers *helpers, const struct handle *handle);
struct op *helpers_finished(struct helpers *helpers);
struct op *helpers_returned(struct helpers *helpers);

/* ---- epoll_timer.c ---- */

int timers_open(struct timers *timers);
void timers_close(struct timers *timers);
/* op->u.timer is set.  0, ENOMEM, or ECANCELED when that is wanted; after 0 the
   operation is not the caller's any more. */
int timers_add(portio_port *port, struct op *op);
/* True: it was there. */
bool timers_remove(portio_port *port, struct op *op);
/* The timerfd has expired. */
void timers_expire(portio_port *port);
int64_t timers_after(int64_t nanoseconds);

#endif
