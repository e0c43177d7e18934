"""Compare a model eager, scripted and routed, on real input.

    python -m benchmarks.compare                            digits at batch 256, and their decisions certified
    python -m benchmarks.compare --case tiara --batch 256 --verbose

About 30 lines a case, and in the folder `compare/` the pictures, the figures and the plans. `--verbose` prints every row of every
table, all findings and all reasons. Exit code 2, with the reason, for anything that cannot be used as given.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import dendrofx
from benchmarks.cases import CASES
from benchmarks.command import Command, deviation, positive, seconds, seed, share
from dendrofx.errors import InputError
from dendrofx.values.forms import Form, form_from_text

if TYPE_CHECKING:
    from dendrofx.guarantee import Budget

KERNELS, FAMILIES = "kernels", "hf"
NAMES = (*CASES, KERNELS, FAMILIES)
DEFAULT = ("digits", "digits-decisions")  # of which a quick run takes the first


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    command = Command(
        "compare",
        "Compare a model eager, scripted and routed, on real input.",
        NAMES,
        DEFAULT,
        True,
    )
    _add_options(command)
    args = command.parse(argv)
    if args.quick and args.case == list(DEFAULT):
        args.case = list(DEFAULT[:1])
    if wrong := _contradiction(args):
        command.error(wrong)
    return command.run(args)


def _add_options(p: Command) -> None:
    p.add_argument("--batch", nargs="+", type=positive, metavar="N", help="samples per call (default: the case's own)")
    p.add_argument("--threads", type=positive, default=_threads(), metavar="N", help="(OMP_NUM_THREADS, else 2)")
    p.add_argument(
        "--max-deviation", type=deviation, metavar="X", help="budget for the mean deviation (0.01, or the case's own)"
    )
    p.add_argument(
        "--budget", type=_certified, metavar="METRIC:LIMIT:CONFIDENCE",
        help="instead, a budget that is certified: flip:0.01:0.95, exceeds(0.05):0.02:0.95, deviation:..., cosine:...",
    )  # fmt: skip
    p.add_argument(
        "--max-sample-deviation",
        type=share,
        metavar="X",
        help="beside either: what any calibration sample may deviate by",
    )
    p.add_argument(
        "--scope", choices=("auto", "block", "model"), default="auto",
        help="with --budget: rows of blocks, samples of models, or (default) whichever is faster",
    )  # fmt: skip
    p.add_argument(
        "--full", type=_form("light"), metavar="FORM", help='a form for the full branch: "Pruned(energy=1.0)"'
    )
    p.add_argument("-v", "--verbose", action="store_true", help="every row, control, skill, cost and reason")
    p.add_argument(
        "-o", "--out", type=Path, default=Path("compare"), metavar="DIR", help="for pictures, figures, plans (compare/)"
    )
    p.add_argument("--no-sweep", action="store_true", help="leave out the 11 tolerances that the pictures show")
    p.add_argument("--sweep", action="store_true", help="sweep the tolerances in a --quick run too")
    p.add_argument("--peers", action="store_true", help="also what could be used instead, for the cases of encoders")
    p.add_argument(
        "--busy", action="store_true", help="also beside two workers with default threads, and on one thread"
    )
    p.add_argument("--ablation", action="store_true", help="also each light form alone, on every row, as a table")
    p.add_argument("--exits", action="store_true", help="also what it is saved as: torch.export, AOTInductor, ONNX")
    p.add_argument(
        "--light", type=_form("light"), metavar="FORM",
        help='a light form instead of those known: "Int8()"; with --scope model also "RoutedBlocks(0.05)" or "Exit()"',
    )  # fmt: skip
    p.add_argument("--gate", type=_form("gate"), metavar="FORM", help='a gate instead of the best: "NoiseGate()"')
    p.add_argument(
        "--plan", type=Path, metavar="FILE", help="reproduce this plan instead of deciding (one case, one batch)"
    )
    p.add_argument("--save-plan", type=Path, metavar="FILE", help="write the plan of the last table to FILE")
    p.add_argument(
        "--tune-seconds", type=seconds, metavar="X",
        help="time for timing candidates, per transform (60; 0 decides by counted cost: the same on every run)",
    )  # fmt: skip
    p.add_argument("--quick", action="store_true", help="at most half a minute: fewer samples and turns, no sweep")
    p.add_argument("--json", type=Path, metavar="FILE", help="write the figures here instead of DIR/figures.json")
    p.add_argument("--plots", type=Path, metavar="DIR", help="write the pictures here instead of DIR")
    p.add_argument("--seed", type=seed, default=0, metavar="N")
    p.add_argument(
        "--width", type=positive, metavar="N", help="of wide, padding and the rankers (default: the case's own)"
    )
    p.add_argument(
        "--depth", type=positive, metavar="N", help="hidden layers of wide, padding and the rankers' MLP on top"
    )
    p.add_argument("--user", type=positive, default=512, metavar="N", help="dense features of a ranker's user (512)")
    p.add_argument("--item", type=positive, default=128, metavar="N", help="dense features of a candidate (128)")


def _threads() -> int:
    """Return what the environment says, else two or as many as there are."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdecimal() and int(given) else min(2, os.cpu_count() or 1)


def _contradiction(args: argparse.Namespace) -> str:
    """Say which options exclude each other; nothing where all of them can be kept."""
    forms = [form for form in (args.light, args.full) if form is not None]
    replays, certifies = args.plan is not None, args.budget is not None
    planless = all(name in (KERNELS, FAMILIES) for name in args.case)
    wrong = [
        (args.sweep and args.no_sweep, "--sweep and --no-sweep: leave one out"),
        (
            replays and (len(args.case) > 1 or len(args.batch or ()) != 1),
            "--plan is for one case at one batch size: name them with --case and --batch",
        ),
        (replays and (args.light or args.gate), "--plan says which light and gate: leave out --light and --gate"),
        (
            certifies and args.max_deviation is not None,
            "--budget and --max-deviation are two budgets: leave one out",
        ),
        (
            (args.scope == "block" or not certifies)
            and any(isinstance(form, dendrofx.RoutedBlocks | dendrofx.Exit) for form in forms),
            "RoutedBlocks(...) and Exit(...) are forms of the whole model: they need --budget, and no --scope block",
        ),
        (
            args.scope == "model" and not (certifies or replays),
            "--scope model needs --budget, such as flip:0.01:0.95",
        ),
        (
            planless and (args.plan or args.save_plan or args.light or args.gate),
            f"the case {args.case[0]} has no plan: leave out --light, --gate, --plan and --save-plan",
        ),
        (planless and args.busy, f"the case {args.case[0]} rewrites nothing: leave out --busy"),
        (planless and args.exits, f"the case {args.case[0]} rewrites nothing: leave out --exits"),
    ]
    return next((message for is_so, message in wrong if is_so), "")


def _form(kind: str) -> Callable[[str], Form]:
    """Return a parser of light forms, and of those of whole models, or of gate forms."""

    def read(text: str) -> Form:
        # every form has to be known before one is read: the names that are imported here bring them all
        kinds = {"light": (dendrofx.LightForm, dendrofx.RoutedBlocks, dendrofx.Exit), "gate": (dendrofx.GateForm,)}
        try:
            form = form_from_text(text)
        except InputError as error:
            raise argparse.ArgumentTypeError(str(error)) from error
        if not isinstance(form, kinds[kind]):
            raise argparse.ArgumentTypeError(f"{text} is no {kind} form")
        return form

    return read


def _certified(text: str) -> Budget:
    try:
        return dendrofx.Budget.parse(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


if __name__ == "__main__":
    sys.exit(main())
