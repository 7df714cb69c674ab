"""Choose one of the pictures that jobs have made, over the screen: the list, and the picture under the cursor."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Final, NamedTuple

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from sdtui.protocol import JobRow, Jobs
from sdtui.text import safe_text
from sdtui.ui.widgets.preview.live import LivePicture

_AHEAD: Final = 20
"""With so few lines left below the cursor, older jobs are asked for."""
_PROMPT_CHARACTERS: Final = 300
_ASKING: Final = "Asking the server …"
_NONE: Final = "No finished pictures yet: they come with the first job."


class Made(NamedTuple):
    """A picture, and the job that made it."""

    path: str
    row: JobRow


class PictureChooser(ModalScreen[str | None]):
    """Returns the chosen picture's path, or None. Newest first; older ones are asked for as the cursor comes near them."""

    CSS_PATH = "picture_chooser.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "Close", id="pictures.close", tooltip="Close and change nothing"),
        Binding("j", "move(1)", show=False, id="pictures.down", tooltip="One down"),
        Binding("k", "move(-1)", show=False, id="pictures.up", tooltip="One up"),
    ]

    def __init__(self, ask: Callable[[int], None], *, current: str) -> None:
        """`ask`: have the server list ended jobs from this one on; what it answers is to be given to `take`."""
        super().__init__()
        self._ask = ask
        self._current = current
        self._made: list[Made] = []
        self._next = 0
        """How many jobs were listed."""
        self._asked: int | None = None
        self._complete = False

    def compose(self) -> ComposeResult:
        """The list at the left, the picture at the right, its prompt below."""
        with Vertical(id="pictures") as box:
            box.border_title = "Choose an initial image"
            box.border_subtitle = "enter takes · esc leaves"
            with Horizontal():
                yield OptionList(markup=False)
                yield LivePicture()
            yield Static(Content(_ASKING), id="of-picture", markup=False)

    def on_mount(self) -> None:
        """Ask for the newest."""
        self.query_one(OptionList).focus()
        self._ask_for_more()

    def _ask_for_more(self) -> None:
        if self._asked is None and not self._complete:
            self._asked = self._next
            self._ask(self._next)

    def take(self, jobs: Jobs) -> None:
        """A list of jobs came; one that somebody else asked for is passed over."""
        if jobs.which == "ended" and jobs.offset == self._asked and self.is_attached:
            self.run_worker(self._add(jobs), exit_on_error=False)

    async def _add(self, jobs: Jobs) -> None:
        made = await asyncio.to_thread(_pictures_there, jobs.jobs)
        self._made += made
        self._next += len(jobs.jobs)
        self._asked, self._complete = None, not jobs.jobs or self._next >= jobs.total
        options = self.query_one(OptionList)
        options.add_options(Option(Content(_label(picture, time.time()))) for picture in made)
        if options.highlighted is None and self._made:
            paths = [picture.path for picture in self._made]
            options.highlighted = paths.index(self._current) if self._current in paths else 0
        if not self._made:
            self._say(_NONE if self._complete else _ASKING)
        self._look_ahead()

    def _look_ahead(self) -> None:
        at = self.query_one(OptionList).highlighted or 0
        if len(self._made) - at <= _AHEAD:
            self._ask_for_more()

    def _say(self, words: str) -> None:
        self.query_one("#of-picture", Static).update(Content(words))

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        """Show the picture under the cursor."""
        event.stop()
        path, row = self._made[event.option_index]
        self.query_one(LivePicture).show_file(Path(path))
        self._say(safe_text(row.params.prompt, limit=_PROMPT_CHARACTERS))
        self._look_ahead()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Take it."""
        event.stop()
        self.dismiss(self._made[event.option_index].path)

    def on_live_picture_failed(self, message: LivePicture.Failed) -> None:
        """A picture cannot be shown: say so, and show none."""
        message.stop()
        self.query_one(LivePicture).clear()
        self._say(f"{message.name}: {message.reason}")

    def action_move(self, by: int) -> None:
        """The line below or above."""
        options = self.query_one(OptionList)
        options.action_cursor_down() if by > 0 else options.action_cursor_up()


def _pictures_there(rows: Sequence[JobRow]) -> list[Made]:
    """The pictures of jobs that are still where they were saved; the newest of each job first. Asks the disk."""
    return [Made(path, row) for row in rows for path in reversed(row.images) if Path(path).is_file()]


def _label(picture: Made, now: float) -> str:
    """When it was made, and of what: a time of today, else a date."""
    made = time.localtime(picture.row.finished_at or picture.row.created_at)
    today = time.localtime(now)
    when = time.strftime("%H:%M" if made[:3] == today[:3] else "%m-%d" if made[0] == today[0] else "%Y", made)
    return f"{when:<6} {safe_text(picture.row.params.prompt, limit=_PROMPT_CHARACTERS)}"
