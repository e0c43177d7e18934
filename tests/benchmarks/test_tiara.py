"""The real case: tiara's classifier on its DNA fragments."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from benchmarks.cases import CASES, CaseOptions
from benchmarks.models.packages import require
from benchmarks.models.tiara import KINDS, load_fragments, load_model
from dendrofx.compare.case import Case

pytestmark = pytest.mark.real("tiara")


@pytest.fixture(scope="module")
def package() -> Path:
    return require("tiara")


@pytest.fixture(scope="module")
def fragments() -> tuple[Tensor, Tensor]:
    return load_fragments()


@pytest.fixture(scope="module")
def case() -> Case:
    return CASES["tiara"](CaseOptions())


def records_of(rows: Tensor, fragments: tuple[Tensor, Tensor]) -> list[int]:
    """The FASTA record of each row, found by the row's own bits."""
    known = {bytes(row.numpy().tobytes()): int(record) for row, record in zip(*fragments, strict=True)}
    return [known[row.numpy().tobytes()] for row in rows]


def test_the_case_loads(case: Case) -> None:
    layers = [m for m in case.model if isinstance(m, nn.Linear)]  # type: ignore[union-attr]
    assert [(m.in_features, m.out_features) for m in layers] == [(4096, 2048), (2048, 1024), (1024, 5)]
    assert not case.model.training
    assert not case.synthetic
    assert isinstance(case.model[-1], nn.Linear), "up to its logits"  # type: ignore[index]
    assert len(case.calibration) == 20
    assert list(case.static) == ["dead-units"]


def test_calibration_and_test_fragments_come_from_disjoint_records(
    case: Case, fragments: tuple[Tensor, Tensor]
) -> None:
    batches = [set(records_of(b, fragments)) for b in case.calibration]
    test = records_of(case.test.rows, fragments)
    assert not set.union(*batches) & set(test)
    assert sum(len(b) for b in batches) == len(set.union(*batches)), "a record stays in one batch"
    assert sum(len(b) for b in case.calibration) + len(test) == len(fragments[0])
    assert set.union(*batches) | set(test) == set(fragments[1].tolist())


def test_features_are_unit_rows(fragments: tuple[Tensor, Tensor]) -> None:
    rows, record = fragments
    assert torch.allclose(rows.norm(dim=1), torch.ones(len(rows)), atol=1e-5)
    assert rows.min() >= 0
    assert bool((record.diff() >= 0).all())


def test_the_classifier_separates_the_kinds(package: Path, fragments: tuple[Tensor, Tensor]) -> None:
    """Which class stands for which kind is the model's own business; each kind must have one, and its own."""
    rows, record = fragments
    files = [package / f"test/test_data/{kind}_fr.fasta" for kind in KINDS]
    kind_of_record = [i for i, file in enumerate(files) for _ in range(file.read_bytes().count(b">"))]
    kind = torch.tensor(kind_of_record)[record]
    with torch.no_grad():
        decided = load_model()(rows).argmax(1)
    counts = torch.stack([torch.bincount(decided[kind == i], minlength=5) for i in range(len(KINDS))]).double()
    assert bool((counts.amax(1) / counts.sum(1) >= 0.95).all())
    majority = counts.argmax(1).tolist()
    assert majority[2] not in majority[:2]
    assert len(set(majority)) >= 4


def test_quick_takes_fewer_rows_and_another_seed_others(case: Case) -> None:
    quick = CASES["tiara"](CaseOptions(quick=True))
    assert torch.equal(quick.test.rows, case.test.rows[:800])
    assert not torch.equal(CASES["tiara"](CaseOptions(seed=1, quick=True)).test.rows, quick.test.rows)
