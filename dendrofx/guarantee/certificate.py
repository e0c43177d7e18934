"""The certificate: what was shown about a transformed model, in enough figures to recompute it by hand, and what it is bound to.

    metric flip, alpha 0.01, delta 0.05, n 336, losses 0, p_value 0.0341

`p_value` is `binomial_p(losses, n, alpha)` or `hoeffding_bentkus_p(...)`, as `test` says. The certificate travels in the file:
`save` writes it among the extra files of the TorchScript archive, beside a digest of everything else in it. A file whose weights,
thresholds or code were changed afterwards no longer verifies. It is no signature: whoever can write the file can write another.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from torch import nn

from dendrofx.errors import CertificateError, InputError
from dendrofx.graph.show import first_line
from dendrofx.guarantee.bounds import binomial_p, hoeffding_bentkus_p
from dendrofx.guarantee.budget import Budget
from dendrofx.machine.files import check_target, write_whole
from dendrofx.values.codec import decode, encode_fields
from dendrofx.values.fingerprint import state_fingerprint
from dendrofx.version import VERSION

EXTRA = "dendrofx_certificate.json"
ASSUMPTION = (
    "the calibration samples and the samples of later calls are exchangeable: each drawn on its own, alike, in no telling order;"
    " samples of one source count as one; the confidence is over the draw of the calibration samples"
)
# Records of an archive that say nothing about the module, or differ from write to write.
_NOT_THE_MODULE = (".debug_pkl", "serialization_id", "extra/", "byteorder")


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
        step: the chosen step of the path, from 1; `steps` were tested, each at delta, up to the first failure.
        thresholds: tolerances by site.
        easy_share: share of the test samples that took the light branch; 1 where only rows within samples are routed.
        model: fingerprint of the original model; module: of the transformed one, thresholds included.
        inputs: fingerprint of the test samples.
        dendrofx, torch: versions; machine: the CPU.
        archive: digest of the file it was written to, empty elsewhere.
        by_output: of several outputs, by name, the sums of their losses: each keeps the limit.
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
        """Plain values, and the assumption in words."""
        return {**encode_fields(self), "assumption": ASSUMPTION}

    @staticmethod
    def from_json(value: Any) -> Certificate:  # noqa: ANN401
        """What `to_json` gave.

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
                " or gates were changed since; take a setting of `front`, or transform again"
            )

    def __str__(self) -> str:
        share = f"{self.losses:g} lost of {self.n} test samples"
        if self.by_output:
            share += (
                f" in {max(self.by_output, key=self.by_output.__getitem__)}, the worst of {len(self.by_output)} outputs"
            )
        return (
            f"certified: {self.metric} at most {100 * self.alpha:g} % with {100 * (1 - self.delta):g} % confidence ({share},"
            f" {self.test} p = {self.p_value:.3g}; step {self.step} of {self.steps} tested), for samples drawn like these"
        )


def save(module: nn.Module, path: str | Path, *, freeze: bool = False) -> None:
    """Script a transformed module and write it, its certificate inside.

    Args:
        module: what `transform` returned; without a certificate it is written all the same.
        path: for `torch.jit.load`, which needs torch and nothing else; `dendrofx.certificate` reads the certificate.
        freeze: see `script`.

    Raises:
        CertificateError: the module was changed since it was certified, or `path` names no file.
        InputError: see `script`.
        OSError: it cannot be written, on a full disk say: an older file at `path` is as it was.

    Example:
        >>> dendrofx.save(routed, "model.pt")
        >>> print(dendrofx.certificate("model.pt"))
    """
    from dendrofx.lowering.script import script, script_bytes

    check_target(path, CertificateError)
    made: Certificate | None = getattr(getattr(module, "plan", None), "certificate", None)
    if made is not None:
        made.verify(module)
    scripted = script(module, freeze=freeze)
    data = script_bytes(scripted)
    if made is not None:
        sealed = replace(made, archive=_digest(_records(data, path), made))
        data = script_bytes(scripted, {EXTRA: json.dumps(sealed.to_json())})
        _verified(_records(data, path), path)  # what is written next must verify
    write_whole(path, data, CertificateError)


def certificate(path: str | Path) -> Certificate:
    """Read the certificate of a saved module, and check that it is of this file.

    Raises:
        CertificateError: no such file, no certificate in it, or the file was changed since it was written.
    """
    try:
        data = Path(path).read_bytes()
    except (OSError, TypeError, ValueError) as error:
        raise CertificateError(f"cannot read {path}: {error}") from error
    return _verified(_records(data, path), path)


def archive_digest(path: Path, shown: Certificate) -> str:
    """SHA-256 over an archive's records, which are code, constants, weights and thresholds, and over the certificate's figures."""
    return _digest(_records(path.read_bytes(), path), shown)


def _records(data: bytes, path: str | Path) -> dict[str, bytes]:
    """An archive's records by name: all that say what the module is, and the certificate.

    Raises:
        CertificateError: it is no archive, or a damaged one. The reader raises a dozen kinds of errors for these.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [n for n in archive.namelist() if _counts(n.partition("/")[2])]
            if len(set(names)) < len(names):
                raise ValueError("a record is there twice")
            return {name.partition("/")[2]: archive.read(name) for name in names}
    except Exception as error:
        raise CertificateError(f"cannot read {path}: it is damaged, or no saved module: {first_line(error)}") from error


def _counts(name: str) -> bool:
    return name == f"extra/{EXTRA}" or not (name.startswith(_NOT_THE_MODULE) or name.endswith(_NOT_THE_MODULE))


def _verified(records: Mapping[str, bytes], path: str | Path) -> Certificate:
    """The certificate among an archive's records.

    Raises:
        CertificateError: there is none, or it is of other records, or does not follow from its figures.
    """
    if (text := records.get(f"extra/{EXTRA}")) is None:
        raise CertificateError(
            f"{path} holds no certificate: write modules with dendrofx.save, transformed with budget="
        )
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CertificateError(f"the certificate in {path} cannot be read: {error}") from error
    _check_version(value, path)
    try:
        found = Certificate.from_json(value)
    except (ValueError, RecursionError) as error:
        raise CertificateError(f"the certificate in {path} cannot be read: {error}") from error
    if (digest := _digest(records, found)) != found.archive:
        raise CertificateError(
            f"{path} was changed since it was certified: digest {digest}, the certificate is for {found.archive}"
        )
    try:
        found.check_figures()
    except CertificateError as error:
        raise CertificateError(f"{path}: {error}") from error
    return found


def _check_version(value: Any, path: str | Path) -> None:  # noqa: ANN401
    """Refuse a certificate of another version by name: its fields and digests may mean something else there."""
    there = value.get("dendrofx", VERSION) if isinstance(value, dict) else VERSION
    if there != VERSION:
        raise CertificateError(
            f"the certificate in {path} was made by another version: dendrofx {there} there, {VERSION} here. Read it with that"
            " one, or transform again"
        )


def _digest(records: Mapping[str, bytes], shown: Certificate) -> str:
    digest = hashlib.sha256(json.dumps(replace(shown, archive="").to_json(), sort_keys=True).encode())
    for name, record in sorted(records.items()):
        if name != f"extra/{EXTRA}":
            digest.update(f"{name}:{len(record)}:".encode())
            digest.update(record)
    return digest.hexdigest()
