/* The iocp engine: the kernel's own completion port behind the door of
   native.cdef.txt.

   Nothing of a port is emulated here.  The queue and its order (P2), the order of
   the waiters (P3) and the concurrency value (P4) are the kernel's.  What the
   engine adds is what the native rules leave to every program:

     iocp.c            the port: created, closed and drained
     iocp_get.c        packets: posting, taking, waiting for one operation
     iocp_operation.c  the life of an operation: submission, queues, steps
     iocp_cancel.c     the end of operations before their time
     iocp_turn.c       the next turn of a multishot operation
     iocp_handle.c     the handles of a port, and how they come and go
     iocp_socket.c     the kinds of operation on sockets
     iocp_file.c       the kinds of operation on files and pipes
     iocp_sendfile.c   SendFile
     iocp_timer.c      Timer: a heap, and one timer of the thread pool
     iocp_thread.c     threads that wait: how Ctrl-C and closing wake them
     iocp_transfer.c   operations that take several calls of the system
     iocp_error.c      what the system's answers mean
     iocp_feature.c    what this Windows can do
     iocp_slot.c       the records

   Packets.  The completion key of a packet says what its pointer is:
     KEY_IO     the OVERLAPPED with which a record begins: the system has finished
                one step of that operation
     KEY_DONE   the same, but the operation is complete: its last step needed no
                packet of the system, or failed at once (O2)
     KEY_POST   a token that the program posted
     KEY_WAKE   nothing: whoever waits is to look around
   The keys are addresses in this library, so no foreign packet has one of them by
   chance; of a packet with KEY_IO the pointer is looked up among the records,
   because a program may use an associated handle with its own OVERLAPPED.

   The life of an operation.  It is carried forward by whoever has claimed it:
     FREE     no operation
     QUEUED   behind others of its direction on a stream (O9)
     CLAIMED  a thread works on it: it starts its next step, or settles the last
     ISSUED   the system works on it; who dequeues the packet claims it
     HELPED   a thread of the system's pool works on it
     TIMED    in the heap of timers
     DONE     complete; its packet is queued, or it waits for portio_wait
     TURN     multishot, between two turns (op_turn.h)
   On a stream only the head of a direction's queue is ever with the system, so
   transfers that take several steps cannot interleave, and cancelling one that
   waits takes nothing from the wire.

   A packet may be dequeued before the call that started the step has returned
   (O4).  `calling` decides who goes on: a thread that dequeues the packet of a call
   that has not returned leaves the operation to the caller; once the caller has said
   that it has returned, it reads nothing of the record but `cancel_wanted`, which may
   belong to the record's next life by then, and looks at the token, under the lock,
   before it cancels.

   An unqueued operation (O13) has the low-order bit of hEvent set, so the port
   hears nothing of its steps.  A wait of the thread pool does, and carries it
   forward; portio_wait sleeps on an event of the record.

   Locks.  `port->lock` protects everything in struct portio_port and in the
   records and handles that is not marked otherwise.  It is held across no call
   that may wait; CancelIoEx is made under it, because that is what keeps the
   record the same operation.  `timers.gate` comes before it, the list of threads
   (iocp_thread.c) and the list of ghosts (iocp_handle.c) after it. */
#ifndef PORTIO_IOCP_H
#define PORTIO_IOCP_H

#include "iocp_abi.h"
#include "pool.h"

struct handle;

enum op_state {
    OP_FREE, OP_QUEUED, OP_CLAIMED, OP_ISSUED, OP_HELPED, OP_TIMED, OP_DONE, OP_TURN
};

enum calling { CALL_OVER, CALL_RUNS, CALL_OVERTAKEN };

struct op {
    OVERLAPPED overlapped; /* first: a packet's pointer is the record's */
    portio_port *port;     /* whose record it is, for ever */
    uint64_t token;
    uint32_t turns;  /* multishot: how many are over */
    struct op *next; /* on the queue of its handle, or on the port's stash */
    struct op *previous;
    struct handle *handle;
    volatile LONG cancel_wanted; /* set under the lock, also read without */
    volatile LONG calling;       /* enum calling: see above */
    uint8_t state;               /* enum op_state */
    uint8_t kind;
    uint8_t flags;     /* portio_request_flag */
    uint8_t phase;     /* which step of a composed operation is under way */
    bool end_wanted;   /* a receive that a Shutdown ends: success (see Shutdown) */
    bool starting;     /* quiet, and portio_submit_one has not returned yet (lock) */
    bool skipped;      /* it has ended without a record (lock) */
    uint32_t waiters;  /* threads in portio_wait for the record (lock) */
    DWORD message_flags;
    uint32_t error;    /* the system's error of the completion */
    int64_t nbytes;    /* moved so far; at the end the completion's nbytes */
    int64_t argument;  /* as in the request; of Read and Write it advances */
    void *buffer;      /* advances as bytes are moved */
    uint64_t length;   /* what is left: bytes, or vectors when PORTIO_VECTORED */
    struct portio_pool *pool; /* op_pool.h, under the port's lock; of one with op_is_pooled */
    struct parked links;      /* in its pool, or among the heirs of the port */
    uint32_t lent;     /* the number of its buffer plus one; 0: none */
    bool parked;       /* it has data, and waits for a buffer; its state is QUEUED */
    void *address;
    uint32_t *address_length;
    int64_t file;      /* SendFile: the source */
    SOCKET accepted;   /* Accept: the socket that the connection will be */
    char *block;       /* Accept, SendFile: memory of its own, freed at the end */
    HANDLE source;     /* SendFile, Sync: a handle of its own, closed at the end */
    uint32_t filled;   /* SendFile: bytes in the block */
    uint32_t sent;     /* SendFile: how many of them are sent */
    int64_t deadline;  /* Timer: see struct deadline */
    uint64_t tick;
    uint32_t heap_index; /* Timer: its place in the heap plus one; 0: not in it */

    /* Made when the record first is an unqueued operation, kept for the next. */
    HANDLE step_event; /* the system has finished a step */
    HANDLE done_event; /* the operation is complete */
    PTP_WAIT step_wait;
};
_Static_assert(offsetof(struct op, overlapped) == 0, "a packet's pointer is the record's");

static inline struct parked *op_parked(struct op *op)
{
    return &op->links;
}

#include "op_list.h"
#include "op_pool.h"
#include "op_turn.h"
#include "op_window.h"

struct handle {
    uint64_t id; /* index in the low 24 bits, life above; 0: closed */
    uint32_t index;
    uint32_t pending; /* operations from submit to completion, and visitors */
    struct handle *next_free;
    HANDLE handle; /* the SOCKET or the file */
    int type;      /* portio_handle_type */
    int family;    /* of a socket */
    int kind;      /* of a socket: SOCK_STREAM … */
    int protocol;
    DWORD catalog;  /* of a socket: which provider made it */
    bool provides_handles; /* of a socket: it is the system's own, with no layer over it */
    bool listens;   /* of a socket: connections arrive there */
    bool messages;  /* of a pipe: a write is a message, and must be one call */
    bool device;    /* a character device: a read of 0 bytes is its end */
    bool skips;     /* there is no packet of a call that succeeds at once */
    uint64_t connection; /* of a stream socket: which connection it is; 0: none yet */
    bool dead;      /* give the record back when pending reaches 0 */
    bool closing;   /* operations that arrive now are cancelled */
    bool ended;     /* the receiving side was shut down: receives give 0 bytes */
    bool abandoned; /* the number is not ours any more */
    volatile LONG calls; /* threads that use `handle` without the lock */
    struct op_list queue[2];
    struct op *between;            /* op_order.h */
};

#include "op_order.h"
#include "op_quiet.h"

#define SLOT_FIRST_BITS 8 /* the first chunk has 256 records, each next twice as many */
#define SLOT_CHUNKS (PORTIO_SLOT_BITS - SLOT_FIRST_BITS + 1)
#define HANDLE_CHUNK_BITS 6

struct slots {
    struct op *chunks[SLOT_CHUNKS]; /* never moved, freed with the port */
    volatile LONG count;            /* records that exist; grows under the lock */
};

struct handles {
    struct handle **chunks; /* grown under the lock, and only read under it */
    uint32_t room;
    uint32_t count;
    struct handle *free;
    uint64_t life;
};

struct timers {
    SRWLOCK gate;     /* one callback at a time: timers leave in their order */
    PTP_TIMER timer;
    struct op **heap; /* the port's lock protects the rest */
    uint32_t count;
    uint32_t room;
    int64_t armed;    /* for when the timer is set; INT64_MAX: it is not */
};

struct portio_port {
    /* Set before anybody else sees the port. */
    HANDLE port;
    uint64_t owner;    /* thread-bound: the owner's serial (iocp_thread.c); else 0 */
    DWORD main_thread; /* the thread in which Python runs signal handlers */
    uint32_t features; /* what the system has and no switch has turned off */

    SRWLOCK lock;
    CONDITION_VARIABLE calls_done; /* a closing handle's `calls` reached 0 */
    CONDITION_VARIABLE closed_now;
    volatile LONG closing;         /* also read without the lock */
    bool closed;                   /* nothing is left in the system */
    volatile LONG users;           /* calls of the door that are under way */
    volatile LONG callbacks;       /* of the thread pool, armed or running */
    uint32_t active;               /* operations between submit and completion */
    struct slots slots;
    struct handles handles;
    struct op_list stash;  /* complete, but the system could not queue the packet */
    volatile LONG stashed; /* a hint that there are some */
    struct op *heirs;      /* receives that were lent a buffer, and claimed: see iocp_turn.c */
    struct timers timers;
};

extern const char iocp_key_io, iocp_key_done, iocp_key_post, iocp_key_wake;
#define KEY_IO ((ULONG_PTR)&iocp_key_io)
#define KEY_DONE ((ULONG_PTR)&iocp_key_done)
#define KEY_POST ((ULONG_PTR)&iocp_key_post)
#define KEY_WAKE ((ULONG_PTR)&iocp_key_wake)

/* iocp_feature.c */
enum { FEATURE_DISASSOCIATE = 1, FEATURE_TRANSMIT_FILE = 2, FEATURE_SKIP_SUCCESS = 4 };
struct nt_functions {
    nt_file_information_function query_file;
    nt_file_information_function set_file;
    nt_status_to_error_function status_to_error;
};
extern struct nt_functions nt;
uint32_t features_find(void); /* cheap after the first time */

/* iocp.c */
int port_enter(portio_port *port); /* 0, or a refusal; port_leave after a 0 */
void port_leave(portio_port *port);
bool port_may(const portio_port *port); /* a thread-bound port's owner, or any thread */
void port_wake_closer(portio_port *port);
static inline bool port_is_closing(const portio_port *port)
{
    return port->closing != 0;
}
static inline void port_lock(portio_port *port)
{
    AcquireSRWLockExclusive(&port->lock);
}
static inline void port_unlock(portio_port *port)
{
    ReleaseSRWLockExclusive(&port->lock);
}

/* iocp_slot.c */
int slots_reserve(struct slots *slots, portio_port *port, uint32_t count);
void slots_destroy(struct slots *slots);
struct op *slots_find(struct slots *slots, uint64_t token);  /* NULL: no such slot */
struct op *slots_at(struct slots *slots, uint32_t slot);
struct op *slots_of_packet(struct slots *slots, OVERLAPPED *overlapped); /* NULL: foreign */

/* iocp_operation.c */
/* Carries a claimed operation forward, and whoever comes behind it. */
void op_run(portio_port *port, struct op *op);
/* The error of an operation that is cancelled, or ended by a Shutdown; 0 for one that
   has received bytes, which would be lost with an error. */
uint32_t op_abort_error(const struct op *op);
/* A claimed operation is complete: tells the port, or who waits for it. */
void op_complete(portio_port *port, struct op *op);
/* What the system says of a step that is over. */
struct op_answer {
    uint32_t status; /* NTSTATUS */
    DWORD bytes;
};
static inline struct op_answer op_answer_of(const OVERLAPPED_ENTRY *entry)
{
    /* The entry is a FILE_IO_COMPLETION_INFORMATION: `Internal` is its status. */
    return (struct op_answer){(uint32_t)entry->Internal, entry->dwNumberOfBytesTransferred};
}
static inline struct op_answer op_answer_written(const struct op *op)
{
    return (struct op_answer){(uint32_t)op->overlapped.Internal,
                              (DWORD)op->overlapped.InternalHigh};
}
/* A step is over: its packet was dequeued, or its event was seen.  True: `record`
   has the completion of the operation, and the slot is free.  With no record a
   complete operation is left in state DONE. */
bool op_arrive(portio_port *port, struct op *op, struct op_answer answer,
               portio_completion *record);
/* A helper has finished a step; the operation is claimed. */
void op_continue(portio_port *port, struct op *op);
void record_fill(struct op *op, portio_completion *record); /* lock held; the slot is free */

/* How a step began. */
enum step {
    STEP_ISSUED, /* a packet (or the step's event) will tell; hands off the record */
    STEP_DONE,   /* the operation is complete: error and nbytes are set */
    STEP_AGAIN   /* this step is over, make the next */
};
/* Begins the next step of a claimed operation, whose state is ISSUED already. */
enum step op_step(portio_port *port, struct op *op);
/* What the system answered to a step.  True: the operation is complete. */
bool op_settle(struct op *op, uint32_t error, DWORD bytes);
/* Frees what an operation has of its own. */
void op_release(struct op *op);
/* Gives a step to the thread pool; the state is HELPED until op_continue. */
bool op_help(portio_port *port, struct op *op, PTP_SIMPLE_CALLBACK work);
void port_callback_over(portio_port *port); /* the last thing that a callback does */
/* Prepares the OVERLAPPED for a step; a call with it follows, and then op_called. */
void op_overlapped(struct op *op, uint64_t offset);
/* Turns the answer of that call into a step. */
enum step op_called(portio_port *port, struct op *op, uint32_t error);
static inline bool op_is_unqueued(const struct op *op)
{
    return (op->flags & PORTIO_UNQUEUED) != 0;
}

/* iocp_turn.c */
/* An operation with a pool has ended: what it had is the next one's.  Lock held; the
   caller runs the heirs when it is released. */
void pool_pass_on(portio_port *port, struct op *op);
void heirs_run(portio_port *port);
/* True: a receive with a pool has a buffer.  False: it is parked, and not the caller's
   any more; or it is complete, which `done` tells. */
bool pool_borrow(portio_port *port, struct op *op, bool *done);

/* iocp_cancel.c */
void ops_cancel_all(portio_port *port);
void ops_collect(portio_port *port); /* what the system has finished with, at closing */
void ops_discard(portio_port *port); /* nobody takes what is complete */
void handle_cancel_queued(portio_port *port, struct handle *handle);
/* The receiving side ends: receives that are pending complete with what they have. */
void handle_end_receives(portio_port *port, struct handle *handle);

/* iocp_socket.c */
enum step socket_step(portio_port *port, struct op *op);
bool socket_settle(struct op *op, uint32_t error, DWORD bytes);
void socket_prepare(struct handle *handle, SOCKET socket); /* when it is associated */
/* False: the program has closed the socket, and its number is another's (K6). */
bool socket_is_same(const struct handle *handle);
void socket_note_connection(struct handle *handle); /* of what is socket_is_same to judge */
/* iocp_file.c */
enum step file_step(portio_port *port, struct op *op);
bool file_settle(struct op *op, uint32_t error, DWORD bytes);
/* iocp_sendfile.c */
enum step sendfile_step(portio_port *port, struct op *op);
bool sendfile_settle(struct op *op, uint32_t error, DWORD bytes);

/* iocp_handle.c */
struct handle *handles_find(struct handles *handles, uint64_t id); /* lock held */
void handles_give_back(portio_port *port); /* the port closes */
void handles_destroy(struct handles *handles);
void handle_leave_locked(portio_port *port, struct handle *handle);
/* False: it is closing, and its number is not to be used. */
bool handle_calls_enter(portio_port *port, struct handle *handle);
void handle_calls_leave(portio_port *port, struct handle *handle);

/* iocp_transfer.c */
#define TRANSFER_VECTORS 64
/* The smallest block of a device, for files that are read past the cache. */
#define DIRECT_BLOCK 512
/* The buffers of the next call of Winsock, at most `most` bytes of them. */
DWORD transfer_buffers(const struct op *op, WSABUF *buffers, DWORD limit, uint64_t most);
/* The one buffer of the next call of ReadFile or WriteFile. */
char *transfer_piece(const struct op *op, DWORD most, DWORD *length);

/* iocp_timer.c */
int timers_open(portio_port *port);
void timers_close(portio_port *port);
enum step timer_step(portio_port *port, struct op *op);
void timer_remove(portio_port *port, struct op *op); /* lock held */

/* Deadlines: never early, by any clock that a program may look at. */
struct deadline {
    int64_t time;  /* nanoseconds of the performance counter; INT64_MAX: never */
    uint64_t tick; /* milliseconds of GetTickCount64 */
};
struct deadline deadline_after(int64_t nanoseconds);
/* Milliseconds to wait, rounded up; 0: it has passed; INFINITE: never. */
DWORD deadline_left(const struct deadline *deadline);

/* iocp_thread.c */
struct thread;
struct thread *thread_here(void); /* NULL: no memory */
/* A number that no other thread of this process ever has, unlike the system's
   identifiers, which are given out again; 0: no memory. */
uint64_t thread_serial(void);
/* From now on thread_wake reaches it … */
void thread_enter_wait(struct thread *thread, portio_port *port);
void thread_leave_wait(struct thread *thread);
void threads_wake(portio_port *port); /* every thread that waits for this port */
void interrupt_watch(DWORD main_thread);
/* True: Ctrl-C was pressed since the last time; the caller gives way to Python. */
bool interrupt_take(const portio_port *port);

/* iocp_error.c */
uint32_t error_of_status(const struct op *op, uint32_t status);
bool error_is_abort(uint32_t error);

#endif
