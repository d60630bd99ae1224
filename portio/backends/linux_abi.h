/* System calls that the C library or the kernel headers of a build machine may
   not know yet (the oldest that wheels are built on are of 2014). */
#ifndef PORTIO_LINUX_ABI_H
#define PORTIO_LINUX_ABI_H

#include <errno.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

_Static_assert(sizeof(long) == 8, "offsets go to the kernel in one register");

#define ABI_RWF_NOWAIT 0x08
#define ABI_RWF_NOSIGNAL 0x100

#if !defined(SYS_preadv2) && defined(__x86_64__)
#define SYS_preadv2 327
#define SYS_pwritev2 328
#elif !defined(SYS_preadv2) && defined(__aarch64__)
#define SYS_preadv2 286
#define SYS_pwritev2 287
#endif

#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441 /* the same everywhere but on Alpha */
#endif

static inline int64_t abi_preadv2(int fd, const struct iovec *vectors, uint32_t count,
                                  int64_t offset, int flags)
{
#ifdef SYS_preadv2
    /* The offset's upper half is a further argument, unused where long has 64
       bits (preadv2(2), NOTES). */
    return syscall(SYS_preadv2, fd, vectors, (unsigned long)count, (long)offset, 0L, flags);
#else
    (void)fd, (void)vectors, (void)count, (void)offset, (void)flags;
    errno = ENOSYS;
    return -1;
#endif
}

static inline int64_t abi_pwritev2(int fd, const struct iovec *vectors, uint32_t count,
                                   int64_t offset, int flags)
{
#ifdef SYS_pwritev2
    return syscall(SYS_pwritev2, fd, vectors, (unsigned long)count, (long)offset, 0L, flags);
#else
    (void)fd, (void)vectors, (void)count, (void)offset, (void)flags;
    errno = ENOSYS;
    return -1;
#endif
}

static inline int abi_epoll_pwait2(int set, struct epoll_event *events, int most,
                                   const struct timespec *timeout)
{
    return (int)syscall(SYS_epoll_pwait2, set, events, most, timeout, NULL, (size_t)0);
}

/* "Not with this flag" is always EOPNOTSUPP here.  ENOSYS: no such call; EINVAL: a file or a
   kernel that takes no flags; EPERM and EACCES are left alone, because they may be the
   file's own. */
static inline int64_t abi_without_flag(int64_t result)
{
    if (result < 0 && (errno == ENOSYS || errno == EINVAL))
        errno = EOPNOTSUPP;
    return result;
}

/* preadv2 with RWF_NOWAIT; offset -1: no offset. */
static inline int64_t abi_read_nowait(int fd, const struct iovec *vectors, uint32_t count,
                                      int64_t offset)
{
    return abi_without_flag(abi_preadv2(fd, vectors, count, offset, ABI_RWF_NOWAIT));
}

#endif
