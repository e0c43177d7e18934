"""Which sites the graphs of transformers have: an FFN of two sibling modules is one chain, a projection of attention is none."""

from __future__ import annotations

import pytest
from torch import nn

from benchmarks.models import hf
from dendrofx.graph.find_sites import find_sites
from tests.graph.capture.cases import NEVER
from tests.graph.capture.families import FAMILIES, family

pytestmark = pytest.mark.real("transformers")

# The sites of the first layer, and what comes after the layers.
BERT = """
    attention.self.query attention.self.key attention.self.value attention.output.dense intermediate.dense..output.dense
"""
LAYERS: dict[str, tuple[str, str, list[str]]] = {
    "bert": ("encoder.layer", BERT, ["pooler.dense"]),
    "distilbert": (
        "transformer.layer",
        "attention.q_lin attention.k_lin attention.v_lin attention.out_lin ffn.lin1..lin2",
        [],
    ),
    "vit": (
        "layers",
        "attention.q_proj attention.k_proj attention.v_proj attention.o_proj mlp.fc1..fc2",
        ["pooler.dense"],
    ),
    # its gelu_new is composed of smaller operations: two sites
    "gpt2": ("h", "attn.c_attn attn.c_proj mlp.c_fc mlp.c_proj", []),
    # its second Linear reads a product of two values: no chain
    "llama": (
        "layers",
        "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj mlp.gate_proj mlp.up_proj mlp.down_proj",
        [],
    ),
    "transformer-encoder": ("layers", "linear1..linear2", []),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_sites(name: str) -> None:
    found = find_sites(family(name).gm)
    layers, inner, after = LAYERS[name if name == hf.ENCODER else name.partition("-")[0]]
    assert [s.name for s in found] == [
        f"{layers}.{i}.{site}" for i in range(hf.LAYERS) for site in inner.split()
    ] + after
    refused = [(f"layers.{i}.self_attn.out_proj", NEVER) for i in range(hf.LAYERS)] if name == hf.ENCODER else []
    assert [(r.site, r.reason) for r in found.refused] == refused


def test_chains_hold_the_models_own_activation() -> None:
    for name, kind in {"bert-sdpa": "GELU(approximate='none')", hf.ENCODER: "ReLU()"}.items():
        site = next(s for s in find_sites(family(name).gm) if len(s.linears) == 2)
        nodes = {n.name: n for n in family(name).gm.graph.nodes}
        assert len(site.nodes) == 3
        assert kind.partition("(")[0].lower() in str(nodes[site.nodes[1]].target)
    blocks = [m for m in family("bert-sdpa").routed.modules() if isinstance(m, nn.Sequential) and len(m) == 3]
    assert {repr(block[1]) for block in blocks} == {"GELU(approximate='none')"}
