/* accept_load PORT PID BURST BURSTS SECONDS: bursts of connections for an echo
   server.

   How fast a client connects is not what is measured.  So the server is stopped
   while the system completes BURST connections for it, and the time begins when
   it is let go on.  It ends with the echo of the one message that was sent, by
   the last of the connections: the system hands them out in order, so all the
   others have been accepted by then.  The processor time is the server's until it
   has come to rest, with a receive pending on every connection or what it does
   instead.  The first burst is to warm up.  Standard output gets one line of
   JSON. */

#include "load.h"

#include <signal.h>

static const char MESSAGE[] = "the last";

struct server {
    pid_t pid;
    uint16_t port;
    clockid_t clock;
};

/* A stopped server would outlive its own alarm, so however this program ends, it
   lets the server go on. */
static pid_t stopped;

static void let_go(void)
{
    if (stopped != 0)
        (void)kill(stopped, SIGCONT);
}

static void too_late(int signal)
{
    (void)signal;
    let_go();
    _exit(EXIT_FAILURE);
}

/* Stops the server, and returns when it has stopped. */
static void stop(const struct server *server)
{
    char path[64], line[512];
    snprintf(path, sizeof path, "/proc/%ld/stat", (long)server->pid);
    if (kill(server->pid, SIGSTOP) != 0)
        fail("kill");
    for (;;) {
        FILE *file = fopen(path, "r");
        if (file == NULL || fgets(line, sizeof line, file) == NULL)
            fail(path);
        fclose(file);
        const char *name_end = strrchr(line, ')'); /* proc(5): the state follows the name */
        if (name_end != NULL && strncmp(name_end, ") T", 3) == 0)
            return;
        usleep(100);
    }
}

/* Ends the connections without leaving anything of them in the system. */
static void abort_all(const int *fds, long count)
{
    struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    for (long index = 0; index < count; index++) {
        if (setsockopt(fds[index], SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once) != 0)
            fail("setsockopt SO_LINGER");
        close(fds[index]);
    }
}

static void burst(const struct server *server, int *fds, long count, uint64_t *wall, uint64_t *cpu)
{
    uint64_t used = server_time(server->clock);
    stop(server);
    for (long index = 0; index < count; index++)
        fds[index] = connect_one(server->port);
    int last = fds[count - 1];
    send_whole(last, MESSAGE, sizeof MESSAGE);
    uint64_t begin = clock_nanoseconds(CLOCK_MONOTONIC);
    if (kill(server->pid, SIGCONT) != 0)
        fail("kill");
    receive_whole(last, MESSAGE, sizeof MESSAGE);
    *wall += clock_nanoseconds(CLOCK_MONOTONIC) - begin;
    *cpu += server_time(server->clock) - used;
    abort_all(fds, count);
}

/* Connections beyond the length of the queue would wait for another attempt. */
static void check_queue(long count)
{
    static const char path[] = "/proc/sys/net/core/somaxconn";
    char line[32];
    FILE *file = fopen(path, "r");
    if (file == NULL || fgets(line, sizeof line, file) == NULL)
        fail(path);
    fclose(file);
    if (strtol(line, NULL, 10) <= count)
        fail_with(path, ENOBUFS);
}

int main(int argc, char **argv)
{
    if (argc != 6) {
        fprintf(stderr, "usage: accept_load PORT PID BURST BURSTS SECONDS\n");
        return EXIT_FAILURE;
    }
    struct server server = {.port = (uint16_t)number(argv[1], 1, 65535),
                            .pid = (pid_t)number(argv[2], 1, INT32_MAX)};
    server.clock = server_clock(server.pid);
    long count = number(argv[3], 1, 1000); /* the servers have a queue of 1024 */
    long bursts = number(argv[4], 1, 1000000);
    stopped = server.pid;
    struct sigaction on_alarm = {.sa_handler = too_late};
    if (atexit(let_go) != 0 || sigaction(SIGALRM, &on_alarm, NULL) != 0)
        fail("sigaction");
    limit_seconds((unsigned)number(argv[5], 1, 3600));
    check_queue(count);

    int *fds = allocate((size_t)count, sizeof *fds);
    uint64_t wall = 0, cpu = 0;
    burst(&server, fds, count, &wall, &cpu);
    wall = cpu = 0;
    for (long index = 0; index < bursts; index++)
        burst(&server, fds, count, &wall, &cpu);
    printf("{\"count\": %ld, \"wall\": %.9f, \"cpu\": %.9f}\n", count * bursts,
           (double)wall / 1e9, (double)cpu / 1e9);
    return EXIT_SUCCESS;
}
