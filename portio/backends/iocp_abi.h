/* What the iocp engine uses of Windows: the headers, and the few things of the
   system's native interface that they leave out.

   Nothing here needs a newer Windows than 8.1.  Functions of ntdll are looked up
   when the engine is loaded (iocp_feature.c), because there is no import library
   for all of them. */
#ifndef PORTIO_IOCP_ABI_H
#define PORTIO_IOCP_ABI_H

#ifndef _WIN32_WINNT
#define _WIN32_WINNT 0x0602
#endif
#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif

/* In this order: winsock2.h must come before windows.h. */
#include <winsock2.h>
#include <ws2tcpip.h>
#include <mswsock.h>
#include <windows.h>

#include <string.h>

#include "native.h"

_Static_assert(sizeof(void *) == 8, "tokens travel in the pointer of a packet");
_Static_assert(sizeof(OVERLAPPED) == 32, "OVERLAPPED");
_Static_assert(offsetof(OVERLAPPED, Internal) == 0, "the NTSTATUS comes first");
_Static_assert(offsetof(OVERLAPPED, InternalHigh) == 8, "then the bytes");
_Static_assert(offsetof(OVERLAPPED, Offset) == 16, "then the offset");
_Static_assert(offsetof(OVERLAPPED, hEvent) == 24, "then the event");
_Static_assert(sizeof(OVERLAPPED_ENTRY) == 32, "OVERLAPPED_ENTRY");
_Static_assert(sizeof(WSABUF) == 16, "WSABUF");
_Static_assert(sizeof(int) == sizeof(uint32_t), "address lengths are int there, uint32_t here");
_Static_assert(sizeof(LONG) == 4, "LONG is what the Interlocked functions work on");

#ifndef ERROR_DIRECTORY_NOT_SUPPORTED /* winerror.h; mingw-w64 lacks it */
#define ERROR_DIRECTORY_NOT_SUPPORTED 336L
#endif

#ifndef SIO_UDP_NETRESET /* mswsock.h; mingw-w64 lacks it */
#define SIO_UDP_NETRESET _WSAIOW(IOC_VENDOR, 15)
#endif

/* ntifs.h: NTSTATUS values that the engine tells apart, and the two high bits. */
#define NT_SEVERITY(status) ((uint32_t)(status) >> 30)
#define NT_INFORMATIONAL 1 /* a success with a remark: a part of a message, urgent data */
#define NT_WARNING 2
#define NT_ALERTED UINT32_C(0x00000101)
#define NT_PENDING UINT32_C(0x00000103)
#define NT_BUFFER_OVERFLOW UINT32_C(0x80000005)
#define NT_HANDLES_CLOSED UINT32_C(0x8000000A)
#define NT_NOT_IMPLEMENTED UINT32_C(0xC0000002)
#define NT_INVALID_INFO_CLASS UINT32_C(0xC0000003)
#define NT_ACCESS_VIOLATION UINT32_C(0xC0000005)
#define NT_INVALID_HANDLE UINT32_C(0xC0000008)
#define NT_NO_SUCH_DEVICE UINT32_C(0xC000000E)
#define NT_END_OF_FILE UINT32_C(0xC0000011)
#define NT_NO_MEMORY UINT32_C(0xC0000017)
#define NT_ACCESS_DENIED UINT32_C(0xC0000022)
#define NT_BUFFER_TOO_SMALL UINT32_C(0xC0000023)
#define NT_SHARING_VIOLATION UINT32_C(0xC0000043)
#define NT_QUOTA_EXCEEDED UINT32_C(0xC0000044)
#define NT_INSUFFICIENT_RESOURCES UINT32_C(0xC000009A)
#define NT_WORKING_SET_QUOTA UINT32_C(0xC00000A1)
#define NT_IO_TIMEOUT UINT32_C(0xC00000B5)
#define NT_NOT_SUPPORTED UINT32_C(0xC00000BB)
#define NT_BAD_NETWORK_PATH UINT32_C(0xC00000BE)
#define NT_INVALID_NETWORK_RESPONSE UINT32_C(0xC00000C3)
#define NT_REQUEST_NOT_ACCEPTED UINT32_C(0xC00000D0)
#define NT_CANCELLED UINT32_C(0xC0000120)
#define NT_COMMITMENT_LIMIT UINT32_C(0xC000012D)
#define NT_LOCAL_DISCONNECT UINT32_C(0xC000013B)
#define NT_REMOTE_DISCONNECT UINT32_C(0xC000013C)
#define NT_REMOTE_RESOURCES UINT32_C(0xC000013D)
#define NT_LINK_FAILED UINT32_C(0xC000013E)
#define NT_LINK_TIMEOUT UINT32_C(0xC000013F)
#define NT_INVALID_CONNECTION UINT32_C(0xC0000140)
#define NT_INVALID_ADDRESS UINT32_C(0xC0000141)
#define NT_INVALID_BUFFER_SIZE UINT32_C(0xC0000206)
#define NT_INVALID_ADDRESS_COMPONENT UINT32_C(0xC0000207)
#define NT_TOO_MANY_ADDRESSES UINT32_C(0xC0000209)
#define NT_ADDRESS_ALREADY_EXISTS UINT32_C(0xC000020A)
#define NT_CONNECTION_DISCONNECTED UINT32_C(0xC000020C)
#define NT_CONNECTION_RESET UINT32_C(0xC000020D)
#define NT_TRANSACTION_ABORTED UINT32_C(0xC000020F)
#define NT_CONNECTION_REFUSED UINT32_C(0xC0000236)
#define NT_GRACEFUL_DISCONNECT UINT32_C(0xC0000237)
#define NT_NETWORK_UNREACHABLE UINT32_C(0xC000023C)
#define NT_HOST_UNREACHABLE UINT32_C(0xC000023D)
#define NT_PROTOCOL_UNREACHABLE UINT32_C(0xC000023E)
#define NT_PORT_UNREACHABLE UINT32_C(0xC000023F)
#define NT_REQUEST_ABORTED UINT32_C(0xC0000240)
#define NT_CONNECTION_ABORTED UINT32_C(0xC0000241)
#define NT_HOPLIMIT_EXCEEDED UINT32_C(0xC000A012)

/* ntifs.h: FILE_INFORMATION_CLASS. */
#define NT_FILE_ACCESS_INFORMATION 8
#define NT_FILE_MODE_INFORMATION 16
#define NT_FILE_PIPE_LOCAL_INFORMATION 24
#define NT_FILE_IO_COMPLETION_NOTIFICATION_INFORMATION 41
#define NT_FILE_REPLACE_COMPLETION_INFORMATION 61 /* from Windows 8.1 */

/* Reads what another thread has written with a full barrier, before anything that
   it has published with that.  MSVC's volatile does not promise it on ARM64, and not
   every mingw-w64 has ReadAcquire. */
static inline LONG load_acquire(const volatile LONG *value)
{
#ifdef __GNUC__
    return __atomic_load_n(value, __ATOMIC_ACQUIRE);
#else
    return ReadAcquire(value);
#endif
}

struct nt_status_block { /* IO_STATUS_BLOCK */
    union {
        LONG status;
        void *pointer;
    } u;
    ULONG_PTR information;
};

struct nt_file_mode { /* FILE_MODE_INFORMATION */
    ULONG mode;
};
#define NT_SYNCHRONOUS_MODES UINT32_C(0x30) /* FILE_SYNCHRONOUS_IO_ALERT | _NONALERT */

struct nt_file_completion { /* FILE_COMPLETION_INFORMATION */
    HANDLE port;
    void *key;
};

struct nt_pipe_local { /* FILE_PIPE_LOCAL_INFORMATION */
    ULONG type;
    ULONG configuration;
    ULONG maximum_instances;
    ULONG current_instances;
    ULONG inbound_quota;
    ULONG read_data_available;
    ULONG outbound_quota;
    ULONG write_quota_available;
    ULONG state;
    ULONG end;
};

_Static_assert(sizeof(struct nt_status_block) == 16, "IO_STATUS_BLOCK");
_Static_assert(sizeof(struct nt_file_completion) == 16, "FILE_COMPLETION_INFORMATION");
_Static_assert(sizeof(struct nt_pipe_local) == 40, "FILE_PIPE_LOCAL_INFORMATION");

typedef LONG(NTAPI *nt_file_information_function)(HANDLE, struct nt_status_block *, void *, ULONG,
                                                  int);
typedef ULONG(NTAPI *nt_status_to_error_function)(LONG);

#endif
