"""The embedded default: a residual ReLU MLP on 8 x 8 handwritten digits.

`python -m benchmarks.models.digits` trains it from the seed and writes `benchmarks/data/digits_weights.npz` again, in about
half a minute. The data, `benchmarks/data/digits.npz`, are the 1797 test digits of the UCI set "Optical Recognition of
Handwritten Digits" (E. Alpaydin and C. Kaynak, 1998, CC BY 4.0), as scikit-learn ships them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

DATA = Path(__file__).parent.parent / "data" / "digits.npz"
WEIGHTS = Path(__file__).parent.parent / "data" / "digits_weights.npz"
SEED = 0
TRAIN = 797  # digits the model is trained on; no other use sees them
EPOCHS = 150
RATE, DECAY = 4e-3, 1.0  # strong weight decay: the blocks end up compressible, as large trained models are


class Block(nn.Module):
    """`x + fc2(relu(fc1(x)))`."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """f32[N, width] -> f32[N, width]."""
        return x + self.fc2(F.relu(self.fc1(x)))  # type: ignore[no-any-return]


class ResidualMLP(nn.Module):
    """64 pixels -> 256 -> three residual blocks of 1024 hidden units -> 10 logits; 1.6 M parameters."""

    def __init__(self, width: int = 256, hidden: int = 1024, depth: int = 3) -> None:
        super().__init__()
        self.stem = nn.Linear(64, width)
        self.blocks = nn.ModuleList(Block(width, hidden) for _ in range(depth))
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """f32[N, 64], pixels in [0, 1] -> f32[N, 10] logits."""
        x = F.relu(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return self.head(x)  # type: ignore[no-any-return]


def load_data() -> tuple[Tensor, Tensor]:
    """All digits in a seeded order, f32[1797, 64] in [0, 1] and i64[1797]; the first `TRAIN` are the training set."""
    with np.load(DATA) as data:
        images, labels = torch.from_numpy(data["images"]).float() / 16, torch.from_numpy(data["labels"]).long()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(SEED))
    return images[order], labels[order]


def load_model() -> ResidualMLP:
    """The trained model, in eval mode. Its weights are kept in half precision, which is the model that is measured."""
    model = ResidualMLP()
    with np.load(WEIGHTS) as weights:
        model.load_state_dict({name: torch.from_numpy(weights[name]).float() for name in weights.files})
    return model.eval()


def _shifted(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each 8 x 8 image moved by up to one pixel, so that 797 digits suffice."""
    padded = F.pad(images.view(-1, 8, 8), (1, 1, 1, 1))
    down, right = torch.randint(0, 3, (2, len(images)), generator=generator)
    rows = down[:, None] + torch.arange(8)
    columns = right[:, None] + torch.arange(8)
    return padded[torch.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None, :]].flatten(1)


def train() -> ResidualMLP:
    """Train from the seed on one thread, so that the same machine gives the same weights."""
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    images, labels = load_data()
    model = ResidualMLP().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=EPOCHS * -(-TRAIN // 64))
    for _ in range(EPOCHS):
        for index in torch.randperm(TRAIN, generator=generator).split(64):
            loss = F.cross_entropy(model(_shifted(images[index], generator)), labels[index], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def main() -> None:
    """Train, write the weights and print the accuracy on the digits that training did not see."""
    model = train()
    np.savez_compressed(WEIGHTS, **{n: t.detach().half().numpy() for n, t in model.state_dict().items()})
    images, labels = load_data()
    with torch.no_grad():
        right = (load_model()(images[TRAIN:]).argmax(1) == labels[TRAIN:]).float().mean()
    print(f"accuracy on {len(images) - TRAIN} other digits: {100 * float(right):.1f} %; wrote {WEIGHTS}")


if __name__ == "__main__":
    main()
