"""Parallel regions: what is counted from operators is what reaches libgomp, counted there by a library put before it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dendrofx import Int8, LowRank, Prepacked
from dendrofx.machine.parallel_regions import count_regions
from dendrofx.runtime.fused_int8 import FusedInt8Linear

ROOT = Path(__file__).parents[2]
# Everything in torch that uses several threads goes through this function of libgomp's.
SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
static long opened;
typedef void (*parallel)(void (*)(void *), void *, unsigned, unsigned);
void GOMP_parallel(void (*work)(void *), void *data, unsigned threads, unsigned flags) {
  static parallel real;
  static int (*inside)(void);
  if (!real) real = (parallel)dlsym(RTLD_NEXT, "GOMP_parallel");
  if (!inside) inside = (int (*)(void))dlsym(RTLD_NEXT, "omp_in_parallel");
  if (threads != 1 && !inside()) __atomic_add_fetch(&opened, 1, __ATOMIC_RELAXED);
  real(work, data, threads, flags);
}
long regions(void) { return opened; }
"""


def calls() -> dict[str, tuple[object, ...]]:
    """Calls by name, each a function and its arguments."""
    made: dict[str, tuple[object, ...]] = {}
    for rows in (1, 2, 40, 100, 600):
        for width in (16, 64, 512):
            x, at = torch.randn(rows, width), torch.arange(rows)
            name = f"{rows} x {width}"
            for act in (F.relu, F.gelu, F.silu, torch.exp, torch.tanh, torch.round, torch.clone, torch.isfinite):
                made[f"{act.__name__} {name}"] = (act, x)
            made[f"softmax {name}"] = (torch.softmax, x, -1)
            made[f"layer_norm {name}"] = (F.layer_norm, x, (width,))
            made[f"amax {name}"] = (torch.amax, x, 1)
            made[f"cat {name}"] = (torch.cat, [x, x], 1)
            made[f"index_select {name}"] = (torch.index_select, x, 0, at)
            made[f"index_copy {name}"] = (torch.Tensor.index_copy_, x.clone(), 0, at, x)
    for rows in (2, 40, 300):
        for width in (16, 1024):
            linear, x = nn.Linear(width, width), torch.randn(rows, width)
            for form in (Prepacked(), Int8(7), LowRank(8)):
                made[f"{form} {rows} x {width}"] = (form.fit(linear), x)
            made[f"Linear {rows} x {width}"] = (linear, x)
    weight = torch.randint(-64, 65, (64, 64), dtype=torch.int8)
    for rows in (1, 40):
        made[f"fbgemm {rows} x 64"] = (FusedInt8Linear(weight, torch.ones(64), None, None), torch.randn(rows, 64))
        q = torch.randn(rows, 12, 24, 32)
        made[f"attention {rows}"] = (F.scaled_dot_product_attention, q, q, q)
    made["bmm"] = (torch.bmm, torch.randn(4, 24, 32), torch.randn(4, 32, 24))
    return made


def count_all() -> dict[str, tuple[int, int]]:
    """What libgomp saw and what was counted of each call, in a process that was started with the library."""
    import ctypes

    torch.manual_seed(0)
    torch.set_num_threads(2)
    opened = ctypes.CDLL(os.environ["LD_PRELOAD"]).regions
    opened.restype = ctypes.c_long
    found = {}
    with torch.no_grad():
        for name, (call, *args) in calls().items():
            call(*args)  # type: ignore[operator]
            before = opened()
            call(*args)  # type: ignore[operator]
            found[name] = opened() - before, count_regions(lambda: call(*args), 2)  # type: ignore[operator] # noqa: B023
    return found


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cc") is None or sys.platform != "linux", reason="needs a C compiler on Linux")
def test_as_many_as_libgomp_opens(tmp_path: Path) -> None:
    source, shim = tmp_path / "shim.c", tmp_path / "shim.so"
    source.write_text(SHIM, encoding="utf-8")
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", shim, source, "-ldl"], check=True)
    code = "import json; from tests.machine.test_parallel_regions import count_all; print(json.dumps(count_all()))"
    env = {**os.environ, "LD_PRELOAD": str(shim), "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env=env, capture_output=True, text=True, check=True
    )
    found = json.loads(run.stdout)
    assert len(found) > 200
    assert sum(opened for opened, _ in found.values()) > 100
    off = {name: pair for name, pair in found.items() if pair[0] != pair[1]}
    if "GenuineIntel" in Path("/proc/cpuinfo").read_text(encoding="utf-8"):
        assert off == {}
    # MKL chooses by the CPU: on others it opens regions for some narrow products that it leaves alone on Intel's
    assert all(name.startswith(("Linear", "LowRank")) and opened > counted for name, (opened, counted) in off.items())
    assert len(off) <= 0.05 * len(found)


def test_one_thread_opens_none_and_small_work_none() -> None:
    block = nn.Sequential(nn.Linear(1024, 1024), nn.GELU())
    x = torch.randn(64, 1024)
    assert count_regions(lambda: block(x), 1) == count_regions(lambda: block(x)) == 0  # tests run on one thread
    assert count_regions(lambda: block(x), 2) == 3  # the product, its bias before it, and GELU
    assert count_regions(lambda: nn.ReLU()(x[:1].t()[:4].exp()), 2) == 0
