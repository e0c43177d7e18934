"""Requests that wait together are answered together.

The first one that waits opens a batch. It closes when it is full, or when nothing more waits: no request waits for others
that may never come. While a batch is computed, in a thread of its own, the next one gathers, so batches grow with the load.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from torch import Tensor

from artifact import add
from inputs import Asked, RefusedError

Answer = Callable[[Sequence[Asked]], tuple[list[Tensor], Counter[str]]]


@dataclass(frozen=True)
class Waiting:
    """A request, and where its answer is awaited."""

    asked: Asked
    answer: asyncio.Future[Tensor]


class Batcher:
    """A queue of requests, and the task that empties it.

    Args:
        answer: runs a batch, in `pool`.
        pool: of one thread.
        max_batch: samples of a batch at most, and so of a request.
        max_waiting: requests in the queue at most; more are refused, with 503.
        wait: seconds that a batch stays open although nothing more waits.

    Attributes:
        counters: requests and samples that were answered, batches, those that `answer` counted, and requests refused by the model.
        executed: the sum of what it counted.
    """

    def __init__(
        self, answer: Answer, pool: Executor, max_batch: int = 32, max_waiting: int = 1024, wait: float = 0.0
    ) -> None:
        self._answer, self._pool, self.max_batch, self._wait = answer, pool, max_batch, wait
        self._queue: asyncio.Queue[Waiting] = asyncio.Queue(max_waiting)
        self._next: Waiting | None = None  # it did not fit into the batch before
        self.counters: Counter[str] = Counter(requests=0, samples=0, batches=0, counted=0, refused=0)
        self.executed: Counter[str] = Counter()

    async def ask(self, asked: Asked) -> Tensor:
        """Return the answer to a request, computed with those that wait beside it.

        Raises:
            RefusedError: the model cannot take it, or too many wait.
        """
        waiting = Waiting(asked, asyncio.get_running_loop().create_future())
        try:
            self._queue.put_nowait(waiting)
        except asyncio.QueueFull:
            raise RefusedError(503, f"{self._queue.maxsize} requests wait; ask again later") from None
        return await waiting.answer

    async def run(self) -> None:
        """Answer until cancelled."""
        while True:
            await self._compute(await self._gather())

    async def _gather(self) -> list[Waiting]:
        first = self._next or await self._queue.get()
        if self._wait:
            await asyncio.sleep(self._wait)
        batch, samples, self._next = [first], first.asked.samples, None
        while samples < self.max_batch and not self._queue.empty():
            one = self._queue.get_nowait()
            samples += one.asked.samples
            if samples > self.max_batch:
                self._next = one
                break
            batch.append(one)
        return batch

    async def _compute(self, batch: list[Waiting]) -> None:
        parts = [one.asked for one in batch]
        try:
            answers, executed = await asyncio.get_running_loop().run_in_executor(self._pool, self._answer, parts)
        except Exception as error:
            if len(batch) > 1:  # one of them may have ids that the model does not know: no fault of the others
                for one in batch:
                    await self._compute([one])
                return
            self.counters["refused"] += 1
            _settle(
                batch[0].answer, RefusedError(422, f"the model refused this: {str(error).strip().splitlines()[-1]}")
            )
            return
        add(self.executed, executed)
        samples, counted = sum(p.samples for p in parts), int(bool(executed))
        self.counters.update(requests=len(batch), samples=samples, batches=1, counted=counted)
        for one, answer in zip(batch, answers, strict=True):
            _settle(one.answer, answer)


def _settle(future: asyncio.Future[Tensor], outcome: Tensor | Exception) -> None:
    """Hand over an answer or a refusal, unless nobody waits for it any more."""
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
