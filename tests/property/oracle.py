"""Transforms a random module, and tries what came out: each call against the original's. `outcome.py` has the kinds of faults."""

from __future__ import annotations

import copy
import io
import warnings
from contextlib import redirect_stderr
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

import dendrofx
from tests.asked import asked
from tests.property.calls import FLAGS, LEFT_OUT, RAISES, SAME, SIZES, Call, make, unlike
from tests.property.compare import apart, relative, tensors
from tests.property.features import draw
from tests.property.features.modules import HOOKED
from tests.property.how import How, names_output
from tests.property.outcome import (
    CALLER,
    FLAGGED,
    HOOKS,
    OUTPUTS,
    SCRIPT,
    SIZED,
    UNSCRIPTED,
    VALUES,
    WORDS,
    Outcome,
)
from tests.property.scripted import scripted_apart
from tests.property.snapshot import changes, snapshot

_KIND_OF = {SIZES: SIZED, RAISES: SIZED, FLAGS: FLAGGED, LEFT_OUT: FLAGGED}
# The mean deviation of fresh samples over the budget. Calibration walks some 60 samples, or 10 calls where the inputs share no
# axis of samples: what one in twenty of them does may be seen in none. Outputs that a budget does not hold for are far above.
SLACK = 1.5
FRESH = 64  # batches of fresh samples


def examine(number: int) -> Outcome:
    """Draw a module and a way to transform it, transform it, and try the result."""
    draft = draw(number)
    outcome = Outcome(draft, How.draw(draft))
    with torch.random.fork_rng(devices=[]), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _Trial(outcome, torch.Generator().manual_seed(number)).run()
    return outcome


class _Trial:
    """One module's trial."""

    def __init__(self, outcome: Outcome, generator: torch.Generator) -> None:
        self.outcome, self.draft, self.how, self.generator = outcome, outcome.draft, outcome.how, generator
        self.model, self.pristine = self.draft.build(), self.draft.build()

    def run(self) -> None:
        """All of it; `outcome` is filled in."""
        routed = self.transform()
        if routed is None:
            return
        self.check_words(routed)
        owned, before = self.model, snapshot(self.model)
        far = self.deviations(routed) if self.how.data == "calibration" and self.how.deviation else {}
        dendrofx.set_tolerances(routed, dict.fromkeys(dendrofx.tolerances(routed), 0.0))
        if self.check_calls(routed):
            if SIZED not in self.outcome.wrong:  # fresh samples have the sizes of the calibration's
                self.check_budget(far)
            self.check_script(routed)
        self.unchanged("the model, by calls", before, snapshot(owned))

    def check_budget(self, far: dict[str, float]) -> None:
        """Every covered output is within the budget."""
        for path, value in far.items():
            if not value <= SLACK * (self.how.deviation or 0):
                self.wrong(OUTPUTS, f"{path} is {100 * value:.3g} % off on fresh samples")

    def wrong(self, kind: str, text: str) -> None:
        self.outcome.wrong.setdefault(kind, text)

    def transform(self) -> nn.Module | None:
        """The result; None where it was refused. Without data and refused for want of it, once more with an example."""
        try:
            return self.transformed(self.how.data)
        except dendrofx.DendrofxError as error:
            if self.how.data != "none" or "example_inputs" not in str(error):
                self.outcome.refused = str(error)
                return None
        except Exception as error:
            self.outcome.crashed = f"{type(error).__name__}: {error}"
            return None
        self.how = self.outcome.how = replace(self.how, data="example")
        return self.transform()

    def transformed(self, data: str) -> nn.Module:
        given: dict[str, Any] = {}
        if data == "example":
            given["example_inputs"] = make(self.draft, self.how.form, self.generator).batch
        elif data == "calibration":
            given["calibration"] = [c.batch for c in self.how.batches(self.draft, self.generator)]
        before = snapshot(self.model), snapshot(given)
        try:
            return dendrofx.transform(self.model, **asked(**given, **self.how.options(self.draft)))
        finally:
            self.unchanged("the model, by transform", before[0], snapshot(self.model))
            self.unchanged("the data", before[1], snapshot(given))

    def unchanged(self, what: str, before: dict[str, Any], after: dict[str, Any]) -> None:
        if found := changes(before, after):
            self.wrong(CALLER, f"{what}: {', '.join(found[:3])} changed")

    def check_words(self, routed: nn.Module) -> None:
        said = str(routed.plan.capture)
        if self.how.data == "none" and ("bit for bit" in said or "equal to" in said):
            self.wrong(WORDS, said)

    def deviations(self, routed: nn.Module) -> dict[str, float]:
        """By covered output, the mean deviation of fresh samples, or of calls where that is less.

        Where the inputs share no axis of samples, a budget is for calls.
        """
        per_sample: dict[str, list[float]] = {}
        per_call: dict[str, list[float]] = {}
        for call in self.how.batches(self.draft, self.generator, FRESH):
            wanted, got = self.answer(self.pristine, copy.deepcopy(call)), self.answer(routed, copy.deepcopy(call))
            if isinstance(wanted, Exception) or isinstance(got, Exception):
                continue
            there = tensors(got)
            for path, a in tensors(wanted).items():
                b = there.get(path)
                if b is None or b.shape != a.shape or not self.covered(path, a):
                    continue
                per_sample.setdefault(path, []).append(relative(a.reshape(len(a), -1), b.reshape(len(a), -1)))
                per_call.setdefault(path, []).append(relative(a.reshape(1, -1), b.reshape(1, -1)))
        return {k: min(_mean(v), _mean(per_call[k])) for k, v in per_sample.items()}

    def covered(self, path: str, leaf: Tensor) -> bool:
        """Whether the budget is for this output: the named one, or else every one that holds floats."""
        return leaf.is_floating_point() and (path == self.draft.main if names_output(self.draft) else leaf.dim() > 0)

    def answer(self, module: nn.Module, call: Call) -> Any:
        """What a module returns or raises; random numbers start from one seed."""
        torch.manual_seed(0)
        try:
            with redirect_stderr(io.StringIO()):  # torch.fx prints the lines around an error
                return module(*call.args, **call.kwargs)
        except Exception as error:
            return error

    def check_calls(self, routed: nn.Module) -> bool:
        """Compare calls with the original's, in step; whether those like the example's are right."""
        first = make(self.draft, self.how.form, self.generator)
        second = make(self.draft, self.how.form, self.generator)
        if not (self.check_call(routed, first) and self.check_call(routed, second) and self.outcome.accepted):
            return False
        for call in unlike(self.draft, self.how.form, self.generator):
            self.check_call(routed, call)
        return self.check_call(routed, first, again=True)

    def check_call(self, routed: nn.Module, call: Call, again: bool = False) -> bool:
        """Whether one call is right or refused."""
        ours, theirs = copy.deepcopy(call), copy.deepcopy(call)
        wanted, got = self.answer(self.pristine, theirs), self.answer(routed, ours)
        self.check_inputs(call, ours, theirs)
        kind = CALLER if again else self.kind(call)
        if isinstance(wanted, Exception):
            if not isinstance(got, Exception):
                self.wrong(kind, f"{call}: the original raises {type(wanted).__name__}: {str(wanted)[:80]}")
            return isinstance(got, Exception)
        self.outcome.calls[call.what] += 1
        if isinstance(got, Exception):
            self.refuse(call, got)
            return True
        if far := apart(wanted, got):
            self.wrong(kind, f"{call}: {far}")
        return not far

    def kind(self, call: Call) -> str:
        """Of what is wrong with a call."""
        if "keeps state" in self.draft.invalid:
            return CALLER
        mixed = self.how.mixed and self.how.data == "calibration"  # the graph was made on any of these sizes
        return _KIND_OF.get(call.what, HOOKS if self.draft.has(*HOOKED) else SIZED if mixed else VALUES)

    def refuse(self, call: Call, error: Exception) -> None:
        """Count a call that was not taken."""
        self.outcome.refused_calls[call.what] += 1
        if call.what == SAME:
            self.outcome.refused = self.outcome.refused or f"calls: {type(error).__name__}: {error}"

    def check_inputs(self, call: Call, ours: Call, theirs: Call) -> None:
        """What the call was given may change as with the original, or not at all."""
        before, after = (snapshot([c.args, c.kwargs]) for c in (call, ours))
        if (found := changes(before, after)) and changes(after, snapshot([theirs.args, theirs.kwargs])):
            self.wrong(CALLER, f"inputs of a call: {', '.join(found[:3])} changed")

    def check_script(self, routed: nn.Module) -> None:
        """Script, save and load it, and call that."""
        call = make(self.draft, self.how.form, self.generator)
        wanted = self.answer(self.pristine, copy.deepcopy(call))
        try:
            far = scripted_apart(routed, self.draft, call, wanted)
        except Exception as error:
            self.wrong(UNSCRIPTED, f"{type(error).__name__}: {_first_line(error)}")
            return
        if far is None:
            self.outcome.skipped["script: its inputs are named otherwise"] += 1
        elif far and "random" not in self.draft.invalid:
            self.wrong(SCRIPT, f"after loading: {far}")


def _mean(values: list[float]) -> float:
    return sum(values) / max(len(values), 1)


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return next(iter(lines), "")[:150]
