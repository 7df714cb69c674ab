"""A ticker on an event loop: how late its ticks come is how long the loop, or the machine, stood still.

As a program it ticks on a loop that does nothing else until stdin closes, and prints the gaps as JSON: what any process on this
machine suffers meanwhile, whatever it does.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple, Self

TICK_S: Final = 0.010


class Gap(NamedTuple):
    """The time between two ticks, and how much of it this thread was at work."""

    wall_s: float
    busy_s: float


async def tick(note: Callable[[Gap], None]) -> None:
    """Give each gap between two ticks to `note`, for ever."""
    before, worked = time.monotonic(), time.thread_time()
    while True:
        await asyncio.sleep(TICK_S)
        now, working = time.monotonic(), time.thread_time()
        note(Gap(now - before, working - worked))
        before, worked = now, working


class IdleProcess:
    """The program beside a measurement."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "sdtui.bench.ticker"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self) -> Self:
        """The process ticks already."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it, if it was not asked."""
        self._process.kill()
        self._process.communicate()

    def gaps(self) -> list[Gap]:
        """End it; all its gaps."""
        out, _ = self._process.communicate(timeout=30)
        return [Gap(*gap) for gap in json.loads(out)]


async def _until_stdin_closes() -> list[Gap]:
    gaps: list[Gap] = []
    ticking = asyncio.create_task(tick(gaps.append))
    await asyncio.to_thread(sys.stdin.read)
    ticking.cancel()
    with suppress(asyncio.CancelledError):
        await ticking
    return gaps


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(_until_stdin_closes())))
