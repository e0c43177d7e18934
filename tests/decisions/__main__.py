"""The command: see the package."""

from __future__ import annotations

import hashlib
import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.cases import CaseUnavailableError
from dendrofx.errors import DendrofxError
from dendrofx.machine.capability import cpu_name
from dendrofx.values.inputs import Inputs
from dendrofx.values.outputs import flatten
from tests.decisions.subjects import made, subjects

FILE = Path(__file__).with_name("plans.json")
# What a change of structure may change, and what says nothing about a decision.
UNHELD = {"origin", "module", "model", "inputs", "dendrofx", "format"}


def record(subject: Any) -> dict[str, Any]:
    """What one subject became: its plan without fingerprints and version, its routes, and the digest of its outputs."""
    try:
        module, given = made(subject)
    except DendrofxError as error:
        return {"refused": f"{type(error).__name__}: {error}"}
    output, counts = Inputs.of(given).call(module.forward_counted)
    return {"plan": _held(module.plan.to_json()), "counts": _plain(counts), "outputs": _digest(flatten(output)[0])}


def _held(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _held(v) for k, v in value.items() if k not in UNHELD}
    return [_held(v) for v in value] if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


def _digest(tensors: list[Tensor]) -> str:
    whole = hashlib.sha256()
    for tensor in tensors:
        whole.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        whole.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()[:16]


def differing(there: Any, here: Any, path: str = "") -> list[str]:
    """Where two records differ, a line each."""
    if isinstance(there, dict) and isinstance(here, dict):
        keys = dict.fromkeys([*there, *here])
        return [line for k in keys for line in differing(there.get(k), here.get(k), f"{path}.{k}")]
    if isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        return [
            line for i, pair in enumerate(zip(there, here, strict=True)) for line in differing(*pair, f"{path}[{i}]")
        ]
    return [] if there == here else [f"  {path}: {there!r} was recorded, {here!r} now"]


def main(command: str, names: list[str]) -> int:
    """Record or check; the number of subjects that differ."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    known = json.loads(FILE.read_text()) if FILE.exists() else {}
    if command == "check" and known["cpu"] != cpu_name():
        print(f"recorded on {known['cpu']}, this is {cpu_name()}: record again on the commit to compare with")
        return 1
    wrong = 0
    for name, subject in subjects().items():
        if names and name not in names:
            continue
        start = time.perf_counter()
        try:
            found = record(subject)
        except CaseUnavailableError as error:
            print(f"{name}: not compared: {error}")
            continue
        lines = differing(known["plans"].get(name), found) if command == "check" else []
        if command == "write":
            known = {"cpu": cpu_name(), "plans": {**known.get("plans", {}), name: found}}
            FILE.write_text(json.dumps(known, indent=1) + "\n")
        wrong += bool(lines)
        word = "differs" if lines else "equal" if command == "check" else "recorded"
        print("\n".join([f"{name}: {word}, {time.perf_counter() - start:.1f} s", *lines[:20]]), flush=True)
    return wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
