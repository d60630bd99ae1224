"""A guard against slow growth: how many instructions the hot paths take.

Times differ from run to run; the number of instructions that a program executes
hardly does.  `paths.py` walks each hot path a given number of times, `__main__.py`
counts its instructions with valgrind's callgrind, and compares what one operation
takes with `record.json`, which is kept with the sources.

Two numbers are kept for each path:

- *engine*: instructions in the engine's own library;
- *python*: instructions of everything else in the process, as a multiple of what a
  fixed piece of Python (`paths.reference`) takes in the same interpreter, because
  builds of CPython differ.  One record serves one minor version of CPython.

The kernel's work is not seen here; that is what the benchmarks are for.
"""
