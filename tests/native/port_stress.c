/* Stress of one engine through the door, for ThreadSanitizer: no Python, so that
   every report is about our own code.

   usage: port_stress SEED ROUNDS [SUBMISSIONS COMPLETIONS]

   Lanes are socket pairs.  Client threads submit receives and sends on random
   lanes, cancel some, post packets, sometimes end and are replaced; worker
   threads take packets.  Checked: every submitted token completes exactly once,
   every posted token arrives exactly once, and the bytes of each lane arrive in
   order, none lost or doubled, whatever was cancelled.  Then the port is closed
   while receives are pending. */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "native.h"

#define LANES 8
#define CLIENTS 3
#define WORKERS 3
#define SLOTS 4096
#define BUFFER 4096
#define STOP_SLOT 1

#define CHECK(condition)                                                                  \
    do {                                                                                  \
        if (!(condition)) {                                                               \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);              \
            abort();                                                                      \
        }                                                                                 \
    } while (0)

enum role { ROLE_FREE, ROLE_RECV, ROLE_SEND, ROLE_POST };

struct slot {
    _Atomic int busy;
    enum role role;
    int lane;
    _Atomic uint64_t token; /* read by those who cancel at random */
    uint64_t length;
    unsigned char *data;
};

struct lane {
    pthread_mutex_t lock; /* one submission in each direction at a time decides the order */
    int fds[2];
    uint64_t handles[2];
    uint64_t sent;        /* the pattern's position of the next byte to send */
    uint64_t received;
    bool sending;
    bool receiving;
};

static portio_port *port;
static struct slot slots[SLOTS];
static struct lane lanes[LANES];
static _Atomic uint64_t submitted, completed, posted, arrived, cancelled;
static _Atomic bool stopping;
static _Atomic uint32_t next_slot = 2;

static unsigned char pattern(uint64_t at)
{
    return (unsigned char)(at * 31 + (at >> 8) * 7);
}

static struct slot *slot_take(enum role role)
{
    for (;;) {
        uint32_t at = 2 + atomic_fetch_add(&next_slot, 1) % (SLOTS - 2);
        int no = 0;
        if (atomic_compare_exchange_strong(&slots[at].busy, &no, 1)) {
            struct slot *slot = &slots[at];
            slot->token += UINT64_C(1) << PORTIO_SLOT_BITS;
            slot->role = role;
            return slot;
        }
    }
}

static void slot_give(struct slot *slot)
{
    slot->role = ROLE_FREE;
    atomic_store(&slot->busy, 0);
}

static void packet_handle(const portio_completion *packet);

static void receive_submit(struct lane *lane, unsigned *seed)
{
    pthread_mutex_lock(&lane->lock);
    bool start = !lane->receiving;
    lane->receiving = true;
    pthread_mutex_unlock(&lane->lock);
    if (!start)
        return;
    struct slot *slot = slot_take(ROLE_RECV);
    slot->lane = (int)(lane - lanes);
    slot->length = 1 + (uint64_t)rand_r(seed) % BUFFER;
    uint64_t token = slot->token;
    atomic_fetch_add(&submitted, 1);
    CHECK(portio_submit_one(port, PORTIO_RECV, 0, lane->handles[1], token, slot->data,
                            slot->length, 0) == 0);
    if (rand_r(seed) % 3 == 0)
        CHECK(portio_cancel(port, token) == 0);
}

static void send_submit(struct lane *lane, unsigned *seed)
{
    pthread_mutex_lock(&lane->lock);
    bool start = !lane->sending;
    lane->sending = true;
    pthread_mutex_unlock(&lane->lock);
    if (!start)
        return;
    struct slot *slot = slot_take(ROLE_SEND);
    slot->lane = (int)(lane - lanes);
    slot->length = 1 + (uint64_t)rand_r(seed) % BUFFER;
    for (uint64_t at = 0; at < slot->length; at++)
        slot->data[at] = pattern(lane->sent + at);
    uint64_t token = slot->token;
    atomic_fetch_add(&submitted, 1);
    uint64_t length = slot->length;
    int result = portio_submit_one(port, PORTIO_SEND, rand_r(seed) % 2 ? PORTIO_QUIET : 0,
                                   lane->handles[0], token, slot->data, length, 0);
    CHECK(result == 0 || result == 1);
    if (result == 1) { /* no packet comes, so the slot is still ours */
        CHECK(portio_skipped(port, token) == 1);
        portio_completion end = {.token = token, .nbytes = (int64_t)length};
        packet_handle(&end);
    }
    if (rand_r(seed) % 4 == 0)
        CHECK(portio_cancel(port, token) == 0);
}

static void *client(void *argument)
{
    unsigned seed = *(unsigned *)argument;
    for (int step = 0; step < 200 && !atomic_load(&stopping); step++) {
        struct lane *lane = &lanes[rand_r(&seed) % LANES];
        switch (rand_r(&seed) % 4) {
        case 0:
            receive_submit(lane, &seed);
            break;
        case 1:
            send_submit(lane, &seed);
            break;
        case 2:
            /* Whatever life of the slot the token names: a no-op, or a cancel. */
            CHECK(portio_cancel(port, atomic_load(&slots[2 + (unsigned)rand_r(&seed) %
                                                             (SLOTS - 2)].token)) == 0);
            for (uint32_t back = 1; back < 64; back++)
                CHECK(portio_cancel(port, atomic_load(&slots[2 + (atomic_load(&next_slot) + SLOTS -
                                                                  back) % (SLOTS - 2)].token)) == 0);
            break;
        default: {
            struct slot *slot = slot_take(ROLE_POST);
            atomic_fetch_add(&posted, 1);
            CHECK(portio_post(port, slot->token) == 0);
            break;
        }
        }
    }
    return NULL;
}

static void packet_handle(const portio_completion *packet)
{
    struct slot *slot = &slots[packet->token & PORTIO_SLOT_MASK];
    CHECK(atomic_load(&slot->busy) == 1);
    CHECK(slot->token == packet->token);
    struct lane *lane = &lanes[slot->lane];
    int error = (int)(uint32_t)packet->status;
    uint64_t moved = (uint64_t)packet->nbytes;
    CHECK(error == 0 || error == ECANCELED);
    if (error == ECANCELED)
        atomic_fetch_add(&cancelled, 1);
    switch (slot->role) {
    case ROLE_RECV:
        CHECK(error != 0 ? moved == 0 : moved > 0);
        pthread_mutex_lock(&lane->lock);
        for (uint64_t at = 0; at < moved; at++)
            CHECK(slot->data[at] == pattern(lane->received + at));
        lane->received += moved;
        lane->receiving = false;
        pthread_mutex_unlock(&lane->lock);
        atomic_fetch_add(&completed, 1);
        break;
    case ROLE_SEND:
        CHECK(error != 0 || moved == slot->length);
        pthread_mutex_lock(&lane->lock);
        lane->sent += moved;
        lane->sending = false;
        pthread_mutex_unlock(&lane->lock);
        atomic_fetch_add(&completed, 1);
        break;
    case ROLE_POST:
        atomic_fetch_add(&arrived, 1);
        break;
    case ROLE_FREE:
        CHECK(!"a packet of nobody");
    }
    slot_give(slot);
}

static void *worker(void *argument)
{
    unsigned seed = *(unsigned *)argument;
    portio_completion packets[16];
    for (;;) {
        int count = portio_get(port, packets, 1 + (uint32_t)rand_r(&seed) % 16,
                               rand_r(&seed) % 4 == 0 ? 1000000 : -1);
        if (count == PORTIO_CLOSED)
            return NULL;
        if (count == PORTIO_INTERRUPTED)
            continue;
        CHECK(count >= 0);
        for (int at = 0; at < count; at++)
            packet_handle(&packets[at]);
    }
}

int main(int count, char **arguments)
{
    CHECK(count == 3 || count == 5);
    unsigned seed = (unsigned)strtoul(arguments[1], NULL, 0);
    int rounds = atoi(arguments[2]);
    printf("seed %u, %d rounds\n", seed, rounds);
    portio_options options = {.concurrency = 2};
    if (count == 5) {
        options.submission_entries = (uint32_t)atoi(arguments[3]);
        options.completion_entries = (uint32_t)atoi(arguments[4]);
    }
    CHECK(portio_port_create(&options, &port) == 0);
    CHECK(portio_reserve(port, SLOTS) == 0);
    for (int at = 0; at < SLOTS; at++) {
        slots[at].token = (uint64_t)at;
        slots[at].data = malloc(BUFFER);
        CHECK(slots[at].data != NULL);
    }
    for (int at = 0; at < LANES; at++) {
        struct lane *lane = &lanes[at];
        pthread_mutex_init(&lane->lock, NULL);
        CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, lane->fds) == 0);
        for (int end = 0; end < 2; end++) {
            portio_handle handle;
            CHECK(portio_handle_open(port, lane->fds[end], &handle) == 0);
            lane->handles[end] = handle.id;
        }
    }
    pthread_t workers[WORKERS];
    unsigned seeds[WORKERS + CLIENTS];
    for (int at = 0; at < WORKERS; at++) {
        seeds[at] = (unsigned)rand_r(&seed);
        CHECK(pthread_create(&workers[at], NULL, worker, &seeds[at]) == 0);
    }
    for (int round = 0; round < rounds; round++) {
        pthread_t clients[CLIENTS];
        for (int at = 0; at < CLIENTS; at++) {
            seeds[WORKERS + at] = (unsigned)rand_r(&seed);
            CHECK(pthread_create(&clients[at], NULL, client, &seeds[WORKERS + at]) == 0);
        }
        for (int at = 0; at < CLIENTS; at++)
            pthread_join(clients[at], NULL);
    }
    /* The rest: every lane flows until what was sent has arrived. */
    for (int at = 0; at < LANES; at++) {
        struct lane *lane = &lanes[at];
        for (;;) {
            pthread_mutex_lock(&lane->lock);
            bool done = !lane->sending && lane->received == lane->sent;
            pthread_mutex_unlock(&lane->lock);
            if (done)
                break;
            receive_submit(lane, &seed);
            usleep(100); /* gives the workers the processor; nothing depends on it */
        }
    }
    while (atomic_load(&posted) != atomic_load(&arrived))
        usleep(100);
    for (int at = 0; at < LANES; at++)
        receive_submit(&lanes[at], &seed);
    CHECK(portio_port_close(port, 0) == 0);
    for (int at = 0; at < WORKERS; at++)
        pthread_join(workers[at], NULL);
    portio_port_free(port);
    uint64_t bytes = 0;
    for (int at = 0; at < LANES; at++) {
        CHECK(lanes[at].received == lanes[at].sent);
        bytes += lanes[at].received;
        close(lanes[at].fds[0]);
        close(lanes[at].fds[1]);
    }
    for (int at = 0; at < SLOTS; at++)
        free(slots[at].data);
    printf("%llu operations (%llu cancelled), %llu posts, %llu bytes: all accounted for\n",
           (unsigned long long)atomic_load(&submitted),
           (unsigned long long)atomic_load(&cancelled),
           (unsigned long long)atomic_load(&posted), (unsigned long long)bytes);
    return 0;
}
