"""The progress line: what is being waited for, how far it is, how fast, how long still."""

from __future__ import annotations

import time
from collections import deque
from typing import Final

from textual.content import Content
from textual.timer import Timer
from textual.widget import Widget

from sdtui.protocol import DownloadProgress, StepFinished
from sdtui.text import format_bytes, format_seconds, safe_text

_SEEN: Final = 8
"""Steps whose mean time gives speed and ETA: calm, and quick to follow a change."""
_TICK_S: Final = 0.5
_SMALLEST_BAR: Final = 8


def bar(done: float, width_cells: int) -> tuple[str, str]:
    """The full and the empty part of a bar at half-cell resolution; `done` from 0 to 1."""
    halves = round(max(0.0, min(1.0, done)) * width_cells * 2)
    full = "━" * (halves // 2) + ("╸" if halves % 2 else "")
    empty = width_cells - len(full)
    return full, ("╺" + "━" * (empty - 1) if empty and halves % 2 == 0 and halves else "━" * empty)


class ProgressLine(Widget):
    """One line. It only moves when there is news, or while something that takes long is waited for."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._done: float | None = None
        self._text = ""
        self._tone = "$muted"
        self._waiting_since: float | None = None
        self._ticker: Timer | None = None
        self._times: deque[float] = deque(maxlen=_SEEN)
        self._batches = 1

    @property
    def text(self) -> str:
        """What stands beside the bar."""
        if self._waiting_since is None:
            return self._text
        return f"{self._text} {time.monotonic() - self._waiting_since:.0f} s"

    @property
    def waiting(self) -> bool:
        """Whether something of unknown length is waited for."""
        return self._waiting_since is not None

    def say(self, text: str, tone: str = "muted") -> None:
        """A sentence without a bar."""
        self._set(None, text, f"${tone}")

    def wait_for(self, text: str) -> None:
        """Something of unknown length is waited for; its seconds are counted."""
        self._set(None, text, "$foreground")
        self._waiting_since = time.monotonic()
        if self._ticker is None:
            self._ticker = self.set_interval(_TICK_S, self.refresh)
        self._ticker.resume()

    def start(self, batches: int) -> None:
        """A job of so many batches began."""
        self._times.clear()
        self._batches = max(1, batches)

    def step(self, step: StepFinished) -> None:
        """A step is done."""
        if not step.replayed:
            self._times.append(step.elapsed_s + step.preview_s)
        mean_s = sum(self._times) / max(1, len(self._times))
        at, total = step.step_index + 1, step.total_steps
        left = total - at + total * (self._batches - 1 - step.batch_index)
        speed = _speed(mean_s)
        batch = f"batch {step.batch_index + 1}/{self._batches}  " if self._batches > 1 else ""
        text = f"{batch}{at:>{len(str(total))}}/{total}  {speed}  {_rough_seconds(left * mean_s):>7}"
        self._set((step.batch_index * total + at) / (total * self._batches), text, "$foreground")

    def download(self, progress: DownloadProgress) -> None:
        """A model's file is on its way."""
        done, total = progress.done_bytes, progress.total_bytes
        amount = f"{format_bytes(done)} of {format_bytes(total)}" if total else format_bytes(done)
        name = safe_text(progress.file.rpartition("/")[2], limit=30)
        self._set(done / total if total else None, f"{name}  {amount}", "$foreground")

    def finish(self, elapsed_s: float, images: int) -> None:
        """The job is done."""
        what = "" if images == 1 else f"{images} pictures  "
        self._set(1.0, f"{what}done in {format_seconds(elapsed_s)}", "$success")

    def _set(self, done: float | None, text: str, tone: str) -> None:
        self._waiting_since = None
        if self._ticker is not None:
            self._ticker.pause()
        self._done, self._text, self._tone = done, text, tone
        self.refresh()

    def render(self) -> Content:
        """The bar on the left, the figures right-aligned."""
        width = self.size.width
        text = self.text
        if self._done is None:
            return Content.assemble((text[:width], self._tone))
        room = width - len(text) - 2
        if room < _SMALLEST_BAR:
            return Content.assemble((text[:width].rjust(width), self._tone))
        full, empty = bar(self._done, room)
        return Content.assemble((full, "$accent"), (empty, "$rule"), "  ", (text, self._tone))


def _speed(mean_s: float) -> str:
    if mean_s <= 0:
        return f"{'–':>4} it/s"
    return f"{1 / mean_s:>4.1f} it/s" if mean_s < 1 else f"{mean_s:>4.1f} s/it"


def _rough_seconds(seconds: float) -> str:
    """A time to go: whole seconds where the tenth would never be right."""
    if seconds >= 60:
        return format_seconds(seconds)
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
