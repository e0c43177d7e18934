"""`drop_dead_rows` verifies the mask contract: what a dead row holds must reach no output that the caller reads."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dendrofx.errors import InputError
from dendrofx.graph.capture import capture
from dendrofx.graph.show import graph_text
from dendrofx.rewriting.dead_rows import DeadRows, drop_dead_rows
from dendrofx.values.inputs import Inputs
from tests.check import OTHER_GEMM
from tests.rows.models import encoder, padded

Output = Callable[[Tensor, Tensor], Any]


class Reads(nn.Module):
    """A Linear, and an output made of its rows and the mask."""

    def __init__(self, output: Output) -> None:
        super().__init__()
        self.fc, self.output = nn.Linear(8, 8), output

    def forward(self, x: Tensor, mask: Tensor) -> Any:
        return self.output(self.fc(x), (mask != 0)[..., None])


def dropped(output: Output, mask: str = "mask", right: bool = False) -> tuple[nn.Module, nn.Module, DeadRows]:
    """The model, what it became, and the report."""
    model = Reads(output).eval().requires_grad_(False)
    example = Inputs.of(inputs(right))
    gm = capture(model, example, shapes=True)
    before = graph_text(gm)
    new, report = drop_dead_rows(gm, mask, example)
    assert graph_text(gm) == before
    return model, new, report


def inputs(right: bool = False) -> dict[str, Tensor]:
    """Padding on both sides, or on the right alone."""
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0] if right else [0, 0, 1, 1, 1]])
    return {"x": torch.randn(3, 5, 8), "mask": mask}


def mean(x: Tensor, live: Tensor) -> Tensor:
    return (x * live).sum(1) / live.sum(1).clamp_min(1)


KEPT: dict[str, Output] = {
    "rows": lambda x, live: x,
    "rows of another type": lambda x, live: x.argmax(-1),
    "a mean of live rows": mean,
    "a running sum of live rows": lambda x, live: (x * live).cumsum(1),
    "a maximum of live rows": lambda x, live: x.masked_fill(~live, -1e9).amax(1),
    "weights of live rows": lambda x, live: (x[..., :1].masked_fill(~live, -1e9).softmax(1) * x).sum(1),
    "what a mask says, mapped": lambda x, live: torch.where(live, x, -5.0).tanh().transpose(1, 2).sum(2),
    "a penalty that is added": lambda x, live: (x + torch.where(live, 0.0, -1e9)).logsumexp(1),
    "several": lambda x, live: {"hidden": x, "pooled": mean(x, live)},
    "no finite rows": lambda x, live: torch.where(live, x, -torch.inf) + torch.where(x > 0, 0.0, -torch.inf),
}
MOVED = "output '{}' moves by"
BROKEN: dict[str, tuple[str, Output]] = {
    "a mean of all rows": ("output", lambda x, live: x.mean(1)),
    "the last row": ("output", lambda x, live: x[:, -1]),
    "a running sum": ("output", lambda x, live: x.cumsum(1)),
    "one of several": ("pooled", lambda x, live: {"hidden": x, "pooled": x.mean(1)}),
    "the largest of all rows": ("output", lambda x, live: x.amax(1).argmax(-1)),
    "as wide as there are tokens": ("output", lambda x, live: x.mean(1)[:, :5]),
}


@pytest.mark.parametrize("output", KEPT)
def test_contract_is_kept(output: str) -> None:
    model, new, report = dropped(KEPT[output])
    assert report.linears == (1, 1)
    given = inputs()
    wanted, got = model(**given), new(**given)
    live = given["mask"] != 0
    for name, a in wanted.items() if isinstance(wanted, dict) else [("", wanted)]:
        b = got[name] if name else got
        rows = a.shape[:2] == live.shape
        torch.testing.assert_close(b[live] if rows else b, a[live] if rows else a, **OTHER_GEMM)


def test_dead_rows_of_outputs_are_zero_whatever_the_mask_says() -> None:
    _, new, _ = dropped(lambda x, live: (x.masked_fill(~live, 7.0), x.masked_fill(~live, 7.0).amax(1)))
    given = inputs()
    rows, largest = new(**given)
    assert not rows[given["mask"] == 0].any()
    assert (largest[1:] == 7.0).all()  # their samples have dead rows


@pytest.mark.parametrize("output", BROKEN)
def test_contract_is_broken(output: str) -> None:
    name, function = BROKEN[output]
    with pytest.raises(InputError) as caught:
        dropped(function)
    message = str(caught.value)
    assert message.startswith(
        "dead_rows='mask': the mask contract does not hold. When dead rows of the inputs change, output"
    )
    assert MOVED.format(name) in message
    assert message.endswith(
        ". The model lets padding reach its outputs (a pooling over all tokens, say): transform the part before that"
    )


@pytest.mark.parametrize("output", [lambda x, live: x[:, 0], lambda x, live: x.cumsum(1)])
def test_contract_of_one_side(output: Output) -> None:
    """The first row, and sums of those before, are right while padding comes last; a call with other padding is refused."""
    model, new, report = dropped(output, right=True)
    assert report.side == "right"
    given = inputs(right=True)
    wanted, got = model(**given), new(**given)
    live = given["mask"] != 0 if got.dim() == 3 else torch.ones(len(got), dtype=torch.bool)
    torch.testing.assert_close(got[live], wanted[live], **OTHER_GEMM)
    with pytest.raises(RuntimeError, match="the mask has padding that is not on the right"):
        new(**inputs())


def test_the_inverted_mask_is_named_where_it_is_meant() -> None:
    with pytest.raises(InputError, match=r"\. It holds for the inverted mask: pass dead_rows='mask'$"):
        dropped(mean, "~mask")


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ("padding", "dead_rows='padding' is no tensor input of the model: it has x, mask"),
        ("~padding", "dead_rows='padding' is no tensor input of the model: it has x, mask"),
        ("x", "dead_rows: 'x' is shaped (3, 5, 8); a mask of rows is [batch, tokens]"),
    ],
)
def test_what_is_no_mask(mask: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        dropped(mean, mask)
    assert str(caught.value) == message


def test_report() -> None:
    example = Inputs.of(padded([6, 3, 5], 6))
    _, report = drop_dead_rows(capture(encoder("eager"), example, shapes=True), "attention_mask", example)
    assert report.mask == "attention_mask"
    assert report.linears == (4, 4)
    assert report.attentions == (1, 1)
    assert report.crossings == (2, 1)
    assert report.side == "any"
    assert 0 < report.difference < 1e-5
    assert report.describe().startswith(
        "4 of 4 Linears and 1 of 1 attentions run on live rows, 2 values are gathered and 1 scattered; outputs equal to"
    )
    assert report.describe(0.5).endswith("; 50 % of the calibration rows are live")
