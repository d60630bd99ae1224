/* SPDX-License-Identifier: MIT
 *
 * python.exe, as CPython's own Programs/python.c: everything is in the DLL.
 */
#include <wchar.h>

extern __declspec(dllimport) int Py_Main(int argc, wchar_t **argv);

int wmain(int argc, wchar_t **argv)
{
    return Py_Main(argc, argv);
}
