/* echo_epoll [BUFFER] SECONDS: a TCP echo server on one edge-triggered epoll set.

   The limit of what readiness can do: one recv and one send per message, no
   allocation after the accept, and no epoll_ctl once a connection is open. */

#include "program.h"

#include <sys/epoll.h>

enum { CONNECTIONS = 65536, EVENTS = 512 };

struct connection {
    size_t start; /* of what is still to be sent */
    size_t end;
    bool open;
    char buffer[]; /* of `room` bytes */
};

static uint32_t room = 64 * 1024;

static struct connection *connections[CONNECTIONS]; /* by descriptor */

static void accept_all(int epoll, int listener)
{
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EAGAIN || errno == ECONNABORTED)
                return;
            fail("accept4");
        }
        if (fd >= CONNECTIONS)
            fail_with("accept4", EMFILE);
        set_nodelay(fd);
        if (connections[fd] == NULL)
            connections[fd] = allocate(1, sizeof(struct connection) + room);
        connections[fd]->start = connections[fd]->end = 0;
        connections[fd]->open = true;
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.fd = fd};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0)
            fail("epoll_ctl");
    }
}

static void hang_up(int fd)
{
    connections[fd]->open = false;
    close(fd);
}

/* Sends what is buffered; false when the socket takes no more for now. */
static bool flush_buffer(int fd, struct connection *self)
{
    while (self->start < self->end) {
        ssize_t sent = send(fd, self->buffer + self->start, self->end - self->start, MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno != EAGAIN)
                hang_up(fd);
            return false;
        }
        self->start += (size_t)sent;
    }
    return true;
}

static void echo(int fd)
{
    struct connection *self = connections[fd];
    while (self->open && flush_buffer(fd, self)) {
        ssize_t received = recv(fd, self->buffer, room, 0);
        if (received < 0 && errno == EAGAIN)
            return;
        if (received <= 0) {
            hang_up(fd);
            return;
        }
        self->start = 0;
        self->end = (size_t)received;
        /* epoll(7): after a short read from a stream, the next readiness is a
           new edge, so there is no need to read until EAGAIN. */
        if ((size_t)received < room && flush_buffer(fd, self))
            return;
    }
}

int main(int argc, char **argv)
{
    if (argc != 2 && argc != 3) {
        fprintf(stderr, "usage: echo_epoll [BUFFER] SECONDS\n");
        return EXIT_FAILURE;
    }
    if (argc == 3)
        room = (uint32_t)number(argv[1], 1, 1 << 24);
    limit_seconds((unsigned)number(argv[argc - 1], 1, 3600));

    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0)
        fail("epoll_create1");
    int listener = listen_and_announce(SOCK_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event) != 0)
        fail("epoll_ctl");

    for (;;) {
        struct epoll_event events[EVENTS];
        int count = epoll_wait(epoll, events, EVENTS, -1);
        if (count < 0) {
            if (errno == EINTR)
                continue;
            fail("epoll_wait");
        }
        for (int index = 0; index < count; index++) {
            int fd = events[index].data.fd;
            if (fd == listener)
                accept_all(epoll, listener);
            else
                echo(fd);
        }
    }
}
