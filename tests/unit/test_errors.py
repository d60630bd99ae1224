"""System errors as exceptions: the class, the errno, the text."""

from __future__ import annotations

import errno
import gc
import os
import pickle
import weakref

import pytest

import portio
from portio import errors
from portio.completion import Completion, Outcome, error_of
from support.system import WINDOWS

# The system's number, the portable one, and the class.
CODES = (
    [
        (10054, errno.ECONNRESET, ConnectionResetError),  # WSAECONNRESET
        (64, errno.ECONNRESET, ConnectionResetError),  # ERROR_NETNAME_DELETED
        (1225, errno.ECONNREFUSED, ConnectionRefusedError),  # ERROR_CONNECTION_REFUSED
        (232, errno.EPIPE, BrokenPipeError),  # ERROR_NO_DATA
        (2, errno.ENOENT, FileNotFoundError),  # ERROR_FILE_NOT_FOUND
        (5, errno.EACCES, PermissionError),  # ERROR_ACCESS_DENIED
        (121, errno.ETIMEDOUT, TimeoutError),  # ERROR_SEM_TIMEOUT
        (10040, errno.EMSGSIZE, OSError),  # WSAEMSGSIZE
        (995, errno.ECANCELED, portio.OperationCancelledError),  # ERROR_OPERATION_ABORTED
        (50, errno.ENOTSUP, portio.NotSupportedError),  # ERROR_NOT_SUPPORTED
    ]
    if WINDOWS
    else [
        (number, number, kind)
        for number, kind in (
            (errno.ECONNRESET, ConnectionResetError),
            (errno.ECONNREFUSED, ConnectionRefusedError),
            (errno.EPIPE, BrokenPipeError),
            (errno.ENOENT, FileNotFoundError),
            (errno.EACCES, PermissionError),
            (errno.ETIMEDOUT, TimeoutError),
            (errno.EMSGSIZE, OSError),
            (errno.ECANCELED, portio.OperationCancelledError),
            (errno.ENOTSUP, portio.NotSupportedError),
        )
    ]
)
CODE_OF = {number: code for code, number, _ in reversed(CODES)}


@pytest.mark.parametrize(("code", "number", "kind"), CODES)
def test_each_code_has_its_class(code: int, number: int, kind: type[OSError]) -> None:
    error = errors.from_system(code, "while testing")
    assert type(error) is kind
    assert error.errno == number
    if WINDOWS:
        assert error.winerror == code  # type: ignore[attr-defined, unused-ignore]
        assert str(error).startswith(f"[WinError {code}] while testing: ")
        assert len(str(error)) > len(f"[WinError {code}] while testing: ")
    else:
        assert str(error) == f"[Errno {code}] while testing: {os.strerror(code)}"


def test_cancelled_is_no_connection_error() -> None:
    assert not issubclass(portio.OperationCancelledError, ConnectionError)
    assert issubclass(portio.BackendUnavailableError, portio.NotSupportedError)
    for kind in (portio.PortClosedError, portio.OperationCancelledError, portio.NotSupportedError):
        assert issubclass(kind, OSError)


def test_errors_survive_pickling() -> None:
    error = errors.port_closed()
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert type(copy) is portio.PortClosedError
    assert (copy.errno, str(copy)) == (errno.EBADF, str(error))


class Mine(portio.Recv):
    """A program's own operation."""


def failed(operation: portio.Operation[int], code: int, nbytes: int = 0) -> Completion[int]:
    completion: Completion[int] = Completion()
    completion.operation = operation
    completion.key = operation.key
    completion.nbytes = nbytes
    completion._outcome = Outcome(code, nbytes, nbytes)
    return completion


KEY = portio.CompletionKey("data")


def test_texts_name_the_operation_and_what_was_moved() -> None:
    plain = failed(portio.Recv(KEY, bytearray(1)), CODE_OF[errno.ECONNRESET])
    assert "portio.Recv on a free key: " in str(plain.error)
    mine = failed(Mine(KEY, bytearray(1)), CODE_OF[errno.ECONNRESET], 7)
    assert "Mine (portio.Recv) on a free key after 7 bytes: " in str(mine.error)
    timer: portio.Operation[None] = portio.Timer(1)
    code = CODE_OF[errno.ECANCELED]
    kind = "WinError" if WINDOWS else "Errno"
    assert str(error_of(timer, None, Outcome(code, 0, None))).startswith(
        f"[{kind} {code}] portio.Timer: "
    )


def test_the_error_is_one_object_and_each_raise_a_new_one() -> None:
    done = failed(portio.Send(KEY, b"x"), CODE_OF[errno.EPIPE])
    assert done.error is done.error
    raised = []
    for _ in range(2):
        with pytest.raises(BrokenPipeError) as caught:
            done.result()
        raised.append(caught.value)
    assert raised[0] is not raised[1]
    assert str(raised[0]) == str(done.error)
    assert done.error is not None
    assert done.error.__traceback__ is None


def test_a_raised_error_does_not_keep_its_frame() -> None:
    """Nor the frame what it has, a socket for example, until the collector runs."""

    class Resource:
        pass

    def fail() -> weakref.ref[Resource]:
        resource = Resource()
        done = failed(portio.Send(KEY, b"x"), CODE_OF[errno.EPIPE])
        try:
            done.result()
        except BrokenPipeError:
            pass
        return weakref.ref(resource)

    gc.disable()
    try:
        assert fail()() is None
    finally:
        gc.enable()


def test_results_without_errors() -> None:
    done: Completion[int] = Completion()
    done.operation, done.key, done.nbytes, done._outcome = portio.Send(KEY, b"x"), KEY, 1, None
    assert (done.result(), done.error, done.payload, done.last) == (1, None, None, True)
    done.operation = None
    assert done.result() is None
    done._outcome = Outcome(0, 1, "payload")
    assert (done.result(), done.payload, done.error) == ("payload", "payload", None)
    done._outcome = Outcome(0, 1, None, more=True)
    assert not done.last
