"""Masks and models that `transform(dead_rows=...)` refuses, and calls that what it made refuses."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import dendrofx
from dendrofx.errors import InputError
from tests.padded import First, Rows, inputs, live, rows_model

SHORT = [9, 4]


class Square(Rows):
    """A mask of rows that see one another."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return super().forward(x + mask @ x, mask)


class Summed(Rows):
    """Its output reads all rows."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return super().forward(x, mask).sum(1)


def square(samples: int) -> dict[str, Tensor]:
    return {"x": torch.randn(samples, 9, 64), "mask": torch.ones(9, 9).tril()}


def indexed(*index: Any) -> dict[str, Tensor]:
    given = inputs(SHORT)
    return {**given, "mask": given["mask"][index]}


NO_INPUT = r"^dead_rows='padding' is no tensor input of the model: it has x, mask$"
NO_NAME = r"^dead_rows names the mask input, such as 'attention_mask', or .*, got "
NO_MASK = r"; a mask of rows is \[batch, tokens\]$"
SQUARE = r"^dead_rows: .*\[9, 9\].*: a mask of rows is \[batch, tokens\]"
# Model, its inputs or none, the mask as it is named, and what the refusal says.
REFUSED: list[tuple[Callable[[], Rows], Callable[[], Any] | None, Any, str]] = [
    (Rows, None, "padding", NO_INPUT),
    (Rows, None, "~padding", NO_INPUT),
    (Rows, None, "x", rf"^dead_rows: 'x' is shaped \(2, 9, 64\){NO_MASK}"),
    (Rows, None, "", NO_NAME + "''$"),
    (Rows, None, "~~mask", NO_NAME + "'~~mask'$"),
    (Rows, None, 3, NO_NAME + "3$"),
    (Rows, lambda: indexed(0), "mask", rf"^dead_rows: 'mask' is shaped \(9,\){NO_MASK}"),
    (Rows, lambda: indexed(..., None), "mask", rf"^dead_rows: 'mask' is shaped \(2, 9, 1\){NO_MASK}"),
    (Rows, lambda: None, "mask", r"^dead_rows='mask' is verified on inputs: pass example_inputs= or calibration=$"),
    (Square, lambda: square(9), "mask", SQUARE),
    (Square, lambda: square(4), "mask", SQUARE),
    (Summed, None, "mask", r"^dead_rows='mask': the mask contract does not hold\. .*output 'output' moves by"),
    (Summed, lambda: inputs([9, 9]), "mask", r"The example has no padding, so how it is marked is a guess: pass inputs with"),
    (First, lambda: inputs(SHORT, left=True), "mask", r"it holds for padding on the right alone\. The model lets padding reach"),
]  # fmt: skip


@pytest.mark.parametrize(("model", "given", "mask", "why"), REFUSED)
def test_refused_before_anything_is_timed(
    model: Callable[[], Rows],
    given: Callable[[], Any] | None,
    mask: Any,
    why: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    timed: list[Any] = []
    monkeypatch.setattr("dendrofx.search.profiler.race", lambda *args, **kwargs: timed.append(args))
    example = inputs(SHORT) if given is None else given()
    with pytest.raises(InputError, match=why):
        dendrofx.transform(model().eval(), example, dead_rows=mask, budget=0)
    assert timed == []


def test_calibration_with_padding_elsewhere_is_refused() -> None:
    data = [inputs([9, 4, 7, 3], left=i > 6) for i in range(8)]
    why = r"^dead_rows='mask': the model ignores padding on the right alone, and calibration holds samples with padding els"
    with pytest.raises(InputError, match=why):
        dendrofx.transform(
            First().eval(), calibration=data, dead_rows="mask", budget=0, options=dendrofx.Options(tune_seconds=0)
        )


def test_a_call_with_a_mask_of_another_shape_raises() -> None:
    made, given = live(rows_model(), inputs(SHORT)), inputs(SHORT)
    for called in (made, dendrofx.script(made)):
        for mask in (given["mask"][:, :5], given["mask"][:1], given["mask"].repeat(2, 1)):
            with pytest.raises(Exception, match=r"the mask of dead rows is shaped .*, which does not fit a value of"):
                called(given["x"], mask)
        with pytest.raises(Exception, match=r"the mask of dead rows is shaped .*, it takes \[batch, tokens\]"):
            called(given["x"], given["mask"][0])
