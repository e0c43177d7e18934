"""The features of random modules, and the drawing of a module from them."""

from __future__ import annotations

from collections.abc import Callable

from tests.property.draft import Draft
from tests.property.features import arguments, inputs, modules, outputs, sizes, values
from tests.property.features.base import Feature

# In this order: what is read, how, what is changed, what is returned, and what sits on the built module.
FEATURES: dict[str, Feature] = {
    f.name: f
    for group in (inputs, arguments, sizes, values, modules, outputs)
    for f in group.FEATURES
}  # fmt: skip


def draw(number: int, allowed: Callable[[Feature], bool] = lambda _: True) -> Draft:
    """The module of a seed.

    Example:
        >>> print(draw(0).source())
    """
    draft = Draft(number)
    inputs.first(draft)
    for feature in FEATURES.values():
        chosen = draft.rng.random() < feature.share  # drawn whether it fits or not
        if chosen and allowed(feature) and feature.fits(draft):
            draft.features.append(feature.name)
            feature.write(draft)
    if len(draft.required) < 2:
        inputs.second(draft)
    if not any(a.place == "keyword" for a in draft.arguments) and draft.has("by keyword only"):
        draft.features.remove("by keyword only")
    draft.rng.shuffle(draft.parts)
    outputs.form(draft)
    return draft
