"""Light models that leave early: a head at a cut of the full model, fitted in closed form.

Every calibration sample that tests nothing fits the heads: what a head would give a sample that it was not fitted to is known in
closed form, and gates and thresholds are searched on that.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, fx

from dendrofx.graph.cuts import Cut, find_cuts
from dendrofx.graph.shapes import shape, tensors
from dendrofx.rewriting.exits import Halves
from dendrofx.rows.layout import SAMPLES
from dendrofx.rows.samples import SampleAnalysis
from dendrofx.runtime.exits import ExitHead, pooled
from dendrofx.search.cascade.proved import Proved
from dendrofx.values.measure import model_macs
from dendrofx.values.meta import DTYPE

RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
MOST_FLAT = 1024  # numbers of a sample that are features as they are
CONSTANT = 1e-6  # a feature that varies by less than this share of the largest is none


def cuts_of(gm: fx.GraphModule, most: int | None) -> list[Cut]:
    """Return the cuts of a model that was captured with symbolic shapes, at most so many, even in depth."""
    analysis = SampleAnalysis(gm)

    def is_sample(node: fx.Node) -> bool:
        floats = node.op != "placeholder" or _is_float(node)
        return floats and len(tensors(node)) == 1 and analysis.layout(node).startswith(SAMPLES)

    found = find_cuts(gm, is_sample)
    picked = torch.linspace(0, len(found) - 1, min(most or len(found), len(found))).round().long().unique().tolist()
    return [found[i] for i in picked]


def kind_of(node: fx.Node) -> str:
    """Return how the value of a node becomes features, see `pooled`."""
    axes = shape(node)[1:]
    if len(axes) < 2 or (all(isinstance(a, int) for a in axes) and prod(int(a) for a in axes) <= MOST_FLAT):
        return "flat"
    return "tokens" if len(axes) == 2 else "channels"


@dataclass(frozen=True)
class Ridge:
    """Ridge regression of several targets, and what it gives each sample when fitted without it.

    Attributes:
        weight: f32[targets, features]; bias: f32[targets].
        left_out: f32[n, targets], predictions of a fit without the sample.
    """

    weight: Tensor
    bias: Tensor
    left_out: Tensor


def ridge(features: Tensor, targets: Tensor) -> Ridge:
    """Fit it, with the penalty that has the least leave-one-out error.

    From one singular value decomposition of the standardised features, Z = U S V', the prediction at the penalty r is
    `U diag(s^2 / (s^2 + r n)) U' y`, and without sample i its error is `e_i / (1 - h_i)`, h_i the sample's leverage.

    Args:
        features: f32[n, features]; of those that do not vary the weight is 0.
        targets: f32[n, targets].
    """
    z, y = features.double(), targets.double()
    mean, centre = z.mean(0), y.mean(0)
    spread = z.std(0, correction=0)
    spread = torch.where(spread > CONSTANT * spread.amax().clamp_min(1e-30), spread, torch.inf)
    u, s, vt = torch.linalg.svd((z - mean) / spread, full_matrices=False)
    projected = u.t() @ (y - centre)
    scale = (y - centre).square().mean(0).clamp_min(1e-30)
    best, least = None, torch.inf
    for penalty in RIDGES:
        kept = s.square() / (s.square() + penalty * len(z))
        leverage = (u.square() * kept).sum(1) + 1 / len(z)
        error = (y - centre - u @ (kept[:, None] * projected)) / (1 - leverage).clamp_min(1e-9)[:, None]
        if (lost := float((error.square() / scale).sum())) < least:
            best, least = (penalty, y - error), lost
    assert best is not None
    shrunk = s / (s.square() + best[0] * len(z))
    weight = (vt.t() @ (shrunk[:, None] * projected)) / spread[:, None]
    return Ridge(weight.t().float(), (centre - mean @ weight).float(), best[1].float())


@dataclass(frozen=True)
class FittedExit:
    """A model with a head at a cut.

    Attributes:
        halves: of the model; head: fitted.
        left_out: what heads that were fitted without a sample give it, [n, ...] by output, of all samples that test nothing.
        error: their mean squared error, over the targets' variance.
    """

    halves: Halves
    head: ExitHead
    left_out: list[Tensor]
    error: float

    @property
    def work(self) -> float:
        """Multiply-adds up to the exit, over the model's."""
        total, before = self.head.work
        return (before + self.head.macs) / max(total, 1)

    @property
    def before(self) -> float:
        """Multiply-adds before the cut, over the model's."""
        return self.head.work[1] / max(self.head.work[0], 1)


@torch.no_grad()
def fitted_exit(proved: Proved, model: fx.GraphModule, cut: Cut, reached: Tensor | None = None) -> FittedExit | None:
    """Return a model with a head at a cut; None where the model has no such value, or one that is not finite.

    All samples that test nothing fit the head, to the original's outputs.

    Args:
        proved: the original, whose cut it is, and its samples.
        model: to be cut: the original with other forms at its sites.
        cut: where.
        reached: bool[n], the samples that come this far, which fit it; by default all do.

    Raises:
        InputError: no head can predict the original's outputs, see `fixed_outputs`.
    """
    original, batches, reference = proved.subject.original, proved.untested, proved.targets
    if cut.node not in {n.name for n in model.graph.nodes}:
        return None  # it lies inside a block that was replaced
    kind = kind_of(next(n for n in original.graph.nodes if n.name == cut.node))
    samples = sum(b.samples for b in batches)
    before = model_macs(Halves.of(original, cut, 0).first, batches) // samples
    halves = Halves.of(model, cut, before)
    features = torch.cat([pooled(b.call(halves.first), kind) for b in batches]).float()
    targets = torch.cat([r.reshape(len(r), -1) for r in reference], 1).float()
    if not bool(features.isfinite().all() and targets.isfinite().all()):
        return None
    reached = torch.ones(len(features), dtype=torch.bool) if reached is None else reached
    found = ridge(features[reached], targets[reached])
    left_out = features @ found.weight.t() + found.bias
    left_out[reached] = found.left_out
    shapes = [list(r.shape[1:]) for r in reference]
    head = ExitHead(kind, found.weight, found.bias, shapes, (proved.macs // samples, before)).eval()
    parts = [p.reshape(len(p), *s) for p, s in zip(left_out.split(head.sizes, 1), shapes, strict=True)]
    error = float((left_out - targets).square().mean() / targets.var(0, correction=0).mean().clamp_min(1e-30))
    return FittedExit(halves, head, parts, error)


def _is_float(node: fx.Node) -> bool:
    return node.meta.get(DTYPE) in (None, torch.float32, torch.float64, torch.bfloat16, torch.float16)
