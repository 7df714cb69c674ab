"""The line of a job's steps: a mark for each, the cursor, and how far a running job is."""

from __future__ import annotations

from typing import Final, NamedTuple

from textual.content import Content
from textual.events import MouseDown, MouseMove, MouseScrollDown, MouseScrollUp, MouseUp
from textual.message import Message
from textual.widget import Widget

from sdtui.trajectory import INITIAL

_LABEL_CELLS: Final = 11
"""`1000 / 1000`"""
_LEAST_TRACK: Final = 8


class Track(NamedTuple):
    """What the line shows."""

    step: int
    """Where the cursor is; `INITIAL` is before the first step."""
    first: int
    """The first step that can be shown: 0 or `INITIAL`."""
    recorded: int
    """How many steps there are to show."""
    total: int
    """How many there will be."""
    runs: bool = False
    """Whether the job is at work on them."""
    plays: bool = False
    marked: frozenset[int] = frozenset()
    """Steps of which there is more to see: those that the full VAE has decoded."""


class Scrubber(Widget):
    """Shows where in the steps one is. Clicks, drags and the wheel ask for another step; whoever has it moves the cursor."""

    class Moved(Message):
        """Another step is wanted; it may be one that there is not."""

        def __init__(self, step: int) -> None:
            super().__init__()
            self.step = step

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._track: Track | None = None
        self._held = False

    def show(self, track: Track | None) -> None:
        """Show this; None is an empty line."""
        if track != self._track:
            self._track = track
            self.refresh()

    # --- what it shows ----------------------------------------------------------------------------------------------

    @property
    def _cells(self) -> int:
        """Of the line itself, without the label behind it."""
        return self.size.width - _LABEL_CELLS - 1

    def _column(self, step: int, track: Track) -> int:
        """Where a step is."""
        places = max(1, track.total - 1 - track.first)
        return round((step - track.first) * (self._cells - 1) / places)

    def _step(self, column: int, track: Track) -> int:
        """The step that is nearest to a column."""
        places = max(1, track.total - 1 - track.first)
        return track.first + round(max(0, min(column, self._cells - 1)) * places / max(1, self._cells - 1))

    def render(self) -> Content:
        """Rail and marks, then the step's number."""
        track = self._track
        if track is None:
            return Content("")
        label = f"{track.step + 1} / {track.total}"
        if self._cells < _LEAST_TRACK:
            return Content.styled(label[: self.size.width], "$accent")
        return Content.assemble(*self._line(track), (f" {label:>{_LABEL_CELLS}}", "$foreground"))

    def _line(self, track: Track) -> list[tuple[str, str]]:
        now = self._column(max(track.first, track.recorded - 1), track)
        apart = (self._cells - 1) >= 2 * (track.total - 1 - track.first)
        cells = [("━" if not apart else "─", "$muted" if at <= now else "$rule") for at in range(self._cells)]
        for step in range(track.first, track.total):
            at = self._column(step, track)
            if step in track.marked:
                cells[at] = ("◆", "$muted")
            elif apart:
                cells[at] = ("•", "$muted") if step < track.recorded else ("·", "$rule")
        if track.runs:
            cells[now] = ("▸", "$foreground")
        cells[self._column(track.step, track)] = ("▶" if track.plays else "●", "bold $accent")
        return _joined(cells)

    # --- the mouse --------------------------------------------------------------------------------------------------

    def on_mouse_down(self, event: MouseDown) -> None:
        """Go to the step, and follow the mouse until it is let go."""
        if self._track is not None:
            self._held = True
            self.capture_mouse()
            self._go_to(event.x)

    def on_mouse_move(self, event: MouseMove) -> None:
        """Scrub."""
        if self._held:
            self._go_to(event.x)

    def on_mouse_up(self, event: MouseUp) -> None:  # noqa: ARG002  (Textual's signature)
        """Let go."""
        if self._held:
            self._held = False
            self.release_mouse()

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        """The next step."""
        event.stop()
        self._by(1)

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        """The step before."""
        event.stop()
        self._by(-1)

    def _go_to(self, column: int) -> None:
        if self._track is not None:
            self.post_message(self.Moved(self._step(column - self.gutter.left, self._track)))

    def _by(self, steps: int) -> None:
        if self._track is not None:
            self.post_message(self.Moved(max(INITIAL, self._track.step + steps)))


def _joined(cells: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Neighbours of one style as one text."""
    parts: list[tuple[str, str]] = []
    for text, style in cells:
        if parts and parts[-1][1] == style:
            parts[-1] = (parts[-1][0] + text, style)
        else:
            parts.append((text, style))
    return parts
