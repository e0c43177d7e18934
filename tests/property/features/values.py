"""What a module may do with values: operators that some captures cannot take, and what makes a module no function of its inputs."""

from __future__ import annotations

import torch

from tests.property.draft import Draft
from tests.property.features.base import Feature, part


def _written(d: Draft) -> None:
    """An input is written into."""
    name = next((a.name for a in d.required if a.value.kind == "float"), None)
    assert name is not None
    d.invalid.append("writes into an input")
    d.prologue.insert(
        0, d.rng.choice(["{0}.div_(2.0)", "{0}[..., 0] = 0.5", "{0} += 1", "torch.relu_({0})"]).format(name)
    )


def _random(d: Draft) -> None:
    d.invalid.append("random")
    d.part(d.rng.choice(["h = F.dropout(h, 0.3, training=True)", "h = h + torch.rand_like(h)"]))


def _dtype(dtype: torch.dtype) -> Feature:
    def write(d: Draft) -> None:
        d.dtype = dtype

    return Feature(str(dtype).removeprefix("torch."), 0.07, write, lambda d: d.dtype == torch.float32)


FEATURES = (
    part("norm", 0.08, "h = h / (1 + h.norm(dim=-1, keepdim=True))", "h = h + h.norm(p=1, dim=-1, keepdim=True) / 16"),
    part(
        "operator with options",
        0.08,
        "h = F.normalize(h, dim=-1) + h",
        "h = h + h.std(-1, keepdim=True, unbiased=False)",
        "h = h + h.max(-1, keepdim=True).values",
        "h = h + F.scaled_dot_product_attention(h[None], h[None], h[None])[0]",
        "h = sum([h, torch.stack([h, 2 * h], dim=-1).mean(-1)])",
        "h = torch.cat([t for t in h.chunk(2, dim=-1)][::-1], dim=-1)",
        "h = torch.einsum('...i,...i->...', h, h)[..., None] / 16 + h",
    ),
    part("check of values", 0.08, "if bool((h != h).any()): raise ValueError('not a number')"),
    part("reduction over samples", 0.07, "h = h - h.mean(0)", "h = h / (1 + h.abs().amax(0, keepdim=True))"),
    Feature("writes into an input", 0.075, _written, lambda d: any(a.value.kind == "float" for a in d.required)),
    Feature("random", 0.065, _random),
    _dtype(torch.float64),
    _dtype(torch.bfloat16),
)
