/* Files and pipes for overlapped I/O: see windows.cdef.txt. */
#ifndef _WIN32_WINNT
#define _WIN32_WINNT 0x0602
#endif
#define WIN32_LEAN_AND_MEAN

#include <windows.h>

#include <stdbool.h>
#include <stdint.h>
#include <wchar.h>

#include "windows.cdef.txt"

#ifndef ERROR_DIRECTORY_NOT_SUPPORTED /* winerror.h; mingw-w64 lacks it */
#define ERROR_DIRECTORY_NOT_SUPPORTED 336L
#endif

/* As much as Linux gives a pipe. */
#define PIPE_ROOM 65536

static int64_t failure(void)
{
    return -(int64_t)GetLastError();
}

static int64_t number(HANDLE handle)
{
    return (int64_t)(intptr_t)handle;
}

static HANDLE handle_of(int64_t number)
{
    return (HANDLE)(intptr_t)number;
}

/* CreateFileW says ERROR_ACCESS_DENIED of a directory. */
static int64_t open_failure(const wchar_t *path)
{
    DWORD error = GetLastError();
    if (error == ERROR_ACCESS_DENIED) {
        DWORD attributes = GetFileAttributesW(path);
        if (attributes != INVALID_FILE_ATTRIBUTES && (attributes & FILE_ATTRIBUTE_DIRECTORY) != 0)
            error = ERROR_DIRECTORY_NOT_SUPPORTED;
    }
    return -(int64_t)error;
}

static bool is_separator(wchar_t character)
{
    return character == L'\\' || character == L'/';
}

/* A path of a network or a device, but for a drive's in its long form. */
static bool may_be_pipe(const wchar_t *path)
{
    if (!is_separator(path[0]) || !is_separator(path[1]))
        return false;
    bool is_long = path[2] == L'?' && is_separator(path[3]);
    return !(is_long && path[4] != 0 && path[5] == L':');
}

int64_t portio_file_open(const wchar_t *path, int reads, int writes, uint32_t disposition,
                         int read_only, int direct)
{
    DWORD access = (reads ? GENERIC_READ : 0) | (writes ? GENERIC_WRITE : 0);
    DWORD share = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE;
    DWORD flags = FILE_FLAG_OVERLAPPED |
                  (read_only ? FILE_ATTRIBUTE_READONLY : FILE_ATTRIBUTE_NORMAL) |
                  (direct ? FILE_FLAG_NO_BUFFERING : 0);
    /* A pipe of somebody else's: let its server not act as us.  Of a file the same
       bit says that one that is archived shall not be recalled. */
    if (may_be_pipe(path))
        flags |= SECURITY_SQOS_PRESENT | SECURITY_ANONYMOUS;
    HANDLE file = CreateFileW(path, access, share, NULL, disposition, flags, NULL);
    if (file == INVALID_HANDLE_VALUE)
        return open_failure(path);
    DWORD mode;
    if (GetFileType(file) == FILE_TYPE_CHAR && GetConsoleMode(file, &mode)) {
        CloseHandle(file);
        return -(int64_t)ERROR_NOT_SUPPORTED;
    }
    return number(file);
}

int64_t portio_pipe_open(int64_t *reader, int64_t *writer)
{
    static volatile LONG serial;
    wchar_t name[80];
    LARGE_INTEGER time;
    QueryPerformanceCounter(&time);
    /* Nobody can be first to the name: FIRST_PIPE_INSTANCE fails if somebody was. */
    swprintf(name, sizeof name / sizeof *name, L"\\\\.\\pipe\\portio-%lu-%ld-%08lx%08lx",
             GetCurrentProcessId(), InterlockedIncrement(&serial), time.HighPart, time.LowPart);
    HANDLE server = CreateNamedPipeW(
        name, PIPE_ACCESS_INBOUND | FILE_FLAG_OVERLAPPED | FILE_FLAG_FIRST_PIPE_INSTANCE,
        PIPE_TYPE_BYTE | PIPE_READMODE_BYTE | PIPE_WAIT | PIPE_REJECT_REMOTE_CLIENTS, 1,
        PIPE_ROOM, PIPE_ROOM, 0, NULL);
    if (server == INVALID_HANDLE_VALUE)
        return failure();
    HANDLE client = CreateFileW(name, GENERIC_WRITE, 0, NULL, OPEN_EXISTING,
                                FILE_FLAG_OVERLAPPED | SECURITY_SQOS_PRESENT | SECURITY_ANONYMOUS,
                                NULL);
    if (client == INVALID_HANDLE_VALUE) {
        int64_t error = failure();
        CloseHandle(server);
        return error;
    }
    /* The client is there already, so this does not wait: ERROR_PIPE_CONNECTED. */
    OVERLAPPED overlapped = {0};
    DWORD bytes;
    if (!ConnectNamedPipe(server, &overlapped) && GetLastError() != ERROR_PIPE_CONNECTED &&
        (GetLastError() != ERROR_IO_PENDING ||
         !GetOverlappedResult(server, &overlapped, &bytes, TRUE))) {
        int64_t error = failure();
        CloseHandle(client);
        CloseHandle(server);
        return error;
    }
    *reader = number(server);
    *writer = number(client);
    return 0;
}

int64_t portio_file_close(int64_t file)
{
    return CloseHandle(handle_of(file)) ? 0 : failure();
}

/* A volume or a disk has no size as a file; it is asked for its length otherwise. */
int64_t portio_file_size(int64_t file)
{
    LARGE_INTEGER size;
    return GetFileSizeEx(handle_of(file), &size) ? size.QuadPart : failure();
}

int64_t portio_file_truncate(int64_t file, int64_t size)
{
    /* Not by the file's position, which belongs to nobody when calls overlap. */
    FILE_END_OF_FILE_INFO end = {.EndOfFile = {.QuadPart = size}};
    return SetFileInformationByHandle(handle_of(file), FileEndOfFileInfo, &end, sizeof end)
               ? 0
               : failure();
}

int64_t portio_processors(void)
{
    DWORD_PTR process = 0, system = 0;
    if (!GetProcessAffinityMask(GetCurrentProcess(), &process, &system))
        return failure();
    int64_t count = 0;
    for (; process != 0; process &= process - 1)
        count++;
    /* 0: its threads are in several processor groups, and it may use all. */
    return count != 0 ? count : GetActiveProcessorCount(ALL_PROCESSOR_GROUPS);
}

uint32_t portio_error_text(uint32_t error, wchar_t *text, uint32_t room)
{
    DWORD length = FormatMessageW(FORMAT_MESSAGE_FROM_SYSTEM | FORMAT_MESSAGE_IGNORE_INSERTS, NULL,
                                  error, 0, text, room, NULL);
    while (length > 0 && (text[length - 1] <= L' ' || text[length - 1] == L'.'))
        length--;
    return length;
}
