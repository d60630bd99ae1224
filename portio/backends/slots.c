#include "slots.h"

#include <stdlib.h>
#include <sys/mman.h>

int slots_create(struct slots *slots)
{
    /* 512 KiB of address space; only the pages that are written cost memory. */
    void *memory = mmap(NULL, SLOT_CHUNKS * sizeof(struct op *), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return PORTIO_NO_MEMORY;
    slots->chunks = memory;
    atomic_store(&slots->count, 0);
    return 0;
}

int slots_reserve(struct slots *slots, uint32_t count)
{
    if (count > (1u << PORTIO_SLOT_BITS))
        return PORTIO_NO_MEMORY;
    uint32_t first = atomic_load_explicit(&slots->count, memory_order_relaxed);
    uint32_t have = first;
    for (; have < count; have += SLOT_CHUNK) {
        struct op *chunk = calloc(SLOT_CHUNK, sizeof *chunk);
        if (chunk == NULL)
            break;
        slots->chunks[have >> SLOT_CHUNK_BITS] = chunk;
    }
    if (have < count) {
        /* The caller needs memory to say so: what was left must not stay with us. */
        while (have > first)
            free(slots->chunks[(have -= SLOT_CHUNK) >> SLOT_CHUNK_BITS]);
        return PORTIO_NO_MEMORY;
    }
    /* Release: a reader that sees the count sees the chunks. */
    atomic_store_explicit(&slots->count, have, memory_order_release);
    return 0;
}

void slots_destroy(struct slots *slots)
{
    if (slots->chunks == NULL)
        return;
    uint32_t have = atomic_load(&slots->count);
    for (uint32_t at = 0; at < have; at += SLOT_CHUNK)
        free(slots->chunks[at >> SLOT_CHUNK_BITS]);
    munmap(slots->chunks, SLOT_CHUNKS * sizeof(struct op *));
    slots->chunks = NULL;
}
