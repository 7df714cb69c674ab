"""Where the words of the prompt act: heat over the picture, or how far the whole prompt pulls at each step."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical
from textual.content import Content
from textual.getters import query_one
from textual.message import Message
from textual.widgets import Static
from textual.worker import Worker, WorkerState

from sdtui.inspected import InspectedError
from sdtui.settings import tapes_dir
from sdtui.text import safe_text
from sdtui.ui import word_titles
from sdtui.ui.inspected_words import InspectedWords, Look, Painted, file_to_show, inspected_files, stamp_of
from sdtui.ui.widgets.preview.live import LivePicture
from sdtui.ui.widgets.word_list import WordList

STRENGTHS: Final = ((0.6, "heat 60 %"), (0.9, "heat 90 %"), (1.0, "heat alone"), (0.3, "heat 30 %"))
_LONGEST_PX: Final = 1024
_FAULTS: Final = (InspectedError, OSError, ValueError, MemoryError)


class Wish(NamedTuple):
    """What is to be painted, and how large."""

    opened: InspectedWords
    look: Look
    px: int


class Room(Vertical):
    """Where the picture is."""

    class Resized(Message):
        """There is more room for the picture, or less."""

    def on_resize(self) -> None:
        """More of the picture can be seen, or less."""
        self.post_message(self.Resized())


class WordsView(Container, can_focus=True):
    """Shows an inspected job. It reads and paints beside the event loop; the newest wish wins."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space,enter", "hold", "Compare", key_display="space", id="words.hold", tooltip="Hold the word, to compare it"),
        Binding("x", "turn_heat", "Heat", id="words.heat", tooltip="Stronger or weaker heat, or the heat alone"),
        Binding("d", "turn_guidance", "Guidance", id="words.guidance", tooltip="How far the prompt pulls at each step"),
        Binding("e", "save", "Save", id="words.save", tooltip="Save what is seen as PNG, beside the picture"),
        Binding("u", "turn_resolution", "Maps", id="words.maps", tooltip="Maps of which resolution: all of them, or one"),
        Binding("w", "turn_image(1)", "Picture", id="words.picture", tooltip="The next picture of the batch"),
        Binding("W", "turn_image(-1)", show=False, id="words.picture_before", tooltip="The picture before"),
        Binding(
            "comma,J", "turn_job(1)", "Older", key_display=",", id="words.older", tooltip="The inspected job before this one"
        ),
        Binding("full_stop,K", "turn_job(-1)", "Newer", key_display=".", id="words.newer", tooltip="The next inspected job"),
        Binding("up,k", "move(-1)", "Up", show=False, id="words.up", tooltip="The word or the step above"),
        Binding("down,j", "move(1)", "Down", show=False, id="words.down", tooltip="The word or the step below"),
        Binding("home,g", "go_to_end(False)", "First", show=False, id="words.first", tooltip="The first word or step"),
        Binding("end,G", "go_to_end(True)", "Last", show=False, id="words.last", tooltip="The last word or step"),
        Binding("left,h", "turn_step(-1)", "Back", show=False, id="words.step_before", tooltip="The guidance of the step before"),
        Binding("right,l", "turn_step(1)", "On", show=False, id="words.step", tooltip="The guidance of the next step"),
    ]
    lines = query_one("#word-lines", WordList)
    room = query_one("#word-picture", Room)
    live = query_one("#word-live", LivePicture)
    none = query_one("#no-words", Static)

    class Told(Message):
        """What the user should know; `words` are safe."""

        def __init__(self, words: str, tone: str = "muted") -> None:
            super().__init__()
            self.words = words
            self.tone = tone

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, classes="-empty")
        self.border_title = "Words"
        self.path: Path | None = None
        """The file that is shown, also where it cannot be read."""
        self.opened: InspectedWords | None = None
        self.word = 0
        self.held: int | None = None
        """The word that the one under the cursor is compared with."""
        self.step: int | None = None
        """The step whose guidance is shown instead of the words."""
        self.image = 0
        self._resolution = self._strength = 0
        self._steps = 0
        self._stamp = 0
        self._follows = True
        """Whether the next job that is inspected is shown at once."""
        self._painted: Wish | None = None
        self._is_painting = False
        self._gone = ""

    def compose(self) -> ComposeResult:
        """Words, picture, and the sentence where there is neither."""
        yield WordList(id="word-lines")
        with Room(id="word-picture"):
            yield LivePicture(id="word-live")
        yield Static(Content(word_titles.NO_JOB), id="no-words", markup=False)

    def on_show(self) -> None:
        """There may be a newer job by now."""
        self.look_again()

    @on(Room.Resized)
    def _room_resized(self, message: Room.Resized) -> None:
        message.stop()
        self._wake()

    def put_away(self) -> None:
        """Another screen is shown."""
        self.live.put_away()

    # --- which job --------------------------------------------------------------------------------------------------

    def look_again(self) -> None:
        """Show the last job that has word maps, or the one that was chosen, if it changed."""
        self._read(self._choose(0))

    def _read(self, work: Coroutine[Any, Any, None]) -> None:
        self.run_worker(work, group="read", exclusive=True, exit_on_error=False)

    async def _choose(self, by: int) -> None:
        tapes = tapes_dir()
        files = await asyncio.to_thread(inspected_files, tapes)
        path = self.path
        if by and path in files:
            there = files.index(path) + by
            if not 0 <= there < len(files):
                self._tell(f"There is no {'older' if by > 0 else 'newer'} inspected job.")
                return
            path, self._follows = files[there], there == 0
        elif self._follows or path not in files:
            path = await asyncio.to_thread(file_to_show, tapes)
        if path is None:
            self._show_sentence(None, word_titles.NO_JOB)
        else:
            await self._open(path)

    async def _open(self, path: Path) -> None:
        stamp = await asyncio.to_thread(stamp_of, path)
        if (path, stamp) == (self.path, self._stamp):
            self._painted = None  # its picture may be gone by now
            self._wake()
            return
        try:
            opened = await asyncio.to_thread(InspectedWords, path)
            strongest = await asyncio.to_thread(opened.strongest)
        except _FAULTS as error:
            self._show_sentence(path, safe_text(str(error), limit=600))
            return
        self._stamp = stamp
        self._take(opened, strongest)

    def _take(self, opened: InspectedWords, strongest: int) -> None:
        """Show another job; what was chosen stays as far as it has that, too."""
        before = self.opened.words if self.opened is not None else []
        same = opened.find(before[self.word].text) if before else None
        self.held = opened.find(before[self.held].text) if before and self.held is not None else None
        self.path, self.opened, self.step = opened.path, opened, None
        self.word = strongest if same is None else same
        self.image = min(self.image, opened.images - 1)
        self._resolution = 0
        self._show_job()

    # --- what is shown ----------------------------------------------------------------------------------------------

    @property
    def look(self) -> Look | None:
        """What is to be seen; None where there is nothing."""
        opened = self.opened
        if opened is None or (self.step is None and not opened.words):
            return None
        words = (self.word,) if self.held in (None, self.word) else (self.word, self.held or 0)
        resolutions = (opened.resolutions[self._resolution - 1],) if self._resolution else ()
        return Look(self.image, words if self.step is None else (), resolutions, STRENGTHS[self._strength][0], self.step)

    def _show_job(self) -> None:
        """The words of the job, or its steps; a sentence where it has none."""
        opened = self.opened
        if opened is None:
            return
        if self.look is None:
            self._show_sentence(opened.path, word_titles.sentence(opened), opened)
            return
        self.set_class(False, "-empty")
        if self.step is None:
            self.lines.show(("word", "share"), [safe_text(word.text, limit=80) for word in opened.words])
        else:
            self.lines.show(("step", "mean"), [f"{step + 1}" for step in range(self._steps)])
        self._changed()

    def _show_sentence(self, path: Path | None, words: str, opened: InspectedWords | None = None) -> None:
        self.path, self.opened, self.step = path, opened, None
        self._painted = None
        self.none.update(Content(words))
        self.set_class(True, "-empty")
        self.live.clear()
        self._show_titles()

    def _changed(self) -> None:
        """The cursor and the titles follow at once, the picture as soon as it is painted."""
        if (look := self.look) is not None and self.opened is not None:
            self.lines.point(self.word if look.step is None else look.step, dict(zip(look.words, self.opened.hues, strict=False)))
            self._show_titles()
            self._wake()

    def _show_titles(self) -> None:
        heat = STRENGTHS[self._strength][1]
        self.border_title = word_titles.title(self.opened, self.look, f"{heat} on grey" if self._gone else heat)
        self.border_subtitle = word_titles.subtitle(self.opened, self.look)
        self.screen.refresh_bindings()

    @property
    def is_painted(self) -> bool:
        """Whether the picture is the one that is wished for."""
        return self._wish() == self._painted and not self._is_painting

    def _wish(self) -> Wish | None:
        look, room = self.look, self.room.size
        if look is None or self.opened is None or not room.area:
            return None
        return Wish(self.opened, look, min(_LONGEST_PX, self.live.wanted_px(*room)))

    def _wake(self) -> None:
        if not self._is_painting and self._wish() not in (None, self._painted):
            self._is_painting = True
            self.run_worker(self._paint(), group="paint", exit_on_error=False)

    async def _paint(self) -> None:
        """Paint until what is seen is what is wished for."""
        try:
            while (wish := self._wish()) not in (None, self._painted):
                self._painted = wish
                try:
                    painted = await asyncio.to_thread(wish.opened.paint, wish.look, wish.px)
                except _FAULTS as error:
                    if wish.opened is self.opened:
                        self._show_sentence(self.path, safe_text(str(error), limit=600))
                else:
                    if wish.opened is self.opened:
                        self._show_painted(wish.look, painted)
        finally:
            self._is_painting = False

    def _show_painted(self, look: Look, painted: Painted) -> None:
        self.live.show_still(painted.frame)
        if (look.step is None) == (self.step is None):
            figures = painted.figures
            self.lines.measure(figures, [f"{figure * 100:.0f} %" if look.step is None else f"{figure:.2f}" for figure in figures])
        if painted.gone != self._gone:
            self._gone = painted.gone
            self._tell(f"{self._gone}; the heat lies on grey." if self._gone else "", "warning")
            self._show_titles()

    def _tell(self, words: str, tone: str = "muted") -> None:
        self.post_message(self.Told(words, tone))

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        """Something failed in a way that nobody foresaw; that is said."""
        if event.state is WorkerState.ERROR:
            error = event.worker.error
            self._show_sentence(self.path, f"{type(error).__name__}: {safe_text(str(error), limit=200)}")

    def on_live_picture_failed(self, message: LivePicture.Failed) -> None:
        """The terminal cannot be given the picture."""
        message.stop()
        self._tell(message.reason, "error")

    # --- what the user does -----------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """What is impossible now is shown, but dim."""
        words = self.opened.words if self.opened is not None and self.step is None else []
        possible = {
            "hold": len(words) > 1,
            "turn_heat": self.look is not None,
            "turn_guidance": self.opened is not None,
            "save": self.look is not None,
            "turn_resolution": bool(words) and self.opened is not None and len(self.opened.resolutions) > 1,
            "turn_image": self.opened is not None and self.opened.images > 1,
            "turn_job": self.path is not None,
            "turn_step": self.step is not None,
        }
        return (possible[action] or None) if action in possible else super().check_action(action, parameters)

    @on(WordList.Chosen)
    def _chosen(self, message: WordList.Chosen) -> None:
        message.stop()
        self._go_to(message.index)

    def _go_to(self, index: int) -> None:
        """Another word or step; beyond the ends is the end."""
        if self.look is None or self.opened is None:
            return
        if self.step is None:
            self.word = max(0, min(index, len(self.opened.words) - 1))
        else:
            self.step = max(0, min(index, self._steps - 1))
        self._changed()

    def action_move(self, by: int) -> None:
        """The next word or step, or the one before."""
        self._go_to((self.word if self.step is None else self.step) + by)

    def action_turn_step(self, by: int) -> None:
        """The guidance of another step."""
        self.action_move(by)

    def action_go_to_end(self, last: bool) -> None:
        """The first word or step, or the last one."""
        self._go_to(len(self.lines.texts) if last else 0)

    def action_hold(self) -> None:
        """Hold the word to compare others with it, or let go of the one that is held."""
        self.held = self.word if self.held is None else None
        self._tell("")
        if self.held is not None and self.opened is not None:
            held = safe_text(self.opened.words[self.held].text, limit=60)
            self._tell(f"“{held}” is held, to be compared; space lets it go.")
        self._changed()

    def action_turn_heat(self) -> None:
        """The next strength."""
        self._strength = (self._strength + 1) % len(STRENGTHS)
        self._changed()

    def action_turn_resolution(self) -> None:
        """All maps together, then those of each resolution."""
        if self.opened is not None:
            self._resolution = (self._resolution + 1) % (len(self.opened.resolutions) + 1)
            self._changed()

    def action_turn_image(self, by: int) -> None:
        """Another picture of the batch."""
        if self.opened is not None:
            self.image = (self.image + by) % self.opened.images
            self._changed()

    def action_turn_job(self, by: int) -> None:
        """An older job, or a newer one."""
        self._read(self._choose(by))

    def action_turn_guidance(self) -> None:
        """How far the prompt pulls at each step, or the words again."""
        if self.step is not None:
            self.step = None
            self._show_job()
        elif self.opened is not None:
            self._read(self._guide(self.opened))

    async def _guide(self, opened: InspectedWords) -> None:
        try:
            steps = len(await asyncio.to_thread(opened.guidance, self.image))
        except _FAULTS as error:
            self._tell(safe_text(str(error), limit=400), "warning")
            return
        if opened is self.opened and steps:
            self.step, self._steps = 0, steps
            self._show_job()

    def action_save(self) -> None:
        """Save what is seen."""
        if self.opened is not None and self.look is not None:
            self.run_worker(self._save(self.opened, self.look), group="save", exit_on_error=False)

    async def _save(self, opened: InspectedWords, look: Look) -> None:
        try:
            path, gone = await asyncio.to_thread(opened.save, look)
        except _FAULTS as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            self._tell(f"Not saved: {safe_text(reason, limit=200)}", "error")
            return
        self._tell(f"Saved {safe_text(str(path), limit=400)}{f' on grey: {gone}' if gone else ''}", "success")
