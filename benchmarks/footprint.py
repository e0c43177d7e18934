"""What transforming costs: seconds, and the memory that the process takes beyond that of the model loaded and called.

python -m benchmarks.footprint [--case minilm] [--batch 32] [--budgets 0 0.01 0.075] [--seed N] [--json FILE]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.cases import CASES
from benchmarks.command import Command, positive, seconds, seed


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    command = Command("footprint", (__doc__ or "").partition("\n")[0], sorted(CASES), ("minilm",))
    command.add_argument("--batch", type=positive, default=32, metavar="N", help="samples per call")
    command.add_argument(
        "--budgets",
        type=seconds,
        nargs="+",
        metavar="X",
        help="max_deviation of each row; those of the case by default",
    )
    command.add_argument("--seed", type=seed, default=0, metavar="N")
    command.add_argument("--json", type=Path, metavar="FILE")
    return command.run(command.parse(argv))


if __name__ == "__main__":
    sys.exit(main())
