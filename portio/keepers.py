"""Memory of the engines, which is freed when nobody can use it any more, and not before.

Python has no good word for that moment.  The collector calls the finalizers of all that is
unreachable, `__del__`, weak references, and those of cffi's `ffi.gc` (since 2.1), while it
still is in one piece; only then is it taken apart.  Until then whatever is in the same garbage
uses the memory, and rightly: a `__del__` of the program's that asks a closed port for packets,
or a piece of a pool, which goes back when its turn comes.

So there is a *token*, an object that the collector does not know of, and that nothing refers to
but what is kept.  It ends as that is taken apart, after what leads to the memory: in C that is
the order of the fields (accelerator.h); without C the engine's functions go first, as slots of a
derived class.  What happens then is all in C, where no signal handler runs.
"""

from __future__ import annotations

import atexit
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from portio.backends.native import CData, ForeignInterface

__all__ = ["keep"]

#: What frees itself when it leaves here, by the weak references to the tokens.
_kept: dict[weakref.ref[CData], tuple[ForeignInterface, CData]] = {}


def keep(
    ffi: ForeignInterface, memory: CData, free: Callable[[CData], object]
) -> tuple[CData, Callable[[], object]]:
    """Has `memory` freed when the token that it gives has ended; and what prevents it."""
    token = ffi.new("char *")
    held = ffi.gc(memory, free)
    _kept[weakref.ref(token, _kept.pop)] = ffi, held
    return token, lambda: ffi.gc(held, None)


@atexit.register
def _keep_all() -> None:
    """At the end of the process nothing is freed: who knows what uses it still."""
    for ffi, held in list(_kept.values()):
        ffi.gc(held, None)
