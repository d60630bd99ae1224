/* The handles of a port, and how they come and go.

   The kernel knows which file objects belong to a port, and keeps it for as long
   as the object lives; FileReplaceCompletionInformation (Windows 8.1) ends it
   earlier.  Where the system lacks that, a handle that is given back becomes a
   *ghost*: it still belongs to its port, and can be associated with that one again.

   A number may be given out again the moment it is closed.  So nobody uses one
   without having counted himself in `calls` while the handle was not closing, and
   closing waits for that count.  No call that is counted waits for a peer. */
#include "iocp.h"

#include <stdlib.h>

/* ---- records ---- */

static struct handle *handles_at(struct handles *handles, uint32_t index)
{
    return &handles->chunks[index >> HANDLE_CHUNK_BITS][index & ((1u << HANDLE_CHUNK_BITS) - 1)];
}

static bool handles_grow(struct handles *handles)
{
    uint32_t chunk = handles->count >> HANDLE_CHUNK_BITS;
    if (handles->count >= (1u << PORTIO_SLOT_BITS))
        return false;
    if (chunk == handles->room) {
        uint32_t room = handles->room != 0 ? 2 * handles->room : 16;
        struct handle **chunks = realloc(handles->chunks, room * sizeof *chunks);
        if (chunks == NULL)
            return false;
        handles->chunks = chunks;
        handles->room = room;
    }
    struct handle *fresh = calloc((size_t)1 << HANDLE_CHUNK_BITS, sizeof *fresh);
    if (fresh == NULL)
        return false;
    handles->chunks[chunk] = fresh;
    for (uint32_t at = 1u << HANDLE_CHUNK_BITS; at-- > 0;) {
        fresh[at].index = handles->count + at;
        fresh[at].next_free = handles->free;
        handles->free = &fresh[at];
    }
    handles->count += 1u << HANDLE_CHUNK_BITS;
    return true;
}

static struct handle *handles_add(struct handles *handles)
{
    if (handles->free == NULL && !handles_grow(handles))
        return NULL;
    struct handle *handle = handles->free;
    handles->free = handle->next_free;
    /* `calls` is not touched: a thread may still be about to leave the record's
       former life. */
    handle->id = ++handles->life << PORTIO_SLOT_BITS | handle->index;
    handle->pending = 1; /* a visitor: who makes it */
    handle->type = handle->family = handle->kind = handle->protocol = 0;
    handle->connection = 0;
    handle->listens = handle->messages = handle->device = handle->skips = false;
    handle->dead = handle->closing = handle->ended = handle->abandoned = false;
    handle->provides_handles = false;
    handle->queue[0] = handle->queue[1] = (struct op_list){NULL, NULL};
    handle->between = NULL;
    return handle;
}

struct handle *handles_find(struct handles *handles, uint64_t id)
{
    uint32_t index = (uint32_t)(id & PORTIO_SLOT_MASK);
    if (id == 0 || index >= handles->count)
        return NULL;
    struct handle *handle = handles_at(handles, index);
    return handle->id == id ? handle : NULL;
}

void handle_leave_locked(portio_port *port, struct handle *handle)
{
    handle->pending--;
    if (handle->pending > 0 || !handle->dead)
        return;
    handle->id = 0;
    handle->dead = false;
    handle->next_free = port->handles.free;
    port->handles.free = handle;
}

static void handle_leave(portio_port *port, struct handle *handle)
{
    port_lock(port);
    handle_leave_locked(port, handle);
    port_unlock(port);
}

bool handle_calls_enter(portio_port *port, struct handle *handle)
{
    port_lock(port);
    bool open = !handle->closing;
    if (open)
        InterlockedIncrement(&handle->calls);
    port_unlock(port);
    return open;
}

void handle_calls_leave(portio_port *port, struct handle *handle)
{
    if (InterlockedDecrement(&handle->calls) > 0 || !handle->closing)
        return;
    port_lock(port); /* or the wake-up could come between the look and the sleep */
    WakeAllConditionVariable(&port->calls_done);
    port_unlock(port);
}

/* ---- ghosts ---- */

struct ghost {
    struct ghost *next;
    HANDLE handle;
    portio_port *port;
};

static SRWLOCK ghosts_lock = SRWLOCK_INIT;
static struct ghost *ghosts;

/* Takes away the ghosts of a handle, or with NULL all of a port; true: one was
   `port`'s. */
static bool ghosts_remove(HANDLE handle, const portio_port *port)
{
    bool found = false;
    AcquireSRWLockExclusive(&ghosts_lock);
    for (struct ghost **link = &ghosts; *link != NULL;) {
        struct ghost *ghost = *link;
        if (handle != NULL ? ghost->handle != handle : ghost->port != port) {
            link = &ghost->next;
            continue;
        }
        found = found || ghost->port == port;
        *link = ghost->next;
        free(ghost);
    }
    ReleaseSRWLockExclusive(&ghosts_lock);
    return found;
}

static void ghosts_add(HANDLE handle, portio_port *port)
{
    struct ghost *ghost = malloc(sizeof *ghost);
    if (ghost == NULL)
        return; /* then it can not be associated again */
    ghost->handle = handle;
    ghost->port = port;
    AcquireSRWLockExclusive(&ghosts_lock);
    ghost->next = ghosts;
    ghosts = ghost;
    ReleaseSRWLockExclusive(&ghosts_lock);
}

/* ---- what a handle is ---- */

/* 0, a Windows error, or WSAENOTSOCK. */
static uint32_t socket_inspect(struct handle *handle, SOCKET socket)
{
    WSAPROTOCOL_INFOW info;
    int length = sizeof info;
    if (getsockopt(socket, SOL_SOCKET, SO_PROTOCOL_INFOW, (char *)&info, &length) != 0)
        return (uint32_t)WSAGetLastError();
    handle->type = info.iSocketType == SOCK_STREAM ? PORTIO_STREAM_SOCKET : PORTIO_DATAGRAM_SOCKET;
    handle->family = info.iAddressFamily;
    handle->kind = info.iSocketType;
    handle->protocol = info.iProtocol;
    handle->catalog = info.dwCatalogEntryId;
    handle->provides_handles = (info.dwServiceFlags1 & XP1_IFS_HANDLES) != 0 &&
                               info.ProtocolChain.ChainLen == BASE_PROTOCOL;
    return 0;
}

static uint32_t file_inspect(struct handle *handle, HANDLE file)
{
    DWORD mode;
    BY_HANDLE_FILE_INFORMATION information;
    SetLastError(0);
    switch (GetFileType(file)) {
    case FILE_TYPE_DISK:
        if (GetFileInformationByHandle(file, &information) &&
            (information.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY) != 0)
            return ERROR_DIRECTORY_NOT_SUPPORTED;
        handle->type = PORTIO_FILE;
        return 0;
    case FILE_TYPE_PIPE:
        handle->type = PORTIO_PIPE;
        handle->messages = GetNamedPipeInfo(file, &mode, NULL, NULL, NULL) &&
                           (mode & PIPE_TYPE_MESSAGE) != 0;
        return 0;
    case FILE_TYPE_CHAR:
        if (GetConsoleMode(file, &mode))
            return ERROR_NOT_SUPPORTED; /* consoles know no overlapped I/O */
        handle->type = PORTIO_PIPE;
        handle->device = true;
        return 0;
    default:
        return GetLastError() != 0 ? ERROR_INVALID_HANDLE : ERROR_NOT_SUPPORTED;
    }
}

static bool is_overlapped(HANDLE file)
{
    struct nt_file_mode mode;
    struct nt_status_block block;
    /* Where the system does not tell, the association will. */
    return nt.query_file(file, &block, &mode, sizeof mode, NT_FILE_MODE_INFORMATION) < 0 ||
           (mode.mode & NT_SYNCHRONOUS_MODES) == 0;
}

/* Whether the system may leave out the packets of calls that succeed at once.  Not of
   datagrams: not every Windows knows how; nor where a layered provider hands out
   handles that are not the system's own, and completes them in its own way. */
static bool may_skip(const portio_port *port, const struct handle *handle)
{
    if ((port->features & FEATURE_SKIP_SUCCESS) == 0 || handle->type == PORTIO_DATAGRAM_SOCKET)
        return false;
    return handle->type != PORTIO_STREAM_SOCKET || handle->provides_handles;
}

/* The mode stays with the file object for good, and who had the handle before us may
   have set it: then what the system says counts.  It does so only of a handle with the
   right to read attributes. */
static bool is_skipping(HANDLE number)
{
    ULONG modes = 0; /* FILE_IO_COMPLETION_NOTIFICATION_INFORMATION */
    struct nt_status_block block;
    return nt.query_file(number, &block, &modes, sizeof modes,
                         NT_FILE_IO_COMPLETION_NOTIFICATION_INFORMATION) >= 0 &&
           (modes & FILE_SKIP_COMPLETION_PORT_ON_SUCCESS) != 0;
}

#define SKIPPING_MODES (FILE_SKIP_COMPLETION_PORT_ON_SUCCESS | FILE_SKIP_SET_EVENT_ON_HANDLE)

static void handle_skip(const portio_port *port, struct handle *handle, HANDLE number)
{
    handle->skips = (may_skip(port, handle) &&
                     SetFileCompletionNotificationModes(number, SKIPPING_MODES)) ||
                    is_skipping(number);
}

static int handle_attach(portio_port *port, struct handle *handle, HANDLE number)
{
    handle->handle = number;
    uint32_t error = socket_inspect(handle, (SOCKET)(uintptr_t)number);
    bool is_socket = error != WSAENOTSOCK;
    if (!is_socket)
        error = file_inspect(handle, number);
    if (error != 0)
        return PORTIO_SYSTEM - (int)error;
    if (!is_overlapped(number))
        return PORTIO_NOT_OVERLAPPED;
    if (CreateIoCompletionPort(number, port->port, KEY_IO, 0) != NULL) {
        ghosts_remove(number, port);
    } else {
        error = GetLastError();
        if (error == ERROR_INVALID_PARAMETER && !ghosts_remove(number, port))
            return PORTIO_SYSTEM - ERROR_BUSY; /* it belongs to a port */
        if (error != ERROR_INVALID_PARAMETER)
            return PORTIO_SYSTEM - (int)error;
    }
    if (is_socket)
        socket_prepare(handle, (SOCKET)(uintptr_t)number);
    handle_skip(port, handle, number);
    return 0;
}

/* Ends the association; the handle stays open. */
static uint32_t handle_detach(const portio_port *port, const struct handle *handle)
{
    struct nt_file_completion none = {NULL, NULL};
    struct nt_status_block block;
    if ((port->features & FEATURE_DISASSOCIATE) == 0)
        return ERROR_NOT_SUPPORTED;
    if (!socket_is_same(handle))
        return 0; /* closed: nothing is left of the association, and the number is another's */
    LONG status = nt.set_file(handle->handle, &block, &none, sizeof none,
                              NT_FILE_REPLACE_COMPLETION_INFORMATION);
    return status >= 0 ? 0 : nt.status_to_error(status);
}

/* ---- the door ---- */

int portio_handle_open(portio_port *port, int64_t number, portio_handle *out)
{
    int refused = port_enter(port);
    if (refused != 0)
        return refused;
    port_lock(port);
    struct handle *handle = handles_add(&port->handles);
    port_unlock(port);
    if (handle == NULL) {
        port_leave(port);
        return PORTIO_NO_MEMORY;
    }
    refused = handle_attach(port, handle, (HANDLE)(intptr_t)number);
    if (refused == 0) {
        out->id = handle->id;
        out->type = handle->type;
        out->family = handle->family;
    } else {
        handle->dead = true;
    }
    handle_leave(port, handle);
    port_leave(port);
    return refused;
}

int portio_handle_adopt(portio_port *port, uint64_t listener, int64_t number,
                        portio_handle *out)
{
    (void)listener; /* a layered provider may have made the socket: that has to be asked anyway */
    return portio_handle_open(port, number, out);
}

int portio_handle_release(portio_port *port, uint64_t id)
{
    int refused = port_enter(port);
    if (refused != 0)
        return refused;
    port_lock(port);
    struct handle *handle = handles_find(&port->handles, id);
    if (handle == NULL) {
        refused = PORTIO_NO_HANDLE;
    } else if (handle->pending > 0) {
        refused = PORTIO_BUSY;
    } else {
        handle->pending++; /* as a visitor */
        handle->id = 0;    /* nobody finds it: no operation comes in between */
    }
    port_unlock(port);
    if (refused == 0) {
        uint32_t error = handle_detach(port, handle);
        if (error != 0)
            refused = error == ERROR_NOT_SUPPORTED ? PORTIO_UNSUPPORTED
                                                   : PORTIO_SYSTEM - (int)error;
        port_lock(port);
        if (refused == 0)
            handle->dead = true;
        else
            handle->id = id;
        handle_leave_locked(port, handle);
        port_unlock(port);
    }
    port_leave(port);
    return refused;
}

static int handle_end(portio_port *port, uint64_t id, bool close_it)
{
    int refused = port_enter(port);
    if (refused != 0)
        return refused;
    port_lock(port);
    struct handle *handle = handles_find(&port->handles, id);
    if (handle != NULL) {
        handle->id = 0;
        handle->dead = true;
        handle->closing = true;
        handle->pending++; /* as a visitor */
        /* Either we see who is in a call, or who leaves it sees `closing`. */
        MemoryBarrier();
        while (handle->calls > 0)
            SleepConditionVariableSRW(&port->calls_done, &port->lock, INFINITE, 0);
        handle->abandoned = true; /* from now on nobody uses the number */
    }
    port_unlock(port);
    if (handle != NULL) {
        if (close_it) {
            CancelIoEx(handle->handle, NULL);
            if (handle->type == PORTIO_FILE || handle->type == PORTIO_PIPE)
                CloseHandle(handle->handle);
            else
                closesocket((SOCKET)(uintptr_t)handle->handle);
        } else if ((port->features & FEATURE_DISASSOCIATE) == 0) {
            ghosts_add(handle->handle, port);
        }
        handle_cancel_queued(port, handle);
        handle_leave(port, handle);
    }
    port_leave(port);
    return handle != NULL ? 0 : PORTIO_NO_HANDLE;
}

int portio_handle_close(portio_port *port, uint64_t id)
{
    return handle_end(port, id, true);
}

int portio_handle_abandon(portio_port *port, uint64_t id)
{
    return handle_end(port, id, false);
}

/* ---- the end of the port ---- */

void handles_give_back(portio_port *port)
{
    for (uint32_t index = 0; index < port->handles.count; index++) {
        struct handle *handle = handles_at(&port->handles, index);
        if (handle->id != 0)
            handle_detach(port, handle); /* or it stays the dead port's */
        handle->id = 0;
    }
    ghosts_remove(NULL, port);
}

void handles_destroy(struct handles *handles)
{
    for (uint32_t at = 0; at < handles->count; at += 1u << HANDLE_CHUNK_BITS)
        free(handles->chunks[at >> HANDLE_CHUNK_BITS]);
    free(handles->chunks);
    handles->chunks = NULL;
}
