/* What this Windows can do beyond what the engine needs, found by trying it. */
#include "iocp.h"

#include <stdlib.h>
#include <wchar.h>

struct nt_functions nt;

static const char *const names[] = {"disassociate", "transmit_file", "skip_success"};

const char *portio_feature_name(uint32_t bit)
{
    return bit < sizeof names / sizeof *names ? names[bit] : NULL;
}

static FARPROC native_function(const char *name)
{
    HMODULE library = GetModuleHandleW(L"ntdll.dll");
    return library != NULL ? GetProcAddress(library, name) : NULL;
}

static bool native_functions_find(void)
{
    nt.query_file =
        (nt_file_information_function)(void (*)(void))native_function("NtQueryInformationFile");
    nt.set_file =
        (nt_file_information_function)(void (*)(void))native_function("NtSetInformationFile");
    nt.status_to_error =
        (nt_status_to_error_function)(void (*)(void))native_function("RtlNtStatusToDosError");
    return nt.query_file != NULL && nt.set_file != NULL && nt.status_to_error != NULL;
}

/* FileReplaceCompletionInformation: a pipe is associated and let go again. */
static bool can_disassociate(HANDLE port)
{
    static volatile LONG counter;
    wchar_t name[64];
    swprintf(name, sizeof name / sizeof *name, L"\\\\.\\pipe\\portio-probe-%lu-%ld",
             GetCurrentProcessId(), InterlockedIncrement(&counter));
    HANDLE pipe = CreateNamedPipeW(name,
                                   PIPE_ACCESS_DUPLEX | FILE_FLAG_OVERLAPPED |
                                       FILE_FLAG_FIRST_PIPE_INSTANCE,
                                   PIPE_TYPE_BYTE | PIPE_REJECT_REMOTE_CLIENTS, 1, 0, 0, 0, NULL);
    if (pipe == INVALID_HANDLE_VALUE)
        return false;
    struct nt_file_completion none = {NULL, NULL};
    struct nt_status_block block;
    bool can = CreateIoCompletionPort(pipe, port, KEY_IO, 0) != NULL &&
               nt.set_file(pipe, &block, &none, sizeof none,
                           NT_FILE_REPLACE_COMPLETION_INFORMATION) >= 0;
    CloseHandle(pipe);
    return can;
}

/* TransmitFile lets two transfers at a time work on editions of Windows that are no
   servers; the others wait.  Two peers that do not read would stop all file
   transfers of the process, so there the engine reads and sends by itself. */
static bool transmits_without_limit(void)
{
    OSVERSIONINFOEXW wanted = {.dwOSVersionInfoSize = sizeof wanted,
                               .wProductType = VER_NT_WORKSTATION};
    DWORDLONG mask = VerSetConditionMask(0, VER_PRODUCT_TYPE, VER_EQUAL);
    if (VerifyVersionInfoW(&wanted, VER_PRODUCT_TYPE, mask))
        return false;
    /* Wine as a server sends no packet for it. */
    return native_function("wine_get_version") == NULL;
}

/* Whether every layered provider of sockets completes its handles as the system does.
   One that does not may lie over a socket that knows nothing of it (Microsoft's
   KB 2568167). */
static bool providers_are_plain(void)
{
    DWORD size = 0;
    if (WSAEnumProtocolsW(NULL, NULL, &size) != SOCKET_ERROR || WSAGetLastError() != WSAENOBUFS)
        return false;
    WSAPROTOCOL_INFOW *protocols = malloc(size);
    int count = protocols != NULL ? WSAEnumProtocolsW(NULL, protocols, &size) : 0;
    bool plain = count > 0; /* also false for SOCKET_ERROR */
    for (int at = 0; at < count; at++)
        plain = plain && (protocols[at].ProtocolChain.ChainLen == BASE_PROTOCOL ||
                          (protocols[at].dwServiceFlags1 & XP1_IFS_HANDLES) != 0);
    free(protocols);
    return plain;
}

static INIT_ONCE once = INIT_ONCE_STATIC_INIT;
static uint32_t features;
static DWORD failure;
static const char *failed_call = "";

static BOOL CALLBACK find(INIT_ONCE *init, void *argument, void **context)
{
    (void)init, (void)argument, (void)context;
    WSADATA data;
    if (!native_functions_find()) {
        failed_call = "GetProcAddress";
        failure = ERROR_PROC_NOT_FOUND;
        return TRUE;
    }
    int error = WSAStartup(MAKEWORD(2, 2), &data);
    if (error != 0) {
        failed_call = "WSAStartup";
        failure = (DWORD)error;
        return TRUE;
    }
    HANDLE port = CreateIoCompletionPort(INVALID_HANDLE_VALUE, NULL, 0, 1);
    if (port == NULL) {
        failed_call = "CreateIoCompletionPort";
        failure = GetLastError();
        return FALSE; /* it may work later */
    }
    if (can_disassociate(port))
        features |= FEATURE_DISASSOCIATE;
    if (transmits_without_limit())
        features |= FEATURE_TRANSMIT_FILE;
    if (providers_are_plain())
        features |= FEATURE_SKIP_SUCCESS;
    CloseHandle(port);
    failure = 0;
    return TRUE;
}

uint32_t features_find(void)
{
    InitOnceExecuteOnce(&once, find, NULL, NULL);
    return features;
}

void portio_probe_system(portio_probe *probe)
{
    memset(probe, 0, sizeof *probe);
    probe->features = features_find();
    probe->available = failure == 0;
    probe->error = (int32_t)failure;
    lstrcpynA(probe->failed_call, failed_call, sizeof probe->failed_call);
}
