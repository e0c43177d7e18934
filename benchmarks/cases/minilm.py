"""A real sentence encoder on real sentences: all-MiniLM-L6-v2, pooled embeddings, and a trained head for agreement."""

from __future__ import annotations

from benchmarks.cases.encoder import BUDGETS, CALIBRATION, CERTIFIED, encoder_case
from benchmarks.cases.options import CaseOptions
from benchmarks.models import minilm as model
from benchmarks.models.text import split, tokenize
from dendrofx.compare.case import Case


def minilm(options: CaseOptions) -> Case:
    """256 calibration sentences and 384 for testing, of other documents; the head was trained on yet others."""
    _, others = model.load_data()
    calibration, test = split(others, CERTIFIED if options.certified else CALIBRATION)
    return encoder_case(
        "minilm",
        "all-MiniLM-L6-v2 (6 layers, 384 wide), mean-pooled embeddings, on rated sentences of 4 domains",
        model.load_classifier() if options.decides else model.load_model(),
        tokenize([s.text for s in calibration]),
        tokenize([s.text for s in test]),
        options,
        head=None if options.decides else model.load_head(),
        budgets=BUDGETS,
    )
