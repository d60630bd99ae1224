"""The choice of a backend and its reasons, with probes that only pretend."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import portio
from portio import backends
from portio.backends import reasons, switches
from portio.backends.native import Native


class Ffi:
    """As much of cffi as probing needs."""

    NULL = None

    def new(self, ctype: str) -> Any:
        assert ctype == "portio_probe *"
        return SimpleNamespace(available=0, error=0, features=0, failed_call=b"")

    def string(self, text: bytes) -> bytes:
        return text


class Refusing:
    """An engine that makes no port."""

    def __init__(self, lib: Any) -> None:
        self._lib = lib

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lib, name)

    def portio_port_create(self, options: object, port: object) -> int:
        refused: int = self._lib.PORTIO_SYSTEM - errno.ENOMEM
        return refused


class Lib:
    """An engine that says what it was told to say."""

    FEATURES = (b"first", b"second", b"third")

    def __init__(self, *, features: int = 0b101, call: str = "", error: int = 0) -> None:
        self._features, self._call, self._error = features, call, error

    def portio_probe_system(self, probe: Any) -> None:
        probe.available = int(not self._call)
        probe.features = self._features
        probe.failed_call = self._call.encode()
        probe.error = self._error

    def portio_feature_name(self, bit: int) -> bytes | None:
        return self.FEATURES[bit] if bit < len(self.FEATURES) else None


Engines = Callable[..., None]


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> Engines:
    """Says which engines there are; the others cannot be imported."""
    monkeypatch.delenv(backends.VARIABLE, raising=False)

    def install(**engines: Lib) -> None:
        def load(name: str) -> Native:
            if name not in engines:
                raise ImportError(f"no module for {name}")
            fake: Any = (name, Ffi(), engines[name])
            return Native(*fake)

        monkeypatch.setattr(backends, "_load", load)
        monkeypatch.setattr(backends, "_known", {})

    return install


def test_the_best_that_works(engines: Engines) -> None:
    engines(io_uring=Lib(), epoll=Lib())
    assert backends.default() == "io_uring"
    engines(io_uring=Lib(call="io_uring_setup", error=errno.EPERM), epoll=Lib())
    assert backends.default() == "epoll"
    engines(iocp=Lib())
    assert backends.default() == "iocp"


def test_the_state_of_each(engines: Engines) -> None:
    engines(io_uring=Lib(call="io_uring_setup", error=errno.ENOMEM), epoll=Lib())
    found = backends.available()
    assert list(found) == ["io_uring", "epoll", "iocp"]
    assert found["epoll"] == backends.BackendStatus("epoll", True, "", "", ("first", "third"))
    assert not found["io_uring"].available
    assert "io_uring_setup" in found["io_uring"].reason
    assert "ulimit -l" in found["io_uring"].advice
    assert not found["iocp"].available
    assert found["iocp"].reason
    assert found["iocp"].advice


def test_an_engine_that_does_not_work_is_asked_again(
    engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    lib = Lib(call="io_uring_setup", error=errno.EMFILE)
    engines(io_uring=lib, epoll=Lib())
    assert backends.default() == "epoll"
    monkeypatch.setattr(lib, "_call", "")
    assert backends.default() == "io_uring"


def test_the_next_one_serves_when_the_best_refuses_a_port(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    natives = backends.choose(None)
    if len(natives) < 2:
        pytest.skip("only one backend works here")
    fake: Any = Refusing(natives[0].lib)
    broken = natives[0]._replace(lib=fake)
    monkeypatch.setattr(backends, "choose", lambda _: [broken, natives[1]])
    with portio.Port() as port:
        assert port.backend == natives[1].name
    monkeypatch.setattr(backends, "choose", lambda _: [broken])
    with pytest.raises(OSError, match="creating a port") as caught:
        portio.Port()
    assert caught.value.errno == errno.ENOMEM


def test_an_engine_is_probed_once(engines: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    lib = Lib()
    engines(epoll=lib)
    backends.available()
    monkeypatch.setattr(lib, "portio_probe_system", None)
    assert backends.default() == "epoll"
    assert backends.available()["epoll"].available


def test_the_environment_chooses(engines: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    engines(io_uring=Lib(), epoll=Lib())
    monkeypatch.setenv(backends.VARIABLE, "epoll")
    assert backends.default() == "epoll"
    assert backends.choose("io_uring")[0].name == "io_uring"  # the program has the last word
    monkeypatch.setenv(backends.VARIABLE, "")
    assert backends.default() == "io_uring"


def test_names_that_no_backend_has(engines: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    engines(epoll=Lib())
    known = "known are io_uring, epoll, iocp"
    with pytest.raises(ValueError, match=f"backend='kqueue'.*{known}"):
        portio.Port(backend="kqueue")
    with pytest.raises(TypeError, match="backend must be a name"):
        portio.Port(backend=5)  # type: ignore[arg-type]
    monkeypatch.setenv(backends.VARIABLE, "kqueue")
    with pytest.raises(ValueError, match=f"PORTIO_BACKEND=kqueue.*{known}"):
        portio.Port()


def test_a_backend_that_was_asked_for_and_does_not_work(
    engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines(io_uring=Lib(call="io_uring_setup", error=errno.EMFILE), epoll=Lib())
    for ask in (lambda: portio.Port(backend="io_uring"), portio.Port):
        with pytest.raises(portio.BackendUnavailableError) as caught:
            ask()
        assert caught.value.errno == errno.ENOTSUP
        assert "io_uring_setup" in str(caught.value)
        assert "ulimit -n" in str(caught.value)
        monkeypatch.setenv(backends.VARIABLE, "io_uring")


def test_a_system_without_any_engine(engines: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    engines()
    with pytest.raises(portio.BackendUnavailableError, match=r"exists on Linux only.*darwin"):
        portio.Port()
    with pytest.raises(portio.BackendUnavailableError):
        backends.default()
    assert not any(status.available for status in backends.available().values())


# The reasons


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Says what the files of /proc and uname say."""

    def install(*, release: str = "6.1.0", disabled: str = "0", seccomp: str = "0") -> None:
        files = {
            "/proc/sys/kernel/io_uring_disabled": disabled,
            "/proc/self/status": f"Name:\tpython\nSeccomp:\t{seccomp}\nSeccomp_filters:\t1\n",
        }
        monkeypatch.setattr(reasons, "_read", lambda path: files[path])
        monkeypatch.setattr("os.uname", lambda: SimpleNamespace(release=release))

    return install


@pytest.mark.parametrize(
    ("code", "facts", "reason", "advice"),
    [
        (errno.EPERM, {"disabled": "2"}, "kernel.io_uring_disabled is 2", "sysctl -w"),
        (errno.EPERM, {"disabled": "1", "seccomp": "2"}, "io_uring_disabled is 1", "sysctl"),
        (errno.EPERM, {"seccomp": "2"}, "blocked by a seccomp filter", "seccomp profile"),
        (errno.EPERM, {}, "is forbidden: Operation not permitted", "security module"),
        (errno.ENOSYS, {"seccomp": "2"}, "blocked by a seccomp filter", "seccomp profile"),
        (errno.ENOSYS, {}, "the kernel has no io_uring_setup", "5.15"),
        (errno.ENOSYS, {"release": "4.18.0-el8", "seccomp": "2"}, "(kernel 4.18.0-el8)", "5.15"),
        (errno.ENOSYS, {"release": "strange", "seccomp": "2"}, "(kernel strange)", "5.15"),
        (errno.EINVAL, {"release": "5.4.0"}, "(kernel 5.4.0)", "5.15"),
        (errno.ENOMEM, {}, "Cannot allocate memory", "ulimit -l"),
        (errno.ENFILE, {}, "Too many open files in system", "ulimit -n"),
        (errno.EFAULT, {}, "io_uring_setup failed: Bad address", "another backend"),
    ],
)
def test_why_io_uring_is_refused(
    system: Callable[..., None], code: int, facts: dict[str, str], reason: str, advice: str
) -> None:
    system(**facts)
    found = reasons.probe_failed("io_uring", "io_uring_setup", code)
    assert reason in found.reason
    assert advice in found.advice


def test_other_backends_have_other_reasons(system: Callable[..., None]) -> None:
    system(seccomp="2")
    found = reasons.probe_failed("epoll", "epoll_create1", errno.EPERM)
    assert found.reason == "epoll_create1 failed: Operation not permitted"


def test_an_extension_that_is_missing_on_its_own_system(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(reasons, "_TOP", tmp_path)
    found = reasons.not_built("epoll", ImportError("libfoo.so"))
    assert "portio.backends._epoll cannot be imported (libfoo.so)" in found.reason
    assert "C compiler" in found.advice
    for name in ("pyproject.toml", "CMakeLists.txt"):
        (tmp_path / name).touch()
    found = reasons.not_built("epoll", ImportError("libfoo.so"))
    assert f"source tree in {tmp_path}" in found.reason
    assert "pip install -e" in found.advice


def test_files_that_cannot_be_read_say_nothing() -> None:
    assert reasons._read("/no/such/file") == ""


# The debugging switch

FEATURES = ("single_issuer", "defer_taskrun", "multishot")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", (0, 0, 0)),
        ("no-single_issuer", (0b001, 0, 0)),
        ("no-multishot,no-defer_taskrun", (0b110, 0, 0)),
        ("sq=4,cq=8", (0, 4, 8)),
        (" no-defer_taskrun , cq=65536 ,, ", (0b010, 0, 65536)),
    ],
)
def test_switches(text: str, wanted: tuple[int, int, int]) -> None:
    assert switches.parse(text, FEATURES) == wanted


@pytest.mark.parametrize(
    "word", ["no-", "no-such", "multishot", "sq", "sq=", "sqpoll=1", "NO-multishot", "cq:4"]
)
def test_unknown_words(word: str) -> None:
    with pytest.raises(ValueError, match=r"unknown word.*no-multishot"):
        switches.parse(f"sq=4,{word}", FEATURES)


@pytest.mark.parametrize("word", ["sq=0", "sq=-1", "cq=x", "cq=65537", "sq=4.0", "sq=²"])
def test_sizes_out_of_range(word: str) -> None:
    with pytest.raises(ValueError, match="needs a number from 1"):
        switches.parse(word, FEATURES)


def test_a_port_reads_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    if not backends.available()["io_uring"].available:
        pytest.skip("io_uring cannot be used here")
    monkeypatch.setenv(switches.VARIABLE, "no-such-thing")
    with pytest.raises(ValueError, match="no-such-thing"):
        portio.Port(backend="io_uring")
    if backends.available()["epoll"].available:
        portio.Port(backend="epoll").close()
