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
from typing import Final

TICK_S: Final = 0.010


async def tick(note: Callable[[float], None]) -> None:
    """Give the time between two ticks to `note`, for ever."""
    before = time.monotonic()
    while True:
        await asyncio.sleep(TICK_S)
        now = time.monotonic()
        note(now - before)
        before = now


class IdleProcess:
    """The program beside a measurement."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "sdtui.bench.ticker"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def gaps_s(self) -> list[float]:
        """End it; all its gaps."""
        out, _ = self._process.communicate(timeout=30)
        gaps: list[float] = json.loads(out)
        return gaps


async def _until_stdin_closes() -> list[float]:
    gaps: list[float] = []
    ticking = asyncio.create_task(tick(gaps.append))
    await asyncio.to_thread(sys.stdin.read)
    ticking.cancel()
    with suppress(asyncio.CancelledError):
        await ticking
    return gaps


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(_until_stdin_closes())))
