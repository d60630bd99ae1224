"""O2: misuse raises at once, says what is wrong, and starts nothing."""

from __future__ import annotations

import array
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import portio
from support.drivers import Driver
from support.net import Net
from support.system import WINE


def label(value: object) -> str:
    """A parameter's name in the report; without an address, which changes with each run."""
    return "an object" if type(value) is object else repr(value)


Make = Callable[[portio.CompletionKey], portio.Operation[Any]]


def refused(
    driver: Driver,
    key: portio.CompletionKey,
    make: Make,
    *errors: type[Exception],
    match: str | None = None,
) -> portio.CompletionKey:
    """Neither the construction nor the submission may let this through.

    Gives the key that the handle has afterwards.
    """
    operation: portio.Operation[Any] | None = None

    def attempt() -> None:
        nonlocal operation
        operation = make(key)
        driver.submit(operation)

    with pytest.raises(errors, match=match):
        attempt()
    assert operation is None or not operation.pending
    driver.assert_quiet()
    # That nothing is pending on the handle is seen when it can be released.
    if WINE:  # which cannot
        return key
    handle = key.handle
    driver.disassociate(key)
    return driver.associate(handle)


@pytest.fixture
def stream(driver: Driver, net: Net) -> portio.CompletionKey:
    """The key of a connected stream."""
    return driver.associate(net.pair()[0])


@pytest.fixture
def datagram(driver: Driver, net: Net) -> portio.CompletionKey:
    return driver.associate(net.datagram())


@pytest.fixture
def file(driver: Driver, tmp_path: Path, closing: Any) -> portio.CompletionKey:
    return driver.associate(closing.enter_context(portio.open(tmp_path / "file", "w+")))


READ_INTO: dict[str, Callable[..., portio.Operation[Any]]] = {
    "Recv": portio.Recv,
    "RecvFrom": portio.RecvFrom,
    "Read": portio.Read,
}
WRITE_FROM: dict[str, Callable[..., portio.Operation[Any]]] = {
    "Send": portio.Send,
    "Write": portio.Write,
    "SendTo": lambda key, buffer: portio.SendTo(key, buffer, ("127.0.0.1", 9)),
}


HANDLES = {
    "Recv": "stream",
    "RecvFrom": "datagram",
    "Read": "file",
    "Send": "stream",
    "Write": "file",
    "SendTo": "datagram",
}
Kind = tuple[portio.CompletionKey, Callable[..., portio.Operation[Any]]]


@pytest.fixture(params=[*READ_INTO])
def reading(request: pytest.FixtureRequest) -> Kind:
    """Each operation that writes into its buffer, and a key for it."""
    return request.getfixturevalue(HANDLES[request.param]), READ_INTO[request.param]


@pytest.fixture(params=[*READ_INTO, *WRITE_FROM])
def moving(request: pytest.FixtureRequest) -> Kind:
    """Each operation with a buffer, and a key for it."""
    kinds = READ_INTO | WRITE_FROM
    return request.getfixturevalue(HANDLES[request.param]), kinds[request.param]


@pytest.mark.parametrize(
    "buffer",
    [b"bytes", memoryview(b"view"), [bytearray(2), b"second"], memoryview(bytes(8))[::2]],
    ids=["bytes", "view", "in a sequence", "strided view"],
)
def test_o2_read_only_buffers_for_a_read(driver: Driver, reading: Kind, buffer: Any) -> None:
    key, kind = reading
    refused(driver, key, lambda key: kind(key, buffer), BufferError, TypeError)


@pytest.mark.parametrize(
    "buffer",
    [
        memoryview(bytearray(16))[::2],
        [bytearray(4), memoryview(bytearray(16))[::-1]],
    ],
    ids=["strided", "in a sequence"],
)
def test_o2_non_contiguous_buffers(driver: Driver, moving: Kind, buffer: Any) -> None:
    key, kind = moving
    refused(driver, key, lambda key: kind(key, buffer), BufferError)


@pytest.mark.parametrize(
    "buffer",
    [None, 5, 1.5, "text", object(), {"a": 1}, [1, 2], ["text"], [None], [bytearray(1), 7]],
    ids=label,
)
def test_o2_no_buffer_at_all(driver: Driver, moving: Kind, buffer: Any) -> None:
    key, kind = moving
    refused(driver, key, lambda key: kind(key, buffer), TypeError)


def test_o2_a_released_view(driver: Driver, moving: Kind) -> None:
    view = memoryview(bytearray(4))
    view.release()
    key, kind = moving
    refused(driver, key, lambda key: kind(key, view), ValueError, BufferError)


def test_o2_a_refused_buffer_is_not_held(driver: Driver, reading: Kind) -> None:
    """The good buffer beside the bad one is free again."""
    key, kind = reading
    good = bytearray(4)
    refused(driver, key, lambda key: kind(key, [good, b"bad"]), BufferError, TypeError)
    good.append(0)


def test_o2_a_sequence_of_good_and_odd_buffers(driver: Driver, file: Any) -> None:
    """Any object with a contiguous buffer counts in bytes, whatever its items are."""
    numbers = array.array("i", [1, 2, 3])
    assert driver.result(portio.Write(file, [numbers, b"tail"])) == 16
    back = array.array("i", [0, 0, 0])
    assert driver.result(portio.Read(file, (back, tail := bytearray(4)))) == 16
    assert back == numbers
    assert tail == b"tail"


@pytest.mark.parametrize("key", [None, 5, "key", object()], ids=label)
def test_o2_no_key(driver: Driver, key: Any) -> None:
    kinds: list[Make] = [
        lambda key: portio.Recv(key, bytearray(1)),
        lambda key: portio.Send(key, b"x"),
        portio.Accept,
        lambda key: portio.Connect(key, ("127.0.0.1", 9)),
        portio.Shutdown,
        portio.Sync,
        lambda key: portio.Read(key, bytearray(1)),
        lambda key: portio.SendFile(key, 0),
    ]
    for kind in kinds:

        def attempt(kind: Make = kind) -> None:
            driver.submit(kind(key))

        with pytest.raises(TypeError, match=r"key|Key"):
            attempt()
    driver.assert_quiet()


@pytest.mark.parametrize("operation", [None, 5, "Recv", object(), portio.Recv], ids=label)
def test_o2_no_operation(driver: Driver, operation: Any) -> None:
    with pytest.raises(TypeError):
        driver.submit(operation)
    driver.assert_quiet()


def test_o2_the_base_class_is_no_operation(driver: Driver, stream: Any) -> None:
    def attempt() -> None:
        driver.submit(portio.Operation(stream))

    with pytest.raises(TypeError):
        attempt()
    driver.assert_quiet()


@pytest.mark.parametrize("offset", [-1, -(2**40), 2**63, 2**70])
def test_o2_offsets_that_are_none(driver: Driver, file: Any, offset: int) -> None:
    for make in (
        lambda key: portio.Read(key, bytearray(4), offset),
        lambda key: portio.Write(key, b"data", offset),
    ):
        file = refused(driver, file, make, ValueError, OverflowError)


@pytest.mark.parametrize("offset", [1.5, "0", None], ids=label)
def test_o2_offsets_of_the_wrong_type(driver: Driver, file: Any, offset: Any) -> None:
    refused(driver, file, lambda key: portio.Read(key, bytearray(4), offset), TypeError)


@pytest.mark.parametrize("seconds", [-1, -1e-9, float("nan"), float("-inf")])
def test_o2_timers_that_run_backwards(driver: Driver, seconds: float) -> None:
    def attempt() -> None:
        driver.submit(portio.Timer(seconds))

    with pytest.raises(ValueError, match=r"(?i)timer|seconds"):
        attempt()
    driver.assert_quiet()


@pytest.mark.parametrize("seconds", [None, "1", [], b"1"], ids=label)
def test_o2_timers_of_the_wrong_type(driver: Driver, seconds: Any) -> None:
    def attempt() -> None:
        driver.submit(portio.Timer(seconds))

    with pytest.raises(TypeError):
        attempt()
    driver.assert_quiet()


@pytest.mark.parametrize(("offset", "count"), [(-1, None), (0, -1), (2**63, None), (0, 2**64)])
def test_o2_sendfile_out_of_range(
    driver: Driver, stream: Any, tmp_path: Path, offset: int, count: int | None
) -> None:
    (tmp_path / "source").write_bytes(b"data")
    with portio.open(tmp_path / "source") as source:
        refused(
            driver,
            stream,
            lambda key: portio.SendFile(key, source, offset, count),
            ValueError,
            OverflowError,
        )


def test_o2_sendfile_of_no_file(driver: Driver, stream: Any, tmp_path: Path) -> None:
    bad: Any
    for bad in ("name", None, 1.5, object()):
        stream = refused(driver, stream, lambda key, bad=bad: portio.SendFile(key, bad), TypeError)
    (tmp_path / "source").write_bytes(b"data")
    with portio.open(tmp_path / "source") as source:
        pass
    stream = refused(driver, stream, lambda key: portio.SendFile(key, source), ValueError)
    refused(driver, stream, lambda key: portio.SendFile(key, -1), ValueError, OSError)


@pytest.mark.parametrize("how", [3, -1, 17])
def test_o2_shutdown_of_what(driver: Driver, stream: Any, how: int) -> None:
    refused(driver, stream, lambda key: portio.Shutdown(key, how), ValueError)


@pytest.mark.parametrize("how", ["write", None, 1.5], ids=label)
def test_o2_shutdown_of_the_wrong_type(driver: Driver, stream: Any, how: Any) -> None:
    refused(driver, stream, lambda key: portio.Shutdown(key, how), TypeError, ValueError)


BAD_ADDRESSES: list[Any] = [
    ("127.0.0.1", 70_000),
    ("127.0.0.1", -1),
    ("127.0.0.1",),
    ("127.0.0.1", "80"),
    (b"127.0.0.1", 80, 3, 4, 5),
    ("127.0.0.1\0", 80),
    "127.0.0.1",
    None,
    80,
]


@pytest.mark.parametrize("address", BAD_ADDRESSES, ids=label)
def test_o2_addresses_that_are_none(driver: Driver, net: Net, datagram: Any, address: Any) -> None:
    errors = (TypeError, ValueError, OverflowError)
    refused(
        driver,
        driver.associate(net.socket()),
        lambda key: portio.Connect(key, address),
        *errors,
    )
    refused(driver, datagram, lambda key: portio.SendTo(key, b"x", address), *errors)


@pytest.mark.parametrize("host", ["localhost", "example.com", "127.0.0", "::1%nowhere"])
def test_o2_host_names_are_to_be_resolved_first(driver: Driver, net: Net, host: str) -> None:
    """Resolving may block for long; a completion port does not do it in secret."""
    refused(
        driver,
        driver.associate(net.socket()),
        lambda key: portio.Connect(key, (host, 80)),
        ValueError,
        match="resolve|getaddrinfo",
    )


def test_o2_unix_paths_that_are_too_long_or_of_the_wrong_type(driver: Driver, net: Net) -> None:
    address: Any
    for address in ("x" * 200, ("127.0.0.1", 80), 5, "nul\0inside"):
        refused(
            driver,
            driver.associate(net.socket("unix")),
            lambda key, address=address: portio.Connect(key, address),
            ValueError,
            TypeError,
        )


def test_o2_operations_of_the_wrong_kind_of_handle(
    driver: Driver, net: Net, file: Any, stream: Any, datagram: Any
) -> None:
    """A clear error either way: at once where it can be seen, else with the completion."""
    attempts: list[tuple[Make, portio.CompletionKey]] = [
        (portio.Accept, file),
        (lambda key: portio.Recv(key, bytearray(1)), file),
        (lambda key: portio.Send(key, b"x"), file),
        (lambda key: portio.Connect(key, ("127.0.0.1", 9)), file),
        (portio.Shutdown, file),
        (portio.Sync, stream),
        (portio.Accept, datagram),
        (lambda key: portio.SendFile(key, 0), file),
    ]
    for make, key in attempts:
        operation = make(key)
        try:
            driver.submit(operation)
        except (ValueError, TypeError):
            assert not operation.pending
        else:
            done = driver.wait_for(operation)
            assert isinstance(done.error, OSError), done
            assert done.error.errno


@pytest.mark.parametrize("flags", ["0", None, 1.5, 2**40], ids=label)
def test_o2_flags_of_the_wrong_type(driver: Driver, stream: Any, flags: Any) -> None:
    for make in (
        lambda key: portio.Recv(key, bytearray(1), flags),
        lambda key: portio.Send(key, b"x", flags),
    ):
        stream = refused(driver, stream, make, TypeError, ValueError, OverflowError)


def test_o2_a_socket_that_was_closed_by_the_program(driver: Driver, net: Net) -> None:
    """The key holds the socket object, so this can be seen without asking the system."""
    ours, _ = net.pair()
    key = driver.associate(ours)
    ours.close()
    operation = portio.Recv(key, bytearray(1))
    try:
        driver.submit(operation)
    except ValueError as error:
        assert "closed" in str(error)
        assert not operation.pending
    else:
        done = driver.wait_for(operation)
        assert done.error is not None
        assert done.error.errno == 9  # EBADF


def test_o2_a_key_of_another_port(driver: Driver, net: Net, backend: str) -> None:
    ours, peer = net.pair()
    with portio.Port(backend=backend) as other:
        key = other.associate(ours)
        operation = portio.Send(key, b"x")
        with pytest.raises(ValueError, match="port"):
            driver.submit(operation)
        assert not operation.pending
        driver.assert_quiet()
    peer.setblocking(False)
    with pytest.raises(BlockingIOError):
        peer.recv(1)


def test_o2_results_asked_for_too_early(driver: Driver, net: Net) -> None:
    ours, peer = net.pair()
    receive = portio.Recv(driver.associate(ours), bytearray(4))
    with pytest.raises(RuntimeError):
        receive.result()
    driver.submit(receive)
    with pytest.raises(RuntimeError):
        receive.result()
    peer.sendall(b"now")
    driver.wait_for(receive)
    assert receive.result() == 3


def test_o2_messages_name_the_operation(driver: Driver, stream: Any) -> None:
    with pytest.raises((BufferError, TypeError), match="Recv"):
        driver.submit(portio.Recv(stream, b"read-only"))  # type: ignore[arg-type]
    send = portio.Send(stream, b"x")
    driver.close_key(stream)
    with pytest.raises(ValueError, match="Send"):
        driver.submit(send)


def test_o2_a_listener_cannot_be_read(driver: Driver, net: Net) -> None:
    key = driver.associate(net.listener())
    done = driver.run(portio.Recv(key, bytearray(1)))
    assert isinstance(done.error, OSError)


def test_o2_open_with_bad_modes_and_paths(tmp_path: Path) -> None:
    mode: Any
    for mode in ("", "a", "rw", "r++", "t", "rt", "U", "xw", "bb"):
        with pytest.raises(ValueError, match="mode"):
            portio.open(tmp_path / "file", mode)
    for mode in (None, 5):
        with pytest.raises((TypeError, ValueError)):
            portio.open(tmp_path / "file", mode)
    assert not (tmp_path / "file").exists()
    with pytest.raises(FileNotFoundError):
        portio.open(tmp_path / "missing")
    with pytest.raises(IsADirectoryError):
        portio.open(tmp_path, "w")
    (tmp_path / "there").touch()
    with pytest.raises(FileExistsError):
        portio.open(tmp_path / "there", "x")
    with pytest.raises(ValueError, match="null"):
        portio.open("nul\0inside")


def test_o2_sockets_of_no_known_kind(driver: Driver) -> None:
    """A netlink socket is neither stream nor datagram of a family with addresses we know."""
    if not hasattr(socket, "AF_NETLINK"):
        pytest.skip("no netlink sockets on this system")
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as sock:
        try:
            key = driver.associate(sock)
        except (ValueError, OSError):
            return
        driver.let_go(key)
