"""Where a plan was made, and the check that it belongs to this model, this data, this machine and this version."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import torch

from dendrofx.errors import PlanError
from dendrofx.machine.capability import Capability, capability, cpu_name
from dendrofx.version import VERSION


@dataclass(frozen=True)
class Origin:
    """Where a plan was made: it holds there.

    Attributes:
        dendrofx, torch: versions.
        cpu, cores, capability, threads: the machine; threads are a setting and may differ.
        model, data: fingerprints of the model and of the calibration data, None without data.
        seed: of the run.
        batch_sizes: samples per call that it was decided for.
        min_speedup: what the whole model had to gain.
    """

    dendrofx: str
    torch: str
    cpu: str
    cores: int
    capability: Capability
    threads: int
    model: str
    data: str | None
    seed: int = field(metadata={"least": 0})
    batch_sizes: tuple[int, ...] = field(metadata={"least": 1})
    min_speedup: float


def here(model: str, data: str | None, seed: int, batch_sizes: tuple[int, ...], min_speedup: float) -> Origin:
    """Return the origin of a plan that is made now."""
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


def check_origin(made: Origin | None, model: str, data: str | None, redecide: bool) -> None:
    """Refuse a plan that does not belong here.

    Args:
        made: of the plan that was loaded.
        model: fingerprint of the model it is to be used on.
        data: fingerprint of the calibration data, None without.
        redecide: the machine and the versions may differ, for everything is decided anew.

    Raises:
        PlanError: says whether model, calibration data, version or machine differ, and how.
    """
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
