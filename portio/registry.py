"""Which descriptors of this process belong to a port (contract K1 and K6).

One registry for all ports and backends, because the system's own rule, one port
for each handle, holds on Windows only.  There the kernel has the last word
(`system.KERNEL_KEEPS_OWNERS`): it knows duplicates, and which number is a new
handle's; the registry only says which key to drop then.

An entry is a descriptor's number, a weak reference to its key, and the identity
of the file behind it (device and inode) at the time of the association.  It
holds as long as the key lives, is attached, and still means that file.  A number
that was closed behind our back and given out again means another file: the entry
is *stale*.  Whoever finds one drops it and has the old port abandon the handle,
so that no completion of its former life reaches the new one.

Sockets are also known by their identity, which no two sockets share: a duplicate
(`socket.dup`) of a socket that belongs to a port is refused like the socket.
Files and pipes have no such identity; a duplicate of theirs goes undetected.

The usual case is a number that has no entry, and no duplicate.  `Port.associate` sees that
by itself, in `entries` and `sockets`, with the identity that the engine has found as it
opened the handle; `check` is for all others, before the engine opens it.

Locking.  `lock` is held from the look into the registry until the new entry is
in it; the system's association happens in between, so two threads cannot both
succeed.  It is an RLock: a collection that starts under it may run a destructor
that associates or closes something.  Methods in C do without it where they keep the GIL
from the look to the end; they only see that nobody holds it.  `CompletionKey.__del__`
takes no lock at all: a dead weak reference says enough.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from portio import system
from portio.accelerator import Entry, Guard, RegistryFields

if TYPE_CHECKING:
    from portio.backends.native import CData
    from portio.keys import CompletionKey

__all__ = ["Entry", "Identity", "Registry", "identify", "identity_of", "registry"]


#: What the system knows a file by: the inode of a socket, which are all on one device, else
#: device and inode.
Identity: TypeAlias = "int | tuple[int, int]"


def identify(descriptor: int) -> Identity | None:
    """The identity of what `descriptor` means now; None when it cannot be told."""
    known = system.identify(descriptor)
    if known is None:
        return None
    device, inode, is_socket = known
    return inode if is_socket else (device, inode)


def identity_of(opened: CData) -> Identity | None:
    """The same, as the engine has found it when it made the portio_handle `opened`."""
    device = opened.device
    if not device:  # no device has this number: the engine does not tell
        return None
    return opened.inode if opened.family else (device, opened.inode)


def _is_socket(identity: Identity) -> bool:
    return isinstance(identity, int)


class Registry(RegistryFields):
    """Descriptors and the keys that they belong to."""

    __slots__ = ()

    def __init__(self) -> None:
        #: Hold it from the look into the books, or `check`, to `add`.
        self.lock = Guard()
        #: By descriptor.  One that is not in here has no holder, and nothing of it is stale …
        self.entries: dict[int, Entry] = {}
        #: … unless it is a duplicate of one of these sockets: descriptors by identity.
        self.sockets: dict[Identity | None, int] = {}

    def check(
        self, descriptor: int, identity: Identity | None
    ) -> tuple[CompletionKey | None, list[CompletionKey]]:
        """Who holds `descriptor`, and which stale keys were dropped on the way.

        The stale ones are attached still; their handles are to be abandoned.
        """
        stale: list[CompletionKey] = []
        holder = self._holder(descriptor, stale)
        if holder is None and identity is not None and _is_socket(identity):
            duplicate = self.sockets.get(identity)
            if duplicate is not None:
                holder = self._holder(duplicate, stale)
        return holder, stale

    def _holder(self, descriptor: int, stale: list[CompletionKey]) -> CompletionKey | None:
        """The key that holds `descriptor`; drops the entry when none does any more."""
        entry = self.entries.get(descriptor)
        if entry is None:
            return None
        key: CompletionKey | None = entry()
        if key is not None and key.attached:
            if key.means(descriptor) and entry.identity == identify(descriptor):
                return key
            stale.append(key)
        self.remove(descriptor)
        return None

    def add(self, descriptor: int, identity: Identity | None, key: CompletionKey) -> None:
        """Enters `key`; nobody holds `descriptor`, or its holder gives way to the new key."""
        entry: Entry = Entry(key)
        entry.identity = identity
        is_socket = identity is not None and _is_socket(identity)
        # No call between the two books, here and in `remove`: so no signal handler, either.
        self.entries[descriptor] = entry
        if is_socket:
            self.sockets[identity] = descriptor

    def lost_by(self, port: object) -> list[CompletionKey]:
        """The keys of `port` whose handles were closed behind our back."""
        with self.lock:
            keys = [(descriptor, entry()) for descriptor, entry in self.entries.items()]
        return [
            key
            for descriptor, key in keys
            if key is not None and key.port is port and not key.means(descriptor)
        ]

    def remove(self, descriptor: int, key: CompletionKey | None = None) -> None:
        """Drops the entry of `descriptor`, if there is one (and it is `key`'s).

        Whoever calls holds the lock.
        """
        entry = self.entries.get(descriptor)
        if entry is None or (key is not None and entry() is not key):
            return
        is_known = self.sockets.get(entry.identity) == descriptor
        del self.entries[descriptor]
        if is_known:
            del self.sockets[entry.identity]

    def forget_all(self) -> None:
        """Makes the registry new, for a forked child, whose ports are the parent's."""
        self.lock = Guard()  # a thread that does not exist here may hold it
        self.entries = {}
        self.sockets = {}

    def __len__(self) -> int:
        return len(self.entries)


#: The registry of this process.  `lifetime` makes a new one in a forked child.
registry = Registry()
