"""The certificate: what was shown about a transformed model, in enough figures to recompute it by hand, and what it is bound to.

    metric flip, alpha 0.01, delta 0.05, n 336, losses 0, p_value 0.0341

`p_value` is `binomial_p(losses, n, alpha)` or `hoeffding_bentkus_p(...)`, as `test` says. The certificate travels in the file:
`save` writes it among the extra files of the TorchScript archive, beside a digest of everything else in it. A file whose weights,
thresholds or code were changed afterwards no longer verifies. It is no signature: whoever can write the file can write another.
"""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from torch import nn

from dendrofx.errors import CertificateError, InputError
from dendrofx.files import write_whole
from dendrofx.fingerprint import state_fingerprint
from dendrofx.guarantee.bounds import binomial_p, hoeffding_bentkus_p

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
        thresholds: tolerances by name.
        easy_share: share of the test samples that took the light branch; 1 where only rows within samples are routed.
        model: fingerprint of the original model; module: of the transformed one, thresholds included.
        inputs: fingerprint of the test samples.
        dendrofx, torch: versions; machine: the CPU.
        archive: digest of the file it was written to, empty elsewhere.
        by_output: of several outputs, by name, the sums of their losses: each keeps the limit.
    """

    metric: str
    output: str | int | tuple[str | int, ...] | None
    alpha: float
    delta: float
    n: int
    losses: float
    p_value: float
    test: str
    step: int
    steps: int
    thresholds: dict[str, float]
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
        return {**asdict(self), "assumption": ASSUMPTION}

    @staticmethod
    def from_json(value: Any) -> Certificate:  # noqa: ANN401
        """What `to_json` gave.

        Raises:
            CertificateError: anything else.
        """
        names = {f.name for f in fields(Certificate)}
        try:
            found = Certificate(**{k: v for k, v in value.items() if k in names})
            if isinstance(found.output, list):  # as JSON has it
                found = replace(found, output=tuple(found.output))
            figures = (found.alpha, found.delta, found.n, found.losses, found.p_value, *found.thresholds.values())
            if not all(math.isfinite(float(v)) or v == math.inf for v in figures):
                raise ValueError("a figure is not a number")
        except (AttributeError, TypeError, ValueError) as error:
            raise CertificateError(f"not a certificate: {error}") from error
        return found

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
        CertificateError: the module was changed since it was certified.

    Example:
        >>> dendrofx.save(routed, "model.pt")
        >>> print(dendrofx.certificate("model.pt"))
    """
    from dendrofx.lower import save_script, script

    made: Certificate | None = getattr(getattr(module, "plan", None), "certificate", None)
    if made is not None:
        made.verify(module)
    scripted = script(module, freeze=freeze)
    extra: dict[str, str] = {}

    def write(target: Path) -> None:
        save_script(scripted, target, extra)

    if not Path(path).absolute().parent.is_dir():
        raise CertificateError(f"cannot write {path}: there is no folder {Path(path).absolute().parent}")

    write_whole(Path(path), write)
    if made is not None:
        sealed = replace(made, archive=archive_digest(Path(path), made))
        extra[EXTRA] = json.dumps(sealed.to_json())
        write_whole(Path(path), write)
        certificate(path)  # what was just written must verify


def certificate(path: str | Path) -> Certificate:
    """Read the certificate of a saved module, and check that it is of this file.

    Raises:
        CertificateError: no such file, no certificate in it, or the file was changed since it was written.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            name = next((n for n in archive.namelist() if n.endswith(f"/extra/{EXTRA}")), None)
            text = None if name is None else archive.read(name).decode()
    except (OSError, zipfile.BadZipFile) as error:
        raise CertificateError(f"cannot read {path}: {error}") from error
    if text is None:
        raise CertificateError(
            f"{path} holds no certificate: write modules with dendrofx.save, transformed with budget="
        )
    try:
        found = Certificate.from_json(json.loads(text))
    except ValueError as error:
        raise CertificateError(f"the certificate in {path} cannot be read: {error}") from error
    if (digest := archive_digest(path, found)) != found.archive:
        raise CertificateError(
            f"{path} was changed since it was certified: digest {digest}, the certificate is for {found.archive}"
        )
    try:
        p = (binomial_p if found.test == "binomial" else hoeffding_bentkus_p)(found.losses, found.n, found.alpha)
    except InputError as error:
        raise CertificateError(f"the certificate in {path} does not follow from its figures: {error}") from error
    if abs(p - found.p_value) > 1e-9 or p > found.delta:
        raise CertificateError(
            f"the certificate in {path} does not follow from its figures: p = {p:.3g}, it says {found.p_value:.3g}"
        )
    return found


def archive_digest(path: Path, shown: Certificate) -> str:
    """SHA-256 over an archive's records, which are code, constants, weights and thresholds, and over the certificate's figures."""
    digest = hashlib.sha256(json.dumps(replace(shown, archive="").to_json(), sort_keys=True).encode())
    with zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            inside = name.partition("/")[2]
            if inside.startswith(_NOT_THE_MODULE) or inside.endswith(_NOT_THE_MODULE):
                continue
            digest.update(f"{inside}:{archive.getinfo(name).file_size}:".encode())
            digest.update(archive.read(name))
    return digest.hexdigest()
