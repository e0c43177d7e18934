"""What locust runs: users who ask one request after the other. `load.py` starts it; LOAD in the environment is its JSON."""

from __future__ import annotations

import itertools
import json
import os
import time
from pathlib import Path
from typing import Any

from locust import FastHttpUser, constant_throughput, events, task
from locust.env import Environment

from stream import requests

SAID = json.loads(
    os.environ["LOAD"]
)  # model, seed, users, rate (requests/s of all users; 0: as fast as answers come), out
NUMBER = itertools.count()
BEGIN = time.perf_counter()
ANSWERED: list[tuple[float, float, int]] = []  # seconds since the first user, ms, samples
FAILED: list[str] = []


class Asking(FastHttpUser):
    """One user, with a stream of requests of its own."""

    if SAID["rate"]:
        wait_time = constant_throughput(SAID["rate"] / SAID["users"])

    def on_start(self) -> None:
        """Take the next number, and with it a stream."""
        self.sent = requests(SAID["model"], SAID["seed"], next(NUMBER))

    @task
    def ask(self) -> None:
        """Send one request and wait for the answer."""
        sent = next(self.sent)
        body: Any = sent.body  # locust says str, and sends bytes as they are
        self.client.post("/predict", data=body, headers=sent.headers, context={"samples": sent.samples})


@events.test_start.add_listener  # type: ignore[untyped-decorator]
def begin(environment: Environment, **rest: Any) -> None:  # noqa: ANN401
    """Start the clock."""
    global BEGIN
    BEGIN = time.perf_counter()


@events.request.add_listener  # type: ignore[untyped-decorator]
def note(response_time: float, exception: Exception | None, context: dict[str, Any], **rest: Any) -> None:  # noqa: ANN401
    """Keep every time: locust's own percentiles are of times that it rounds."""
    if exception is None:
        ANSWERED.append((time.perf_counter() - BEGIN, response_time, context["samples"]))
    else:
        FAILED.append(str(exception))


@events.quitting.add_listener  # type: ignore[untyped-decorator]
def write(environment: Environment, **rest: Any) -> None:  # noqa: ANN401
    """Hand over what was seen."""
    Path(SAID["out"]).write_text(json.dumps({"answered": ANSWERED, "failed": FAILED}), encoding="utf-8")
