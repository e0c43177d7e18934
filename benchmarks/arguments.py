"""The command line of `python -m benchmarks.compare`, checked before anything is run."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import dendrofx
from benchmarks.cases import CASES
from dendrofx.errors import InputError
from dendrofx.gates import GateForm
from dendrofx.guarantee import Budget
from dendrofx.light import LightForm
from dendrofx.values.forms import Form, form_from_text

KERNELS, FAMILIES = "kernels", "hf"
NAMES = (*CASES, KERNELS, FAMILIES)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"compare: {message}\n")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line, checked."""
    p = _Parser(
        prog="python -m benchmarks.compare", description="Compare a model eager, scripted and routed, on real input."
    )
    p.add_argument("--case", nargs="+", default=["digits"], metavar="NAME", help=f"any of {', '.join(NAMES)}")
    p.add_argument("--batch", nargs="+", type=_positive, metavar="N", help="samples per call (default: the case's own)")
    p.add_argument("--threads", type=_positive, default=min(2, os.cpu_count() or 1), metavar="N")
    p.add_argument(
        "--max-deviation", type=_budget, metavar="X", help="budget for the mean deviation (0.01, or the case's own)"
    )
    p.add_argument(
        "--budget", type=_certified, metavar="METRIC:ALPHA:CONFIDENCE",
        help="instead, a budget that is certified: flip:0.01:0.95, exceeds(0.05):0.02:0.95, deviation:..., cosine:...",
    )  # fmt: skip
    p.add_argument(
        "--scope", choices=("block", "model"), default="block",
        help="route rows of blocks, or samples between a light model and the original (needs --budget)",
    )  # fmt: skip
    p.add_argument(
        "--full",
        type=_form(LightForm, dendrofx.Routed),
        metavar="FORM",
        help='a form for the full branch: "Pruned(energy=1.0)"',
    )
    p.add_argument(
        "--sweep", action="store_true", help="also 11 tolerances from all full to all light: table, CSV, plots"
    )
    p.add_argument("--peers", action="store_true", help="also what could be used instead, for the cases of encoders")
    p.add_argument("--ablation", action="store_true", help="also each rung alone, on every row, as a table")
    p.add_argument(
        "--light", type=_form(LightForm, dendrofx.Routed), metavar="FORM",
        help='a light form instead of the ladder: "Int8()"; with --scope model also "Routed(0.05)"',
    )  # fmt: skip
    p.add_argument("--gate", type=_form(GateForm), metavar="FORM", help='a gate instead of the best: "NoiseGate()"')
    p.add_argument(
        "--plan", type=Path, metavar="FILE", help="reproduce this plan instead of deciding (one case, one batch)"
    )
    p.add_argument("--save-plan", type=Path, metavar="FILE", help="write the plan of the last table to FILE")
    p.add_argument(
        "--tune-seconds", type=_seconds, metavar="X",
        help="time for timing candidates, per transform (60; 0 decides by counted cost: the same on every run)",
    )  # fmt: skip
    p.add_argument("--quick", action="store_true", help="a short run, for a smoke test")
    p.add_argument("--json", type=Path, metavar="FILE", help="write every figure to FILE")
    p.add_argument("--plots", type=Path, metavar="DIR", help="where --sweep writes CSV and plots (default sweep/)")
    p.add_argument("--seed", type=_seed, default=0, metavar="N")
    p.add_argument("--width", type=_positive, default=1024, metavar="N", help="of the case wide")
    p.add_argument("--depth", type=_positive, default=3, metavar="N", help="hidden layers of the case wide")
    args = p.parse_args(argv)
    for name in args.case:
        if name not in NAMES:
            p.error(f"unknown case {name!r}: choose from {', '.join(NAMES)}")
    if args.plots is not None and not args.sweep:
        p.error("--plots draws the sweep: add --sweep")
    if args.plan is not None and (len(args.case) > 1 or len(args.batch or ()) != 1):
        p.error("--plan is for one case at one batch size: name them with --case and --batch")
    if args.plan is not None and (args.light is not None or args.gate is not None):
        p.error("--plan says which light and gate: leave out --light and --gate")
    if args.budget is not None and args.max_deviation is not None:
        p.error("--budget and --max-deviation are two budgets: leave one out")
    if args.scope == "block" and any(isinstance(f, dendrofx.Routed) for f in (args.light, args.full)):
        p.error("Routed(...) is a model with routed blocks: it needs --scope model")
    if args.scope == "model" and args.budget is None and args.plan is None:
        p.error("--scope model needs --budget, such as flip:0.01:0.95")
    planless = [name for name in args.case if name in (KERNELS, FAMILIES)]
    if planless == args.case and (args.plan or args.save_plan or args.light or args.gate):
        p.error(f"the case {planless[0]} has no plan: leave out --light, --gate, --plan and --save-plan")
    return args


def _form(*kinds: type[Form]) -> Callable[[str], Form]:
    """A parser of forms of these kinds."""

    def read(text: str) -> Form:
        try:
            form = form_from_text(text)
        except InputError as error:
            raise argparse.ArgumentTypeError(str(error)) from error
        if not isinstance(form, kinds):
            raise argparse.ArgumentTypeError(f"{text} is no {'light' if LightForm in kinds else 'gate'} form")
        return form

    return read


def _seconds(text: str) -> float:
    value = _float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of at least 0, got {text!r}")
    return value


def _float(text: str) -> float:
    """NaN for what is no number."""
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to 2^63 - 1, got {text!r}")
    return int(text)


def _certified(text: str) -> Budget:
    try:
        return Budget.parse(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _budget(text: str) -> float:
    value = _float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number above 0 such as 0.01, got {text!r}")
    return value
