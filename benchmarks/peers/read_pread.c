/* read_pread FILE BLOCK DEPTH COUNT ORDER SECONDS: reads of a file with pread,
   one after the other, each into the next of DEPTH buffers.

   There is no epoll program for files: to epoll they are always ready.  Standard
   output gets one line of JSON. */

#include "reads.h"

static void run(struct reads *reads, char *buffers, uint64_t depth, uint64_t count)
{
    for (uint64_t done = 0; done < count; done++) {
        ssize_t got = pread(reads->file, buffers + done % depth * reads->block, reads->block,
                            (off_t)reads_next_offset(reads));
        if (got < 0)
            fail("pread");
        if ((size_t)got != reads->block)
            fail_with("short read", EIO);
    }
}

int main(int argc, char **argv)
{
    struct reads reads;
    struct reads_arguments arguments = reads_open(&reads, argc, argv);
    char *buffers = reads_buffers(&reads, arguments.depth);
    run(&reads, buffers, arguments.depth, arguments.warm_up);
    struct reads_mark begin = reads_take_mark();
    run(&reads, buffers, arguments.depth, arguments.count);
    reads_report(begin, arguments.count);
    return EXIT_SUCCESS;
}
