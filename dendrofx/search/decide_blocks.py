"""Deciding at block scope: rows of blocks are routed, within a deviation or within a budget to certify.

search    explore, price, choose and calibrate (`blocks.py`)
race      the whole rewritten model against the original; while it does not win, the sites with the least gain go
certify   with a budget, settings of what is left are tested on samples that served nothing (`block_settings.py`)

The last word has the model's own time. Where live rows alone do not win, the model is decided again on all rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn

from dendrofx.graph.block import block_of
from dendrofx.graph.find_sites import without_linears
from dendrofx.guarantee.budget import Budget
from dendrofx.guarantee.path import path
from dendrofx.guarantee.settings import Setting, fastest, walk
from dendrofx.machine.memory import collect_garbage
from dendrofx.plan.plan import Plan
from dendrofx.plan.times import ModelTimes, threads_plan
from dendrofx.request import Request
from dendrofx.rewriting.tolerances import tolerances
from dendrofx.search.block_settings import (
    BlockSettings,
    block_settings,
    in_force,
    test_references,
    tested,
    without_data,
)
from dendrofx.search.blocks import BlockSpace
from dendrofx.search.certify import warn_of_duplicates
from dendrofx.search.choice import Choice
from dendrofx.search.decision import Decision
from dendrofx.search.entries import site_entries
from dendrofx.search.explore import MANY_SITES
from dendrofx.search.raced import INTERRUPTED, raced_blocks, verdict
from dendrofx.search.settle import Calibrated, best_choice, calibrated, settled, tail_of
from dendrofx.search.timer import Part, Timer, interruptible
from dendrofx.search.verify import lost, site_alone, unreliable
from dendrofx.subject import Subject
from dendrofx.values.covered import Covered
from dendrofx.values.fingerprint import data_fingerprint
from dendrofx.values.inputs import Inputs
from dendrofx.values.meta import CAPTURE


@dataclass(frozen=True)
class Raced:
    """A choice in force that was raced against the original.

    Attributes:
        made: the choice.
        times: of the last race; empty where none was run.
        lost: why the model does not win even on live rows alone, and is to be decided on all rows; else None.
    """

    made: Calibrated
    times: tuple[ModelTimes, ...] = ()
    lost: str | None = None


def decide_blocks(subject: Subject, request: Request, timer: Timer | None) -> Decision:
    """Route rows of blocks.

    Args:
        subject: its graph on live rows, where the caller named a mask.
        request: what was asked for.
        timer: what times; None decides by counted cost alone.
    """
    space, raced = search(subject, request, timer)
    if raced.lost is not None:
        return decide_blocks(subject.on_all_rows(raced.lost, request.sites), request, timer)
    if request.budget is None or subject.data is None:
        return plainly_decided(space, raced, timer)
    warn_of_duplicates(subject.data.test)
    return _certified(space, raced, request.budget, timer)


def search(
    subject: Subject, request: Request, timer: Timer | None, covered: Covered | None = None
) -> tuple[BlockSpace, Raced]:
    """Return the space of a model's blocks, and the choice that wins against the original; see `BlockSpace.explored_by`."""
    space = BlockSpace.explored_by(subject, request, timer, covered)
    choice, reached = best_choice(space)
    if request.budget is None and len(subject.sites) > MANY_SITES:  # with a budget the settings choose again
        space = space.only(choice)
        collect_garbage()
    raced = Raced(settled(space, choice, reached))
    while request.decide and timer is not None and raced.lost is None and _rewrites(space, raced.made.choice):
        choice, raced = _race(space, raced.made, timer)
        if choice is raced.made.choice:
            break
        raced = replace(raced, made=settled(space, choice, reached))
    return space, raced


def _rewrites(space: BlockSpace, choice: Choice) -> bool:
    """Return whether anything is rewritten, and could be given up."""
    return bool(choice.chosen or space.exact_forms(choice) or space.subject.original is not space.subject.graph)


def _race(space: BlockSpace, made: Calibrated, timer: Timer) -> tuple[Choice, Raced]:
    """Race the whole model; where it does not win, return a choice without the sites of the least predicted gain."""
    request, choice, subject = space.request, made.choice, space.subject
    times: tuple[ModelTimes, ...] = ()
    collect_garbage()
    with timer.interruptible():
        times = raced_blocks(space, made.module, timer)
    collect_garbage()
    raced = Raced(made, times)
    if not times:
        untimed = subject.data is None and subject.example is None
        return (choice, raced) if untimed else (choice.without(dict.fromkeys(made.recipe.sites, INTERRUPTED)), raced)
    if (reason := lost(times, request.min_speedup)) is None:
        return choice, raced
    if not choice.chosen:
        why = None if space.exact_forms(choice) else lost(times, request.min_speedup, subject.alone)
        return replace(choice, exact=False), replace(raced, lost=why)
    blocks = {s: space.tuning.block_cost(s) for s in made.recipe.sites}
    ranked = sorted(blocks, key=lambda s: (1 - choice.prices[s.name].cost) * blocks[s])
    gone = ranked if unreliable(times, request.min_speedup) else ranked[: -(-len(ranked) // 4)]
    return choice.without(dict.fromkeys(gone, reason)), raced


def plainly_decided(space: BlockSpace, raced: Raced, timer: Timer | None, refusal: str = "") -> Decision:
    """Return the decision within a deviation; or that a budget cannot be shown, and why."""
    made, data, last = raced.made, space.subject.data, raced.made.last
    entries = site_entries(space, made, {} if last is None else last.counts, _alone(space, made, timer))
    names = () if space.covered is None else space.covered.covered
    limits = [0.0] * len(names) if last is None else last.limits
    plan = replace(
        _plan(space, raced.times, timer),
        sites=entries,
        deviation=last.upper if last is not None else 0.0 if data is not None else None,
        multiplier=None if last is None else last.multiplier,
        tail=tail_of(space, made),
        outputs=dict.fromkeys(names) if space.request.budget is not None else dict(zip(names, limits, strict=True)),
        refusal=refusal,
        no_sites="" if entries else without_linears(space.subject.graph),
    )
    return Decision(made.module, made.recipe, plan)


def _plan(space: BlockSpace, times: Sequence[ModelTimes], timer: Timer | None) -> Plan:
    """Return what all plans of a space have in common."""
    subject, covered, budget = space.subject, space.covered, space.request.budget
    return Plan(
        [],
        space.request.max_deviation,
        samples=None if subject.data is None else subject.data.samples,
        models=list(times),
        origin=subject.origin(space.request, space.tuning.sizes),
        capture=str(subject.graph.meta.get(CAPTURE, "")),
        dead_rows=subject.dead,
        repeated_rows=subject.repeats,
        budget="" if budget is None or subject.data is None else str(budget),
        outputs={} if covered is None else dict.fromkeys(covered.covered),
        not_covered=[] if covered is None else list(covered.left),
        timing="" if timer is None else "; ".join(timer.notes),
        threads=threads_plan(times, space.request.min_speedup),
        tail=tail_of(space),
    )


def _alone(space: BlockSpace, made: Calibrated, timer: Timer | None) -> dict[str, float]:
    """Time the routed sites alone, in turns, where their parts were timed: ms by name."""
    timed = [s for s in made.recipe.sites if s.name in (space.tuning.measured or {})]
    if timer is None or not timed:
        return {}
    if timer.expired:
        timer.ran_out("routed sites were not timed alone")
        return {}
    rows, values = space.rows(timed), tolerances(made.module)
    calls: dict[Part, tuple[nn.Module, Sequence[Inputs]]] = {}
    for site in timed:
        block, branches = block_of(space.subject.graph, site.nodes), made.choice.chosen[site.name].branches
        alone = site_alone(block, branches, float(values[site.name]))
        calls[site.name,] = (alone, [Inputs((space.tuning.batches(site.name, rows[site.name])[-1],))])
    with timer.interruptible():
        return {site: ms for (site,), ms in timer.calls(calls).items()}
    return {}


def _certified(space: BlockSpace, raced: Raced, budget: Budget, timer: Timer | None) -> Decision:
    """Return the fastest setting of the chosen sites that is shown to keep a budget, if it wins against the original."""
    walked, found = _tested(space, raced.made.choice, budget, timer)
    if isinstance(found, Setting) and space.request.decide and timer is not None:
        times, reason = race_of(space, found, timer)
        raced, found = replace(raced, times=times), found if reason is None else reason
    return concluded(space, raced, budget, walked, found, timer)


def race_of(space: BlockSpace, setting: Setting, timer: Timer) -> tuple[tuple[ModelTimes, ...], str | None]:
    """Time a setting's module against the original; return the times, and why it lost, if it did."""
    what = "within the budget the rewritten model"
    return verdict(lambda: raced_blocks(space, in_force(setting).module, timer), timer, space.request.min_speedup, what)


def concluded(
    space: BlockSpace,
    raced: Raced,
    budget: Budget,
    walked: Sequence[Setting],
    found: Setting | str,
    timer: Timer | None,
) -> Decision:
    """Return the decision for a setting that was accepted and won, or where there is none and why, without routed sites."""
    choice, data = raced.made.choice, space.subject.data
    assert data is not None
    made = in_force(found) if isinstance(found, Setting) else None
    if isinstance(found, str):
        refused = choice.without(dict.fromkeys(raced.made.recipe.sites, f"not certified: {found}"))
        none = replace(raced, made=calibrated(space, refused, 0.0))
        decision = plainly_decided(space, none, timer, found)
        plan = decision.plan
    else:
        plan = _plan(space, raced.times, timer)
    if space.covered is None:
        return decision
    settings = BlockSettings(
        without_data(space), plan, tuple(walked), budget, space.covered, data_fingerprint(data.test)
    )
    if made is not None:
        assert isinstance(found, Setting)
        decision = settings.decided(found, made, _alone(space, made, timer))
    return replace(decision, walked=tuple(walked), settings=settings)


def _tested(
    space: BlockSpace, choice: Choice, budget: Budget, timer: Timer | None
) -> tuple[list[Setting], Setting | str]:
    """Return the settings that were tested, in order, and the fastest accepted one or why there is none."""
    if not choice.chosen:
        return [], "no site is routed: nothing pays"
    most = space.request.max_sample_deviation
    samples = space.subject.data.samples if space.subject.data is not None else ()
    worth = path(list(block_settings(space, choice, budget)), 1.0, budget, samples[4], samples[3])
    if not worth:
        kept = "" if most is None else f" and to keep max_sample_deviation={most:g}"
        return [], f"no setting of the routed sites is predicted to be faster than the original{kept}"
    references = test_references(space)
    walked = walk(worth, lambda s: tested(space, budget, s, references), interruptible(timer))
    return walked, fastest(walked, budget, most)
