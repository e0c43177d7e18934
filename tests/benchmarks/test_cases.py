"""The cases that need no download: digits and wide."""

import pytest
import torch
from torch import Tensor, nn

from benchmarks.cases import CASES, CaseOptions
from benchmarks.models.digits import TRAIN, load_data, load_model
from dendrofx import InputError
from dendrofx.compare.case import Case
from dendrofx.compare.samples import Rows
from dendrofx.graph.capture import capture
from dendrofx.graph.find_sites import find_sites


def rows_of(case: Case) -> Tensor:
    assert isinstance(case.test, Rows)
    return case.test.rows


def keys(rows: Tensor) -> list[bytes]:
    return [row.numpy().tobytes() for row in rows]


def test_digits_data() -> None:
    images, labels = load_data()
    assert (images.shape, labels.shape) == ((1797, 64), (1797,))
    assert images.dtype == torch.float32
    assert (float(images.min()), float(images.max())) == (0.0, 1.0)
    assert sorted(set(labels.tolist())) == list(range(10))
    again, _ = load_data()
    assert torch.equal(images, again)


def test_digits_model_is_right_on_digits_it_was_not_trained_on() -> None:
    images, labels = load_data()
    model = load_model()
    assert not model.training
    with torch.no_grad():
        right = (model(images[TRAIN:]).argmax(1) == labels[TRAIN:]).double().mean()
    assert float(right) >= 0.95


def test_digits_for_training_calibration_and_test_are_disjoint() -> None:
    images, _ = load_data()
    case = CASES["digits"](CaseOptions())
    (seen,) = case.calibration
    assert (len(seen), len(rows_of(case))) == (600, 400)
    sets = [set(keys(images[:TRAIN])), set(keys(seen)), set(keys(rows_of(case)))]
    assert sum(map(len, sets)) == len(set.union(*sets)) == 1797
    assert set.union(*sets) == set(keys(images))
    assert case.classes
    assert not case.synthetic


@pytest.mark.parametrize("seed", [0, 7])
def test_digits_do_not_depend_on_the_seed(seed: int) -> None:
    assert torch.equal(rows_of(CASES["digits"](CaseOptions(seed))), rows_of(CASES["digits"](CaseOptions())))


def wide(seed: int = 0, width: int = 48, depth: int = 2) -> Case:
    return CASES["wide"](CaseOptions(seed, quick=True, width=width, depth=depth))


def everything(case: Case) -> list[Tensor]:
    return [*case.model.parameters(), *case.calibration, rows_of(case)]


def test_wide_is_the_same_for_a_seed() -> None:
    torch.manual_seed(1)
    first = everything(wide())
    torch.manual_seed(2)
    again = everything(wide())
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(everything(wide(seed=1))[0], first[0])
    assert not torch.equal(everything(wide(seed=1))[-1], first[-1])


@pytest.mark.parametrize("depth", [1, 3])
def test_wide_has_the_width_and_depth_asked_for(depth: int) -> None:
    case = wide(width=40, depth=depth)
    linears = [(m.in_features, m.out_features) for m in case.model.modules() if isinstance(m, nn.Linear)]
    assert linears == [(40, 40)] * depth + [(40, 16)]
    (site,) = find_sites(capture(case.model))
    assert site.widths == (40,) * (depth + 1) + (16,)
    assert rows_of(case).size(1) == case.calibration[0].size(1) == 40
    assert not case.model.training


def test_wide_is_labelled_synthetic() -> None:
    case = wide()
    assert case.synthetic
    assert "synthetic ReLU MLP" in case.title
    assert "synthetic rows" in case.title


def test_wide_rows_are_disjoint_and_of_two_kinds() -> None:
    case = wide()
    rows = torch.cat([*case.calibration, rows_of(case)])
    assert len(set(keys(rows))) == len(rows) == 800
    near = torch.linalg.svd(case.calibration[0][:, :], full_matrices=False).Vh[:3]
    share = (rows_of(case) @ near.t()).norm(dim=1) / rows_of(case).norm(dim=1)
    assert 0.7 < float((share > 0.95).double().mean()) < 0.9  # four rows of five lie near 3 of 48 dimensions
    assert float(share.min()) < 0.6


@pytest.mark.parametrize(("width", "depth"), [(31, 3), (64, 0), (0, 1)])
def test_wide_refuses_what_it_cannot_build(width: int, depth: int) -> None:
    with pytest.raises(InputError) as error:
        wide(width=width, depth=depth)
    assert str(error.value) == f"--width must be >= 32 and --depth >= 1, got {width} and {depth}"


def test_every_case_has_a_name() -> None:
    made_here = ["digits-decisions", "padding", "ranker", "ranker-dlrm", "ranker-dcn"]
    assert list(CASES) == ["digits", "tiara", "wide", "minilm", "antiberty", "rxnmapper", *made_here]
    assert [CASES[n](CaseOptions(quick=True, width=32, depth=1)).name for n in ("digits", "wide")] == ["digits", "wide"]
