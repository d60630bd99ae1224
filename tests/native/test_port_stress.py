"""The engines' own C under ThreadSanitizer, without Python in between: port_stress.c."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

from support.backends import require, selected

HERE = Path(__file__).parent
SOURCES = HERE.parents[1] / "portio" / "backends"
SHARED = ("port*.c", "pool.c", "probe.c", "slots.c", "handle.c", "transfer.c", "futex.c")
ROUNDS = 20


@cache
def sanitizer(compiler: str, folder: Path) -> tuple[str, ...]:
    """ThreadSanitizer, where the compiler has its runtime and the kernel suits it."""
    source = folder / "probe.c"
    source.write_text("int main(void) { return 0; }\n")
    flag = "-fsanitize=thread"
    built = subprocess.run(
        [compiler, flag, source, "-o", folder / "probe"], capture_output=True, check=False
    )
    works = built.returncode == 0 and run(folder / "probe").returncode == 0
    return (flag,) if works else ()


def run(program: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    # Another sanitizer's runtime may be preloaded for the sake of Python.
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    return subprocess.run(
        [program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env=environment,
    )


@pytest.mark.parametrize("rings", [(), (2, 4)], ids=["usual-rings", "tiny-rings"])
@pytest.mark.parametrize("engine", selected())
def test_port_stress(engine: str, rings: tuple[int, ...], tmp_path: Path) -> None:
    """Every operation and packet is accounted for, every byte in order, no data race."""
    require(engine)
    if rings and engine != "io_uring":
        pytest.skip("only a ring has queues of a fixed size")
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    if not SOURCES.joinpath("port.c").exists():
        pytest.skip("the C sources are not beside the tests")
    files = [path for pattern in (*SHARED, f"{engine}*.c") for path in SOURCES.glob(pattern)]
    program = tmp_path / "port_stress"
    subprocess.run(
        [
            *(compiler, "-std=c11", "-D_GNU_SOURCE", "-g", "-O1", "-pthread"),
            *sanitizer(compiler, tmp_path),
            *(f"-I{SOURCES}", *files, HERE / "port_stress.c", "-o", program),
        ],
        check=True,
    )
    seed = int(os.environ.get("PORTIO_TEST_SEED") or random.SystemRandom().randrange(2**31))
    print(f"PORTIO_TEST_SEED={seed}")
    done = run(program, seed, ROUNDS, *rings)
    assert done.returncode == 0, f"seed {seed}:\n{done.stdout}\n{done.stderr}"
    assert "all accounted for" in done.stdout
