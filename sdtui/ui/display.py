"""The terminal as pictures see it: which protocol it takes, how large its cells are, and how much its line carries."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Protocol
from weakref import WeakSet

from sdtui.terminal.pacing import Pacer
from sdtui.terminal.picture import USUAL_CELL, CellSize
from sdtui.terminal.writer import Burst, TerminalWriter

if TYPE_CHECKING:
    from sdtui.terminal.blocks import Kind
    from sdtui.terminal.sink import ImageSink
    from sdtui.terminal.verdict import SinkName, Verdict

_ASK: Final = b"\x1b[5n"
"""DSR: the terminal answers when it has taken in all that came before (ECMA-48, 8.3.35)."""
_LAST_ANSWER_S: Final = 0.6
"""How long leaving waits for answers under way, which the shell would otherwise get typed."""
_LOSSES: Final = 2
"""So many answers lost in a row, and no more are waited for."""


class Shown(Protocol):
    """A picture on this display."""

    def display_changed(self) -> None:
        """The protocol or the cells changed, or the terminal lost what it showed: everything is to be drawn again."""


class Display:
    """One for each app. All but `answered`, `prepare` and `stop` belong to the event loop."""

    def __init__(self) -> None:
        """Nothing is known of the terminal yet, and Textual draws pictures in half cells."""
        self._verdict: Verdict | None = None
        self.is_pending = False
        """Whether the terminal is about to be judged: pictures wait for that, and are not drawn twice."""
        self._sink: SinkName = "half"
        self.cell = USUAL_CELL
        self._told_cell: CellSize | None = None
        """By the kernel, or by the terminal while the app runs: newer than what the probe heard."""
        self.pacer = Pacer()
        self.expect_answer: Callable[[], None] = lambda: None
        """Called before each question, so that the input side takes the answer for one."""
        self._acknowledges = False
        self._losses = 0
        self._writer: TerminalWriter | None = None
        self._shown: WeakSet[Shown] = WeakSet()
        self._sinks: list[ImageSink] = []
        self._turn = asyncio.Lock()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._unanswered = 0
        self._answer = threading.Condition()

    # --- what pictures ask -----------------------------------------------------------------------------------------

    @property
    def kind(self) -> Kind:
        """Which characters Textual draws with where no sink can."""
        return self._sink if self._sink in ("quadrant", "sextant") else "half"

    def room_px(self, columns: int, rows: int) -> tuple[int, int]:
        """Width and height, in square pixels, of a picture at rest beyond which more could not be seen in so many cells."""
        from sdtui.terminal.blocks import GRID

        across = min(self.cell.width_px, GRID[self.kind][0] if self._sink in GRID else self.cell.width_px)
        return round(columns * across), round(rows * across * self.cell.height_px / self.cell.width_px)

    @property
    def asks_for_sizes(self) -> bool:
        """Whether the terminal answered when it was asked how large its cells are."""
        return self._verdict is not None and self._verdict.cell_from == "CSI 16 t"

    def prepare(self) -> None:
        """Load what encoding needs. Takes tenths of a second: call it in a thread."""
        from sdtui.terminal.sinks import prepare

        prepare(self._sink)

    def add(self, picture: Shown) -> None:
        """Tell `picture` when something changes."""
        self._shown.add(picture)

    def shows_through(self, rgb: tuple[int, int, int]) -> bool:
        """Whether cells of this colour hide no picture below them: kitty takes the colour of its own background for none."""
        background = self._verdict.background if self._verdict is not None else None
        return background is None or background == rgb

    def make_sink(self) -> ImageSink | None:
        """A sink of its own for a picture; None where only Textual can draw, as with few colours."""
        if self._writer is None or self._verdict is None:
            return None
        from sdtui.terminal.sinks import make_sink

        if self._sink in ("half", "quadrant", "sextant") and self._verdict.colours != "truecolor":
            return None
        sink = make_sink(self._sink, self._verdict, self.cell)
        self._sinks.append(sink)
        return sink

    def knows(self, sink: ImageSink) -> bool:
        """Whether a sink is still one for this terminal."""
        return sink in self._sinks

    def retire(self, sink: ImageSink) -> None:
        """A picture is gone for good."""
        if sink in self._sinks:
            self._sinks.remove(sink)
            self.command(sink.close())

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until the line may carry a frame; one picture at a time."""
        async with self._turn:
            # Whoever had the turn before waited for the answer, so nothing is in flight and the time can only pass.
            await asyncio.sleep(self.pacer.wait_s())
            yield

    def burst(
        self, parts: Sequence[bytes], *, divisible: bool = True, live: bool = False, beside_bytes: int = 0
    ) -> tuple[Burst, asyncio.Future[None]]:
        """Send a picture; the future is done when the terminal has it, or when the line took it where nobody answers.

        `live`: one of many frames, for the figures. `beside_bytes`: what went as text and belongs to it.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        written = self._tell_written(loop, None if self._acknowledges else done)
        burst = Burst(parts, written, divisible=divisible, last=self._question(done))
        self.pacer.sent(beside_bytes + sum(map(len, parts)), live=live)
        if self._writer is not None:
            self._writer.draw(burst)
        else:
            _finish(done)
        return burst, done

    def _question(self, done: asyncio.Future[None]) -> bytes:
        if not self._acknowledges or self._writer is None:
            return b""
        self.expect_answer()
        self._waiting.append(done)
        with self._answer:
            self._unanswered += 1
        return _ASK

    @staticmethod
    def _tell_written(loop: asyncio.AbstractEventLoop, done: asyncio.Future[None] | None) -> Callable[[], None]:
        def written() -> None:
            if done is not None and not loop.is_closed():
                loop.call_soon_threadsafe(_finish, done)

        return written

    async def settle(self, done: asyncio.Future[None]) -> None:
        """Wait for the end of a picture, and learn from how long it took."""
        try:
            await asyncio.wait_for(asyncio.shield(done), self.pacer.patience_s)
        except TimeoutError:
            self._losses += 1
            if self._losses >= _LOSSES:
                self._acknowledges = False
                self._waiting.clear()
            return
        self._losses = 0
        self.pacer.acknowledged()

    def figures(self) -> tuple[int, float] | None:
        """Bytes a frame and frames a second that went to the terminal lately; None where none did."""
        return self.pacer.figures()

    def drop(self, burst: Burst) -> None:
        """Leave out what was not written of a picture that has no place any more."""
        if self._writer is not None:
            self._writer.drop(burst)

    def command(self, parts: Sequence[bytes]) -> None:
        """Send control sequences behind all pictures, without waiting."""
        if self._writer is not None and parts:
            self._writer.draw(Burst(parts, lambda: None, divisible=False))

    # --- what the driver tells -------------------------------------------------------------------------------------

    def start(self, writer: TerminalWriter) -> None:
        """The terminal is ours, and holds nothing of what it may have held before; nor does it owe us an answer."""
        self._writer = writer
        while self._waiting:
            _finish(self._waiting.popleft())
        with self._answer:
            self._unanswered = 0
        for sink in self._sinks:
            sink.forget()
        self._ask_first()
        self._tell_pictures()

    def _ask_first(self) -> None:
        """One question without a picture: the round trip."""
        if self._acknowledges and self._writer is not None:
            self._measuring = asyncio.get_running_loop().create_task(self._measure())

    async def _measure(self) -> None:
        async with self._turn:
            _, done = self.burst([])
            await self.settle(done)

    def stop(self) -> None:
        """The terminal is given away: leave no picture in it, and no answer for the shell. Blocks for a moment."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        cut = writer.drop_all()
        for sink in self._sinks:
            parts = [*(sink.abort() if cut else ()), *sink.close()]
            if parts:
                writer.write(b"".join(parts))
        with self._answer:
            self._answer.wait_for(lambda: self._unanswered <= 0, _LAST_ANSWER_S)

    def answered(self) -> None:
        """The terminal answered a question. Called in the thread that reads."""
        with self._answer:
            self._unanswered -= 1
            self._answer.notify_all()

    def acknowledge(self) -> None:
        """The same, in the event loop. Who answers late does answer."""
        if self._waiting:
            _finish(self._waiting.popleft())
        elif self._verdict is not None and self._verdict.acknowledges:
            self._acknowledges, self._losses = True, 0

    def lost_images(self, image_id: int) -> None:
        """The terminal said that it no longer has an image, as when others used up its memory."""
        for sink in self._sinks:
            if getattr(sink, "image_id", None) == image_id:
                sink.forget()
                self._tell_pictures()

    def set_cell(self, cell: CellSize) -> None:
        """The cells have another size, as after a change of the font."""
        self._told_cell = cell
        if cell != self.cell:
            self.cell = cell
            for sink in self._sinks:
                sink.cell = cell
            self._tell_pictures()

    def use(self, verdict: Verdict, sink: SinkName, *, latency_s: float | None = None) -> None:
        """It is known what the terminal can show. `latency_s`: how long it took to answer."""
        for old in self._sinks:
            self.command(old.close())
        self._sinks.clear()
        self._verdict, self._sink, self.is_pending = verdict, sink, False
        self._acknowledges = verdict.acknowledges
        self.cell = self._told_cell or verdict.cell or self.cell
        self.pacer = Pacer(latency_s=latency_s)  # what was learnt so far was how quickly bytes were written, not read
        self._ask_first()
        self._tell_pictures()

    def _tell_pictures(self) -> None:
        for picture in list(self._shown):
            picture.display_changed()


def _finish(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)
