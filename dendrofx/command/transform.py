"""`dendrofx transform`: from a model and data to a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from dendrofx.command.budget import read_budget
from dendrofx.command.ending import example
from dendrofx.command.several import Several

CUT = 64  # samples of a calibration batch, where no size is asked for


@click.command(
    cls=Several,
    short_help="Rewrite a model and write it to one file.",
    epilog=example(
        "transform mymodels:build --calibration rows.npy --batch 1 32 -o routed.pt",
        "transform ./minilm --calibration sentences.txt --dead-rows attention_mask -o routed.pt",
    ),
)
@click.argument("model")
@click.option(
    "--calibration", required=True, metavar="DATA", type=click.Path(path_type=Path), help="Rows to fit and test on."
)
@click.option(
    "--budget", default="0.01", show_default=True, help="Mean deviation, or METRIC:LIMIT:CONFIDENCE, certified."
)
@click.option(
    "--batch", type=click.IntRange(1), multiple=True, metavar="N...", help="Samples per call: one number or several."
)
@click.option("--dead-rows", metavar="NAME", help="Input that marks padding by zeros; ~NAME: by ones.")
@click.option(
    "--scope", type=click.Choice(["block", "model"]), default="block", show_default=True, help="What is routed."
)
@click.option(
    "--tune-seconds", type=click.FloatRange(0), default=60.0, show_default=True, help="For timing; 0: by arithmetic."
)
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="TorchScript, for torch alone.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
def transform(model: str, calibration: Path, budget: str, output: Path, as_json: bool, **options: Any) -> None:  # noqa: ANN401
    """Rewrite MODEL so that easy rows take a cheap way, and write it to one file.

    \b
    MODEL  module:callable, called without arguments; a .pt2 file of torch.export.save;
           or a folder that transformers loads
    DATA   .npy, .npz, .pt (weights only), .safetensors, .parquet;
           .txt, a text a line, for a folder with a tokenizer

    A budget such as flip:0.01:0.95 is certified: at most 1 % of answers change, shown at 95 %. Where that cannot be shown, no file
    is written.
    """  # noqa: D301
    limit = read_budget(budget)
    from dendrofx.artifact.save import save
    from dendrofx.command.data import check_names, read_batches
    from dendrofx.command.model import read_model
    from dendrofx.machine.files import check_target
    from dendrofx.request import Options
    from dendrofx.transform import transform as transformed

    check_target(output)  # before the work, not after it
    read = read_model(model)
    sizes = options["batch"]
    batches = read_batches(calibration, max(sizes, default=CUT), read.tokenizer)
    check_names(batches[0] if batches else None, calibration, read.module)
    made = transformed(
        read.module,
        calibration=batches,
        budget=limit,
        batch_sizes=sizes or None,
        dead_rows=options["dead_rows"],
        scope=options["scope"],
        options=Options(tune_seconds=options["tune_seconds"]),
    )
    click.echo(json.dumps(made.plan.to_json(), indent=1) if as_json else made.plan)
    if not isinstance(limit, float) and made.plan.certificate is None:
        click.echo(f"Wrote nothing: the budget {budget} could not be shown.", err=True)
        raise SystemExit(1)
    save(made, output)
    click.echo(f"Wrote {output}: torch.jit.load runs it; dendrofx inspect {output} shows it.", err=as_json)
