"""Threads whose results and exceptions come back to the test."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, ParamSpec, TypeVar

from support.watch import LIMIT, fail_with_dump

P = ParamSpec("P")
T = TypeVar("T")


class Background(threading.Thread, Generic[T]):
    """A call in a thread of its own: `result()` gives its value, or raises what it raised.

    As a context manager it asks for the result on the way out, so that no
    failure of a thread goes unseen.
    """

    def __init__(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> None:
        super().__init__(name=getattr(function, "__name__", "background"), daemon=True)
        self._call: Callable[[], T] | None = lambda: function(*args, **kwargs)
        self._value: Any = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        call, self._call = self._call, None
        assert call is not None
        try:
            self._value = call()
        except BaseException as error:  # noqa: BLE001 - it is raised again by result()
            self._error = error

    def result(self, limit: float = LIMIT) -> T:
        self.join(limit)
        if self.is_alive():
            fail_with_dump(f"thread {self.name} has not ended within {limit:g} s")
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[no-any-return]

    def __enter__(self) -> Background[T]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.result()


def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `function` in another thread and wait for it."""
    return Background(function, *args, **kwargs).result()
