"""A long-running process grows neither with the row counts it meets (`tests/memory_growth.py` runs the calls) nor by freezing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import dendrofx
from dendrofx.memory import release
from tests.memory_growth import FORMS, STATM, resident

CALLS, LIMIT = 3000, 64.0  # without row buckets: 730 MB after as many calls
pytestmark = pytest.mark.skipif(not STATM.exists(), reason="needs /proc/self/statm to read the resident memory")


@pytest.fixture(scope="module")
def grown() -> dict[str, float | None]:
    """Megabytes by rung, from a process of their own: nothing else there takes or gives back memory."""
    command = [sys.executable, "-m", "tests.memory_growth", "--calls", str(CALLS)]
    root = Path(__file__).parents[1]
    env = {k: v for k, v in os.environ.items() if not k.startswith(("ONEDNN_PRIMITIVE_CACHE", "LRU_CACHE"))}
    run = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    found: dict[str, float | None] = json.loads(run.stdout)
    return found


@pytest.mark.parametrize("rung", FORMS)
def test_resident_memory_stays(rung: str, grown: dict[str, float | None]) -> None:
    megabytes = grown[rung]
    if megabytes is None:
        pytest.skip(f"{FORMS[rung]} is refused on this CPU")
    assert megabytes < LIMIT


def test_the_weights_of_a_frozen_module_go_with_it() -> None:
    """Thirty of 4 MB each: torch keeps what it freezes of a module scripted from Python for as long as the process runs."""

    def freeze_one() -> None:
        dendrofx.script(nn.Sequential(nn.Linear(1024, 1024), nn.ReLU()).eval(), freeze=True)(torch.zeros(1, 1024))

    freeze_one()
    release()
    before = resident()
    for _ in range(30):
        freeze_one()
    release()
    assert resident() - before < 40e6
