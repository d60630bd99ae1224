/* echo_load PORT PID CONNECTIONS SIZE WARM_UP ECHOES SECONDS: load for an echo
   server.

   A closed loop: each connection sends a message, reads it back whole, checks
   it, and sends the next, until WARM_UP messages have come back in all, and then
   again for ECHOES messages, which are measured: the time, the latency of each
   echo, and the processor time of the server, user and system, all its threads,
   from the process clock of PID.  Standard output gets one line of JSON.  An
   error, or SECONDS, end the program. */

#include "load.h"

#include <sys/epoll.h>

enum { EVENTS = 512, STAMP = sizeof(uint64_t) };

struct connection {
    int fd;
    uint64_t stamp;   /* what the message in flight begins with */
    uint64_t started; /* when it was sent, in nanoseconds */
    size_t sent;
    size_t received;
};

struct load {
    size_t size;     /* of a message */
    char *message;   /* what everybody sends, but for the stamp */
    char *reply;     /* what was read last */
    uint64_t stamps; /* messages begun */
};

_Noreturn static void fail_wrong_echo(void)
{
    fprintf(stderr, "the server echoed something else\n");
    exit(EXIT_FAILURE);
}

/* Sends as much of the message in flight as the socket takes. */
static void send_message(struct load *load, struct connection *self)
{
    while (self->sent < load->size) {
        if (self->sent == 0)
            memcpy(load->message, &self->stamp, STAMP);
        ssize_t sent = send(self->fd, load->message + self->sent, load->size - self->sent,
                            MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno == EAGAIN)
                return;
            fail("send");
        }
        self->sent += (size_t)sent;
        if (self->sent < STAMP) /* the next connection would overwrite the stamp */
            fail_with("send", EMSGSIZE);
    }
}

static void start_message(struct load *load, struct connection *self)
{
    self->stamp = ++load->stamps;
    self->sent = self->received = 0;
    self->started = clock_nanoseconds(CLOCK_MONOTONIC);
    send_message(load, self);
}

/* Reads what has come; true when the reply is whole. */
static bool receive_reply(struct load *load, struct connection *self)
{
    while (self->received < load->size) {
        size_t before = self->received;
        ssize_t got = recv(self->fd, load->reply + before, load->size - before, 0);
        if (got < 0) {
            if (errno == EAGAIN)
                return false;
            fail("recv");
        }
        if (got == 0)
            fail_with("recv", ECONNRESET);
        if (before == 0 && got >= STAMP && memcmp(load->reply, &self->stamp, STAMP) != 0)
            fail_wrong_echo();
        self->received += (size_t)got;
    }
    if (load->size > STAMP && load->reply[load->size - 1] != load->message[load->size - 1])
        fail_wrong_echo();
    return true;
}

static void connect_all(int epoll, struct connection *connections, long count, uint16_t port)
{
    for (long index = 0; index < count; index++) {
        struct connection *self = &connections[index];
        self->fd = connect_one(port);
        int flags = fcntl(self->fd, F_GETFL);
        if (flags < 0 || fcntl(self->fd, F_SETFL, flags | O_NONBLOCK) != 0)
            fail("fcntl");
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = self};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, self->fd, &event) != 0)
            fail("epoll_ctl");
    }
}

/* Has `goal` messages echoed, every connection busy while there are enough of
   them to come, and notes the latency of each if there is an array for them. */
static void run(struct load *load, int epoll, struct connection *connections, long count,
                uint64_t goal, uint32_t *latencies)
{
    uint64_t started = 0, done = 0;
    for (long index = 0; index < count && started < goal; index++, started++)
        start_message(load, &connections[index]);
    while (done < goal) {
        struct epoll_event events[EVENTS];
        int ready = epoll_wait(epoll, events, EVENTS, -1);
        if (ready < 0)
            fail("epoll_wait");
        for (int index = 0; index < ready; index++) {
            struct connection *self = events[index].data.ptr;
            if (self->received == self->sent)
                continue; /* nothing in flight: an edge of writability */
            send_message(load, self);
            if (!receive_reply(load, self))
                continue;
            uint64_t latency = clock_nanoseconds(CLOCK_MONOTONIC) - self->started;
            if (latencies != NULL)
                latencies[done] = latency < UINT32_MAX ? (uint32_t)latency : UINT32_MAX;
            done++;
            if (started < goal) {
                start_message(load, self);
                started++;
            }
        }
    }
}

static int compare_latencies(const void *left, const void *right)
{
    uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
    return (a > b) - (a < b);
}

static double percentile(const uint32_t *sorted, uint64_t count, double share)
{
    return sorted[(uint64_t)((double)(count - 1) * share)] / 1e3;
}

int main(int argc, char **argv)
{
    if (argc != 8) {
        fprintf(stderr, "usage: echo_load PORT PID CONNECTIONS SIZE WARM_UP ECHOES SECONDS\n");
        return EXIT_FAILURE;
    }
    uint16_t port = (uint16_t)number(argv[1], 1, 65535);
    clockid_t server = server_clock((pid_t)number(argv[2], 1, INT32_MAX));
    long connection_count = number(argv[3], 1, 100000);
    struct load load = {.size = (size_t)number(argv[4], STAMP, 1 << 24)};
    uint64_t warm_up = (uint64_t)number(argv[5], 0, 1000000000);
    uint64_t echoes = (uint64_t)number(argv[6], 1, 1000000000);
    limit_seconds((unsigned)number(argv[7], 1, 3600));

    load.message = allocate(load.size, 1);
    for (size_t index = 0; index < load.size; index++)
        load.message[index] = (char)('a' + index % 26);
    load.reply = allocate(load.size, 1);
    uint32_t *latencies = allocate(echoes, sizeof *latencies);
    struct connection *connections = allocate((size_t)connection_count, sizeof *connections);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0)
        fail("epoll_create1");

    connect_all(epoll, connections, connection_count, port);
    run(&load, epoll, connections, connection_count, warm_up, NULL);
    uint64_t server_begin = server_time(server);
    uint64_t begin = clock_nanoseconds(CLOCK_MONOTONIC);
    run(&load, epoll, connections, connection_count, echoes, latencies);
    uint64_t end = clock_nanoseconds(CLOCK_MONOTONIC);
    uint64_t server_end = server_time(server);

    qsort(latencies, echoes, sizeof *latencies, compare_latencies);
    printf("{\"count\": %llu, \"wall\": %.9f, \"cpu\": %.9f, \"p50\": %.3f, \"p99\": %.3f}\n",
           (unsigned long long)echoes, (double)(end - begin) / 1e9,
           (double)(server_end - server_begin) / 1e9, percentile(latencies, echoes, 0.50),
           percentile(latencies, echoes, 0.99));
    return EXIT_SUCCESS;
}
