/* read_io_uring FILE BLOCK DEPTH COUNT ORDER SECONDS: reads of a file on one
   ring, DEPTH of them in flight.

   The limit of what plain reads can do: the buffers and the file are not
   registered with the ring, because a program that reads into buffers of its
   choice cannot register them.  Standard output gets one line of JSON. */

#include "ring.h"
#include "reads.h"

struct reader {
    struct ring ring;
    struct reads reads;
    char *buffers; /* one block for each read in flight */
};

static void start_read(struct reader *self, uint64_t slot)
{
    struct io_uring_sqe *sqe = ring_next(&self->ring);
    sqe->opcode = IORING_OP_READ;
    sqe->fd = self->reads.file;
    sqe->addr = (uint64_t)(uintptr_t)(self->buffers + slot * self->reads.block);
    sqe->len = (uint32_t)self->reads.block;
    sqe->off = reads_next_offset(&self->reads);
    sqe->user_data = slot;
}

static void run(struct reader *self, uint64_t depth, uint64_t count)
{
    uint64_t started = 0, done = 0;
    while (started < depth && started < count)
        start_read(self, started++);
    while (done < count) {
        ring_enter(&self->ring, 1);
        struct io_uring_cqe cqe;
        while (ring_take(&self->ring, &cqe)) {
            if (cqe.res < 0)
                fail_with("read", -cqe.res);
            if ((size_t)cqe.res != self->reads.block)
                fail_with("short read", EIO);
            done++;
            if (started < count) {
                start_read(self, cqe.user_data);
                started++;
            }
        }
    }
}

int main(int argc, char **argv)
{
    struct reader self;
    struct reads_arguments arguments = reads_open(&self.reads, argc, argv);
    ring_open(&self.ring, 256);
    self.buffers = reads_buffers(&self.reads, arguments.depth);
    run(&self, arguments.depth, arguments.warm_up);
    struct reads_mark begin = reads_take_mark();
    run(&self, arguments.depth, arguments.count);
    reads_report(begin, arguments.count);
    return EXIT_SUCCESS;
}
