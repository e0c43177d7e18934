"""What became of hostile calls, as text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from tests.fuzz.judge import BOTH, REFUSED, RIGHT, UNMADE, WRONG

MOST = 12  # messages that are shown of each kind
_PATTERNS = (
    (r"torch\.Size\(|\[[^\]]*\]\)?|\([^)]*\)", "(..)"),
    (r"'[^']*'", "'..'"),
    (r"(torch\.)?(u?int|q?u?int|float|bfloat|complex|bits|bool)\d*(_\w+|x\d)*\b", "TYPE"),
    (r"-?\b\d+(\.\d+)?(e[+-]?\d+)?\b", "N"),
)


def alike(text: str) -> str:
    """A message without what is this call's own: sizes, types, names and numbers."""
    for pattern, word in _PATTERNS:
        text = re.sub(pattern, word, text)
    return text[:80]


def table(counts: Mapping[tuple[str, str], int], wrong: Mapping[str, str], crashed: Sequence[str]) -> str:
    """Every kind with its messages, at most 100 columns wide.

    Args:
        counts: calls by kind and message.
        wrong: the smallest call of each violation, as hexadecimal bytes.
        crashed: what ended or held up the process, with the call.
    """
    lines: list[str] = []
    for kind in (RIGHT, REFUSED, BOTH, UNMADE, WRONG):
        found = Counter({text: n for (k, text), n in counts.items() if k == kind})
        messages = f", {len(found)} messages" if kind in (REFUSED, BOTH) else ""
        lines.append(f"{sum(found.values()):>8}  {kind}{messages}")
        if kind in (REFUSED, WRONG):
            lines += [f"{'':10}{n:>7}  {text}" for text, n in found.most_common(MOST)]
    lines.append(f"{len(crashed):>8}  crashed or hung")
    lines += [f"{'':10}{text}" for text in crashed]
    lines += [f"smallest of {text}:\n  python -m tests.fuzz --show {data or '00'}" for text, data in wrong.items()]
    return "\n".join(lines)
