"""What is measured: the registry of works, a module for each.

A work has cases and subjects.  A new one is a module with a ``WORK``, and a line here.
"""

from benchmarks.model import Work
from benchmarks.works import accepts, echo, files, idle, memory, posts, reads, threads

WORKS: dict[str, Work] = {
    module.WORK.name: module.WORK
    for module in (echo, threads, accepts, idle, reads, files, posts, memory)
}
