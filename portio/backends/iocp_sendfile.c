/* SendFile: a part of a file into a stream.

   Where the system is a server, TransmitFile does it, in pieces of less than 2 GiB.
   Elsewhere at most two TransmitFiles of a machine are under way at a time, and all
   others wait for them, so two peers that do not read would stop every file
   transfer.  There a thread of the pool reads a block of the file and hands it to
   the socket; when the block is sent, the next one is read.

   The source is opened once more, so that its position is left alone and whatever
   the program does with its own handle does not matter. */
#include "iocp.h"

#include <stdlib.h>

#define BLOCK (UINT32_C(256) << 10)
/* TransmitFile takes up to 2^31 - 2 bytes; whole pages are faster. */
#define TRANSMIT_MOST UINT32_C(0x7fff0000)

enum { PHASE_BEGIN, PHASE_READ, PHASE_SEND, PHASE_TRANSMIT };

/* Opening a file once more asks what the user may do, not what the handle may. */
static bool is_readable(HANDLE file)
{
    ULONG access = 0; /* FILE_ACCESS_INFORMATION */
    struct nt_status_block block;
    return nt.query_file(file, &block, &access, sizeof access, NT_FILE_ACCESS_INFORMATION) < 0 ||
           (access & FILE_READ_DATA) != 0;
}

/* Opens the source for us, and finds out how much there is to send. */
static uint32_t source_open(struct op *op)
{
    HANDLE file = (HANDLE)(intptr_t)op->file;
    LARGE_INTEGER size;
    SetLastError(0); /* GetFileType does so only where it fails */
    if (GetFileType(file) != FILE_TYPE_DISK)
        return GetLastError() == ERROR_INVALID_HANDLE ? ERROR_INVALID_HANDLE : ERROR_SEEK;
    if (!is_readable(file))
        return ERROR_INVALID_ACCESS;
    if (!GetFileSizeEx(file, &size))
        return GetLastError();
    op->source = ReOpenFile(file, GENERIC_READ,
                            FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE,
                            FILE_FLAG_OVERLAPPED | FILE_FLAG_SEQUENTIAL_SCAN);
    if (op->source == INVALID_HANDLE_VALUE) {
        uint32_t error = GetLastError();
        op->source = NULL;
        return error == ERROR_ACCESS_DENIED ? ERROR_INVALID_ACCESS : error;
    }
    uint64_t there = op->argument < size.QuadPart ? (uint64_t)(size.QuadPart - op->argument) : 0;
    if (op->length > there)
        op->length = there;
    return 0;
}

/* Reads at most a block at an offset; waits for it.  0, or an error. */
static uint32_t source_read(struct op *op, HANDLE event)
{
    OVERLAPPED overlapped = {0};
    DWORD bytes = 0;
    overlapped.Offset = (DWORD)(uint64_t)op->argument;
    overlapped.OffsetHigh = (DWORD)((uint64_t)op->argument >> 32);
    overlapped.hEvent = event;
    DWORD wanted = op->length < BLOCK ? (DWORD)op->length : BLOCK;
    if (!ReadFile(op->source, op->block, wanted, NULL, &overlapped) &&
        GetLastError() != ERROR_IO_PENDING)
        return GetLastError();
    if (!GetOverlappedResult(op->source, &overlapped, &bytes, TRUE))
        return GetLastError();
    op->filled = bytes;
    return 0;
}

static void CALLBACK read_work(PTP_CALLBACK_INSTANCE instance, void *context)
{
    struct op *op = context;
    portio_port *port = op->port;
    CallbackMayRunLong(instance);
    op->filled = op->sent = 0;
    HANDLE event = CreateEventW(NULL, TRUE, FALSE, NULL);
    uint32_t error = event != NULL ? source_read(op, event) : GetLastError();
    if (event != NULL)
        CloseHandle(event);
    if (error == ERROR_HANDLE_EOF)
        error = 0; /* the file has become shorter: that is its end */
    op->error = error;
    op->phase = PHASE_SEND;
    op_continue(port, op);
    port_callback_over(port);
}

static enum step block_send(portio_port *port, struct op *op)
{
    socket_note_connection(op->handle);
    WSABUF buffer = {op->filled - op->sent, op->block + op->sent};
    op_overlapped(op, 0);
    int failed = WSASend((SOCKET)(uintptr_t)op->handle->handle, &buffer, 1, NULL, 0,
                         &op->overlapped, NULL);
    return op_called(port, op, failed == 0 ? 0 : (uint32_t)WSAGetLastError());
}

static enum step transmit(portio_port *port, struct op *op)
{
    socket_note_connection(op->handle);
    op_overlapped(op, (uint64_t)op->argument);
    DWORD piece = op->length < TRANSMIT_MOST ? (DWORD)op->length : TRANSMIT_MOST;
    BOOL sent = TransmitFile((SOCKET)(uintptr_t)op->handle->handle, op->source, piece, 0,
                             &op->overlapped, NULL, 0);
    return op_called(port, op, sent ? 0 : (uint32_t)WSAGetLastError());
}

enum step sendfile_step(portio_port *port, struct op *op)
{
    if (op->phase == PHASE_BEGIN) {
        op->error = source_open(op);
        if (op->error != 0)
            return STEP_DONE;
        op->phase = (port->features & FEATURE_TRANSMIT_FILE) != 0 ? PHASE_TRANSMIT : PHASE_READ;
    }
    if (op->error != 0 || op->length == 0)
        return STEP_DONE;
    if (op->phase == PHASE_TRANSMIT)
        return transmit(port, op);
    if (op->phase == PHASE_SEND && op->filled == 0)
        return STEP_DONE; /* the end of the file */
    if (op->phase == PHASE_SEND)
        return block_send(port, op);
    if (op->block == NULL)
        op->block = malloc(BLOCK);
    if (op->block == NULL) {
        op->error = WSAENOBUFS;
        return STEP_DONE;
    }
    return op_help(port, op, read_work) ? STEP_ISSUED : STEP_DONE;
}

bool sendfile_settle(struct op *op, uint32_t error, DWORD bytes)
{
    if (error == ERROR_HANDLE_EOF)
        error = 0; /* the file has become shorter: `bytes` says where it ends */
    op->error = error;
    op->nbytes += bytes;
    op->argument += bytes;
    op->length -= bytes < op->length ? bytes : op->length;
    if (error != 0 || op->length == 0)
        return true;
    if (op->phase == PHASE_TRANSMIT)
        return bytes == 0; /* the file has become shorter */
    op->sent += bytes;
    if (op->sent >= op->filled)
        op->phase = PHASE_READ;
    return false;
}
