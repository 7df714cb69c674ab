"""What ten thousand waiting jobs cost: a server in a process of its own, asked through its socket, with no worker to disturb."""

from __future__ import annotations

import asyncio
import time
from typing import Final, Literal

from sdtui.bench.figures import Figure, milliseconds, percentile
from sdtui.bench.isolation import environment, isolated
from sdtui.params import GenerationParams
from sdtui.protocol import (
    Cancel,
    CancelWaiting,
    Hold,
    JobCancelled,
    JobChanged,
    JobQueued,
    Jobs,
    ListJobs,
    Message,
    Move,
    QueueChanged,
    Refused,
    Submit,
    WaitingCancelled,
)
from sdtui.server.client import Client

JOBS: Final = 10_000
TARGET_MS: Final = 50.0
_TRIES: Final = 40
"""Of each command, for each round."""
_PLACES: Final[tuple[Literal["first", "up", "down", "last"], ...]] = ("first", "up", "down", "last")
_NO_WORKER: Final = "true"
"""A program that leaves at once, so the server soon stops starting it."""


def measure(rounds: int) -> list[Figure]:
    """Medians and 99th percentiles of the time from a command to its answer, with ten thousand jobs in the queue."""
    with isolated(), environment({"SDTUI_WORKER_COMMAND": _NO_WORKER}):
        times, filled_s, emptied_s = asyncio.run(_times(rounds * _TRIES))
    figures = []
    for name, values in times.items():
        note = f"{len(values)} times, {JOBS:,} jobs wait"
        figures.append(milliseconds("queue", f"{name}, median", percentile(values, 0.5), TARGET_MS, note))
        figures.append(milliseconds("queue", f"{name}, 99th percentile", percentile(values, 0.99), TARGET_MS))
    figures.append(
        milliseconds("queue", "a submit while the queue was filled, mean", filled_s / JOBS, note="one client, one by one")
    )
    figures.append(milliseconds("queue", f"cancel of all {JOBS:,} at once", emptied_s))
    return figures


async def _times(tries: int) -> tuple[dict[str, list[float]], float, float]:
    client = await Client.connect(name="bench", subscribe=False)
    ask = _Asker(client)
    await ask(Hold(on=True), QueueChanged)
    filled_s = sum([await ask(_job(number), JobQueued) for number in range(JOBS)])
    times: dict[str, list[float]] = {}
    for index in range(tries):
        place = (index * 2_477) % (JOBS - 1_000) + 500  # spread over the queue
        name = f"waits-{place:05d}"
        times.setdefault("submit", []).append(await ask(_job(JOBS + index), JobQueued))
        times.setdefault("first page of the queue", []).append(await ask(ListJobs(which="queue"), Jobs))
        times.setdefault("a page in its middle", []).append(await ask(ListJobs(which="queue", offset=place), Jobs))
        times.setdefault("first page of all jobs", []).append(await ask(ListJobs(), Jobs))
        times.setdefault("a page of all jobs, in the middle", []).append(await ask(ListJobs(offset=place), Jobs))
        to = _PLACES[index % len(_PLACES)]
        times.setdefault("move", []).append(await ask(Move(job=name, to=to), JobChanged))
        cancelled = Cancel(job=f"waits-{JOBS + index:05d}")
        times.setdefault("cancel", []).append(await ask(cancelled, JobCancelled))
    emptied_s = await ask(CancelWaiting(), WaitingCancelled)
    await client.close()
    return times, filled_s, emptied_s


def _job(number: int) -> Submit:
    return Submit(job=f"waits-{number:05d}", params=GenerationParams(prompt="a red cat in the desert"), output_dir="/pictures")


class _Asker:
    """Sends a command and waits for its answer; returns the seconds between."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._events = client.events()

    async def __call__(self, command: Message, kind: type[Message]) -> float:
        began = time.perf_counter()
        await self._client.send(command)
        async for message in self._events:
            if isinstance(message, Refused):
                raise RuntimeError(f"{type(command).__name__} was refused: {message.message}")
            about_another = getattr(message, "job", None) != getattr(command, "job", None)
            if isinstance(message, kind) and not about_another:
                return time.perf_counter() - began
        raise RuntimeError("the server has gone")
