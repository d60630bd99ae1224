"""Makes the benchmarks importable: they are in the source tree, and not installed.

The tree itself cannot be on the path: its `portio` has no engines, and this directory has the
same name as the package.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

spec = importlib.util.spec_from_file_location(
    "benchmarks", BENCHMARKS / "__init__.py", submodule_search_locations=[str(BENCHMARKS)]
)
assert spec is not None
assert spec.loader is not None
sys.modules["benchmarks"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["benchmarks"])
