"""`dendrofx inspect`: what a saved file says about itself."""

from __future__ import annotations

import json
from pathlib import Path

import click

from dendrofx.command.arguments import FILE
from dendrofx.command.ending import ending


@click.command(
    short_help="Print what a file holds: plan, certificate, inputs.", epilog=ending("inspect routed.pt --graph")
)
@click.argument("file", type=FILE)
@click.option("--graph", is_flag=True, help="Print the rewritten graph instead.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def inspect(file: Path, graph: bool, as_json: bool) -> None:
    """Print the plan, certificate, inputs and versions of FILE, which transform wrote."""
    from dendrofx.artifact.load import load

    loaded = load(file)
    plan, shown, wrote = loaded.plan, loaded.certificate, loaded.versions
    if as_json:
        said = {
            "model": loaded.model,
            "inputs": [{"name": i.name, "dtype": i.dtype, "axes": i.axes} for i in loaded.inputs],
            "output_class": loaded.output_class,
            "versions": wrote,
            "plan": None if plan is None else plan.to_json(),
            "graph": loaded.graph_text.splitlines(),
            "certificate": None if shown is None else shown.to_json(),
        }
        click.echo(json.dumps(said, indent=1))
        return
    if graph:
        click.echo(loaded.graph_text or f"{file} holds no graph: it was made from a module that has none.")
        return
    click.echo(f"{file}: {loaded.model}, {file.stat().st_size / 1e6:.3g} MB")
    click.echo("".join(f"  takes    {i}\n" for i in loaded.inputs) + f"  returns  {loaded.output_class or 'tensors'}")
    click.echo(f"  made by  dendrofx {wrote['dendrofx']}, torch {wrote['torch']}, Python {wrote['python']}\n")
    click.echo("No plan." if plan is None else plan)
    if shown is not None and plan is None:  # a plan says it
        click.echo(f"\n{shown}")
