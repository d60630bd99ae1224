#include <stdint.h>
#include <wchar.h>

#include "windows.cdef.txt"
