"""What is recorded: the models of the tests, and the cases of the benchmark in their quick form."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

import dendrofx
from benchmarks.cases import CASES, CaseOptions
from benchmarks.models import hf
from dendrofx import Budget, Int8, LowRank, Pruned, RoutedBlocks
from tests import padded
from tests.asked import asked
from tests.models import Mlp, NoBlock, Residual, Shared, compressible
from tests.recorded import FAST, SLOW, Recorded
from tests.rows import models as rows
from tests.search.cascade import models as cascade

Subject = Callable[[], tuple[nn.Module, dict[str, Any]]]
FLIP = Budget("flip", 0.05)


def _seeded(make: Subject) -> tuple[nn.Module, dict[str, Any]]:
    torch.manual_seed(0)
    model, options = make()
    return model.eval(), options


def _data(width: int, count: int = 10, size: int = 64) -> list[torch.Tensor]:
    return [torch.randn(size, width) for _ in range(count)]


def _plain(build: Callable[[], nn.Module], width: int, **options: Any) -> tuple[nn.Module, dict[str, Any]]:
    return build(), {"calibration": _data(width), **options}


def _bare(build: Callable[[], nn.Module], width: int, **options: Any) -> tuple[nn.Module, dict[str, Any]]:
    return build(), {"example_inputs": torch.randn(64, width), **options}


def _cascade(build: Callable[[], nn.Module], **options: Any) -> tuple[nn.Module, dict[str, Any]]:
    return build(), {"calibration": cascade.batches(), "budget": FLIP, "scope": "model", **options}


def _pooled(**options: Any) -> tuple[nn.Module, dict[str, Any]]:
    def batch() -> dict[str, torch.Tensor]:
        lengths = torch.randint(1, 8, (50, 1))
        return {"x": torch.randn(50, 7, 64), "mask": torch.arange(7) < lengths}

    return cascade.Pooled(), {
        "calibration": [batch() for _ in range(20)],
        "budget": FLIP,
        "dead_rows": "mask",
        **options,
    }


def _padded(**options: Any) -> tuple[nn.Module, dict[str, Any]]:
    return padded.rows_model(), {"calibration": padded.batches(), "dead_rows": "mask", **options}


def _encoder(form: Any, **options: Any) -> tuple[nn.Module, dict[str, Any]]:
    def batch() -> dict[str, torch.Tensor]:
        return rows.padded([9, *torch.randint(1, 10, (7,)).tolist()], 9)

    return rows.encoder(form, 2), {
        "calibration": [batch() for _ in range(10)],
        "dead_rows": "attention_mask",
        **options,
    }


def _family(name: str, **options: Any) -> tuple[nn.Module, dict[str, Any]]:
    given = [hf.example_inputs(name, 8, 9 + i) for i in range(8)]
    return hf.families()[name](), {"calibration": given, **options}


def _case(name: str, **options: Any) -> tuple[nn.Module, dict[str, Any]]:
    certified = isinstance(options.get("budget"), Budget)
    asked = CaseOptions(quick=True, width=256, certified=certified, decides=certified)
    case = CASES[name](asked)
    if case.dead_rows:
        options["dead_rows"] = case.dead_rows
    return case.model, {"calibration": case.calibration, **options}


def _block() -> Iterator[tuple[str, Subject]]:
    kinds: dict[str, tuple[Callable[[], nn.Module], int]] = {
        "mlp": (Mlp, 16),
        "residual": (partial(Residual, 64, 256), 64),
        "shared": (Shared, 16),
        "no-block": (NoBlock, 16),
        "compressible": (compressible, 64),
    }
    for name, (build, width) in kinds.items():
        yield name, partial(_plain, build, width)
        yield f"{name}-every-site", partial(_plain, build, width, budget=0.1, decide=False)
        yield f"{name}-exact", partial(_plain, build, width, budget=0)
    for name in ("residual", "compressible"):
        build, width = kinds[name]
        yield f"{name}-budget", partial(_plain, build, width, budget=FLIP)
        yield f"{name}-wide-budget", partial(_plain, build, width, budget=Budget("deviation", 0.4))
        yield f"{name}-ten-percent", partial(_plain, build, width, budget=0.1)
        yield f"{name}-no-data", partial(_bare, build, width, light=Int8(), budget=0.05, decide=False)
        yield (
            f"{name}-low-rank-pruned",
            partial(_plain, build, width, light=[LowRank(8), Pruned(energy=0.9)], budget=0.2, batch_sizes=[1, 64]),
        )
    narrow = Budget("deviation", 0.3, 0.9)
    yield "residual-narrow-budget", partial(_plain, partial(Residual, 64, 256), 64, budget=narrow)
    yield "padded-budget", partial(_padded, budget=narrow)
    yield (
        "residual-full-pruned",
        partial(_plain, partial(Residual, 64, 256), 64, full=Pruned(energy=0.999), light=LowRank(8), budget=0.2),
    )


def _model_scope() -> Iterator[tuple[str, Subject]]:
    for name in ("classifier", "Binary", "Mixing"):
        yield f"cascade-{name.lower()}", partial(_cascade, getattr(cascade, name))
    yield "cascade-forms", partial(_cascade, cascade.classifier, light=[LowRank(8), Int8()])
    yield "cascade-deviation", partial(_cascade, cascade.classifier, budget=Budget("deviation", 0.3))
    yield (
        "cascade-routed",
        partial(_cascade, cascade.classifier, light=[LowRank(8), RoutedBlocks(0.1)], full=RoutedBlocks(0.01)),
    )
    yield "cascade-pooled", partial(_pooled, scope="model")
    yield "pooled-budget", partial(_pooled, scope="block")


def _dead_rows() -> Iterator[tuple[str, Subject]]:
    yield "padded", _padded
    yield "padded-exact", partial(_padded, budget=0)
    yield "padded-ten-percent", partial(_padded, budget=0.1)
    for form in ("sdpa", "eager"):
        yield f"encoder-{form}", partial(_encoder, form, budget=0.05)
    for name in ("bert-sdpa", "distilbert-eager", "gpt2-sdpa"):
        yield f"family-{name}", partial(_family, name, budget=0.05, dead_rows="attention_mask")
    yield "family-vit-sdpa", partial(_family, "vit-sdpa", budget=0.05)


def _cases() -> Iterator[tuple[str, Subject]]:
    for name in CASES:
        yield f"case-{name}", partial(_case, name, budget=0.05)
    for name in ("digits", "wide", "tiara"):
        yield f"case-{name}-budget", partial(_case, name, budget=FLIP, scope="block")
        yield f"case-{name}-cascade", partial(_case, name, budget=FLIP, scope="model")
    yield "case-digits-auto", partial(_case, "digits", budget=FLIP)
    yield "case-minilm-exact", partial(_case, "minilm", budget=0)
    yield "case-minilm-cascade", partial(_case, "minilm", budget=FLIP, scope="model")


def _timed() -> Iterator[tuple[str, Subject]]:
    """On recorded times, so that what a stopwatch decides is held too."""
    wide = partial(Residual, 64, 256)
    races: dict[str, Any] = {
        "fast": lambda sites, samples: FAST,
        "slow": lambda sites, samples: SLOW,
        "slow-until-one": lambda sites, samples: FAST if len(sites) < 2 else SLOW,
    }
    packs = Recorded(parts=lambda shape, rows: {"packed": 7.0})
    for name, race in races.items():
        yield f"timed-{name}", partial(_plain, wide, 64, budget=0.3, timer=Recorded(races=race))
        yield (
            f"timed-{name}-budget",
            partial(_plain, wide, 64, budget=Budget("deviation", 0.4), scope="block", timer=Recorded(races=race)),
        )
        yield f"timed-{name}-cascade", partial(_cascade, cascade.classifier, timer=Recorded(races=race))
        yield f"timed-{name}-padded", partial(_padded, budget=0.1, timer=Recorded(races=race))
        yield f"timed-{name}-pooled", partial(_pooled, scope="model", timer=Recorded(races=race))
    yield "timed-packed", partial(_plain, wide, 64, budget=0.3, timer=packs)
    yield "timed-packed-budget", partial(_plain, wide, 64, budget=Budget("deviation", 0.4), scope="block", timer=packs)
    yield (
        "timed-packed-narrow",
        partial(_plain, wide, 64, budget=Budget("deviation", 0.3, 0.9), scope="block", timer=packs),
    )
    yield (
        "timed-packed-padded-budget",
        partial(_padded, budget=Budget("deviation", 0.3, 0.9), scope="block", timer=packs),
    )
    yield "timed-packed-exact", partial(_plain, wide, 64, budget=0, timer=packs)
    yield "timed-packed-padded", partial(_padded, budget=0.1, timer=packs)
    yield "timed-out-of-time", partial(_plain, wide, 64, budget=0.3, timer=Recorded(expired=True))
    yield "timed-interrupted", partial(_plain, wide, 64, budget=0.3, timer=Recorded(interrupt=["site 2"]))
    yield "timed-race-interrupted", partial(_plain, wide, 64, budget=0.3, timer=Recorded(interrupt=["models 1"]))


def subjects() -> dict[str, Callable[[], tuple[nn.Module, dict[str, Any]]]]:
    """By name, a function that makes the model and the options of `transform`, the same each time."""
    found = [*_block(), *_model_scope(), *_dead_rows(), *_timed(), *_cases()]
    return {name: partial(_seeded, make) for name, make in found}


def made(subject: Subject) -> tuple[Any, Any]:
    """The transformed module and a batch of its calibration."""
    model, options = subject()
    given = options["calibration"][0] if "calibration" in options else options["example_inputs"]
    if (timer := options.pop("timer", None)) is None:
        return dendrofx.transform(model, **asked(**options, tune_seconds=0)), given
    module: Any = importlib.import_module("dendrofx.transform")
    kept, module.Profiler = module.Profiler, lambda *asked: timer
    try:
        return dendrofx.transform(model, **asked(**options)), given
    finally:
        module.Profiler = kept
