/* What the system's answers mean: the NTSTATUS of a finished step becomes one of
   the error numbers that Winsock and the Windows API use, whichever way the error
   came.  Python makes the errno of it (portio/windows.py).

   RtlNtStatusToDosError alone does not do for sockets: it gives ERROR_NETNAME_DELETED
   where the call itself would have said WSAECONNRESET. */
#include "iocp.h"

static uint32_t error_of_socket(const struct op *op, uint32_t status)
{
    switch (status) {
    case NT_PORT_UNREACHABLE:
        /* The answer to an earlier datagram.  Winsock calls it a reset, but a
           datagram has no connection; ERROR_PORT_UNREACHABLE says what it is. */
        if (op->handle->type == PORTIO_DATAGRAM_SOCKET)
            return ERROR_PORT_UNREACHABLE;
        return WSAECONNREFUSED;
    case NT_CONNECTION_RESET:
    case NT_REMOTE_DISCONNECT:
    case NT_LINK_FAILED:
    case NT_CONNECTION_DISCONNECTED:
    case NT_HOPLIMIT_EXCEEDED:
        return WSAECONNRESET;
    case NT_CONNECTION_REFUSED:
    case NT_INVALID_NETWORK_RESPONSE:
        return WSAECONNREFUSED;
    case NT_CONNECTION_ABORTED:
    case NT_LOCAL_DISCONNECT:
    case NT_TRANSACTION_ABORTED:
    case NT_REQUEST_ABORTED:
    case NT_ALERTED: /* how much was sent, nobody knows: see step_status */
        return WSAECONNABORTED;
    case NT_GRACEFUL_DISCONNECT:
        return WSAEDISCON;
    case NT_INVALID_CONNECTION:
        return WSAENOTCONN;
    case NT_IO_TIMEOUT:
    case NT_LINK_TIMEOUT:
        return WSAETIMEDOUT;
    case NT_NETWORK_UNREACHABLE:
    case NT_PROTOCOL_UNREACHABLE:
    case NT_BAD_NETWORK_PATH:
        return WSAENETUNREACH;
    case NT_HOST_UNREACHABLE:
        return WSAEHOSTUNREACH;
    case NT_BUFFER_OVERFLOW:
    case NT_INVALID_BUFFER_SIZE:
        return WSAEMSGSIZE;
    case NT_BUFFER_TOO_SMALL:
    case NT_ACCESS_VIOLATION:
        return WSAEFAULT;
    case NT_TOO_MANY_ADDRESSES:
    case NT_ADDRESS_ALREADY_EXISTS:
    case NT_SHARING_VIOLATION:
        return WSAEADDRINUSE;
    case NT_INVALID_ADDRESS:
    case NT_INVALID_ADDRESS_COMPONENT:
        return WSAEADDRNOTAVAIL;
    case NT_NO_MEMORY:
    case NT_QUOTA_EXCEEDED:
    case NT_INSUFFICIENT_RESOURCES:
    case NT_WORKING_SET_QUOTA:
    case NT_COMMITMENT_LIMIT:
    case NT_REMOTE_RESOURCES:
        return WSAENOBUFS;
    case NT_REQUEST_NOT_ACCEPTED:
        return WSAEWOULDBLOCK;
    case NT_NO_SUCH_DEVICE:
        return WSAENETDOWN;
    case NT_ACCESS_DENIED:
        return WSAEACCES;
    case NT_NOT_SUPPORTED:
    case NT_NOT_IMPLEMENTED:
        return WSAEOPNOTSUPP;
    case NT_INVALID_HANDLE:
        return WSAENOTSOCK;
    default:
        return nt.status_to_error((LONG)status);
    }
}

uint32_t error_of_status(const struct op *op, uint32_t status)
{
    if (status == 0 || NT_SEVERITY(status) == NT_INFORMATIONAL)
        return 0;
    if (status == NT_CANCELLED || status == NT_HANDLES_CLOSED)
        return ERROR_OPERATION_ABORTED;
    int type = op->handle != NULL ? op->handle->type : 0;
    if (type == PORTIO_STREAM_SOCKET || type == PORTIO_DATAGRAM_SOCKET)
        return error_of_socket(op, status);
    return nt.status_to_error((LONG)status);
}

bool error_is_abort(uint32_t error)
{
    return error == ERROR_OPERATION_ABORTED || error == WSAEINTR;
}
