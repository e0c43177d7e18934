"""examples/serve: what a server answers is the module's own, whoever waits beside a request."""

import asyncio
import importlib
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dendrofx
from tests.made import made
from tests.padded import Attends

pytestmark = pytest.mark.real("fastapi", "uvicorn", "httpx2")
SERVE = Path(__file__).parent.parent / "examples" / "serve"
CLOSE: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5}  # rows of another batch differ by the order of float sums
SPEC = "i64[N, T] i64[N, T]"


class Encoder(nn.Module):
    """i64[N, T] twice -> f32[N, T, 32], or f32[N, 32] where it pools."""

    def __init__(self, pools: bool) -> None:
        super().__init__()
        self.pools = pools
        self.tokens, self.attends = nn.Embedding(50, 32), Attends()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.attends(self.tokens(input_ids), attention_mask)
        live = attention_mask.unsqueeze(-1).to(x.dtype)
        return (x * live).sum(1) / live.sum(1) if self.pools else x  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Served:
    """A file, the module that was written to it, and whether it takes sequences."""

    path: Path
    module: nn.Module
    sequences: bool
    inputs: str = ""


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SERVE))
    return importlib.import_module("app")


@pytest.fixture(params=["rows", "tokens", "pooled", "as it is"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Served:
    path = tmp_path / "model.pt"
    if request.param == "rows":
        module: nn.Module = made("residual").module
        dendrofx.save(module, path)
        return Served(path, module, sequences=False)
    model = Encoder(pools=request.param == "pooled").eval().requires_grad_(False)
    if request.param == "as it is":
        ids = torch.randint(1, 50, (3, 7))
        torch.jit.save(torch.jit.trace(model, (ids, torch.ones_like(ids))), str(path))
        return Served(path, model, sequences=True, inputs=SPEC)
    mask = (torch.arange(9) < torch.tensor([9, 2, 4, 1])[:, None]).long()
    batch = {"input_ids": torch.randint(1, 50, (4, 9)) * mask, "attention_mask": mask}
    options = dendrofx.Options(tune_seconds=0, decide=False)
    module = dendrofx.transform(model, batch, dead_rows="attention_mask", budget=0, options=options)
    dendrofx.save(module, path)
    return Served(path, module, sequences=True)


def asking(app: Any, settings: Any, ask: Callable[[Any], Awaitable[None]]) -> None:
    """Run `ask` with a client of an application that has started; no port is opened."""
    httpx2 = importlib.import_module("httpx2")

    async def run() -> None:
        made = app.create(settings)
        transport = httpx2.ASGITransport(app=made)
        async with (
            made.router.lifespan_context(made),
            httpx2.AsyncClient(transport=transport, base_url="http://x") as c,
        ):
            await ask(c)

    asyncio.run(asyncio.wait_for(run(), 60))  # hangs where a request is never answered


def raw(values: Tensor) -> bytes:
    return values.numpy().tobytes()


def values(answer: Any) -> Tensor:
    assert answer.status_code == 200, answer.text
    shape = [int(size) for size in answer.headers["x-shape"].split(",")]
    return torch.frombuffer(bytearray(answer.content), dtype=torch.float32).view(shape)


def drawn(served: Served, count: int) -> list[tuple[dict[str, str], bytes, list[Tensor]]]:
    """Requests of several sizes: header, body, and the samples."""
    found = []
    for i in range(count):
        samples = 1 + i % 5
        if served.sequences:
            kept = [torch.randint(1, 50, (1 + int(torch.randint(12, ())),)) for _ in range(samples)]
            header = {"X-Lengths": ",".join(str(len(one)) for one in kept)}
        else:
            kept = list(torch.randn(samples, 64) * (50 if i % 3 == 0 else 1))  # far rows are hard
            header = {"X-Shape": f"{samples},64"}
        found.append((header, raw(torch.cat(kept)), kept))
    return found


def assert_own(served: Served, answer: Any, samples: list[Tensor]) -> None:
    """Each sample's answer is what the module returns for it alone."""
    got = values(answer)
    assert len(got) == len(samples)
    for one, sample in zip(got, samples, strict=True):
        given = (sample[None], torch.ones(1, len(sample), dtype=torch.int64)) if served.sequences else (sample[None],)
        with torch.no_grad():
            wanted = served.module(*given)[0]
        kept = one[: len(sample)] if served.sequences and one.dim() == 2 else one
        torch.testing.assert_close(kept, wanted, **CLOSE)


def test_answers_are_the_modules_own_and_counters_add_up(app: Any, served: Served) -> None:
    asked = drawn(served, 40)
    samples = [sample for _, _, kept in asked for sample in kept]

    async def ask(client: Any) -> None:
        answers = await asyncio.gather(*(client.post("/predict", headers=h, content=b) for h, b, _ in asked))
        for answer, (_, _, kept) in zip(answers, asked, strict=True):
            assert_own(served, answer, kept)
        health = (await client.get("/health")).json()
        assert (health["ready"], health["worker"]) == (True, os.getpid())
        counted = (await client.get("/counters")).json()
        assert (counted["requests"], counted["samples"], counted["refused"]) == (40, len(samples), 0)
        assert counted["batches"] < 40  # some were answered together
        executed = counted["executed"]
        if served.inputs:  # the original counts nothing
            assert executed is None
        elif served.sequences:
            assert executed["dead rows live_rows"] == sum(map(len, samples))
        else:
            sites = {name.rpartition(" ")[0]: n for name, n in executed.items() if name.endswith(" rows")}
            assert sites
            assert set(sites.values()) == {len(samples)}
            assert any(n for name, n in executed.items() if name.endswith(" hard_rows"))

    asking(app, app.Settings(served.path, served.inputs), ask)


def test_a_request_that_cannot_be_answered_is_refused_alone_and_with_the_reason(app: Any, served: Served) -> None:
    good, right = drawn(served, 12), raw(torch.zeros(64))
    ids = raw(torch.ones(7, dtype=torch.int64))
    bad = [({"X-Shape": "1,63"}, right[4:], 422, "f32[N, 64]"), ({"X-Shape": "2,64"}, right, 422, "not 512 bytes")]
    bad += [({"X-Shape": "9,64"}, 9 * right, 413, "at most 8"), ({"X-Shape": "0,64"}, b"", 422, "nothing to answer")]
    if served.sequences:
        bad = [
            ({"X-Lengths": "7"}, raw(torch.full((7,), 50)), 422, "the model refused this"),
            ({"X-Lengths": "8"}, ids, 422, "not 64 bytes"),
        ]
        bad += [
            ({"X-Lengths": "21"}, 3 * ids, 422, "at most 20"),
            ({"X-Lengths": ",".join("1" * 9)}, ids, 413, "at most 8"),
        ]
    bad += [
        ({}, right, 422, "must say the sizes"),
        ({"X-Shape": "1,-64", "X-Lengths": "x"}, right, 422, "must say the sizes"),
    ]

    async def ask(client: Any) -> None:
        sent = [client.post("/predict", headers=h, content=b) for h, b, *_ in [*good[:6], *bad, *good[6:]]]
        answers = await asyncio.gather(*sent)
        refused, rest = answers[6 : 6 + len(bad)], [*answers[:6], *answers[6 + len(bad) :]]
        for answer, (_, _, status, reason) in zip(refused, bad, strict=True):
            assert (answer.status_code, reason in answer.json()["detail"]) == (status, True), answer.text
        for answer, (_, _, samples) in zip(rest, good, strict=True):
            assert_own(served, answer, samples)

    asking(app, app.Settings(served.path, served.inputs, max_batch=8, max_tokens=20), ask)


@pytest.mark.parametrize(("every", "counted"), [(0, 0), (1, 5), (2, 3)])
def test_one_batch_in_so_many_is_counted(app: Any, tmp_path: Path, every: int, counted: int) -> None:
    module, path = made("residual").module, tmp_path / "model.pt"
    dendrofx.save(module, path)
    served = Served(path, module, sequences=False)
    settings = app.Settings.of({"SERVE_MODEL": str(path), "SERVE_COUNT": str(every), "HOME": "/"})

    async def ask(client: Any) -> None:
        sizes = []
        for header, body, samples in drawn(served, 5):
            assert_own(served, await client.post("/predict", headers=header, content=body), samples)
            sizes.append(len(samples))
        found = (await client.get("/counters")).json()
        assert (found["batches"], found["counted"]) == (5, counted)
        rows = {n for name, n in (found["executed"] or {}).items() if name.endswith(" rows")}
        assert rows == ({sum(sizes[::every])} if every else set())

    asking(app, settings, ask)
