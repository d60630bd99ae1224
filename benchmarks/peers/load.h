/* What the programs that put load on a server share: its processor time, and
   plain blocking connections to it. */

#ifndef BENCHMARKS_LOAD_H
#define BENCHMARKS_LOAD_H

#include "program.h"

enum { REST_MICROSECONDS = 3000 };

static inline clockid_t server_clock(pid_t pid)
{
    clockid_t clock;
    int error = clock_getcpuclockid(pid, &clock);
    if (error != 0)
        fail_with("clock_getcpuclockid", error);
    return clock;
}

/* The processor time that the server has used, user and system, all its threads.
   Other processes see the time of a running thread as of its last clock tick, so
   the server is first given time to come to rest: until its clock stands still.
   Nothing must be in flight. */
static inline uint64_t server_time(clockid_t server)
{
    for (uint64_t before = clock_nanoseconds(server);;) {
        usleep(REST_MICROSECONDS);
        uint64_t now = clock_nanoseconds(server);
        if (now == before)
            return now;
        before = now;
    }
}

static inline int connect_one(uint16_t port)
{
    struct sockaddr_in address = loopback(port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        fail("socket");
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
        fail("connect");
    set_nodelay(fd);
    return fd;
}

static inline void send_whole(int fd, const char *message, size_t size)
{
    ssize_t sent = send(fd, message, size, MSG_NOSIGNAL);
    if (sent < 0)
        fail("send");
    if ((size_t)sent != size)
        fail_with("send", EMSGSIZE);
}

/* Waits for the message's echo, and checks it. */
static inline void receive_whole(int fd, const char *message, size_t size)
{
    char reply[1024];
    if (size > sizeof reply)
        fail_with("receive_whole", EMSGSIZE);
    ssize_t got = recv(fd, reply, size, MSG_WAITALL);
    if (got < 0)
        fail("recv");
    if ((size_t)got != size)
        fail_with("recv", ECONNRESET);
    if (memcmp(reply, message, size) != 0)
        fail_with("the server echoed something else", EBADMSG);
}

/* Sends the message and waits for its echo. */
static inline void echo_once(int fd, const char *message, size_t size)
{
    send_whole(fd, message, size);
    receive_whole(fd, message, size);
}

#endif
