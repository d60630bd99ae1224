"""Which engine a port of this process uses, and why the others are not available.

Three engines stand behind one door (native.cdef.txt), each in an extension of
its own, and a port uses exactly one:

========  =======  ==========================================
io_uring  Linux    a ring: the kernel itself carries out operations
epoll     Linux    readiness turned into completion
iocp      Windows  the kernel's own completion port
========  =======  ==========================================

The choice: what ``Port(backend=…)`` says; else the environment variable
PORTIO_BACKEND; else the first of the list above that works here.  An engine is
loaded and its system probed when it is first asked about; what works is not
probed again in this process.
Where no engine exists portio imports all the same, and creating a port raises
`portio.BackendUnavailableError` with the reasons.
"""

from __future__ import annotations

import errno
import importlib
import os
from dataclasses import dataclass

from portio.backends import reasons
from portio.backends.native import Native
from portio.errors import BackendUnavailableError

__all__ = ["NAMES", "VARIABLE", "BackendStatus", "available", "default"]

#: Every backend that there is, the best first.
NAMES: tuple[str, ...] = ("io_uring", "epoll", "iocp")
#: The environment variable that chooses a backend.
VARIABLE = "PORTIO_BACKEND"


@dataclass(frozen=True)
class BackendStatus:
    """What is known about one backend on this machine."""

    #: The backend's name, as `Port(backend=…)` takes it.
    name: str
    #: Whether a port can use it.
    available: bool
    #: Why it cannot be used; empty when it can.
    reason: str = ""
    #: What to do about that; empty when it can be used.
    advice: str = ""
    #: The features of this system that the backend found, by name.
    features: tuple[str, ...] = ()


_known: dict[str, tuple[BackendStatus, Native | None]] = {}


def available() -> dict[str, BackendStatus]:
    """The state of every backend, by name, the best first.

    Loads and probes those that have not been asked about yet.  Never raises for
    a backend that does not work: that is what `BackendStatus.reason` says.
    """
    return {name: _examine(name)[0] for name in NAMES}


def default() -> str:
    """The name of the backend that ``Port()`` would use.

    Raises ValueError when PORTIO_BACKEND names none that exists, and
    `BackendUnavailableError` when the one it names, or every one, cannot be used.
    """
    return choose(None)[0].name


def choose(name: str | None) -> list[Native]:
    """The engines for a new port, the best first; it may be that the best refuses.

    `name` is what the program asked for, or None.  There is only one when it, or
    the environment, has made the choice.  Raises TypeError, ValueError for a name
    that no backend has, and `BackendUnavailableError`.
    """
    if name is not None:
        if not isinstance(name, str):
            raise TypeError(f"backend must be a name or None, not {type(name).__name__}")
        return [_demand(name, f"backend={name!r}")]
    wanted = os.environ.get(VARIABLE)
    if wanted:
        return [_demand(wanted, f"{VARIABLE}={wanted}")]
    natives = [native for each in NAMES if (native := _examine(each)[1]) is not None]
    if natives:
        return natives
    told = "; ".join(f"{status.name}: {status.reason}" for status in available().values())
    raise BackendUnavailableError(errno.ENOTSUP, f"no backend can be used here ({told})")


def feature_names(native: Native) -> tuple[str, ...]:
    """The names of all features that an engine knows, bit 0 first."""
    names: list[str] = []
    while (name := native.lib.portio_feature_name(len(names))) != native.ffi.NULL:
        names.append(native.ffi.string(name).decode("ascii"))
    return tuple(names)


def _demand(name: str, wish: str) -> Native:
    if name not in NAMES:
        raise ValueError(f"{wish}: no such backend; known are {', '.join(NAMES)}")
    status, native = _examine(name)
    if native is None:
        raise BackendUnavailableError(
            errno.ENOTSUP,
            f"{wish}: not available, because {status.reason}; to change that, {status.advice}",
        )
    return native


def _examine(name: str) -> tuple[BackendStatus, Native | None]:
    found = _known.get(name) or _probe(name)
    if found[0].available:  # what fails now, for want of descriptors say, may work later
        _known[name] = found
    return found


def _probe(name: str) -> tuple[BackendStatus, Native | None]:
    try:
        native = _load(name)
    except ImportError as error:
        return BackendStatus(name, False, *reasons.not_built(name, error)), None
    probe = native.ffi.new("portio_probe *")
    native.lib.portio_probe_system(probe)
    found = tuple(
        feature for bit, feature in enumerate(feature_names(native)) if probe.features >> bit & 1
    )
    if probe.available:
        return BackendStatus(name, True, features=found), native
    call = native.ffi.string(probe.failed_call).decode("ascii", "replace")
    why = reasons.probe_failed(name, call, probe.error)
    return BackendStatus(name, False, *why, features=found), None


def _load(name: str) -> Native:
    extension = importlib.import_module(f"portio.backends._{name}")
    return Native(name, extension.ffi, extension.lib)
