"""Each peer runs and is right, or says on one line why it cannot."""

import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Iterable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch._inductor import config
from torch.profiler import profile

from benchmarks import peers
from benchmarks.models import hf
from benchmarks.models.encoder import SequenceEncoder
from benchmarks.models.ranker import DCNv2, Sizes, features, seeded
from benchmarks.peers import FLOAT_PEERS, PEERS, PeerUnavailableError, build_peer
from benchmarks.peers.common import Job, Peer, has_tokens, one_row, sequences, unlike
from dendrofx.errors import InputError
from dendrofx.machine.capability import capability

# Relative L2 distance of a sequence's output from the model's, with random weights: rounding alone, 8 bits of mantissa, 8 bits.
LIMITS = {"float32": 1e-4, "bf16": 0.05, "int8": 0.5}
CALIBRATION = [hf.example_inputs("bert-sdpa", 4, tokens) for tokens in (16, 11)]
SHAPES = [(1, 2), (1, 9), (2, 5), (5, 16), (16, 16), (7, 33)]
# What torch's compiler counts where it lays out the weights of Linear layers for oneDNN, which it does when they are frozen.
LAID_OUT = ("mkldnn_linear_weight_pack_matcher_count", "qlinear_weight_prepack_matcher_count")
NO_BF16 = r"^no native bf16 on this CPU \(it has .*FP32.*\); OpenVINO chose (float32|bfloat16) instead$"

# Half a minute each, in compilers that are not ours; `compile` goes the same way, and runs for every change.
COMPILED = ("aoti", "torchao-int8")


def some(names: Iterable[str]) -> list[Any]:
    """Leave what compiles for long to the night."""
    return [pytest.param(n, marks=pytest.mark.nightly) if n in COMPILED else n for n in names]


def real(test: Any) -> Any:
    """Needs the peers' packages, and transformers for the model."""
    return pytest.mark.peers(pytest.mark.real("transformers")(test))


class Toy(nn.Module):
    """Takes what an encoder takes and is quick."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.out = nn.Embedding(100, 8), nn.Linear(8, 4)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.out((self.table(input_ids) * attention_mask.unsqueeze(-1)).mean(1))  # type: ignore[no-any-return]


@cache
def tiny_bert() -> SequenceEncoder:
    """One layer: every further one costs the compilers seconds."""
    bert: Any = hf.families()["bert-sdpa"]()
    bert.encoder.layer = bert.encoder.layer[:1]
    return SequenceEncoder(bert).eval()


@cache
def built(name: str) -> Peer:
    return build_peer(name, tiny_bert(), CALIBRATION, 2)


def state(model: nn.Module) -> dict[str, Any]:
    """What a builder might leave changed."""
    return {
        "torch": (torch.get_num_threads(), torch.is_grad_enabled(), config.get_config_copy()),
        "logging": (logging.root.manager.disable, logging.root.handlers[:]),
        "warnings": warnings.filters[:],
        "environment": dict(os.environ),
        "modules": [(name, id(module), module.training) for name, module in model.named_modules()],
        "weights": [(name, hash(value.detach().numpy().tobytes())) for name, value in model.state_dict().items()],
    }


def deviation(peer: Peer, batch: int, tokens: int) -> float:
    inputs = hf.example_inputs("bert-sdpa", batch, tokens)
    with torch.no_grad():
        given, wanted = peer(inputs), tiny_bert()(**inputs)
    assert (given.dtype, given.shape) == (torch.float32, wanted.shape)
    return float(((given - wanted).norm(dim=1) / wanted.norm(dim=1)).max())


@real
@pytest.mark.parametrize("name", some(PEERS))
def test_runs_and_is_right_or_says_why_not(name: str) -> None:
    before = state(tiny_bert())
    counters.clear()
    if name == "openvino-bf16" and not capability().bf16:
        with pytest.raises(PeerUnavailableError, match=NO_BF16):
            built(name)
    else:
        limit = LIMITS.get(name.partition("-")[2], LIMITS["float32"])
        assert max(deviation(built(name), *shape) for shape in SHAPES) < limit
    assert state(tiny_bert()) == before
    if (
        name == "torchao-int8" and capability().vnni
    ):  # then torchao multiplies int8 by itself, and there is nothing to lay out
        with profile() as seen:
            deviation(built(name), *SHAPES[0])
        assert any(event.key == "aten::_int_mm" for event in seen.key_averages())
    elif name in ("compile", "aoti", "torchao-int8") and torch.backends.mkldnn.is_available():
        assert any(counters["inductor"][count] > 0 for count in LAID_OUT)


@real
@pytest.mark.parametrize("name", some(["compile", "torchao-int8"]))
def test_compiles_nothing_again(name: str) -> None:
    peer = built(name)
    before = counters["stats"]["unique_graphs"]
    for shape in SHAPES:
        deviation(peer, *shape)
    whole = hf.example_inputs("bert-sdpa", 6, 21)
    for rows, tokens in ((6, 20), (3, 21), (1, 20)):  # views, with the strides of the whole
        peer({n: v[:rows, :tokens] for n, v in whole.items()})
    assert counters["stats"]["unique_graphs"] == before


@pytest.mark.peers
@pytest.mark.parametrize("name", some(FLOAT_PEERS))
def test_a_model_of_features_runs_too(name: str) -> None:
    """Features of fixed widths, some of them looked up, in batches whose number of rows is one of these widths."""
    sizes = Sizes(user=16, item=8, user_ids=3, item_ids=2, width=16, depth=1)
    model = seeded(DCNv2(sizes, layers=1), 0)
    user, item = features(sizes, 16, torch.Generator().manual_seed(0), ids=True)
    batch = {**user, **item}
    peer = build_peer(name, model, [batch], 1)
    for rows in (1, 2, 16, 13):
        given = {n: v[:rows] for n, v in batch.items()}
        with torch.no_grad():
            torch.testing.assert_close(peer(given), model(**given), rtol=LIMITS["float32"], atol=0)


def test_what_cannot_be_asked_for() -> None:
    with pytest.raises(InputError, match=r"^unknown peer 'tensorrt': choose from compile, aoti, onnxruntime, "):
        build_peer("tensorrt", Toy(), CALIBRATION, 1)
    with pytest.raises(InputError, match=r"^a peer needs a calibration batch and a thread, got 0 and 1$"):
        build_peer("compile", Toy(), [], 1)


def test_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "find_spec", lambda package: None)
    with pytest.raises(PeerUnavailableError, match=r"^not installed: onnx, onnxscript, onnxruntime$"):
        build_peer("onnxruntime-int8", Toy(), CALIBRATION, 1)
    with pytest.raises(PeerUnavailableError, match=r"^not installed: openvino, nncf$"):
        build_peer("openvino-int8", Toy(), CALIBRATION, 1)


def test_missing_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config.cpp, "cxx", ("no-such-compiler",))
    for name in ("compile", "aoti"):
        with pytest.raises(PeerUnavailableError, match=r"^InvalidCxxCompiler: No working C\+\+ compiler found .*$"):
            build_peer(name, Toy().eval(), CALIBRATION, 1)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (RuntimeError("cannot lower x\nTraceback"), "RuntimeError: cannot lower x"),
        (RuntimeError("C++ compile error\n\nCommand:\ng++ a.cpp\na.cpp: fatal error: b"), "RuntimeError: a.cpp: fatal error: b"),
        (ImportError(), "ImportError"),
        (ValueError("x" * 1000), f"ValueError: {'x' * 285}..."),
        (torch.zeros(4, 3), "it gives float32[4, 3] where the model gives float32[4, 4]"),
        (torch.zeros(4, 4).bfloat16(), "it gives bfloat16[4, 4] where the model gives float32[4, 4]"),
        (torch.zeros(4, 4), "it gives float32[4, 4] where the model gives float32[1, 4]"),  # a batch of one is tried too
        (torch.full((4, 4), float("nan")), "it gives values that are not finite, for 4 sequences"),
    ],
)  # fmt: skip
def test_failure_is_a_reason_on_one_line(given: Any, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(job: Job) -> Peer:
        if isinstance(given, Exception):
            raise given
        return lambda batch: given

    monkeypatch.setitem(peers._BUILDERS, "compile", (build, ()))
    model = Toy().eval()
    before = state(model)
    with pytest.raises(PeerUnavailableError) as caught:
        build_peer("compile", model, CALIBRATION, 2)
    assert str(caught.value) == reason
    assert state(model) == before


def test_builder_gets_copy_folder_silence(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    jobs: list[Job] = []

    def build(job: Job) -> Peer:
        jobs.append(job)
        assert (torch.get_num_threads(), torch.is_grad_enabled()) == (2, False)
        (job.folder / "weights").write_text("large")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        logging.warning("noise")
        print("50 %", file=sys.stderr)
        nn.init.zeros_(job.model.get_parameter("out.weight"))
        return lambda batch: model(**batch)

    model = Toy().eval()
    before = state(model)
    monkeypatch.setitem(peers._BUILDERS, "compile", (build, ()))
    build_peer("compile", model, CALIBRATION, 2)
    assert state(model) == before
    assert not jobs[0].folder.exists()
    assert capfd.readouterr() == ("", "")


def test_nothing_is_imported_before_it_is_needed() -> None:
    code = "import sys, benchmarks.peers as p; print({k for b in p._BUILDERS.values() for k in b[1]} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


@pytest.mark.parametrize(("rows", "tokens", "wanted"), [(1, 5, 2), (2, 2, 3), (1, 2, 3), (4, 7, 4)])
def test_example_has_no_special_size(rows: int, tokens: int, wanted: int) -> None:
    ids = torch.arange(rows * tokens).reshape(rows, tokens)
    assert torch.equal(unlike({"input_ids": ids})["input_ids"], ids.repeat(3, 1)[:wanted])


def test_features_keep_their_widths() -> None:
    batch = {"user": torch.arange(12.0).reshape(3, 4), "ids": torch.arange(6).reshape(3, 2)}
    assert not has_tokens(batch)
    assert {n: v.shape for n, v in one_row(batch).items()} == {"user": (1, 4), "ids": (1, 2)}
    assert [row["ids"].tolist() for row in sequences([batch], 2)] == [[[0, 1]], [[2, 3]]]
    assert len(unlike({n: v[:2] for n, v in batch.items()})["user"]) == 3, "2 is the number of ids"
    assert has_tokens(CALIBRATION[0])
    assert not has_tokens({"a": torch.ones(3, 4, dtype=torch.long), "b": torch.ones(3, 5, dtype=torch.long)})


def test_sequences_are_without_padding() -> None:
    ids = torch.tensor([[1, 2, 0], [0, 3, 4], [5, 6, 7]])
    mask = (ids != 0).long()
    found = sequences([{"input_ids": ids, "attention_mask": mask}], 2)
    assert [row["input_ids"].tolist() for row in found] == [[[1, 2]], [[3, 4]]]
    assert sequences([{"input_ids": ids}], 9)[1]["input_ids"].tolist() == [[0, 3, 4]]
