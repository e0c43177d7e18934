"""Every test seeds itself from its own name and runs on one thread, so that it is the same alone and among others."""

import errno
import os
import zlib
from collections import Counter
from importlib.util import find_spec

import pytest
import torch

from benchmarks.models import packages
from dendrofx.machine.cores import usable_cores
from dendrofx.machine.memory import keep_loaded

torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # processes that tests start run beside another worker too

# Files of tens of seconds: one that starts last keeps one worker busy while the others have nothing left.
LONGEST = [
    "test_readme.py", "test_on_ray.py", "test_formats.py", "test_peers.py", "test_cpp.py", "test_examples.py",
    "test_families.py", "test_compare.py", "test_random_repeats.py", "test_dead_rows.py", "test_repeated_rows.py",
    "test_ways.py", "test_exits.py", "test_mask_check.py", "test_routed_models.py", "test_cascade.py", "test_transform.py",
    "test_memory.py", "test_footprint.py",
]  # fmt: skip
PEERS = ["onnx", "onnxruntime", "onnxscript", "openvino", "nncf", "torchao"]


@pytest.fixture(autouse=True)
def _seeded(request: pytest.FixtureRequest) -> None:
    torch.manual_seed(zlib.crc32(request.node.name.encode()))


@pytest.fixture(autouse=True, scope="module")
def _collected() -> None:
    """Take what has been imported and made by now out of the collector's sight: each `transform` collects several times.

    Among the objects of all of torch and of some thousand tests, a collection takes 0.2 to 0.5 s; half of a test's time.
    """
    if find_spec("trio"):  # selenium's: it registers with hypothesis, which finds no references of frozen objects
        import hypothesis  # noqa: F401
    keep_loaded()


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No file can be written whole: the system says so when its bytes are to reach the disk."""

    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)


def pytest_xdist_auto_num_workers() -> int:
    """Return what `-n auto` means."""
    return usable_cores()


def missing(mark: pytest.Mark) -> list[str]:
    """Return what a test with this mark needs and is not there: of `real` the modules it names, else all of the real models'."""
    if mark.name == "real" and not mark.args:
        return packages.missing()
    return [name for name in (PEERS if mark.name == "peers" else mark.args) if find_spec(name) is None]


@pytest.hookimpl(trylast=True)  # of what the markers leave
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the files that take longest, then those of most tests; skip what needs a missing package, but never in CI."""
    tests = Counter(item.path for item in items)
    first = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: (first.get(item.path.name, len(LONGEST)), -tests[item.path], item.path))
    if os.environ.get("CI"):
        return
    for item in items:
        marks = [mark for name in ("real", "peers") for mark in item.iter_markers(name)]
        if names := sorted({name for mark in marks for name in missing(mark)}):
            item.add_marker(pytest.mark.skip(reason=f"needs {', '.join(names)}: see tests/README.md"))
