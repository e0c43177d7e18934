"""`dendrofx compare`: what routing would do for a model, measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from dendrofx.command.arguments import CUT, DATA, FILE, MODEL, batch, data, dead_rows, max_sample_deviation
from dendrofx.command.ending import ending
from dendrofx.command.several import Several

SECONDS, TUNE = 3.0, 60.0
QUICK_SECONDS, QUICK_TUNE = 0.5, 5.0


@click.command(
    cls=Several,
    short_help="Measure a model as it is and routed, on your data.",
    epilog=ending("compare mymodels:build --data rows.npy --batch 1 256", terms=[MODEL, DATA]),
)
@click.argument("model")
@data("--data", "Fits first, tests last.")
@click.option("--budget", default="0.01", show_default=True, help="Mean deviation, or METRIC:LIMIT:CONFIDENCE.")
@max_sample_deviation()
@batch("Samples per call (1 and 32).")
@dead_rows()
@click.option("--classes", is_flag=True, help="Outputs are class scores: also say how many answers stay the same.")
@click.option("--threads", type=click.IntRange(1), metavar="N", help="(OMP_NUM_THREADS, else all)")
@click.option("--busy", is_flag=True, help="Also beside two busy workers.")
@click.option("--quick", is_flag=True, help="Shorter races, no sweep.")
@click.option("-v", "--verbose", is_flag=True, help="Every row, control and reason.")
@click.option("-o", "--out", default="compare", show_default=True, metavar="DIR", type=FILE, help="Files.")
def compare(model: str, data: Path, budget: str, out: Path, **options: Any) -> None:  # noqa: ANN401
    """Compare MODEL as it is, routed, and with one light form on every row.

    The first 60 % of the data calibrates, the rest tests.
    """
    import torch

    from dendrofx.command.data import read_for
    from dendrofx.command.model import read_model
    from dendrofx.compare.busy import run_busy
    from dendrofx.compare.files import write_pictures, write_plans, wrote_line
    from dendrofx.compare.own import own_case
    from dendrofx.compare.prepare import Asked
    from dendrofx.compare.run import Effort, compare_case
    from dendrofx.compare.summary import summary
    from dendrofx.compare.tables import footer, table
    from dendrofx.guarantee.budget import read_budget
    from dendrofx.machine.capability import describe_machine
    from dendrofx.machine.memory import keep_loaded

    keep_loaded()
    if options["threads"]:
        torch.set_num_threads(options["threads"])
    quick, sizes, machine = options["quick"], options["batch"] or (1, 32), describe_machine()
    read = read_model(model)
    batches = read_for(read, data, max(*sizes, CUT))
    names = {"dead_rows": options["dead_rows"], "classes": options["classes"]}
    case = own_case(read.module, batches, type(read.module).__name__, **names, sizes=sizes)
    given = read_budget(budget)
    limit: dict[str, Any] = {"max_deviation" if isinstance(given, float) else "budget": given}
    asked = Asked(
        **limit, max_sample_deviation=options["max_sample_deviation"], tune_seconds=QUICK_TUNE if quick else TUNE
    )
    effort = Effort(QUICK_SECONDS if quick else SECONDS, sweep=not quick)
    records = []
    for bench, variants, record in compare_case(case, asked, sizes, effort):
        if options["busy"]:
            record.busy.extend(run_busy(bench, variants))
        records.append(record)
        if options["verbose"]:
            click.echo(f"\n{record.prepared.plan}\n\n{table(record)}\n\n{footer(record, machine, 0)}\n")
    click.echo(summary(records, machine))
    out.mkdir(parents=True, exist_ok=True)
    wrote = [*write_plans(records, out), *write_pictures(records, out, machine)]
    click.echo(f"\n{wrote_line(wrote)}")
