"""What the real encoders share: token ids to a padded batch, and a backbone's tokens to one vector per sequence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.models.packages import require

PAD = 0  # the pad id of every vocabulary used here


class SequenceEncoder(nn.Module):
    """A Hugging Face encoder as it is, then the mean over live tokens, scaled to length 1.

    Args:
        backbone: Called with `input_ids` and `attention_mask`; its output has `last_hidden_state`.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """i64[batch, tokens] twice -> f32[batch, width]."""
        tokens = self.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        live = attention_mask.unsqueeze(-1).to(tokens.dtype)
        return F.normalize((tokens * live).sum(1) / live.sum(1).clamp(min=1.0), dim=1)


def pad(ids: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """`input_ids` and `attention_mask`, i64[batch, longest], padded on the right."""
    longest = max(map(len, ids))
    return {
        "input_ids": torch.tensor([[*row, *[PAD] * (longest - len(row))] for row in ids]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids]),
    }


def read_vocabulary(path: Path) -> dict[str, int]:
    """One token a line; its id is the line's number."""
    return {token: i for i, token in enumerate(path.read_text(encoding="utf-8").splitlines())}


def random_encoder(layers: int, width: int, vocabulary: int, tokens: int, seed: int = 0) -> SequenceEncoder:
    """Return Hugging Face's `RobertaModel` with mean pooling and random weights, in eval mode: 12 layers of 768 are RoBERTa-base's.

    Args:
        layers: each with 12 heads and four times the width inside.
        width: a multiple of 12.
        vocabulary: ids, of which `PAD` is padding.
        tokens: of the longest sequence.
        seed: of the weights.

    Raises:
        CaseUnavailableError: a package is missing.
    """
    require("padding")
    from transformers import AutoModel, RobertaConfig

    shape: dict[str, Any] = {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": 12,
        "intermediate_size": 4 * width,
    }
    places = tokens + PAD + 1  # its positions are counted from behind the id of padding
    config = RobertaConfig(vocab_size=vocabulary, max_position_embeddings=places, pad_token_id=PAD, **shape)
    auto: Any = AutoModel  # its methods are not annotated
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SequenceEncoder(auto.from_config(config, attn_implementation="sdpa")).eval()


def load_encoder(folder: Path, state: Mapping[str, Tensor], prefix: str = "") -> SequenceEncoder:
    """The Hugging Face class that `config.json` in `folder` names, with the weights under `prefix`, in eval mode.

    What else the checkpoint holds (the heads it was trained with) is left out, and so are the `position_ids` that older versions
    saved: they are no weights, they count 0, 1, 2, and so on.
    """
    from transformers import AutoConfig, AutoModel

    auto: Any = AutoModel  # its methods are not annotated
    backbone = auto.from_config(AutoConfig.from_pretrained(folder, local_files_only=True), attn_implementation="sdpa")
    own = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
    backbone.load_state_dict({n: t for n, t in own.items() if not n.endswith("position_ids")})
    return SequenceEncoder(backbone).eval()
