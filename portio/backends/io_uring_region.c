/* Registered buffers: memory whose pages the kernel has looked up and holds already.

   A region is a place in the ring's table of buffers.  A transfer of a file whose one buffer
   lies in a region is submitted as READ_FIXED or WRITE_FIXED with the number of that place,
   so the place must mean the same memory until the kernel is done with the submission, which
   may be as late as its completion.  So a region counts those who use it: a closed one is
   found by nobody any more, and its place is emptied by the last one who leaves.

   The table and the counts are under the port's lock.  The kernel's own look for the pages is
   not: for fresh memory it takes a second for each GiB.  Until then the place is nobody's.  The
   kernel has a lock of its own, though, and whoever submits meanwhile waits for that. */
#include "io_uring.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <time.h>

#define REGIONS_MOST 64u
#define REGION_ATTEMPTS 10 /* a hundredth of a second apart */
#define REGION_LONGEST (UINT64_C(1) << 30) /* the kernel's bound for one buffer */

enum region_state {
    REGION_FREE,
    REGION_OPENING,
    REGION_OPEN,
    REGION_CLOSED /* and in use still, or the kernel would not empty the place */
};

struct region {
    uint64_t begin;
    uint64_t end; /* as begin, unless it is open */
    uint32_t uses;
    enum region_state state;
};

struct regions {
    uint32_t count; /* this place and those above are FREE */
    struct region places[REGIONS_MOST];
};

int regions_register(struct ring *ring)
{
    static const struct iovec none[REGIONS_MOST];
    struct uring_rsrc_register argument = {
        .count = REGIONS_MOST,
        .data = (uint64_t)(uintptr_t)none,
    };
    return ring_register(ring, URING_REGISTER_BUFFERS2, &argument, sizeof argument);
}

/* Has the kernel know another memory in a place; none with a length of 0.  0 or -errno. */
static int place_update(struct engine *engine, uint32_t at, void *memory, uint64_t length)
{
    struct iovec vector = {.iov_base = memory, .iov_len = (size_t)length};
    struct uring_rsrc_update argument = {
        .offset = at,
        .count = 1,
        .data = (uint64_t)(uintptr_t)&vector,
    };
    int result =
        ring_register(&engine->ring, URING_REGISTER_BUFFERS_UPDATE, &argument, sizeof argument);
    return result == 1 ? 0 : result < 0 ? result : -EIO;
}

static void place_free(struct regions *regions, uint32_t at)
{
    regions->places[at].state = REGION_FREE;
    while (regions->count > 0 && regions->places[regions->count - 1].state == REGION_FREE)
        regions->count--;
}

/* 0 or -errno. */
static int place_take(struct engine *engine, uint32_t *place)
{
    if (engine->regions == NULL) {
        struct regions *regions = calloc(1, sizeof *regions);
        if (regions == NULL)
            return -ENOMEM;
        int error = regions_register(&engine->ring);
        if (error < 0) {
            free(regions);
            return error;
        }
        engine->regions = regions;
    }
    struct regions *regions = engine->regions;
    uint32_t at = 0;
    while (at < REGIONS_MOST && regions->places[at].state != REGION_FREE)
        at++;
    if (at == REGIONS_MOST)
        return -ENOBUFS;
    regions->places[at] = (struct region){.state = REGION_OPENING};
    if (regions->count <= at)
        regions->count = at + 1;
    *place = at;
    return 0;
}

int engine_region_open(portio_port *port, void *memory, uint64_t length, uint32_t *number)
{
    struct engine *engine = port->engine;
    if (!engine->registers)
        return PORTIO_UNSUPPORTED;
    if (length > REGION_LONGEST)
        return PORTIO_SYSTEM - EFBIG;
    uint32_t at;
    port_lock(port);
    int error = place_take(engine, &at);
    port_unlock(port);
    if (error != 0)
        return PORTIO_SYSTEM + error;
    error = place_update(engine, at, memory, length);
    /* The kernel gives back what a closed ring had locked some time later. */
    for (int attempt = 0; error == -ENOMEM && attempt < REGION_ATTEMPTS; attempt++) {
        nanosleep(&(struct timespec){0, 10000000}, NULL);
        error = place_update(engine, at, memory, length);
    }
    port_lock(port);
    if (error == 0) {
        struct region *region = &engine->regions->places[at];
        region->begin = (uint64_t)(uintptr_t)memory;
        region->end = region->begin + length;
        region->state = REGION_OPEN;
        *number = at + 1;
    } else {
        place_free(engine->regions, at);
    }
    port_unlock(port);
    return error == 0 ? 0 : PORTIO_SYSTEM + error;
}

/* A place that the kernel would not empty, for want of memory, is not used again. */
static void place_empty(struct engine *engine, uint32_t at)
{
    if (place_update(engine, at, NULL, 0) == 0)
        place_free(engine->regions, at);
}

bool engine_region_close(portio_port *port, uint32_t *number)
{
    struct engine *engine = port->engine;
    bool known = false;
    port_lock(port);
    uint32_t at = *number - 1; /* under the lock: another thread may do the same */
    if (engine->regions != NULL && at < engine->regions->count) {
        struct region *region = &engine->regions->places[at];
        known = region->state == REGION_OPEN;
        if (known) {
            *number = 0;
            region->state = REGION_CLOSED;
            region->end = region->begin;
            if (region->uses == 0)
                place_empty(engine, at);
        }
    }
    port_unlock(port);
    return known;
}

uint8_t uring_region_enter(struct engine *engine, const void *buffer, uint32_t length)
{
    struct regions *regions = engine->regions;
    uint64_t begin = (uint64_t)(uintptr_t)buffer;
    for (uint32_t at = 0; at < regions->count; at++) {
        struct region *region = &regions->places[at];
        if (begin >= region->begin && begin < region->end && length <= region->end - begin) {
            region->uses++;
            return (uint8_t)(at + 1);
        }
    }
    return 0;
}

void uring_region_leave(portio_port *port, struct op *op)
{
    struct engine *engine = port->engine;
    uint32_t at = op->region - 1u;
    op->region = 0;
    struct region *region = &engine->regions->places[at];
    if (--region->uses == 0 && region->state == REGION_CLOSED)
        place_empty(engine, at);
}
