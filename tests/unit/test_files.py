"""Files and pipes as objects, without a port."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

import portio
from portio.files import Handle
from support import handles
from support.system import WINDOWS


@pytest.mark.parametrize("mode", ["r", "rb", "r+", "rb+", "r+b"])
def test_modes_for_files_that_exist(tmp_path: Path, mode: str) -> None:
    (tmp_path / "file").write_bytes(b"content")
    with portio.open(tmp_path / "file", mode) as file:
        assert file.mode == mode.replace("b", "")
        assert file.size() == 7
        assert handles.read(file, 9) == b"content"


@pytest.mark.parametrize("mode", ["w", "w+", "x", "x+", "wb", "x+b"])
def test_modes_for_new_files(tmp_path: Path, mode: str) -> None:
    with portio.open(tmp_path / "file", mode, permissions=0o640) as file:
        handles.write(file, b"content")
        file.truncate(3)
        assert file.size() == 3
    assert (tmp_path / "file").stat().st_mode & 0o777 == (0o666 if WINDOWS else 0o640)
    assert (tmp_path / "file").read_bytes() == b"con"


def test_w_empties_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    with portio.open(tmp_path / "file", "w") as file:
        assert file.size() == 0
        with pytest.raises(ValueError, match="negative"):
            file.truncate(-1)


def test_append_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no append"):
        portio.open(tmp_path / "file", "a")


def test_paths_of_every_type(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    for name in (path, str(path), os.fsencode(path)):
        with portio.open(name) as file:
            assert file.name is name


def test_closing(tmp_path: Path) -> None:
    file = portio.open(tmp_path / "file", "w")
    descriptor = file.fileno()
    assert not handles.get_inheritable(descriptor)
    assert f"descriptor={descriptor}" in repr(file)
    file.close()
    file.close()
    assert file.closed
    assert "closed" in repr(file)
    with pytest.raises(ValueError, match="closed"):
        file.fileno()
    assert not handles.is_open(descriptor)


def test_a_pipe() -> None:
    reader, writer = portio.pipe()
    with reader, writer:
        assert (reader.mode, writer.mode) == ("r", "w")
        assert not handles.get_inheritable(reader.fileno())
        assert not handles.get_inheritable(writer.fileno())
        handles.write(writer, b"through")
        assert handles.read(reader, 9) == b"through"


def test_surrender_leaves_it_open(tmp_path: Path) -> None:
    file = portio.open(tmp_path / "file", "w")
    descriptor = file.surrender()
    assert file.closed
    file.close()
    Handle.close_descriptor(descriptor)


def test_one_that_is_forgotten_is_closed_with_a_warning(tmp_path: Path) -> None:
    descriptor = None

    def forget() -> None:
        nonlocal descriptor
        descriptor = portio.open(tmp_path / "file", "w").fileno()
        gc.collect()

    with pytest.warns(ResourceWarning, match="unclosed <portio.File"):
        forget()
    assert descriptor is not None
    assert not handles.is_open(descriptor)
