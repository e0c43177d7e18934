"""The search space: the light forms and gates that are tried when the caller names none."""

from __future__ import annotations

from dataclasses import replace

from dendrofx.gates import EnergyGate, GateForm, LearnedGate, NoiseGate, ResidualGate
from dendrofx.graph.block import BlockData
from dendrofx.light import BFloat16, Int8, LightForm, LowRank, Precision, Pruned
from dendrofx.machine.capability import capability

# Candidates, as shares of the widest useful rank (that at which a factored Linear costs what the Linear costs).
RANK_SHARES = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2)
ENERGIES = (0.9, 0.97, 0.99, 0.997, 0.999, 0.9995, 0.9998, 0.9999, 1.0)
SMOOTH = 0.5  # the published default


def default_lights(data: BlockData, many: bool = False) -> list[LightForm]:
    """Return the light forms that are tried when the caller names none: as they are, and in this CPU's best precision.

    Args:
        data: the site's block and rows.
        many: the model has many sites, and no shortlist. Then precisions are tried alone: they take no fitting, and the other
            forms would take minutes.
    """
    low = default_precisions()
    if many and data.rows is not None:
        return [*low, *[replace(f, smooth=SMOOTH) for f in low if isinstance(f, Int8)]]
    best = low[0] if low else None
    widest = max(w.in_features * w.out_features // (w.in_features + w.out_features) for w in data.linears)
    ranks = sorted({max(int(widest * share), 1) for share in RANK_SHARES})
    if data.rows is None:
        # what has a proven bound; low precision has an estimate, and is used without data only when named
        return [LowRank(rank) for rank in ranks]
    lights: list[LightForm] = [*low, *[replace(f, smooth=SMOOTH) for f in low if isinstance(f, Int8)]]
    for precision in dict.fromkeys([None, best]):
        lights += [LowRank(rank, "whitened", precision) for rank in ranks]
        lights += [LowRank(rank, "input", precision) for rank in ranks[1::2]]
        if len(data.linears) > 1:
            lights += [Pruned(energy, precision=precision) for energy in ENERGIES]
            lights += [Pruned(energy, 1e-3, precision) for energy in ENERGIES[:-1]]
    return lights


def default_gates(data: BlockData, many: bool = False) -> list[GateForm]:
    """Return the gates that are tried when the caller names none.

    Args:
        data: the site's block and rows. Without rows, the gates that need none.
        many: the model has many sites. Then none reads a light branch's output that is wider than its input: fitting it takes as
            long as all the others, and it costs more than one that reads the input.
    """
    gates = [
        ResidualGate(),
        NoiseGate(),
        EnergyGate(),
        LearnedGate(),
        LearnedGate(reads="light"),
        LearnedGate(reads="scales"),
    ]
    wide = data.linears[-1].out_features > data.linears[0].in_features
    return [
        g for g in gates if (data.rows is not None or not g.needs_rows) and not (many and wide and g.reads == "light")
    ]


def default_precisions() -> list[Precision]:
    """Return the low precisions that this CPU has fast products for, the fastest first."""
    here = capability()
    eight: list[Precision] = [Int8(weight_bits=7)] if here.fbgemm else []
    if here.vnni and here.int8_exact:
        eight = [Int8()]
    half: list[Precision] = [BFloat16(packed=True), BFloat16()] if here.bf16 else []
    return [*eight, *half]
