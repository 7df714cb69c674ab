"""The picture of one step in its box, or a sentence where there is none."""

from __future__ import annotations

import asyncio
from typing import Final

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.getters import query_one
from textual.message import Message
from textual.timer import Timer
from textual.widgets import Static

from sdtui.inspected import InspectedError
from sdtui.text import safe_text
from sdtui.trajectory import INITIAL
from sdtui.ui.timeline_record import Seen, Wish
from sdtui.ui.timeline_rows import view_title
from sdtui.ui.widgets.pages.beside import run_beside
from sdtui.ui.widgets.preview.live import LivePicture

_REST_S: Final = 0.4
"""A picture on which one rests so long is drawn in full quality; until then it is one of many."""
_FAULTS: Final = (InspectedError, OSError, ValueError, MemoryError)


class StepPicture(Vertical):
    """Reads and draws beside the event loop; the newest wish wins, and what was seen stays until it is answered."""

    picture = query_one(LivePicture)
    none = query_one(".no-picture", Static)

    class Gone(Message):
        """A step cannot be read any more; why stands in the picture's place."""

        def __init__(self, wish: Wish) -> None:
            super().__init__()
            self.wish = wish

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, classes="-empty")
        self.wish: Wish | None = None
        self.seen: Seen | None = None
        """The answer to the last wish that was answered."""
        self._painted: Wish | None = None
        self._is_painting = False
        self._doing = ""
        self._titles = ("", "")
        self._rest: Timer | None = None

    def compose(self) -> ComposeResult:
        """The picture, and the sentence in its place."""
        yield LivePicture()
        yield Static(Content(""), classes="no-picture", markup=False)

    # --- what it is told --------------------------------------------------------------------------------------------

    def show(self, wish: Wish) -> None:
        """Show a step."""
        if wish != self.wish:
            self.wish = wish
            self._wake()

    def show_again(self) -> None:
        """There may be more to see of the same step."""
        self._painted = None
        self._wake()

    def explain(self, sentence: str) -> None:
        """Show a sentence, which is safe, instead of a picture."""
        self.wish = self.seen = self._painted = None
        self._say(sentence)

    def title(self, words: str) -> None:
        """What stands above the picture; safe."""
        if words != self._titles[0]:
            self._titles = (words, self._titles[1])
            self.border_title = Content(words)

    def tell(self, doing: str) -> None:
        """What is being done for this step, for the border; empty for nothing."""
        if doing != self._doing:
            self._doing = doing
            self._show_title()

    def put_away(self) -> None:
        """Another screen is shown."""
        self.picture.put_away()

    @property
    def is_painted(self) -> bool:
        """Whether the picture is the one that is wished for."""
        return self.wish == self._painted and not self._is_painting

    @property
    def sentence(self) -> str:
        """What stands in the picture's place; empty where there is a picture."""
        return str(self.none.content) if self.has_class("-empty") else ""

    # --- drawing ----------------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        if not self._is_painting and self.wish not in (None, self._painted):
            self._is_painting = True
            run_beside(self, self._paint, "paint")

    async def _paint(self) -> None:
        """Paint until what is seen is what is wished for."""
        try:
            while (wish := self.wish) is not None and wish != self._painted:
                self._painted = wish
                try:
                    seen = await asyncio.to_thread(wish.record.look, wish.step, wish.view, wish.channel)
                except _FAULTS as error:
                    self._fail(wish, safe_text(str(error), limit=600))
                else:
                    self._take(wish, seen)
        finally:
            self._is_painting = False

    def _take(self, wish: Wish, seen: Seen) -> None:
        if self.wish is None or self.wish.record is not wish.record:
            return  # another job is shown by now
        self.seen = seen
        self.set_class(False, "-empty")
        self.picture.show_frame(seen.frame)
        self._draw_well_later()
        self._show_title()

    def _draw_well_later(self) -> None:
        if self._rest is not None:
            self._rest.stop()
        self._rest = self.set_timer(_REST_S, self._draw_well)

    def _draw_well(self) -> None:
        self._rest = None
        if self.seen is None:
            return
        if not (self.is_painted and self.picture.is_drawn):
            self._draw_well_later()  # the terminal is slower than the keys
        elif self.picture.is_coarse:
            self.picture.show_still(self.seen.frame)

    def _fail(self, wish: Wish, sentence: str) -> None:
        if self.wish == wish:
            self.seen = None
            self._say(sentence)
            self.post_message(self.Gone(wish))

    def _say(self, sentence: str) -> None:
        self.none.update(Content(sentence))
        self.set_class(True, "-empty")
        self.picture.clear()
        self._show_title()

    def _show_title(self) -> None:
        words = self._subtitle()
        if words != self._titles[1]:  # each of them has the whole box drawn
            self._titles = (self._titles[0], words)
            self.border_subtitle = Content(words)

    def _subtitle(self) -> str:
        seen, wish = self.seen, self.wish
        if seen is None or wish is None:
            return self._doing
        title = view_title(seen.view, wish.channel, wish.record.channels)
        if wish.step == INITIAL:
            title = f"{title} · before the first step"
        size = f"{seen.frame.width_px}×{seen.frame.height_px}"
        return " · ".join(part for part in (title, self._doing or seen.note, size) if part)

    def on_live_picture_failed(self, message: LivePicture.Failed) -> None:
        """The terminal cannot be given the picture."""
        message.stop()
        self._say(message.reason)
