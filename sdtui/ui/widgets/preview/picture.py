"""The picture's box: previews while a job runs, then the finished picture."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static

from sdtui.protocol import ImageSaved, PreviewReady
from sdtui.text import format_bytes, safe_text
from sdtui.ui.feed import FeedFrame
from sdtui.ui.widgets.preview.halfcell import HalfCellSurface
from sdtui.ui.widgets.preview.rate import Rate
from sdtui.ui.widgets.preview.surface import Frame, Surface

_NOTHING_YET: Final = "The picture forms here.\nF5 starts."
_WAITING: Final = "Waiting for the first step."
_SAY_EVERY_S: Final = 1.0
"""A rate that changes with every frame could not be read."""


class Picture(Vertical):
    """Shows the previews of one job, and its pictures when they are on disk."""

    def __init__(self, *, best: type[Surface] | None = None, id: str | None = None) -> None:
        """`best` is the best surface this terminal has: for previews too where it is `live`, else for finished pictures."""
        super().__init__(id=id, classes="-empty")
        self.border_title = "Picture"
        self.job: str | None = None
        """Only frames of this job are shown; the screen sets it."""
        live = best if best is not None and best.live else HalfCellSurface
        self._still_type = None if live is best else best
        self._live: Surface = live(id="live")
        self._still: Surface | None = None
        self._rate = Rate()
        self._said_at = 0.0

    def compose(self) -> ComposeResult:
        """The live surface, and words where there is no picture yet."""
        yield Static(Content(_NOTHING_YET), id="no-picture", markup=False)
        yield self._live

    def clear(self, words: str = _NOTHING_YET) -> None:
        """Show words instead of a picture."""
        self._live.clear()
        self._show_still(False)
        label = self.query_one("#no-picture", Static)
        label.update(Content(words))
        label.set_class(False, "-wrong")
        self.set_class(True, "-empty")
        self.border_subtitle = ""
        self._rate = Rate()

    def await_frame(self) -> None:
        """A job begins. The picture before it stays until the first preview: words instead would lay out the screen twice."""
        if self.has_class("-empty"):
            label = self.query_one("#no-picture", Static)
            label.update(Content(_WAITING))
            label.set_class(False, "-wrong")
        else:
            self.border_subtitle = _WAITING
        self._rate = Rate()

    def explain(self, words: str) -> None:
        """Say why there is no picture, where there is none; without words, what the box is for."""
        if self.has_class("-empty"):
            label = self.query_one("#no-picture", Static)
            label.update(Content(words or _NOTHING_YET))
            label.set_class(bool(words), "-wrong")

    def wanted_px(self) -> int:
        """The longer side of previews that this box can make use of."""
        return self._live.wanted_px(self.content_size.width, self.content_size.height)

    def on_feed_frame(self, message: FeedFrame) -> None:
        """A preview arrived; previews of other jobs are passed over."""
        message.stop()
        if message.event.job == self.job:
            self._show_preview(message.event)

    def _show_preview(self, event: PreviewReady) -> None:
        if len(event.rgb) != event.width_px * event.height_px * 3 or not event.rgb:
            return
        self.set_class(False, "-empty")
        self._show_still(False)
        self._live.show_frame(Frame(event.width_px, event.height_px, event.rgb))
        rate = self._rate.tick()
        if rate is None or time.monotonic() - self._said_at >= _SAY_EVERY_S:
            self._said_at = time.monotonic()
            shown = f"{rate:>2.0f} fps" if rate is not None else " – fps"
            self.border_subtitle = Content(f"x0 · {event.method} · {shown} · {format_bytes(len(event.rgb))}")

    def show_saved(self, event: ImageSaved) -> None:
        """A finished picture is on disk."""
        path = Path(event.path)
        self.set_class(False, "-empty")
        self._live.show_file(path)
        still = self._show_still(True)
        if still is not None:
            still.show_file(path)
        self.border_subtitle = Content(safe_text(path.name, limit=60))

    def _show_still(self, visible: bool) -> Surface | None:
        """Put the still's surface before the live one, or away; the surface, where this terminal has one."""
        if visible and self._still is None and self._still_type is not None:
            self._still = self._still_type(id="still")
            self.mount(self._still)
        self.set_class(visible and self._still is not None, "-still")
        return self._still

    def set_covered(self, covered: bool) -> None:
        """While something lies over the screen, half cells stand in: sixel would be drawn over it, and would leave traces."""
        self.set_class(covered, "-covered")

    def on_surface_failed(self, message: Surface.Failed) -> None:
        """A picture on disk cannot be read: say so, keep what is shown."""
        message.stop()
        self.notify(f"{message.path.name}: {message.reason}", title="Picture", severity="error", markup=False)
