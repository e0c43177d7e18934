"""Count what a routed module executed: rows and multiply-adds by site, as `forward_counted` gives them."""

from __future__ import annotations

from collections.abc import Mapping

# By site; see `runtime/route_counts.py`.
Counts = dict[str, dict[str, int]]
# Among the counts, those of a cascade's samples, and what dead and repeated rows spared (`runtime/live_counts.py`).
CASCADE, DEAD_ROWS, REPEATED_ROWS = "model", "dead rows", "repeated rows"
# And what an exit left out, or a model behind a cut did not compute again (`runtime/exits.py`).
EXIT, BEHIND_EXIT = "exit", "behind exit"


def add_counts(total: Counts, counts: Mapping[str, Mapping[str, int]]) -> None:
    """Add one call's counts to a sum; of the largest score the larger stays."""
    for site, values in counts.items():
        into = total.setdefault(site, dict.fromkeys(values, 0))
        for key, value in values.items():
            into[key] = max(into[key], value) if key.startswith("largest_") else into[key] + value


def of_sites(counts: Mapping[str, Mapping[str, int]]) -> dict[str, Mapping[str, int]]:
    """Return the counts of routed sites alone."""
    return {name: c for name, c in counts.items() if "original_macs" in c and not _is_spared(name)}


def _is_spared(name: str) -> bool:
    """Tell whether counts are of rows that are left out; those of repeated rows are by what they depend on."""
    return name in (DEAD_ROWS, EXIT, BEHIND_EXIT) or name.startswith(f"{REPEATED_ROWS} ")


def of_branch(counts: Mapping[str, Mapping[str, int]], branch: str) -> dict[str, Mapping[str, int]]:
    """Return those of a cascade's counts that are inside its light or its full model: `branch` is "light" or "full"."""
    return {n.removeprefix(f"{branch}/"): c for n, c in counts.items() if n.startswith(f"{branch}/")}


def live_share(counts: Mapping[str, Mapping[str, int]]) -> float | None:
    """Return the share of live rows, of a cascade in its light model, which all samples run; None where none are dropped."""
    counted = (of_branch(counts, "light") if CASCADE in counts else counts).get(DEAD_ROWS)
    return None if counted is None else counted["live_rows"] / max(counted["rows"], 1)


def site_activity(counts: Mapping[str, int]) -> float:
    """Return the share of one site's rows that took the full branch."""
    return counts["hard_rows"] / max(counts["rows"], 1)


def site_compute(counts: Mapping[str, int]) -> float:
    """Return a site's effective compute: executed multiply-adds, weighted by bits / 32, padding included, over its block's."""
    return (counts["gate_work"] + counts["light_work"] + counts["full_work"]) / max(counts["original_macs"], 1)


def activity(counts: Mapping[str, Mapping[str, int]]) -> float:
    """Return the MACs of rows that took the full branch over those of all rows, in the original blocks' MACs.

    Of a cascade it is the share of samples that were recomputed.
    """
    if CASCADE in counts:
        return site_activity(counts[CASCADE])
    sites = of_sites(counts).values()
    rows = sum(c["original_macs"] for c in sites)
    hard = sum(c["original_macs"] * site_activity(c) for c in sites)
    return hard / rows if rows else 1.0


def executed_macs(counts: Mapping[str, Mapping[str, int]], original: int) -> int:
    """Return the executed multiply-adds: the original's, less rows left out and routed blocks, plus gate, light and full."""
    return _executed(counts, original, "macs")


def executed_work(counts: Mapping[str, Mapping[str, int]], original: int) -> int:
    """Return the executed multiply-adds, each weighted by the bits of its widest operand over 32."""
    return _executed(counts, original, "work")


def _executed(counts: Mapping[str, Mapping[str, int]], original: int, unit: str) -> int:
    if CASCADE in counts:
        # samples of one call have the same shapes, so a share of them takes that share of its multiply-adds
        full = round(original * site_activity(counts[CASCADE]))
        return _executed(of_branch(counts, "light"), original, unit) + _executed(of_branch(counts, "full"), full, unit)
    parts = [f"{branch}_{unit}" for branch in ("gate", "light", "full")]
    spared = sum(c["executed_macs"] - c["original_macs"] for name, c in counts.items() if _is_spared(name))
    routed = sum(sum(c[part] for part in parts) - c["original_macs"] for c in of_sites(counts).values())
    return original + spared + routed
