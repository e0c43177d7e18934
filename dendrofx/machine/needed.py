"""Packages that only some files and calls need."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from dendrofx.errors import InputError


def needed(name: str, what: str | Path, install: str) -> Any:  # noqa: ANN401  (a module)
    """Return a module; raise `InputError`, with what pip calls it, where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        raise InputError(f"{what} needs {package}, which is not installed: pip install '{install}'") from None
