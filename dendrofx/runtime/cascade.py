"""The leaf of a cascade that runs the original on the samples in doubt, and what counts it."""

import torch
from torch import Tensor, nn

from dendrofx.runtime.route_counts import largest_and_near, millionths
from dendrofx.runtime.routing import Split
from dendrofx.runtime.scores import hard_where_not_finite


class FullOnDoubtful(nn.Module):
    """Runs the original on the samples in doubt and puts its outputs among the light ones.

    Args:
        full: a list of inputs to a list of outputs.
        batched: which inputs carry samples, on axis 0; the others are passed on as they are.
        carried: how many values the light model gives beside its outputs, for `full` to go on from; they follow its inputs.
    """

    def __init__(self, full: nn.Module, batched: list[bool], carried: int = 0) -> None:
        super().__init__()
        self.full = full
        self.batched = batched
        self.carried = carried

    def given(self, inputs: list[Tensor], light: list[Tensor]) -> list[Tensor]:
        """Return what `full` takes."""
        return inputs + light[len(light) - self.carried :] if self.carried > 0 else inputs

    def take(self, inputs: list[Tensor], index: Tensor) -> list[Tensor]:
        """Return the inputs of the samples at `index`."""
        found: list[Tensor] = []
        for i in range(len(inputs)):
            found.append(inputs[i].index_select(0, index) if self.batched[i] else inputs[i])
        return found

    def put(self, light: list[Tensor], full: list[Tensor], index: Tensor) -> list[Tensor]:
        """Return the light outputs, those of the samples at `index` replaced."""
        found: list[Tensor] = []
        for i in range(len(full)):
            found.append(light[i].index_copy(0, index, full[i]))
        return found

    def forward(self, inputs: list[Tensor], light: list[Tensor], split: Split) -> list[Tensor]:
        """Return the model's outputs."""
        if split.hard_rows == 0:
            return light
        if split.hard_rows == split.rows:
            return self.full(self.given(inputs, light))  # type: ignore[no-any-return]
        return self.put(light, self.full(self.take(self.given(inputs, light), split.hard)), split.hard)

    @torch.jit.export
    def forward_counted(
        self, inputs: list[Tensor], light: list[Tensor], split: Split
    ) -> tuple[list[Tensor], dict[str, dict[str, int]]]:
        """Return the outputs, and what the original's own sites did."""
        counts: dict[str, dict[str, int]] = {}
        if split.hard_rows == 0:
            return light, counts
        if split.hard_rows == split.rows:
            found = self.full.forward_counted(self.given(inputs, light))  # type: ignore[operator]
            return found[0], found[1]
        some = self.full.forward_counted(self.take(self.given(inputs, light), split.hard))  # type: ignore[operator]
        return self.put(light, some[0], split.hard), some[1]


def doubt_not_finite(score: Tensor, inputs: list[Tensor]) -> Tensor:
    """Return the samples' scores; NaN where an input of the sample is not finite.

    Args:
        score: f32[N].
        inputs: [N, ...] each, floats.
    """
    for x in inputs:
        score = hard_where_not_finite(score, x).to(torch.float32)
    return score


def count_cascade(
    split: Split,
    score: Tensor,
    tolerance: Tensor,
    margin: float,
    light: dict[str, dict[str, int]],
    full: dict[str, dict[str, int]],
) -> dict[str, dict[str, int]]:
    """Count what one call of a cascade did.

    Under `model` its samples, those recomputed, and those whose route may differ in another batch; of the sites inside, their
    own counts under `light/NAME` and `full/NAME`.
    """
    largest, near = largest_and_near(score, tolerance, margin)
    found = {
        "model": {
            "rows": split.rows,
            "hard_rows": split.hard_rows,
            "near_rows": near,
            "light_rows": split.rows,
            "largest_score_millionths": millionths(largest),
        }
    }
    for name, counts in light.items():
        found["light/" + name] = counts
    for name, counts in full.items():
        found["full/" + name] = counts
    return found
