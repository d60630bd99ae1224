/* idle_load PORT PID FEW MANY ECHOES SECONDS: an echo server with MANY connections
   of which one is in use.

   Opens FEW connections, has ECHOES messages echoed on the first of them, one
   after the other, opens the rest, and does the same again.  Measured is the
   processor time of the server for the echoes with FEW and with MANY, and by how
   much its resident memory has grown from FEW to MANY connections, the system's
   own memory not counted.  Standard output gets one line of JSON. */

#include "load.h"

enum { MESSAGE = 64, WARM_UP = 200, AT_ONCE = 200 /* less than the servers' queue */ };

static char message[MESSAGE];

static uint64_t resident_bytes(pid_t pid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%ld/statm", (long)pid);
    FILE *file = fopen(path, "r");
    unsigned long long pages;
    if (file == NULL || fscanf(file, "%*u %llu", &pages) != 1)
        fail(path);
    fclose(file);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* Opens connections until there are `count`.  The system hands them out in order,
   so an echo on the last tells that the server has accepted all of them. */
static void open_until(int *fds, long already, long count, uint16_t port)
{
    for (long index = already; index < count; index++) {
        fds[index] = connect_one(port);
        if ((index + 1) % AT_ONCE == 0 || index + 1 == count)
            echo_once(fds[index], message, MESSAGE);
    }
}

/* The processor time of the server for `count` echoes on one connection. */
static uint64_t echoes(clockid_t server, int fd, uint64_t count)
{
    for (uint64_t done = 0; done < WARM_UP; done++)
        echo_once(fd, message, MESSAGE);
    uint64_t begin = server_time(server);
    for (uint64_t done = 0; done < count; done++)
        echo_once(fd, message, MESSAGE);
    return server_time(server) - begin;
}

int main(int argc, char **argv)
{
    if (argc != 7) {
        fprintf(stderr, "usage: idle_load PORT PID FEW MANY ECHOES SECONDS\n");
        return EXIT_FAILURE;
    }
    uint16_t port = (uint16_t)number(argv[1], 1, 65535);
    pid_t pid = (pid_t)number(argv[2], 1, INT32_MAX);
    long few = number(argv[3], 1, 100000);
    long many = number(argv[4], few + 1, 100000);
    uint64_t count = (uint64_t)number(argv[5], 1, 1000000000);
    limit_seconds((unsigned)number(argv[6], 1, 3600));
    memset(message, 'x', sizeof message);
    clockid_t server = server_clock(pid);
    int *fds = allocate((size_t)many, sizeof *fds);

    open_until(fds, 0, few, port);
    uint64_t with_few = echoes(server, fds[0], count);
    uint64_t memory_before = resident_bytes(pid);
    open_until(fds, few, many, port);
    server_time(server); /* come to rest */
    uint64_t memory_after = resident_bytes(pid);
    uint64_t with_many = echoes(server, fds[0], count);

    printf("{\"count\": %llu, \"few\": %.9f, \"many\": %.9f, \"memory\": %.3f}\n",
           (unsigned long long)count, (double)with_few / 1e9, (double)with_many / 1e9,
           ((double)memory_after - (double)memory_before) / (double)(many - few));
    return EXIT_SUCCESS;
}
