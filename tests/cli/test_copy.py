"""``python -m portio copy``"""

from __future__ import annotations

import contextlib
import filecmp
import os
import random
import shutil
import signal
import socket
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cli.command import PORTIO, Result, run, said, start
from portio.cli import copy as module
from portio.cli import main
from portio.cli.common import size
from support.children import environment
from support.marks import (
    needs_posix_modes,
    needs_posix_signals,
    needs_resource_limits,
    wine_keeps_ctrl_break,
)
from support.system import WINDOWS
from support.watch import eventually

MIB = 1 << 20
EVERY_STOP = [
    pytest.param(
        number,
        128 + number,
        id=number.name,
        marks=wine_keeps_ctrl_break if number.name == "SIGBREAK" else (),
    )
    for name in (("SIGINT", "SIGBREAK") if WINDOWS else ("SIGINT", "SIGTERM", "SIGHUP"))
    for number in [signal.Signals[name]]
]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file of 3 MiB and a bit, in which no block is like another."""
    path = tmp_path / "source"
    path.write_bytes(random.Random(1).randbytes(3 * MIB + 12_345))
    return path


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    """A name for the copy, in a directory where nothing else may be left."""
    folder = tmp_path / "there"
    folder.mkdir()
    yield folder / "target"
    assert set(os.listdir(folder)) <= {"target"}


@pytest.fixture
def _symbolic_links(tmp_path: Path) -> None:
    """Symbolic links, which Windows has for some users, and Wine only pretends to make."""
    link = tmp_path / "trial"
    try:
        link.symlink_to(tmp_path)
    except OSError as error:
        pytest.skip(f"no symbolic links: {error}")
    if not link.is_symlink():
        pytest.skip("no symbolic links here")
    link.unlink()


def assert_same(one: Path, other: Path) -> None:
    assert filecmp.cmp(one, other, shallow=False)


# The bytes


@pytest.mark.parametrize("depth", [1, 3, 64])
@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 3 * 4096, 20 * 4096 + 17])
def test_every_length(tmp_path: Path, target: Path, backend: str, size: int, depth: int) -> None:
    source = tmp_path / "source"
    source.write_bytes(random.Random(size).randbytes(size))
    options = ["--backend", backend, "--depth", str(depth), "--block-size", "4KiB"]
    assert main(["copy", str(source), str(target), *options]) == 0
    assert_same(source, target)


def test_large_file(tmp_path: Path, target: Path, backend: str) -> None:
    source = tmp_path / "source"
    piece = random.Random(2).randbytes(MIB + 1)
    with source.open("wb") as file:
        for number in range(200):
            file.write(b"%d" % number + piece)
    result = run("copy", source, target, "--backend", backend)
    assert result == Result(0, "", "")
    assert_same(source, target)


def test_sizes_may_be_huge(source: Path, target: Path, backend: str) -> None:
    options = ["--backend", backend, "--depth", "1000000", "--block-size", "1TiB"]
    assert run("copy", source, target, *options).status == 0
    assert_same(source, target)


@pytest.mark.skipif(WINDOWS, reason="holes are asked for there, and not kept by a copy")
def test_holes_stay_holes(tmp_path: Path, target: Path, backend: str) -> None:
    source = tmp_path / "source"
    with source.open("wb") as file:
        for offset in (64 * MIB, 100 * MIB + 5, 5 << 30):
            file.seek(offset)
            file.write(b"data at %d" % offset)
        file.truncate((6 << 30) + 1)
    if source.stat().st_blocks * 512 > 10 * MIB:
        pytest.skip("this file system does not keep holes")
    assert run("copy", source, target, "--backend", backend).status == 0
    assert target.stat().st_size == source.stat().st_size
    assert target.stat().st_blocks * 512 < 10 * MIB
    with target.open("rb") as file:
        for offset in (64 * MIB, 100 * MIB + 5, 5 << 30):
            file.seek(offset - 7)
            wanted = bytes(7) + b"data at %d" % offset
            assert file.read(len(wanted) + 1) == wanted + bytes(1)


@pytest.mark.skipif(WINDOWS, reason="it has no files without a known length")
def test_file_without_a_known_length(target: Path, backend: str) -> None:
    version = Path("/proc/version")
    if not version.exists():
        pytest.skip("no /proc")
    assert version.stat().st_size == 0
    assert run("copy", version, target, "--backend", backend).status == 0
    assert target.read_bytes() == version.read_bytes()


@contextlib.contextmanager
def when_first_written(
    monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]
) -> Iterator[None]:
    """Have something happen in the middle of a copy in this process."""
    happened: list[object] = []

    @contextlib.contextmanager
    def progress(name: str, length: int) -> Iterator[module.Progress]:
        def advance(nbytes: int) -> None:
            if nbytes and not happened:
                happened.append(action())

        yield advance

    with monkeypatch.context() as patch:
        patch.setattr(module, "_progress", progress)
        yield
    assert happened


def test_file_that_grows(
    source: Path, target: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = random.Random(3).randbytes(MIB + 1)

    def grow() -> None:
        with source.open("ab") as file:
            file.write(more)

    with when_first_written(monkeypatch, grow):
        assert main(["copy", str(source), str(target), "--backend", backend]) == 0
    assert_same(source, target)


def test_file_that_shrinks(
    source: Path,
    target: Path,
    backend: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ["--backend", backend, "--depth", "2", "--block-size", "64KiB"]
    with when_first_written(monkeypatch, lambda: os.truncate(source, MIB + 1)):
        assert main(["copy", str(source), str(target), *options]) == 1
    assert capsys.readouterr().err == f"portio copy: {source}: shrank while it was copied\n"
    assert not target.exists()


# What is at the name of the copy


@needs_posix_modes
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755, 0o444, 0o666])
def test_mode_is_kept(source: Path, target: Path, mode: int) -> None:
    source.chmod(mode)
    assert main(["copy", str(source), str(target)]) == 0
    assert stat.S_IMODE(target.stat().st_mode) == mode


@needs_posix_modes
def test_set_user_id_is_not_passed_on(source: Path, target: Path) -> None:
    source.chmod(0o6755)
    assert main(["copy", str(source), str(target)]) == 0
    assert stat.S_IMODE(target.stat().st_mode) == 0o755


def test_former_file_is_replaced_as_a_whole(source: Path, target: Path, tmp_path: Path) -> None:
    target.write_text("former")
    os.link(target, tmp_path / "other name")
    with contextlib.ExitStack() as stack:
        # On Windows nobody may have it open.
        reader = None if WINDOWS else stack.enter_context(target.open())
        assert main(["copy", str(source), str(target)]) == 0
        assert reader is None or reader.read() == "former"
    assert_same(source, target)
    assert (tmp_path / "other name").read_text() == "former"


@pytest.mark.usefixtures("_symbolic_links")
def test_links_are_followed(source: Path, target: Path, tmp_path: Path) -> None:
    target.write_text("former")
    (tmp_path / "to source").symlink_to(source)
    (tmp_path / "to target").symlink_to(target)
    (tmp_path / "to nothing").symlink_to(tmp_path / "new")
    for name in ("to target", "to nothing"):
        assert main(["copy", str(tmp_path / "to source"), str(tmp_path / name)]) == 0
        assert (tmp_path / name).is_symlink()
    assert_same(source, target)
    assert_same(source, tmp_path / "new")


def test_name_relative_to_the_working_directory(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(target.parent)
    assert main(["copy", "../source", "target"]) == 0
    assert_same(source, target)


# Errors


def test_missing_source(tmp_path: Path, target: Path) -> None:
    line = run("copy", tmp_path / "missing", target).error_line()
    assert line == f"portio copy: {tmp_path / 'missing'}: {said('ENOENT', 2)}"


def test_source_is_a_directory(tmp_path: Path, target: Path) -> None:
    assert run("copy", tmp_path, target).error_line() == f"portio copy: {tmp_path}: Is a directory"


def test_target_is_a_directory(source: Path, target: Path) -> None:
    folder = target.parent
    assert run("copy", source, folder).error_line() == f"portio copy: {folder}: Is a directory"


def test_target_in_a_missing_directory(source: Path, tmp_path: Path) -> None:
    for name, winerror in (("missing/target", 3), ("missing/", 2)):
        line = run("copy", source, f"{tmp_path}/{name}").error_line()
        assert line == f"portio copy: {tmp_path}/{name}: {said('ENOENT', winerror)}"
    assert os.listdir(tmp_path) == ["source"]


def test_target_below_a_file(source: Path) -> None:
    line = run("copy", source, f"{source}/target").error_line()
    assert line == f"portio copy: {source}/target: {said('ENOTDIR', 3)}"


def test_the_same_file(source: Path, target: Path) -> None:
    before = source.read_bytes()
    os.link(source, target)
    for other in (source, target):
        line = run("copy", source, other).error_line()
        assert line == f"portio copy: {source} and {other} are the same file"
    assert source.read_bytes() == before


@pytest.mark.usefixtures("_symbolic_links")
def test_the_same_file_by_a_link(source: Path) -> None:
    before = source.read_bytes()
    link = source.parent / "link"
    link.symlink_to(source)
    line = run("copy", source, link).error_line()
    assert line == f"portio copy: {source} and {link} are the same file"
    assert source.read_bytes() == before


@pytest.mark.skipif(WINDOWS, reason="its file systems hold files and directories alone")
def test_only_regular_files(source: Path, target: Path, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    assert run("copy", fifo, target).error_line() == f"portio copy: {fifo}: not a regular file"
    assert run("copy", source, fifo).error_line() == f"portio copy: {fifo}: not a regular file"
    line = run("copy", source, "/dev/null").error_line()
    assert line == "portio copy: /dev/null: not a regular file"
    assert not Path("/dev/null").is_file()
    server = socket.socket(socket.AF_UNIX)
    with server, contextlib.chdir(tmp_path):
        server.bind("socket")
    assert "not a regular file" in run("copy", tmp_path / "socket", target).error_line()


@pytest.mark.skipif(WINDOWS, reason="its file names have no line breaks")
def test_name_with_a_line_break(tmp_path: Path, target: Path) -> None:
    line = run("copy", tmp_path / "two\nlines", target).error_line()
    assert line.endswith(r"two\nlines': No such file or directory")


@pytest.fixture
def without_privileges() -> list[str]:
    """A command like any other, also where root runs the tests."""
    if os.geteuid() != 0:
        return PORTIO
    prefix = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
    if shutil.which("setpriv") is None or subprocess.run([*prefix, "true"], check=False).returncode:
        pytest.skip("root may do everything here")
    return [*prefix, *PORTIO]


@needs_posix_modes
def test_permission_denied(source: Path, target: Path, without_privileges: list[str]) -> None:
    source.chmod(0)
    line = run("copy", source, target, program=without_privileges).error_line()
    assert line == f"portio copy: {source}: Permission denied"
    source.chmod(0o600)
    target.parent.chmod(0o500)
    line = run("copy", source, target, program=without_privileges).error_line()
    assert line == f"portio copy: {target}: Permission denied"
    target.parent.chmod(0o700)


@needs_resource_limits
@pytest.mark.parametrize("former", [None, "former"])
def test_file_size_limit(source: Path, target: Path, backend: str, former: str | None) -> None:
    if former is not None:
        target.write_text(former)
    result = run(
        *("copy", source, target, "--backend", backend, "--block-size", "64KiB"),
        before="resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))",
    )
    assert result.error_line() == f"portio copy: {target}: File too large"
    assert target.exists() is (former is not None)
    assert former is None or target.read_text() == former


@pytest.fixture
def own_mounts() -> list[str]:
    """The beginning of a command that may mount file systems for itself alone."""
    prefix = ["unshare", "--user", "--map-root-user", "--mount"]
    trial = [*prefix, "mount", "-t", "tmpfs", "none", "/mnt"]
    if (
        shutil.which("unshare") is None
        or subprocess.run(trial, capture_output=True, check=False).returncode
    ):
        pytest.skip("no mount namespaces for this user")
    return prefix


@pytest.mark.skipif(WINDOWS, reason="it mounts no file systems of a few megabytes")
def test_full_disk(source: Path, target: Path, backend: str, own_mounts: list[str]) -> None:
    script = """
        mount -t tmpfs -o size=2m none "$1" || exit 99
        shift
        "$@"
        status=$?
        ls -A "$(dirname "$target")"
        exit $status
    """
    result = run(
        *(target.parent, *PORTIO, "copy", source, target),
        *("--backend", backend, "--block-size", "64KiB"),
        program=[*own_mounts, "sh", "-c", script, "sh"],
        target=str(target),
    )
    assert result.error_line() == f"portio copy: {target}: No space left on device"


@needs_resource_limits
def test_not_enough_memory(tmp_path: Path, target: Path, backend: str) -> None:
    source = tmp_path / "source"
    with source.open("wb") as file:
        file.write(b"data")
        file.truncate(1 << 42)
    options = ["--backend", backend, "--block-size", "2TiB"]
    with source.open("rb") as file:
        if os.lseek(file.fileno(), 0, os.SEEK_HOLE) >= 1 << 42:
            pytest.skip("this file system does not keep holes")
    result = run(
        *("copy", source, target, *options),
        before="resource.setrlimit(resource.RLIMIT_AS, (1 << 33, 1 << 33))",
    )
    assert result.error_line() == "portio copy: not enough memory"


def test_backend_that_does_not_exist(source: Path, target: Path) -> None:
    line = run("copy", source, target, "--backend", "carrier-pigeon").error_line()
    assert line.startswith("portio copy: ")
    assert "carrier-pigeon" in line


@pytest.mark.parametrize(
    "options",
    [
        ["--depth", "0"],
        ["--depth", "-1"],
        ["--depth", "many"],
        ["--block-size", "0"],
        ["--block-size", "0KiB"],
        ["--block-size", "1.5M"],
        ["--block-size", "-4096"],
    ],
)
def test_wrong_arguments(
    source: Path, target: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["copy", str(source), str(target), *options])
    assert raised.value.code == 2
    assert repr(options[1]) in capsys.readouterr().err or options[1].startswith("-")
    assert not target.exists()


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ("4096", 4096), ("64k", 65536), ("64KB", 65536), ("1MiB", MIB), ("2 GiB", 2 << 30)],
)
def test_sizes(source: Path, target: Path, text: str, value: int) -> None:
    assert size(text) == value


# Signals


def sends_itself(number: int) -> list[str]:
    """A program that sends itself a signal when half of the bytes are copied."""
    script = f"""
        import contextlib, signal, sys
        from portio.cli import copy, main

        @contextlib.contextmanager
        def progress(name, length):
            left = length // 2
            def advance(nbytes):
                nonlocal left
                left -= nbytes
                if left < 0:
                    signal.raise_signal({number})
            yield advance

        copy._progress = progress
        sys.exit(main(sys.argv[1:]))
    """
    return [sys.executable, "-c", textwrap.dedent(script)]


@pytest.mark.parametrize("former", [None, "former"])
@pytest.mark.parametrize(("number", "status"), EVERY_STOP)
def test_signal_half_way_leaves_nothing_behind(
    source: Path, target: Path, backend: str, number: int, status: int, former: str | None
) -> None:
    if former is not None:
        target.write_text(former)
    result = run(
        *("copy", source, target, "--backend", backend, "--block-size", "64KiB"),
        program=sends_itself(number),
    )
    assert result == Result(status, "", f"portio copy: stopped by {signal.Signals(number).name}\n")
    assert target.exists() is (former is not None)
    assert former is None or target.read_text() == former


@needs_posix_signals
def test_ignored_signal_stays_ignored(source: Path, target: Path) -> None:
    result = run(
        *("copy", source, target, "--block-size", "64KiB"),
        program=sends_itself(signal.SIGHUP),
        before="signal.signal(signal.SIGHUP, signal.SIG_IGN)",
    )
    assert result == Result(0, "", "")
    assert_same(source, target)


@pytest.mark.parametrize(("number", "status"), EVERY_STOP)
def test_signal_at_any_moment(
    tmp_path: Path, target: Path, backend: str, number: int, status: int
) -> None:
    """From outside, as soon as the temporary file is seen: all or nothing."""
    source = tmp_path / "source"
    source.write_bytes(bytes(range(256)) * 4096 * 64)
    options = ["--backend", backend, "--depth", "1", "--block-size", "4KiB"]
    with start("copy", source, target, *options) as command:
        eventually(lambda: os.listdir(target.parent), "the copy has begun")
        command.signal(number)
        result = command.finish()
    if result.status == 0:  # it was faster
        assert_same(source, target)
    else:
        assert result.status == status
        assert "Traceback" not in result.errors
        assert not target.exists()


# Progress


@pytest.mark.skipif(WINDOWS, reason="it has no pseudo-terminals in Python")
def test_progress_bar_on_a_terminal(source: Path, target: Path, backend: str) -> None:
    pytest.importorskip("tqdm")
    shown = _on_a_terminal("copy", str(source), str(target), "--backend", backend)
    assert "source" in shown
    assert "100%" in shown


@pytest.mark.skipif(WINDOWS, reason="it has no pseudo-terminals in Python")
def test_terminal_without_tqdm(source: Path, target: Path, tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['tqdm'] = None; from portio.cli import main; main(sys.argv[1:])"
    )
    program = [sys.executable, "-c", script]
    assert _on_a_terminal("copy", str(source), str(target), program=program) == ""
    assert_same(source, target)


def _on_a_terminal(*arguments: str, program: list[str] = PORTIO) -> str:
    """Run a command whose standard error is a terminal; what is to be seen there."""
    import pty
    import termios

    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (25, 80))
    with open(ours, "rb", buffering=0) as screen:
        process = subprocess.Popen([*program, *arguments], env=environment(), stderr=theirs)
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # how a terminal ends
            while piece := screen.read(65536):
                shown += piece
        assert process.wait() == 0
    return shown.decode()
