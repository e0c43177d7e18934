"""Digits end to end: transform a trained model, measure it on digits of no other use, save it, and load it without dendrofx.

    python examples/digits.py

The model (1.6 M weights) and the data (8 x 8 handwritten digits) are in the repository; it takes about half a minute.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dendrofx

DATA = Path(__file__).parent.parent / "benchmarks" / "data"


class Digits(nn.Module):
    """64 pixels -> 256 -> three residual blocks of 1024 hidden units -> 10 logits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(64, 256), nn.Linear(256, 10)
        self.blocks = nn.ModuleList(
            nn.ModuleDict({"fc1": nn.Linear(256, 1024), "fc2": nn.Linear(1024, 256)}) for _ in range(3)
        )

    def forward(self, x: Tensor) -> Tensor:
        """f32[N, 64] -> f32[N, 10]."""
        x = F.relu(self.stem(x))
        for block in self.blocks:
            x = x + block["fc2"](F.relu(block["fc1"](x)))
        return self.head(x)


def load() -> tuple[nn.Module, Tensor, Tensor]:
    """Load the trained model, 600 calibration digits and 400 others; it was trained on neither."""
    model = Digits()
    weights = np.load(DATA / "digits_weights.npz")
    model.load_state_dict({name: torch.from_numpy(weights[name]).float() for name in weights.files})
    images = torch.from_numpy(np.load(DATA / "digits.npz")["images"]).float() / 16
    images = images[torch.randperm(len(images), generator=torch.Generator().manual_seed(0))]
    return model.eval(), images[797:1397], images[1397:]


if __name__ == "__main__":
    model, calibration, test = load()
    counted = dendrofx.Options(tune_seconds=0)  # leave it out to have candidates timed on this machine
    routed = dendrofx.transform(model, calibration=[calibration], budget=0.01, batch_sizes=[256], options=counted)
    print(routed.plan)
    got, wanted = routed(test), model(test)
    deviation = ((got - wanted).norm(dim=1) / wanted.norm(dim=1)).mean()
    print(f"mean deviation {deviation:.2%}, same answer {(got.argmax(1) == wanted.argmax(1)).float().mean():.1%}")
    dendrofx.save(routed, "digits.pt")
    torch.testing.assert_close(torch.jit.load("digits.pt")(test), got)
    print("wrote digits.pt, which loads with torch alone")
