/* The kinds of operation on sockets, except SendFile.

   Functions that are not part of Winsock proper (AcceptEx, ConnectEx) belong to the
   provider that made a socket, and are asked for with one of its sockets.  The
   answers are kept by the provider's number in the catalogue. */
#include "iocp.h"

#include <stdlib.h>

/* The most bytes that one call receives.  Winsock locks the memory of a pending call
   in place, and ends it with WSAENOBUFS when that is too much. */
#define RECEIVE_MOST (UINT64_C(16) << 20)
/* The most that one call sends on a stream.  Of a send that is cancelled the system
   does not say how much went, so the parts that are complete are what we know. */
#define SEND_MOST (UINT64_C(256) << 10)
/* The most buffers of a datagram; Python joins longer sequences. */
#define DATAGRAM_VECTORS 1024

/* AcceptEx wants 16 bytes more than the longest address, for each of the two. */
#define ACCEPT_ADDRESS (sizeof(SOCKADDR_STORAGE) + 16)

/* ---- the providers' functions ---- */

struct functions {
    DWORD catalog;
    LPFN_ACCEPTEX accept;
    LPFN_CONNECTEX connect;
};

#define PROVIDERS 16
static SRWLOCK functions_lock = SRWLOCK_INIT;
static struct functions functions_known[PROVIDERS];
static uint32_t functions_count;

static bool function_get(SOCKET socket, GUID identifier, void *function, size_t size)
{
    DWORD bytes = 0;
    return WSAIoctl(socket, SIO_GET_EXTENSION_FUNCTION_POINTER, &identifier, sizeof identifier,
                    function, (DWORD)size, &bytes, NULL, NULL) == 0;
}

/* 0, or an error of Winsock. */
static uint32_t functions_find(const struct handle *handle, SOCKET socket, struct functions *out)
{
    AcquireSRWLockShared(&functions_lock);
    for (uint32_t at = 0; at < functions_count; at++) {
        if (functions_known[at].catalog == handle->catalog) {
            *out = functions_known[at];
            ReleaseSRWLockShared(&functions_lock);
            return 0;
        }
    }
    ReleaseSRWLockShared(&functions_lock);
    GUID accept = WSAID_ACCEPTEX, connect = WSAID_CONNECTEX;
    out->catalog = handle->catalog;
    if (!function_get(socket, accept, &out->accept, sizeof out->accept) ||
        !function_get(socket, connect, &out->connect, sizeof out->connect))
        return (uint32_t)WSAGetLastError();
    AcquireSRWLockExclusive(&functions_lock);
    if (functions_count < PROVIDERS)
        functions_known[functions_count++] = *out; /* twice does no harm */
    ReleaseSRWLockExclusive(&functions_lock);
    return 0;
}

static SOCKET socket_of(const struct op *op)
{
    return (SOCKET)(uintptr_t)op->handle->handle;
}

/* ---- which connection it is ---- */

/* A number is given out again when its socket is closed, which the program may do
   behind our back.  The rest of a transfer, and operations that have waited for their
   turn, must not go to the next owner (K6).  Two connections never have the same two
   addresses at a time, so a hash of these tells (FNV-1a). */

static uint64_t hash_bytes(uint64_t hash, const void *bytes, int count)
{
    const unsigned char *byte = bytes;
    for (int at = 0; at < count; at++)
        hash = (hash ^ byte[at]) * UINT64_C(0x100000001b3);
    return hash;
}

/* 0: it is not connected, or not any more. */
static uint64_t connection_of(SOCKET socket)
{
    SOCKADDR_STORAGE name, peer;
    int name_length = sizeof name, peer_length = sizeof peer;
    if (getsockname(socket, (struct sockaddr *)&name, &name_length) != 0 ||
        getpeername(socket, (struct sockaddr *)&peer, &peer_length) != 0)
        return 0;
    uint64_t hash = hash_bytes(UINT64_C(0xcbf29ce484222325), &name, name_length);
    return hash_bytes(hash, &peer, peer_length) | 1;
}

void socket_note_connection(struct handle *handle)
{
    if (handle->connection == 0)
        handle->connection = connection_of((SOCKET)(uintptr_t)handle->handle);
}

bool socket_is_same(const struct handle *handle)
{
    if (handle->type != PORTIO_STREAM_SOCKET || handle->connection == 0)
        return true;
    uint64_t now = connection_of((SOCKET)(uintptr_t)handle->handle);
    if (now != 0)
        return now == handle->connection;
    return WSAGetLastError() != WSAENOTSOCK; /* a connection that is lost stays ours */
}

/* ---- association ---- */

/* By default a datagram socket that has sent to a port where nobody listens fails
   its next receive with WSAECONNRESET, also when the datagram was for somebody
   else.  A connected socket has one peer, and hears of it (O12). */
static void unreachable_report(SOCKET socket, BOOL wanted)
{
    DWORD bytes = 0;
    /* The second: a datagram that lived too long on its way. */
    WSAIoctl(socket, SIO_UDP_CONNRESET, &wanted, sizeof wanted, NULL, 0, &bytes, NULL, NULL);
    WSAIoctl(socket, SIO_UDP_NETRESET, &wanted, sizeof wanted, NULL, 0, &bytes, NULL, NULL);
}

/* Whether connections arrive there.  A socket that listens never does anything else. */
static bool socket_listens(SOCKET socket)
{
    BOOL listens = FALSE;
    int length = sizeof listens;
    return getsockopt(socket, SOL_SOCKET, SO_ACCEPTCONN, (char *)&listens, &length) == 0 &&
           listens;
}

void socket_prepare(struct handle *handle, SOCKET socket)
{
    handle->listens = handle->kind == SOCK_STREAM && socket_listens(socket);
    SOCKADDR_STORAGE peer;
    int length = sizeof peer;
    if (handle->kind == SOCK_DGRAM &&
        getpeername(socket, (struct sockaddr *)&peer, &length) != 0)
        unreachable_report(socket, FALSE);
}

/* ---- Accept ---- */

static enum step accept_step(portio_port *port, struct op *op)
{
    struct handle *handle = op->handle;
    SOCKET listener = socket_of(op);
    struct functions functions;
    if (!handle->listens)
        handle->listens = socket_listens(listener);
    op->error = handle->listens ? functions_find(handle, listener, &functions) : WSAEINVAL;
    if (op->error != 0)
        return STEP_DONE;
    if (op->accepted == INVALID_SOCKET)
        op->accepted = WSASocketW(handle->family, handle->kind, handle->protocol, NULL, 0,
                                  WSA_FLAG_OVERLAPPED | WSA_FLAG_NO_HANDLE_INHERIT);
    if (op->accepted == INVALID_SOCKET) {
        op->error = (uint32_t)WSAGetLastError();
        return STEP_DONE;
    }
    if (op->block == NULL)
        op->block = malloc(2 * ACCEPT_ADDRESS);
    if (op->block == NULL) {
        op->error = WSAENOBUFS;
        return STEP_DONE;
    }
    op_overlapped(op, 0);
    DWORD bytes = 0;
    bool accepted = functions.accept(listener, op->accepted, op->block, 0, ACCEPT_ADDRESS,
                                     ACCEPT_ADDRESS, &bytes, &op->overlapped);
    return op_called(port, op, accepted ? 0 : (uint32_t)WSAGetLastError());
}

/* Makes it an ordinary socket: the option's value is the listener. */
static uint32_t accepted_update(struct op *op)
{
    SOCKET listener = socket_of(op);
    if (!handle_calls_enter(op->port, op->handle))
        return ERROR_OPERATION_ABORTED; /* the listener closes: so does what it has accepted */
    int failed = setsockopt(op->accepted, SOL_SOCKET, SO_UPDATE_ACCEPT_CONTEXT,
                            (char *)&listener, sizeof listener);
    uint32_t error = failed != 0 ? (uint32_t)WSAGetLastError() : 0;
    handle_calls_leave(op->port, op->handle);
    return error; /* WSAENOTCONN: the client is gone since */
}

static bool accept_settle(struct op *op, uint32_t error)
{
    if (error == 0)
        error = accepted_update(op);
    if (error == WSAECONNRESET || error == WSAECONNABORTED || error == ERROR_NETNAME_DELETED ||
        error == WSAENOTCONN) {
        /* The client was gone before it was accepted; that ends no accept loop.
           The socket has been used up. */
        closesocket(op->accepted);
        op->accepted = INVALID_SOCKET;
        return false;
    }
    op->error = error;
    if (error == 0) {
        op->nbytes = (int64_t)op->accepted;
        op->accepted = INVALID_SOCKET; /* the completion's now */
    }
    return true;
}

/* ---- Connect ---- */

/* ConnectEx wants a bound socket. */
static uint32_t socket_bind(SOCKET socket, int family)
{
    SOCKADDR_STORAGE name;
    int length = sizeof name;
    if (getsockname(socket, (struct sockaddr *)&name, &length) == 0)
        return 0;
    memset(&name, 0, sizeof name); /* any address, any port */
    name.ss_family = (ADDRESS_FAMILY)family;
    length = family == AF_INET6 ? (int)sizeof(struct sockaddr_in6)
                                : (int)sizeof(struct sockaddr_in);
    return bind(socket, (struct sockaddr *)&name, length) == 0 ? 0 : (uint32_t)WSAGetLastError();
}

static enum step datagram_connect(struct op *op)
{
    /* A datagram socket only notes the address. */
    if (WSAConnect(socket_of(op), op->address, (int)*op->address_length, NULL, NULL, NULL,
                   NULL) != 0)
        op->error = (uint32_t)WSAGetLastError();
    else
        unreachable_report(socket_of(op), TRUE);
    return STEP_DONE;
}

static enum step connect_step(portio_port *port, struct op *op)
{
    SOCKET socket = socket_of(op);
    struct functions functions;
    if (op->handle->type == PORTIO_DATAGRAM_SOCKET)
        return datagram_connect(op);
    op->error = functions_find(op->handle, socket, &functions);
    if (op->error == 0)
        op->error = socket_bind(socket, op->handle->family);
    if (op->error != 0)
        return STEP_DONE;
    op_overlapped(op, 0);
    bool connected = functions.connect(socket, op->address, (int)*op->address_length, NULL, 0,
                                       NULL, &op->overlapped);
    return op_called(port, op, connected ? 0 : (uint32_t)WSAGetLastError());
}

static uint32_t connected_update(struct op *op)
{
    if (!handle_calls_enter(op->port, op->handle))
        return ERROR_OPERATION_ABORTED;
    int failed = setsockopt(socket_of(op), SOL_SOCKET, SO_UPDATE_CONNECT_CONTEXT, NULL, 0);
    uint32_t error = failed != 0 ? (uint32_t)WSAGetLastError() : 0;
    if (error == 0)
        socket_note_connection(op->handle);
    handle_calls_leave(op->port, op->handle);
    return error;
}

static bool connect_settle(struct op *op, uint32_t error)
{
    op->error = error != 0 ? error : connected_update(op);
    return true;
}

/* ---- receiving and sending ---- */

/* The steps of a receive with a pool: one of no bytes, which is over when there is data
   or the end, and the real one, with a buffer. */
enum { PHASE_LOOK, PHASE_TAKE };

static enum step receive_step(portio_port *port, struct op *op)
{
    SOCKET socket = socket_of(op);
    bool stream = op->handle->type == PORTIO_STREAM_SOCKET;
    WSABUF buffers[DATAGRAM_VECTORS];
    if (op->handle->ended)
        return STEP_DONE; /* the receiving side was shut down: 0 bytes */
    if (op->handle->listens) {
        op->error = WSAENOTCONN;
        return STEP_DONE;
    }
    if (stream)
        socket_note_connection(op->handle);
    bool done = false;
    DWORD count = 1;
    if (op_is_pooled(op) && op->phase == PHASE_LOOK)
        buffers[0] = (WSABUF){0, NULL};
    else if (op_is_pooled(op) && !pool_borrow(port, op, &done))
        return done ? STEP_DONE : STEP_ISSUED;
    else
        count = transfer_buffers(op, buffers, stream ? TRANSFER_VECTORS : DATAGRAM_VECTORS,
                                 stream ? RECEIVE_MOST : UINT32_MAX);
    op->message_flags = (DWORD)op->argument;
    op_overlapped(op, 0);
    int failed;
    if (op->kind == PORTIO_RECVFROM && !stream)
        failed = WSARecvFrom(socket, buffers, count, NULL, &op->message_flags, op->address,
                             (int *)op->address_length, &op->overlapped, NULL);
    else
        failed = WSARecv(socket, buffers, count, NULL, &op->message_flags, &op->overlapped, NULL);
    return op_called(port, op, failed == 0 ? 0 : (uint32_t)WSAGetLastError());
}

static bool receive_settle(struct op *op, uint32_t error, DWORD bytes)
{
    bool stream = op->handle->type == PORTIO_STREAM_SOCKET;
    if (op->kind == PORTIO_RECVFROM && stream)
        *op->address_length = 0; /* streams name nobody */
    if (!stream) {
        op->nbytes = bytes; /* also of a datagram that did not fit */
        op->error = error == WSAECONNRESET ? ERROR_PORT_UNREACHABLE : error;
        return true;
    }
    if (error == WSAEDISCON || error == WSAESHUTDOWN)
        error = 0; /* the end of the stream */
    if (op_is_pooled(op) && op->phase == PHASE_LOOK && error == 0) {
        op->phase = PHASE_TAKE;
        return false;
    }
    op->nbytes += bytes;
    op->error = error;
    bool whole = (op->argument & (MSG_WAITALL | MSG_PEEK | MSG_OOB)) == MSG_WAITALL;
    return error != 0 || bytes == 0 || !whole || transfer_consume(op, bytes);
}

static enum step send_step(portio_port *port, struct op *op)
{
    SOCKET socket = socket_of(op);
    bool stream = op->handle->type == PORTIO_STREAM_SOCKET;
    WSABUF buffers[DATAGRAM_VECTORS];
    if (stream)
        socket_note_connection(op->handle);
    DWORD count = transfer_buffers(op, buffers, stream ? TRANSFER_VECTORS : DATAGRAM_VECTORS,
                                   stream ? SEND_MOST : UINT32_MAX);
    op_overlapped(op, 0);
    int failed;
    if (op->kind == PORTIO_SENDTO)
        failed = WSASendTo(socket, buffers, count, NULL, (DWORD)op->argument, op->address,
                           (int)*op->address_length, &op->overlapped, NULL);
    else
        failed = WSASend(socket, buffers, count, NULL, (DWORD)op->argument, &op->overlapped, NULL);
    return op_called(port, op, failed == 0 ? 0 : (uint32_t)WSAGetLastError());
}

static bool send_settle(struct op *op, uint32_t error, DWORD bytes)
{
    if (op->handle->type == PORTIO_DATAGRAM_SOCKET) {
        op->nbytes = error == 0 ? bytes : 0;
        op->error = error == WSAECONNRESET ? ERROR_PORT_UNREACHABLE : error;
        return true;
    }
    op->nbytes += bytes;
    op->error = error;
    if (error != 0 || transfer_consume(op, bytes))
        return true;
    if (bytes == 0 && transfer_room(op) != 0) {
        op->error = WSAECONNABORTED; /* nothing is sent and nothing is wrong: no retry mends it */
        return true;
    }
    return transfer_room(op) == 0;
}

/* ---- Shutdown ---- */

static enum step shutdown_step(portio_port *port, struct op *op)
{
    static const int ways[] = {SD_RECEIVE, SD_SEND, SD_BOTH};
    int way = ways[op->argument];
    if (shutdown(socket_of(op), way) != 0)
        op->error = (uint32_t)WSAGetLastError();
    else if (way != SD_SEND)
        handle_end_receives(port, op->handle); /* the system leaves them pending */
    return STEP_DONE;
}

/* ---- */

enum step socket_step(portio_port *port, struct op *op)
{
    switch (op->kind) {
    case PORTIO_ACCEPT:
        return accept_step(port, op);
    case PORTIO_CONNECT:
        return connect_step(port, op);
    case PORTIO_RECV:
    case PORTIO_RECVFROM:
        return receive_step(port, op);
    case PORTIO_SEND:
    case PORTIO_SENDTO:
        return send_step(port, op);
    default:
        return shutdown_step(port, op);
    }
}

bool socket_settle(struct op *op, uint32_t error, DWORD bytes)
{
    switch (op->kind) {
    case PORTIO_ACCEPT:
        return accept_settle(op, error);
    case PORTIO_CONNECT:
        return connect_settle(op, error);
    case PORTIO_RECV:
    case PORTIO_RECVFROM:
        return receive_settle(op, error, bytes);
    default:
        return send_settle(op, error, bytes);
    }
}
