"""Every construct in every format: the same rows take the same way, and get the same numbers, as in the module itself."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import dendrofx
from dendrofx import RoutedModule
from dendrofx.values.inputs import Inputs
from dendrofx.values.outputs import flatten
from tests import repeated
from tests.made import made
from tests.search.cascade import test_exits as exits

FORMATS = [
    "pt2",
    pytest.param("onnx", marks=pytest.mark.peers),
    pytest.param("aoti", marks=pytest.mark.slow),
]
SUFFIX = {"pt2": "pt2", "aoti": "pt2", "onnx": "onnx"}
CLOSE = {"rtol": 1e-4, "atol": 1e-5}  # another order of float sums, and another library's exp and erf


def _of(kind: str) -> Callable[[], tuple[RoutedModule, Any]]:
    return lambda: (made(kind).module, made(kind).rows)


def _repeats(kind: str) -> Callable[[], tuple[RoutedModule, Any]]:
    return lambda: (repeated.once(repeated.MODELS[kind]()), repeated.runs([3, 1, 9, 2, 1]))


def _exit() -> tuple[RoutedModule, Any]:
    return exits.left(exits.deep()), exits.rows(40, 3)


CONSTRUCTS: dict[str, Callable[[], tuple[RoutedModule, Any]]] = {
    **{
        kind: _of(kind)
        for kind in ("mlp", "residual", "gate-reads-light", "no-gate", "full-prepacked", "cascade", "padded")
    },
    **{f"repeats-{kind}": _repeats(kind) for kind in repeated.MODELS},
    "exit": _exit,
}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("construct", CONSTRUCTS)
def test_a_construct_is_the_same_in_a_format(construct: str, format: str, tmp_path: Path) -> None:
    module, given = CONSTRUCTS[construct]()
    path = tmp_path / f"model.{SUFFIX[format]}"
    dendrofx.save(module, path, format=format)  # type: ignore[arg-type]
    loaded, inputs = dendrofx.load(path), Inputs.of(given)
    for count in (inputs.samples, 1, 2, inputs.samples - 1):
        batch = inputs.take(torch.arange(count))
        _assert_same(batch.call(loaded), batch.call(module))


def _assert_same(got: Any, wanted: Any) -> None:
    assert type(got) is type(wanted)
    for one, other in zip(flatten(got)[0], flatten(wanted)[0], strict=True):
        torch.testing.assert_close(one, other, **CLOSE)


def _not_finite(rows: Tensor) -> Tensor:
    found = rows.clone()
    found[1], found[3, 0], found[4, 0] = float("nan"), float("inf"), -float("inf")
    return found


@pytest.mark.parametrize("format", FORMATS)
def test_rows_that_are_not_finite_take_the_full_branch(format: str, tmp_path: Path) -> None:
    module, rows = made("mlp").module, _not_finite(made("mlp").rows)
    path = tmp_path / f"model.{SUFFIX[format]}"
    dendrofx.save(module, path, format=format)  # type: ignore[arg-type]
    torch.testing.assert_close(dendrofx.load(path)(rows), module(rows), equal_nan=True, **CLOSE)


@pytest.mark.parametrize("format", FORMATS)
def test_counts_are_those_of_the_module(format: str, tmp_path: Path) -> None:
    module, rows = made("mlp").module, made("mlp").rows
    path = tmp_path / f"model.{SUFFIX[format]}"
    dendrofx.save(module, path, format=format, counts=True)  # type: ignore[arg-type]
    output, counts = dendrofx.load(path).forward_counted(rows)
    wanted, own = module.forward_counted(rows)
    _assert_same(output, wanted)
    for site, of_site in own.items():
        assert counts[site]["rows"] == of_site["rows"]
        assert abs(counts[site]["hard_rows"] - of_site["hard_rows"]) <= of_site["near_rows"]
