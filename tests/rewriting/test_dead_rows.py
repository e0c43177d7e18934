"""`transform(dead_rows=...)` from end to end: models and masks, and that live positions keep their outputs."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dendrofx
from dendrofx.rewriting.dead_rows import drop_dead_rows
from dendrofx.values.inputs import Inputs
from dendrofx.values.numerics import rounding
from tests.check import OTHER_GEMM
from tests.padded import Attends, First, Graph, Placed, assert_lossless, ends, inputs, live, rows_model
from tests.round_trips import reloaded
from tests.rows.models import Form, encoder, padded, symbolic

Given = dict[str, Tensor]

# ---------------------------------------------------------------------------------------------- encoders, any padding

# By kind of padding in the example: the encoder's form and layers, lengths of samples of nine tokens, and padding on the left.
ENCODERS: dict[str, tuple[Form, int, list[int], bool]] = {
    "right": ("sdpa", 2, [9, 4, 1, 7], False),
    "left": ("eager", 2, [3, 9, 8, 2], True),
    "all live": ("sdpa", 1, [9, 9, 9], False),
    "one sample": ("eager", 1, [5], False),
    "one live row": ("sdpa", 1, [1], True),
}


def paddings(tokens: int = 9) -> list[Given]:
    """Inputs with every kind of padding."""
    return [padded(lengths, tokens, left) for _, _, lengths, left in ENCODERS.values()]


@cache
def made(kind: str) -> tuple[nn.Module, Any]:
    """An encoder, and the same on live rows, made with one kind of padding."""
    form, layers, lengths, left = ENCODERS[kind]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = encoder(form, layers)
        return model, live(model, padded(lengths, 9, left), "attention_mask")


@pytest.mark.parametrize("kind", ENCODERS)
def test_an_encoder_keeps_its_outputs_at_live_positions_of_any_padding(kind: str) -> None:
    model, routed = made(kind)
    for given in paddings() + paddings(12):
        assert_lossless(model, routed, given, given["attention_mask"] != 0)


def test_a_sample_of_dead_rows_alone_is_computed_as_the_original_computes_it() -> None:
    (model, routed), given = made("right"), padded([6, 0, 3], 6)
    wanted, got = model(**given), routed(**given)
    torch.testing.assert_close(got[1], wanted[1], **OTHER_GEMM)
    torch.testing.assert_close(got[2, :3], wanted[2, :3], **OTHER_GEMM)
    assert not got[2, 3:].any()


def test_what_dead_rows_hold_changes_not_a_bit() -> None:
    (_, routed), given = made("right"), padded([6, 2, 4], 6)
    other = {**given, "input_ids": given["input_ids"].masked_fill(given["attention_mask"] == 0, 7)}
    assert not torch.equal(given["input_ids"], other["input_ids"])
    assert torch.equal(routed(**given), routed(**other))


def test_scripted_saved_and_loaded_equals_eager() -> None:
    _, routed = made("right")
    scripted, frozen = reloaded(dendrofx.script(routed)), dendrofx.script(routed, freeze=True)
    for given in paddings():
        for other in (scripted, frozen):
            for _ in range(3):  # TorchScript optimises on its second call
                torch.testing.assert_close(other(**given), routed(**given), **OTHER_GEMM)


# ------------------------------------------------------------------------------------------ masks of every type and form

VALUES: dict[str, Callable[[Tensor], Tensor]] = {
    "bool": lambda alive: alive,
    "uint8": lambda alive: alive.to(torch.uint8),
    "int32": lambda alive: -alive.int(),
    "int64": lambda alive: 3 * alive.long(),
    "float32": lambda alive: alive.float(),
    "float64": lambda alive: alive.double(),
    "bfloat16": lambda alive: alive.to(torch.bfloat16),
    "bytes of 255": lambda alive: alive.to(torch.uint8) * 255,
    "segments": lambda alive: alive * (1 + torch.arange(alive.size(1)) // 4),
    "minus infinity": lambda alive: torch.where(alive, -torch.inf, 0.0),
    "transposed": lambda alive: alive.long().t().contiguous().t(),
    "every second": lambda alive: alive.long().repeat_interleave(2, 1)[:, ::2],
}
INVERTED = ["bool", "int32", "int64", "float32", "minus infinity", "every second"]
TWICE = ("int64", "minus infinity", "every second")  # inverted too, which is slow
MASKS = [
    *((v, False) for v in VALUES if v not in ("int32", "float32")),
    *(pytest.param(v, True, marks=pytest.mark.slow if v in TWICE else ()) for v in INVERTED),
]
WHOLE = [("bool", True), ("int64", False), ("float32", True), ("transposed", False)]  # by transform itself


def masked(alive: Tensor, values: str, inverted: bool) -> Given:
    return {"x": torch.randn(*alive.shape, 64), "mask": VALUES[values](~alive if inverted else alive)}


@pytest.mark.parametrize(("values", "inverted"), MASKS)
def test_masks_of_any_values(values: str, inverted: bool) -> None:
    """For a model that ignores padding anywhere, with holes in the mask of a call."""
    model, name, example = rows_model(), "~mask" if inverted else "mask", masked(ends([9, 4, 7]), values, inverted)
    new, report = drop_dead_rows(symbolic(model, example), name, Inputs.of(example))
    assert report.side == "any"
    holes = torch.rand(5, 9) < 0.5
    holes[:, 4] = True
    for alive in (ends([2, 9, 5, 1]), holes):
        assert_lossless(model, new, masked(alive, values, inverted), alive)


@pytest.mark.parametrize(("values", "inverted"), MASKS)
def test_what_holds_for_one_side_is_found_with_masks_of_any_values(values: str, inverted: bool) -> None:
    model, name = First().eval().requires_grad_(False), "~mask" if inverted else "mask"
    example = masked(ends([9, 4, 7]), values, inverted)
    new, report = drop_dead_rows(symbolic(model, example), name, Inputs.of(example))
    said = report.describe()
    if (values, inverted) in WHOLE:
        new = live(model, example, name)
        said = new.plan.dead_rows.reason
    assert "; for padding on the right only: calls with another mask raise" in said
    alive = ends([2, 9, 5, 1])
    given = masked(alive, values, inverted)
    (wanted, first), (got, pooled) = model(**given), new(**given)
    torch.testing.assert_close(got[alive], wanted[alive], **OTHER_GEMM)
    torch.testing.assert_close(pooled, first, **OTHER_GEMM)
    for other in (alive.flip(1), alive.index_fill(1, torch.tensor([1]), False)):
        with pytest.raises(RuntimeError, match="the mask has padding that is not on the right"):
            new(**masked(other, values, inverted))


def test_masks_that_are_expanded() -> None:
    """In the example and in a call; other views are among `VALUES`."""
    model, mask = rows_model(), ends([6]).long().expand(4, 9)
    assert not mask.is_contiguous()
    given = {**inputs([9] * 4), "mask": mask}
    for example in (given, inputs([9, 4, 7, 1])):
        assert_lossless(model, live(model, example), given, mask != 0)


# --------------------------------------------------------------------------------------------------- models and types


def joined(lengths: list[int]) -> Given:
    return {**inputs(lengths), "adjacency": torch.rand(len(lengths), 9, 9)}


@pytest.mark.parametrize(
    ("kind", "given", "side"),
    [(Placed, inputs, "for padding on the right only"), (Graph, joined, "")],
    ids=["fails on padding of the other side", "an adjacency beside the mask"],
)
def test_models(kind: type[nn.Module], given: Callable[[list[int]], Given], side: str) -> None:
    model, example = kind().eval().requires_grad_(False), given([9, 4, 7])
    routed = live(model, example)
    assert side in routed.plan.dead_rows.reason
    for call in (example, given([2, 9, 5, 1])):
        assert_lossless(model, routed, call, call["mask"] != 0)


def test_positional_inputs_and_counts() -> None:
    model, given = rows_model(), inputs([9, 4, 7])
    routed = live(model, tuple(given.values()))
    assert torch.equal(routed(*given.values()), routed(**given))
    assert_lossless(model, routed, given, given["mask"] != 0)
    _, counts = routed.forward_counted(**inputs([8, 2, 2, 0], tokens=8))
    rows = counts["dead rows"]
    assert (rows["rows"], rows["live_rows"]) == (32, 8 + 2 + 2 + 8)
    assert rows["executed_macs"] < rows["original_macs"]


def bert(attention: str) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    config = transformers.BertConfig(**sizes, vocab_size=50, attn_implementation=attention)
    return transformers.BertModel(config, add_pooling_layer=False)  # type: ignore[no-any-return]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "dtype"),
    [("plain", torch.float64), ("plain", torch.bfloat16), ("eager", torch.bfloat16), ("sdpa", torch.float64)],
)
def test_models_of_other_types(kind: str, dtype: torch.dtype) -> None:
    """In the model's own type; attention spelled out, or as one op."""
    model = (Attends() if kind == "plain" else bert(kind)).eval().requires_grad_(False).to(dtype)

    def given(lengths: list[int]) -> Given:
        alive, size = ends(lengths, 12), (len(lengths), 12)
        x = {"x": torch.randn(*size, 32).to(dtype)} if kind == "plain" else {"input_ids": torch.randint(1, 50, size)}
        return {**x, "attention_mask": alive.long()}

    routed = live(model, given([12, 3, 10, 4]), "attention_mask")
    assert "1 of 1 attentions run on live rows" in routed.plan.dead_rows.reason
    for lengths in ([12, 3, 10, 4], [1, 5, 0, 12], [7]):
        call = given(lengths)
        wanted, got = model(**call), routed(**call)
        if kind != "plain":
            wanted, got = wanted.last_hidden_state, got.last_hidden_state
        alive = ends(lengths, 12) | (torch.tensor(lengths) == 0)[:, None]
        assert got.dtype == dtype
        far = (got[alive].double() - wanted[alive].double()).abs().max() / wanted.double().abs().max()
        assert float(far) <= rounding(dtype)


def test_a_sample_without_live_rows_is_nan_where_it_was() -> None:
    model, alive = Attends(fills=True).eval().requires_grad_(False), ends([12, 0, 5], 12)
    example, given = (
        {"x": torch.randn(3, 12, 32), "attention_mask": mask.float()} for mask in (ends([12, 4, 5], 12), alive)
    )
    routed = live(model, example, "attention_mask")
    wanted, got = model(**given), routed(**given)
    assert wanted[1].isnan().all()
    assert got[1].isnan().all()
    torch.testing.assert_close(got[alive], wanted[alive], **OTHER_GEMM)
