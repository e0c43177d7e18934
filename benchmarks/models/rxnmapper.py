"""RXNMapper's ALBERT over chemical reactions: one layer, called twelve times.

P. Schwaller et al., "Extraction of organic chemistry grammar from unsupervised learning of chemical reactions", Science Advances
7(15), 2021; package rxnmapper 0.4.3, MIT, of which only the files are read. The reactions are synthetic: formed by three
textbook rules from common building blocks.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

import torch

from benchmarks.models.encoder import SequenceEncoder, load_encoder, read_vocabulary
from benchmarks.models.packages import require

FOLDER = "models/transformers/albert_heads_8_uspto_all_1310k"
# The pattern of P. Schwaller et al., "Molecular Transformer", ACS Central Science 5(9), 2019, in the form that the package
# uses (`rxnmapper/smiles_utils.py`): the model was trained on these tokens.
TOKEN = re.compile(
    r"(\[[^\]]+]|Br?|Cl?|N|O|S|P|F|I|b|c|n|o|s|p|\(|\)|\.|=|#|-|\+|\\|\/|:|~|@|\?|>>?|\*|\$|\%[0-9]{2}|[0-9])"
)
# Groups as SMILES that start at the atom by which they are bound.
ALKYLS = ["C", "CC", "C(C)C", "CCCC", "CC(C)C", "C1CCCCC1", "CCOC", "CCc1ccccc1", "CC(F)(F)F", "CCN1CCOCC1"]
ARYLS = [
    "c1ccccc1",
    "c1ccc(F)cc1",
    "c1ccc(OC)cc1",
    "c1cccc(C#N)c1",
    "c1cccnc1",
    "c1ccsc1",
    "c1ccc2ccccc2c1",
    "c1ccc(C(F)(F)F)cc1",
]
SOLVENTS = ["CN(C)C=O", "ClCCl", "C1COCCO1", "CCOC(C)=O"]


def load_model() -> SequenceEncoder:
    """Hugging Face's own `AlbertModel` with mean pooling: f32[batch, 256] of length 1, in eval mode.

    Raises:
        CaseUnavailableError: A package is missing.
    """
    folder = require("rxnmapper") / FOLDER
    state = torch.load(folder / "pytorch_model.bin", map_location="cpu", weights_only=True)
    return load_encoder(folder, state, prefix="albert.")


def synthetic_reactions() -> list[str]:
    """Reaction SMILES, `reactants and solvent >> product`, in a seeded order."""
    made = sorted({*_amides(), *_esters(), *_biaryls()})
    order = torch.randperm(len(made), generator=torch.Generator().manual_seed(0))
    return [made[i] for i in order.tolist()]


def _amides() -> Iterator[str]:
    """An acid chloride and an amine."""
    for acid, amine, solvent in itertools.product(ARYLS, ALKYLS, SOLVENTS):
        yield f"ClC(=O){acid}.N{amine}.CCN(CC)CC.{solvent}>>O=C(N{amine}){acid}"


def _esters() -> Iterator[str]:
    """An acid and an alcohol, with sulfuric acid."""
    for acid, alcohol in itertools.product([*ALKYLS, *ARYLS], ALKYLS):
        yield f"OC(=O){acid}.O{alcohol}.O=S(=O)(O)O>>O=C(O{alcohol}){acid}"


def _biaryls() -> Iterator[str]:
    """Suzuki coupling of an aryl bromide and a boronic acid."""
    for left, right, solvent in itertools.product(ARYLS, ARYLS, SOLVENTS):
        branch = right.translate(str.maketrans("12", "34"))  # the left one's rings are open where it is written
        yield f"Br{left}.OB(O){right}.O=C([O-])[O-].[K+].[K+].{solvent}>>{left[:2]}(-{branch}){left[2:]}"


def tokenize(reactions: list[str]) -> list[list[int]]:
    """The tokens of each reaction, between the marks at start and end."""
    vocabulary = read_vocabulary(require("rxnmapper") / FOLDER / "vocab.txt")
    unknown, start, end = (vocabulary[mark] for mark in ("[UNK]", "[CLS]", "[SEP]"))
    return [[start, *(vocabulary.get(token, unknown) for token in TOKEN.findall(text)), end] for text in reactions]
