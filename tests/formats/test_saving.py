"""What `save` refuses to write in another format, and what it writes all the same."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dendrofx
from dendrofx import ArtifactError, CertificateError, InputError, RoutedModule
from tests.asked import asked
from tests.formats.files import CLOSE, FORMATS, SUFFIX, constructed, loaded, saved
from tests.made import made
from tests.models import compressible
from tests.recorded import LOW

ROWS = torch.ones(4, 64)
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no format": ({"format": "pb"}, "format is one of torchscript, pt2, aoti, onnx, got 'pb'"),
    "a tensor": ({"format": "pt2", "example": ROWS}, r"example is a dict of tensors by name, got float32\[4, 64\]"),
    "a list": ({"format": "pt2", "example": [ROWS]}, r"example is a dict .* pass \{'input': \.\.\.\}"),
    "another name": ({"format": "pt2", "example": {"images": ROWS}}, r"takes input: float32\[N, 64\]; got images"),
    "another type": ({"format": "pt2", "example": {"input": ROWS.double()}}, "'input' is float64"),
    "another rank": ({"format": "pt2", "example": {"input": ROWS[None]}}, r"'input' is float32\[1, 4, 64\]"),
    "no samples": ({"format": "pt2", "example": {"input": ROWS[:0]}}, "example has none along axis 0 of 'input'"),
    "TorchScript": ({"example": {"input": ROWS}}, "example= is for the other formats"),
    "a name of ONNX": ({"name": "m.onnx"}, r'm\.onnx is no name for TorchScript: pass format="onnx", or'),
    "a name of programs": ({"name": "m.PT2"}, r'pass format="pt2" or "aoti", or name a \.pt file'),
    "frozen": ({"format": "pt2", "freeze": True}, "freeze= is for TorchScript"),
}


@pytest.mark.parametrize("wrong", REFUSED)
def test_what_cannot_be_written_is_refused(wrong: str, tmp_path: Path) -> None:
    options, said = REFUSED[wrong]
    path = tmp_path / options.get("name", "model")
    with pytest.raises(InputError, match=said):
        dendrofx.save(made("mlp").module, path, **{k: v for k, v in options.items() if k != "name"})


def test_an_example_of_one_sample_is_enough(tmp_path: Path) -> None:
    module, rows = constructed("mlp")
    dendrofx.save(module, tmp_path / "model", format="pt2", example={"input": rows[:1]})
    torch.testing.assert_close(dendrofx.load(tmp_path / "model")(rows), module(rows), **CLOSE)


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_is_no_module_to_save_and_has_no_tolerances_to_set(format: str, tmp_path: Path) -> None:
    file = loaded(tmp_path, saved("mlp", format))
    for ask in (dendrofx.tolerances, lambda m: dendrofx.save(m, tmp_path / "again", format="pt2")):
        with pytest.raises(InputError, match="is from a file"):
            ask(file)


@pytest.mark.parametrize("format", FORMATS)
def test_a_certificate_stays_with_torchscript(format: str, tmp_path: Path) -> None:
    assert constructed("cascade")[0].plan.certificate is not None
    file = loaded(tmp_path, saved("cascade", format))
    assert file.plan is not None
    assert file.plan.certificate is None
    with pytest.raises(CertificateError, match="as no file of a format other than TorchScript does"):
        dendrofx.certificate(tmp_path / "model")


class Odd(nn.Module):
    """A block, and what exporters make something else of."""

    def __init__(self, odd: Callable[[Any, Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.block, self.odd = compressible(64, 256, 64), odd
        self.register_buffer("zero", torch.zeros(1))
        self.register_buffer("steep", torch.linspace(-300.0, 300.0, 64))

    def forward(self, x: Tensor, ids: Tensor) -> Any:
        return self.odd(self, self.block(x), ids)


def odd(kind: str) -> RoutedModule:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = Odd({**ODD, **STEEP, **WITHOUT_FORM}[kind]).eval()
        batch = {"x": torch.randn(64, 64), "ids": torch.zeros(64, dtype=torch.int64)}
        given: dict[str, Any] = {"calibration": [batch], "budget": 0.2, "light": LOW, "tune_seconds": 0}
        return dendrofx.transform(model, **asked(**given))


ODD: dict[str, Callable[[Any, Tensor, Tensor], Any]] = {
    "an input comes back": lambda m, y, ids: (y, ids),
    "a list": lambda m, y, ids: [y, y + 1],
    "a table of one zero": lambda m, y, ids: y + m.zero.index_select(0, ids).unsqueeze(1),
    "a gather": lambda m, y, ids: y + torch.gather(m.zero.expand(5), 0, ids).unsqueeze(1),
    "an embedding": lambda m, y, ids: y + F.embedding(ids, m.zero.unsqueeze(1)),
    "names of its own": lambda m, y, ids: {"logits": y, "x": y + 1, "more": [ids, y]},
}


def logs(x: Tensor) -> tuple[Tensor, ...]:
    none = torch.full_like(x, -torch.inf)
    by_hand, doubles = torch.log(torch.sigmoid(x / 4)), torch.logaddexp(x.double(), -x)
    return F.logsigmoid(x), by_hand, torch.logaddexp(x, -2 * x - 3), doubles, torch.logaddexp(F.relu(x).log(), none)


STEEP: dict[str, Callable[[Any, Tensor, Tensor], Any]] = {"logs of exps": lambda m, y, ids: logs(y + m.steep)}


WITHOUT_FORM: dict[str, Callable[[Any, Tensor, Tensor], Any]] = {
    r"is bfloat16, which ONNX Runtime neither takes": lambda m, y, ids: (y, y.bfloat16()),
    r"aten\.logcumsumexp\.default, would be infinite in ONNX": lambda m, y, ids: y.logcumsumexp(0),
    r"aten\.logaddexp2\.default, would be infinite in ONNX": lambda m, y, ids: torch.logaddexp2(y, y + 1),
    r"no form in ONNX: No ONNX function found for .*svd": lambda m, y, ids: y + torch.linalg.svdvals(y.t() @ y).sum(),
}


@pytest.mark.parametrize("kind", [*ODD, *STEEP])
@pytest.mark.parametrize("format", FORMATS)
def test_what_exporters_change_is_as_it_was(format: str, kind: str, tmp_path: Path) -> None:
    module, path = odd(kind), tmp_path / f"model.{SUFFIX[format]}"
    dendrofx.save(module, path, format=format)  # type: ignore[arg-type]
    x, ids = torch.randn(5, 64), torch.zeros(5, dtype=torch.int64)
    got, wanted = dendrofx.load(path)(x, ids), module(x, ids)
    assert type(got) is type(wanted)
    torch.testing.assert_close(got, wanted, **CLOSE)


RETURNED: dict[tuple[str, bool], list[str]] = {
    ("padded", False): ["output"],
    ("mlp", True): ["output", "counts.0..2"],
    ("bounds", False): [f"{place}" for place in range(5)],
    ("names of its own", False): ["logits", "x_returned", "more.0", "more.1"],
}


@pytest.mark.peers
@pytest.mark.parametrize(("kind", "counts"), RETURNED)
def test_onnx_outputs_are_named_after_their_place(kind: str, counts: bool, tmp_path: Path) -> None:
    if kind in ODD:
        dendrofx.save(odd(kind), tmp_path / "model", format="onnx", counts=counts)
    data = (tmp_path / "model").read_bytes() if kind in ODD else saved(kind, "onnx", counts)
    graph = pytest.importorskip("onnx").load_from_string(data).graph
    assert [value.name for value in graph.output] == RETURNED[kind, counts]


@pytest.mark.parametrize("kind", list(ODD)[2:-1])
@pytest.mark.parametrize("format", FORMATS)
def test_a_place_below_0_is_refused(format: str, kind: str, tmp_path: Path) -> None:
    module, path = odd(kind), tmp_path / f"model.{SUFFIX[format]}"
    dendrofx.save(module, path, format=format)  # type: ignore[arg-type]
    for model in (module, dendrofx.load(path)):
        with pytest.raises((IndexError, RuntimeError)):
            model(torch.randn(5, 64), torch.full([5], -1))


@pytest.mark.peers
@pytest.mark.parametrize(("kind", "place"), [("a table of one zero", 1), ("an embedding", 1), ("an embedding", -1)])
def test_a_place_outside_of_a_table_is_told_from_a_check(kind: str, place: int, tmp_path: Path) -> None:
    dendrofx.save(odd(kind), tmp_path / "model", format="onnx")
    with pytest.raises(
        RuntimeError, match=r"ONNX Runtime refuses the call in a Gather, .*: indices element out of data"
    ):
        dendrofx.load(tmp_path / "model")(torch.randn(5, 64), torch.full([5], place))


@pytest.mark.peers
@pytest.mark.parametrize("said", WITHOUT_FORM)
def test_what_has_no_form_in_onnx_is_refused_with_its_cause(said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        dendrofx.save(odd(said), tmp_path / "model", format="onnx")


def _foreign_pt2(path: Path) -> None:
    torch.export.save(torch.export.export(nn.Linear(3, 3), (torch.ones(2, 3),)), path)


def _foreign_onnx(path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    given, back = (onnx.helper.make_tensor_value_info(name, 1, [1]) for name in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [given], [back])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10), path)


def _of_no_runtime(path: Path) -> None:
    path.write_bytes(b"\x08\x0a" + bytes(100))


FOREIGN = [
    _foreign_pt2,
    pytest.param(_foreign_onnx, marks=pytest.mark.peers),
    pytest.param(_of_no_runtime, marks=pytest.mark.peers),
]


@pytest.mark.parametrize("write", FOREIGN)
def test_a_file_of_something_else_is_told_so(write: Callable[[Path], None], tmp_path: Path) -> None:
    write(tmp_path / "model.pt2")
    with pytest.raises(ArtifactError, match="not written by dendrofx"):
        dendrofx.load(tmp_path / "model.pt2")
