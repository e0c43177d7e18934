"""The form of a light model that leaves early, for `scope="model"`."""

from __future__ import annotations

from dataclasses import dataclass

from dendrofx.errors import InputError
from dendrofx.values.forms import Form


@dataclass(frozen=True)
class Exit(Form):
    """The model up to a cut, and a head there that predicts its outputs: a light model for `light=` at `scope="model"`.

    Samples that are in doubt go on from the cut: nothing is computed twice. A cut is a value on which all later work depends, such
    as the residual stream between two blocks, or the model's only input. The head is one product, ridge regression on the
    standardised value (of tokens and images pooled) to the original's outputs, whose penalty has the least leave-one-out error;
    gate and threshold are searched on what each sample is given by a head that was fitted without it.

    Sources: S. Teerapittayanon, B. McDanel, H. Kung, "BranchyNet: fast inference via early exiting", 2016 (exits, trained there);
    A. Hoerl, R. Kennard, "Ridge regression", 1970; D. Allen, 1974 (leave-one-out errors in closed form).

    Attributes:
        after: the last layer before the cut, by its name in the model, or at an input its name; several for several exits in a row;
            by default wherever there is a cut.

    Raises:
        InputError: no names.

    Example:
        >>> dendrofx.transform(model, calibration=batches, budget=budget, scope="model", light=dendrofx.Exit())
    """

    after: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        given = (self.after,) if isinstance(self.after, str) else self.after
        if not isinstance(given, tuple | list) or not all(isinstance(name, str) and name for name in given):
            raise InputError(f"after must be the name of a layer, such as 'blocks.0', or several, got {self.after!r}")
        object.__setattr__(self, "after", tuple(given))

    def __str__(self) -> str:
        names = ", ".join(map(repr, self.after))
        return f"Exit({names if len(self.after) < 2 else f'({names})'})"
