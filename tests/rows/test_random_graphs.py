"""Random graphs: on live rows a rewritten one equals its original, or the contract is refused by the output's name."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dendrofx.errors import InputError
from dendrofx.graph.capture import capture
from dendrofx.rewriting.dead_rows import drop_dead_rows
from dendrofx.rows.analysis import RowAnalysis
from dendrofx.rows.mask_check import ROUNDING
from dendrofx.values.inputs import Inputs

WIDTH = 8
# Left and right padding, a hole, and no padding at all: whatever reads dead rows, one of them shows it.
MASK = torch.tensor([[1, 1, 1, 0, 0], [0, 0, 1, 1, 1], [1, 0, 1, 0, 1], [1, 1, 1, 1, 1]])
Step = Callable[["Steps", Tensor, Tensor], Tensor]


def attention(m: "Steps", x: Tensor, live: Tensor) -> Tensor:
    """Two heads, with the mask of the keys."""
    q, k, v = (f(x).unflatten(-1, (2, -1)).transpose(1, 2) for f in (m.query, m.key, m.value))
    y = F.scaled_dot_product_attention(q, k, v, torch.where(live.transpose(1, 2)[:, None], 0.0, -1e30))
    return x + y.transpose(1, 2).flatten(2)


def spelled_out(m: "Steps", x: Tensor, live: Tensor) -> Tensor:
    scores = (x @ x.transpose(1, 2) / 3).masked_fill(~live.transpose(1, 2), -1e30)
    return x + scores.softmax(-1) @ m.value(x)


def mean(m: "Steps", x: Tensor, live: Tensor) -> Tensor:
    return x + (x * live).sum(1, keepdim=True) / live.sum(1, keepdim=True).clamp_min(1)


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
    "mean": mean,
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


class Steps(nn.Module):
    """Applies steps by name, with one set of layers."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.names = names
        self.linear, self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        live = (mask != 0)[..., None]
        for name in self.names:
            x = STEPS[name](self, x, live)
        return x


def captured(names: list[str]) -> tuple[nn.Module, Inputs]:
    torch.manual_seed(0)
    example = Inputs.of({"x": torch.randn(*MASK.shape, WIDTH), "mask": MASK})
    model = Steps(names).eval().requires_grad_(False)
    return capture(model, example, shapes=True), example


def far(got: Tensor, wanted: Tensor, rows: Tensor) -> float:
    return float((got - wanted)[rows].abs().max() / wanted[rows].abs().max().clamp_min(1e-30))


kept = st.lists(st.sampled_from(sorted({**ROW_WISE, **MASKED})), min_size=2, max_size=5)
# Shrinking a failure would export hundreds of graphs.
quick = settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)


@quick
@given(kept, st.integers(1, 4), st.integers(1, 7))
def test_equal_on_live_rows(names: list[str], batch: int, tokens: int) -> None:
    gm, example = captured(names)
    new, report = drop_dead_rows(gm, "mask", example)
    mask = torch.rand(batch, tokens) < 0.6
    x = torch.randn(batch, tokens, WIDTH)
    live = mask | ~mask.any(1, keepdim=True)
    assert far(new(x=x, mask=mask.long()), gm(x=x, mask=mask.long()), live) <= ROUNDING, (names, str(report))


@settings(quick, max_examples=8)
@given(kept, st.sampled_from(sorted(UNMASKED)), st.integers(0, 2))
def test_refused_where_padding_reaches_the_output(names: list[str], broken: str, place: int) -> None:
    gm, example = captured([*names[:place], "linear", broken, *[n for n in names[place:] if n in ("norm", "residual")]])
    with pytest.raises(InputError, match=r"^dead_rows='mask': .*output 'output' (moves by|is .* away)"):
        drop_dead_rows(gm, "mask", example)


@settings(quick, max_examples=6)
@given(st.lists(st.sampled_from(sorted(STEPS)), min_size=3, max_size=6))
def test_verdicts_withstand_the_experiment(names: list[str]) -> None:
    gm, example = captured(names)
    RowAnalysis(gm, "mask").check(example)
