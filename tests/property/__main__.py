"""`python -m tests.property`: many random modules, and the table of what became of them."""

from __future__ import annotations

import argparse
import logging
import sys
import time

import torch

from tests.property.oracle import examine
from tests.property.outcome import Outcome
from tests.property.report import table


def main() -> int:
    """Run it; 1 where something was silently wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.property", description=__doc__)
    parser.add_argument("--count", type=int, default=2000, help="modules")
    parser.add_argument("--seed", type=int, default=0, help="of the first; the others count on")
    parser.add_argument("--show", type=int, metavar="SEED", help="one module: its source, and what became of it")
    given = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("torch").setLevel(logging.ERROR)
    if given.show is not None:
        print(examine(given.show))
        return 0
    outcomes: list[Outcome] = []
    start = time.monotonic()
    for number in range(given.seed, given.seed + given.count):
        outcomes.append(examine(number))
        for kind, text in outcomes[-1].wrong.items():
            print(f"{number}: {kind}: {text[:80]}", file=sys.stderr, flush=True)
    print(table(outcomes))
    print(f"{given.count} modules from seed {given.seed} in {time.monotonic() - start:.0f} s")
    return int(any(o.wrong for o in outcomes))


if __name__ == "__main__":
    sys.exit(main())
