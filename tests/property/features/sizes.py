"""What a module may compute from the sizes of its inputs; each way changes the output."""

from __future__ import annotations

from tests.property.draft import BATCH, DOCS, TOKENS, Draft
from tests.property.features.base import Feature, sized


def _len(d: Draft) -> None:
    d.part(f"h = h / len({d.rng.choice([a.name for a in d.required])})")


def _reshape(d: Draft) -> None:
    shapes = ["h.shape[0], -1, 4", "*h.shape[:-1], 4, h.shape[-1] // 4"]
    d.part(f"h = torch.tanh(h.reshape({d.rng.choice(shapes)})).cumsum(-1).reshape(h.shape)")


def _loop(d: Draft) -> None:
    name, axis = d.sized()
    layer = d.layer("nn.Linear(16, 16)")
    index = ", ".join([":"] * axis + ["i"])
    step = f"{name}[{index}].to(h.dtype).mean()"
    d.part(f"for i in range({name}.size({axis})):", f"    h = 0.9 * h + torch.tanh({layer}(h)) * {step}")


def _limit(d: Draft) -> None:
    """Sizes that the module refuses."""
    name, axis = d.sized()
    most = {BATCH: 9, TOKENS: 11, DOCS: 8}[next(a for a in d.required if a.name == name).value.axes[axis]]
    d.part(f"if {name}.shape[{axis}] > {most}:", f"    raise ValueError('{name} is too long')")


def _positions(d: Draft) -> None:
    table = d.layer("nn.Embedding(11, 16)", "positions")
    d.part(f"h = h + {table}(torch.arange(h.size(1)))")


FEATURES = (
    Feature("len()", 0.09, _len, lambda d: any(isinstance(a.value.axes[0], str) for a in d.required)),
    sized("shape[]", 0.09, "h = h * {t}.shape[{a}]", "h = h / (1 + {t}.shape[{a}]) + 0.1"),
    sized("size()", 0.09, "h = h + 0.1 * {t}.size({a})"),
    sized("numel()", 0.08, "h = h * (1 + {t}.numel() / 64)"),
    sized(
        "arithmetic of sizes",
        0.08,
        "h = h * {t}.size({a}) ** -0.5",
        "h = h * math.sqrt({t}.size({a}))",
        "h = h * max({t}.size({a}), 5)",
        "h = h * float({t}.size({a}) // 2)",
    ),
    Feature("reshape by sizes", 0.08, _reshape),
    sized(
        "tensor made by a size",
        0.08,
        "h = h + h.new_ones({t}.size({a})).sum()",
        "h = h + torch.arange({t}.size({a})).to(h.dtype).mean()",
        "h = h + h.new_full((1,), {t}.size({a})).expand(16)",
    ),
    Feature("loop over an axis", 0.07, _loop),
    sized(
        "branch on a size",
        0.08,
        *(f"if {{t}}.shape[{{a}}] {test}:\n    h = 2 * h + 1" for test in ("> 8", "% 2", "% 2 == 0", "< 4")),
    ),
    Feature("limit of a size", 0.07, _limit),
    Feature("table of positions", 0.16, _positions, lambda d: d.tokens),
)
