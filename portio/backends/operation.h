/* One operation inside an engine: the record behind a token.

   Who may touch it.  A record lives in the port's slot table (slots.h), at an
   address that never changes while the port lives.
   - token, handle, flags and cancel_wanted: written under the port's lock.
   - state and the links: under the lock that `state` names below.
   - everything else belongs to whoever carries the operation forward: the
     starter until it is on a list, then the engine, then the queue. */
#ifndef PORTIO_OPERATION_H
#define PORTIO_OPERATION_H

#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "native.h"
#include "pool.h"

struct handle;

/* A receive that the kernel goes on with by itself: io_uring_stream.c (port's lock). */
struct stream {
    uint64_t armed; /* what the kernel's request is known by, the token of the turn in which
                       it was made; 0: there is none */
    uint32_t first; /* pieces that wait for their turn: the number of the first one's … */
    uint32_t last;  /* … and of the last one's buffer plus one; 0: none */
    int32_t stop;   /* the error that ends the present turn when no piece is left, unless a
                       request is armed, which is cancelled instead; 0: none */
    int32_t told;   /* the kernel's last word, … */
    bool over;      /* … which is yet to be told */
};

enum op_state {
    OP_FREE,     /* no operation; the slot may be used by Python */
    OP_STARTING, /* a thread in portio_submit owns it */
    OP_QUEUED,   /* on its handle's queue, waits for its turn (engine's lock) */
    OP_ISSUED,   /* the system, or a helper thread, works on it (engine's lock) */
    OP_DONE,     /* complete: in the packet queue, or waiting for portio_wait
                    (the port's lock) */
    OP_TURN      /* multishot, between two turns: see op_turn.h (the port's lock) */
};

struct op {
    uint64_t token;
    struct op *next; /* an operation is on at most one list at a time */
    struct op *previous;
    struct handle *handle;
    _Atomic uint8_t state;
    uint8_t kind;
    uint8_t flags;   /* portio_request_flag */
    uint8_t phase;   /* the engine's: which step of a composed operation is under way */
    _Atomic bool cancel_wanted;
    bool posted;     /* a packet that was posted; no operation at all */
    bool starting;   /* a quiet one, and portio_submit_one has not returned (port's lock) */
    bool skipped;    /* it ended without a record (port's lock) */
    uint8_t retries; /* the engine's: bounds what it tries again */
    bool waits;      /* the engine's: on its list of operations to issue later */
    uint8_t cancel;  /* io_uring's: enum uring_cancel_state (port's lock) */
    bool parked;     /* op_pool.h: it has data, and waits for a buffer (port's lock) */
    uint32_t turns;  /* multishot: how many are over (port's lock) */
    struct op *next_waiting;
    int32_t error;
    uint32_t lent;   /* op_pool.h: the number of its buffer plus one; 0: none (port's lock) */
    struct stream stream;
    int64_t nbytes;  /* moved so far; at the end the completion's nbytes */
    int64_t argument;
    void *buffer;    /* advances as bytes are moved */
    uint64_t length; /* what is left: bytes, or vectors when PORTIO_VECTORED */
    void *address;
    uint32_t *address_length;
    union {
        int64_t file;             /* SendFile: the source */
        struct portio_pool *pool; /* of one with op_is_pooled */
    };
    union {
        struct {
            struct msghdr header;
            struct iovec one; /* the vector of an operation with one buffer */
        } message;
        struct {
            int64_t seconds;
            int64_t nanoseconds;
        } time;
        struct parked parked;     /* the links of one that is parked */
        struct {
            uint64_t pushed;      /* the group's, when the kernel was asked to take a buffer */
        } select;                 /* io_uring's, of one with op_is_pooled that is not parked */
        struct {
            char *block;      /* the bytes on their way */
            uint32_t filled;
            uint32_t sent;
        } sendfile;
        struct {
            struct op *next;
            struct op *previous;
        } helper;             /* the epoll engine's lists of its helper threads */
        struct {
            int64_t deadline;
            uint64_t handle;  /* its event_id when it is to be attempted again */
        } timer;              /* the epoll engine's timer heap */
    } u;
    uint32_t heap_index;      /* its place in that heap plus one; 0: not in it */
    uint8_t place;            /* the epoll engine's: where among the helper threads */
    uint8_t region;           /* io_uring's: of the submission that the kernel has; 0: none
                                 (port's lock) */
};

static inline struct parked *op_parked(struct op *op)
{
    return &op->u.parked;
}

#include "op_list.h"
#include "op_pool.h"
#include "op_turn.h"

#endif
