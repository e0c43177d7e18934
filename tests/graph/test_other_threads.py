"""While one thread transforms, others go on calling modules: theirs, and transforms of their own."""

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, fx, nn

import dendrofx
from dendrofx.graph.capture.tracing import tracing
from tests.graph.capture.deciding import Checks
from tests.graph.capture.models import WIDTH
from tests.models import Mlp, Residual

CALLS = 200  # of other threads, at least, beside at least one transform of each way
CALLERS = 2
PATIENCE = 600.0  # seconds; only a deadlock takes so long
X = torch.randn(8, WIDTH)


class Sized(nn.Module):
    """Its branch on a size is what symbolic tracing cannot follow, and export can."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = Mlp(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x if x.shape[-1] == WIDTH else 2 * x)


# By way of capture, the model and the example that make transform take it.
WAYS: dict[str, tuple[Callable[[], nn.Module], object]] = {
    "symbolic": (lambda: Residual(WIDTH), None),
    "export": (Sized, X),
    "trace": (Checks, X),
}


@dataclass
class Seen:
    """What happened in all threads."""

    stop: threading.Event = field(default_factory=threading.Event)
    errors: list[str] = field(default_factory=list)
    calls: int = 0
    transformed: list[str] = field(default_factory=list)


@pytest.fixture(autouse=True)
def _eager_switches() -> Iterator[None]:
    """Threads take turns often, as on a machine with many cores."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(before)


def _call(seen: Seen, modules: Sequence[nn.Module], wanted: Sequence[Tensor]) -> None:
    """Calls of modules, compared with what they gave when nothing else ran."""
    while not seen.stop.is_set():
        try:
            with torch.no_grad():
                same = all(torch.equal(m(X), w) for m, w in zip(modules, wanted, strict=True))
        except Exception as error:
            seen.errors.append(f"a call: {type(error).__name__}: {error}")
        else:
            seen.calls += 1
            if not same:
                seen.errors.append("a call: another output")


def _transform(seen: Seen, way: str, model: nn.Module, example: object, wanted: Tensor) -> None:
    """Transforms of one model, at least one of them, for as long as other threads have not called often enough."""
    args = example if isinstance(example, tuple) else (X,)
    while way not in seen.transformed or (seen.calls < CALLS and not seen.errors):
        seen.transformed.append(way)
        try:
            with torch.no_grad():
                routed = dendrofx.transform(model, example, budget=0, options=dendrofx.Options(tune_seconds=0))
                far = float((routed(*args) - wanted).abs().max())
            if not (routed.plan.capture.startswith(f"captured by {way}") and far <= 1e-5):
                seen.errors.append(f"a transform by {way}: {routed.plan.capture}, {far:.2g} off")
        except Exception as error:
            seen.errors.append(f"a transform by {way}: {type(error).__name__}: {error}")


@torch.no_grad()
def _threads(seen: Seen, ways: tuple[str, ...]) -> list[threading.Thread]:
    """All of them, with what they compare with made before any starts."""
    plain = Residual(WIDTH).eval()
    modules = [plain, dendrofx.transform(plain, budget=0, options=dendrofx.Options(decide=False))]
    wanted = [m(X) for m in modules]
    threads = [threading.Thread(target=_call, args=(seen, modules, wanted)) for _ in range(CALLERS)]
    for way in ways:
        build, example = WAYS[way]
        model = build().eval()
        args = (seen, way, model, example, model(X))
        threads.append(threading.Thread(target=_transform, args=args))
    return threads


def test_a_call_that_outlasts_a_trace_is_left_alone() -> None:
    class Tracer(fx.Tracer):
        pass

    tracer, model, other = Tracer(), Mlp(WIDTH).eval(), nn.Linear(WIDTH, 3)
    with tracing(model, Tracer):
        tracer.trace(model)
    with ThreadPoolExecutor(1) as pool:  # torch's patch of the modules had begun to ask the tracer
        called = pool.submit(tracer.call_module, other, other.forward, (X,), {}).result()
        got = pool.submit(tracer.getattr, "weight", model.fc1.weight, {}).result()
    assert torch.equal(called, other(X))
    assert isinstance(got, Tensor)


@pytest.mark.slow
@pytest.mark.parametrize("ways", [("symbolic",), ("symbolic", "export", "trace")], ids="+".join)
def test_transform_disturbs_no_other_thread(ways: tuple[str, ...]) -> None:
    seen = Seen()
    threads = _threads(seen, ways)
    for thread in threads:
        thread.start()
    for thread in threads[CALLERS:]:
        thread.join(PATIENCE)
    seen.stop.set()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert not seen.errors, f"{len(seen.errors)} errors beside {seen.calls} calls, the first: {seen.errors[:3]}"
    assert seen.calls >= CALLS
