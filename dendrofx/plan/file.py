"""Plans as JSON files, and the check that a plan belongs to this model, this data, this machine and this version."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dendrofx.errors import PlanError
from dendrofx.machine.capability import capability, cpu_name
from dendrofx.machine.files import write_whole
from dendrofx.plan.plan import Origin, Plan
from dendrofx.values.codec import decode, encode_fields
from dendrofx.version import VERSION

FORMAT = 4


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """Plain values only."""
    return {"format": FORMAT, **encode_fields(plan)}


def plan_from_json(value: Mapping[str, Any]) -> Plan:
    """The plan that `plan_to_json` wrote.

    Raises:
        PlanError: it is not one; it names the field, what was given and what is wanted.
    """
    if value.get("format") != FORMAT:
        raise PlanError(f"not a dendrofx plan of format {FORMAT}: its format is {value.get('format')!r}")
    try:
        return decode(Plan, value)
    except PlanError as error:
        raise PlanError(f"the plan cannot be read: {error}") from error


def save_plan(plan: Plan, path: str | Path) -> None:
    """Write it whole or not at all; `PlanError` where the path names no file."""
    write_whole(path, json.dumps(plan_to_json(plan), indent=1, allow_nan=False) + "\n", PlanError)


def load_plan(path: Path) -> Plan:
    """Read a plan's file; `PlanError` names it when it cannot be."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PlanError(f"cannot read the plan {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise PlanError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, Mapping):
        raise PlanError(f"{path} holds no plan, but a {type(value).__name__}")
    return plan_from_json(value)


def here(model: str, data: str | None, seed: int, batch_sizes: tuple[int, ...], min_speedup: float) -> Origin:
    """The origin of a plan that is made now."""
    return Origin(
        dendrofx=VERSION,
        torch=torch.__version__,
        cpu=cpu_name(),
        cores=os.cpu_count() or 1,
        capability=capability(),
        threads=torch.get_num_threads(),
        model=model,
        data=data,
        seed=seed,
        batch_sizes=batch_sizes,
        min_speedup=min_speedup,
    )


def check_origin(plan: Plan, model: str, data: str | None, redecide: bool) -> None:
    """Refuse a plan that does not belong here.

    Args:
        plan: what was loaded.
        model: fingerprint of the model it is to be used on.
        data: fingerprint of the calibration data, None without.
        redecide: the machine and the versions may differ, for everything is decided anew.

    Raises:
        PlanError: says whether model, calibration data, version or machine differ, and how.
    """
    made = plan.origin
    if made is None:
        raise PlanError("the plan does not say where it was made: take one that transform returned")
    if made.model != model:
        raise PlanError(f"the plan was made for another model: fingerprint {made.model} there, {model} here")
    if redecide:
        return
    if made.data != data:
        raise PlanError(
            f"the plan was made with other calibration data: fingerprint {made.data} there, {data} here. Light branches and"
            " gates are fitted to it again: pass the same batches in the same order"
        )
    now = here(model, data, made.seed, made.batch_sizes, made.min_speedup)
    again = "Pass redecide=True to decide anew on this machine"
    for what, there, version in (("dendrofx", made.dendrofx, now.dendrofx), ("torch", made.torch, now.torch)):
        if there != version:
            raise PlanError(f"the plan was made by another version: {what} {there} there, {version} here. {again}")
    if (made.cpu, made.cores, made.capability) != (now.cpu, now.cores, now.capability):
        differs = now.capability.differs(made.capability)
        raise PlanError(
            f"the plan was made on another machine: {made.cpu}, {made.cores} cores there, {now.cpu}, {now.cores} cores here"
            f"{f'; {differs}' if differs else ''}. Its times do not hold here. {again}"
        )
