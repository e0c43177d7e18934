"""The leaf modules of a routed site, which hold its branches and the real `prim::If`s, and those that time its parts alone."""

from typing import Tuple

import torch
from torch import Tensor, nn

from dendrofx.runtime.routing import Split, as_rows, check_dtype, require_finite, restore_rows, split_rows
from dendrofx.runtime.scores import LightRows


class LightAfterGate(nn.Module):
    """Runs the light branch behind a gate that has read the input only: no rows, the easy rows, or all."""

    def __init__(self, light: nn.Module) -> None:
        super().__init__()
        self.light = light

    def forward(self, x: Tensor, split: Split) -> LightRows:
        """Map f32[N, in] to f32[N or easy rows, out]; where no row is easy, nothing that is ever read. No evidence."""
        if split.hard_rows == split.rows:
            return LightRows(x, x)
        out = self.light(x.index_select(0, split.easy) if split.easy_only else x)
        return LightRows(out, out)


class LightBeforeGate(nn.Module):
    """Runs the light branch on every row, for a gate that reads its output."""

    def __init__(self, light: nn.Module) -> None:
        super().__init__()
        self.light = light

    def forward(self, x: Tensor) -> LightRows:
        """Map f32[N, in] to f32[N, out]; no evidence."""
        out = self.light(x)
        return LightRows(out, out)


class LightWithEvidence(nn.Module):
    """Runs the light branch on every row and keeps the row norms it meets, for `ResidualGate`."""

    def __init__(self, light: nn.Module) -> None:
        super().__init__()
        self.light = light

    def forward(self, x: Tensor) -> LightRows:
        """Map f32[N, in] to f32[N, out] and its evidence."""
        out, evidence = self.light.observe(x)  # type: ignore[operator]
        return LightRows(out, evidence)


class LightWithScales(nn.Module):
    """Runs an int8 light branch on every row and keeps the scales that it quantised with, which cost nothing."""

    def __init__(self, light: nn.Module) -> None:
        super().__init__()
        self.light = light

    def forward(self, x: Tensor) -> LightRows:
        """Map f32[N, in] to f32[N, out] and its scales."""
        out, scales = self.light.scales(x)  # type: ignore[operator]
        return LightRows(out, scales)


def light_leaf(light: nn.Module, reads: str) -> nn.Module:
    """Make the leaf that runs a light branch on every row, for a gate that reads `reads` of it."""
    if reads == "evidence":
        return LightWithEvidence(light)
    return LightWithScales(light) if reads == "scales" else LightBeforeGate(light)


class LightAlone(nn.Module):
    """Runs a light branch as a routed site would and returns plain tensors: to time it alone.

    A named tuple that leaves TorchScript becomes a new class in Python on every call (0.1 ms), which inside a model it never does.
    """

    def __init__(self, light: nn.Module, reads: str) -> None:
        super().__init__()
        self.leaf = light_leaf(light, reads)

    def forward(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """Map f32[N, in] to f32[N, out] and its evidence."""
        light = self.leaf(x)
        return light.out, light.evidence


class GateOnLight(nn.Module):
    """A gate that reads the light branch, called with plain tensors: to time it alone."""

    def __init__(self, gate: nn.Module) -> None:
        super().__init__()
        self.gate = gate

    def forward(self, x: Tensor, out: Tensor, evidence: Tensor) -> Tensor:
        """Map f32[N, in], f32[N, out] and its evidence to f32[N]."""
        return self.gate(x, LightRows(out, evidence))  # type: ignore[no-any-return]


class FullOnHardRows(nn.Module):
    """Runs the full branch on the hard rows and puts them among the light ones.

    Args:
        full: the full branch.
        original_macs: multiply-adds per row of the original block, for `forward_counted`.
        site: its name in the plan, which a scripted module keeps too.
    """

    def __init__(self, full: nn.Module, original_macs: int, site: str = "") -> None:
        super().__init__()
        self.full = full
        self.original_macs = original_macs
        self.site = site

    def forward(self, x: Tensor, light: LightRows, split: Split) -> Tensor:
        """Map f32[N, in] to f32[N, out]. The light rows are this call's own and may be written to."""
        if split.hard_rows == split.rows:
            return self.full(x)  # type: ignore[no-any-return]
        if split.hard_rows == 0:
            return light.out
        hard = self.full(x.index_select(0, split.hard))
        check_dtype(hard, x)
        if not split.easy_only:
            return light.out.index_copy_(0, split.hard, hard)
        out = x.new_empty([split.rows, hard.size(1)])
        out.index_copy_(0, split.easy, light.out)
        return out.index_copy_(0, split.hard, hard)


class LightOnly(nn.Module):
    """Runs the light branch on every row of a site that has no gate and no full branch.

    Args:
        light: the light branch.
        original_macs: multiply-adds per row of the original block, for `forward_counted`.
        site: its name in the plan, which a scripted module keeps too.
        watched: whether a row that asks for the full branch raises; in a model whose samples are judged as a whole none does.
    """

    def __init__(self, light: nn.Module, original_macs: int, site: str = "", watched: bool = True) -> None:
        super().__init__()
        self.light = light
        self.original_macs = original_macs
        self.site = site
        self.watched = watched

    def forward(self, x: Tensor, tolerance: Tensor) -> Tensor:
        """Map f32[N, in] to f32[N, out].

        Raises:
            RuntimeError: a row is not finite, or the tolerance is 0: both ask for the full branch, which is not there.
        """
        if not self.watched:
            return self.light(x)  # type: ignore[no-any-return]
        if not bool(tolerance > 0):
            raise RuntimeError(
                f"site '{self.site}' has no full branch, and its tolerance is 0: transform without gate='optional' to keep one"
            )
        require_finite(x, self.site)
        return self.light(x)  # type: ignore[no-any-return]


class NewRows(nn.Module):
    """Output rows of no content, in place of a branch."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in] to [N, width]."""
        return x.new_empty([x.size(0), self.width])


class RoutingAlone(nn.Module):
    """What routing itself does, without gate and branches: to time it alone. A row is hard where its score is above 1."""

    tolerance: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.light = LightBeforeGate(NewRows(width))
        self.full = FullOnHardRows(NewRows(width), 0)
        self.register_buffer("tolerance", torch.ones(()))

    def forward(self, x: Tensor, score: Tensor) -> Tensor:
        """Map f32[N, in], f32[N] to [N, width]."""
        rows = as_rows(x, x.size(1), "")
        split = split_rows(score, self.tolerance, 2.0)
        return restore_rows(self.full(rows, self.light(rows), split), x)
