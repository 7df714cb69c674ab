"""Scrubbing through the steps of a job: from the key to the drawn frame, and how smooth the app's loop runs meanwhile."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from statistics import median
from typing import Final, NamedTuple

from sdtui.bench.figures import Figure, milliseconds, percentile
from sdtui.bench.isolation import environment, isolated
from sdtui.bench.personalities import KITTY, PLAIN, Personality
from sdtui.bench.recorded import write_recorded
from sdtui.bench.terminal import Happening, Terminal
from sdtui.bench.ticker import Gap, IdleProcess
from sdtui.settings import tapes_dir

KEY_TARGET_MS: Final = 50.0
GAP_TARGET_MS: Final = 25.0
STEPS: Final = 50
SIZES: Final = (16, 64)
"""Rows and columns of the latents: those of the shipped model at 128 px, and those of Stable Diffusion at 512 px."""
_TERMINALS: Final[dict[str, Personality]] = {"half cells": PLAIN, "kitty": KITTY}
_JOB: Final = "20260101-000000-{size:04d}"
_RIGHT, _HOME, _LEAVE = "\x1b[C", "\x1b[H", "\x11"
_DRAWN: Final = b"\x1b[5n"
"""The question behind each picture: what comes before it is drawn."""
_ANSWER: Final = b"\x1b[0n"
_PAUSE_S: Final = 0.06
"""Between one frame and the next key: as quickly as one presses, and before a rest has the picture drawn anew."""
_REPEAT_S: Final = 1 / 30
"""A held key, as most keyboards repeat it."""
_LOOK_S: Final = 0.0005
_SETTLE_S: Final = 1.0
_LAST_S: Final = 0.3
"""By then the frame of a key is drawn, and no rest has begun to have it drawn in full quality."""
_TIMEOUT_S: Final = 60.0


class QuickTerminal(Terminal):
    """From `hurry` on it only answers the question behind each picture: to follow every colour of every cell takes longer than to
    draw them, and would be measured.
    """

    _hurries = False
    _rest = b""

    def hurry(self) -> None:
        """What is written is not followed any more."""
        self._hurries = True

    def _take(self, data: bytes, now: float) -> None:
        if not self._hurries:
            super()._take(data, now)
            return
        self.happenings.append(Happening(now, "read", data))
        for _ in range((self._rest + data).count(_DRAWN)):
            self._send(_ANSWER, now)
        self._rest = data[-len(_DRAWN) + 1 :]


class Scrubbed(NamedTuple):
    """One run of the app."""

    keys_s: list[float]
    """From a key to its frame, one by one."""
    held_s: float
    """From the last of the keys of a held one to the last frame."""
    gaps: list[Gap]


def measure(rounds: int) -> list[Figure]:
    """For each size of latents, and each way to draw pictures."""
    with isolated(), environment({"SDTUI_WORKER_COMMAND": "true"}):
        for size in SIZES:
            write_recorded(tapes_dir() / _JOB.format(size=size), STEPS, latents=(size, size))
        with IdleProcess() as idle:
            figures: list[Figure] = []
            for size in SIZES:
                for name in _TERMINALS:
                    figures += _of(name, size, [scrub(name, size) for _ in range(rounds)])
            idle_s = [gap.wall_s for gap in idle.gaps()]
    return [*figures, milliseconds("timeline", "gap in an idle process meanwhile, 99th percentile", percentile(idle_s, 0.99))]


def _of(name: str, size: int, runs: Sequence[Scrubbed]) -> list[Figure]:
    keys = [seconds for run in runs for seconds in run.keys_s]
    gaps = [gap.wall_s for run in runs for gap in run.gaps]
    busy = [gap.busy_s for run in runs for gap in run.gaps]
    what, note = f"{size}x{size}, {name}", f"{len(keys)} keys, {len(gaps)} ticks"
    return [
        milliseconds("timeline", f"{what}: key to frame, median", median(keys), KEY_TARGET_MS, note),
        milliseconds("timeline", f"{what}: key to frame, 99th percentile", percentile(keys, 0.99), KEY_TARGET_MS),
        milliseconds("timeline", f"{what}: held key, last frame after the last key", max(run.held_s for run in runs)),
        milliseconds("timeline", f"{what}: gap of the loop, 99th percentile", percentile(gaps, 0.99), GAP_TARGET_MS),
        milliseconds("timeline", f"{what}: work of the loop in a gap, 99th percentile", percentile(busy, 0.99)),
    ]


def scrub(name: str, size: int) -> Scrubbed:
    """Step through a job with one key after the other, then with a held key."""
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "sdtui.bench.scrubbed_app", _JOB.format(size=size), str(writing)]
    try:
        with QuickTerminal(command, personality=_TERMINALS[name], pass_fds=[writing], decode_at_once=False) as terminal:
            os.close(writing)
            terminal.wait_for(f"{STEPS} / {STEPS}", _TIMEOUT_S)
            time.sleep(_SETTLE_S)  # the curves are drawn, and the first frame is in full quality
            terminal.hurry()
            began = time.monotonic()
            keys = _one_by_one(terminal)
            held = _held(terminal)
            ended = time.monotonic()
            terminal.type(_LEAVE)
            with os.fdopen(reading, "rb", closefd=False) as told:
                gaps = [Gap(*gap) for at, gap in json.loads(told.read()) if began < at < ended]
            return Scrubbed(keys, held, gaps)
    finally:
        os.close(reading)


def _begin(terminal: Terminal) -> None:
    before = len(terminal.happenings)
    terminal.type(_HOME)
    _drawn(terminal, before)
    time.sleep(_SETTLE_S)


def _drawn(terminal: Terminal, before: int) -> float:
    """When the next picture after so many happenings was drawn, in monotonic seconds. Raises `TimeoutError`."""
    deadline = time.monotonic() + _TIMEOUT_S
    while time.monotonic() < deadline:
        for happening in terminal.happenings[before:]:
            if happening.kind == "read" and _DRAWN in happening.data:
                return happening.at_s
        time.sleep(_LOOK_S)
    raise TimeoutError(f"No picture was drawn within {_TIMEOUT_S:.0f} s of a key.")


def _one_by_one(terminal: Terminal) -> list[float]:
    _begin(terminal)
    found = []
    for _ in range(STEPS):
        before = len(terminal.happenings)
        pressed = terminal.type(_RIGHT)
        found.append(_drawn(terminal, before) - pressed)
        time.sleep(_PAUSE_S)
    return found


def _held(terminal: Terminal) -> float:
    _begin(terminal)
    before, pressed = len(terminal.happenings), 0.0
    for _ in range(STEPS):
        pressed = terminal.type(_RIGHT)
        time.sleep(_REPEAT_S)
    time.sleep(_LAST_S)
    read = [happening for happening in terminal.happenings[before:] if happening.kind == "read"]
    if f"{STEPS} / {STEPS}".encode() not in b"".join(happening.data for happening in read):
        raise TimeoutError(f"The last step was not shown {_LAST_S + _REPEAT_S:.1f} s after the last key.")
    return max(0.0, max(happening.at_s for happening in read if _DRAWN in happening.data) - pressed)
