"""tiara's first-stage DNA classifier (k = 6) and the DNA sequences that come with it.

K. Karlicki et al., "Tiara: deep learning-based classification system for eukaryotic sequences", Bioinformatics 38(2), 2022;
package tiara 1.0.2, MIT. Only its files are read: weights, tf-idf model and FASTA test data. The model is taken up to its
logits, because a softmax hides deviation.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from benchmarks.models.packages import require

K = 6
FRAGMENT = 5000  # bases, tiara's own default
KINDS = ("archaea", "bacteria", "eukarya", "mitochondria", "plast")


def load_model() -> nn.Sequential:
    """4096 -> 2048 -> 1024 -> 5 logits with ReLU between, in eval mode."""
    state = torch.load(
        require("tiara") / f"models/nnet-models/first_nnet_kmer_{K}.pkl", map_location="cpu", weights_only=True
    )
    weights = [v.float() for name, v in state.items() if name.endswith("weight")]
    biases = [v.float() for name, v in state.items() if name.endswith("bias")]
    layers: list[nn.Module] = []
    for weight, bias in zip(weights, biases, strict=True):
        linear = nn.Linear(weight.size(1), weight.size(0))
        linear.load_state_dict({"weight": weight, "bias": bias})
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1]).eval()


def load_fragments() -> tuple[Tensor, Tensor]:
    """Features of every whole fragment, and the FASTA record it was cut from: f32[N, 4096] and i64[N]."""
    package = require("tiara")
    idf = np.load(package / f"models/tfidf-models/k{K}-first-stage/model.npy").astype(np.float32)
    rows: list[npt.NDArray[np.float32]] = []
    records: list[int] = []
    number = 0
    for kind in KINDS:
        for sequence in _read_fasta(package / f"test/test_data/{kind}_fr.fasta"):
            for start in range(0, len(sequence) - FRAGMENT + 1, FRAGMENT):
                rows.append(_kmer_tfidf(sequence[start : start + FRAGMENT], idf))
                records.append(number)
            number += 1
    return torch.from_numpy(np.stack(rows)), torch.tensor(records)


def _read_fasta(path: Path) -> Iterator[npt.NDArray[np.int64]]:
    """Each record's bases as 0 .. 3, 255 for anything else."""
    code = np.full(256, 255, np.int64)
    code[np.frombuffer(b"ACGT", np.uint8)] = np.arange(4)
    for record in path.read_bytes().split(b">")[1:]:
        letters = record.partition(b"\n")[2].replace(b"\n", b"").upper()
        yield code[np.frombuffer(letters, np.uint8)]


def _kmer_tfidf(bases: npt.NDArray[np.int64], idf: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Counts of the 4^k words, times idf, scaled to length 1; words with an unknown base are skipped."""
    windows = np.lib.stride_tricks.sliding_window_view(bases, K)
    known = windows[(windows < 4).all(1)]
    words = known @ (4 ** np.arange(K - 1, -1, -1))
    counts = np.bincount(words, minlength=4**K).astype(np.float32) * idf
    return np.asarray(counts / max(float(np.linalg.norm(counts)), 1e-9), dtype=np.float32)
