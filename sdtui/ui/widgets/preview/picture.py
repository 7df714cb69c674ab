"""The picture's box: the initial image before a job, previews while it runs, then the finished picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static

from sdtui.protocol import ImageSaved, PreviewReady
from sdtui.terminal.picture import Frame
from sdtui.text import safe_text
from sdtui.ui.feed import FeedFrame
from sdtui.ui.widgets.preview.live import LivePicture

if TYPE_CHECKING:
    from sdtui.ui.widgets.preview.still import StillPicture

_NOTHING_YET: Final = "The picture forms here.\nF5 starts."
_WAITING: Final = "Waiting for the first step."


class Picture(Vertical):
    """Shows the previews of one job, and its pictures when they are on disk."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, classes="-empty")
        self.border_title = "Picture"
        self.job: str | None = None
        """Only frames of this job are shown; the screen sets it."""
        self._latest: PreviewReady | None = None
        """Also of a job that is not shown: the server sends the newest preview before it is known what is followed."""
        self._live = LivePicture(id="live")
        self._still: StillPicture | None = None
        self._saved: Path | None = None
        self._shows_initial = False

    @property
    def saved(self) -> Path | None:
        """The finished picture that is shown; None where something else is."""
        return None if self._shows_initial else self._saved

    def compose(self) -> ComposeResult:
        """The picture, and words where there is none yet."""
        yield Static(Content(_NOTHING_YET), id="no-picture", markup=False)
        yield self._live

    def clear(self, words: str = _NOTHING_YET) -> None:
        """Show words instead of a picture."""
        self._saved, self._shows_initial = None, False
        self._live.clear()
        self._show_shades(None)
        label = self.query_one("#no-picture", Static)
        label.update(Content(words))
        label.set_class(False, "-wrong")
        self.set_class(True, "-empty")
        self.border_subtitle = ""

    def await_frame(self) -> None:
        """A job begins. The picture before it stays until the first preview: words instead would lay out the screen twice."""
        if self._latest is not None and self._latest.job == self.job:
            self._show_preview(self._latest)
        elif self.has_class("-empty"):
            label = self.query_one("#no-picture", Static)
            label.update(Content(_WAITING))
            label.set_class(False, "-wrong")
        else:
            self.border_subtitle = _WAITING

    def explain(self, words: str) -> None:
        """Say why there is no picture, where there is none; without words, what the box is for."""
        if self.has_class("-empty"):
            label = self.query_one("#no-picture", Static)
            label.update(Content(words or _NOTHING_YET))
            label.set_class(bool(words), "-wrong")

    def put_away(self) -> None:
        """Another screen is shown."""
        self._live.put_away()

    def wanted_px(self) -> int:
        """The longer side of previews that this box can make use of."""
        return self._live.wanted_px(self.content_size.width, self.content_size.height)

    def prepare(self) -> None:
        """Load what drawing needs, in a thread."""
        self._live.prepare()

    def line_figures(self) -> tuple[int, float] | None:
        """Bytes a frame and frames a second that went to the terminal lately."""
        return self._live.line_figures()

    def on_feed_frame(self, message: FeedFrame) -> None:
        """A preview arrived; previews of other jobs are passed over."""
        message.stop()
        self._latest = message.event
        if message.event.job == self.job:
            self._show_preview(message.event)

    def _show_preview(self, event: PreviewReady) -> None:
        frame = Frame(event.width_px, event.height_px, event.rgb)
        if not frame.is_whole:
            return
        self._saved, self._shows_initial = None, False
        self.set_class(False, "-empty")
        self._show_shades(None)
        self._live.show_frame(frame)
        self._say(f"x0 · {event.method} · {event.width_px}×{event.height_px} px")

    def show_saved(self, event: ImageSaved) -> None:
        """A finished picture is on disk."""
        self._show_saved(Path(event.path))

    def _show_saved(self, path: Path) -> None:
        self._saved, self._shows_initial = path, False
        self.set_class(False, "-empty")
        self._live.show_file(path)
        self._show_shades(path)
        self._say(safe_text(path.name, limit=60))

    def show_initial(self, frame: Frame, words: str) -> None:
        """What the next job would begin with; only while none is at work."""
        self._shows_initial = True
        self.set_class(False, "-empty")
        self._show_shades(frame)
        self._live.show_still(frame)
        self._say(words)

    def hide_initial(self) -> None:
        """The next job begins with noise: show what was shown before."""
        if self._shows_initial and self._saved is not None:
            self._show_saved(self._saved)
        elif self._shows_initial:
            self.clear()

    def _show_shades(self, picture: Path | Frame | None) -> None:
        """Where there are too few colours for half cells, a picture that stays in shades; None puts it away."""
        wanted = picture is not None and self.app.console.color_system in (None, "standard")
        if wanted and self._still is None:
            from sdtui.ui.widgets.preview.still import StillPicture

            self._still = StillPicture(id="still")
            self.mount(self._still)
        if wanted and self._still is not None:
            if isinstance(picture, Path):
                self._still.show_file(picture)
            elif picture is not None:
                self._still.show_still(picture)
        self.set_class(wanted, "-still")

    def _say(self, words: str) -> None:
        if self.border_subtitle != words:
            self.border_subtitle = Content(words)

    def on_live_picture_failed(self, message: LivePicture.Failed) -> None:
        """A picture cannot be shown: say so, keep what is shown."""
        message.stop()
        words = f"{message.name}: {message.reason}" if message.name else message.reason
        self.notify(words, title="Picture", severity="error", markup=False)
