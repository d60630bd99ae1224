/* The records of operations, found by the low bits of a token, and by the pointer
   of a packet.

   Chunks double in size, so there are few; they are added, never moved, and freed
   with the port.  Growing happens under the port's lock; looking up needs none,
   because a token reaches C only after portio_reserve has returned. */
#include "iocp.h"

#include <stdlib.h>

static uint32_t chunk_size(uint32_t chunk)
{
    return 1u << (SLOT_FIRST_BITS + chunk);
}

/* The first slot of a chunk: 256 × (2^chunk - 1). */
static uint32_t chunk_start(uint32_t chunk)
{
    return chunk_size(chunk) - (1u << SLOT_FIRST_BITS);
}

int slots_reserve(struct slots *slots, portio_port *port, uint32_t count)
{
    if (count > (1u << PORTIO_SLOT_BITS))
        return PORTIO_NO_MEMORY;
    for (uint32_t chunk = 0; (uint32_t)slots->count < count; chunk++) {
        if (slots->chunks[chunk] != NULL)
            continue;
        struct op *ops = calloc(chunk_size(chunk), sizeof *ops);
        if (ops == NULL)
            return PORTIO_NO_MEMORY;
        for (uint32_t at = 0; at < chunk_size(chunk); at++) {
            ops[at].port = port;
            ops[at].accepted = INVALID_SOCKET;
        }
        slots->chunks[chunk] = ops;
        /* A full barrier: who sees the count sees the chunk. */
        InterlockedExchange(&slots->count, (LONG)(chunk_start(chunk) + chunk_size(chunk)));
    }
    return 0;
}

/* Who sees the count sees the chunks (slots_reserve). */
static uint32_t slots_count(const struct slots *slots)
{
    return (uint32_t)load_acquire(&slots->count);
}

struct op *slots_at(struct slots *slots, uint32_t slot)
{
    if (slot >= slots_count(slots))
        return NULL;
    uint32_t place = slot + (1u << SLOT_FIRST_BITS);
    unsigned long bit = 0;
    BitScanReverse(&bit, place);
    uint32_t chunk = (uint32_t)bit - SLOT_FIRST_BITS;
    return &slots->chunks[chunk][slot - chunk_start(chunk)];
}

struct op *slots_find(struct slots *slots, uint64_t token)
{
    return slots_at(slots, (uint32_t)(token & PORTIO_SLOT_MASK));
}

struct op *slots_of_packet(struct slots *slots, OVERLAPPED *overlapped)
{
    uintptr_t address = (uintptr_t)overlapped;
    uint32_t count = slots_count(slots);
    for (uint32_t chunk = 0; chunk < SLOT_CHUNKS && chunk_start(chunk) < count; chunk++) {
        uintptr_t start = (uintptr_t)slots->chunks[chunk];
        if (address < start || address >= start + chunk_size(chunk) * sizeof(struct op))
            continue;
        return (address - start) % sizeof(struct op) == 0 ? (struct op *)address : NULL;
    }
    return NULL;
}

void slots_destroy(struct slots *slots)
{
    for (uint32_t chunk = 0; chunk < SLOT_CHUNKS; chunk++) {
        struct op *ops = slots->chunks[chunk];
        if (ops == NULL)
            continue;
        for (uint32_t at = 0; at < chunk_size(chunk); at++) {
            struct op *op = &ops[at];
            if (op->step_wait != NULL)
                CloseThreadpoolWait(op->step_wait);
            if (op->step_event != NULL)
                CloseHandle(op->step_event);
            if (op->done_event != NULL)
                CloseHandle(op->done_event);
        }
        free(ops);
        slots->chunks[chunk] = NULL;
    }
}
