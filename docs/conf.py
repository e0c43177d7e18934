"""Settings of the documentation: `sphinx-build -W docs docs/_build` reads this checkout, and never the network."""

import sys
from pathlib import Path

from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parent.parent))

import dendrofx

project = "dendrofx"
version = release = dendrofx.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"dendrofx {version}"
html_show_copyright = False
html_show_sourcelink = False

myst_heading_anchors = 3
default_role = "literal"  # docstrings write `name`
autodoc_member_order = "bysource"
autodoc_typehints = "signature"


def literal_blocks(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Mark what docstrings set apart by indentation (formulas, drawings) as it is meant: literally."""
    out: list[str] = []
    for i, line in enumerate(lines):
        above = next((text for text in reversed(lines[: max(i - 1, 0)]) if text), "")
        if i and not lines[i - 1] and line.startswith("    ") and above and not above.startswith((" ", ">>>")):
            out += ["::", ""]
        out.append(line)
    lines[:] = out


def setup(app: Sphinx) -> None:
    """Register what this file adds; before napoleon, which reads the sections."""
    app.connect("autodoc-process-docstring", literal_blocks, priority=100)
