"""Gates: how a row's need for the full branch is estimated. One file per gate, the controls together."""

from dendrofx.gates.controls import AlwaysFull, AlwaysLight, NoGate, OracleGate, RandomGate
from dendrofx.gates.energy import EnergyGate
from dendrofx.gates.form import GateForm, SiteRows
from dendrofx.gates.learned import LearnedGate
from dendrofx.gates.model import MarginGate
from dendrofx.gates.noise import NoiseGate
from dendrofx.gates.residual import ResidualGate
from dendrofx.gates.user import UserGate

__all__ = [
    "GateForm",
    "SiteRows",
    "ResidualGate",
    "NoiseGate",
    "EnergyGate",
    "LearnedGate",
    "MarginGate",
    "UserGate",
    "AlwaysFull",
    "AlwaysLight",
    "NoGate",
    "RandomGate",
    "OracleGate",
]
