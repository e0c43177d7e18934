"""Models with a mask that tests of live rows need, and their inputs: functions of rows, and a small encoder."""

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from dendrofx.graph.capture import capture
from dendrofx.values.inputs import Inputs

WIDTH, HEADS, VOCABULARY = 8, 2, 11
Form = Literal["sdpa", "eager"]


class OfRows(nn.Module):
    """A function of x, f32[batch, tokens, 8], and a mask, that finds its layers here; those named alone are Linears."""

    def __init__(self, function: Callable[..., Any], *linears: str, **layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, layer in {**{n: nn.Linear(WIDTH, WIDTH) for n in linears}, **layers}.items():
            self.add_module(name, layer)
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor, mask: Tensor) -> Any:
        return self.function(self, x, mask)


def ragged(lengths: tuple[int, ...] = (3, 4, 1), tokens: int = 4) -> dict[str, Tensor]:
    """For `OfRows`, with samples of these lengths."""
    mask = torch.arange(tokens) < torch.tensor(lengths)[:, None]
    return {"x": torch.randn(*mask.shape, WIDTH), "mask": mask.long()}


def symbolic(model: nn.Module, example: Any) -> fx.GraphModule:
    """Captured with symbolic shapes."""
    return capture(model.eval().requires_grad_(False), Inputs.of(example), shapes=True)


class Attention(nn.Module):
    """Multi-head attention, as one op or spelled out."""

    def __init__(self, form: Form, bias: bool) -> None:
        super().__init__()
        self.form = form
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH, bias=bias) for _ in range(3))
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        q, k, v = (self.heads(f(x)) for f in (self.query, self.key, self.value))
        if self.form == "sdpa":
            y = F.scaled_dot_product_attention(q, k, v, bias)
        else:
            y = (q @ k.transpose(2, 3) / math.sqrt(q.size(3)) + bias).softmax(-1) @ v
        return self.out(y.transpose(1, 2).reshape(x.size(0), -1, WIDTH))

    def heads(self, x: Tensor) -> Tensor:
        return x.view(x.size(0), -1, HEADS, WIDTH // HEADS).transpose(1, 2)


class Layer(nn.Module):
    """Attention and two Linears, each with a norm and a residual."""

    def __init__(self, form: Form, bias: bool) -> None:
        super().__init__()
        self.attention, self.norm1, self.norm2 = Attention(form, bias), nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.fc1, self.fc2 = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        x = self.norm1(x + self.attention(x, bias))
        return self.norm2(x + self.fc2(F.gelu(self.fc1(x))))


class Encoder(nn.Module):
    """ids, i64[batch, tokens], and a mask of ones where they count -> f32[batch, tokens, 8]."""

    def __init__(self, form: Form = "sdpa", layers: int = 1, bias: bool = True) -> None:
        super().__init__()
        self.embedding, self.positions = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(64, WIDTH)
        self.layers = nn.ModuleList(Layer(form, bias) for _ in range(layers))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.embedding(input_ids) + self.positions(torch.arange(input_ids.size(1)))
        bias = torch.where(attention_mask == 0, -1e30, 0.0)[:, None, None, :]
        for layer in self.layers:
            x = layer(x, bias)
        return x


def encoder(form: Form = "sdpa", layers: int = 1, bias: bool = True) -> Encoder:
    """In eval mode, without gradients."""
    return Encoder(form, layers, bias).eval().requires_grad_(False)


def padded(lengths: list[int], tokens: int, left: bool = False) -> dict[str, Tensor]:
    """Random ids and the mask of samples with these lengths."""
    place, ends = torch.arange(tokens), torch.tensor(lengths)[:, None]
    live = place >= tokens - ends if left else place < ends
    return {"input_ids": torch.randint(VOCABULARY, live.shape) * live, "attention_mask": live.long()}


class Decoder(nn.Module):
    """A sequence that reads another one, of another length."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, target: Tensor, source: Tensor, source_mask: Tensor) -> tuple[Tensor, Tensor]:
        keys = self.key(source)
        scores = self.query(target) @ keys.transpose(1, 2)
        seen = torch.where(source_mask[:, None] == 0, -1e30, scores)
        return target + seen.softmax(-1) @ keys, keys


def two_sequences() -> dict[str, Tensor]:
    """For `Decoder`: of five tokens each, by chance."""
    return {"target": torch.randn(2, 5, WIDTH), "source": torch.randn(2, 5, WIDTH), "source_mask": torch.ones(2, 5)}
