"""Memory of the engines: freed once, when nobody can use it any more."""

from __future__ import annotations

import copy
import gc
import pickle
from pathlib import Path
from typing import Any

import cffi
import pytest

import portio
from portio import keepers

FFI: Any = cffi.FFI()


class Keeping:
    """What a port is, as far as its memory is concerned."""

    def __init__(self, freed: list[int]) -> None:
        self.memory = FFI.cast("void *", 1)
        self.token, self.detach = keepers.keep(
            FFI, self.memory, lambda memory: freed.append(int(FFI.cast("uintptr_t", memory)))
        )


def test_it_is_freed_with_the_last_reference() -> None:
    freed: list[int] = []
    kept = len(keepers._kept)
    keeping = Keeping(freed)
    assert len(keepers._kept) == kept + 1
    assert not gc.is_tracked(keeping.token)
    gc.collect()
    assert freed == []
    del keeping
    assert freed == [1]
    assert len(keepers._kept) == kept


def test_finalizers_in_the_same_garbage_come_first() -> None:
    freed: list[int] = []
    seen: list[list[int]] = []

    class Curious:
        """Looks whether it is there still."""

        def __init__(self) -> None:
            self.itself = self
            self.keeping = Keeping(freed)

        def __del__(self) -> None:
            seen.append(freed[:])

    older: Any = Curious()
    younger = Curious()
    older.other, younger.other = younger, older  # type: ignore[attr-defined]
    del older, younger
    gc.collect()
    assert seen == [[], []]
    assert freed == [1, 1]


def test_it_can_be_kept_for_good() -> None:
    freed: list[int] = []
    keeping = Keeping(freed)
    keeping.detach()
    del keeping
    assert freed == []


def test_ports_and_pools_leave_nothing(backend: str) -> None:
    kept = len(keepers._kept)
    for _ in range(5):
        with portio.Port(backend=backend) as port:
            portio.BufferPool(port, 1, 1)
        del port
    gc.collect()
    assert len(keepers._kept) == kept


@pytest.mark.usefixtures("no_leak")
@pytest.mark.parametrize("thread_bound", [False, True])
@pytest.mark.parametrize("step", ["_open_engine", "_open_queue", "_open_unqueued"])
def test_a_port_that_fails_half_way(
    backend: str, step: str, thread_bound: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing stays open."""

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(portio.Port, step, fail)
    for _ in range(3):
        with pytest.raises(MemoryError):
            portio.Port(backend=backend, thread_bound=thread_bound)


def test_what_is_in_use_is_not_made_anew(backend: str) -> None:
    with portio.Port(backend=backend) as port:
        with pytest.raises(RuntimeError, match="in use already"):
            port.__init__(backend=backend)  # type: ignore[misc]
        pool = portio.BufferPool(port, 1, 1)
        with pytest.raises(RuntimeError, match="in use already"):
            pool.__init__(port, 1, 1)  # type: ignore[misc]
        assert port.get(0) is None


def test_files_are_not_copied(tmp_path: Path) -> None:
    with portio.open(tmp_path / "file", "w+") as file:
        for how in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="a File cannot be copied"):
                how(file)
