"""Every test seeds itself from its own name and runs on one thread, so that it is the same alone and among others."""

import errno
import os
import zlib
from importlib.util import find_spec

import pytest
import torch

from benchmarks.models import packages

torch.set_num_threads(1)

# Marker -> what the marked tests import.
NEEDS = {
    "tiara": ["tiara"],
    "hf": ["transformers"],
    "peers": ["onnx", "onnxruntime", "onnxscript", "openvino", "nncf", "torchao"],
}


@pytest.fixture(autouse=True)
def _seeded(request: pytest.FixtureRequest) -> None:
    torch.manual_seed(zlib.crc32(request.node.name.encode()))


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No file can be written whole: the system says so when its bytes are to reach the disk."""

    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)


def missing(marker: str) -> list[str]:
    """What the tests of a marker need and is not there."""
    if marker == "real":
        return packages.missing()
    return [name for name in NEEDS[marker] if find_spec(name) is None]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A missing package is a skip with its reason, but never in CI."""
    if os.environ.get("CI"):
        return
    absent = {marker: missing(marker) for marker in (*NEEDS, "real")}
    for item in items:
        for marker, names in absent.items():
            if names and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=f"needs {', '.join(names)}: see README, Install"))
