"""`dendrofx transform`: from a model and data to a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from dendrofx.command.arguments import CUT, DATA, MODEL, batch, data, dead_rows, max_sample_deviation, output
from dendrofx.command.ending import ending
from dendrofx.command.several import Several


@click.command(
    cls=Several,
    short_help="Rewrite a model and write it to one file.",
    epilog=ending(
        "transform mymodels:build --calibration rows.npy --batch 1 32 -o routed.pt",
        "transform ./minilm --calibration sentences.txt --dead-rows attention_mask -o routed.pt",
        terms=[MODEL, DATA],
    ),
)
@click.argument("model")
@data("--calibration", "Rows to fit and test on.")
@click.option(
    "--budget", default="0.01", show_default=True, help="Mean deviation, or METRIC:LIMIT:CONFIDENCE, certified."
)
@max_sample_deviation()
@batch("Samples per call: one number or several.")
@dead_rows()
@click.option("--repeated-rows", is_flag=True, help="Compute rows that equal the one before once.")
@click.option(
    "--scope",
    type=click.Choice(["auto", "block", "model"]),
    default="auto",
    show_default=True,
    help="What a certified budget routes: rows of blocks, samples of models, or the faster.",
)
@click.option(
    "--tune-seconds", type=click.FloatRange(0), default=60.0, show_default=True, help="For timing; 0: by arithmetic."
)
@output("FILE", "The file.")
@click.option(
    "--format",
    type=click.Choice(["torchscript", "pt2", "aoti", "onnx"]),
    default="torchscript",
    show_default=True,
    help="Of the file: for torch alone, or torch.export, AOTInductor, ONNX Runtime.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
def transform(model: str, calibration: Path, budget: str, output: Path, as_json: bool, **options: Any) -> None:  # noqa: ANN401
    """Rewrite MODEL so that easy rows take a cheap way, and write it to one file.

    A budget such as flip:0.01:0.95 is certified: at most 1 % of answers change, shown at 95 %. Where that cannot be shown, no file
    is written, and the exit code is 1.
    """
    from dendrofx.artifact.save import check_suffix, save
    from dendrofx.command.data import read_for
    from dendrofx.command.model import read_model
    from dendrofx.guarantee.budget import read_budget
    from dendrofx.machine.files import check_target
    from dendrofx.request import Options
    from dendrofx.transform import transform as transformed

    limit = read_budget(budget)
    check_target(output)  # before the work, not after it
    check_suffix(output, options["format"])
    read = read_model(model)
    sizes = options["batch"]
    batches = read_for(read, calibration, max(sizes, default=CUT))
    made = transformed(
        read.module,
        calibration=batches,
        budget=limit,
        max_sample_deviation=options["max_sample_deviation"],
        batch_sizes=sizes or None,
        dead_rows=options["dead_rows"],
        repeated_rows=options["repeated_rows"],
        scope=options["scope"],
        options=Options(tune_seconds=options["tune_seconds"]),
    )
    click.echo(json.dumps(made.plan.to_json(), indent=1) if as_json else made.plan)
    if not isinstance(limit, float) and made.plan.certificate is None:
        click.echo(f"Wrote nothing: the budget {budget} could not be shown.", err=True)
        raise SystemExit(1)
    save(made, output, format=options["format"])
    runs = {"torchscript": "torch.jit.load", "onnx": "ONNX Runtime"}.get(options["format"], "dendrofx.load")
    click.echo(f"Wrote {output}: {runs} runs it; dendrofx inspect {output} shows it.", err=as_json)
