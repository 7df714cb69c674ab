"""Pictures in a terminal, ours against textual-image's in the same run: bytes, work, and how long the event loop stood still."""

from __future__ import annotations

import json
import os
import re
import select
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from sdtui.bench.figures import Figure, milliseconds
from sdtui.bench.personalities import KITTY, PLAIN, XTERM, XTERM_JS, Personality
from sdtui.bench.picture_app import Library
from sdtui.bench.picture_frames import COUNT, Kind
from sdtui.bench.terminal import Terminal
from sdtui.bench.ticker import Gap, IdleProcess

BENCH: Final = "terminal"
EVERY_S: Final = 0.2
CELL_PX: Final = (8, 17)
_TERMINALS: Final[dict[str, Personality]] = {"kitty": KITTY, "sixel": XTERM, "half": PLAIN, "iterm2": XTERM_JS}
_ONE_FRAME: Final = {
    "kitty": re.compile(rb"\x1b_G[^;\x1b]*m=0"),
    "sixel": re.compile(rb"\x1bP[\d;]*q"),
    "iterm2": re.compile(rb"\x1b\]1337;File="),
    "half": re.compile(rb"\x1b\[1;1H(?:\x1b\[0m)?\x1b\[[34]8;2"),
}
"""What each frame contains once: the last chunk, a picture's beginning, the first cell."""
_SLOW_LATENCY_S: Final = 0.15
_SLOW_BYTES_PER_S: Final = 1e6
_TIMEOUT_S: Final = 180.0
_LOOK_S: Final = 0.5


@dataclass
class Showing:
    """What one app did while it showed its frames."""

    bytes_written: int
    frames_shown: int
    cpu_s: float
    gaps: list[Gap]
    idle_gap_s: float
    """The longest gap in an idle process meanwhile: what the machine does to any."""
    errors: list[str]

    @property
    def kilobytes_a_frame(self) -> float:
        """Of the frames that were shown; text and answers included."""
        return self.bytes_written / max(1, self.frames_shown) / 1000

    @property
    def cpu_a_frame_s(self) -> float:
        """Of the frames that were shown."""
        return self.cpu_s / max(1, self.frames_shown)

    @property
    def worst_gap_s(self) -> float:
        """The longest the loop stood still."""
        return max(gap.wall_s for gap in self.gaps)

    @property
    def worst_busy_s(self) -> float:
        """The most it worked in one go; other programs hardly move this."""
        return max(gap.busy_s for gap in self.gaps)


def command(library: Library, protocol: str, kind: Kind, pipe: str) -> list[str]:
    """The app to be measured, which tells the pipe what it does."""
    return [sys.executable, "-m", "sdtui.bench.picture_app", library, protocol, kind, str(COUNT), str(EVERY_S), pipe]


def run(library: Library, protocol: str, kind: Kind, *, slow: bool = False) -> Showing:
    """Run an app in a scripted terminal until it has shown all frames; `slow`: on a line of 1 MB/s with 150 ms latency."""
    reading, writing = os.pipe()
    try:
        with (
            IdleProcess() as idle,
            Terminal(
                command(library, protocol, kind, f"/dev/fd/{writing}"),
                personality=_TERMINALS[protocol],
                cell_px=CELL_PX,
                decode_at_once=False,
                pass_fds=[writing],
                latency_s=_SLOW_LATENCY_S if slow else 0.0,
                bytes_per_s=_SLOW_BYTES_PER_S if slow else None,
            ) as terminal,
        ):
            began = _told(terminal, reading, "began")
            errors_before = len(terminal.look().errors)  # such as questions that this terminal does not understand
            done = _told(terminal, reading, "done")
            idle_gap_s = _longest_at_the_end(idle.gaps(), done["at"] - began["at"])
            terminal.process.wait(_TIMEOUT_S)
            happenings = terminal.happenings
            shown = [one for one in happenings if one.kind == "read" and began["at"] <= one.at_s <= done["at"]]
            return Showing(
                bytes_written=sum(len(one.data) for one in shown),
                frames_shown=len(_ONE_FRAME[protocol].findall(b"".join(one.data for one in shown))),
                cpu_s=done["cpu_s"],
                gaps=[Gap(*gap) for gap in done["gaps"]],
                idle_gap_s=idle_gap_s,
                errors=terminal.look().errors[errors_before:],
            )
    finally:
        os.close(reading)
        os.close(writing)


def _told(terminal: Terminal, descriptor: int, kind: str) -> dict[str, Any]:
    """What the app tells next. Raises `RuntimeError` with its screen when it ends or hangs instead."""
    deadline = time.monotonic() + _TIMEOUT_S
    line = b""
    while not line.endswith(b"\n"):
        if select.select([descriptor], [], [], _LOOK_S)[0]:
            line += os.read(descriptor, 1)
        elif terminal.process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"The app did not tell {kind!r}; its screen:\n{terminal.text()}")
    fact: dict[str, Any] = json.loads(line)
    return fact


def _longest_at_the_end(gaps: Sequence[Gap], span_s: float) -> float:
    longest = passed_s = 0.0
    for gap in reversed(gaps):
        longest, passed_s = max(longest, gap.wall_s), passed_s + gap.wall_s
        if passed_s >= span_s:
            break
    return longest


def measure(rounds: int) -> list[Figure]:
    """Each protocol on a quick line, all of them on a slow one."""
    return [
        *_compared("kitty", "latent", rounds, kilobytes=20, gap_ms=25),
        *_compared("kitty", "detailed", rounds, kilobytes=65, gap_ms=25),
        *_compared("sixel", "detailed", rounds, kilobytes=70, gap_ms=30),
        *_compared("half", "detailed", rounds, cpu_ms=15, gap_ms=20),
        *_slow(rounds),
    ]


def _compared(
    protocol: str,
    kind: Kind,
    rounds: int,
    *,
    gap_ms: float,
    kilobytes: float | None = None,
    cpu_ms: float | None = None,
) -> list[Figure]:
    """Both libraries, in turns."""
    pairs = [(run("sdtui", protocol, kind), run("textual-image", protocol, kind)) for _ in range(rounds)]
    ours, theirs = [ours for ours, _ in pairs], [theirs for _, theirs in pairs]
    name = f"{protocol}, {kind} frames"
    return [
        *_figures(name, ours, kilobytes=kilobytes, cpu_ms=cpu_ms, gap_ms=gap_ms),
        *_figures(f"{name}: textual-image", theirs),
    ]


def _figures(
    name: str,
    showings: Sequence[Showing],
    *,
    kilobytes: float | None = None,
    cpu_ms: float | None = None,
    gap_ms: float | None = None,
) -> list[Figure]:
    """The medians over the rounds."""
    shown = sum(showing.frames_shown for showing in showings)
    errors = [error for showing in showings for error in showing.errors]
    note = f"{shown} of {len(showings) * COUNT} frames shown" + (f"; {len(errors)} errors: {errors[0]}" if errors else "")
    size = median(showing.kilobytes_a_frame for showing in showings)
    cpu_s = median(showing.cpu_a_frame_s for showing in showings)
    busy = median(showing.worst_busy_s for showing in showings)
    gap = median(showing.worst_gap_s for showing in showings)
    idle = f"{median(showing.idle_gap_s for showing in showings) * 1000:.0f} ms in an idle process meanwhile"
    return [
        Figure(bench=BENCH, name=f"{name}, a frame", value=size, unit="kB", target=kilobytes, note=note),
        milliseconds(BENCH, f"{name}, processor time a frame", cpu_s, cpu_ms),
        milliseconds(BENCH, f"{name}, worst gap of the event loop", gap, gap_ms, idle),
        milliseconds(BENCH, f"{name}, work of the loop in a gap, longest", busy, note="hardly moved by other programs"),
    ]


def _slow(rounds: int) -> list[Figure]:
    """A line of 1 MB/s with 150 ms latency."""
    figures = []
    for protocol in ("kitty", "sixel", "iterm2", "half"):
        showings = [run("sdtui", protocol, "detailed", slow=True) for _ in range(rounds)]
        figures += _figures(f"{protocol} at 1 MB/s", showings, gap_ms=25)
    theirs = [run("textual-image", "kitty", "detailed", slow=True) for _ in range(rounds)]
    return [*figures, *_figures("kitty at 1 MB/s: textual-image", theirs)]
