# SPDX-License-Identifier: MIT
#
# Cross-compile for 64-bit Windows with mingw-w64, for the Python that environment.py has
# set up: its directory is in the variable PORTIO_WINDOWS_PYTHON.  CMake's programs, and
# cffi's, are those of the machine that compiles.

set(CMAKE_SYSTEM_NAME Windows)
set(CMAKE_SYSTEM_PROCESSOR AMD64)
set(CMAKE_C_COMPILER x86_64-w64-mingw32-gcc)
set(CMAKE_RC_COMPILER x86_64-w64-mingw32-windres)

set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)

list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES PORTIO_WINDOWS_PYTHON)
set(Python_INCLUDE_DIR "${PORTIO_WINDOWS_PYTHON}/include" CACHE PATH "")
file(GLOB python_library "${PORTIO_WINDOWS_PYTHON}/libs/python3?*.lib")
set(Python_LIBRARY "${python_library}" CACHE FILEPATH "")
set(Python_SABI_LIBRARY "${PORTIO_WINDOWS_PYTHON}/libs/python3.lib" CACHE FILEPATH "")
