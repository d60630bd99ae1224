#include "handle.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define HANDLE_CHUNK_BITS 6
#define HANDLE_CHUNK (1u << HANDLE_CHUNK_BITS)
#define HANDLE_CHUNKS (1u << (PORTIO_SLOT_BITS - HANDLE_CHUNK_BITS))

int handles_create(struct handles *handles)
{
    void *memory = mmap(NULL, HANDLE_CHUNKS * sizeof(struct handle *), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return PORTIO_NO_MEMORY;
    handles->chunks = memory;
    handles->count = 0;
    handles->free = NULL;
    handles->life = 1;
    return 0;
}

struct handle *handles_at(struct handles *handles, uint32_t index)
{
    return &handles->chunks[index >> HANDLE_CHUNK_BITS][index & (HANDLE_CHUNK - 1)];
}

void handles_destroy(struct handles *handles)
{
    if (handles->chunks == NULL)
        return;
    for (uint32_t at = 0; at < handles->count; at++)
        pthread_mutex_destroy(&handles_at(handles, at)->lock);
    for (uint32_t at = 0; at < handles->count; at += HANDLE_CHUNK)
        free(handles->chunks[at >> HANDLE_CHUNK_BITS]);
    munmap(handles->chunks, HANDLE_CHUNKS * sizeof(struct handle *));
    handles->chunks = NULL;
}

static int handles_grow(struct handles *handles)
{
    if (handles->count >> HANDLE_CHUNK_BITS >= HANDLE_CHUNKS)
        return PORTIO_NO_MEMORY;
    struct handle *chunk = calloc(HANDLE_CHUNK, sizeof *chunk);
    if (chunk == NULL)
        return PORTIO_NO_MEMORY;
    handles->chunks[handles->count >> HANDLE_CHUNK_BITS] = chunk;
    for (uint32_t at = HANDLE_CHUNK; at-- > 0;) {
        struct handle *handle = &chunk[at];
        pthread_mutex_init(&handle->lock, NULL); /* cannot fail with default attributes */
        handle->index = handles->count + at;
        handle->next_free = handles->free;
        handles->free = handle;
    }
    handles->count += HANDLE_CHUNK;
    return 0;
}

struct handle *handles_add(struct handles *handles)
{
    if (handles->free == NULL && handles_grow(handles) != 0)
        return NULL;
    struct handle *handle = handles->free;
    handles->free = handle->next_free;
    handle->id = handles->life++ << PORTIO_SLOT_BITS | handle->index;
    handle->pending = 0;
    handle->fd = -1;
    handle->type = handle->family = 0;
    handle->dead = handle->closing = handle->accepted = false;
    handle->queue[0] = handle->queue[1] = (struct op_list){NULL, NULL};
    handle->between = NULL;
    return handle;
}

struct handle *handles_find(struct handles *handles, uint64_t id)
{
    uint32_t index = (uint32_t)(id & PORTIO_SLOT_MASK);
    if (id == 0 || index >= handles->count)
        return NULL;
    struct handle *handle = handles_at(handles, index);
    return handle->id == id ? handle : NULL;
}

void handles_remove(struct handles *handles, struct handle *handle)
{
    handle->id = 0;
    handle->dead = false;
    handle->next_free = handles->free;
    handles->free = handle;
}

int handle_inspect(struct handle *handle, int fd)
{
    struct stat status;
    if (fstat(fd, &status) != 0)
        return -errno;
    handle->fd = fd;
    handle->device = status.st_dev;
    handle->inode = status.st_ino;
    if (handle->accepted)
        return 0;
    if (S_ISSOCK(status.st_mode)) {
        int type = 0, family = 0;
        socklen_t length = sizeof type;
        if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) != 0)
            return -errno;
        length = sizeof family;
        if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &length) != 0)
            return -errno;
        handle->type = type == SOCK_STREAM ? PORTIO_STREAM_SOCKET : PORTIO_DATAGRAM_SOCKET;
        handle->family = family;
    } else if (S_ISREG(status.st_mode) || S_ISBLK(status.st_mode)) {
        handle->type = PORTIO_FILE;
    } else if (S_ISDIR(status.st_mode)) {
        return -EISDIR;
    } else {
        handle->type = PORTIO_PIPE;
    }
    return 0;
}

bool handle_is_same(const struct handle *handle)
{
    struct stat status;
    return fstat(handle->fd, &status) == 0 && handle->device == status.st_dev &&
           handle->inode == status.st_ino;
}

bool op_is_readiness_probe(const struct op *op)
{
    int type = op->handle->type;
    return (op->kind == PORTIO_RECV || op->kind == PORTIO_READ) && op->length == 0 &&
           (type == PORTIO_STREAM_SOCKET || type == PORTIO_PIPE);
}
