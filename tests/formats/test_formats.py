"""Every construct in every format: the same rows take the same way, and get the same numbers, as in the module itself.

And what a file takes, refuses in words, and does in surroundings that it was not made in: of the same files, written once.
"""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dendrofx
from dendrofx import ArtifactError, InputError
from dendrofx.branchless.routes import count_split, split_rows
from dendrofx.runtime.route_counts import largest_and_near, millionths
from dendrofx.values.inputs import Inputs
from dendrofx.values.outputs import flatten
from tests.archives import Trap, resealed, rewritten
from tests.formats.files import CLOSE, COMPILED, CONSTRUCTS, FORMATS, constructed, loaded, saved
from tests.made import made

QUICK = ("mlp", "padded", "cascade", "repeats-dlrm", "exit")
IN_ONNX = tuple(
    c for c in CONSTRUCTS if not c.startswith("repeats-") or c in QUICK
)  # the others every night: seconds each
CASES = [
    *(pytest.param(c, "pt2", marks=() if c in QUICK else pytest.mark.slow) for c in CONSTRUCTS),
    *(pytest.param(c, "onnx", marks=pytest.mark.peers if c in IN_ONNX else pytest.mark.nightly) for c in CONSTRUCTS),
    *(pytest.param(c, "aoti", marks=pytest.mark.slow if c == "padded" else pytest.mark.nightly) for c in CONSTRUCTS),
]


@pytest.mark.parametrize(("construct", "format"), CASES)
def test_a_construct_is_the_same_in_a_format(construct: str, format: str, tmp_path: Path) -> None:
    module, given = constructed(construct)
    made, inputs = loaded(tmp_path, saved(construct, format)), Inputs.of(given)
    for count in (inputs.samples, 1, 2, inputs.samples - 1):
        batch = inputs.take(torch.arange(count))
        _assert_same(batch.call(made), batch.call(module))


def _assert_same(got: Any, wanted: Any) -> None:
    assert type(got) is type(wanted)
    for one, other in zip(flatten(got)[0], flatten(wanted)[0], strict=True):
        torch.testing.assert_close(one, other, equal_nan=True, **CLOSE)


def _not_finite(rows: Tensor) -> Tensor:
    found = rows.clone()
    found[1], found[3, 0], found[4, 0] = float("nan"), float("inf"), -float("inf")
    return found


@pytest.mark.parametrize("construct", ["mlp", "bounds"])
@pytest.mark.parametrize("format", [*FORMATS, COMPILED])
def test_rows_that_are_not_finite_take_the_full_branch(format: str, construct: str, tmp_path: Path) -> None:
    module, rows = constructed(construct)
    got = loaded(tmp_path, saved(construct, format))(_not_finite(rows))
    torch.testing.assert_close(got, module(_not_finite(rows)), equal_nan=True, **CLOSE)


@pytest.mark.parametrize(
    "construct", ["mlp", "no-gate", pytest.param("routed-cascade", marks=pytest.mark.slow), "exit"]
)
@pytest.mark.parametrize("format", FORMATS)
def test_counts_are_those_of_the_module(format: str, construct: str, tmp_path: Path) -> None:
    module, rows = constructed(construct)
    file = loaded(tmp_path, saved(construct, format, counts=True))
    for batch in (rows, rows[:1], torch.full_like(rows[:2], torch.inf)) if construct != "no-gate" else (rows,):
        output, counts = file.forward_counted(batch)
        wanted, own = module.forward_counted(batch)
        torch.testing.assert_close(output, wanted, equal_nan=True, **CLOSE)
        gates = {site: of_site for site, of_site in own.items() if "largest_score_millionths" in of_site}
        assert set(gates) <= set(counts)
        for site, of_site in gates.items():
            assert counts[site]["rows"] == of_site["rows"]
            assert abs(counts[site]["hard_rows"] - of_site["hard_rows"]) <= of_site["near_rows"]
        for site in set(counts) - set(gates):  # the original is not run on no samples
            assert site.startswith("full/")
            assert counts[site]["rows"] == 0


@pytest.mark.parametrize("format", FORMATS)
def test_a_changed_file_is_refused(format: str, tmp_path: Path) -> None:
    data = saved("mlp", format)
    for place in (0, len(data) // 3, len(data) // 2, len(data) - 40):
        changed = bytearray(data)
        changed[place] ^= 0x55
        with pytest.raises(ArtifactError):
            loaded(tmp_path, bytes(changed))
    with pytest.raises(ArtifactError):
        loaded(tmp_path, data[: len(data) // 2])


@pytest.mark.parametrize("format", FORMATS)
def test_a_site_without_full_branch_refuses_what_asks_for_one(format: str, tmp_path: Path) -> None:
    lossy, rows = loaded(tmp_path, saved("no-gate", format)), _not_finite(made("no-gate").rows)
    with pytest.raises(RuntimeError, match=r"^a row is not finite, and site '0\.\.2' has no full branch"):
        lossy(rows)


@pytest.mark.parametrize("record", ["data/sample_inputs/model.pt", "data/weights/weight_0"])
def test_no_pickle_of_a_program_is_run(record: str, tmp_path: Path) -> None:
    path, trap = tmp_path / "model.pt2", io.BytesIO()
    path.write_bytes(saved("mlp", "pt2"))
    torch.save(Trap(tmp_path / "sprung"), trap)
    trapped = rewritten(path, tmp_path / "trapped.pt2", record, lambda data: trap.getvalue())
    if "weight_" in record:  # which is read as plain numbers, unless the file says otherwise
        trapped = rewritten(trapped, tmp_path / "pickled.pt2", "weights_config.json", _all_pickled)
    with pytest.raises(ArtifactError, match=r"pickled objects|is damaged"):
        dendrofx.load(resealed(trapped))
    assert not (tmp_path / "sprung").exists()


def _all_pickled(config: bytes) -> bytes:
    return config.replace(b'"use_pickle": false', b'"use_pickle": true ')


@pytest.mark.parametrize("largest", [2.5, 1e30, torch.inf, torch.nan, -1.0])
def test_the_largest_score_is_counted_as_in_torchscript(largest: float) -> None:
    score, tolerance = torch.tensor([0.25, largest]), torch.tensor(0.5)
    counts = count_split(split_rows(score, tolerance, 1.0), score, tolerance, 0.1)
    assert int(counts[3]) == millionths(largest_and_near(score, tolerance, 0.1)[0])


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
    **{
        f"a mask of {dtype}": (
            lambda x, mask, dtype=dtype: {"x": x, "mask": mask.to(dtype)},  # type: ignore[misc]
            r"'mask' is .*\.to\(torch\.int64\)",
        )
        for dtype in (torch.int32, torch.bool, torch.uint8)
    },
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


@pytest.mark.parametrize("format", [*FORMATS, COMPILED])
def test_a_file_is_refused_under_autocast(format: str, tmp_path: Path) -> None:
    module = loaded(tmp_path, saved("mlp", format))
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(RuntimeError, match=r"under torch\.autocast"):
        module(made("mlp").rows)


@pytest.mark.parametrize("format", [*FORMATS, COMPILED])
def test_modes_change_nothing(format: str, tmp_path: Path) -> None:
    module = loaded(tmp_path, saved("mlp", format))
    parent = nn.Sequential(module).train().eval()
    assert not module.training
    torch.testing.assert_close(parent(made("mlp").rows), module(made("mlp").rows))
