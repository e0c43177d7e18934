"""dendrofx: per-row conditional branches for trained PyTorch models on CPUs.

A public name is imported when it is first asked for, so that a command can print its help without loading torch.
"""

import sys as _sys

if _sys.version_info >= (3, 14):
    raise ImportError(
        "dendrofx needs Python 3.10 to 3.13: it lowers to TorchScript, and torch 2.13 does not support TorchScript on Python"
        f" 3.14 and newer (this is {_sys.version.split()[0]})."
    )

from importlib import import_module as _import_module
from importlib.util import find_spec as _find_spec
from types import ModuleType as _ModuleType
from typing import TYPE_CHECKING
from warnings import warn as _warn

from dendrofx.version import VERSION

__version__ = VERSION

__all__ = [
    "transform", "script", "graph_text", "graph_diff", "explain", "RoutedModule", "Plan", "SitePlan", "Site", "Sites", "find_sites",
    "tolerances", "set_tolerances", "LightForm", "LowRank", "Pruned", "Int8", "BFloat16", "Prepacked", "Transposed", "Precision",
    "RoutedBlocks", "Exit", "Options",
    "GateForm", "ResidualGate", "NoiseGate", "EnergyGate", "LearnedGate", "MarginGate", "UserGate", "AlwaysFull",
    "AlwaysLight", "NoGate", "RandomGate", "OracleGate", "Budget", "Certificate", "certificate", "save", "load", "LoadedModule",
    "map_batches",
    "Audit", "Shadow", "audit", "report", "Capability", "capability", "DendrofxError", "InputError", "CaptureError",
    "PassError", "PlanError", "ArtifactError", "CertificateError",
]  # fmt: skip

# Where each name is defined. What type checkers see, and what is imported at run time: a test holds them equal.
if TYPE_CHECKING:
    from dendrofx.artifact.certificate import certificate
    from dendrofx.artifact.load import load
    from dendrofx.artifact.loaded import LoadedModule
    from dendrofx.artifact.save import save
    from dendrofx.compare.explain import explain
    from dendrofx.compare.shadow import Shadow
    from dendrofx.errors import (
        ArtifactError,
        CaptureError,
        CertificateError,
        DendrofxError,
        InputError,
        PassError,
        PlanError,
    )
    from dendrofx.gates import (
        AlwaysFull,
        AlwaysLight,
        EnergyGate,
        GateForm,
        LearnedGate,
        MarginGate,
        NoGate,
        NoiseGate,
        OracleGate,
        RandomGate,
        ResidualGate,
        UserGate,
    )
    from dendrofx.graph.diff import graph_diff
    from dendrofx.graph.find_sites import find_sites
    from dendrofx.graph.show import graph_text
    from dendrofx.graph.sites import Site, Sites
    from dendrofx.guarantee import Audit, Budget, Certificate, audit
    from dendrofx.light import BFloat16, Int8, LightForm, LowRank, Precision, Prepacked, Pruned, Transposed
    from dendrofx.light.exits import Exit
    from dendrofx.light.routed_blocks import RoutedBlocks
    from dendrofx.lowering.script import script
    from dendrofx.machine.capability import Capability, capability
    from dendrofx.plan.entries import SitePlan
    from dendrofx.plan.plan import Plan
    from dendrofx.report.write import report
    from dendrofx.request import Options
    from dendrofx.rewriting.module import RoutedModule
    from dendrofx.rewriting.tolerances import set_tolerances, tolerances
    from dendrofx.scale.map_batches import map_batches
    from dendrofx.transform import transform
else:
    _NAMES = {
        "artifact.certificate": "certificate",
        "artifact.load": "load",
        "artifact.loaded": "LoadedModule",
        "artifact.save": "save",
        "compare.explain": "explain",
        "compare.shadow": "Shadow",
        "errors": "ArtifactError CaptureError CertificateError DendrofxError InputError PassError PlanError",
        "gates": "AlwaysFull AlwaysLight EnergyGate GateForm LearnedGate MarginGate NoGate NoiseGate OracleGate RandomGate"
        " ResidualGate UserGate",
        "graph.diff": "graph_diff",
        "graph.find_sites": "find_sites",
        "graph.show": "graph_text",
        "graph.sites": "Site Sites",
        "guarantee": "Audit Budget Certificate audit",
        "light": "BFloat16 Int8 LightForm LowRank Precision Prepacked Pruned Transposed",
        "light.exits": "Exit",
        "light.routed_blocks": "RoutedBlocks",
        "lowering.script": "script",
        "machine.capability": "Capability capability",
        "plan.entries": "SitePlan",
        "plan.plan": "Plan",
        "report.write": "report",
        "request": "Options",
        "rewriting.module": "RoutedModule",
        "rewriting.tolerances": "set_tolerances tolerances",
        "scale.map_batches": "map_batches",
        "transform": "transform",
    }
    _MODULES = {name: module for module, names in _NAMES.items() for name in names.split()}

    _ROOMS = ["gates", "guarantee", "light", "passes", "rows"]  # whose names are public too
    _RENAMED = {"Routed": "RoutedBlocks"}  # names of 0.5.0

    def __getattr__(name: str) -> object:
        """Import what a public name stands for, or a room by its name; it is kept, so this happens once."""
        if name in _RENAMED:
            _warn(f"dendrofx.{name} is called {_RENAMED[name]} now, and goes with the next version", FutureWarning, 2)
            return getattr(_sys.modules[__name__], _RENAMED[name])
        if name in _MODULES:
            value = getattr(_import_module(f"{__name__}.{_MODULES[name]}"), name)
        elif name.startswith("_") or _find_spec(f"{__name__}.{name}") is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        else:
            value = _import_module(f"{__name__}.{name}")
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        """List the public names and the rooms, imported or not, and nothing that only this file needs."""
        return sorted({*__all__, *_ROOMS, *(name for name in globals() if name.startswith("__"))})

    class _Front(_ModuleType):
        """This package. `transform` is a function and the file that holds it: whoever loads the file, the name is the function."""

        def __setattr__(self, name: str, value: object) -> None:
            """Set an attribute, but for a public name not the file that the import system binds under it."""
            if not (name in _MODULES and isinstance(value, _ModuleType)):
                super().__setattr__(name, value)

    _sys.modules[__name__].__class__ = _Front
