"""The version, in one place; `setup.py` reads it as text. And what to say where a pickle names a module that has moved."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType

VERSION = "0.5.0"
# Modules and rooms of 0.4.0 that stand elsewhere now. They were never public, but pickles name them.
_NAMES = """
    activations apart arguments block block_front block_replay calibrate calibration calling capture cascade choose codec
    contract controls cost covered dead_rows decide doubt drop_in explore fbgemm files find_sites fingerprint fitted forms
    given guards inputs ladder leaves lower masks measure memory module numerics operators outputs pickling pipeline
    plan_file plan_text prices progress record require rewrite routed samples show sites size_ops skill spelled stopwatch
    timing tuning verify gates.model_scores gates.scores guarantee.certify guarantee.reference light.branch
    light.fused_int8_kernel light.int8_kernel light.kernels light.packed_kernel rows.attention rows.counts rows.live
"""
MOVED = frozenset(_NAMES.split())


class _Moved(MetaPathFinder):
    """Asked where nothing else finds a module."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> None:
        """Raise `ModuleNotFoundError` with the reason for a module that has moved; any other is simply not there."""
        package, _, module = name.partition(".")
        if package == __package__ and module in MOVED:
            raise ModuleNotFoundError(
                f"no module named {name!r} in dendrofx {VERSION}: what names it, such as a pickle, was written with 0.4.0 or"
                " older. Load it with the version that wrote it, or transform again",
                name=name,
            )


sys.meta_path.append(_Moved())
