"""`Options`: what few callers of `transform` need."""

from __future__ import annotations

from dataclasses import dataclass

from dendrofx.errors import InputError
from dendrofx.light import LightForm
from dendrofx.light.routed_blocks import RoutedBlocks
from dendrofx.values.numbers import is_number


@dataclass(frozen=True)
class Options:
    """The rare options of `transform`.

    Attributes:
        full: a form for the full branch instead of the original block. With `Prepacked()` it is exact; with an approximation
            the original never runs, and tolerance 0 no longer computes the original. By default the fastest of the
            block, `Transposed()` and `Prepacked()`. At `scope="model"` also `RoutedBlocks(0.001)`.
        min_speedup: how much faster than the scripted original the scripted result must be; else the captured,
            unrewritten module is returned.
        tune_seconds: time for timing the candidates' parts. What was not timed by then, or before Ctrl-C, is not chosen.
            0 times nothing: the decision is by counted multiply-adds, and the same on every machine.
        decide: False routes every site that can be routed, even where that costs time, and times nothing.
        redecide: with a plan made on another machine or version: decide anew, for its budget, batch sizes and seed.
        seed: of every random choice, from 0 to 2^63 - 1.

    Raises:
        InputError: an option that cannot be used.

    Example:
        >>> same_everywhere = dendrofx.Options(tune_seconds=0, seed=3)
        >>> routed = dendrofx.transform(model, calibration=batches, options=same_everywhere)
    """

    full: LightForm | RoutedBlocks | None = None
    min_speedup: float = 1.05
    tune_seconds: float = 60.0
    decide: bool = True
    redecide: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if not (self.full is None or isinstance(self.full, LightForm | RoutedBlocks)):
            raise InputError(
                f"full must be a light form such as dendrofx.Prepacked() or dendrofx.Pruned(energy=1.0), got {self.full!r}"
            )
        if not is_number(self.min_speedup) or not self.min_speedup > 0:
            raise InputError(
                f"min_speedup must be a number above 0, got {self.min_speedup!r}; 1.05 is five percent faster"
            )
        if not is_number(self.tune_seconds) or not self.tune_seconds >= 0:
            raise InputError(f"tune_seconds must be a number of at least 0, got {self.tune_seconds!r}")
        if not isinstance(self.seed, int) or isinstance(self.seed, bool) or not 0 <= self.seed < 2**63:
            raise InputError(f"seed must be a whole number from 0 to 2^63 - 1, got {self.seed!r}")
