"""The digits that are easiest and hardest to route, as they were routed: a picture of the case `digits`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

import dendrofx
from dendrofx.compare.text import LEAST_SHOWN
from dendrofx.values.measure import deviation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dendrofx.compare.explanation import Explanation

SHOWN = 8  # of each kind
_FARTHEST = 2.0  # of the scores that are drawn, in tolerances


@torch.no_grad()
def draw_digits(model: nn.Module, images: Tensor, routed: nn.Module, head: str) -> Figure:
    """Return the figure.

    Args:
        model: the original.
        images: f32[N, 64], in [0, 1].
        routed: what `transform` returned for it.
        head: of the title: batch size and noise.
    """
    from matplotlib import pyplot as plt  # slow to import, and only needed here

    found = dendrofx.explain(routed, images)
    hard = hardness(found)
    order = hard.argsort(stable=True)
    rows = (("easiest", order[:SHOWN]), ("hardest", order.flip(0)[:SHOWN]))
    wanted, got = model(images), routed(images)
    far = deviation(wanted, got)
    figure = plt.figure(figsize=(11, 5.6), layout="constrained")
    full = int(torch.stack([s.hard for s in found.sites]).any(0).sum())
    figure.suptitle(f"digits as they were routed, {head}: {full} of {len(images)} {_way(routed)}", fontsize=12)
    grid = figure.add_gridspec(4, SHOWN, height_ratios=(2.2, 1, 2.2, 1))
    for line, (kind, chosen) in enumerate(rows):
        for column, i in enumerate(chosen.tolist()):
            picture, below = (figure.add_subplot(grid[2 * line + k, column]) for k in (0, 1))
            _image(picture, images[i], int(wanted[i].argmax()), int(got[i].argmax()), float(far[i]))
            _scores(below, found, i, column == 0)
            if column == 0:
                picture.set_ylabel(kind, fontsize=11)
    return figure


def _way(routed: nn.Module) -> str:
    """Say what hard digits take."""
    assert isinstance(routed, dendrofx.RoutedModule)
    cascade = routed.plan.cascade
    if cascade is None:
        return "take a full block at some site"
    return "run the full model" if cascade.exit is None else f"go on from {cascade.exit}"


def hardness(found: Explanation) -> Tensor:
    """Return f32[rows], the largest of a row's scores in tolerances of their sites: from 1 on it takes full somewhere."""
    return torch.stack([_in_tolerances(s.score, s.tolerance) for s in found.sites]).amax(0)


def _in_tolerances(score: Tensor, tolerance: float) -> Tensor:
    """Return scores over the tolerance; infinity where there is no score, or all rows take full."""
    return (score / tolerance).nan_to_num(nan=torch.inf, posinf=torch.inf)


def _image(axes: Axes, image: Tensor, wanted: int, got: int, far: float) -> None:
    axes.imshow(image.view(8, 8).numpy(), cmap="gray_r", vmin=0, vmax=1)
    axes.set_xticks([])
    axes.set_yticks([])
    answer = f"{got}" if wanted == got else f"{got}, was {wanted}"
    off = f"{100 * far:.2g} %" if far >= LEAST_SHOWN else "by rounding"
    axes.set_title(f"{answer}   off {off}", fontsize=9)


def _scores(axes: Axes, found: Explanation, row: int, names: bool) -> None:
    """Draw a row's score at each site as a bar, black where it takes full."""
    for place, site in enumerate(found.sites):
        height = min(float(_in_tolerances(site.score[row], site.tolerance)), _FARTHEST)
        full = bool(site.hard[row])
        axes.barh(place, height, 0.7, color="black" if full else "#BBBBBB")
    axes.axvline(1, color="black", lw=0.8, ls=":")
    axes.set_xlim(0, _FARTHEST)
    axes.set_ylim(len(found.sites) - 0.4, -0.6)
    axes.set_yticks(range(len(found.sites)), [s.site for s in found.sites] if names else [], fontsize=7)
    axes.set_xticks([0, 1, 2], ["0", "1", "2"], fontsize=7)
    axes.tick_params(length=2)


NOTE = (
    "Bars: the gate's score at each site, or of the whole sample, in tolerances (cut at 2). From 1 on, black, it takes the full"
    " way; below, grey, the light one. Above each image the answer, and how far the output is from the original's."
)
