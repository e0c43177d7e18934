"""The case `kernels`: one Linear over shapes and row counts, every light form's time and error against F.linear.

Beside each form's rate stands the machine's own peak in that precision, measured in the same run as the rate of a large product
(1024 x 2048 -> 2048, operands ready, nothing around it). `int8 product alone` is this CPU's int8 kernel on operands that are ready:
`torch._int_mm` on quantised rows, or without VNNI fbgemm's operator, which rounds and scales itself, on divided ones. `int8 before`
is the formulation that `Int8` replaced, where `Int8()` runs: what the pointwise work around the product costs, before and after.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dendrofx
from benchmarks.studies.int8_before import Int8Before
from dendrofx.compare.records import latency
from dendrofx.compare.text import text_table
from dendrofx.errors import InputError
from dendrofx.lowering.script import script
from dendrofx.machine.pace import noisy
from dendrofx.machine.race import Race, race
from dendrofx.runtime.fused_int8 import FusedInt8Linear
from dendrofx.runtime.int8 import Int8Layer

# rows, in, out
SHAPES = (
    (1, 1024, 4096), (32, 384, 1536), (128, 1024, 4096), (512, 1024, 4096), (1100, 384, 1536), (256, 4096, 608), (256, 256, 1024),
)  # fmt: skip
QUICK_SHAPES = SHAPES[1:2]
PEAK_SHAPE = (1024, 2048, 2048)
LINEAR, AGAIN = "F.linear", "F.linear again"
ALONE = "int8 product alone"
PRECISION = {
    "Prepacked()": "float32",
    "Transposed()": "float32",
    "BFloat16()": "bfloat16",
    "BFloat16(packed=True)": "bfloat16",
    LINEAR: "float32",
    AGAIN: "float32",
}
Call = Callable[[int], object]


@dataclass(frozen=True)
class KernelRecord:
    """One shape: its race, and each light form's relative errors against float64 (None where there is none to state)."""

    rows: int
    shape: tuple[int, int]
    race: Race
    errors: Mapping[str, tuple[float, float] | None]
    refused: Mapping[str, str]
    peaks: Mapping[str, float]
    threads: int

    def rate(self, name: str) -> float:
        """Multiply-adds per second, 1e9."""
        return self.rows * self.shape[0] * self.shape[1] / self.race.timings[name].p50 / 1e6

    def to_json(self) -> dict[str, Any]:
        """Fractions, ms, and 1e9 multiply-adds per second."""
        return {
            "case": "kernels",
            "batch": self.rows,
            "shape": list(self.shape),
            "threads": self.threads,
            "aa_ratio": self.race.ratio(AGAIN, LINEAR),
            "noisy": bool(noisy(self.race, LINEAR, AGAIN)),
            "peak_gmacs": dict(self.peaks),
            "refused": dict(self.refused),
            "variants": [
                {
                    "name": name,
                    "latency_ms": latency(timing),
                    "speedup_vs_linear": self.race.ratio(LINEAR, name),
                    "gmacs": self.rate(name),
                    "peak_share": self.rate(name) / self.peaks[_precision(name)],
                    "error": None if (error := self.errors.get(name)) is None else error[0],
                    "error_worst_row": None if error is None else error[1],
                }
                for name, timing in self.race.timings.items()
            ],
        }


@torch.no_grad()
def run_kernels(quick: bool, seconds: float, seed: int) -> list[KernelRecord]:
    """Measure every shape."""
    peaks = measure_peaks(seconds)
    return [_measure(*shape, peaks, seconds, seed) for shape in (QUICK_SHAPES if quick else SHAPES)]


def measure_peaks(seconds: float) -> dict[str, float]:
    """The rate of a large product in each precision, 1e9 multiply-adds per second; float32 takes the better of two kernels."""
    rows, fan_in, fan_out = PEAK_SHAPE
    x, w = torch.randn(rows, fan_in), torch.randn(fan_out, fan_in)
    packed = dendrofx.Prepacked().linear(w, None, None)
    calls: dict[str, Call] = {"float32": lambda _: F.linear(x, w), "packed": lambda _: packed(x)}
    here = dendrofx.capability()
    if here.bf16:
        half, half_w = x.bfloat16(), torch.ops.mkldnn._reorder_linear_weight(w.bfloat16())
        calls["bfloat16"] = lambda _: torch.ops.mkldnn._linear_pointwise(half, half_w, None, "none", [], "")
    calls["int8"] = _product_alone(dendrofx.Int8(7).fit(nn.Linear(fan_in, fan_out)), x)
    ms = {name: t.p50 for name, t in race(calls, seconds).timings.items()}
    ms["float32"] = min(ms["float32"], ms.pop("packed"))
    return {name: rows * fan_in * fan_out / t / 1e6 for name, t in ms.items()}


def _measure(
    rows: int, fan_in: int, fan_out: int, peaks: Mapping[str, float], seconds: float, seed: int
) -> KernelRecord:
    generator = torch.Generator().manual_seed(seed)
    linear = nn.Linear(fan_in, fan_out).eval().requires_grad_(False)
    x = torch.randn(rows, fan_in, generator=generator)
    wanted = F.linear(x.double(), linear.weight.double(), linear.bias.double())
    modules: dict[str, nn.Module] = {LINEAR: linear, AGAIN: linear}
    refused = {}
    for form in (
        dendrofx.Transposed(),
        dendrofx.Prepacked(),
        dendrofx.BFloat16(),
        dendrofx.BFloat16(packed=True),
        dendrofx.Int8(),
        dendrofx.Int8(7),
    ):
        try:
            modules[str(form)] = form.fit(linear)
        except InputError as error:
            refused[str(form)] = str(error)
    errors: dict[str, tuple[float, float] | None] = {n: _error(m(x), wanted) for n, m in modules.items()}
    calls: dict[str, Call] = {n: _call(script(m, freeze=True), x) for n, m in modules.items()}
    if (int8 := modules.get("Int8()")) is not None:
        layer = _layer(int8)
        before = Int8Before(layer.weight, layer.step().float(), linear.bias).eval()
        calls["int8 before"], errors["int8 before"] = _call(script(before, freeze=True), x), _error(before(x), wanted)
    calls[ALONE], errors[ALONE] = _product_alone(int8 or modules["Int8(weight_bits=7)"], x), None
    result = race(calls, seconds, seed)
    return KernelRecord(rows, (fan_in, fan_out), result, errors, refused, peaks, torch.get_num_threads())


def kernel_tables(records: Sequence[KernelRecord]) -> str:
    """One table per shape."""
    parts = []
    for r in records:
        lines = [
            [
                name,
                f"{t.p50:.3g}",
                f"{r.race.ratio(LINEAR, name):.2f}",
                *(("-", "-") if (error := r.errors.get(name)) is None else (f"{100 * e:.3g}" for e in error)),
                f"{r.rate(name):.0f}",
                f"{100 * r.rate(name) / r.peaks[_precision(name)]:.0f}",
            ]
            for name, t in r.race.timings.items()
        ]
        headers = ["kernel", "p50 ms", "x F.linear", "error %", "worst row %", "GMAC/s", "% of peak"]
        table = text_table(lines, headers)
        notes = [f"{name}: {reason}" for name, reason in r.refused.items()]
        why = noisy(r.race, LINEAR, AGAIN)
        foot = f"A/A ratio {r.race.ratio(AGAIN, LINEAR):.3f} over {r.race.rounds} rounds{why and f'; noisy: {why}'}"
        parts.append("\n".join([f"--- kernels, {r.rows} x {r.shape[0]} -> {r.shape[1]}", "", table, "", *notes, foot]))
    peaks = ", ".join(f"{name} {rate:.0f}" for name, rate in records[0].peaks.items())
    sentence = (
        f"measured peaks (1024 x 2048 -> 2048, operands ready), GMAC/s: {peaks}; errors are relative L2 against float64, of all"
        " rows and of the worst"
    )
    return "\n\n".join([*parts, sentence])


def _precision(name: str) -> str:
    return PRECISION.get(name, "int8")


def _error(output: Tensor, wanted: Tensor) -> tuple[float, float]:
    """The relative L2 error of all rows together, and the largest of a row."""
    far = output.double() - wanted
    return float(far.norm() / wanted.norm()), float((far.norm(dim=1) / wanted.norm(dim=1)).max())


def _product_alone(module: nn.Module, x: Tensor) -> Call:
    layer = _layer(module)
    q, columns = layer.quantise(x)[0], layer.weight.t()
    if isinstance(layer, FusedInt8Linear):
        return lambda _: layer.multiply(q)
    return lambda _: torch._int_mm(q, columns)


def _layer(module: nn.Module) -> Int8Layer:
    layer = module.get_submodule("layers.0")
    assert isinstance(layer, Int8Layer)
    return layer


def _call(module: nn.Module, x: Tensor) -> Call:
    return lambda _: module(x)
