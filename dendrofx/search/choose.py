"""Candidates for a site: light branches, each with every gate that fits it, and what they measure on rows that fitted neither.

A candidate is priced at the site's share of the budget (`estimates.py`): at the smallest activity at which the mean error of the
rows left to light keeps it. So a gate's skill counts by the full rows it saves, and against its own time.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from torch import Tensor, nn

from dendrofx.errors import InputError
from dendrofx.gates import GateForm, SiteRows
from dendrofx.gates.controls import NoGate
from dendrofx.gates.form import LightRuns
from dendrofx.gates.user import UserGateError
from dendrofx.graph.block import BlockData, converted_values, row_cost, row_macs
from dendrofx.light import LightForm, Precision
from dendrofx.machine.memory import return_free_memory
from dendrofx.rewriting.rewrite import Branches
from dendrofx.runtime.scores import UNJUDGED
from dendrofx.search.calibrate import ONE_SIDED_95
from dendrofx.search.cost import RowMacs
from dendrofx.search.remembered import fitted_once, is_remembering
from dendrofx.search.search_space import default_gates, default_lights
from dendrofx.values.fingerprint import data_fingerprint, model_fingerprint
from dendrofx.values.inputs import Inputs
from dendrofx.values.skill import router_skill

PROBE_ROWS = 256
# Float32 multiply-adds in the time of converting one value to a lower precision or back, about: 512 x 1024 -> 4096 in int8
# spends 0.6 ms of 3.1 on its pointwise passes, where the float32 product takes 9 prepacked (2 threads, Zen 5).
MACS_PER_CONVERTED_VALUE = 32


class FullFormError(InputError):
    """The full branch that the caller named does not fit a block."""


@dataclass(frozen=True)
class Candidate:
    """A light branch with its gate and what they measured on the choosing rows (f32[N] each)."""

    branches: Branches
    score: Tensor
    error: Tensor
    skill: float | None
    full_macs: int

    def activity_at(self, budget: float) -> float:
        """Return the smallest share of hard rows at which the upper limit of the mean error keeps the budget.

        Hard rows count 0; the limit is that of the walk, so that the choice expects what calibration will allow.
        """
        within = (self._limits <= budget).nonzero()
        n = len(self.error)
        first = int(within[0]) if len(within) else n
        return max(first, self._unjudged) / n

    @cached_property
    def _limits(self) -> Tensor:
        """f64[N + 1], upper limits of the mean error, the k highest scores hard; infinite where no tolerance parts them."""
        n = len(self.error)
        order = self.score.argsort(descending=True, stable=True)
        score, errors = self.score[order], self.error[order].double()
        left = _tail_sums(errors)
        mean, square = left / n, _tail_sums(errors.square()) / n
        upper = mean + ONE_SIDED_95 * ((square - mean.square()).clamp_min(0) / n).sqrt()
        upper[1:-1][~(score[1:] < score[:-1])] = torch.inf
        return upper

    @cached_property
    def _unjudged(self) -> int:
        return int((self.score >= UNJUDGED).sum())

    @cached_property
    def macs(self) -> RowMacs:
        """Multiply-adds per row of the branches, weighted by operand bits, conversions counted as multiply-adds too."""
        full = self.full_macs if self.branches.full is None else row_cost(self.branches.full).work
        light = row_cost(self.branches.light).work + MACS_PER_CONVERTED_VALUE * converted_values(self.branches.light)
        return RowMacs(row_cost(self.branches.gate).work, light, full)

    def with_full(self, form: LightForm, full: nn.Module | None) -> Candidate:
        """Return it with a full branch of another form."""
        return replace(self, branches=replace(self.branches, full_form=form, full=full))

    @property
    def family(self) -> str:
        """Candidates of one family differ in size only: `LowRank Int8(), LearnedGate(directions=8)`."""
        form = self.branches.light_form
        return f"{type(form).__name__} {getattr(form, 'precision', form)}, {self.branches.gate_form}"


@torch.no_grad()
def relative_error(data: BlockData, light: nn.Module | LightRuns) -> Tensor:
    """Return f32[N], the site's own relative output error: `||light(x) - block(x)|| / ||block(x)||`."""
    assert data.rows is not None
    out = LightRuns.of(light).read(data.rows, "light").out
    error: Tensor = (out - data.outputs).norm(dim=1) / data.outputs.norm(dim=1).clamp_min(1e-12)
    return error


@torch.no_grad()
def scores(form: GateForm, gate: nn.Module, light: nn.Module | LightRuns, rows: Tensor) -> Tensor:
    """Return f32[N], what a fitted gate gives the rows."""
    if form.reads == "input":
        return gate(rows)  # type: ignore[no-any-return]
    return gate(rows, LightRuns.of(light).read(rows, form.reads))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class SiteData:
    """A site's rows in the three sets that precede tuning; without data only probe rows to choose on.

    Attributes:
        fit: what light branches are fitted on.
        gate: what gates are fitted on.
        choose: what errors and skill are measured on.
    """

    fit: BlockData
    gate: BlockData
    choose: BlockData

    @cached_property
    def key(self) -> Hashable:
        """What a fit on these rows depends on; None where nothing is remembered."""
        if not is_remembering():
            return None
        sets = [Inputs((d.rows,)) for d in (self.fit, self.gate, self.choose) if d.rows is not None]
        return model_fingerprint(self.fit.block), data_fingerprint(sets)

    @staticmethod
    def without_rows(block: nn.Sequential, width: int, seed: int) -> SiteData:
        """Return data where there is none: forms that need none are compared on 256 standard normal probe rows."""
        probe = torch.randn(PROBE_ROWS, width, generator=torch.Generator().manual_seed(seed))
        return SiteData(BlockData(block), BlockData(block), BlockData(block, probe))


def candidates(
    data: SiteData,
    lights: Sequence[LightForm] | None,
    gate: GateForm | None,
    full: LightForm | None,
    seed: int,
    many: bool = False,
    optional: bool = False,
) -> tuple[list[Candidate], list[str]]:
    """Fit every light form with every gate.

    Args:
        data: the site's rows.
        lights: the forms to try, None for those of `search_space.py`.
        gate: the gate to use, None for all that fit.
        full: the form of the full branch, None for the block itself.
        seed: of tie-breaking.
        many: the model has many sites; see `default_lights`.
        optional: each form is also tried without a gate.

    Returns:
        The candidates, and a reason for each form that is none: it does not fit, or has more weighted multiply-adds than the block.

    Raises:
        InputError: the full form does not fit the block.
    """
    found: list[Candidate] = []
    reasons = []
    full_macs = row_macs(data.fit.block)
    full_module = None if full is None else _full(data.fit, full)
    tried = default_lights(data.fit, many) if lights is None else lights
    gates = [gate] if gate is not None else default_gates(data.fit, many)
    gates += [NoGate()] if optional else []
    if lights is None and not tried:
        reasons.append(
            "models of many sites are tried in low precision alone, and this CPU has none: name a form with light="
        )
    key = None if many else data.key  # of many sites all candidates together weigh more than the model
    for form in tried:
        try:
            light = fitted_once(key and (key, form), partial(form.fit_data, data.fit))
            if many:  # what forms share weighs as much as they do
                data.fit.kept.clear()
                return_free_memory()
            work = row_cost(light).work
            if work >= full_macs and not isinstance(form, Precision):
                reasons.append(f"{form} saves no multiply-adds: {work} of the block's {full_macs}")
            else:
                made = fitted_once(
                    key and (key, form, *gates, seed), partial(_with_gates, data, form, light, gates, seed, key)
                )
                found += made if full is None else [c.with_full(full, full_module) for c in made]
        except UserGateError:
            raise
        except InputError as error:
            reasons.append(str(error))
        if many:
            return_free_memory()
    return found, reasons


def _full(data: BlockData, form: LightForm) -> nn.Module:
    try:
        return form.fit_data(data)
    except InputError as error:
        raise FullFormError(f"full={form} does not fit: {error}") from error


def _with_gates(
    data: SiteData, form: LightForm, light: nn.Module, gates: Sequence[GateForm], seed: int, key: Hashable | None
) -> list[Candidate]:
    rows, runs = data.gate.rows, LightRuns(light)
    site = SiteRows(data.gate, light, None if rows is None else relative_error(data.gate, runs), data.fit.rows, runs)
    error = relative_error(data.choose, runs)
    tried, problem = [], f"no gate that needs no data fits {form}: pass calibration="
    for gate_form in gates:
        try:
            fitted = fitted_once(key and (key, form, gate_form), partial(gate_form.fit, site))
        except UserGateError:
            raise
        except InputError as refused:
            problem = str(refused)
            continue
        assert data.choose.rows is not None
        score = scores(gate_form, fitted, runs, data.choose.rows)
        skill = None if rows is None else router_skill(score, error, seed, resamples=0).value
        branches = Branches(form, light, gate_form, fitted)
        tried.append(Candidate(branches, score, error, skill, row_macs(data.fit.block)))
    if not tried:
        raise InputError(problem)
    return tried


def _tail_sums(values: Tensor) -> Tensor:
    """Return f64[N] -> f64[N + 1], the sum of what is left after the first k, k = 0 .. N."""
    return torch.cat([values.flip(0).cumsum(0).flip(0), values.new_zeros(1)])
