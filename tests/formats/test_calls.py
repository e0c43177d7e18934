"""What a loaded file of another format takes, refuses in words, and does in surroundings that it was not made in."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dendrofx import InputError
from tests.formats.files import CLOSE, COMPILED, FORMATS, constructed, loaded, saved
from tests.made import made

Given = dict[str, Tensor]

REFUSED: dict[str, tuple[Callable[[Tensor, Tensor], Given], str]] = {
    "fewer tokens": (lambda x, mask: {"x": x, "mask": mask[:, :-1]}, r"mask\.size\(1\) == x\.size\(1\); got x=float32"),
    "more tokens": (lambda x, mask: {"x": x, "mask": torch.cat([mask, mask], 1)}, r"mask\.size\(1\) == x\.size\(1\)"),
    "fewer samples": (lambda x, mask: {"x": x, "mask": mask[:-1]}, r"mask\.size\(0\) == x\.size\(0\)"),
    "one sample": (lambda x, mask: {"x": x, "mask": mask[:1]}, r"mask\.size\(0\) == x\.size\(0\)"),
    "another width": (lambda x, mask: {"x": x[..., 1:], "mask": mask}, r"x\.size\(2\) == 64"),
    "another rank": (
        lambda x, mask: {"x": x[0], "mask": mask},
        r"'x' is float32\[\d+, 64\]; this file takes x: float32",
    ),
    "another type": (lambda x, mask: {"x": x.double(), "mask": mask}, r"'x' is float64.*\.to\(torch\.float32\)"),
    "no dense tensor": (lambda x, mask: {"x": x.to_sparse(), "mask": mask}, r"'x' is a torch\.sparse_coo tensor"),
}


@pytest.mark.parametrize("call", REFUSED)
@pytest.mark.parametrize("format", [*FORMATS, COMPILED])
def test_a_call_that_a_file_was_not_made_for_is_refused(format: str, call: str, tmp_path: Path) -> None:
    wrong, said = REFUSED[call]
    with pytest.raises(InputError, match=said):
        loaded(tmp_path, saved("padded", format))(**wrong(*made("padded").rows.values()))


@pytest.mark.peers
@pytest.mark.parametrize("call", list(REFUSED)[:4])
def test_onnx_runtime_alone_refuses_sizes(call: str, tmp_path: Path) -> None:
    runner = loaded(tmp_path, saved("padded", "onnx")).scripted
    wrong, said = REFUSED[call]
    with pytest.raises(RuntimeError, match=f"^a call is to have {said.partition(';')[0]}$"):
        runner(**wrong(*made("padded").rows.values()))


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.uint8])
@pytest.mark.parametrize("format", [*FORMATS, COMPILED])
def test_whole_numbers_of_another_type_are_converted(format: str, dtype: torch.dtype, tmp_path: Path) -> None:
    x, mask = made("padded").rows.values()
    assert mask.dtype == torch.int64
    made_file = loaded(tmp_path, saved("padded", format))
    torch.testing.assert_close(made_file(x, mask.to(dtype)), made_file(x, mask), rtol=0.0, atol=0.0)


FEW = [
    pytest.param(construct, shape, marks=pytest.mark.slow if construct.startswith("attends") else ())
    for construct in ("padded", "first", "attends-added", "attends-filled")
    for shape in ((0, 9), (3, 0), (3, 1), (1, 2))
    if (construct, shape) != ("first", (3, 0))  # of no tokens there is no first
]


@pytest.mark.parametrize(("construct", "shape"), FEW)
@pytest.mark.parametrize("format", [*FORMATS, COMPILED])
def test_few_samples_and_tokens_are_computed(
    format: str, construct: str, shape: tuple[int, int], tmp_path: Path
) -> None:
    module, given = constructed(construct)
    made_file, width = loaded(tmp_path, saved(construct, format)), given["x"].size(-1)
    x, mask = torch.ones(*shape, width), torch.ones(shape, dtype=torch.int64)
    if format == "aoti" and not mask.numel():  # native code divides by the number of rows
        with pytest.raises(RuntimeError):
            made_file(x, mask)
    else:
        torch.testing.assert_close(made_file(x, mask), module(x, mask), **CLOSE)


def test_a_program_is_refused_under_autocast(tmp_path: Path) -> None:
    module = loaded(tmp_path, saved("mlp", "pt2"))
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(RuntimeError, match=r"under torch\.autocast"):
        module(made("mlp").rows)


@pytest.mark.parametrize("format", [*FORMATS, COMPILED])
def test_modes_change_nothing(format: str, tmp_path: Path) -> None:
    module = loaded(tmp_path, saved("mlp", format))
    parent = nn.Sequential(module).train().eval()
    assert not module.training
    torch.testing.assert_close(parent(made("mlp").rows), module(made("mlp").rows))
