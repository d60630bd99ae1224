/* What an engine gives the emulated port (port.h), and what it may call back.

   There is one engine in each extension, chosen at link time: io_uring.c or
   epoll.c.  No function here is called with the port's lock held unless its
   comment says so; on a thread-bound port, where there is no lock, all but
   engine_wake are called by the owner alone. */
#ifndef PORTIO_ENGINE_H
#define PORTIO_ENGINE_H

#include "handle.h"
#include "port.h"

/* Opens the system's objects.  0, or a portio_refusal. */
int engine_open(portio_port *port, const portio_options *options);
/* Closes them.  Nothing is pending, nobody is in a call. */
void engine_close(portio_port *port);
/* The owner of a thread-bound port has ended and another thread closes it.
   True: the caller may go on as the owner.  False: everything that was pending
   is gone from the system, the system's objects are closed, and engine_close
   will not be called; the records are dropped by the port. */
bool engine_adopt(portio_port *port);

/* Attaches a handle whose fd, type and family are known.  0 or -errno. */
int engine_handle_open(portio_port *port, struct handle *handle);
/* Takes it out again; nothing is pending on it.  The descriptor stays open. */
void engine_handle_release(portio_port *port, struct handle *handle);
/* Nothing may start on it any more; what is pending is cancelled.  With
   `close_it` the descriptor is closed, and the peer sees it now (K5); without,
   it has been closed behind our back and must not be touched. */
void engine_handle_close(portio_port *port, struct handle *handle, bool close_it);

/* Starts an operation in state OP_STARTING.  From here on it ends in
   port_complete, perhaps before this returns, whatever the system says; when
   cancel_wanted or handle->closing is set by now, with ECANCELED; when op->error is,
   with that. */
void engine_start(portio_port *port, struct op *op);
/* Hands started operations to the system if the engine has not done so. */
void engine_flush(portio_port *port);
/* Asks for the end of an operation; cancel_wanted is set.  The token tells
   whether the record still is that operation: check under the engine's lock. */
void engine_cancel(portio_port *port, struct op *op, uint64_t token);

/* With the port's lock held: an operation that was parked in its pool (op_pool.h) has a
   buffer now, and goes on.  It may end in here. */
void engine_lend(portio_port *port, struct op *op);

/* With the port's lock held: turns what has finished without a system call
   into completions, by port_complete_locked.  Cheap when there is nothing. */
void engine_harvest(portio_port *port);
/* Waits until something may have finished, engine_wake was called, a signal
   arrived, or the deadline has passed; one thread at a time (the reaper).  May
   complete operations itself.  DEADLINE_POLL does not wait.  False: a signal. */
bool engine_wait(portio_port *port, int64_t deadline);
/* Makes the present or the next engine_wait return.  On a shared port the
   port's lock is held; on a thread-bound port any thread may call. */
void engine_wake(portio_port *port);

/* Has the system know memory that files are read into and written from, until
   engine_region_close; the program keeps it in place until then.  Sets its number, above 0;
   or a refusal: the memory can be used all the same. */
int engine_region_open(portio_port *port, void *memory, uint64_t length, uint32_t *number);
/* Makes the number 0; false: there is none with that number. */
bool engine_region_close(portio_port *port, uint32_t *number);

/* Watches a descriptor: each time that it becomes readable, the thread that looks
   at the system calls port_interrupt.  Once in a port's life, by the main
   thread.  0 or -errno. */
int engine_watch(portio_port *port, int descriptor);

/* The descriptor of portio_fileno; 0 or more, or a refusal.  Idempotent. */
int engine_fileno(portio_port *port);
/* With the port's lock held: a packet was queued that the system does not know
   of; make the descriptor readable. */
void engine_notify(portio_port *port);
/* With the port's lock held: the queue was seen empty; make the descriptor
   unreadable.  The caller looks for packets once more afterwards. */
void engine_unnotify(portio_port *port);

#endif
