"""Transformers from configurations, with random weights: for their structure alone, never for a figure.

Five families of Hugging Face's, each with both of its attentions that run on a CPU, and torch's own `nn.TransformerEncoder`.
The classes are used as they are, with their own output dataclasses.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

HIDDEN, LAYERS, HEADS, INNER, VOCABULARY, POSITIONS = 64, 2, 4, 128, 100, 128
IMAGE, PATCH = 32, 8
Side = Literal["left", "right"]
SIDES: tuple[Side, Side] = ("left", "right")
ATTENTIONS = ("eager", "sdpa")
ENCODER = "transformer-encoder"


def families() -> dict[str, Callable[[], nn.Module]]:
    """Name -> a function that builds the model, in eval mode and with the same weights each time.

    The names are `bert-eager`, `bert-sdpa`, `distilbert-eager`, and so on; `transformer-encoder` is torch's own.
    """
    made: dict[str, Callable[[], nn.Module]] = {}
    for family in ("bert", "distilbert", "vit", "gpt2", "llama"):
        for attention in ATTENTIONS:
            made[f"{family}-{attention}"] = partial(_seeded, partial(_hugging_face, family, attention))
    made[ENCODER] = partial(_seeded, _encoder)
    return made


def example_inputs(name: str, batch: int, tokens: int, side: Side = "right") -> dict[str, Tensor]:
    """Keyword inputs: ids and a mask whose rows have different lengths, padded on `side`; the first row is full.

    ViT takes images without a mask and its number of tokens follows from them; `nn.TransformerEncoder` takes embeddings, and
    a mask that is true at padding.
    """
    generator = torch.Generator().manual_seed(batch * 1000 + tokens)
    if name.startswith("vit"):
        return {"pixel_values": torch.randn(batch, 3, IMAGE, IMAGE, generator=generator)}
    lengths = torch.randint(1, tokens + 1, (batch, 1), generator=generator)
    lengths[0] = tokens
    place = torch.arange(tokens)
    live = place < lengths if side == "right" else place >= tokens - lengths
    if name == ENCODER:
        return {"src": torch.randn(batch, tokens, HIDDEN, generator=generator), "src_key_padding_mask": ~live}
    ids = torch.randint(1, VOCABULARY, (batch, tokens), generator=generator)
    return {"input_ids": ids * live, "attention_mask": live.long()}


def _seeded(build: Callable[[], nn.Module]) -> nn.Module:
    """The same weights each time, and the caller's random numbers untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build().eval()


def _encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(HIDDEN, HEADS, INNER, batch_first=True)
    return nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)


def _hugging_face(family: str, attention: str) -> nn.Module:
    import transformers as hf

    text = {"vocab_size": VOCABULARY, "max_position_embeddings": POSITIONS}
    image = {"image_size": IMAGE, "patch_size": PATCH}
    decoder = {"use_cache": False, "bos_token_id": 0, "eos_token_id": 0}
    kinds: dict[str, tuple[Any, dict[str, Any]]] = {
        "bert": (hf.BertConfig, {**text, "intermediate_size": INNER}),
        "distilbert": (hf.DistilBertConfig, {**text, "hidden_dim": INNER}),
        "vit": (hf.ViTConfig, {**image, "intermediate_size": INNER}),
        "gpt2": (hf.GPT2Config, {**text, **decoder, "n_inner": INNER}),
        "llama": (hf.LlamaConfig, {**text, **decoder, "intermediate_size": INNER, "num_key_value_heads": HEADS // 2}),
    }
    kind, options = kinds[family]
    config = kind(hidden_size=HIDDEN, num_hidden_layers=LAYERS, num_attention_heads=HEADS, **options)
    auto: Any = hf.AutoModel  # its methods are not annotated
    model: nn.Module = auto.from_config(config, attn_implementation=attention)
    return model
