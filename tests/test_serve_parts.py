"""The parts of examples/serve: batches and who is refused, what a model is asked, and the load test as it is run."""

import asyncio
import importlib
import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.real("fastapi", "uvicorn")
SERVE = Path(__file__).parent.parent / "examples" / "serve"
SPEC = "i64[N, T] i64[N, T]"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SERVE))


def batched(requests: list[Any], answer: Any, **options: Any) -> tuple[list[Any], Any]:
    """What becomes of requests that all wait before the first batch opens, and the batcher."""

    async def run() -> tuple[list[Any], Any]:
        with ThreadPoolExecutor(1) as pool:
            batcher = importlib.import_module("batching").Batcher(answer, pool, **options)
            waiting = [asyncio.create_task(batcher.ask(r)) for r in requests]
            await asyncio.sleep(0)  # all are in the queue
            task = asyncio.create_task(batcher.run())
            found = await asyncio.gather(*waiting, return_exceptions=True)
            task.cancel()
        return found, batcher

    return asyncio.run(asyncio.wait_for(run(), 60))  # hangs where a request is never answered


def test_a_batch_closes_when_it_is_full_and_keeps_the_order() -> None:
    asked = importlib.import_module("inputs").Asked
    sizes: list[list[int]] = []

    def answer(parts: Any) -> Any:
        sizes.append([p.samples for p in parts])
        return [p.values for p in parts], Counter({"fc rows": sum(sizes[-1]), "fc largest_score_millionths": 7})

    requests = [asked(n, torch.full((n,), float(i))) for i, n in enumerate([3, 4, 2, 8, 1, 1])]
    found, batcher = batched(requests, answer, max_batch=8)
    assert sizes == [[3, 4], [2], [8], [1, 1]]
    assert all(torch.equal(got, r.values) for got, r in zip(found, requests, strict=True))
    assert batcher.counters == {"requests": 6, "samples": 19, "batches": 4, "counted": 4, "refused": 0}
    assert batcher.executed == {"fc rows": 19, "fc largest_score_millionths": 7}


def test_one_that_the_model_refuses_does_not_fail_the_others_of_its_batch() -> None:
    asked = importlib.import_module("inputs").Asked

    def answer(parts: Any) -> Any:
        if any(p.values[0] < 0 for p in parts):
            raise IndexError("the trace\nindex out of range")
        return [p.values for p in parts], Counter()

    found, batcher = batched([asked(1, torch.tensor([v])) for v in (1.0, -1.0, 2.0)], answer)
    assert [str(f) for f in found] == ["tensor([1.])", "the model refused this: index out of range", "tensor([2.])"]
    assert batcher.counters == {"requests": 2, "samples": 2, "batches": 2, "counted": 0, "refused": 1}


def test_more_requests_than_may_wait_are_refused() -> None:
    asked = importlib.import_module("inputs").Asked
    requests = [asked(1, torch.zeros(1)) for _ in range(3)]
    found, _ = batched(requests, lambda parts: ([p.values for p in parts], Counter()), max_waiting=2)
    assert [getattr(f, "status", 200) for f in found] == [200, 200, 503]


def test_the_mask_goes_where_the_model_takes_it() -> None:
    inputs = importlib.import_module("inputs")
    asked = inputs.Asked(2, torch.tensor([5, 6, 7]), (1, 2))
    ids, mask = [[5, 0], [6, 7]], [[1, 0], [1, 1]]
    for names, wanted in ((["input_ids", "attention_mask"], [ids, mask]), (["live_mask", "ids"], [mask, ids])):
        assert [t.tolist() for t in inputs.kind_of(SPEC, names, 20).join([asked])] == wanted


@pytest.mark.parametrize(
    ("text", "names"), [("", ["x"]), ("f32[N, T, 64]", ["x"]), ("f64[N, 64]", ["x"]), ("f32[N, 8]", ["a", "b"])]
)
def test_a_model_that_cannot_be_asked_is_refused_with_what_can(text: str, names: list[str]) -> None:
    with pytest.raises(ValueError, match=r"^cannot serve a model of .*f32\[N, sizes \.\.\.\].*SERVE_INPUTS says which"):
        importlib.import_module("inputs").kind_of(text, names, 20)


@pytest.mark.parametrize("said", [{}, {"SERVE_MODEL": "m.pt", "SERVE_MAX_BATHC": "8"}])
def test_settings_name_what_is_wrong(said: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="SERVE_MAX_BATHC" if said else "SERVE_MODEL"):
        importlib.import_module("app").Settings.of(said)


@pytest.mark.nightly
@pytest.mark.real("locust", "psutil")
def test_the_load_test_runs_and_leaves_no_server(tmp_path: Path) -> None:
    asked = ["--model", "digits", "--seconds", "2", "--rounds", "1", "--users", "4"]
    command = [sys.executable, str(SERVE / "load.py"), *asked]
    environment = os.environ | {"PYTHONPATH": str(SERVE.parent.parent), "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    (ratio,) = [line for line in lines if line.startswith("routed / original")]
    assert ratio.count(" x") == 4
    assert max(map(len, lines)) <= 100
    assert "is warm: 12 calls" in done.stdout
    assert not list(tmp_path.iterdir())
    assert not left()


def left() -> list[Any]:
    """Processes that were started from the example's folder."""
    found = importlib.import_module("psutil").process_iter(["cmdline"])
    return [p for p in found if str(SERVE) in (p.info["cmdline"] or [])]


def test_a_server_that_does_not_start_says_why_and_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_text("no archive", encoding="utf-8")
    running = importlib.import_module("running").running
    with pytest.raises(RuntimeError, match=f"the server did not start:(.|\n)*cannot load {path}"), running(path, ""):
        pytest.fail("it answers")
    assert not left()
