"""The part of the page about what a module gave in the last inspected job: its channels as pictures, and their histogram."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.getters import query_one
from textual.message import Message

from sdtui.inspected import Inspected, InspectedError, InspectedFile, SheetFacts, newest
from sdtui.settings import tapes_dir
from sdtui.text import count_noun, safe_text
from sdtui.ui.contact_sheet import contact_sheet, lay_out
from sdtui.ui.outline import MODEL, Outline
from sdtui.ui.rows import Span, shape_text
from sdtui.ui.widgets.module_page import fact_spans
from sdtui.ui.widgets.pages.answers import Names
from sdtui.ui.widgets.pages.beside import run_beside
from sdtui.ui.widgets.pages.part import Part
from sdtui.ui.widgets.pages.plots import Histogram, PlotView
from sdtui.ui.widgets.pages.span_view import SpanView
from sdtui.ui.widgets.preview.live import LivePicture

if TYPE_CHECKING:
    import numpy as np

    from sdtui.server.inspector import Inspector

NO_JOB: Final = "No job was inspected yet: F7 in Create, or sdtui generate --inspect, looks at the next ones."
_READ_AFTER_S: Final = 0.1
"""Who goes through the tree with a key held down reads nothing."""
_FAULTS: Final = (InspectedError, OSError, ValueError, MemoryError)


@dataclass(frozen=True, eq=False)
class Seen:
    """One module's output."""

    job: Inspected
    facts: SheetFacts
    sheet: np.ndarray[Any, Any]
    """(channels, h, w) uint8"""
    counts: tuple[int, ...]


class Wish(NamedTuple):
    """What is to be painted."""

    seen: Seen
    first: int
    room: tuple[int, int]
    ground: tuple[int, int, int]


class Room(Vertical):
    """Where the picture is."""

    class Resized(Message):
        """There is more room for the picture, or less."""

    def on_resize(self) -> None:
        """More of the channels can be seen, or less."""
        self.post_message(self.Resized())


class ActivationsPart(Part):
    """Reads and paints beside the event loop; the newest selection wins."""

    view = query_one("#activation-text", SpanView)
    live = query_one("#activation-live", LivePicture)
    histogram = query_one("#activation-histogram", PlotView)

    def __init__(self, *, id: str, inspector: Callable[[], Inspector]) -> None:
        super().__init__(id=id, inspector=inspector)
        self.seen: Seen | None = None
        """What is shown."""
        self._names: Names | None = None
        self._file: tuple[Path, int, InspectedFile] | None = None
        self._first = 0
        self._painted: Wish | None = None
        self._is_painting = False

    def compose(self) -> ComposeResult:
        """Figures beside or above the channels, the histogram behind them."""
        yield SpanView(id="activation-text")
        with Room(id="activation-room"):
            yield LivePicture(id="activation-live")
        yield PlotView(id="activation-histogram")

    # --- which module, which job ------------------------------------------------------------------------------------

    def show(self, outline: Outline) -> None:
        """Another module."""
        if self._names is None or self._names.outline is not outline:
            self._names = Names(outline)
        self._first = 0
        self._read(_READ_AFTER_S)

    @property
    def waits(self) -> bool:
        """Whether there are no channels yet."""
        return self.seen is None

    def again(self) -> None:
        """There may be a newer job."""
        if self.outline is not None and not self._stale:
            self._read(0.0)

    def _read(self, after_s: float) -> None:
        if self.outline is not None and self._names is not None:
            self.ask(partial(self._look, self._names, self.outline, self.node, after_s))

    async def _look(self, names: Names, outline: Outline, node: int, after_s: float) -> None:
        await asyncio.sleep(after_s)
        network, path = outline.key(node)
        try:
            file = await asyncio.to_thread(self._newest)
            seen = None
            if file is not None and node != MODEL:
                seen = await asyncio.to_thread(_see, file, network, names.of(network, path))
        except _FAULTS as error:
            self.say(safe_text(str(error), limit=600), "error")
            return
        if file is None:
            self.say(NO_JOB)
        elif node == MODEL:
            self.say("The model gives pictures; choose a module to see what it gave.")
        elif seen is None:
            self.say(_not_seen(file.facts, outline, node))
        else:
            self._show_seen(seen)

    def _newest(self) -> InspectedFile | None:
        """The last inspected job's file, read again only where it is another one. Raises `InspectedError`, `OSError`."""
        path = newest(tapes_dir())
        if path is None:
            self._file = None
            return None
        stamp = path.stat().st_mtime_ns
        if self._file is None or self._file[:2] != (path, stamp):
            self._file = (path, stamp, InspectedFile(path))
        return self._file[2]

    # --- what is shown ----------------------------------------------------------------------------------------------

    def _show_seen(self, seen: Seen) -> None:
        self.seen = seen
        self._show_text()
        low, high = seen.facts.low, seen.facts.high
        known = low is not None and high is not None and seen.counts
        self.histogram.plot(Histogram(seen.counts, low, high) if known and low is not None and high is not None else None)
        self._wake()
        self.screen.refresh_bindings()

    def _show_text(self) -> None:
        if self.seen is not None and self._names is not None:
            shown = (self._first, min(self._first + self._step, len(self.seen.sheet)))
            spans = seen_spans(self.seen, shown, self._names.outline.anatomy.source)
            self.view.set_spans(spans, from_top=True)

    def say(self, words: str, tone: str = "muted") -> None:
        """Show a sentence, and no picture."""
        self.seen = self._painted = None
        self.view.set_spans([(f"{words}\n", tone)], from_top=True)
        self.live.clear()
        self.histogram.plot(None)
        self.screen.refresh_bindings()

    def put_away(self) -> None:
        """Another screen is shown."""
        self.live.put_away()

    # --- the picture ------------------------------------------------------------------------------------------------

    @property
    def _step(self) -> int:
        """How many channels are shown at once."""
        room = self.live.room_px()
        return lay_out(self.seen.sheet.shape, room).room if self.seen is not None and min(room) > 0 else 1

    @property
    def turns(self) -> bool:
        """Whether there are more channels than are shown."""
        return self.seen is not None and len(self.seen.sheet) > self._step

    def turn(self, by: int) -> None:
        """The next channels, or those before."""
        if self.seen is not None and self.turns:
            pages = -(-len(self.seen.sheet) // self._step)
            self._first = (self._first // self._step + by) % pages * self._step
            self._show_text()
            self._wake()

    @property
    def is_painted(self) -> bool:
        """Whether the picture is the one that is wished for."""
        return self._wish() == self._painted and not self._is_painting

    def _wish(self) -> Wish | None:
        room = self.live.room_px()
        if self.seen is None or min(room) < 1:
            return None
        return Wish(self.seen, self._first, room, self.background_colors[1].rgb)

    def on_room_resized(self, message: Room.Resized) -> None:
        """More channels fit, or less: begin with one that the first page of so many would begin with."""
        message.stop()
        self._first = self._first // self._step * self._step
        self._show_text()
        self._wake()

    def notify_style_update(self) -> None:
        """A theme was chosen: what lies between the channels has its colour."""
        super().notify_style_update()
        if self.is_attached and self.children:
            self._wake()

    def _wake(self) -> None:
        if not self._is_painting and self._wish() not in (None, self._painted):
            self._is_painting = True
            run_beside(self, self._paint, "paint")

    async def _paint(self) -> None:
        try:
            while (wish := self._wish()) is not None and wish != self._painted:
                self._painted = wish
                frame = await asyncio.to_thread(contact_sheet, wish.seen.sheet, *wish[1:])
                if self.seen is wish.seen:
                    self.live.show_still(frame)
        finally:
            self._is_painting = False

    def on_live_picture_failed(self, message: LivePicture.Failed) -> None:
        """The terminal cannot be given the picture."""
        message.stop()
        self.say(message.reason, "error")


def _see(file: InspectedFile, network: str, path: str) -> Seen | None:
    """A module's output; None where it was not looked at. Raises `InspectedError`."""
    found = file.sheet(network, path)
    if found is None:
        return None
    facts, number = found
    sheet, counts = file.array(f"sheet/{number}"), file.array(f"histogram/{number}")
    if sheet.ndim != 3 or sheet.dtype.name != "uint8" or not sheet.size or counts.ndim != 1:
        name = safe_text(str(file.path), limit=300)
        raise InspectedError(f"The pictures of {safe_text(path, limit=200)} in {name} are none.")
    return Seen(file.facts, facts, sheet, tuple(int(count) for count in counts))


def seen_spans(seen: Seen, shown: tuple[int, int], source: str) -> list[Span]:
    """The figures of an output, and of which job it is; `shown`: the first channel and the one behind the last that are seen."""
    facts = seen.facts
    spans: list[Span] = [
        (safe_text(facts.class_name[:400], limit=100), "text"),
        (f" {shape_text(facts.shape)}\n", "secondary"),
    ]
    if facts.faults:
        spans.append((f"! {count_noun(facts.faults, 'value')} NaN or infinite\n", "warning"))
    return [*spans, *fact_spans(_facts(seen, shown)), *_whence(seen, source)]


def _facts(seen: Seen, shown: tuple[int, int]) -> Iterator[tuple[str, str]]:
    facts = seen.facts
    if facts.mean is not None and facts.std is not None:
        yield "mean, std", f"{facts.mean:.4g}, {facts.std:.4g}"
    if facts.low is not None and facts.high is not None:
        yield "min, max", f"{facts.low:.4g}, {facts.high:.4g}"
    some = f"{shown[0] + 1}–{shown[1]} of " if shown[1] - shown[0] < facts.channels else ""
    more = ", next with ." if shown[1] - shown[0] < len(seen.sheet) else ""
    yield "channels", f"{some}{facts.channels:,}{more}"


def _whence(seen: Seen, source: str) -> list[Span]:
    """Step, job, and the model where it is another one than that which is open."""
    job, step = seen.job, seen.facts.step_index
    when = f"step {step + 1} of {job.steps}, " if step is not None else ""
    batch = f", batch {job.batch_index + 1}" if job.batch_index else ""
    spans: list[Span] = [(f"{when}job {safe_text(job.job[:400], limit=60)}{batch}\n", "muted")]
    if job.model != source:
        spans.append((f"of {safe_text(job.model[:1000], limit=120)}\n", "warning"))
    return spans


def _not_seen(job: Inspected, outline: Outline, node: int) -> str:
    """Why there is nothing of a module."""
    what = "module" if not outline.is_component(node) else "component"
    of = f" of {safe_text(job.model[:1000], limit=120)}" if job.model != outline.anatomy.source else ""
    looked = "kept no activations" if not job.sheets else f"did not look at this {what}"
    return f"The last inspected job{of} {looked}. F7 in Create chooses whether a job looks at blocks or at every module."
