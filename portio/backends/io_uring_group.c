#include "io_uring.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#define GROUPS_MOST 65536u /* their numbers have 16 bits */

/* ---- the ring of one ---- */

static size_t ring_bytes(uint32_t entries)
{
    return entries * sizeof(struct uring_buf);
}

/* 0 or -errno. */
static int buffers_register(struct ring *ring, struct uring_buf *memory, uint32_t entries,
                            uint16_t number)
{
    struct uring_buf_reg argument = {
        .ring_address = (uint64_t)(uintptr_t)memory,
        .ring_entries = entries,
        .group = number,
    };
    int result = ring_register(ring, URING_REGISTER_BUF_RING, &argument, 1);
    return result < 0 ? result : 0;
}

static int buffers_unregister(struct ring *ring, uint16_t number)
{
    struct uring_buf_reg argument = {.group = number};
    int result = ring_register(ring, URING_UNREGISTER_BUF_RING, &argument, 1);
    return result < 0 ? result : 0;
}

/* 0 or -errno.  A forked child must not write to the ring, nor have it copied. */
static int buffers_map(struct uring_buf **memory, uint32_t entries)
{
    void *mapped = mmap(NULL, ring_bytes(entries), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED)
        return -errno;
    (void)madvise(mapped, ring_bytes(entries), MADV_DONTFORK); /* costs only that protection */
    *memory = mapped;
    return 0;
}

int groups_try(struct ring *ring)
{
    struct uring_buf *memory = NULL;
    int error = buffers_map(&memory, 1);
    if (error != 0)
        return error;
    error = buffers_register(ring, memory, 1, 0);
    if (error == 0)
        (void)buffers_unregister(ring, 0); /* closing the ring does it, too */
    munmap(memory, ring_bytes(1));
    return error;
}

static void entry_write(struct group *group, uint32_t number)
{
    /* Not the whole struct: the first entry has the tail in it. */
    struct uring_buf *entry = &group->ring[group->pushed++ & (group->entries - 1)];
    entry->address = (uint64_t)(uintptr_t)(group->memory + (size_t)number * group->size);
    entry->length = group->size;
    entry->number = (uint16_t)number;
}

/* Release: the kernel loads the tail with acquire, and then sees the entries before it.
   Nothing tells of its head, and nothing has to: there are never more buffers than
   entries. */
static void tail_publish(struct group *group)
{
    atomic_store_explicit((_Atomic uint16_t *)&group->ring->tail, (uint16_t)group->pushed,
                          memory_order_release);
}

/* ---- what the pool does with it ---- */

static void group_put(struct pool_store *store, uint32_t number)
{
    struct group *group = (struct group *)store;
    if (group->ring == NULL)
        return; /* the port is closed, and nobody will receive */
    entry_write(group, number);
    tail_publish(group);
}

/* One of its owners gives it up.  The other one frees it, and sees all that was done. */
static void group_leave(struct group *group)
{
    if (atomic_fetch_sub_explicit(&group->owners, 1, memory_order_acq_rel) == 1)
        free(group);
}

static void group_drop(struct pool_store *store)
{
    group_leave((struct group *)store);
}

/* ---- what the engine does with it ---- */

/* The kernel does not know the ring any more. */
static void group_end(struct group *group)
{
    munmap(group->ring, ring_bytes(group->entries));
    group->ring = NULL;
    group_leave(group);
}

/* Those whose pools are gone.  The kernel has no reason to refuse; one that it keeps all
   the same must stay mapped. */
static void orphans_end(struct engine *engine)
{
    struct group **link = &engine->groups;
    while (*link != NULL) {
        struct group *group = *link;
        if (atomic_load_explicit(&group->owners, memory_order_acquire) > 1 ||
            buffers_unregister(&engine->ring, group->number) != 0) {
            link = &group->next;
            continue;
        }
        *link = group->next;
        group_end(group);
    }
}

/* The lowest number that is free, and where in the list it belongs.  False: there is none. */
static bool number_find(struct engine *engine, struct group ***place, uint16_t *number)
{
    struct group **link = &engine->groups;
    uint32_t at = 0;
    while (*link != NULL && (*link)->number == at) {
        link = &(*link)->next;
        at++;
    }
    *place = link;
    *number = (uint16_t)at;
    return at < GROUPS_MOST;
}

/* 0 or -errno: then everything is as before. */
static int group_open(struct engine *engine, struct portio_pool *pool)
{
    struct group **place;
    uint16_t number;
    uint32_t entries = 1;
    if (pool->count > URING_BUF_RING_MOST)
        return -E2BIG;
    while (entries < pool->count)
        entries *= 2;
    if (!number_find(engine, &place, &number))
        return -ENOSPC;
    struct group *group = calloc(1, sizeof *group + pool->count * sizeof group->pieces[0]);
    if (group == NULL)
        return -ENOMEM;
    int error = buffers_map(&group->ring, entries);
    if (error == 0) {
        error = buffers_register(&engine->ring, group->ring, entries, number);
        if (error != 0)
            munmap(group->ring, ring_bytes(entries));
    }
    if (error != 0) {
        free(group);
        return error;
    }
    group->store = (struct pool_store){.put = group_put, .drop = group_drop};
    group->number = number;
    group->entries = entries;
    group->memory = pool->memory;
    group->size = pool->size;
    while (pool->free_count > 0)
        entry_write(group, pool->free[--pool->free_count]);
    tail_publish(group);
    atomic_store_explicit(&group->owners, 2, memory_order_relaxed);
    group->next = *place;
    *place = group;
    pool->store = &group->store;
    return 0;
}

bool group_serves(struct engine *engine, struct portio_pool *pool)
{
    if (!pool->asked) {
        pool->asked = true;
        if (engine->groups_wanted) {
            orphans_end(engine);
            (void)group_open(engine, pool); /* without one a poll does it, at some more cost */
        }
    }
    return pool->store != NULL;
}

void groups_close(struct engine *engine)
{
    while (engine->groups != NULL) {
        struct group *group = engine->groups;
        engine->groups = group->next;
        /* Refused where another thread closes the ring of an owner who has ended.  Then
           closing the ring does it; the kernel holds the pages, and not the mapping. */
        (void)buffers_unregister(&engine->ring, group->number);
        group_end(group);
    }
}
