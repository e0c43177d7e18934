"""Transformers from configurations: captured, routed and scripted, they compute what the original computes.

Each model is captured once, for three samples of twelve tokens padded on the right, and compared at other shapes and paddings.
"""

from __future__ import annotations

import itertools
from dataclasses import is_dataclass
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.models import hf
from dendrofx.errors import InputError
from dendrofx.graph.capture import Captured, capture
from dendrofx.graph.find_sites import find_sites
from dendrofx.lowering.script import script
from dendrofx.values.difference import difference
from dendrofx.values.inputs import Inputs
from dendrofx.values.meta import CALL, CAPTURE
from dendrofx.values.outputs import flatten
from tests.graph.capture.families import FAMILIES, family

# Between torch's fused encoder layers and the plain ones, and between the kernels for weights with and without gradients: sums
# of 64 to 128 terms in another order, in two layers.
ROUNDING = 1e-6
SHAPES = [(1, 7), (1, 19), (5, 7), (5, 19)]
PICTURES = [(1, 0), (5, 0)]

pytestmark = pytest.mark.real("transformers")


def cases() -> list[tuple[str, int, int, hf.Side]]:
    found = []
    for name in FAMILIES:
        for (batch, tokens), side in itertools.product(PICTURES if name.startswith("vit") else SHAPES, hf.SIDES):
            if tokens or side == "right":
                found.append((name, batch, tokens, side))
    return found


@pytest.mark.parametrize(("name", "batch", "tokens", "side"), cases())
@torch.no_grad()
def test_scripted_it_equals_the_original(name: str, batch: int, tokens: int, side: hf.Side) -> None:
    known = family(name)
    inputs = Inputs.of(hf.example_inputs(name, batch, tokens or 12, side))
    wanted = flatten(inputs.call(known.model))
    plain = known.form.plain(inputs)
    for scripted in (known.scripted, known.scripted_routed):
        far = difference(wanted, flatten(known.form.restore(plain.call(scripted))))
        assert far <= (ROUNDING if known.captured.reason else 0.0)


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_the_eager_module_is_called_as_the_original(name: str) -> None:
    known = family(name)
    inputs = hf.example_inputs(name, 2, 9, "left")
    wanted, got = known.model(**inputs), known.routed(**inputs)
    assert type(got) is type(wanted)
    assert is_dataclass(got) is (name != hf.ENCODER)
    assert difference(flatten(wanted), flatten(got)) <= (ROUNDING if known.captured.reason else 0.0)


@pytest.mark.parametrize("name", FAMILIES)
def test_it_is_captured_by_export_bit_for_bit_or_with_the_reason(name: str) -> None:
    captured = family(name).captured
    assert captured.way == "export"
    assert len(captured.failed) == 1
    assert captured.failed[0].startswith("symbolic: ")
    if name == hf.ENCODER:
        assert captured.reason.startswith("torch's fused encoder layers sum in another order")
        assert 0 < captured.difference <= ROUNDING
    elif name.startswith("gpt2"):
        assert captured.reason in ("", "8 Conv1D became Linears, which sum in another order")
        assert captured.difference <= ROUNDING
    else:
        assert (captured.difference, captured.reason) == (0.0, "")


@torch.no_grad()
def test_a_head_tied_to_the_embedding_is_a_site() -> None:
    import transformers

    hugging_face: Any = transformers  # partly annotated
    sizes = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 128}
    model = hugging_face.BertForMaskedLM(hugging_face.BertConfig(vocab_size=100, **sizes)).eval()
    inputs = Inputs.of(hf.example_inputs("bert", 2, 8))
    gm = capture(model, inputs)
    assert [s.name for s in find_sites(gm)][-2:] == ["cls.predictions.transform.dense", "cls.predictions.decoder"]
    assert find_sites(gm).refused == ()
    lookup = next(n for n in gm.graph.nodes if n.target is torch.ops.aten.embedding)
    assert gm.get_parameter(str(lookup.args[0].target)) is gm.get_submodule("cls.predictions.decoder").weight
    plain = gm.meta[CALL].plain(inputs)
    assert torch.equal(plain.call(script(gm))["logits"], inputs.call(model).logits)


def test_a_cache_among_the_outputs_is_refused_with_the_way_out() -> None:
    import transformers

    hugging_face: Any = transformers
    config = hugging_face.GPT2Config(vocab_size=100, n_embd=64, n_layer=1, n_head=4, bos_token_id=0, eos_token_id=0)
    model = hugging_face.GPT2Model(config).eval()
    inputs = hf.example_inputs("gpt2", 2, 8)
    why = r"^GPT2Model returns past_key_values, a DynamicCache, which a graph cannot: turn it off, for a cache"
    with pytest.raises(InputError, match=why):
        capture(model, Inputs.of(inputs))
    assert capture(model, Inputs.of({**inputs, "use_cache": False})).meta[CAPTURE].way == "export"


@torch.no_grad()
def test_conv1d_becomes_a_linear() -> None:
    """By either way, a shared one once; the sums run in another order, and that is the reason."""
    from transformers import pytorch_utils

    utilities: Any = pytorch_utils
    first, second = utilities.Conv1D(1000, 700), utilities.Conv1D(700, 1000)
    model = nn.Sequential(first, nn.ReLU(), second, nn.Tanh(), first, nn.ReLU(), second).eval()
    inputs = Inputs.of(torch.randn(33, 700))
    gm = capture(model, inputs)
    captured: Captured = gm.meta[CAPTURE]
    assert captured.way == "symbolic"
    assert 0 < captured.difference < 10 * ROUNDING  # of sums of a thousand terms, in four layers
    assert captured.reason == "4 Conv1D became Linears, which sum in another order"
    (site,) = find_sites(gm)
    assert site.linears == ("0", "2", "0", "2")
    assert torch.equal(gm.get_parameter("0.weight"), first.weight.t())
    assert type(model[0]) is utilities.Conv1D
