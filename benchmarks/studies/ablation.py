"""The ablation: what each light form does alone, on every row, beside the routed module.

    prepacked            every site exact, its weights laid out for the kernel: what layout alone buys
    Int8(), BFloat16()   every site in that precision
    LowRank, Pruned      the forms that the plan chose, as they are, in float32 and in each precision
    routed               what transform made

All of them timed in turns with the scripted original. None but `routed` keeps a budget: the deviation says what each costs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import dendrofx
from dendrofx.compare import controls
from dendrofx.compare.bench import Bench
from dendrofx.compare.records import AGAIN, pace_of
from dendrofx.compare.text import percent, text_table
from dendrofx.compare.variants import Variant, scripted_variant
from dendrofx.light import LightForm, Precision
from dendrofx.search.search_space import default_precisions


def light_forms(plan: dendrofx.Plan) -> list[LightForm]:
    """The forms of the table, each once."""
    low = default_precisions()
    found: list[LightForm] = [dendrofx.Prepacked(), *reversed(low)]
    for site in plan.routed:
        form = site.light
        if isinstance(form, dendrofx.LowRank | dendrofx.Pruned):
            precisions: list[Precision | None] = [None, *[p for p in low if p != dendrofx.BFloat16()]]
            found += [replace(form, precision=p) for p in precisions]
    return list(dict.fromkeys(found))


def run_ablation(bench: Bench, variants: Mapping[str, Variant]) -> list[dict[str, Any]]:
    """Measure every light form.

    Returns:
        One record per light form: latency, speed-up over the scripted original, effective compute, deviation and agreement; first
        the original against itself, last the routed module. A form that fits no site has a `reason` and no figures.
    """
    prepared, reasons = bench.prepared, {}
    asked = replace(prepared.asked, gate=dendrofx.AlwaysLight(), plan=None, full=None, budget=None, scope="block")
    made: dict[str, Variant] = {}
    sample = prepared.case.test.batches(1)[0]
    for form in light_forms(prepared.plan):
        name = "prepack only" if isinstance(form, dendrofx.Prepacked) else f"{form} on every row"
        options = replace(asked, light=form).options(
            prepared.case, bench.batch, prepared.plan.max_deviation, decide=False
        )
        module = dendrofx.transform(prepared.case.model, **options)
        if module.plan.routed:
            made[name] = scripted_variant(name, controls.always_light(module), sample)
        else:
            reasons[name] = "; ".join(s.reason for s in module.plan.sites)
    scripted, routed = variants["scripted"], variants[prepared.main]
    timed = {"scripted": scripted, AGAIN: scripted, **made, prepared.main: routed}
    result = bench.time({name: v.module for name, v in timed.items()})
    records: list[dict[str, Any]] = []
    for name, variant in timed.items():
        quality = bench.quality(variant.module, variant.counted)
        records.append(
            {
                "name": name,
                **pace_of(result, name),
                "effective_compute": quality.effective_compute,
                "deviation": quality.deviation(),
                "agreement": quality.agreement,
            }
        )
    return records + [{"name": name, "reason": reason} for name, reason in reasons.items()]


def ablation_table(points: Sequence[Mapping[str, Any]]) -> str:
    """Return one line per light form, and the reasons of those that fit no site."""
    rows = [
        [
            p["name"],
            f"{p['latency_ms']['p50']:.3g}",
            f"{p['speedup_vs_scripted']:.2f}",
            percent(p["effective_compute"]),
            f"{p['deviation']['mean']:.2e}",
            f"{p['deviation']['p99']:.2e}",
            f"{p['deviation']['max']:.2e}",
            percent(p["agreement"], ".2f"),
        ]
        for p in points
        if "reason" not in p
    ]
    headers = ["light form", "p50 ms", "x scripted", "compute %", "dev mean", "dev p99", "tail max", "agree %"]
    return "\n".join([text_table(rows, headers), *[f"{p['name']}: {p['reason']}" for p in points if "reason" in p]])
