"""What a module may compute from the sizes of its inputs; each way changes the output."""

from __future__ import annotations

from tests.property.draft import BATCH, DOCS, TOKENS, Draft
from tests.property.features.base import Feature


def _len(d: Draft) -> None:
    d.part(f"h = h / len({d.rng.choice([a.name for a in d.required])})")


def _shape(d: Draft) -> None:
    name, axis = d.sized()
    d.part(d.rng.choice([f"h = h * {name}.shape[{axis}]", f"h = h / (1 + {name}.shape[{axis}]) + 0.1"]))


def _size(d: Draft) -> None:
    name, axis = d.sized()
    d.part(f"h = h + 0.1 * {name}.size({axis})")


def _numel(d: Draft) -> None:
    name, _ = d.sized()
    d.part(f"h = h * (1 + {name}.numel() / 64)")


def _math(d: Draft) -> None:
    name, axis = d.sized()
    size = f"{name}.size({axis})"
    d.part(
        f"h = h * {d.rng.choice([f'{size} ** -0.5', f'math.sqrt({size})', f'max({size}, 5)', f'float({size} // 2)'])}"
    )


def _reshape(d: Draft) -> None:
    shapes = ["h.shape[0], -1, 4", "*h.shape[:-1], 4, h.shape[-1] // 4"]
    d.part(f"h = torch.tanh(h.reshape({d.rng.choice(shapes)})).cumsum(-1).reshape(h.shape)")


def _made(d: Draft) -> None:
    """A tensor made with a size."""
    name, axis = d.sized()
    size = f"{name}.size({axis})"
    made = [
        f"h.new_ones({size}).sum()",
        f"torch.arange({size}).to(h.dtype).mean()",
        f"h.new_full((1,), {size}).expand(16)",
    ]
    d.part(f"h = h + {d.rng.choice(made)}")


def _loop(d: Draft) -> None:
    name, axis = d.sized()
    layer = d.layer("nn.Linear(16, 16)")
    index = ", ".join([":"] * axis + ["i"])
    step = f"{name}[{index}].to(h.dtype).mean()"
    d.part(f"for i in range({name}.size({axis})):", f"    h = 0.9 * h + torch.tanh({layer}(h)) * {step}")


def _branch(d: Draft) -> None:
    name, axis = d.sized()
    size = f"{name}.shape[{axis}]"
    d.part(
        f"if {d.rng.choice([f'{size} > 8', f'{size} % 2', f'{size} % 2 == 0', f'{size} < 4'])}:", "    h = 2 * h + 1"
    )


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
    Feature("shape[]", 0.09, _shape),
    Feature("size()", 0.09, _size),
    Feature("numel()", 0.08, _numel),
    Feature("arithmetic of sizes", 0.08, _math),
    Feature("reshape by sizes", 0.08, _reshape),
    Feature("tensor made by a size", 0.08, _made),
    Feature("loop over an axis", 0.07, _loop),
    Feature("branch on a size", 0.08, _branch),
    Feature("limit of a size", 0.07, _limit),
    Feature("table of positions", 0.16, _positions, lambda d: d.tokens),
)
