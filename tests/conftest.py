"""Every test seeds itself from its own name and runs on one thread, so that it is the same alone and among others."""

import os
import zlib
from importlib.util import find_spec

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded(request: pytest.FixtureRequest) -> None:
    torch.manual_seed(zlib.crc32(request.node.name.encode()))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A missing package is a skip with its reason, but never in CI."""
    for item in items:
        if item.get_closest_marker("tiara") and find_spec("tiara") is None and not os.environ.get("CI"):
            item.add_marker(
                pytest.mark.skip(reason="needs tiara: pip install --no-deps -r benchmarks/models/requirements.txt")
            )
