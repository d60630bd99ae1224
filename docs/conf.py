"""Sphinx: `nox -s docs` builds the pages and runs their samples."""

import importlib.metadata
import os

os.environ["PORTIO_ACCELERATOR"] = "0"  # the methods in C have no types to show

project = "portio"
author = "The portio authors"
copyright = "2026, The portio authors"
release = version = importlib.metadata.version("completion-port")

extensions = ["myst_parser", "sphinx.ext.autodoc"]
# The page `performance` includes the results of the benchmarks.
exclude_patterns = ["_build", "performance/results.md"]
nitpicky = True
# Type variables, type aliases and internal classes in signatures have no entry of their own.
nitpick_ignore_regex = [
    ("py:class", r"(.*\.)?T"),
    ("py:class", r"Address|Buffers|HandleLike|HasFileno"),
    ("py:class", r"Handle|PacketQueue|CData|Identity|portio\.port\.Blocking"),
    ("py:class", r"os\.PathLike|socket\.socket"),
    # trio's, and typing's.
    ("py:class", r"trio\..*|Opener|Path|Buffer|Open(Text|Binary)Mode|sockets\.socket"),
    ("py:class", r"(portio\.trio\.(streams|turns)\.)?(Sending|Receiving|Resource)"),
    ("py:(class|exc|func|meth|obj)", r"trio\..*|open|shutil\.SameFileError|io\..*"),
]

html_theme = "furo"
html_title = f"portio {release}"

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence", "deflist"]

default_role = "code"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
