"""`transform(dead_rows=...)` from end to end: live positions keep their outputs."""

from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

import dendrofx
from tests.check import OTHER_GEMM
from tests.padded import assert_lossless, inputs, live, rows_model
from tests.round_trips import reloaded
from tests.rows.models import encoder, padded

# Lengths of samples of nine tokens, and the side of their padding.
PADDINGS: dict[str, tuple[list[int], bool]] = {
    "right": ([9, 4, 1, 7], False),
    "left": ([3, 9, 8, 2], True),
    "all live": ([9, 9, 9], False),
    "one sample": ([5], False),
    "one live row": ([1], True),
}


@cache
def kept(form: Any = "sdpa") -> tuple[nn.Module, Any]:
    """An encoder, and the same on live rows."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = encoder(form, layers=2)
        return model, live(model, padded([8, 3, 5], 8), "attention_mask")


@pytest.mark.parametrize("kind", PADDINGS)
@pytest.mark.parametrize("form", ["sdpa", "eager"])
def test_an_encoder_keeps_its_outputs_at_live_positions(form: Any, kind: str) -> None:
    model, made = kept(form)
    lengths, left = PADDINGS[kind]
    for tokens in (9, 12):
        given = padded(lengths, tokens, left)
        assert_lossless(model, made, given, given["attention_mask"] != 0)


@pytest.mark.parametrize("kind", PADDINGS)
def test_the_example_may_have_padding_of_any_kind(kind: str) -> None:
    lengths, left = PADDINGS[kind]
    model = encoder()
    made = live(model, padded(lengths, 9, left), "attention_mask")
    for side in (False, True):
        given = padded([2, 7, 6], 7, side)
        assert_lossless(model, made, given, given["attention_mask"] != 0)


def test_a_sample_of_dead_rows_alone_is_computed_as_the_original_computes_it() -> None:
    (model, made), given = kept(), padded([6, 0, 3], 6)
    wanted, got = model(**given), made(**given)
    torch.testing.assert_close(got[1], wanted[1], **OTHER_GEMM)
    torch.testing.assert_close(got[2, :3], wanted[2, :3], **OTHER_GEMM)
    assert not got[2, 3:].any()


def test_what_dead_rows_hold_changes_not_a_bit() -> None:
    (_, made), given = kept(), padded([6, 2, 4], 6)
    dead = given["attention_mask"] == 0
    other = {**given, "input_ids": given["input_ids"].masked_fill(dead, 7)}
    assert not torch.equal(given["input_ids"], other["input_ids"])
    assert torch.equal(made(**given), made(**other))


def test_only_live_rows_are_computed() -> None:
    made = live(rows_model(), inputs([9, 4]))
    _, counts = made.forward_counted(**inputs([8, 2, 2, 0], tokens=8))
    rows = counts["dead rows"]
    assert (rows["rows"], rows["live_rows"]) == (32, 8 + 2 + 2 + 8)
    assert rows["executed_macs"] < rows["original_macs"]


def test_scripted_saved_and_loaded_equals_eager() -> None:
    _, made = kept()
    scripted, frozen = reloaded(dendrofx.script(made)), dendrofx.script(made, freeze=True)
    for lengths, left in PADDINGS.values():
        given = padded(lengths, 9, left)
        for other in (scripted, frozen):
            for _ in range(3):  # TorchScript optimises on its second call
                torch.testing.assert_close(other(**given), made(**given), **OTHER_GEMM)
