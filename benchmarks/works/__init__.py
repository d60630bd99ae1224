"""What is measured: the registry of works, a module for each.

A work has cases and subjects.  A new one is a module with a ``WORK``, and a line here.
"""

from benchmarks.model import Work
from benchmarks.works import echo, memory, posts, reads

WORKS: dict[str, Work] = {
    work.name: work for work in (echo.WORK, reads.WORK, posts.WORK, memory.WORK)
}
