"""Does an artifact stay right, quick and small under load? Random batches on several threads, every row checked.

python -m benchmarks.soak [--case digits] [--minutes 10] [--threads 4] [--processes 1] [--seed N] [--json FILE]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.cases import CASES
from benchmarks.command import Command, positive, seconds, seed


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 1 where a row was wrong or memory grew."""
    command = Command("soak", (__doc__ or "").partition("\n")[0], sorted(CASES), ("digits",))
    command.add_argument("--minutes", type=seconds, default=10.0, metavar="M", help="(10)")
    command.add_argument(
        "--threads", type=positive, default=4, metavar="N", help="that call at once, one core each (4)"
    )
    command.add_argument("--processes", type=positive, default=1, metavar="N", help="each with so many threads (1)")
    command.add_argument("--most", type=positive, default=512, metavar="N", help="samples of the largest batch (512)")
    command.add_argument("--seed", type=seed, default=0, metavar="N")
    command.add_argument("--json", type=Path, metavar="FILE")
    return command.run(command.parse(argv))


if __name__ == "__main__":
    sys.exit(main())
