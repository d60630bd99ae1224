# SPDX-License-Identifier: MIT
"""The project's checks.  `nox` runs all of them, `nox -l` lists them.

Every session installs the package as a user would, from a wheel that it builds.
PYTHONSAFEPATH keeps the source tree, which has no engines, from standing in for
the installed package when Python is started at its top.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "virtualenv"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["lint", "types", "docs", "sanitizers", "trio_oldest", "tests", "windows"]

PYTHONS = ["3.11", "3.12", "3.13", "3.14", "3.14t"]
OLDEST_TRIO = "0.22.0"  # the newest is what the other sessions install
PYPROJECT = nox.project.load_toml("pyproject.toml")
CHECKED = ["portio", "tests", "examples", "benchmarks", "docs", "tools", "noxfile.py"]

# Tests wait for a good part of their time, hence one worker more than there are processors.  A test
# may take a minute, so who has nothing left to do takes from others.
PROCESSORS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
WORKERS = ["-n", str((PROCESSORS or 1) + 1), "--dist", "worksteal"]

# These run the core of the suite again for each feature of the kernel that is
# switched off.  That has nothing to do with Python, and is done once: with the one
# that runs nox.
OLDER_KERNELS = ["--deselect=tests/conformance/test_features.py"]

# What else does not depend on the version of Python: done once, with the same one.
ONCE = [
    *OLDER_KERNELS,
    *(
        f"--ignore=tests/{part}"
        for part in ("native", "benchmarks", "properties", "stress", "cli", "examples")
    ),
    *("-m", "not large"),
    *("-k", "not (conformance and trio)"),
]

# These run hardly any C that the rest of the suite does not run.
NO_OTHER_C = [
    *OLDER_KERNELS,
    *(f"--ignore=tests/{part}" for part in ("benchmarks", "cli", "examples", "trio_adapter")),
    # What Python does in the place of C; but one test has Python's own files in its name.
    *("-k", "not trio and not (python and not file_object)"),
]

# What AddressSanitizer itself cannot bear: a limit of the address space, of which it takes
# terabytes; and a fork while other threads allocate, since the locks of its allocator stay
# locked in the child.
NOT_SANITIZED = [
    "--deselect=tests/conformance/test_pressure.py::test_o14_p6_exhausted_memory_raises_and_loses_nothing",
    "--deselect=tests/environment/test_forks.py::test_busy_parent",
]

# The session `windows`: a Windows python.exe to be used instead of one that is set up
# under Wine, and whether it is an error when Wine or the compiler is missing.
WINDOWS_PYTHON = "PORTIO_WINDOWS_PYTHON"
WINDOWS_REQUIRED = "PORTIO_WINDOWS_REQUIRED"
WINDOWS_TOOLS = Path("tools/windows").absolute()


def install_group(session: nox.Session, group: str) -> None:
    """Install a dependency group of pyproject.toml."""
    session.install(*nox.project.dependency_groups(PYPROJECT, group))


def build_setting(name: str, value: str) -> str:
    """Give pip's argument for a setting of scikit-build-core."""
    return f"--config-settings={name}={value}"


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the test suite, or what the arguments select, on every CPython found.

    All of it with the Python that runs nox, what depends on Python's version with the
    newest, and its core with the others.
    """
    install_group(session, "tests")
    session.install(".")
    session.env["PYTHONSAFEPATH"] = "1"
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    elsewhere = own in PYTHONS and session.python != own and not session.posargs
    found = [version for version in PYTHONS if shutil.which(f"python{version}")]
    selection = ONCE if elsewhere else []
    if elsewhere and found and session.python != found[-1]:
        selection = [*OLDER_KERNELS, "-m", "core", "tests/conformance"]
        # Objects that the accelerator uses again: the sanitizers do without them.
        session.env["PYTHONMALLOC"] = "debug"
    session.run("pytest", *WORKERS, *selection, *session.posargs)


@nox.session(python=PYTHONS[0])
def trio_oldest(session: nox.Session) -> None:
    """Run what concerns trio with the oldest trio that portio.trio works with."""
    install_group(session, "tests")
    session.install(".", f"trio=={OLDEST_TRIO}")
    session.env["PYTHONSAFEPATH"] = "1"
    session.run("pytest", *WORKERS, "tests/trio_adapter", *session.posargs)
    session.run("pytest", *WORKERS, "tests/conformance", "-m", "core", "-k", "trio")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, and the C with every compiler found, warnings as errors."""
    install_group(session, "lint")
    sources = [path for path in CHECKED if Path(path).exists()]
    session.run("ruff", "check", *sources)
    session.run("ruff", "format", "--check", *sources)
    workflows = sorted(map(str, Path(".github/workflows").glob("*.yml")))
    session.run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *workflows)
    session.run("zizmor", "--offline", "--no-progress", *workflows)
    for compiler in ("gcc", "clang"):
        if shutil.which(compiler) is None:
            session.warn(f"{compiler} is not installed: the engines are not built with it")
            continue
        session.run(
            *("pip", "wheel", "--no-deps", "--quiet", "."),
            f"--wheel-dir={session.create_tmp()}",
            build_setting("cmake.define.PORTIO_WERROR", "ON"),
            env={"CC": compiler},
        )


@nox.session
def types(session: nox.Session) -> None:
    """Check the types, strictly."""
    install_group(session, "types")
    session.install(".")
    session.run("mypy", *session.posargs)
    if not session.posargs:
        session.run("mypy", "--platform=win32", "portio")
        session.env["PYTHONSAFEPATH"] = "1"
        session.run("pytest", "tests/unit/test_typing.py")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation, warnings as errors, and run every code sample."""
    install_group(session, "docs")
    session.install(".")
    session.env["PYTHONSAFEPATH"] = "1"
    session.run("sphinx-build", "-W", "-n", "--keep-going", "-E", "docs", "docs/_build/html")
    session.run("pytest", "docs", *session.posargs)
    session.run("pytest", "tests/benchmarks/test_pages.py")


@nox.session
def bench(session: nox.Session) -> None:
    """Measure against the peers; the arguments go to python -m benchmarks."""
    install_group(session, "bench")
    # Editable, because `-m benchmarks` needs the source tree on the path.
    session.install("--editable", ".")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session
def guard(session: nox.Session) -> None:
    """Count the instructions of the hot paths, and compare them with the record."""
    if shutil.which("valgrind") is None:
        session.skip("valgrind, which counts them, is not installed (Debian: valgrind)")
    session.install("--editable", ".")
    session.run("python", "-m", "benchmarks.guard", *session.posargs)


@nox.session
def sanitizers(session: nox.Session) -> None:
    """Run the test suite on engines built with AddressSanitizer and UBSan."""
    if shutil.which("gcc") is None:
        session.skip("gcc, whose sanitizers are used, is not installed")
    install_group(session, "tests")
    session.install(
        ".",
        build_setting("cmake.define.PORTIO_SANITIZE", "address,undefined"),
        build_setting("cmake.define.PORTIO_WERROR", "ON"),
        build_setting("cmake.build-type", "Debug"),  # keeps the assertions
        build_setting("install.strip", "false"),
        env={"CC": "gcc", "CFLAGS": "-O1"},
    )
    # A report of UBSan goes to standard error and ends the process.  One of ASan may
    # be about a child that a test expects to fail: there the files tell, not the exit
    # status.
    reports = Path(session.create_tmp()) / "reports"
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir()
    session.env.update(
        PYTHONSAFEPATH="1",
        PYTHONMALLOC="malloc",  # CPython's own pools would hide an overrun
        LD_PRELOAD=sanitizer_runtime(session),
        # Leaks are left out.  The ports' tables of records are mappings, which
        # LeakSanitizer does not look into, and a forked child leaves its parent's
        # ports alone.  The suite itself looks for descriptors that are left.
        ASAN_OPTIONS=f"log_path={reports}/asan:detect_leaks=0",
        UBSAN_OPTIONS="print_stacktrace=1",
    )
    try:
        session.run("pytest", *WORKERS, *NO_OTHER_C, *NOT_SANITIZED, *session.posargs)
    finally:
        found = sorted(reports.iterdir())
        for report in found:
            print(report.read_text(errors="replace"))
    if found:
        session.error(f"{len(found)} reports of AddressSanitizer")


def sanitizer_runtime(session: nox.Session) -> str:
    """Give the runtime that has to be loaded before the engines are."""
    answer = session.run("gcc", "-print-file-name=libasan.so", external=True, silent=True)
    return str(answer).strip()


@nox.session
def windows(session: nox.Session) -> None:
    """Run the test suite on a Windows CPython under Wine; the arguments go to pytest."""
    if sys.platform == "win32":
        session.skip("this is Windows: the session `tests` runs the suite on it")
    ready = os.environ.get(WINDOWS_PYTHON)
    needed = ["wine", "x86_64-w64-mingw32-gcc"]
    if missing := [program for program in needed if shutil.which(program) is None]:
        told = (
            f"not installed: {', '.join(missing)}; on Debian: apt-get install "
            "--no-install-recommends wine wine64 gcc-mingw-w64-x86-64-win32"
        )
        session.error(told) if os.environ.get(WINDOWS_REQUIRED) else session.skip(told)
    requirements = [
        *PYPROJECT["project"]["dependencies"],
        *nox.project.dependency_groups(PYPROJECT, "tests"),
        "colorama",  # pytest and tqdm want it on Windows alone, and pip asks about Linux
    ]
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    site = Path(session.create_tmp()).absolute() / "site"
    shutil.rmtree(site, ignore_errors=True)
    if ready:
        python = Path(ready).absolute()
        prefix = Path(os.environ.get("WINEPREFIX", Path.home() / ".wine"))
        install_for_windows(session, site, *requirements)
    else:
        target = Path(f".nox/windows-python-{version}").absolute()
        session.run("python", str(WINDOWS_TOOLS / "environment.py"), str(target), *requirements)
        python, prefix = target / "py" / "python.exe", target / "prefix"
    install_for_windows(session, site, "--no-deps", str(cross_compiled(session, python)))
    caches = site.parent / "caches"
    run = ["python", str(WINDOWS_TOOLS / "run.py"), str(prefix), str(python)]
    try:
        session.run(
            *(*run, "-m", "pytest", *WORKERS, "-o", f"cache_dir={caches / 'pytest'}"),
            *session.posargs,
            env={
                "PYTHONPATH": str(site),
                "PYTHONSAFEPATH": "1",
                "PORTIO_TEST_BACKENDS": "iocp",  # it has to work
                # Paths are spelled in another way there.
                "PYTHONPYCACHEPREFIX": str(caches / "bytecode"),
                "HYPOTHESIS_STORAGE_DIRECTORY": str(caches / "hypothesis"),
            },
        )
    finally:
        if not ready:
            session.run(str(target / "stop"), external=True)


def install_for_windows(session: nox.Session, target: Path, *arguments: str) -> None:
    """Install into a directory what a Windows Python of the same version will import."""
    session.run(
        *("pip", "install", "--quiet", "--upgrade", f"--target={target}"),
        *("--only-binary=:all:", "--platform=win_amd64", "--implementation=cp"),
        f"--python-version={sys.version_info.major}.{sys.version_info.minor}",
        *arguments,
    )


def cross_compiled(session: nox.Session, python: Path) -> Path:
    """Build the wheel for Windows with mingw-w64, as `pip wheel` does on Windows."""
    session.install(*PYPROJECT["build-system"]["requires"], "cmake", "ninja")
    wheels = Path(session.create_tmp()).absolute() / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    session.run(
        *("pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "."),
        f"--wheel-dir={wheels}",
        build_setting("cmake.toolchain-file", str(WINDOWS_TOOLS / "mingw-w64.cmake")),
        build_setting("cmake.python-hints", "false"),  # those would be about this machine's
        build_setting("cmake.define.PORTIO_WINDOWS_PYTHON", str(python.parent)),
        build_setting("cmake.define.Python_EXECUTABLE", f"{session.virtualenv.bin}/python"),
        build_setting("cmake.define.PORTIO_WERROR", "ON"),
        env={"_PYTHON_HOST_PLATFORM": "win-amd64"},  # what the wheel is for
    )
    (wheel,) = wheels.glob("*.whl")
    return wheel
