#include "pool.h"

#include <stdlib.h>

portio_pool *portio_pool_create(void *memory, uint32_t count, uint32_t size)
{
    portio_pool *pool = calloc(1, sizeof *pool + (size_t)2 * count * sizeof pool->free[0]);
    if (pool == NULL)
        return NULL;
    pool->memory = memory;
    pool->count = count;
    pool->size = size;
    pool->free_count = count;
    for (uint32_t at = 0; at < count; at++)
        pool->free[at] = count - 1 - at;
    return pool;
}

void pool_destroy(portio_pool *pool)
{
    if (pool->store != NULL)
        pool->store->drop(pool->store);
    free(pool);
}
