/* The kernel's io_uring ABI, from include/uapi/linux/io_uring.h, as far as it is
   used here.  Declared by ourselves because the wheel is built on systems whose
   headers are older than what it uses; the ABI never changes once released.
   Sizes and offsets are asserted below.  "since" is the kernel's version. */
#ifndef PORTIO_IO_URING_ABI_H
#define PORTIO_IO_URING_ABI_H

#include <stddef.h>
#include <stdint.h>

/* Common to all architectures but alpha (asm-generic/unistd.h). */
#ifndef __NR_io_uring_setup
#define __NR_io_uring_setup 425
#define __NR_io_uring_enter 426
#define __NR_io_uring_register 427
#endif

struct uring_sqe {
    uint8_t opcode;
    uint8_t flags;
    uint16_t ioprio;
    int32_t fd;
    uint64_t offset;   /* also addr2, the address length of connect */
    uint64_t address;
    uint32_t length;
    uint32_t op_flags; /* rw, fsync, poll, msg, timeout, accept, cancel */
    uint64_t user_data;
    uint16_t buffer;   /* also the group of buffers */
    uint16_t personality;
    int32_t file_index;
    uint64_t addr3;
    uint64_t pad;
};

struct uring_cqe {
    uint64_t user_data;
    int32_t res;
    uint32_t flags;
};

struct uring_sq_offsets {
    uint32_t head, tail, ring_mask, ring_entries, flags, dropped, array, reserved;
    uint64_t user_addr;
};

struct uring_cq_offsets {
    uint32_t head, tail, ring_mask, ring_entries, overflow, cqes, flags, reserved;
    uint64_t user_addr;
};

struct uring_params {
    uint32_t sq_entries, cq_entries, flags, sq_thread_cpu, sq_thread_idle, features, wq_fd;
    uint32_t reserved[3];
    struct uring_sq_offsets sq;
    struct uring_cq_offsets cq;
};

struct uring_timespec {
    int64_t seconds, nanoseconds;
};

struct uring_rsrc_register { /* since 5.13 */
    uint32_t count;
    uint32_t flags;
    uint64_t reserved;
    uint64_t data;
    uint64_t tags;
};

struct uring_rsrc_update { /* since 5.13: io_uring_rsrc_update2 */
    uint32_t offset;
    uint32_t reserved;
    uint64_t data;
    uint64_t tags;
    uint32_t count;
    uint32_t reserved2;
};

/* An entry of a ring of buffers.  The ring's tail lies in what would be the first one's
   reserved bytes. */
struct uring_buf { /* since 5.19 */
    uint64_t address;
    uint32_t length;
    uint16_t number;
    uint16_t tail;
};

struct uring_buf_reg { /* since 5.19 */
    uint64_t ring_address; /* of a page */
    uint32_t ring_entries; /* a power of two */
    uint16_t group;
    uint16_t flags;
    uint64_t reserved[3];
};

struct uring_getevents_arg { /* since 5.11 */
    uint64_t sigmask;
    uint32_t sigmask_size;
    uint32_t pad;
    uint64_t timespec;
};

_Static_assert(sizeof(struct uring_sqe) == 64, "io_uring_sqe");
_Static_assert(offsetof(struct uring_sqe, fd) == 4, "io_uring_sqe.fd");
_Static_assert(offsetof(struct uring_sqe, offset) == 8, "io_uring_sqe.off");
_Static_assert(offsetof(struct uring_sqe, address) == 16, "io_uring_sqe.addr");
_Static_assert(offsetof(struct uring_sqe, length) == 24, "io_uring_sqe.len");
_Static_assert(offsetof(struct uring_sqe, op_flags) == 28, "io_uring_sqe.rw_flags");
_Static_assert(offsetof(struct uring_sqe, user_data) == 32, "io_uring_sqe.user_data");
_Static_assert(offsetof(struct uring_sqe, buffer) == 40, "io_uring_sqe.buf_index");
_Static_assert(offsetof(struct uring_sqe, file_index) == 44, "io_uring_sqe.file_index");
_Static_assert(offsetof(struct uring_sqe, addr3) == 48, "io_uring_sqe.addr3");
_Static_assert(sizeof(struct uring_cqe) == 16, "io_uring_cqe");
_Static_assert(offsetof(struct uring_cqe, res) == 8, "io_uring_cqe.res");
_Static_assert(offsetof(struct uring_cqe, flags) == 12, "io_uring_cqe.flags");
_Static_assert(sizeof(struct uring_sq_offsets) == 40, "io_sqring_offsets");
_Static_assert(offsetof(struct uring_sq_offsets, array) == 24, "io_sqring_offsets.array");
_Static_assert(sizeof(struct uring_cq_offsets) == 40, "io_cqring_offsets");
_Static_assert(offsetof(struct uring_cq_offsets, cqes) == 20, "io_cqring_offsets.cqes");
_Static_assert(sizeof(struct uring_params) == 120, "io_uring_params");
_Static_assert(offsetof(struct uring_params, features) == 20, "io_uring_params.features");
_Static_assert(offsetof(struct uring_params, sq) == 40, "io_uring_params.sq_off");
_Static_assert(offsetof(struct uring_params, cq) == 80, "io_uring_params.cq_off");
_Static_assert(sizeof(struct uring_timespec) == 16, "__kernel_timespec");
_Static_assert(sizeof(struct uring_rsrc_register) == 32, "io_uring_rsrc_register");
_Static_assert(offsetof(struct uring_rsrc_register, data) == 16, "io_uring_rsrc_register.data");
_Static_assert(sizeof(struct uring_rsrc_update) == 32, "io_uring_rsrc_update2");
_Static_assert(offsetof(struct uring_rsrc_update, data) == 8, "io_uring_rsrc_update2.data");
_Static_assert(offsetof(struct uring_rsrc_update, count) == 24, "io_uring_rsrc_update2.nr");
_Static_assert(sizeof(struct uring_buf) == 16, "io_uring_buf");
_Static_assert(offsetof(struct uring_buf, length) == 8, "io_uring_buf.len");
_Static_assert(offsetof(struct uring_buf, number) == 12, "io_uring_buf.bid");
_Static_assert(offsetof(struct uring_buf, tail) == 14, "io_uring_buf_ring.tail");
_Static_assert(sizeof(struct uring_buf_reg) == 40, "io_uring_buf_reg");
_Static_assert(offsetof(struct uring_buf_reg, ring_entries) == 8, "io_uring_buf_reg.ring_entries");
_Static_assert(offsetof(struct uring_buf_reg, group) == 12, "io_uring_buf_reg.bgid");
_Static_assert(offsetof(struct uring_buf_reg, flags) == 14, "io_uring_buf_reg.flags");
_Static_assert(offsetof(struct uring_buf_reg, reserved) == 16, "io_uring_buf_reg.resv");
_Static_assert(sizeof(struct uring_getevents_arg) == 24, "io_uring_getevents_arg");
_Static_assert(offsetof(struct uring_getevents_arg, timespec) == 16, "io_uring_getevents_arg.ts");

enum uring_opcode {
    URING_NOP = 0,
    URING_READV = 1,
    URING_WRITEV = 2,
    URING_FSYNC = 3,
    URING_READ_FIXED = 4,
    URING_WRITE_FIXED = 5,
    URING_POLL_ADD = 6,
    URING_SENDMSG = 9,
    URING_RECVMSG = 10,
    URING_TIMEOUT = 11,
    URING_ACCEPT = 13,
    URING_ASYNC_CANCEL = 14,
    URING_CONNECT = 16,
    URING_READ = 22,
    URING_WRITE = 23,
    URING_SEND = 26,
    URING_RECV = 27,
    URING_SHUTDOWN = 34 /* since 5.11; the newest that is used */
};

#define URING_SETUP_CQSIZE (1u << 3)
#define URING_SETUP_CLAMP (1u << 4)
#define URING_SETUP_SUBMIT_ALL (1u << 7)    /* since 5.18 */
#define URING_SETUP_COOP_TASKRUN (1u << 8)  /* since 5.19 */
#define URING_SETUP_TASKRUN_FLAG (1u << 9)  /* since 5.19 */
#define URING_SETUP_SINGLE_ISSUER (1u << 12) /* since 6.0 */
#define URING_SETUP_DEFER_TASKRUN (1u << 13) /* since 6.1 */

#define URING_FEAT_SINGLE_MMAP (1u << 0)    /* since 5.4 */
#define URING_FEAT_NODROP (1u << 1)         /* since 5.5 */
#define URING_FEAT_SUBMIT_STABLE (1u << 2)  /* since 5.5 */
#define URING_FEAT_RW_CUR_POS (1u << 3)     /* since 5.6 */
#define URING_FEAT_FAST_POLL (1u << 5)      /* since 5.7 */
#define URING_FEAT_EXT_ARG (1u << 8)        /* since 5.11 */
#define URING_FEAT_NO_IOWAIT (1u << 17)     /* since 6.15 */

#define URING_ENTER_GETEVENTS (1u << 0)
#define URING_ENTER_EXT_ARG (1u << 3)
#define URING_ENTER_NO_IOWAIT (1u << 7)

#define URING_OFF_SQ_RING UINT64_C(0)
#define URING_OFF_SQES UINT64_C(0x10000000)

#define URING_SQ_CQ_OVERFLOW (1u << 1) /* since 5.8 */
#define URING_SQ_TASKRUN (1u << 2)     /* since 5.19 */

#define URING_CQE_BUFFER (1u << 0) /* since 5.7 */
#define URING_CQE_BUFFER_SHIFT 16  /* of its number, in the flags */
#define URING_CQE_MORE (1u << 1)
#define URING_SQE_ASYNC (1u << 4)
#define URING_SQE_BUFFER_SELECT (1u << 5) /* since 5.7 */
#define URING_POLL_FIRST (1u << 0)     /* since 5.19, in the ioprio of receives */
#define URING_RECV_MULTI (1u << 1)     /* since 6.0, there too */
#define URING_POLL_MULTI (1u << 0)     /* since 5.13, in the length */
#define URING_TIMEOUT_ABS (1u << 0)
#define URING_FSYNC_DATASYNC (1u << 0)

#define URING_REGISTER_FILES 2
#define URING_REGISTER_EVENTFD 4
#define URING_REGISTER_BUFFERS2 15       /* since 5.13 */
#define URING_REGISTER_BUFFERS_UPDATE 16 /* since 5.13 */
#define URING_REGISTER_BUF_RING 22       /* since 5.19 */
#define URING_UNREGISTER_BUF_RING 23     /* since 5.19 */

#define URING_BUF_RING_MOST 32768u /* entries */

#endif
