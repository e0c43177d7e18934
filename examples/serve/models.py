"""The two pairs of files that `load.py` compares: a model as it is, and what dendrofx made of it.

`encoder` has random weights and takes padded sentences; nothing of it is approximated (`budget=0`), its padding is left out.
`digits` is the trained model of `examples/digits.py`, which takes rows; its mean deviation is at most 1 %.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dendrofx
from stream import LONGEST, VOCABULARY

INPUTS = {"encoder": "i64[N, T] i64[N, T]", "digits": "f32[N, 64]"}  # the file of a model as it is does not say them
LAYERS, WIDTH, HEADS = 4, 256, 4
COUNTED = dendrofx.Options(tune_seconds=0)  # leave it out to have candidates timed on this machine


class Layer(nn.Module):
    """Attention and a feed-forward block, each added and normalised, as in BERT."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = HEADS
        self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor, live: Tensor) -> Tensor:
        """f32[N, T, width] and bool[N, 1, 1, T] -> f32[N, T, width]."""
        q = self.q(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k = self.k(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        v = self.v(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=live)
        x = self.first(x + self.out(attended.transpose(1, 2).flatten(2)))
        return self.second(x + self.down(F.gelu(self.up(x))))  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """Token ids to one vector for each sentence, the mean of its live tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(LONGEST, WIDTH)
        self.norm, self.layers = nn.LayerNorm(WIDTH), nn.ModuleList(Layer() for _ in range(LAYERS))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """i64[N, T] twice -> f32[N, width]."""
        places = torch.arange(input_ids.size(1), device=input_ids.device)
        x = self.norm(self.tokens(input_ids) + self.places(places))
        live = (attention_mask != 0)[:, None, None]
        for layer in self.layers:
            x = layer(x, live)
        kept = attention_mask.unsqueeze(-1).to(x.dtype)
        return (x * kept).sum(1) / kept.sum(1).clamp(min=1.0)  # type: ignore[no-any-return]


def encoder() -> tuple[nn.Module, nn.Module]:
    """Return the encoder, and the same without its padding."""
    torch.manual_seed(0)
    model = Encoder().eval().requires_grad_(False)
    lengths = torch.tensor([32, 9, 12, 5])
    mask = (torch.arange(32) < lengths[:, None]).long()
    batch = {"input_ids": torch.randint(1, VOCABULARY, (4, 32)) * mask, "attention_mask": mask}
    return model, dendrofx.transform(model, batch, dead_rows="attention_mask", budget=0, options=COUNTED)


def digits() -> tuple[nn.Module, nn.Module]:
    """Return the model of `examples/digits.py`, and what a budget of 1 % makes of it."""
    sys.path.insert(0, str(Path(__file__).parent.parent))
    model, calibration, _ = import_module("digits").load()
    return model, dendrofx.transform(model, calibration=[calibration], budget=0.01, batch_sizes=[32], options=COUNTED)


def write(name: str, folder: Path) -> tuple[Path, Path]:
    """Write `encoder` or `digits` into a folder; return the file of the original and the routed one."""
    original, routed = {"encoder": encoder, "digits": digits}[name]()
    paths = folder / f"{name}-original.pt", folder / f"{name}-routed.pt"
    for module, path in zip((original, routed), paths, strict=True):
        dendrofx.save(module, path)
    return paths
