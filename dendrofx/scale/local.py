"""Parts by the threads of this process, which share one module; products run without the interpreter's lock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from dendrofx.scale.parts import Part
from dendrofx.scale.worker import Row


def run_here(worker: Callable[[Part, int], Row], parts: Iterable[Part], workers: int) -> Iterator[Row]:
    """Yield a row for each part, in their order; twice as many parts as workers are read ahead, and no more.

    What a worker raises is raised here, and no further part is begun.
    """
    waiting: deque[Future[Row]] = deque()
    pool = ThreadPoolExecutor(workers, "dendrofx")
    try:
        for place, part in enumerate(parts):
            waiting.append(pool.submit(worker, part, place))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
