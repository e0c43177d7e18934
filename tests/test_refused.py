"""What cannot be: each message quotes what was given and shows the way on, in one line."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dendrofx
from dendrofx import Budget, Certificate, InputError, Int8, LearnedGate, LowRank, Options, Prepacked, Pruned, transform
from dendrofx.graph.find_sites import find_sites
from tests.asked import asked
from tests.made import ROUND_TRIPS, SETTABLE, made
from tests.models import Residual, compressible
from tests.recorded import EVERY

REJECTS = (
    "Pass batches as the model is called: a tensor, a tuple of positional inputs or a dict of named ones, with the width"
    " and dtype it was trained on"
)
CERTIFICATE = Certificate(
    "flip", None, 0.02, 0.05, 300, 0.0, 0.002, "binomial", 1, 1, {"model": 0.1}, 0.8, "m", "n", "i", "0", "2", "cpu"
)


def rows(count: int = 200, width: int = 64) -> Tensor:
    return torch.randn(count, width)


def said(call: Callable[[], object]) -> str:
    """The one line in which a call is refused."""
    with pytest.raises(InputError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


def refusal(*args: Any, **options: Any) -> str:
    return said(lambda: transform(*args, **asked(**options)))


def holding_nan() -> Tensor:
    bad = rows()
    bad[3, 4] = math.nan
    return bad


# ------------------------------------------------------------------------------------------------------ options

FULL = "full must be a light form such as dendrofx.Prepacked() or dendrofx.Pruned(energy=1.0), got {!r}"
# By option, what it says of a value that cannot be, and such values.
VALUES: list[tuple[str, str, list[Any]]] = [
    ("budget", "budget is a mean deviation of at least 0, 0.01 for one percent, or a dendrofx.Budget, or its text 'flip:0.01:0.95';"
     " got {!r}", [-1, -0.01, math.nan, math.inf, True, [0.01]]),
    ("budget", "budget={0} is {1:.0f} %; it is at most 1: 0.01 is one percent", [5, 1.01]),
    ("budget", "a budget is METRIC:LIMIT:CONFIDENCE, such as flip:0.01:0.95, got {!r}", ["flip:..:0.9", "1 at most 2"]),
    ("budget", "a budget is a mean deviation, 0.01, or METRIC:LIMIT:CONFIDENCE, flip:0.01:0.95; got {!r}", ["flip", "1 %"]),
    ("max_sample_deviation", "max_sample_deviation is what any calibration sample may deviate by, above 0: 0.2 is twenty percent;"
     " got {!r}", [0, -0.1, math.nan, math.inf, True, "0.2"]),
    ("max_sample_deviation", "max_sample_deviation={0} is {1:g} %; it is at most 1: 0.2 is twenty percent", [20, 1.01]),
    ("options", "options must be dendrofx.Options, such as Options(tune_seconds=0), got {!r}", [{"seed": 1}]),
    ("light", "light must be a light form such as dendrofx.LowRank(rank=32), or several, got {!r}",
     ["LowRank", LowRank, [], [LowRank(2), "x"], [None], 3, LearnedGate()]),
    ("gate", "gate must be a gate form such as dendrofx.LearnedGate(), a module, or 'optional', got {!r}",
     ["LearnedGate", LearnedGate, [LearnedGate()], 3, LowRank(2)]),
    ("full", FULL, ["Prepacked()", Prepacked, EVERY]),
    ("seed", "seed must be a whole number from 0 to 2^63 - 1, got {!r}", ["0", 1.0, None, True, 2**70]),
    ("sites", "sites= takes names, patterns or a predicate on Site, got {!r}", [3, [3]]),
    ("sites", "sites={!r} matches no site; the model has: 0..2", ["encoder.*"]),
    ("sites", "sites='head' matches no site; the model has: 0..2", [["0..2", "head"]]),
    ("min_speedup", "min_speedup must be a number above 0, got {!r}; 1.05 is five percent faster", [0, True, math.nan]),
    ("tune_seconds", "tune_seconds must be a number of at least 0, got {!r}", [-1, "60", math.inf]),
    ("batch_sizes", "batch_sizes must be whole numbers of at least 1, such as [1, 256], got {!r}",
     [[], [0], [1, 2.5], [True], "256", 256, [None], [-1, 4]]),
    ("plan", "plan must be a dendrofx.Plan, such as Plan.load('plan.json') gives, got {!r}", ["plan.json"]),
    ("calibration", "calibration is empty: pass at least a few hundred samples, or calibration=None",
     [[], iter(()), torch.zeros(0, 64)]),
    ("calibration", "calibration is an iterable of batches, got int: for a single batch pass [batch]", [3]),
    ("calibration", "calibration batch 1 (float32[200, 64]) holds 1 values that are NaN: drop these samples",
     [[rows(), holding_nan()]]),
    ("calibration", "calibration batch 1 is on meta: move it to the CPU", [[rows(), rows().to("meta")]]),
    ("calibration", "Sequential does not take the inputs (x=float32[200, 64]): missing a required argument: 'input'",
     [[{"x": rows()}]]),
    ("calibration", "Sequential does not take the inputs (float32[200, 64], int64[200]): too many positional arguments. If its"
     " last is a label, pass calibration=[input for input, _ in loader]", [[(rows(), torch.zeros(200, dtype=torch.int64))]]),
    ("example_inputs", "a batch is a tensor, a tuple or a dict of tensors, got str", ["rows"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("option", "message", "value"), [(option, message, v) for option, message, values in VALUES for v in values]
)
def test_an_option_that_cannot_be(option: str, message: str, value: Any) -> None:
    given = {} if option == "example_inputs" else {"calibration": [rows()]}
    percent = 100 * value if isinstance(value, int | float) else None
    assert refusal(compressible(), **{**given, option: value}) == message.format(value, percent)


@pytest.mark.parametrize(("options", "inputs"), [
    ({"calibration": [rows(200, 63)]}, "input=float32[200, 63]"),
    ({"calibration": [rows().double()]}, "input=float64[200, 64]"),
    ({"calibration": [rows().long()]}, "input=int64[200, 64]"),
    ({"example_inputs": rows(5, 63)}, "input=float32[5, 63]"),
    *[({"calibration": [*[rows(40)] * others, bad], "seed": seed}, "input=float")  # which batch is first is chance
      for others in (3, 9) for bad in (rows(40, 63), rows(40).double()) for seed in range(4)],
])  # fmt: skip
def test_inputs_that_the_model_rejects(options: dict[str, Any], inputs: str) -> None:
    message = refusal(compressible(), **options)
    assert message.startswith(f"Sequential rejects the inputs ({inputs}")
    assert message.endswith(REJECTS)


@pytest.mark.parametrize("bad", [-1, 9])
def test_ids_that_the_model_has_no_row_for(bad: int) -> None:
    batches = [torch.arange(24).remainder(9).view(8, 3) for _ in range(4)]
    batches[2] = batches[2].clone()
    batches[2][5, 1] = bad
    model = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 4)).eval()
    message = "calibration batch 2 (input=int64[8, 3]) is rejected: index out of range in self"
    assert refusal(model, calibration=batches) == message


# ---------------------------------------------------------------------------------------------------- the model


def training_inside() -> nn.Module:
    model = Residual().eval()
    model.fc1.train()
    return model


def with_a_buffer_elsewhere() -> nn.Module:
    model = compressible()
    model.register_buffer("seen", torch.zeros(3, device="meta"))
    return model


TRAINING = "{} is in training mode: call model.eval() first"
NO_VALUES = "'{}' is on meta: it has no values. Load the model's weights first"
NO_MODULE = "transform takes an nn.Module, got {}"
ROUTED = "the model already holds routed sites: transform the original model"
MODELS: list[tuple[Callable[[], Any], str]] = [
    (lambda: compressible().train(), TRAINING.format("'the model' (Sequential)")),
    (training_inside, TRAINING.format("'fc1' (Residual)")),
    (lambda: nn.Sequential(nn.Linear(64, 8, device="meta")).eval(), NO_VALUES.format("0.weight")),
    (with_a_buffer_elsewhere, NO_VALUES.format("seen")),
    (lambda: "model.pt", NO_MODULE.format("str")),
    (lambda: nn.Linear, NO_MODULE.format("type")),
    (lambda: {"weight": torch.zeros(3)}, NO_MODULE.format("dict")),
    (lambda: made("mlp").module, ROUTED),
    (lambda: nn.Sequential(nn.ReLU(), made("mlp").module).eval(), ROUTED),
]


@pytest.mark.parametrize("data", [None, [torch.randn(200, 64)]], ids=["no data", "data"])
@pytest.mark.parametrize(("make", "message"), MODELS)
def test_a_model_that_cannot_be(make: Callable[[], Any], message: str, data: Any) -> None:
    model = make()
    training = getattr(model, "training", False)
    assert refusal(model, calibration=data) == message
    assert getattr(model, "training", False) is training


# ------------------------------------------------------------------------------------------------- other calls

BETWEEN = [0, 1, -0.1, 1.5, math.nan, math.inf, "0.1", None, True]
METRICS = (
    "metric {!r} is none of 'flip', 'deviation', 'exceeds(0.05)' and 'cosine'; pass a function of (reference, output)"
)
OUTPUTS = "output names outputs, such as 'logits', 0 or ('action', 'value'), got {!r}"
PARSED = "a budget is METRIC:LIMIT:CONFIDENCE, such as flip:0.01:0.95, got {!r}"
NAMES_OF_OUTPUTS = [True, (), [], 1.5, ("a", None), b"logits", {"a"}]
HEAD = nn.Sequential(nn.LayerNorm(64), nn.Linear(64, 1)).eval()
FITTED = {"calibration": [rows()], "light": Int8(7), "full": Pruned(1.0), "tune_seconds": 0}
CALLS: list[tuple[Callable[[], object], str]] = [
    (partial(dendrofx.audit, [0.0], None), "an audit tests a certificate, got None: pass plan.certificate of a module that was"),
    *[(partial(dendrofx.audit, bad, CERTIFICATE), "losses of an audit are numbers in [0, 1], one per sample: ")
      for bad in (None, ["a"], object())],
    *[(partial(dendrofx.audit, [bad], CERTIFICATE, 0.8), "losses of an audit must be in [0, 1] and not NaN")
      for bad in (-0.1, 1.1, math.nan)],
    (partial(dendrofx.audit, [0.0], CERTIFICATE, 0.0), "easy_share must be above 0 and at most 1, got 0.0"),
    (partial(dendrofx.graph_text, nn.Linear(2, 2)), "a Linear has no graph to print: pass what dendrofx.transform returned"),
    (partial(find_sites, "model"), "sites are those of a model, got 'model': pass an nn.Module in eval mode"),
    (partial(dendrofx.tolerances, {}), "tolerances are those of a module that transform returned, or of its script, got {}"),
    (partial(dendrofx.set_tolerances, nn.Linear(2, 2), {"a": 0.1}),
     "the module has no site 'a'; it has none: nothing is routed, or it is frozen"),
    *[(partial(Budget.parse, text), PARSED.format(text)) for text in ("flip", "flip:x", "flip:0.01:0.9:1")],
    (partial(Budget.parse, "flip:1.5"), "limit must be between 0 and 1, got 1.5; limit=0.01, confidence=0.95 for 1 % at 95 %"),
    *[(partial(Budget, "flip", bad), f"limit must be between 0 and 1, got {bad!r}; ") for bad in BETWEEN],
    *[(partial(Budget, "flip", 0.1, bad), f"confidence must be between 0 and 1, got {bad!r}; ") for bad in BETWEEN],
    *[(partial(Budget.parse, f"{bad}:0.1"), METRICS.format(bad)) for bad in ("flop", "exceeds(x)")],
    (partial(Budget, 3, 0.1), "metric is a name or a function of (reference, output), got 3"),
    *[(partial(Budget, "flip", 0.1, output=bad), OUTPUTS.format(bad)) for bad in NAMES_OF_OUTPUTS],
    (partial(transform, Residual(64, 256).eval(), **asked(**FITTED)),
     "site 'stem' (64 -> 64): full=Pruned(energy=1.0) does not fit: Pruned(energy=1.0) leaves out hidden units; a lone Linear"),
    (partial(transform, HEAD, max_sample_deviation=0.2),
     "max_sample_deviation=0.2: it is kept on calibration samples: pass calibration="),
    (partial(transform, HEAD, light=LowRank(8), options=Options(decide=False)),
     "site '1': LowRank(rank=8, basis='weight') saves no multiply-adds"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), CALLS, ids=[m[:30] for _, m in CALLS])
def test_one_line_shows_the_way_on(call: Callable[[], object], message: str) -> None:
    assert said(call).startswith(message)


BY_SITE = "tolerances are set by site, got {0}: pass {{site: value}}, or for all of them dict.fromkeys({1}, {2})"
NUMBER = "the tolerance of 'stem' must be a number of at least 0, got {!r}; 0.05 is five percent"


@pytest.mark.parametrize("way", SETTABLE)
def test_tolerances_that_cannot_be_set_change_none(way: str) -> None:
    module = SETTABLE[way](made("every-site").module)
    before = {n: float(t) for n, t in dendrofx.tolerances(module).items()}
    sets: list[tuple[Any, str]] = [
        *[
            (bad, BY_SITE.format(bad, "dendrofx.tolerances(module)", shown))
            for bad, shown in ((0.1, 0.1), (None, 0.05))
        ],
        *[({bad: 0.1}, f"the module has no site {bad!r}; it has stem, fc1..fc2, head") for bad in ("fc9", 7)],
        *[({"stem": bad}, NUMBER.format(bad)) for bad in (-0.1, math.nan, True, "0.1", None)],
    ]
    for given, message in sets:
        values = {"head": 0.75, **given} if isinstance(given, dict) else given
        assert said(partial(dendrofx.set_tolerances, module, values)) == message
        assert {n: float(t) for n, t in dendrofx.tolerances(module).items()} == before


# ------------------------------------------------------------------------------------------------- at run time


@pytest.mark.parametrize("way", ROUND_TRIPS)
def test_a_routed_module_names_the_site_that_rejects_its_rows(way: str) -> None:
    module = ROUND_TRIPS[way](made("mlp").module)
    kinds = (RuntimeError, torch.jit.Error)  # what TorchScript makes of a RuntimeError
    with pytest.raises(kinds, match=r"site '0\.\.2' takes 64 features: pass \[\.\.\., 64\]"):
        module(rows(4, 63))
    with pytest.raises(kinds, match=r"site '0\.\.2' takes torch.float32: cast the input with \.float\(\)"):
        module(rows(4).double())


# ------------------------------------------------------------------------------------ sites that are refused alone

TWO_SITES = [nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.LayerNorm(64), nn.Linear(64, 1)]


@pytest.mark.parametrize("data", [None, [torch.randn(64, 64) for _ in range(8)]], ids=["no data", "data"])
def test_a_site_that_a_named_form_does_not_fit_is_refused_alone(data: Any) -> None:
    model = nn.Sequential(*TWO_SITES).eval()
    plan = transform(
        model, calibration=data, options=Options(decide=False, tune_seconds=0), budget=0.5, light=LowRank(8)
    ).plan
    assert [(s.name, s.status) for s in plan.sites] == [("0..2", "routed"), ("4", "refused")]
    assert plan.sites[1].reason.startswith(
        "LowRank(rank=8, basis='weight') saves no multiply-adds: 64 of the block's 64"
    )


def test_a_site_without_two_finite_rows_is_refused_in_words() -> None:
    with torch.no_grad():
        model = compressible()
        model[0].weight.fill_(math.inf)
    (site,) = transform(model, calibration=[rows()], options=Options(tune_seconds=0)).plan.sites
    assert (site.status, site.reason) == ("refused", "fewer than two of its calibration rows are finite (%_2)")
