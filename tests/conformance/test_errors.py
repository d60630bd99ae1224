"""O10 errors: what a completion says about a failure, and how it raises it."""

from __future__ import annotations

import errno
import pickle
from pathlib import Path
from typing import Any

import pytest

import portio
from support.drivers import Driver
from support.net import Net, reset
from support.system import WINE


@pytest.mark.core
def test_o10_success_has_no_error(driver: Driver, net: Net) -> None:
    ours, _ = net.pair()
    done = driver.run(portio.Send(driver.associate(ours), b"x"))
    assert done.error is None
    assert done.result() == 1
    assert done.operation is not None
    assert done.operation.result() == 1


@pytest.mark.core
def test_o10_result_raises_the_error(driver: Driver, net: Net) -> None:
    done = driver.run(portio.Recv(driver.associate(net.socket()), bytearray(1)))
    assert done.error is done.error
    assert done.operation is not None
    for result in (done.result, done.operation.result, done.result):  # as often as asked
        with pytest.raises(OSError, match="Recv") as caught:
            result()
        assert type(caught.value) is type(done.error)
        assert str(caught.value) == str(done.error)


def test_o10_the_traceback_does_not_grow(driver: Driver, net: Net) -> None:
    """An error that is raised again and again stays one error."""
    done = driver.run(portio.Recv(driver.associate(net.socket()), bytearray(1)))

    def depth() -> int:
        try:
            done.result()
        except OSError as error:
            traceback, count = error.__traceback__, 0
            while traceback is not None:
                traceback, count = traceback.tb_next, count + 1
            return count
        pytest.fail("it did not raise")

    first = depth()
    for _ in range(10):
        last = depth()
    assert last == first


@pytest.mark.core
@pytest.mark.parametrize(
    ("family", "number"),
    [
        (ConnectionRefusedError, errno.ECONNREFUSED),
        (ConnectionResetError, errno.ECONNRESET),
        (BrokenPipeError, errno.EPIPE),
        (OSError, errno.ENOTCONN),
        (OSError, errno.EISCONN),
        (OSError, errno.EBADF),
        (OSError, errno.EMSGSIZE),
        (portio.OperationCancelledError, errno.ECANCELED),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else errno.errorcode[value],
)
def test_o10_the_right_subclass_with_a_portable_errno(
    driver: Driver, net: Net, family: type[OSError], number: int, tmp_path: Path
) -> None:
    ours, peer = net.pair()
    key = driver.associate(ours)
    operation: portio.Operation[Any]
    waits = False
    if number == errno.ECONNREFUSED:
        operation = portio.Connect(driver.associate(net.socket()), net.refused_address())
    elif number == errno.ECONNRESET:
        operation = portio.Recv(key, bytearray(1))
        if waits := WINE:  # which tells of a reset only those who were waiting
            driver.submit(operation)
        reset(peer)
    elif number == errno.EPIPE:
        driver.result(portio.Shutdown(key))
        operation = portio.Send(key, b"x")
    elif number == errno.ENOTCONN:
        operation = portio.Recv(driver.associate(net.socket()), bytearray(1))
    elif number == errno.EISCONN:
        operation = portio.Connect(key, ours.getpeername())
    elif number == errno.EBADF:
        reader, writer = portio.pipe()
        net._closing.enter_context(reader)
        net._closing.enter_context(writer)
        operation = portio.Write(driver.associate(reader), b"x")
    elif number == errno.EMSGSIZE:
        datagram = net.datagram()
        operation = portio.SendTo(driver.associate(datagram), bytes(70_000), datagram.getsockname())
    else:
        operation = portio.Recv(key, bytearray(1))
    if not waits:
        driver.submit(operation)
    if number == errno.ECANCELED:
        driver.cancel(operation)
    done = driver.wait_for(operation)
    assert type(done.error) is family
    assert done.error.errno == number
    assert type(operation).__name__ in str(done.error)
    assert done.error.strerror
    assert done.nbytes == 0


def test_o10_a_subclass_is_named_too(driver: Driver, net: Net) -> None:
    class Greeting(portio.Recv):
        pass

    done = driver.run(Greeting(driver.associate(net.socket()), bytearray(1)))
    assert "Recv" in str(done.error) or "Greeting" in str(done.error)


def test_o10_the_keys_of_several_handles_are_told_apart(driver: Driver, net: Net) -> None:
    keys = [driver.associate(net.socket(), f"session {n}") for n in range(2)]
    texts = [str(driver.run(portio.Recv(key, bytearray(1))).error) for key in keys]
    assert texts[0] != texts[1]


def test_o10_the_familys_classes() -> None:
    for error in (
        portio.PortClosedError,
        portio.OperationCancelledError,
        portio.NotSupportedError,
        portio.BackendUnavailableError,
    ):
        assert issubclass(error, OSError)
        assert error.__module__ in ("portio", "portio.errors")
    assert issubclass(portio.BackendUnavailableError, portio.NotSupportedError)


def test_o10_errors_can_be_pickled(driver: Driver, net: Net) -> None:
    """A server may want to send them to its log in another process."""
    timer = portio.Timer(1000)
    driver.submit(timer)
    driver.cancel(timer)
    errors = [
        driver.wait_for(timer).error,
        driver.run(portio.Recv(driver.associate(net.socket()), bytearray(1))).error,
    ]
    for error in errors:
        assert error is not None
        copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
        assert type(copy) is type(error)
        assert (copy.errno, str(copy)) == (error.errno, str(error))


def test_o10_representations_say_what_is_what(driver: Driver, net: Net) -> None:
    """For the one who debugs: class, state and outcome."""
    ours, peer = net.pair()
    key = driver.associate(ours, "my session")
    assert "my session" in repr(key)
    receive = portio.Recv(key, bytearray(1 << 20))
    texts = [repr(receive)]
    driver.submit(receive)
    texts.append(repr(receive))
    peer.sendall(b"x")
    done = driver.wait_for(receive)
    texts += [repr(done), repr(receive)]
    for text in texts:
        assert "Recv" in text
        assert len(text) < 1000, "a megabyte of buffer is no help"
    assert "pending" in texts[1]
    assert "pending" not in texts[3]


@pytest.mark.core
def test_o10_posted_packets_never_fail(driver: Driver) -> None:
    driver.post(None, 5, payload := object())
    [packet] = driver.take()
    assert packet.error is None
    assert packet.result() is payload


def test_o10_backend_unavailable_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, status in portio.backends.available().items():
        if not status.available:
            assert status.reason
            with pytest.raises(portio.BackendUnavailableError) as caught:
                portio.Port(backend=name)
            assert status.reason in str(caught.value)
    monkeypatch.setenv("PORTIO_BACKEND", "no-such")
    with pytest.raises(ValueError, match="no-such"):
        portio.Port()
