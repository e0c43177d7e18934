"""A server that answers with a TorchScript file; it needs torch and FastAPI, not dendrofx.

    SERVE_MODEL=model.pt uvicorn --app-dir examples/serve --factory app:create --workers 2

POST /predict takes and returns raw values (see inputs.py), GET /health says that it is warm, GET /counters what was executed.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded: as many workers as cores, one thread each

import torch
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from artifact import Artifact, raw
from batching import Batcher
from inputs import RefusedError, sizes_of


@dataclass(frozen=True)
class Settings:
    """What the environment says, by names in capitals behind `SERVE_`; see README.md."""

    model: Path
    inputs: str = ""
    max_batch: int = 32
    max_waiting: int = 1024
    max_tokens: int = 512
    wait_ms: float = 0.0
    count: int = 1

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Settings:
        """Read an environment; raise `ValueError` where it names no model."""
        said = {n.removeprefix("SERVE_").lower(): v for n, v in environment.items() if n.startswith("SERVE_")}
        if unknown := sorted(set(said) - set(cls.__dataclass_fields__)):
            raise ValueError(f"no such setting: {', '.join(f'SERVE_{n.upper()}' for n in unknown)}")
        if "model" not in said:
            raise ValueError("SERVE_MODEL must name a TorchScript file")
        numbers = {n: int(said[n]) for n in ("max_batch", "max_waiting", "max_tokens", "count") if n in said}
        wait = float(said.get("wait_ms", 0))
        return cls(Path(said["model"]), said.get("inputs", ""), **numbers, wait_ms=wait)


class Server:
    """One worker: the file, its thread, and the requests that wait for it."""

    def __init__(self, settings: Settings) -> None:
        self.pool = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,))
        self.artifact = Artifact(settings.model, settings.inputs, settings.count, settings.max_tokens)
        self.batcher = Batcher(
            self.artifact.answer, self.pool, settings.max_batch, settings.max_waiting, settings.wait_ms / 1e3
        )
        self.task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Warm up at 1, 2, 4 and so on samples, in the thread that will compute; only then requests are taken."""
        largest = self.batcher.max_batch
        sizes = [*(2**i for i in range(largest.bit_length()) if 2**i < largest), largest]
        said = await asyncio.get_running_loop().run_in_executor(self.pool, self.artifact.warm, sizes)
        print(f"worker {os.getpid()} is warm: {said}", flush=True)
        self.task = asyncio.create_task(self.batcher.run())

    async def stop(self) -> None:
        """End the task; what was asked is answered by then, for the framework waits for it."""
        if self.task is not None:
            self.task.cancel()
        self.pool.shutdown()

    async def predict(self, request: Request) -> Response:
        """Answer a request's samples: f32[samples, ...] as bytes, with `X-Shape`."""
        kind = self.artifact.kind
        sizes = sizes_of(kind, request.headers.get(kind.header))
        samples, values = kind.count(sizes)
        if samples > self.batcher.max_batch:
            raise RefusedError(413, f"{samples} samples, at most {self.batcher.max_batch} a request")
        sent, expected = request.headers.get("content-length", "of unknown size"), kind.item * values
        if sent != str(expected):  # before it is read: nobody fills the memory
            raise RefusedError(422, f"the body is {sent}, not {expected} bytes ({values} values of {kind.item})")
        answer = await self.batcher.ask(kind.read(sizes, await request.body()))
        shape = ",".join(map(str, answer.shape))
        return Response(raw(answer), media_type="application/octet-stream", headers={"X-Shape": shape})

    def health(self) -> JSONResponse:
        """Say whether requests are answered, and which."""
        ready = self.task is not None and not self.task.done()
        found = {"ready": ready, "worker": os.getpid(), "takes": str(self.artifact.kind)}
        return JSONResponse(found, 200 if ready else 503)

    def counters(self) -> dict[str, Any]:
        """Say what this worker answered, and what the file executed for it; each worker counts for itself."""
        counted = dict(sorted(self.batcher.executed.items())) if self.artifact.count else None
        return {"worker": os.getpid(), **self.batcher.counters, "executed": counted}


def create(settings: Settings | None = None) -> FastAPI:
    """Make the application; the file is loaded when it starts, in each worker."""
    chosen = Settings.of(os.environ) if settings is None else settings

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        server = Server(chosen)
        await server.start()
        app.add_api_route("/predict", server.predict, methods=["POST"])
        app.add_api_route("/health", server.health)
        app.add_api_route("/counters", server.counters)
        yield
        await server.stop()

    app = FastAPI(lifespan=lifespan, openapi_url=None)

    @app.exception_handler(RefusedError)
    async def refused(request: Request, error: RefusedError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, error.status)

    return app
