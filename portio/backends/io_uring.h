/* The io_uring engine, inside.

   io_uring.c           the engine's functions (engine.h): start, wait, close
   io_uring_issue.c     an operation becomes a submission
   io_uring_reap.c      a completion becomes the end, or the next step, of one
   io_uring_cancel.c    the request for the end of one, and the kernel's answer
   io_uring_interrupt.c the descriptor of signals
   io_uring_region.c    registered buffers, and who uses them
   io_uring_group.c     the buffers of pools, from which the kernel takes one
   io_uring_stream.c    receives that the kernel goes on with
   io_uring_ring.c      the ring itself
   io_uring_features.c  what the kernel can do

   Everything here but entering the kernel happens under the port's lock.

   user_data of a submission is the operation's token of then; with bit 63 set it is
   the request to cancel that token, or the pause before the next one.  Slot 0
   belongs to the engine itself. */
#ifndef PORTIO_IO_URING_H
#define PORTIO_IO_URING_H

#include "engine.h"
#include "io_uring_group.h"
#include "io_uring_ring.h"
#include "transfer.h"

enum uring_feature {
    FEATURE_SUBMIT_ALL,
    FEATURE_COOP_TASKRUN,
    FEATURE_SINGLE_ISSUER,
    FEATURE_DEFER_TASKRUN,
    FEATURE_NO_IOWAIT,
    FEATURE_REGISTERED_BUFFERS,
    FEATURE_BUFFER_RINGS,
    FEATURE_MULTISHOT_RECEIVE,
    FEATURE_COUNT
};

uint64_t uring_features(const portio_options *options);

#define USER_WAKE (UINT64_C(1) << PORTIO_SLOT_BITS)      /* a NOP that ends a wait */
#define USER_WAKE_POLL (UINT64_C(2) << PORTIO_SLOT_BITS) /* the eventfd of other threads */
#define USER_INTERRUPT (UINT64_C(3) << PORTIO_SLOT_BITS) /* the descriptor of signals */
#define USER_CANCEL (UINT64_C(1) << 63)

/* op->phase */
enum uring_phase {
    PHASE_DIRECT,     /* the operation itself is with the kernel */
    PHASE_POLL,       /* a poll stands for it: it was not ready, or only asks */
    PHASE_PAUSE,      /* a timer stands for it: nothing tells when it is ready */
    PHASE_ASYNC,      /* again, in a kernel thread: it would have blocked */
    PHASE_SELECT,     /* a receive with a pool: the kernel waits, and takes a buffer … */
    PHASE_AWAIT,      /* … and does not look for one before there is data */
    PHASE_FILL,       /* SendFile: reading from the file */
    PHASE_DRAIN       /* SendFile: sending the block */
};

/* op->cancel */
enum uring_cancel_state {
    CANCEL_NONE,
    CANCEL_ASKED, /* the kernel was asked for its end, or a pause before asking again runs */
    CANCEL_OWED   /* the next request found no room in the ring */
};

#define SENDFILE_BLOCK (128u * 1024)
/* How often a request is tried again that the kernel dropped with an error that
   is not the operation's own. */
#define RETRIES_MOST 16

struct engine {
    struct ring ring;
    uint32_t enter_flags;     /* added to each enter that waits */
    bool defers;              /* DEFER_TASKRUN: only the owner's enter completes */
    int wake_fd;              /* thread-bound: eventfd for other threads, else -1 */
    bool wake_armed;
    _Atomic int interrupt_fd; /* of engine_watch, -1 before */
    _Atomic bool interrupt_armed; /* a poll of it is in the ring; set under the lock */
    _Atomic int notify_fd;    /* eventfd of portio_fileno, -1 before */
    int sentinel;             /* reads end of file when the kernel freed the ring; -1: none */
    struct op *_Atomic waiting; /* operations that found the submission ring full;
                                   without the lock only a hint */
    struct op *waiting_last;
    _Atomic bool cancels_owed; /* of an operation with CANCEL_OWED; without the lock a hint */
    _Atomic bool finished;    /* an operation has ended since engine_wait began */
    bool registers;           /* the kernel has registered buffers */
    struct regions *regions;  /* them; NULL until there is one (port's lock) */
    bool groups_wanted;       /* the kernel has rings of buffers */
    struct group *groups;     /* io_uring_group.h (port's lock) */
    bool streams;             /* the kernel has receives that go on */
    struct engine *next;      /* all engines, for a forked child (io_uring_fork.c) */
    struct engine *previous;
};

/* Something found the submission ring full, and waits for room. */
static inline bool uring_is_behind(const struct engine *engine)
{
    return engine->waiting != NULL || engine->cancels_owed;
}

/* io_uring_issue.c */
void uring_issue(portio_port *port, struct op *op);
bool uring_do_at_once(portio_port *port, struct op *op); /* lock held */
void uring_issue_waiting(portio_port *port); /* what waits for room in the ring */
void uring_time_set(struct op *op, int64_t deadline);
bool uring_prepare_wake(portio_port *port);
bool uring_prepare_poll(portio_port *port, int fd, uint64_t user_data);

/* io_uring_cancel.c */
/* Asks for the end of an issued operation.  Lock held; may give it up for a moment. */
void uring_cancel(portio_port *port, struct op *op);
void uring_cancel_answered(portio_port *port, uint64_t token, int32_t result); /* lock held */
void uring_cancel_owed(portio_port *port);                                     /* lock held */

/* io_uring_interrupt.c */
void uring_watch_interrupts(portio_port *port);
void uring_interrupted(portio_port *port, const struct uring_cqe *cqe);

/* io_uring_region.c; lock held */
/* The number of the region that memory lies in, which is left when the kernel is done with
   it; 0: none.  For an engine with regions. */
uint8_t uring_region_enter(struct engine *engine, const void *buffer, uint32_t length);
void uring_region_leave(portio_port *port, struct op *op);
/* The ring shall have a table of buffers.  0 or more, or -errno. */
int regions_register(struct ring *ring);

/* io_uring_fork.c */
void uring_enlist(struct engine *engine);
void uring_delist(struct engine *engine);

/* io_uring_reap.c */
void uring_finish(portio_port *port, struct op *op); /* error and nbytes are set */
/* A submission of an issued operation has ended with this result. */
void uring_advance(portio_port *port, struct op *op, int32_t result);
/* It is to be submitted again, if its handle still is what it was. */
void uring_issue_rest(portio_port *port, struct op *op);
/* Results that say nothing of the operation itself, or that it is to be tried again. */
bool uring_is_passing(const struct op *op, int32_t result);

/* io_uring_stream.c; lock held */
/* Whether the kernel can be trusted to go on with receives of this handle. */
bool stream_suits(const struct engine *engine, const struct handle *handle);
/* The request is made with the present turn. */
void stream_armed(portio_port *port, struct op *op);
/* Something of an earlier turn is left: answers this one with it; or else ends it with
   `error`, if there is one.  False: nothing is left. */
bool stream_resume(portio_port *port, struct op *op, int error);
/* A completion of its request. */
void stream_arrive(portio_port *port, struct op *op, const struct uring_cqe *cqe);
/* Whether the kernel has such receives, on a ring that has nothing else to do.  0 or -errno. */
int stream_try(struct ring *ring);

/* What the kernel knows the operation by, if it has something of it. */
static inline uint64_t uring_request(const struct op *op)
{
    return op->stream.armed != 0 ? op->stream.armed : op->token;
}

static inline bool uring_has(const struct op *op)
{
    return op->stream.armed != 0 || atomic_load(&op->state) == OP_ISSUED;
}

#endif
