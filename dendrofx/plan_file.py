"""Plans as JSON files, and the check that a plan belongs to this model, this data, this machine and this version."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch

from dendrofx.errors import PlanError
from dendrofx.files import write_whole
from dendrofx.forms import Form, form_from_json
from dendrofx.gates.form import GateForm
from dendrofx.guarantee.certificate import Certificate
from dendrofx.light.form import LightForm
from dendrofx.machine import Capability, capability, cpu_name
from dendrofx.plan import CascadePlan, DeadRowsPlan, Origin, Plan, SitePlan
from dendrofx.verify import ModelTimes
from dendrofx.version import VERSION

FORMAT = 4


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """Plain values only."""
    sites = [{f.name: _plain(getattr(s, f.name)) for f in fields(s)} for s in plan.sites]
    parts = ("sites", "models", "origin", "dead_rows", "cascade", "certificate")
    rest = {f.name: getattr(plan, f.name) for f in fields(plan) if f.name not in parts}
    origin = None if plan.origin is None else asdict(plan.origin)
    dead_rows = None if plan.dead_rows is None else asdict(plan.dead_rows)
    cascade = (
        None if plan.cascade is None else {f.name: _plain(getattr(plan.cascade, f.name)) for f in fields(plan.cascade)}
    )
    made = {
        "certificate": None if plan.certificate is None else plan.certificate.to_json(),
        "cascade": cascade,
        "dead_rows": dead_rows,
        "origin": origin,
        "models": [asdict(m) for m in plan.models],
        "sites": sites,
    }
    return {"format": FORMAT, **rest, **made}


def plan_from_json(value: Mapping[str, Any]) -> Plan:
    """The plan that `plan_to_json` wrote.

    Raises:
        PlanError: it is not one.
    """
    if value.get("format") != FORMAT:
        raise PlanError(f"not a dendrofx plan of format {FORMAT}: its format is {value.get('format')!r}")
    try:
        given = {k: v for k, v in value.items() if k != "format"}
        sites = [_site({k: _formed(k, v) for k, v in site.items()}) for site in given.pop("sites")]
        models = [ModelTimes(**m) for m in given.pop("models")]
        origin = given.pop("origin")
        samples, dead = given.pop("samples"), given.pop("dead_rows")
        dead_rows = None if dead is None else DeadRowsPlan(**dead)
        if dead_rows is not None and dead_rows.status not in ("live", "refused"):
            raise ValueError(f"dead rows are {dead_rows.status!r}")
        cascade, shown = given.pop("cascade"), given.pop("certificate")
        plan = Plan(
            sites,
            **given,
            models=models,
            samples=None if samples is None else tuple(samples),
            dead_rows=dead_rows,
            cascade=None
            if cascade is None
            else CascadePlan(**{k: _formed(k, v) for k, v in cascade.items() if k != "light"}, light=cascade["light"]),
            certificate=None if shown is None else Certificate.from_json(shown),
        )
        return replace(plan, origin=None if origin is None else _origin(origin))
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise PlanError(f"the plan cannot be read: {error}") from error


def save_plan(plan: Plan, path: Path) -> None:
    """Write it whole or not at all; `PlanError` where the path is a folder."""
    if path.is_dir() or not path.name:
        raise PlanError(f"cannot write the plan to {path}: it is a folder. Name a file")
    text = json.dumps(plan_to_json(plan), indent=1) + "\n"
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))


def load_plan(path: Path) -> Plan:
    """Read a plan's file; `PlanError` names it when it cannot be."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PlanError(f"cannot read the plan {path}: {error.strerror or error}") from error
    except ValueError as error:
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


def _plain(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, Plan):
        return plan_to_json(value)
    return value.to_json() if isinstance(value, Form) else value


def _formed(name: str, value: Any) -> Any:  # noqa: ANN401
    if value is not None and name in ("light_plan", "full_plan"):
        return plan_from_json(value)
    return form_from_json(value) if name in ("light", "gate", "full") and value is not None else value


def _site(value: Mapping[str, Any]) -> SitePlan:
    site = SitePlan(**value)
    routed = site.status == "routed"
    if site.status not in ("routed", "exact", "light", "refused"):
        raise ValueError(f"site '{site.name}' is {site.status!r}")
    if not all(isinstance(f, LightForm) or (f is None and not routed) for f in (site.light, site.full or site.light)):
        raise ValueError(f"site '{site.name}': {site.light} or {site.full} is no light form")
    if not (isinstance(site.gate, GateForm) or (site.gate is None and not routed)):
        raise ValueError(f"site '{site.name}': {site.gate} is no gate form")
    if not (site.tolerance is None or isinstance(site.tolerance, int | float)):
        raise ValueError(f"site '{site.name}': its tolerance is {site.tolerance!r}")
    return site


def _origin(value: Mapping[str, Any]) -> Origin:
    made = dict(value)
    made["capability"] = Capability(**made["capability"])
    made["batch_sizes"] = tuple(made["batch_sizes"])
    return Origin(**made)
