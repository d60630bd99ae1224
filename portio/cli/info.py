"""Show the backends: which one is used, what each can do, and why others cannot.

With --json, the same for programs:
{"version", "python", "system", "accelerated", "default", "backends": {NAME:
{"available", "reason", "advice", "features"}}}, where "accelerated" says whether the
hot path of the Python layer is in C, and "default" is null when no backend works.
"""

from __future__ import annotations

import argparse
import json
import platform
from importlib import metadata
from typing import Any

from portio import accelerator, backends
from portio.cli.common import describe

DISTRIBUTION = "completion-port"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Carry out the command; return the exit status."""
    facts = collect()
    print(json.dumps(facts, indent=2) if arguments.json else render(facts))
    return 0


def collect() -> dict[str, Any]:
    """Everything that the command shows."""
    facts: dict[str, Any] = {
        "version": _version(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "accelerated": accelerator.ACCELERATED,
        "default": None,
        "backends": {
            name: {
                "available": status.available,
                "reason": status.reason or None,
                "advice": status.advice or None,
                "features": list(status.features),
            }
            for name, status in backends.available().items()
        },
    }
    try:
        facts["default"] = backends.default()
    except (OSError, ValueError) as error:  # none works, or PORTIO_BACKEND asks for one that cannot
        facts["error"] = describe(error)
    return facts


def render(facts: dict[str, Any]) -> str:
    """The facts for a reader."""
    version = facts["version"] or "(not installed)"
    lines = [f"portio {version}, {facts['python']}, {facts['system']}"]
    width = max(map(len, facts["backends"]), default=0)
    for name, status in facts["backends"].items():
        word = "available" if status["available"] else f"not available: {status['reason']}"
        default = ", the default" if name == facts["default"] else ""
        lines.append(f"{name:{width}}  {word}{default}")
        if status["advice"]:
            lines.append(f"{'':{width}}  {status['advice']}")
        if status["features"]:
            lines.append(f"{'':{width}}  features: {', '.join(status['features'])}")
    if not facts["accelerated"]:
        lines.append("the hot path is in Python, not in C: operations cost more time")
    if facts["default"] is None:
        lines.append(f"no default: {facts['error']}")
    return "\n".join(lines)


def _version() -> str | None:
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return None
