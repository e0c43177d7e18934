"""AntiBERTy, a BERT of eight layers over the amino acids of antibodies, and germline antibody sequences.

J. A. Ruffolo et al., "Deciphering antibody affinity maturation with language models and weakly supervised learning", 2021;
package antiberty 0.1.3, MIT. The sequences are the V genes in the package anarci 2026.2.13.2 (BSD 3-clause; J. Dunbar and
C. M. Deane, "ANARCI", Bioinformatics 32(2), 2016), which has them from IMGT. Only the files of both are read.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass

import torch

from benchmarks.models.encoder import SequenceEncoder, load_encoder, read_vocabulary
from benchmarks.models.packages import package_dir, require

CHAINS = {"H": "heavy", "K": "kappa", "L": "lambda"}  # the other letters stand for T-cell receptors


@dataclass(frozen=True)
class Sequence:
    """One germline V gene: chain, species, its name in IMGT, and its amino acids."""

    chain: str
    species: str
    gene: str
    residues: str


def load_model() -> SequenceEncoder:
    """Hugging Face's own `BertModel` with mean pooling: f32[batch, 512] of length 1, in eval mode.

    Raises:
        CaseUnavailableError: A package is missing.
    """
    folder = require("antiberty") / "trained_models/AntiBERTy_md_smooth"
    state = torch.load(folder / "pytorch_model.bin", map_location="cpu", weights_only=True)
    return load_encoder(folder, state, prefix="bert.")


def load_sequences() -> list[Sequence]:
    """Every V gene of an antibody chain with a sequence of its own, in the file's order.

    Raises:
        CaseUnavailableError: A package is missing.
    """
    require("antiberty")
    source = ast.parse((package_dir("anarci") / "germlines.py").read_text(encoding="utf-8"))
    (assignment,) = (node for node in source.body if isinstance(node, ast.Assign))
    genes = ast.literal_eval(assignment.value)["V"]
    found: dict[str, Sequence] = {}
    for letter, chain in CHAINS.items():
        for species, aligned in genes[letter].items():
            for gene, row in aligned.items():
                residues = row.replace("-", "")  # gaps of the alignment
                found.setdefault(residues, Sequence(chain, species, gene, residues))
    return list(found.values())


def tokenize(sequences: list[str]) -> list[list[int]]:
    """One token per amino acid, between the marks at start and end."""
    vocabulary = read_vocabulary(require("antiberty") / "trained_models/vocab.txt")
    unknown, start, end = (vocabulary[mark] for mark in ("[UNK]", "[CLS]", "[SEP]"))
    return [[start, *(vocabulary.get(letter, unknown) for letter in sequence), end] for sequence in sequences]
