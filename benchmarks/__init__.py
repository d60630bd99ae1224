"""Benchmarks of portio against its peers: ``python -m benchmarks`` from the source tree.

- ``works`` says what is measured, one module for each work;
- ``subjects`` says who is measured, a line for each;
- ``ours`` and ``peers`` hold the programs that they run as, each in a process of its own;
- ``runner`` repeats and interleaves, ``results`` are what it found, also as JSON;
- ``goals`` says what is wanted, and judges a run by it;
- ``report`` makes tables, ``plots`` draws, ``pages`` makes what the documentation includes.

To add a subject, add a line to ``subjects``; to add a work, add a module to ``works``; a goal or a
plot is a line in its module.
"""
