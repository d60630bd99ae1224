"""Socket addresses: from Python's form to the system's bytes and back.

The forms are those of the `socket` module: ``(host, port)`` for IPv4,
``(host, port[, flowinfo[, scope_id]])`` for IPv6, a path (str or bytes) for Unix
sockets, bytes that begin with a zero byte for Linux's abstract names.

Hosts must be numeric.  Resolving a name blocks, so it is the program's decision
where to do it; a name is a ValueError that says so, and nothing is started.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from typing import Any, TypeAlias

__all__ = ["SIZE", "Address", "decode", "encode"]

#: An address as a program gives it.
Address: TypeAlias = (
    tuple[str, int] | tuple[str, int, int] | tuple[str, int, int, int] | str | bytes
)

#: Bytes that hold an address of any family (sockaddr_storage).
SIZE = 128

_FAMILY = struct.Struct("=H")
_PORT = struct.Struct("!H")
_IPV4 = struct.Struct("!H4s8x")
_IPV6_HEAD = struct.Struct("!HI16s")  # the port, the flow information, the address
_IPV6_SCOPE = struct.Struct("=I")  # in the machine's order, unlike all the rest
_PATH_SIZE = 108  # sun_path, with its final zero
_AF_UNIX: int = getattr(socket, "AF_UNIX", -1)  # Windows has none


def encode(family: int, address: object) -> bytes:
    """The system's form of `address` for a socket of `family`.

    Raises TypeError when it has not the form of such an address, and ValueError
    when a part of it is out of range or the host is a name.
    """
    if family == socket.AF_INET:
        return _encode_ipv4(address)
    if family == socket.AF_INET6:
        return _encode_ipv6(address)
    if family == _AF_UNIX:
        return _encode_path(address)
    raise ValueError(f"addresses of family {family} are not supported")


def decode(raw: bytes) -> Any:
    """The address in `raw`, in the form that the `socket` module gives it.

    None when the system gave none, as for a connected stream.
    """
    if len(raw) < _FAMILY.size:
        return None
    (family,) = _FAMILY.unpack_from(raw)
    rest = raw[_FAMILY.size :]
    if family == socket.AF_INET and len(rest) >= 6:
        return socket.inet_ntop(socket.AF_INET, rest[2:6]), _PORT.unpack_from(rest)[0]
    if family == socket.AF_INET6 and len(rest) >= _IPV6_HEAD.size + _IPV6_SCOPE.size:
        port, flow, host = _IPV6_HEAD.unpack_from(rest)
        (scope,) = _IPV6_SCOPE.unpack_from(rest, _IPV6_HEAD.size)
        return socket.inet_ntop(socket.AF_INET6, host), port, flow, scope
    if family == _AF_UNIX:
        if sys.platform == "linux" and rest[:1] == b"\0":
            return rest
        return os.fsdecode(rest.partition(b"\0")[0])
    return family, rest


def _parts(address: object, most: int, form: str) -> tuple[str, list[int]]:
    """The host and the numbers of an internet address."""
    if not isinstance(address, tuple) or not 2 <= len(address) <= most:
        raise TypeError(f"the address must be a tuple {form}, not {address!r}")
    host, *numbers = address
    if not isinstance(host, str) or not all(isinstance(number, int) for number in numbers):
        raise TypeError(f"the address must be a tuple {form}, not {address!r}")
    if not 0 <= numbers[0] <= 0xFFFF:
        raise ValueError(f"the port must be from 0 to 65535, not {numbers[0]}")
    return host, numbers


def _name_error(host: str, family: str) -> ValueError:
    return ValueError(
        f"{host!r} is not a numeric {family} address; "
        "resolve a host name first, for example with socket.getaddrinfo"
    )


def _encode_ipv4(address: object) -> bytes:
    host, (port,) = _parts(address, 2, "(host, port)")
    if host == "":
        packed = bytes(4)
    elif host == "<broadcast>":
        packed = b"\xff" * 4
    else:
        try:
            packed = socket.inet_pton(socket.AF_INET, host)
        except (OSError, ValueError):
            raise _name_error(host, "IPv4") from None
    return _FAMILY.pack(socket.AF_INET) + _IPV4.pack(port, packed)


def _encode_ipv6(address: object) -> bytes:
    host, numbers = _parts(address, 4, "(host, port[, flowinfo[, scope_id]])")
    port, flow, scope = (*numbers, 0, 0)[:3]
    if not 0 <= flow <= 0xFFFFF:
        raise ValueError(f"flowinfo must be from 0 to 1048575, not {flow}")
    if not 0 <= scope <= 0xFFFFFFFF:
        raise ValueError(f"scope_id must be from 0 to 4294967295, not {scope}")
    number, percent, zone = host.partition("%")
    if percent:
        scope = _zone_index(host, zone)
    try:
        packed = socket.inet_pton(socket.AF_INET6, number) if host else bytes(16)
    except (OSError, ValueError):
        raise _name_error(host, "IPv6") from None
    head = _IPV6_HEAD.pack(port, flow, packed)
    return _FAMILY.pack(socket.AF_INET6) + head + _IPV6_SCOPE.pack(scope)


def _zone_index(host: str, zone: str) -> int:
    """The number of a zone such as the ``eth0`` of ``fe80::1%eth0``."""
    if zone.isascii() and zone.isdigit() and int(zone) <= 0xFFFFFFFF:
        return int(zone)
    try:
        return socket.if_nametoindex(zone)
    except (OSError, ValueError):
        raise ValueError(f"{host!r} names no network interface of this machine") from None


def _encode_path(address: object) -> bytes:
    if not isinstance(address, str | bytes | os.PathLike):
        raise TypeError(f"the address of a Unix socket must be a path, not {address!r}")
    path = os.fsencode(address)
    if path[:1] == b"\0":  # an abstract name: every byte counts, none ends it
        if len(path) > _PATH_SIZE:
            raise ValueError(f"an abstract name has at most {_PATH_SIZE} bytes: {address!r}")
        return _FAMILY.pack(_AF_UNIX) + path
    if not path or b"\0" in path:
        raise ValueError(f"not a path: {address!r}")
    if len(path) >= _PATH_SIZE:
        raise ValueError(f"the path has more than {_PATH_SIZE - 1} bytes: {address!r}")
    return _FAMILY.pack(_AF_UNIX) + path + b"\0"
