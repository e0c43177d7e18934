"""The default case: handwritten digits and a small residual MLP, both in the repository."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from benchmarks.cases.digits_picture import NOTE, draw_digits
from benchmarks.cases.options import CaseOptions
from benchmarks.models.digits import TRAIN, load_data, load_model
from dendrofx.compare.case import Case, Picture
from dendrofx.compare.samples import Rows

CALIBRATION = 600
DECISIONS = "flip:0.02:0.95"  # one flip of 300 test samples shows it


def decisions(options: CaseOptions) -> Case:
    """The same, its decisions certified: which of them are easy is what the picture shows."""
    same = digits(options)
    return replace(same, name="digits-decisions", certified=DECISIONS, batch_sizes=(256,))


def digits(options: CaseOptions) -> Case:
    """600 calibration and 400 test digits, none of which the model was trained on."""
    images, _ = load_data()
    seen, test = images[TRAIN : TRAIN + CALIBRATION], images[TRAIN + CALIBRATION :]
    title = "residual ReLU MLP, 64 -> 3 x (256 -> 1024 -> 256) -> 10, on 8 x 8 handwritten digits"
    model = load_model()
    picture = Picture("images", partial(draw_digits, model, test), NOTE)
    return Case("digits", title, model, [seen], Rows(test), classes=True, pictures=(picture,), batch_sizes=(256,))
