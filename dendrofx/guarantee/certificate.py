"""The certificate: what was shown about a transformed model, in enough figures to recompute it by hand, and what it is bound to.

    metric flip, alpha 0.01, delta 0.05, n 336, losses 0, p_value 0.0341

`p_value` is `binomial_p(losses, n, alpha)` or `hoeffding_bentkus_p(...)`, as `test` says. It travels in the file of its module, see
`artifact/certificate.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from textwrap import fill
from typing import Any, ClassVar, Literal

from torch import nn

from dendrofx.errors import CertificateError, InputError
from dendrofx.guarantee.bounds import binomial_p, hoeffding_bentkus_p
from dendrofx.guarantee.budget import Budget
from dendrofx.values.codec import decode, encode_fields
from dendrofx.values.fingerprint import state_fingerprint

WIDTH = 100
ASSUMPTION = (
    "the calibration samples and the samples of later calls are exchangeable: each drawn on its own, alike, in no telling order;"
    " samples of one source count as one; the confidence is over the draw of the calibration samples"
)


@dataclass(frozen=True)
class Certificate:
    """P(risk <= alpha) >= 1 - delta over the draw of the test samples, for a module with these thresholds.

    Attributes:
        metric: of the budget.
        output: which outputs it is about, as the budget names them; None where it names none.
        alpha, delta: the limit, and the chance that it does not hold.
        n: test samples, which served nothing else.
        losses: the sum of their losses; of several outputs the largest.
        p_value: of "the risk is above alpha" at the chosen step.
        test: "binomial" or "hoeffding-bentkus".
        step: the chosen step, from 1, of `steps` that were tested: of one path, each at delta, up to the first failure; or of
            several, each at its part of delta, where as many samples may be lost at that (`guarantee/path.py`).
        thresholds: tolerances by site.
        easy_share: share of the test samples that took the light branch; 1 where only rows within samples are routed.
        model: fingerprint of the original model; module: of the transformed one, thresholds included.
        inputs: fingerprint of the test samples.
        dendrofx, torch: versions; machine: the CPU.
        archive: digest of the file it was written to, empty elsewhere.
        by_output: of several outputs, by name, the sums of their losses: each keeps the limit.

    Example:
        >>> print(certain.plan.certificate or certain.plan.refusal)
    """

    json_notes: ClassVar[tuple[str, ...]] = ("assumption",)

    metric: str
    output: str | int | tuple[str | int, ...] | None
    alpha: float
    delta: float
    n: int = field(metadata={"least": 0})
    losses: float = field(metadata={"least": 0})
    p_value: float
    test: Literal["binomial", "hoeffding-bentkus"]
    step: int
    steps: int
    thresholds: dict[str, float] = field(metadata={"least": 0})
    easy_share: float
    model: str
    module: str
    inputs: str
    dendrofx: str
    torch: str
    machine: str
    archive: str = ""
    by_output: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return plain values, and the assumption in words."""
        return {**encode_fields(self), "assumption": ASSUMPTION}

    @staticmethod
    def from_json(value: Any) -> Certificate:  # noqa: ANN401
        """Read what `to_json` gave.

        Raises:
            CertificateError: anything else; it names the figure.
        """
        try:
            return decode(Certificate, value, "certificate")
        except InputError as error:
            raise CertificateError(f"not a certificate: {error}") from error

    @property
    def budget(self) -> Budget | None:
        """What it is about; None where the metric is the caller's own, which has no name here."""
        try:
            return Budget(self.metric, self.alpha, round(1 - self.delta, 12), self.output)
        except InputError:
            return None

    def check_figures(self) -> None:
        """Raise `CertificateError` unless the p-value follows from the losses and shows the limit."""
        try:
            p = (binomial_p if self.test == "binomial" else hoeffding_bentkus_p)(self.losses, self.n, self.alpha)
        except InputError as error:
            raise CertificateError(f"the certificate does not follow from its figures: {error}") from error
        if not abs(p - self.p_value) <= 1e-9:
            raise CertificateError(
                f"the certificate does not follow from its figures: {self.losses:g} lost of {self.n} at alpha {self.alpha:g} give"
                f" p = {p:.3g}, it says {self.p_value:.3g}"
            )
        if not (0 < self.delta < 1 and p <= self.delta and 1 <= self.step <= self.steps and 0 < self.easy_share <= 1):
            raise CertificateError(
                f"the certificate does not follow from its figures: p = {p:.3g} at delta {self.delta:g}, step {self.step} of"
                f" {self.steps}, easy share {self.easy_share:g}"
            )

    def verify(self, module: nn.Module) -> None:
        """Raise `CertificateError` unless `module`, as `transform` returned it, has the weights and thresholds that were tested."""
        found = state_fingerprint(module)
        if found != self.module:
            raise CertificateError(
                f"the certificate is for another module: fingerprint {self.module} there, {found} here: weights, thresholds"
                " or gates were changed since; take one of `settings`, or transform again"
            )

    def __repr__(self) -> str:
        return (
            f"<Certificate: {self.metric} at most {100 * self.alpha:g} % with {100 * (1 - self.delta):g} % confidence,"
            f" {self.losses:g} lost of {self.n}, p = {self.p_value:.3g}>"
        )

    def __str__(self) -> str:
        return fill(self.sentence, WIDTH, break_on_hyphens=False)

    @property
    def sentence(self) -> str:
        """What was shown, in one line, for a text that has lines of its own; `str` has lines of at most 100 columns."""
        share = f"{self.losses:g} lost of {self.n} test samples"
        if self.by_output:
            share += (
                f" in {max(self.by_output, key=self.by_output.__getitem__)}, the worst of {len(self.by_output)} outputs"
            )
        return (
            f"certified: {self.metric} at most {100 * self.alpha:g} % with {100 * (1 - self.delta):g} % confidence ({share},"
            f" {self.test} p = {self.p_value:.3g}; step {self.step} of {self.steps} tested), for samples drawn like these"
        )
