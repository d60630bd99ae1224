/* The C side of the door: the declarations of native.cdef.txt, and what the
   C code of the engines agrees on beside them. */
#ifndef PORTIO_NATIVE_H
#define PORTIO_NATIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "native.cdef.txt"

_Static_assert(sizeof(portio_completion) == 24, "Python reads completions as three int64 each");
_Static_assert(offsetof(portio_completion, nbytes) == 8, "order of a completion record");
_Static_assert(offsetof(portio_completion, status) == 16, "order of a completion record");
_Static_assert(sizeof(portio_vector) == 16, "Python fills vectors as pairs of 64 bits");

#define PORTIO_SLOT_BITS 24
#define PORTIO_SLOT_MASK ((1u << PORTIO_SLOT_BITS) - 1)

/* Linux: absolute deadlines are CLOCK_MONOTONIC nanoseconds. */
#define DEADLINE_POLL INT64_C(0)
#define DEADLINE_NEVER INT64_MAX

#endif
