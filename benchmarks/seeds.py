"""Does routing beat one light form on every row? The same search over many seeds.

python -m benchmarks.seeds [--case digits] [--batch 32 256] [--budget flip:0.02:0.95 flip:0.01:0.95] [--seeds N] [--json FILE]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.cases import CASES
from benchmarks.command import Command, positive, seconds


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    command = Command("seeds", (__doc__ or "").partition("\n")[0], sorted(CASES), ("digits",))
    command.add_argument("--batch", type=positive, nargs="+", default=[256], metavar="N", help="samples per call")
    command.add_argument("--budget", nargs="+", default=["flip:0.02:0.95"], metavar="METRIC:X:CONFIDENCE")
    command.add_argument("--seeds", type=positive, default=20, metavar="N", help="seeds 0 to N - 1")
    command.add_argument("--tune-seconds", type=seconds, default=60.0, metavar="S", help="of each search")
    command.add_argument("--json", type=Path, metavar="FILE")
    return command.run(command.parse(argv))


if __name__ == "__main__":
    sys.exit(main())
