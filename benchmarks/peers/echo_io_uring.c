/* echo_io_uring [BUFFER] SECONDS: a TCP echo server on one ring.

   The limit of what single-shot operations can do.  Linking the send to the next
   receive, hiding the send's completion (IOSQE_CQE_SKIP_SUCCESS) and skipping the
   first attempt to receive (IORING_RECVSEND_POLL_FIRST) were tried: none of them
   is faster by more than the noise, so the plain program is the one to beat. */

#include "ring.h"

enum { CONNECTIONS = 65536, QUEUE = 2048, ACCEPTS = 16 };

struct connection {
    uint32_t start; /* of what is still to be sent */
    uint32_t end;
    char buffer[]; /* of `room` bytes */
};

static uint32_t room = 64 * 1024;

enum kind { ACCEPTED, RECEIVED, SENT };

static struct connection *connections[CONNECTIONS]; /* by descriptor */

static uint64_t tag(enum kind kind, int fd)
{
    return (uint64_t)kind << 32 | (uint32_t)fd;
}

static void start_accept(struct ring *ring, int listener)
{
    struct io_uring_sqe *sqe = ring_next(ring);
    sqe->opcode = IORING_OP_ACCEPT;
    sqe->fd = listener;
    sqe->accept_flags = SOCK_CLOEXEC;
    sqe->user_data = tag(ACCEPTED, listener);
}

static void start_receive(struct ring *ring, int fd)
{
    struct io_uring_sqe *sqe = ring_next(ring);
    sqe->opcode = IORING_OP_RECV;
    sqe->fd = fd;
    sqe->addr = (uint64_t)(uintptr_t)connections[fd]->buffer;
    sqe->len = room;
    sqe->user_data = tag(RECEIVED, fd);
}

static void start_send(struct ring *ring, int fd)
{
    struct connection *self = connections[fd];
    struct io_uring_sqe *sqe = ring_next(ring);
    sqe->opcode = IORING_OP_SEND;
    sqe->fd = fd;
    sqe->addr = (uint64_t)(uintptr_t)(self->buffer + self->start);
    sqe->len = self->end - self->start;
    sqe->msg_flags = MSG_NOSIGNAL;
    sqe->user_data = tag(SENT, fd);
}

static void accepted(struct ring *ring, int listener, int result)
{
    start_accept(ring, listener);
    if (result < 0)
        return;
    if (result >= CONNECTIONS)
        fail_with("accept", EMFILE);
    set_nodelay(result);
    if (connections[result] == NULL)
        connections[result] = allocate(1, sizeof(struct connection) + room);
    start_receive(ring, result);
}

static void received(struct ring *ring, int fd, int result)
{
    if (result <= 0) {
        close(fd);
        return;
    }
    connections[fd]->start = 0;
    connections[fd]->end = (uint32_t)result;
    start_send(ring, fd);
}

static void sent(struct ring *ring, int fd, int result)
{
    struct connection *self = connections[fd];
    if (result < 0) {
        close(fd);
        return;
    }
    self->start += (uint32_t)result;
    if (self->start < self->end)
        start_send(ring, fd);
    else
        start_receive(ring, fd);
}

static void complete(struct ring *ring, const struct io_uring_cqe *cqe)
{
    int fd = (int)(uint32_t)cqe->user_data;
    switch ((enum kind)(cqe->user_data >> 32)) {
    case ACCEPTED:
        accepted(ring, fd, cqe->res);
        break;
    case RECEIVED:
        received(ring, fd, cqe->res);
        break;
    case SENT:
        sent(ring, fd, cqe->res);
        break;
    }
}

int main(int argc, char **argv)
{
    if (argc != 2 && argc != 3) {
        fprintf(stderr, "usage: echo_io_uring [BUFFER] SECONDS\n");
        return EXIT_FAILURE;
    }
    if (argc == 3)
        room = (uint32_t)number(argv[1], 1, 1 << 24);
    limit_seconds((unsigned)number(argv[argc - 1], 1, 3600));

    struct ring ring;
    ring_open(&ring, QUEUE);
    int listener = listen_and_announce(0);
    for (int index = 0; index < ACCEPTS; index++)
        start_accept(&ring, listener);
    for (;;) {
        ring_enter(&ring, 1);
        struct io_uring_cqe cqe;
        while (ring_take(&ring, &cqe))
            complete(&ring, &cqe);
    }
}
