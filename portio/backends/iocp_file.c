/* The kinds of operation on files and pipes: Read, Write and Sync.

   ReadFile and WriteFile take one buffer and a DWORD for its length, so sequences
   of buffers and long ones are carried out in steps. */
#include "iocp.h"

#define FILE_MOST (UINT32_C(256) << 20)
#define PIPE_MOST (UINT32_C(16) << 20)

/* What is written to a pipe at once when the pipe has no room that it tells of. */
#define PIPE_PIECE 4096

static bool is_file(const struct op *op)
{
    return op->handle->type == PORTIO_FILE;
}

/* False: it is no pipe, or closing. */
static bool pipe_look(const struct op *op, struct nt_pipe_local *local)
{
    struct nt_status_block block;
    if (!handle_calls_enter(op->port, op->handle))
        return false;
    LONG status = nt.query_file(op->handle->handle, &block, local, sizeof *local,
                                NT_FILE_PIPE_LOCAL_INFORMATION);
    handle_calls_leave(op->port, op->handle);
    return status >= 0;
}

/* A write to a pipe that is cancelled leaves in the pipe what a reader has not
   taken, and takes back the rest, and the system does not say how much that was.
   What fits into the pipe's room is written at once, whole.  So a write goes there in
   pieces: what there is room for, and when there is none, one small piece, which
   waits for the reader.  Only a pipe of messages gets what it is given. */
static DWORD pipe_room(const struct op *op)
{
    struct nt_pipe_local local;
    if (op->handle->messages || !pipe_look(op, &local))
        return PIPE_MOST; /* no pipe: a serial line, for example */
    return local.write_quota_available > PIPE_PIECE ? local.write_quota_available : PIPE_PIECE;
}

static enum step read_step(portio_port *port, struct op *op)
{
    DWORD length;
    char *piece = transfer_piece(op, is_file(op) ? FILE_MOST : PIPE_MOST, &length);
    if (is_file(op) && length == 0)
        return STEP_DONE; /* nothing is asked for */
    op_overlapped(op, is_file(op) ? (uint64_t)op->argument : 0);
    bool read = ReadFile(op->handle->handle, piece, length, NULL, &op->overlapped);
    return op_called(port, op, read ? 0 : GetLastError());
}

static enum step write_step(portio_port *port, struct op *op)
{
    DWORD length;
    char *piece = transfer_piece(op, is_file(op) ? FILE_MOST : pipe_room(op), &length);
    if (length == 0) /* of a pipe's reader that would be the end */
        return transfer_consume(op, 0) ? STEP_DONE : STEP_AGAIN;
    op_overlapped(op, is_file(op) ? (uint64_t)op->argument : 0);
    bool written = WriteFile(op->handle->handle, piece, length, NULL, &op->overlapped);
    return op_called(port, op, written ? 0 : GetLastError());
}

/* The handle lacks the right, as EBADF says elsewhere; ERROR_ACCESS_DENIED would be
   the same as of a file that may not be opened. */
static uint32_t error_of_access(uint32_t error)
{
    return error == ERROR_ACCESS_DENIED ? ERROR_INVALID_ACCESS : error;
}

/* A file that is read past the cache refuses offsets that are no multiple of a block, also
   behind its end (File Buffering, MSDN).  So a block that was not whole was the last. */
static bool is_direct_end(const struct op *op, uint32_t error)
{
    return error == ERROR_INVALID_PARAMETER && op->nbytes % DIRECT_BLOCK != 0;
}

static bool read_settle(struct op *op, uint32_t error, DWORD bytes)
{
    bool end = error == ERROR_HANDLE_EOF || error == ERROR_BROKEN_PIPE ||
               error == ERROR_PIPE_NOT_CONNECTED || is_direct_end(op, error);
    if (end || error == ERROR_MORE_DATA) /* the rest of a message is for the next */
        error = 0;
    op->error = error_of_access(error);
    op->nbytes += bytes;
    if (error != 0 || end)
        return true;
    if (!is_file(op)) {
        if (bytes == 0) /* of a pipe no end: somebody has written nothing */
            return op->handle->device || transfer_room(op) == 0 || op->nbytes > 0;
        /* The rest of a sequence of buffers takes what is there, and waits for no
           more. */
        struct nt_pipe_local local;
        return transfer_consume(op, bytes) || !pipe_look(op, &local) ||
               local.read_data_available == 0;
    }
    op->argument += bytes;
    return bytes == 0 || transfer_consume(op, bytes);
}

static bool write_settle(struct op *op, uint32_t error, DWORD bytes)
{
    op->error = error_of_access(error);
    op->nbytes += bytes;
    if (error != 0)
        return true;
    if (bytes == 0) {
        op->error = ERROR_WRITE_FAULT; /* nothing is written and nothing is wrong */
        return true;
    }
    if (is_file(op))
        op->argument += bytes;
    return transfer_consume(op, bytes);
}

bool file_settle(struct op *op, uint32_t error, DWORD bytes)
{
    return op->kind == PORTIO_READ ? read_settle(op, error, bytes)
                                   : write_settle(op, error, bytes);
}

/* ---- Sync ---- */

/* FlushFileBuffers waits for the disk, so a thread of the pool calls it, on a handle
   of its own: the program may close the file meanwhile. */
static void CALLBACK sync_work(PTP_CALLBACK_INSTANCE instance, void *context)
{
    struct op *op = context;
    portio_port *port = op->port;
    CallbackMayRunLong(instance);
    op->error = FlushFileBuffers(op->source) ? 0 : error_of_access(GetLastError());
    port_lock(port);
    op->state = OP_CLAIMED;
    port_unlock(port);
    op_complete(port, op);
    port_callback_over(port);
}

/* A handle of our own for flushing, which needs the right to write.  A file that is
   open for reading only is flushed all the same, as elsewhere, if the user may write
   to it: by opening it once more. */
static HANDLE sync_handle(HANDLE file)
{
    HANDLE process = GetCurrentProcess(), own;
    ULONG access = FILE_WRITE_DATA; /* FILE_ACCESS_INFORMATION */
    struct nt_status_block block;
    nt.query_file(file, &block, &access, sizeof access, NT_FILE_ACCESS_INFORMATION);
    if ((access & (FILE_WRITE_DATA | FILE_APPEND_DATA)) == 0) {
        own = ReOpenFile(file, GENERIC_WRITE,
                         FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, 0);
        if (own != INVALID_HANDLE_VALUE)
            return own;
    }
    return DuplicateHandle(process, file, process, &own, 0, FALSE, DUPLICATE_SAME_ACCESS) ? own
                                                                                          : NULL;
}

static enum step sync_step(portio_port *port, struct op *op)
{
    op->source = sync_handle(op->handle->handle);
    if (op->source == NULL) {
        op->error = GetLastError();
        return STEP_DONE;
    }
    return op_help(port, op, sync_work) ? STEP_ISSUED : STEP_DONE;
}

enum step file_step(portio_port *port, struct op *op)
{
    switch (op->kind) {
    case PORTIO_READ:
        return read_step(port, op);
    case PORTIO_WRITE:
        return write_step(port, op);
    default:
        return sync_step(port, op);
    }
}
