from pathlib import Path

import pytest

from tests.scale.data import Data, data


@pytest.fixture(scope="package")
def it(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return data(tmp_path_factory.mktemp("scale"))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"
