"""The hot path in C, where that is possible, and what stands for it where it is not.

Between `submit` and the completion an operation passes some ten small steps of the
Python layer: checks, a pin, a token, an entry in two books, a completion.  Each costs
a tenth of a microsecond or two, together more than the kernel takes for the I/O itself.
The extension `_accelerator` does the same steps in C, for the usual case:

- `Port.submit` of operations that are all a `Recv`, `Send`, `Read` or `Write` with one
  buffer, an `Accept`, an `AcceptKey`, a `RecvMultishot` or a `RecvLent`;
- records that become completions: what `Port.get_many` and `Port.get` do as a rule, also
  errors, the sockets of an `Accept`, the keys of an `AcceptKey` and the pieces of a
  `RecvMultishot` or a `RecvLent`;
- `Port.associate` and `CompletionKey.close` of a socket;
- the descriptors of files and pipes, which each submission asks for.

The rule is Python.  Each method of C stands for one of Python (`install`), has its text,
follows the same order of steps, keeps the same books, and calls it for everything that
is not usual, misuse included.  It works on the same objects: the classes below are the
ground of operations, keys, completions and ports, whose fields C reaches without asking.
So either form can take up what the other has begun.

It brings nothing but speed, and may be missing: on a free-threaded CPython, which has no
GIL to make its steps one, on other implementations, where it was not built, and where
PORTIO_ACCELERATOR is 0 (a debugging switch).  `ACCELERATED` tells.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from portio.backends.native import CData, Native
    from portio.completion import Completion

__all__ = [
    "ACCELERATED",
    "KEY_HANDLE",
    "VARIABLE",
    "AcceptFields",
    "AcceptKeyFields",
    "Accepting",
    "Adopting",
    "Book",
    "CompletionFields",
    "Entry",
    "Guard",
    "HandleFields",
    "KeyFields",
    "OperationFields",
    "OutcomeFields",
    "PoolFields",
    "PortFields",
    "ReadFields",
    "RecvFields",
    "RecvLentFields",
    "RecvMultishotFields",
    "RegistryFields",
    "SendFields",
    "Tokens",
    "TransferFields",
    "WriteFields",
    "connect",
    "construct",
    "disconnect",
    "examine",
    "give",
    "install",
    "lend",
    "stand_in",
]

#: A debugging switch: 0 leaves everything to Python.
VARIABLE = "PORTIO_ACCELERATOR"


def _load() -> ModuleType | None:
    if os.environ.get(VARIABLE) == "0" or not getattr(sys, "_is_gil_enabled", lambda: True)():
        return None
    try:
        return importlib.import_module("portio.accelerator._accelerator")
    except ImportError:
        return None


_module: Any = _load()

#: Whether the hot path is in C.
ACCELERATED: bool = _module is not None

if TYPE_CHECKING or not ACCELERATED:

    class OperationFields:
        """What every operation has."""

        __slots__ = ("_entry", "_outcome", "key")

    class TransferFields(OperationFields):
        """What has one buffer and one number."""

        __slots__ = ("buffer",)

    class RecvFields(TransferFields):
        """The fields of a `Recv`."""

        __slots__ = ("flags",)

    class SendFields(TransferFields):
        """The fields of a `Send`."""

        __slots__ = ("flags",)

    class ReadFields(TransferFields):
        """The fields of a `Read`."""

        __slots__ = ("offset",)

    class WriteFields(TransferFields):
        """The fields of a `Write`."""

        __slots__ = ("offset",)

    class AcceptFields(OperationFields):
        """The fields of an `Accept`."""

        __slots__ = ("multishot",)

    class AcceptKeyFields(OperationFields):
        """The fields of an `AcceptKey`."""

        __slots__ = ("multishot",)

    class RecvMultishotFields(OperationFields):
        """The fields of a `RecvMultishot`."""

        __slots__ = ("pool",)

    class RecvLentFields(OperationFields):
        """The fields of a `RecvLent`."""

        __slots__ = ("pool",)

    #: Makes what settles an accept, of the form of its sockets; None: Python has to.
    Accepting: Callable[[Any], Any] | None = None
    #: The same for one whose connections come with their keys: of the port, the listener's key
    #: and the form.
    Adopting: Any = None

    #: Lends a buffer of a pool: the memory of a piece, and its loan.
    lend: Callable[[Any, int], tuple[memoryview, Any]] | None = None

    class HandleFields:
        """What a file or a pipe has."""

        __slots__ = ("_descriptor",)

        _descriptor: int

    class KeyFields:
        """What a key has."""

        __slots__ = (
            *("_accepting", "_closed", "_descriptor", "_family", "_fits", "_id", "_identity"),
            *("_message_based", "_number", "_port", "data", "handle"),
        )

    #: Gives what a key has as its handle; AttributeError when there is no object for it.
    KEY_HANDLE: Any = vars(KeyFields)["handle"]

    #: The registry's lock.
    Guard = threading.RLock

    class Entry(weakref.ref[Any]):
        """A weak reference to a key, and what its descriptor meant then."""

        __slots__ = ("identity",)

        identity: Any  # set by `Registry.add`

    class RegistryFields:
        """What the registry has."""

        __slots__ = ("entries", "lock", "sockets")

    class OutcomeFields:
        """What an outcome has."""

        __slots__ = ("error", "last", "more", "nbytes", "queued", "value")

    class CompletionFields:
        """What a completion has."""

        __slots__ = ("_error", "_outcome", "key", "nbytes", "operation")

    #: What is pending, by its token; in C for the few methods that are used.
    Book = dict[int, Any]
    #: The tokens that are free; the same.
    Tokens = list[int]

    class PoolFields:
        """The memory of a pool."""

        _address: int  # of the engine's part
        _memory: bytearray
        size: int

        __slots__ = ("_address", "_keeper", "_memory", "_port", "size")

    class PortFields:
        """The books of a port."""

        #: Whether the GIL is kept for brief transfers, by the methods in C.
        _brief: bool

        __slots__ = (
            *("_batch", "_free", "_keeper", "_kept", "_left", "_native", "_owner", "_pending"),
            "_rescued",
        )

        def _fill(self, *_: object) -> bool | None:
            """Does what `Port.get_many` does: into a list, with a limit and a time-out.

            If not, the caller has to; None: it is the main thread, and has to sleep.
            """
            return False

        def _next(self, *_: object) -> bool | None:
            """Does what `Port.get` does: into a list, with a time-out; like `_fill`."""
            return False

else:
    OperationFields = _module.OperationFields
    TransferFields = _module.TransferFields
    RecvFields = _module.RecvFields
    SendFields = _module.SendFields
    ReadFields = _module.ReadFields
    WriteFields = _module.WriteFields
    AcceptFields = _module.AcceptFields
    AcceptKeyFields = _module.AcceptKeyFields
    RecvMultishotFields = _module.RecvMultishotFields
    RecvLentFields = _module.RecvLentFields
    Accepting = _module.Accepting
    Adopting = _module.Adopting
    lend = _module.lend
    HandleFields = _module.HandleFields
    KeyFields = _module.KeyFields
    KEY_HANDLE = vars(KeyFields)["_handle"]
    Guard = _module.Guard
    Entry = _module.Entry
    RegistryFields = _module.RegistryFields
    OutcomeFields = _module.OutcomeFields
    CompletionFields = _module.CompletionFields
    PoolFields = _module.PoolFields
    Book = _module.Book
    Tokens = _module.Tokens
    PortFields = _module.PortFields


def install(owner: type, *names: str) -> None:
    """Puts what is in C in the places of Python's methods and properties.

    It calls those as ``_NAME_by_rule``.
    """
    for name in names:
        rule = vars(owner)[name]
        setattr(owner, f"_{name.lstrip('_')}_by_rule", rule)
        if ACCELERATED:
            setattr(owner, name, _module.method(owner, name, rule.__doc__))


def stand_in(owner: type, **rules: str) -> None:
    """Puts rules of Python's in the slots in which its base type in C has what calls them."""
    for name, rule in rules.items():
        if not ACCELERATED:
            setattr(owner, name, vars(owner)[rule])


def construct(*owners: Any) -> None:
    """Leaves the constructors of operations to their base types in C.

    Those call Python's as ``_init_by_rule``.
    """
    for owner in owners:
        owner._init_by_rule = owner.__init__
        if ACCELERATED:
            del owner.__init__


#: What C takes from an operation's fields, and what it does for `_prepare`.
_TAKEN = (
    *("key", "buffer", "flags", "offset", "multishot", "pool"),
    *("_entry", "_outcome", "_prepare", "_next_turn", "_settling"),
)
#: How a class may have its own way with all fields, from whichever of its bases.
_ACCESS = ("__getattribute__", "__setattr__")
_KINDS: tuple[type, ...] = (
    *(RecvFields, SendFields, ReadFields, WriteFields),
    *(AcceptFields, AcceptKeyFields, RecvMultishotFields, RecvLentFields),
)


def examine(owner: type[OperationFields]) -> None:
    """Looks at a new class of operations: C must not pass by what a class does in its own way.

    Raises TypeError for a class of two kinds.
    """
    kinds = [kind for kind in _KINDS if issubclass(owner, kind)]
    if len(kinds) > 1:
        raise TypeError(f"{owner.__name__} derives from two kinds of operation")
    if ACCELERATED and kinds:
        mine = next(each for each in reversed(owner.__mro__) if kinds[0] in each.__bases__)
        above = owner.__mro__[: owner.__mro__.index(mine)]
        if any(name in vars(each) for name in _TAKEN for each in above) or any(
            getattr(owner, name) is not getattr(object, name) for name in _ACCESS
        ):
            _module.mark(owner)


#: What C calls of the engine, in the order of ``_connect``.
_FUNCTIONS = (
    *("submit_one", "submit", "get", "renew"),
    *("handle_adopt", "handle_close", "handle_release", "handle_abandon"),
    "pool_return",
)


def connect(
    port: PortFields, native: Native, engine: CData, completions: type[Completion[Any]]
) -> None:
    """Gives `port` the way to its engine's port, which it has as `_native` already."""
    if ACCELERATED:
        address, functions = native.ffi.cast, native.lib
        connecting: Any = port
        connecting._connect(
            completions,
            *(
                int(address("uintptr_t", each))
                for each in (
                    engine,
                    *(native.ffi.addressof(functions, f"portio_{name}") for name in _FUNCTIONS),
                )
            ),
        )


def give(*given: object) -> None:
    """Gives C what it makes or uses of Python's: see ``give`` in module.c."""
    if ACCELERATED:
        _module.give(*given)


def disconnect(port: PortFields) -> None:
    """Takes the way away again: everything is left to Python."""
    if ACCELERATED:
        disconnecting: Any = port
        disconnecting._disconnect()
