/* The slot table: records that never move, found by the low bits of a token.

   Chunks are added, never removed, until the port is freed.  Growing happens
   under the port's lock; looking up needs none, because a token reaches C only
   after portio_reserve has returned in some thread that handed it over. */
#ifndef PORTIO_SLOTS_H
#define PORTIO_SLOTS_H

#include "operation.h"

#define SLOT_CHUNK_BITS 8
#define SLOT_CHUNK (1u << SLOT_CHUNK_BITS)
#define SLOT_CHUNKS (1u << (PORTIO_SLOT_BITS - SLOT_CHUNK_BITS))

struct slots {
    struct op **chunks;      /* SLOT_CHUNKS pointers, reserved but not touched */
    _Atomic uint32_t count;  /* slots that exist, a multiple of SLOT_CHUNK */
};

int slots_create(struct slots *slots);
/* 0, or PORTIO_NO_MEMORY, and then everything is as it was. */
int slots_reserve(struct slots *slots, uint32_t count);
void slots_destroy(struct slots *slots);

/* The record of a slot, or NULL when the slot does not exist. */
static inline struct op *slots_at(struct slots *slots, uint32_t slot)
{
    if (slot >= atomic_load_explicit(&slots->count, memory_order_acquire))
        return NULL;
    return &slots->chunks[slot >> SLOT_CHUNK_BITS][slot & (SLOT_CHUNK - 1)];
}

static inline struct op *slots_find(struct slots *slots, uint64_t token)
{
    return slots_at(slots, (uint32_t)(token & PORTIO_SLOT_MASK));
}

#endif
