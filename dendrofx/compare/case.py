"""What is compared: a model and its samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import nn

from dendrofx.compare.samples import Order, Samples
from dendrofx.light import LightForm
from dendrofx.values.inputs import Inputs

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Picture:
    """A picture of a case's own samples, as they were routed.

    Attributes:
        name: of its file.
        draw: makes it of the routed module and the head of its title.
        note: what stands below it.
    """

    name: str
    draw: Callable[[nn.Module, str], Figure]
    note: str


@dataclass(frozen=True)
class Limit:
    """What a lossless row can gain at most: counted on what is timed, never measured.

    Attributes:
        what: is counted, "tokens, live of all".
        of: how many times the original's work is that of the rows that need it, for batches.
    """

    what: str
    of: Callable[[Sequence[Inputs]], float]


@dataclass(frozen=True)
class Published:
    """Gains that others have published for the same work done by hand: shown beside the limit, never among what is measured.

    Attributes:
        what: they did, in few words.
        source: where it stands, and for which model and machine.
        batch: the size that they are for.
        gains: by order.
    """

    what: str
    source: str
    batch: int
    gains: Mapping[Order, float]


@dataclass(frozen=True)
class Case:
    """A model and its samples.

    Attributes:
        name: as on the command line.
        title: one line: which model, which data, from where.
        model: in eval mode.
        calibration: batches; inputs of one source share a batch.
        test: samples that are used for nothing else.
        classes: whether outputs are class scores, so that agreement means something.
        head: outputs to class scores, where the outputs are none.
        dead_rows: the mask of padding, as `transform` takes it.
        repeated_rows: whether rows that repeat are to be computed once, as `transform` takes it.
        budgets: budgets of the routed rows when the command line names none; the table has one a budget, `routed-1%`, and a row
            `lossless`, budget 0, alone where that is the only budget. Empty: one row `routed` in the budget of the command line.
        certified: the budget to certify when the command line names none, as text; empty for a mean deviation.
        orders: of the samples, a table each.
        batch_sizes, quick_sizes: samples per call when the command line names none.
        static: further light forms shown on every row, by the name of their row in the table.
        pictures: of its samples.
        synthetic: whether the model or its data are made up.
        limit: what a lossless row can gain at most.
        published: what others have gained.
        most_seconds: of a race, after which two rounds are enough: for calls of seconds.
    """

    name: str
    title: str
    model: nn.Module
    calibration: list[Any]
    test: Samples
    classes: bool
    head: nn.Module | None = None
    dead_rows: str | None = None
    budgets: tuple[float, ...] = ()
    certified: str = ""
    orders: tuple[Order, ...] = ("random",)
    batch_sizes: tuple[int, ...] = (1, 32, 256)
    quick_sizes: tuple[int, ...] = (256,)
    static: Mapping[str, LightForm] = field(default_factory=dict)
    pictures: tuple[Picture, ...] = ()
    synthetic: bool = False
    repeated_rows: bool = False
    limit: Limit | None = None
    published: Published | None = None
    most_seconds: float = math.inf

    @property
    def lossless(self) -> bool:
        """Whether nothing may be approximated in any of its rows."""
        return bool(self.budgets) and not any(self.budgets)
