"""The tensors that every call gives: the first that `h` is made of, and one or two more with axes of their own."""

from __future__ import annotations

from tests.property.draft import BATCH, DOCS, TOKENS, WIDTH, Argument, Draft, Slot
from tests.property.features.base import Feature

STEM = f"nn.Sequential(nn.Linear({WIDTH}, 32), nn.ReLU(), nn.Linear(32, {WIDTH}))"


def first(d: Draft) -> None:
    """The first input and the stem."""
    d.init.append(f"self.stem = {STEM}")
    axes = (BATCH, TOKENS) if d.rng.random() < 0.5 else (BATCH,)
    if len(axes) == 2:
        d.features.append("axis of tokens")
    if d.rng.random() < 0.15:
        d.features.append("embedding of ids")
        d.init.append(f"self.table = nn.Embedding(32, {WIDTH})")
        d.arguments.append(Argument("ids", Slot(axes, "ids")))
        d.prologue.append("h = self.stem(self.table(ids))")
    else:
        d.arguments.append(Argument("x", Slot((*axes, WIDTH))))
        d.prologue.append("h = self.stem(x)")


def second(d: Draft) -> None:
    """One more, where nothing else made one."""
    feature = d.rng.choice([f for f in FEATURES if f.fits(d)])
    d.features.append(feature.name)
    feature.write(d)


def _pair(d: Draft) -> None:
    d.arguments.append(Argument("y", Slot((BATCH, WIDTH))))
    layer = d.layer(f"nn.Linear({WIDTH}, {WIDTH})")
    d.part(f"h = h + {d.rows(f'{layer}(y)', 2)}")


def _docs(d: Draft) -> None:
    d.arguments.append(Argument("docs", Slot((DOCS, WIDTH))))
    layer = d.layer(f"nn.Linear({WIDTH}, {WIDTH})")
    d.part(f"h = h + (h @ {layer}(docs).t()).softmax(-1) @ docs")


def _shared(d: Draft) -> None:
    rows = d.rng.random() < 0.5
    d.arguments.append(Argument("shared", Slot((4, WIDTH) if rows else (WIDTH,))))
    d.part("h = h + torch.tanh(h @ shared.t()) @ shared" if rows else "h = h + shared")


def _mask(d: Draft) -> None:
    d.arguments.append(Argument("mask", Slot((BATCH, TOKENS) if d.tokens else (BATCH,), "mask")))
    d.part(
        d.rng.choice(["h = h.masked_fill(~mask[..., None], 0.1)", "h = h * (1 + mask[..., None])"]),
    )


def _room(d: Draft) -> bool:
    return len(d.required) < 3


FEATURES = (
    Feature("input of the same batch", 0.3, _pair, _room),
    Feature("input with an axis of its own", 0.3, _docs, _room),
    Feature("input that all samples share", 0.2, _shared, _room),
    Feature("mask", 0.2, _mask, _room),
)
