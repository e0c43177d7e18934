"""Masks of dead rows that `transform` takes, and those it refuses."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dendrofx
from dendrofx.errors import InputError
from tests.check import OTHER_GEMM
from tests.padded import EXACT, Rows, assert_lossless, ends, inputs, live, rows_model

MASKS: dict[str, Callable[[Tensor], Tensor]] = {
    "bool": lambda alive: alive,
    "uint8": lambda alive: alive.to(torch.uint8),
    "int32": lambda alive: -alive.int(),
    "int64": lambda alive: 3 * alive.long(),
    "float32": lambda alive: alive.float(),
    "float64": lambda alive: alive.double(),
}


@pytest.mark.parametrize(
    ("kind", "inverted"),
    [(kind, kind not in ("uint8", "float64")) for kind in MASKS] + [("bool", False), ("int64", False)],
)
def test_masks_of_every_type(kind: str, inverted: bool) -> None:
    model = rows_model()

    def masked(lengths: list[int]) -> dict[str, Tensor]:
        alive = ends(lengths)
        return {**inputs(lengths), "mask": MASKS[kind](~alive if inverted else alive)}

    made = live(model, masked([9, 4, 7]), "~mask" if inverted else "mask")
    assert_lossless(model, made, masked([2, 9, 5, 1]), ends([2, 9, 5, 1]))


@pytest.mark.parametrize("as_example", [False, True], ids=["in a call", "in the example"])
def test_masks_that_are_not_contiguous(as_example: bool) -> None:
    model, alive = rows_model(), ends([9, 4, 7, 1])
    views = {
        "transposed": alive.long().t().contiguous().t(),
        "every second": alive.long().repeat_interleave(2, 1)[:, ::2],
        "expanded": ends([6]).long().expand(4, 9),
    }
    plain = live(model, inputs([9, 4, 7, 1]))
    for mask in views.values():
        assert not mask.is_contiguous()
        given = {**inputs([9] * 4), "mask": mask}
        made = live(model, given) if as_example else plain
        assert_lossless(model, made, given, mask != 0)


def test_positional_inputs_are_found_by_name() -> None:
    model, given = rows_model(), inputs([9, 4, 7])
    made = live(model, tuple(given.values()))
    assert torch.equal(made(*given.values()), made(**given))
    assert_lossless(model, made, given, given["mask"] != 0)


def test_holes_between_live_rows() -> None:
    model, alive = rows_model(), torch.rand(5, 9) < 0.5
    alive[:, 4] = True
    given = {**inputs([9] * 5), "mask": alive.long()}
    assert_lossless(model, live(model, inputs([9, 4])), given, alive)


class First(Rows):
    """What a pooler reads: its rows, and the first of them."""

    def forward(self, x: Tensor, mask: Tensor) -> Any:
        rows = super().forward(x, mask)
        return rows, rows[:, 0]


VALUES: dict[str, Callable[[Tensor], Tensor]] = {
    **MASKS,
    "bytes of 255": lambda alive: alive.to(torch.uint8) * 255,
    "twos": lambda alive: 2 * alive.long(),
    "bfloat16": lambda alive: alive.to(torch.bfloat16),
    "segments": lambda alive: alive * (1 + torch.arange(alive.size(1)) // 4),
    "minus infinity": lambda alive: torch.where(alive, -torch.inf, 0.0),
}


@pytest.mark.parametrize(("values", "inverted"), [(v, v in ("minus infinity", "int32")) for v in VALUES])
def test_what_holds_for_one_side_is_found_with_masks_of_any_values(values: str, inverted: bool) -> None:
    model, name = First().eval().requires_grad_(False), "~mask" if inverted else "mask"

    def masked(alive: Tensor) -> dict[str, Tensor]:
        return {"x": torch.randn(*alive.shape, 64), "mask": VALUES[values](~alive if inverted else alive)}

    made = live(model, masked(ends([9, 4, 7])), name)
    assert "; for padding on the right only: calls with another mask raise" in made.plan.dead_rows.reason
    alive = ends([2, 9, 5, 1])
    given = masked(alive)
    (wanted, first), (got, pooled) = model(**given), made(**given)
    torch.testing.assert_close(got[alive], wanted[alive], **OTHER_GEMM)
    torch.testing.assert_close(pooled, first, **OTHER_GEMM)
    for other in (alive.flip(1), alive.index_fill(1, torch.tensor([1]), False)):
        with pytest.raises(RuntimeError, match="the mask has padding that is not on the right"):
            made(**masked(other))


class Placed(Rows):
    """Positions count live rows: before the first there is none, and the table is read at -1."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Embedding(9, 64)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return super().forward(x + self.places(mask.long().cumsum(1) - 1), mask)


def test_a_model_that_fails_on_padding_of_the_other_side_is_taken_for_its_own() -> None:
    model, given = Placed().eval().requires_grad_(False), inputs([9, 4, 7])
    made = live(model, given)
    assert "for padding on the right only" in made.plan.dead_rows.reason
    assert_lossless(model, made, given, given["mask"] != 0)


def test_padding_on_the_side_for_which_it_does_not_hold_is_named() -> None:
    with pytest.raises(InputError, match=r"it holds for padding on the right alone\. The model lets padding reach"):
        dendrofx.transform(First().eval(), inputs([9, 4], left=True), dead_rows="mask", **EXACT)


def test_calibration_with_padding_elsewhere_is_refused() -> None:
    data = [inputs([9, 4, 7, 3], left=i > 6) for i in range(8)]
    why = r"^dead_rows='mask': the model ignores padding on the right alone, and calibration holds samples with padding els"
    with pytest.raises(InputError, match=why):
        dendrofx.transform(First().eval(), calibration=data, dead_rows="mask", max_deviation=0, tune_seconds=0)


def test_how_padding_is_marked_is_a_guess_where_there_is_none() -> None:
    with pytest.raises(
        InputError, match=r"The example has no padding, so how it is marked is a guess: pass inputs with"
    ):
        dendrofx.transform(Summed().eval(), inputs([9, 9]), dead_rows="mask", **EXACT)


class Graph(Rows):
    """Rows are joined by an adjacency, [batch, tokens, tokens]."""

    def forward(self, x: Tensor, adjacency: Tensor, mask: Tensor) -> Tensor:
        live = (mask != 0).float()
        return super().forward(torch.bmm(adjacency * live[:, None], x + self.mlp(x)), mask) * live[..., None]


def test_an_adjacency_beside_the_mask() -> None:
    model = Graph().eval().requires_grad_(False)

    def joined(lengths: list[int]) -> dict[str, Tensor]:
        return {**inputs(lengths), "adjacency": torch.rand(len(lengths), 9, 9)}

    made = live(model, joined([9, 4, 7]))
    given = joined([2, 9, 5, 1])
    assert_lossless(model, made, given, given["mask"] != 0)


# --------------------------------------------------------------------------------------------------------- refusals


class Square(Rows):
    """A mask of rows that see one another."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return super().forward(x + mask @ x, mask)


@pytest.mark.parametrize("samples", [9, 4])
def test_a_mask_of_tokens_and_tokens_is_refused(samples: int) -> None:
    given = {"x": torch.randn(samples, 9, 64), "mask": torch.ones(9, 9).tril()}
    with pytest.raises(InputError, match=r"^dead_rows: .*\[9, 9\].*: a mask of rows is \[batch, tokens\]"):
        dendrofx.transform(Square().eval(), given, dead_rows="mask", **EXACT)


@pytest.mark.parametrize(("mask", "why"), [
    ("padding", r"^dead_rows='padding' is no tensor input of the model: it has x, mask$"),
    ("~padding", r"^dead_rows='padding' is no tensor input of the model: it has x, mask$"),
    ("x", r"^dead_rows: 'x' is shaped \(2, 9, 64\); a mask of rows is \[batch, tokens\]$"),
    ("", r"^dead_rows names the mask input, such as 'attention_mask', or .*, got ''$"),
    ("~~mask", r"^dead_rows names the mask input, such as 'attention_mask', or .*, got '~~mask'$"),
    (3, r"^dead_rows names the mask input, such as 'attention_mask', or .*, got 3$"),
])  # fmt: skip
def test_what_is_no_mask_of_the_model_is_refused(mask: Any, why: str) -> None:
    with pytest.raises(InputError, match=why):
        dendrofx.transform(rows_model(), inputs([9, 4]), dead_rows=mask, **EXACT)


@pytest.mark.parametrize(("index", "shape"), [((0,), r"\(9,\)"), ((..., None), r"\(2, 9, 1\)")])
def test_a_mask_of_another_rank_is_refused(index: Any, shape: str) -> None:
    given = inputs([9, 4])
    with pytest.raises(
        InputError, match=rf"^dead_rows: 'mask' is shaped {shape}; a mask of rows is \[batch, tokens\]$"
    ):
        dendrofx.transform(rows_model(), {**given, "mask": given["mask"][index]}, dead_rows="mask", **EXACT)


def test_it_takes_inputs_to_verify_the_mask_on() -> None:
    with pytest.raises(
        InputError, match=r"^dead_rows='mask' is verified on inputs: pass example_inputs= or calibration=$"
    ):
        dendrofx.transform(rows_model(), dead_rows="mask", **EXACT)


@pytest.mark.parametrize("scripted", [False, True], ids=["eager", "scripted"])
def test_a_call_with_a_mask_of_another_shape_raises(scripted: bool) -> None:
    made = live(rows_model(), inputs([9, 4]))
    called: Any = dendrofx.script(made) if scripted else made
    given = inputs([9, 4])
    for mask in (given["mask"][:, :5], given["mask"][:1], given["mask"].repeat(2, 1)):
        with pytest.raises(Exception, match=r"the mask of dead rows is shaped .*, which does not fit a value of"):
            called(given["x"], mask)
    with pytest.raises(Exception, match=r"the mask of dead rows is shaped .*, it takes \[batch, tokens\]"):
        called(given["x"], given["mask"][0])


class Summed(Rows):
    """Its output reads all rows."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return super().forward(x, mask).sum(1)


def test_a_model_whose_outputs_read_dead_rows_is_refused_before_anything_is_timed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    timed: list[Any] = []
    monkeypatch.setattr("dendrofx.search.stopwatch.race", lambda *args, **kwargs: timed.append(args))
    with pytest.raises(
        InputError, match=r"^dead_rows='mask': the mask contract does not hold\. .*output 'output' moves by"
    ):
        dendrofx.transform(Summed().eval(), inputs([9, 4]), dead_rows="mask", max_deviation=0)
    assert timed == []
