"""The path of settings to test: which of those that no other beats are worth a test, and in which order.

A walk ends at the first setting that fails. Any order that is fixed before a test sample is seen is valid, and so is any choice of
settings; which is best depends on how likely each is to pass. Settings of one kin (a light model at several thresholds) lose on the
same samples: the riskier one passes only where the safer one does, and a test between costs nothing. Those of another kin lose on
others: each is a chance of its own to end the walk, and must be worth it. Before such a step come its own safer thresholds.

With `p` the chance that a setting passes and `v` the logarithm of its gain, the expected gain of a path whose last passed setting
is i is `V(i) = max over j behind i of q(i, j) V(j) + (1 - q(i, j)) v(i)`, where `q` is `p(j)`, or among kin `p(j) / p(i)`: dynamic
programming over the settings in the order of their risk.

Counts are whole: at 2 % and 95 %, of 300 samples one may be lost, and that holds at a third of the 5 % too. As many paths as get by
with as many lost samples at their part of delta are walked, each of other kin: the chance that one of them passes a setting that it
should not is at most their sum, delta.

Sources: which sequence to test is the user's choice, and several share delta: B. Wiens, "A fixed sequence Bonferroni procedure",
2003; A. Angelopoulos and others, "Learn then Test", 2021, section 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from dendrofx.guarantee.budget import Budget
from dendrofx.guarantee.settings import WORTH, Setting, pareto

MOST_STARTS = 3


def paths(
    settings: Sequence[Setting], most_cost: float, budget: Budget, tested: int, searched: int
) -> list[list[Setting]]:
    """Return the paths to walk, each to its own end; see `path`. Every setting that is accepted on one of them may be taken."""
    found: list[list[Setting]] = []
    left = list(settings)
    for _ in range(_starts(budget, tested)):
        if made := path(left, most_cost, budget, tested, searched):
            found.append(made)
            kin = {s.kin for s in made}
            left = [s for s in left if s.kin not in kin]
    return found


def path(settings: Sequence[Setting], most_cost: float, budget: Budget, tested: int, searched: int) -> list[Setting]:
    """Return the settings to test, in order.

    Args:
        settings: all, with estimated risks and costs.
        most_cost: dearer ones are left out.
        budget: to show; where its losses are not 0 or 1 all that no other beats are tested, safest first.
        tested: how many test samples there are.
        searched: how many samples the risks are estimated on.
    """
    front = pareto(settings, most_cost)
    allowed = _allowed(budget, tested)
    if allowed is None or len(front) < 2:
        return front
    chances = [_chance(s.risk + s.off / max(searched, 1), allowed, tested) for s in front]
    gains = [-math.log(s.cost) for s in front]
    following: list[int | None] = [None] * len(front)
    value = list(gains)
    for i in range(len(front) - 1, -1, -1):
        for j in range(i + 1, len(front)):
            akin = front[i].kin != "" and front[i].kin == front[j].kin
            passes = min(chances[j] / max(chances[i], 1e-300), 1.0) if akin else chances[j]
            if (gain := passes * value[j] + (1 - passes) * gains[i]) > value[i]:
                value[i], following[i] = gain, j
    at: int | None = max(range(len(front)), key=lambda i: chances[i] * value[i])
    found = []
    while at is not None:
        found.append(front[at])
        at = following[at]
    return _with_safer(found, settings, most_cost)


def _with_safer(found: Sequence[Setting], settings: Sequence[Setting], most_cost: float) -> list[Setting]:
    """Return a path with, before each step of another source, the dearer settings that lose only what that step loses.

    Where the step passes they would have, so they cost nothing; where it fails, the last of them that passed is taken.
    """
    steps: list[Setting] = []
    for step in found:
        if not steps or steps[-1].source is not step.source:
            most = WORTH * steps[-1].cost if steps else most_cost
            nested = [s for s in settings if _is_nested(s, step) and WORTH * s.cost > step.cost]
            for s in sorted(nested, key=lambda s: -s.cost):
                if s.cost < most:
                    steps.append(s)
                    most = WORTH * s.cost
        steps.append(step)
    return steps


def _is_nested(safer: Setting, step: Setting) -> bool:
    """Return whether rows that are light in one setting are light in the other too, and more are."""
    ours, theirs = safer.tolerances, step.tolerances
    return (
        safer.source is step.source and ours != theirs and all(ours.get(site, 0.0) <= theirs[site] for site in theirs)
    )


def _allowed(budget: Budget, n: int) -> int | None:
    """Return how many of n samples may be lost; None where losses are not 0 or 1, or not one sample may be."""
    if budget.test != "binomial" or budget.p_value(0.0, n) > budget.delta:
        return None
    lost = 0
    while lost < n and budget.p_value(lost + 1.0, n) <= budget.delta:
        lost += 1
    return lost


def _starts(budget: Budget, n: int) -> int:
    """Return how many paths may be walked so that each, at its part of delta, allows as many lost samples as one would."""
    allowed = _allowed(budget, n)
    if allowed is None:
        return 1
    return min(int(budget.delta / budget.p_value(float(allowed), n) * (1 - 1e-9)), MOST_STARTS) or 1


def _chance(risk: float, allowed: int, n: int) -> float:
    """Return the chance that at most so many of n samples are lost."""
    from scipy.stats import binom  # takes a second to import, and only certificates need it

    return float(binom.cdf(allowed, n, min(risk, 1.0)))
