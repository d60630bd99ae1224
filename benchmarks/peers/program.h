/* What every C program of the benchmarks needs: failing loudly, time, numbers
   from the command line, and a listening socket on the loopback interface.

   All programs are bounded in time: limit_seconds() arms an alarm whose default
   action ends the process, so nothing outlives a harness that was killed. */

#ifndef BENCHMARKS_PROGRAM_H
#define BENCHMARKS_PROGRAM_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

_Noreturn static inline void fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(EXIT_FAILURE);
}

_Noreturn static inline void fail_with(const char *what, int error)
{
    errno = error;
    fail(what);
}

static inline void *allocate(size_t count, size_t size)
{
    void *memory = calloc(count, size);
    if (memory == NULL)
        fail("calloc");
    return memory;
}

static inline uint64_t clock_nanoseconds(clockid_t clock)
{
    struct timespec now;
    if (clock_gettime(clock, &now) != 0)
        fail("clock_gettime");
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline void limit_seconds(unsigned seconds)
{
    alarm(seconds);
}

/* A whole number between low and high, or the end of the program. */
static inline long number(const char *text, long low, long high)
{
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno != 0 || *end != '\0' || end == text || value < low || value > high) {
        fprintf(stderr, "%s: not a number between %ld and %ld\n", text, low, high);
        exit(EXIT_FAILURE);
    }
    return value;
}

static inline struct sockaddr_in loopback(uint16_t port)
{
    struct sockaddr_in address;
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static inline void set_nodelay(int fd)
{
    int on = 1;
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0)
        fail("setsockopt TCP_NODELAY");
}

/* A listening socket on a port of the system's choice, announced on standard
   output in the way that the harness expects from every server. */
static inline int listen_and_announce(int type_flags)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | type_flags, 0);
    if (fd < 0)
        fail("socket");
    struct sockaddr_in address = loopback(0);
    socklen_t length = sizeof address;
    if (bind(fd, (struct sockaddr *)&address, length) != 0)
        fail("bind");
    if (listen(fd, 1024) != 0)
        fail("listen");
    if (getsockname(fd, (struct sockaddr *)&address, &length) != 0)
        fail("getsockname");
    printf("listening on 127.0.0.1:%u\n", ntohs(address.sin_port));
    if (fflush(stdout) != 0)
        fail("standard output");
    return fd;
}

#endif
