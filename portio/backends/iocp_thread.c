/* Threads that wait at a port, and what wakes them besides packets.

   A packet does not wake everybody: at the concurrency cap the kernel releases
   nobody, and it chooses whom.  Ctrl-C must reach the main thread, and closing a
   port must reach all that wait.  So every wait is alertable, and these two queue
   an asynchronous procedure call that does nothing to the thread they mean, which
   ends its wait whatever the cap says.

   The order that makes it right, for both: the waiter first says where it waits
   and then looks at the flag; the other side first sets the flag and then looks
   who waits.  Both sides have a full barrier in between (Interlocked functions),
   so at least one of them sees the other.

   Ctrl-C.  CPython's handler runs in a thread that the system makes for it.  It
   notes the signal, and then sets an event, which exists so that waits of the main
   thread (time.sleep, for one) can end.  A wait of the thread pool watches that
   event; there is no polling.  The event stays set until somebody resets it: so an
   interrupt that comes before the wait begins is noticed too.  Where the event
   cannot be found (another implementation of Python), Ctrl-C is noticed when the
   next packet arrives. */
#include "iocp.h"

#include <psapi.h>
#include <stdlib.h>

struct thread {
    struct thread *next;
    struct thread *previous;
    HANDLE handle;
    DWORD identifier;
    uint64_t serial;
    portio_port *volatile port; /* where it waits */
};

/* The threads that have waited and live, under a lock of its own: the last of the
   order in iocp.h. */
static SRWLOCK threads_lock = SRWLOCK_INIT;
static struct thread *threads;
static uint64_t serials;
static INIT_ONCE once = INIT_ONCE_STATIC_INIT;
static DWORD storage = FLS_OUT_OF_INDEXES;

/* The system calls it in a thread that ends. */
static void CALLBACK thread_ends(void *value)
{
    struct thread *thread = value;
    if (thread == NULL)
        return;
    AcquireSRWLockExclusive(&threads_lock);
    if (thread->previous != NULL)
        thread->previous->next = thread->next;
    else
        threads = thread->next;
    if (thread->next != NULL)
        thread->next->previous = thread->previous;
    ReleaseSRWLockExclusive(&threads_lock);
    CloseHandle(thread->handle);
    free(thread);
}

static BOOL CALLBACK storage_make(INIT_ONCE *init, void *argument, void **context)
{
    (void)init, (void)argument, (void)context;
    storage = FlsAlloc(thread_ends);
    return storage != FLS_OUT_OF_INDEXES;
}

struct thread *thread_here(void)
{
    if (!InitOnceExecuteOnce(&once, storage_make, NULL, NULL))
        return NULL;
    struct thread *thread = FlsGetValue(storage);
    if (thread != NULL)
        return thread;
    thread = calloc(1, sizeof *thread);
    if (thread == NULL)
        return NULL;
    thread->identifier = GetCurrentThreadId();
    thread->handle = OpenThread(THREAD_SET_CONTEXT, FALSE, thread->identifier);
    if (thread->handle == NULL || !FlsSetValue(storage, thread)) {
        if (thread->handle != NULL)
            CloseHandle(thread->handle);
        free(thread);
        return NULL;
    }
    AcquireSRWLockExclusive(&threads_lock);
    thread->serial = ++serials;
    thread->next = threads;
    if (threads != NULL)
        threads->previous = thread;
    threads = thread;
    ReleaseSRWLockExclusive(&threads_lock);
    return thread;
}

uint64_t thread_serial(void)
{
    struct thread *thread = thread_here();
    return thread != NULL ? thread->serial : 0;
}

void thread_enter_wait(struct thread *thread, portio_port *port)
{
    InterlockedExchangePointer((void *volatile *)&thread->port, port);
}

void thread_leave_wait(struct thread *thread)
{
    thread->port = NULL; /* a wake-up that comes too late wakes a later wait for nothing */
}

static void NTAPI nothing(ULONG_PTR unused)
{
    (void)unused;
}

void threads_wake(portio_port *port)
{
    AcquireSRWLockExclusive(&threads_lock);
    for (struct thread *thread = threads; thread != NULL; thread = thread->next)
        if (thread->port == port)
            QueueUserAPC(nothing, thread->handle, 0);
    ReleaseSRWLockExclusive(&threads_lock);
}

/* ---- Ctrl-C ---- */

static INIT_ONCE watch_once = INIT_ONCE_STATIC_INIT;
static HANDLE interrupt_event;
static PTP_WAIT interrupt_wait;
static DWORD interrupt_thread;
static volatile LONG interrupted;

static void CALLBACK interrupt_arrives(PTP_CALLBACK_INSTANCE instance, void *context,
                                       PTP_WAIT wait, TP_WAIT_RESULT result)
{
    (void)instance, (void)context, (void)wait, (void)result;
    InterlockedExchange(&interrupted, 1);
    AcquireSRWLockExclusive(&threads_lock);
    for (struct thread *thread = threads; thread != NULL; thread = thread->next)
        if (thread->identifier == interrupt_thread && thread->port != NULL)
            QueueUserAPC(nothing, thread->handle, 0);
    ReleaseSRWLockExclusive(&threads_lock);
}

typedef void *(*event_function)(void);

/* CPython's event: _PyOS_SigintEvent, which its own extension modules use.  It is
   in the library of the interpreter, whatever its name. */
static event_function event_find(void)
{
    HMODULE modules[1024];
    DWORD size = 0;
    if (!EnumProcessModules(GetCurrentProcess(), modules, sizeof modules, &size))
        return NULL;
    DWORD count = (size < sizeof modules ? size : (DWORD)sizeof modules) / sizeof *modules;
    for (DWORD at = 0; at < count; at++) {
        FARPROC found = GetProcAddress(modules[at], "_PyOS_SigintEvent");
        if (found != NULL)
            return (event_function)(void (*)(void))found;
    }
    return NULL;
}

static BOOL CALLBACK watch_begin(INIT_ONCE *init, void *argument, void **context)
{
    (void)init, (void)context;
    interrupt_thread = *(DWORD *)argument;
    event_function find = event_find();
    interrupt_event = find != NULL ? find() : NULL;
    if (interrupt_event == NULL)
        return TRUE;
    interrupt_wait = CreateThreadpoolWait(interrupt_arrives, NULL, NULL);
    if (interrupt_wait != NULL)
        SetThreadpoolWait(interrupt_wait, interrupt_event, NULL);
    return TRUE;
}

void interrupt_watch(DWORD main_thread)
{
    InitOnceExecuteOnce(&watch_once, watch_begin, &main_thread, NULL);
}

bool interrupt_take(const portio_port *port)
{
    if (GetCurrentThreadId() != port->main_thread || !interrupted)
        return false;
    /* In this order: an interrupt that comes in between sets the event anew, and one
       that came before has been noted by Python, which looks when we return. */
    ResetEvent(interrupt_event);
    InterlockedExchange(&interrupted, 0);
    SetThreadpoolWait(interrupt_wait, interrupt_event, NULL);
    return true;
}
