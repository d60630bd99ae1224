/* Progress of an operation that the system carries out in several steps: whole
   transfers (O8), lengths beyond a DWORD and sequences of any number of buffers
   (O11).  The window of what is left is `buffer` and `length` of the operation;
   of a sequence the engine may change the vectors themselves. */
#include "iocp.h"

static ULONG clipped(uint64_t length, uint64_t most)
{
    return (ULONG)(length < most ? length : most);
}

DWORD transfer_buffers(const struct op *op, WSABUF *buffers, DWORD limit, uint64_t most)
{
    if (!(op->flags & PORTIO_VECTORED)) {
        buffers[0].buf = op->buffer;
        buffers[0].len = clipped(op->length, most);
        return 1;
    }
    const portio_vector *vectors = op->buffer;
    DWORD count = 0;
    for (uint64_t at = 0; at < op->length && count < limit && most > 0; at++) {
        buffers[count].buf = vectors[at].base;
        buffers[count].len = clipped(vectors[at].length, most);
        most -= buffers[count].len;
        count++;
    }
    return count;
}

char *transfer_piece(const struct op *op, DWORD most, DWORD *length)
{
    if (!(op->flags & PORTIO_VECTORED)) {
        *length = clipped(op->length, most);
        return op->buffer;
    }
    const portio_vector *vector = op->buffer;
    *length = clipped(vector->length, most);
    return vector->base;
}
