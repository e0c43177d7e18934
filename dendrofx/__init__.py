"""dendrofx: per-row conditional branches for trained PyTorch models on CPUs."""

import sys as _sys

if _sys.version_info >= (3, 14):
    raise ImportError(
        "dendrofx needs Python 3.10 to 3.13: it lowers to TorchScript, and torch 2.13 does not support TorchScript on Python"
        f" 3.14 and newer (this is {_sys.version.split()[0]})."
    )

from dendrofx.compare.shadow import Shadow
from dendrofx.errors import CaptureError, CertificateError, DendrofxError, InputError, PassError, PlanError
from dendrofx.gates import (
    AlwaysFull,
    AlwaysLight,
    EnergyGate,
    GateForm,
    LearnedGate,
    MarginGate,
    NoiseGate,
    OracleGate,
    RandomGate,
    ResidualGate,
    UserGate,
)
from dendrofx.graph.find_sites import find_sites
from dendrofx.graph.show import graph_text
from dendrofx.graph.sites import Site, Sites
from dendrofx.guarantee import Audit, Budget, Certificate, audit
from dendrofx.guarantee.artifact import certificate, save
from dendrofx.light import BFloat16, Int8, LightForm, LowRank, Precision, Prepacked, Pruned
from dendrofx.light.routed import Routed
from dendrofx.lowering.script import script
from dendrofx.machine.capability import Capability, capability
from dendrofx.plan.entries import SitePlan
from dendrofx.plan.plan import Plan
from dendrofx.rewriting.module import RoutedModule, set_tolerances, tolerances
from dendrofx.transform import transform
from dendrofx.version import VERSION

__version__ = VERSION

__all__ = [
    "transform",
    "script",
    "graph_text",
    "RoutedModule",
    "Plan",
    "SitePlan",
    "Site",
    "Sites",
    "find_sites",
    "tolerances",
    "set_tolerances",
    "LightForm",
    "LowRank",
    "Pruned",
    "Int8",
    "BFloat16",
    "Prepacked",
    "Precision",
    "Routed",
    "GateForm",
    "ResidualGate",
    "NoiseGate",
    "EnergyGate",
    "LearnedGate",
    "MarginGate",
    "UserGate",
    "AlwaysFull",
    "AlwaysLight",
    "RandomGate",
    "OracleGate",
    "Budget",
    "Certificate",
    "certificate",
    "save",
    "Audit",
    "Shadow",
    "audit",
    "Capability",
    "capability",
    "DendrofxError",
    "InputError",
    "CaptureError",
    "PassError",
    "PlanError",
    "CertificateError",
]
