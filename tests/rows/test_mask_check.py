"""`drop_dead_rows` on random graphs: equal to the original on live rows, or the mask contract is refused by the output's name."""

from collections.abc import Callable
from itertools import combinations
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from dendrofx.errors import InputError
from dendrofx.graph.show import graph_text
from dendrofx.rewriting.dead_rows import DeadRows, drop_dead_rows
from dendrofx.rows.analysis import RowAnalysis
from dendrofx.rows.difference import ROUNDING
from dendrofx.rows.mask_check import MaskCheck, differences
from dendrofx.values.inputs import Inputs
from dendrofx.values.masks import PATTERNS
from tests.rows.models import WIDTH, OfRows, encoder, padded, symbolic

# Left and right padding, a hole, and no padding at all: whatever reads dead rows, one of them shows it.
MASK = torch.tensor([[1, 1, 1, 0, 0], [0, 0, 1, 1, 1], [1, 0, 1, 0, 1], [1, 1, 1, 1, 1]])
RIGHT = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]])
Step = Callable[[OfRows, Tensor, Tensor], Tensor]
Output = Callable[[Tensor, Tensor], Tensor]


def attention(m: OfRows, x: Tensor, live: Tensor) -> Tensor:
    """Two heads, with the mask of the keys."""
    q, k, v = (f(x).unflatten(-1, (2, -1)).transpose(1, 2) for f in (m.query, m.key, m.value))
    y = F.scaled_dot_product_attention(q, k, v, torch.where(live.transpose(1, 2)[:, None], 0.0, -1e30))
    return x + y.transpose(1, 2).flatten(2)


def spelled_out(m: OfRows, x: Tensor, live: Tensor) -> Tensor:
    scores = (x @ x.transpose(1, 2) / 3).masked_fill(~live.transpose(1, 2), -1e30)
    return x + scores.softmax(-1) @ m.value(x)


def mean(x: Tensor, live: Tensor) -> Tensor:
    return (x * live).sum(1) / live.sum(1).clamp_min(1)


ROW_WISE: dict[str, Step] = {
    "linear": lambda m, x, live: m.linear(x),
    "two linears": lambda m, x, live: m.query(x).tanh() * m.key(x),
    "norm": lambda m, x, live: m.norm(x),
    "gelu": lambda m, x, live: F.gelu(x),
    "softmax": lambda m, x, live: x.softmax(-1),
    "residual": lambda m, x, live: x + m.linear(m.norm(x)),
    "heads": lambda m, x, live: x.view(x.size(0), x.size(1), 2, -1).flip(2).reshape(x.size(0), -1, WIDTH),
    "position": lambda m, x, live: x + torch.arange(x.size(1))[:, None] / 8,
}
MASKED: dict[str, Step] = {
    "attention": attention,
    "spelled-out attention": spelled_out,
    "mean": lambda m, x, live: x + mean(x, live)[:, None],
    "cumsum": lambda m, x, live: (x * live).cumsum(1) / 4,
    "roll": lambda m, x, live: (x * live).roll(1, 1),
    "max": lambda m, x, live: x + x.masked_fill(~live, -4.0).amax(1, keepdim=True),
    "weights": lambda m, x, live: x + (m.key(x).masked_fill(~live, -50.0).softmax(1) * x).sum(1, keepdim=True),
}
UNMASKED: dict[str, Step] = {
    "mean of all": lambda m, x, live: x + x.mean(1, keepdim=True),
    "cumsum of all": lambda m, x, live: x + x.cumsum(1) / 4,
    "roll of all": lambda m, x, live: x + x.roll(1, 1),
    "softmax of tokens": lambda m, x, live: x + x.softmax(1),
    "attention to all": lambda m, x, live: attention(m, x, torch.ones_like(live)),
}
STEPS = {**ROW_WISE, **MASKED, **UNMASKED}
KEPT: dict[str, Output] = {
    "rows": lambda x, live: x,
    "rows of another type": lambda x, live: x.argmax(-1),
    "a mean of live rows": mean,
    "a running sum of live rows": lambda x, live: (x * live).cumsum(1),
    "a maximum of live rows": lambda x, live: x.masked_fill(~live, -1e9).amax(1),
    "weights of live rows": lambda x, live: (x[..., :1].masked_fill(~live, -1e9).softmax(1) * x).sum(1),
    "what a mask says, mapped": lambda x, live: torch.where(live, x, -5.0).tanh().transpose(1, 2).sum(2),
    "a penalty that is added": lambda x, live: (x + torch.where(live, 0.0, -1e9)).logsumexp(1),
    "no finite rows": lambda x, live: torch.where(live, x, -torch.inf) + torch.where(x > 0, 0.0, -torch.inf),
}
BROKEN: dict[str, Output] = {
    "a mean of all rows": lambda x, live: x.mean(1),
    "the last row": lambda x, live: x[:, -1],
    "a running sum": lambda x, live: x.cumsum(1),
    "the largest of all rows": lambda x, live: x.amax(1).argmax(-1),
    "as wide as there are tokens": lambda x, live: x.mean(1)[:, :5],
}
FIRST_ROW: dict[str, Output] = {"the first row": lambda x, live: x[:, 0], "a running sum": BROKEN["a running sum"]}


def key(output: str) -> str:
    return output.replace(" ", "_").replace(",", "")


def of(steps: list[str], outputs: dict[str, Output]) -> nn.Module:
    """A Linear, steps by name, with one set of layers, and outputs of their result."""

    def function(m: OfRows, x: Tensor, mask: Tensor) -> Any:
        live = (mask != 0)[..., None]
        for name in steps:
            x = STEPS[name](m, x, live)
        return {key(name): output(x, live) for name, output in outputs.items()}

    return OfRows(function, "linear", "query", "key", "value", norm=nn.LayerNorm(WIDTH))


def rows(mask: Tensor = MASK) -> dict[str, Tensor]:
    return {"x": torch.randn(*mask.shape, WIDTH), "mask": mask.long()}


def captured(steps: list[str], outputs: dict[str, Output], mask: Tensor = MASK) -> tuple[fx.GraphModule, Inputs]:
    torch.manual_seed(0)
    example = rows(mask)
    return symbolic(of(steps, outputs), example), Inputs.of(example)


def dropped(steps: list[str], outputs: dict[str, Output], name: str = "mask", mask: Tensor = MASK) -> Any:
    """The graph, that on live rows, and the report."""
    gm, example = captured(steps, outputs, mask)
    before = graph_text(gm)
    new, report = drop_dead_rows(gm, name, example)
    assert graph_text(gm) == before
    return gm, new, report


# ------------------------------------------------------------------------------------------------------- random graphs

kept = st.lists(st.sampled_from(sorted({**ROW_WISE, **MASKED})), max_size=5)
# Shrinking a failure would export hundreds of graphs.
quick = settings(
    max_examples=9,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)


@pytest.mark.slow
@quick
@given(kept, st.integers(1, 4), st.integers(1, 7))
def test_equal_on_live_rows(steps: list[str], batch: int, tokens: int) -> None:
    gm, new, report = dropped(["linear", *steps], KEPT)
    assert report.linears[0] == report.linears[1] > 0
    for mask in (torch.rand(batch, tokens) < 0.6, torch.rand(2 * batch, tokens + 1) < 0.3):
        call, live = rows(mask), mask | ~mask.any(1, keepdim=True)
        far = differences(gm(**call), new(**call), live)
        assert all(value <= ROUNDING for value in far.values()), (steps, str(report), far)


@settings(quick, max_examples=6)
@given(kept, st.sampled_from(sorted(UNMASKED)), st.integers(0, 2))
def test_refused_where_padding_reaches_the_output(names: list[str], broken: str, place: int) -> None:
    steps = [*names[:place], "linear", broken, *[n for n in names[place:] if n in ("norm", "residual")]]
    with pytest.raises(InputError, match=r"^dead_rows='mask': .*output 'rows' (moves by|is .* away)"):
        dropped(steps, {"rows": KEPT["rows"]})


@settings(quick, max_examples=5)
@given(st.lists(st.sampled_from(sorted(STEPS)), min_size=3, max_size=6))
def test_verdicts_withstand_the_experiment(names: list[str]) -> None:
    gm, example = captured(names, {"rows": KEPT["rows"]})
    RowAnalysis(gm, "mask").check(example)


# --------------------------------------------------------------------------------------------------------- the contract


def test_dead_rows_of_outputs_are_zero_whatever_the_mask_says() -> None:
    filled: Output = lambda x, live: x.masked_fill(~live, 7.0)  # noqa: E731
    _, new, _ = dropped(["linear"], {"rows": filled, "largest": lambda x, live: filled(x, live).amax(1)})
    call = rows()
    got = new(**call)
    assert not got["rows"][call["mask"] == 0].any()
    assert (got["largest"][:3] == 7.0).all()  # their samples have dead rows


@pytest.mark.parametrize("output", BROKEN)
def test_what_moves_is_named_among_several_outputs(output: str) -> None:
    with pytest.raises(InputError) as caught:
        dropped(["linear"], {"rows": KEPT["rows"], output: BROKEN[output]})
    says = "dead_rows='mask': the mask contract does not hold. When dead rows of the inputs change, output"
    step = ". The model lets padding reach its outputs (a pooling over all tokens, say): transform the part before that"
    assert str(caught.value).startswith(f"{says} '{key(output)}' moves by")
    assert str(caught.value).endswith(step)


@pytest.mark.parametrize("row", [10, 20])
def test_in_long_samples_a_row_from_anywhere_is_found(row: int) -> None:
    """Although most patterns are written into a few tokens, and the example has no padding."""
    with pytest.raises(InputError, match="output 'output' moves by"):
        dropped(["linear"], {"output": lambda x, live: x[:, row]}, mask=torch.ones(4, 30))


def test_every_pattern_is_run_once_and_in_few_tokens() -> None:
    gm, example = captured(["linear"], {"rows": KEPT["rows"]}, torch.ones(4, 30))
    found = MaskCheck("mask", example, gm, RowAnalysis(gm, "mask").inputs()).trials
    masks = [dict(t.inputs.kwargs)["mask"] for t in found]
    assert found[0].what == ""
    assert not any(torch.equal(a, b) for a, b in combinations(masks, 2))
    assert {t.what for t in found} >= set(PATTERNS) - {"every mask full"}
    assert [tuple(m.shape) for t, m in zip(found, masks, strict=True) if t.what in PATTERNS] == [
        (4, 30),
        *[(4, 13)] * 4,
    ]


@pytest.mark.parametrize("output", FIRST_ROW)
def test_contract_of_one_side(output: str) -> None:
    """The first row, and sums of those before, are right while padding comes last; a call with other padding is refused."""
    gm, new, report = dropped(["linear"], {"output": FIRST_ROW[output]}, mask=RIGHT)
    assert report.side == "right"
    call = rows(RIGHT)
    far = differences(gm(**call), new(**call), RIGHT != 0)
    assert far["output"] <= ROUNDING
    with pytest.raises(RuntimeError, match="the mask has padding that is not on the right"):
        new(**rows())


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ("~mask", r"\. It holds for the inverted mask: pass dead_rows='mask'$"),
        ("padding", r"^dead_rows='padding' is no tensor input of the model: it has x, mask$"),
        ("~padding", r"^dead_rows='padding' is no tensor input of the model: it has x, mask$"),
        ("x", r"^dead_rows: 'x' is shaped \(4, 5, 8\); a mask of rows is \[batch, tokens\]$"),
    ],
)
def test_what_is_no_mask(mask: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        dropped(["linear"], {"mean": mean}, mask)


def test_report() -> None:
    example = padded([6, 3, 5], 6)
    _, report = drop_dead_rows(symbolic(encoder("eager"), example), "attention_mask", Inputs.of(example))
    assert report == DeadRows("attention_mask", (4, 4), (1, 1), (2, 1), "any", report.difference)
    assert 0 < report.difference < 1e-5
    assert report.describe().startswith(
        "4 of 4 Linears and 1 of 1 attentions run on live rows, 2 values are gathered and 1 scattered; outputs equal to"
    )
    assert report.describe(0.5).endswith("; 50 % of the calibration rows are live")
