"""How much resident memory a rung takes on over calls with random row counts.

    python -m tests.memory_growth --calls 20000

oneDNN builds a primitive for every row count it meets; without row buckets a process grew by a gigabyte. Every rung is
scripted, warmed up with 200 calls, the largest row count among them, and then called; prints one JSON object, rung to
megabytes grown. "bfloat16 without buckets" shows what would be seen without them, and runs only when it is named.
"""

import argparse
import json
import os
import random
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dendrofx.errors import InputError
from dendrofx.light import BFloat16, Int8, LightForm, LowRank, Prepacked

STATM = Path("/proc/self/statm")
LARGEST_ROWS, WARM_UP = 2000, 200
FORMS: dict[str, LightForm] = {
    "int8": Int8(),
    "int8, 7 bits": Int8(weight_bits=7),
    "bfloat16": BFloat16(),
    "bfloat16 packed": BFloat16(packed=True),
    "prepacked": Prepacked(),
    "low rank": LowRank(16),
    "low rank, int8": LowRank(16, precision=Int8()),
    "chain, bfloat16": BFloat16(),
}
NO_BUCKETS = "bfloat16 without buckets"


class NoBuckets(nn.Module):
    """bfloat16 at whatever row count comes."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.register_buffer("weight", linear.weight.detach().to(torch.bfloat16))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.to(torch.bfloat16), self.weight)


def resident() -> int:
    """Bytes."""
    return int(STATM.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGESIZE")


def scripted(name: str) -> torch.jit.ScriptModule:
    """The rung on a 128 -> 256 Linear, or on a chain of two."""
    torch.manual_seed(0)
    first = nn.Linear(128, 256)
    block = nn.Sequential(first, nn.ReLU(), nn.Linear(256, 64)) if name.startswith("chain") else first
    light = NoBuckets(first) if name == NO_BUCKETS else FORMS[name].fit(block)
    made: torch.jit.ScriptModule = torch.jit.script(light)
    return made


@torch.inference_mode()
def growth(name: str, calls: int) -> float:
    """Megabytes that `calls` calls after the warm-up add."""
    module, draw = scripted(name), random.Random(0)
    rows = torch.randn(LARGEST_ROWS, 128)
    for count in [LARGEST_ROWS] + [draw.randint(1, LARGEST_ROWS) for _ in range(WARM_UP - 1)]:
        module(rows[:count])
    before = resident()
    for _ in range(calls):
        module(rows[: draw.randint(1, LARGEST_ROWS)])
    return (resident() - before) / 1e6


def main() -> None:
    """Run the rungs named, or all; null for one that this CPU refuses."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=3000)
    parser.add_argument("--rung", choices=[*FORMS, NO_BUCKETS], action="append")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    torch.set_num_threads(1)
    found: dict[str, float | None] = {}
    for name in options.rung or FORMS:
        try:
            found[name] = round(growth(name, options.calls), 1)
        except InputError:
            found[name] = None
    print(json.dumps(found))


if __name__ == "__main__":
    main()
