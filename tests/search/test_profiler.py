"""Time and interruption: what is decided when time is up, on Ctrl-C and on a disturbed machine, and the stopwatch itself."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import dendrofx
from dendrofx import EnergyGate, InputError, LearnedGate, LowRank, Prepacked, ResidualGate
from dendrofx.graph.block import BlockData
from dendrofx.machine.race import Race, Timing
from dendrofx.search.choose import Candidate, SiteData, candidates
from dendrofx.search.profiler import AGAIN, BASELINE, ROUTED, Profiler, _light
from dendrofx.search.verify import judge
from dendrofx.values.inputs import Inputs
from tests.asked import asked
from tests.models import Residual, compressible
from tests.recorded import EIGHT, EVERY, LOW, ONE, SHAPES, SLOW, THREE, Medians, Recorded, decide, is_the_original, rows

NOT_TIMED = "not timed: tuning was interrupted or out of time (tune_seconds) before its turn"


CTRL_C = "tuning was interrupted (Ctrl-C): it decided on what was timed by then"

# -------------------------------------------------------------------------------------------- time and interruption


def test_expired_from_the_start() -> None:
    model = Residual(64, 256).eval()
    made = decide(model, timer := Recorded(expired=True), rows(), **THREE)
    assert [s.reason.partition(" (%")[0] for s in made.plan.sites[:3]] == [NOT_TIMED] * 3
    assert (timer.sites, timer.raced) == ([], [])
    assert is_the_original(made.module, model)
    assert made.plan.timing == "out of time (tune_seconds=inf): 3 of 3 sites were not timed"
    assert made.plan.timing in str(made.plan).splitlines()


def test_after_ctrl_c_only_what_was_timed_is_routed() -> None:
    made = decide(Residual(64, 256).eval(), timer := Recorded(interrupt=["site 2"]), rows(), **THREE)
    assert [s.name for s in made.plan.routed] == ["stem"]
    assert [s.reason.partition(" (%")[0] for s in made.plan.sites[1:3]] == [NOT_TIMED] * 2
    assert made.raced == [(["stem"], 64)]
    assert len(timer.sites) == 2
    assert made.plan.routed[0].measured_ms is None, "nothing is timed any more"
    assert made.plan.timing == CTRL_C
    assert CTRL_C in str(made.plan).splitlines()


def test_ctrl_c_in_the_race_of_the_whole_model_routes_nothing() -> None:
    model = compressible()
    made = decide(model, Recorded(interrupt=["models 1"]), rows(), **ONE)
    assert made.site.reason == (
        "tuning was interrupted before the rewritten model was timed against the original (%_2)"
    )
    assert made.plan.models == []
    assert made.plan.timing == CTRL_C
    assert is_the_original(made.module, model)


def test_ctrl_c_in_the_last_race_costs_its_figure_only() -> None:
    made = decide(compressible(), Recorded(interrupt=["calls"]), rows(), **ONE)
    assert (made.site.status, made.site.measured_ms, made.plan.timing) == ("routed", None, CTRL_C)


def test_time_that_is_up_before_the_last_race_costs_its_figure_and_is_said() -> None:
    class Late(Recorded):
        def models(self, *args: Any) -> Race:
            self.deadline = float("-inf")
            return super().models(*args)

    made = decide(compressible(), Late(), rows(), **ONE)
    assert (made.site.status, made.site.measured_ms) == ("routed", None)
    assert made.plan.timing == "out of time (tune_seconds=inf): routed sites were not timed alone"
    assert decide(compressible(), Recorded(), rows(), **ONE).plan.timing == "", "nothing to say"


def test_a_second_ctrl_c_ends_the_program() -> None:
    timer = Recorded(interrupt=["site 2", "models 1"])
    with pytest.raises(KeyboardInterrupt):
        decide(Residual(64, 256).eval(), timer, rows(), **THREE)


class Interrupted(LowRank):
    """Ctrl-C while the second site is fitted."""

    def build(self, data: Any) -> nn.Module:
        if data.linears[0].out_features == 256:
            raise KeyboardInterrupt
        return super().build(data)


def test_ctrl_c_while_fitting_returns_the_original() -> None:
    model = Residual(64, 256).eval()
    made = decide(model, Recorded(), rows(), lights=[Interrupted(2)], gate=EVERY)
    fitted = "tuning was interrupted before its light branches and gates were fitted"
    assert [s.reason.partition(" (%")[0] for s in made.plan.sites[:3]] == [NOT_TIMED, fitted, fitted]
    assert is_the_original(made.module, model)


# --------------------------------------------------------------------------------------------------- what is timed


def test_without_a_decision_nothing_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("timed")

    monkeypatch.setattr("dendrofx.search.profiler.race", never)
    for options in ({"decide": False}, {"tune_seconds": 0}):
        plan = dendrofx.transform(compressible(), calibration=rows(), light=LOW, gate=EVERY, **asked(**options)).plan
        assert plan.models == []
        assert [(s.rows, s.block_ms, s.predicted_ms, s.measured_ms) for s in plan.sites] == [(None,) * 4]


def test_without_calibration_only_the_whole_model_is_timed() -> None:
    for example, times in ((rows(32), [(["0..2"], 64)]), (None, [])):
        made = decide(compressible(noise=1e-4), timer := Recorded(), None, lights=[LowRank(6)], example=example)
        assert (timer.sites, made.raced) == ([], times)
        assert [s.name for s in made.plan.routed] == ["0..2"]
    timer = Recorded(races=lambda sites, n: SLOW)
    assert decide(compressible(noise=1e-4), timer, None, lights=[LowRank(6)], example=rows(32)).plan.routed == []


def test_batches_that_cannot_be_cut_to_the_size_are_named() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mlp = compressible()

        def forward(self, x: Tensor, scale: Tensor) -> Tensor:
            return self.mlp(x) * scale.mean()  # type: ignore[no-any-return]

    batches = [(rows(20, i), torch.ones(3)) for i in range(10)]
    assert decide(Pair().eval(), Recorded(), batches, **ONE, batch_sizes=(1,)).plan.routed
    with pytest.raises(InputError) as error:
        decide(Pair().eval(), Recorded(), batches, **ONE, batch_sizes=(7,))
    assert str(error.value) == "batch_sizes: no calibration batch can be cut or repeated to 7 samples"


# --------------------------------------------------------------------------------------------- a disturbed machine

wild = st.one_of(st.sampled_from([1e-9, 1e-3, 1.0, 1e9]), st.floats(1e-6, 1e6))
raced = st.one_of(st.tuples(wild, wild, wild), wild.map(lambda ms: (ms, ms * 1.001, ms / 3)))  # the second wins


@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=25)
@given(st.lists(wild, min_size=18, max_size=18), st.tuples(raced, raced, raced))
def test_wild_times_never_crash_and_a_lost_race_never_routes(parts: list[float], medians: tuple[Medians, ...]) -> None:
    torch.manual_seed(0)
    model, names = Residual(64, 256).eval(), ["block", "light", "gate", "packed", "split", "moved"]
    shapes = {shape: dict(zip(names, parts[6 * i :], strict=False)) for i, shape in enumerate(SHAPES)}
    by_size = dict(zip((1, 16, 64), medians, strict=True))
    timer = Recorded(lambda shape, n: shapes[shape], lambda sites, n: by_size[n])
    options = {**THREE, "lights": [LowRank(48, "input"), EIGHT]}
    made = decide(model, timer, rows(60), **options, batch_sizes=(1, 16, 64))
    if not all(min(a, b) / r >= max(1.05, max(a, b) / min(a, b)) for a, b, r in by_size.values()):
        assert made.plan.routed == []
    assert all(s.reason for s in made.plan.sites)
    assert made.plan.routed or is_the_original(made.module, model)
    for site in made.plan.routed:
        times = shapes[site.shape]
        assert site.activity == 0
        assert site.predicted_ms is not None
        assert site.predicted_ms == pytest.approx(times["light"] + times["gate"] + times["split"])
        assert site.predicted_ms <= 0.95 * times["block"]


# -------------------------------------------------------------------------------------------------- the stopwatch


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Profiler:
    """As quick as it can be: its figures do not matter."""
    monkeypatch.setattr("dendrofx.search.profiler.SITE_SECONDS", 0.0)
    monkeypatch.setattr("dendrofx.search.profiler.MODEL_SECONDS", 0.0)
    return Profiler(60.0)


def fitted(block: nn.Sequential) -> list[Candidate]:
    parts = [BlockData(block, rows(40, i)) for i in range(3)]
    forms = [(LOW, ResidualGate()), (LOW, EnergyGate()), (EIGHT, LearnedGate(reads="scales"))]
    return [candidates(SiteData(*parts), [light], gate, None, 0)[0][0] for light, gate in forms]


def test_a_stopwatch_times_every_part_once(watch: Profiler) -> None:
    block = compressible()
    fulls = {"block": block, "Prepacked()": Prepacked().fit(block)}
    first = watch.site("64 -> 256 -> 8", rows(24), fitted(block), fulls)
    assert (first.rows, list(first.full)) == (24, list(fulls))
    for times in first.full.values():
        assert [n for n, _ in times] == [1, 6, 16, 24]
        assert all(ms > 0 for _, ms in times)
    assert first.block == first.full["block"][-1][1]
    low, eight, learned = str(LOW), str(EIGHT), str(LearnedGate(reads="scales"))
    assert set(first.light) == {(low, "evidence"), (low, "plain"), (eight, "scales")}
    assert set(first.gate) == {(low, "ResidualGate()"), (low, "EnergyGate()"), (eight, learned)}
    assert all(ms > 0 for ms in [*first.light.values(), *first.gate.values(), first.split])
    assert first.moved >= 0
    known = dict(watch.known)
    again = watch.site("64 -> 256 -> 8", rows(24, 1), fitted(block), fulls)
    assert again == first
    assert watch.known == known, "sites of one shape share their figures"
    one = watch.site("64 -> 256 -> 8", rows(1), fitted(block), {"block": block})
    assert one.full["block"] == ((1, one.block),)
    assert len(watch.known) > len(known)


def test_a_stopwatch_races_whole_models(watch: Profiler) -> None:
    model = compressible()
    routed = dendrofx.transform(
        model, calibration=rows(), light=LOW, gate=EVERY, options=dendrofx.Options(decide=False)
    )
    race = watch.models(model, routed, [Inputs((rows(8, i),)) for i in range(3)])
    assert list(race.timings) == [BASELINE, ROUTED, AGAIN]
    assert all(len(t.ms) == race.rounds for t in race.timings.values())


ALONE = (
    "a rewritten model that lost on 2 threads (0.50 x) is 2.00 x the original on one: where workers share the cores, transform"
    " and run with OMP_NUM_THREADS=1"
)


@pytest.mark.parametrize(("routed", "cpu", "seen_threads", "says"), [
    (5.0, 10.0, [2, 1, 2, 1], []),
    (20.0, 40.0, [2, 1, 2], []),  # of models that lose, the first
    (20.0, 10.0, [2, 1, 2], [ALONE]),
])  # fmt: skip
def test_whole_models_are_raced_on_one_thread_too(
    routed: float, cpu: float, seen_threads: list[int], says: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def fixed(calls: Any, *args: Any, **kwargs: Any) -> Race:
        seen.append(torch.get_num_threads())
        times = zip((BASELINE, AGAIN, ROUTED), (10.0, 10.0, routed), strict=True)
        wall = dict(times) if seen[-1] == 2 else {BASELINE: 20.0, AGAIN: 20.0, ROUTED: cpu}
        return Race({name: Timing((ms,) * 3, (ms,) * 3) for name, ms in wall.items()}, 3, 0.0, seen[-1])

    monkeypatch.setattr("dendrofx.search.profiler.race", fixed)
    module = nn.Sequential(nn.Linear(4, 4)).eval()
    torch.set_num_threads(2)
    try:
        watch = Profiler(60.0, 1.05)
        watch.notes.clear()  # of this machine
        found = [watch.models(module, module, [Inputs.of(torch.zeros(2, 4))]) for _ in range(2)]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert seen == seen_threads
    assert watch.notes == says
    times = judge(found[0], 8)
    assert (times.scripted_alone_ms, times.routed_alone_ms) == (20.0, cpu)
    assert (times.speedup, times.noise) == (10.0 / routed, 0.0), "the race on two threads decides"


def test_time_runs_from_the_first_part_on(watch: Profiler) -> None:
    over = Profiler(0.0)
    assert not over.expired
    over.site("64 -> 256 -> 8", rows(2), [], {"block": compressible()})
    assert over.expired
    assert not watch.expired


def test_the_first_ctrl_c_ends_the_timing_and_the_second_the_program() -> None:
    watch, after = Profiler(60.0), []
    with watch.interruptible():
        after.append("quiet")
    assert not watch.expired
    with watch.interruptible():
        raise KeyboardInterrupt
    assert watch.expired
    with watch.interruptible():
        after.append("still runs")
    with pytest.raises(KeyboardInterrupt), watch.interruptible():
        raise KeyboardInterrupt
    with pytest.raises(ValueError, match="other"), Profiler(1.0).interruptible():
        raise ValueError("other")
    assert after == ["quiet", "still runs"]


class OfEight(nn.Module):
    """A model made for eight samples."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.view(4, 2, 64)).view(8, 64)


def test_a_model_made_for_one_batch_size_is_timed_on_it() -> None:
    module, batches = OfEight().eval(), [Inputs.of(rows(8))]
    with pytest.raises(RuntimeError):
        dendrofx.script(module)(rows(1))
    assert Profiler(60.0).models(module, module, batches).rounds >= 15
    assert Profiler(60.0).calls({("it",): (module, batches)})["it",] > 0


@pytest.mark.parametrize(("times", "min_speedup", "races"), [
    ((10.0, 10.1, 5.0), 1.05, 1),  # quiet
    ((10.0, 11.0, 5.0), 1.05, 1),  # disturbed, and far from the wanted speedup on either side
    ((10.0, 11.0, 40.0), 1.05, 1),
    ((10.0, 11.0, 9.0), 1.05, 2),
    ((10.0, 11.0, 5.0), 2.0, 2),
    ((10.0, 14.0, 5.0), 1.05, 2),  # so disturbed that even this could be noise
])  # fmt: skip
def test_a_disturbed_race_is_run_again_where_it_could_decide_otherwise(
    times: tuple[float, float, float], min_speedup: float, races: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run: list[int] = []

    def fixed(calls: Any, *args: Any, **kwargs: Any) -> Race:
        run.append(1)
        named = zip((BASELINE, AGAIN, ROUTED), times, strict=True)
        return Race({name: Timing((ms,) * 3) for name, ms in named}, 3, 0.0)

    monkeypatch.setattr("dendrofx.search.profiler.race", fixed)
    module = nn.Sequential(nn.Linear(4, 4)).eval()
    Profiler(60.0, min_speedup).models(module, module, [Inputs.of(torch.zeros(2, 4))])
    assert len(run) == races


@pytest.mark.parametrize("reads", ["plain", "scales"])
def test_a_light_branch_that_is_timed_hands_over_plain_tensors(reads: str) -> None:
    """A named tuple would become a new class in Python on every call, ten times the time of a small branch."""
    block = nn.Sequential(nn.Linear(8, 8))
    light = block if reads == "plain" else dendrofx.Int8(weight_bits=7).fit(block)
    assert type(_light(light, reads, torch.randn(4, 8))(0)) is tuple
