"""What a case is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from dendrofx.light import LightForm


@dataclass(frozen=True)
class CaseOptions:
    """What the command line sets for a case.

    Attributes:
        seed: of the split and of synthetic data.
        quick: fewer rows, for a smoke test.
        width: of the `wide` case.
        depth: of the `wide` case, in hidden layers.
    """

    seed: int = 0
    quick: bool = False
    width: int = 1024
    depth: int = 3


@dataclass(frozen=True)
class Case:
    """A model and its rows.

    Attributes:
        name: as on the command line.
        title: one line: which model, which data, from where.
        model: in eval mode.
        calibration: batches; inputs of one source share a batch.
        test: f32[N, in], rows that are used for nothing else.
        classes: whether outputs are class scores, so that agreement means something.
        static: further light forms shown on every row, by the name of their row in the table.
        synthetic: whether the model or its data are made up.
    """

    name: str
    title: str
    model: nn.Module
    calibration: list[Tensor]
    test: Tensor
    classes: bool
    static: Mapping[str, LightForm] = field(default_factory=dict)
    synthetic: bool = False


class CaseUnavailableError(Exception):
    """A case whose package is not installed; the message says how to install it."""
