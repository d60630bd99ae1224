"""Memory of the engines, which is freed when nobody can use it any more, and not before.

Python has no good word for that moment.  The collector calls the finalizers of all that is
unreachable, `__del__`, weak references, and those of cffi's `ffi.gc` (since 2.1), while it
still is in one piece; only then is it taken apart.  Until then whatever is in the same garbage
uses the memory, and rightly: a `__del__` of the program's that asks a closed port for packets,
or a piece of a pool, which goes back when its turn comes.

So there is a *token*, an object that the collector does not know of, and that nothing refers to
but what is kept.  It ends as that is taken apart; who stands for the memory clears first what
leads to it (the order of the fields is in accelerator.h, and in the names of slots).
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from portio.backends.native import CData, ForeignInterface

__all__ = ["keep"]


def keep(
    ffi: ForeignInterface, memory: CData, free: Callable[[CData], object]
) -> tuple[CData, Callable[[], object]]:
    """Has `memory` freed when the token that it gives has ended; and what prevents it.

    At the end of the process nothing is freed any more.
    """
    token = ffi.new("char *")
    finalizer = weakref.finalize(token, free, memory)
    finalizer.atexit = False
    return token, finalizer.detach
