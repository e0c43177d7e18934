"""Peers as rows of a table."""

from __future__ import annotations

from benchmarks.peers import FLOAT_PEERS, PEERS, PeerUnavailableError, build_peer
from dendrofx.compare.case import Case
from dendrofx.compare.variants import Peer
from dendrofx.machine.progress import progress


def build_peers(case: Case, threads: int) -> tuple[dict[str, Peer], dict[str, str]]:
    """The peers that run, and for the others the reason why not; both as `peer:NAME`. Lossless cases have those that are, too."""
    built, missing = {}, {}
    for name in progress(FLOAT_PEERS if case.lossless else PEERS, "building peers", "peer"):
        try:
            built[f"peer:{name}"] = Peer(build_peer(name, case.model, case.calibration, threads))
        except PeerUnavailableError as error:
            missing[f"peer:{name}"] = str(error)
    return built, missing
