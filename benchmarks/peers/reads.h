/* What the programs that read a file share: their arguments, the order of the
   blocks, the buffers, and the measurement. */

#ifndef BENCHMARKS_READS_H
#define BENCHMARKS_READS_H

#include "program.h"

#include <fcntl.h>
#include <sys/stat.h>

struct reads {
    int file;
    size_t block;
    uint64_t blocks; /* whole blocks in the file */
    uint64_t state; /* of the order in which they are read */
};

struct reads_arguments {
    uint64_t depth;
    uint64_t count;
    uint64_t warm_up;
};

struct reads_mark {
    uint64_t wall;
    uint64_t cpu;
};

static inline struct reads_arguments reads_open(struct reads *reads, int argc, char **argv)
{
    if (argc != 6) {
        fprintf(stderr, "usage: %s FILE BLOCK DEPTH COUNT SECONDS\n", argv[0]);
        exit(EXIT_FAILURE);
    }
    reads->file = open(argv[1], O_RDONLY | O_CLOEXEC);
    if (reads->file < 0)
        fail(argv[1]);
    reads->block = (size_t)number(argv[2], 1, 1 << 30);
    struct reads_arguments arguments;
    arguments.depth = (uint64_t)number(argv[3], 1, 4096);
    arguments.count = (uint64_t)number(argv[4], 1, 1000000000);
    arguments.warm_up = arguments.count / 10 + arguments.depth;
    reads->state = 0;
    limit_seconds((unsigned)number(argv[5], 1, 3600));

    struct stat status;
    if (fstat(reads->file, &status) != 0)
        fail("fstat");
    reads->blocks = (uint64_t)status.st_size / reads->block;
    if (reads->blocks == 0)
        fail_with(argv[1], EINVAL);
    return arguments;
}

/* The order is that of a linear congruential generator (Knuth's MMIX), which
   the Python programs repeat: everybody reads the same blocks. */
static inline uint64_t reads_next_offset(struct reads *reads)
{
    reads->state = reads->state * 6364136223846793005u + 1442695040888963407u;
    return (reads->state >> 33) % reads->blocks * reads->block;
}

/* One block for each read in flight, in memory that has been touched. */
static inline char *reads_buffers(const struct reads *reads, uint64_t depth)
{
    void *buffers;
    int error = posix_memalign(&buffers, 4096, depth * reads->block);
    if (error != 0)
        fail_with("posix_memalign", error);
    memset(buffers, 1, depth * reads->block);
    return buffers;
}

static inline struct reads_mark reads_take_mark(void)
{
    return (struct reads_mark){clock_nanoseconds(CLOCK_MONOTONIC),
                               clock_nanoseconds(CLOCK_PROCESS_CPUTIME_ID)};
}

static inline void reads_report(struct reads_mark begin, uint64_t count)
{
    struct reads_mark end = reads_take_mark();
    printf("{\"count\": %llu, \"wall\": %.9f, \"cpu\": %.9f}\n", (unsigned long long)count,
           (double)(end.wall - begin.wall) / 1e9, (double)(end.cpu - begin.cpu) / 1e9);
}

#endif
