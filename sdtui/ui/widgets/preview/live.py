"""The widget that shows a picture, live or still, as well as the terminal can."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from rich.color import Color
from textual.filter import Monochrome, NoColor
from textual.geometry import Region, Size
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from sdtui.terminal.picture import Frame, Spot, fit, read_picture
from sdtui.text import safe_text
from sdtui.ui.display import Display
from sdtui.ui.private import Cover, LineStrip, exposure
from sdtui.ui.widgets.preview.lines import Middle, PictureLine

if TYPE_CHECKING:
    from sdtui.terminal.blocks import CellPicture, Kind
    from sdtui.terminal.sink import ImageSink
    from sdtui.terminal.writer import Burst

_LEAST_PX: Final = 64
"""Also while the picture is hidden or tiny: it may be shown or grow before the job is over."""
_REPEAT_S: Final = 1.0
"""When whatever was in the way has passed."""
_STILL_BYTES: Final = 300_000
"""About what a finished picture takes; on a line that is slow for it a small one goes first."""


class View(NamedTuple):
    """Where the picture belongs, and who may draw it there."""

    spot: Spot
    """On the screen."""
    left: int
    top: int
    """Cells of background before the picture in the widget."""
    by_sink: bool
    covers: tuple[Cover, ...]
    active: bool
    """Whether no other screen lies over this one."""


class Drawn(NamedTuple):
    """What was drawn last: which picture, where, how well."""

    version: int
    view: View
    full: bool


class LivePicture(Widget):
    """Shows the newest picture it was given, whole, as large as it fits, its proportions kept.

    Each call returns at once. Scaling and encoding happen in a thread, one frame is on its way to the terminal at most, and what
    arrives meanwhile takes the place of what waits. A sink draws the picture while it lies open; where menus and toasts cover
    a part, or a container cuts one off, Textual draws it in characters, which it can clip.
    """

    DEFAULT_CSS = """
    LivePicture { width: 1fr; height: 1fr; }
    """

    class Failed(Message):
        """A picture could not be shown."""

        def __init__(self, name: str, reason: str) -> None:
            """`name` is the file's, empty for a picture from memory."""
            super().__init__()
            self.name = name
            self.reason = reason

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._display = Display()
        self._sink: ImageSink | None = None
        self._frame: Frame | None = None
        self._still = False
        self._version = 0
        self._path: Path | None = None
        self._drawn: Drawn | None = None
        self._held: Drawn | None = None
        """What the sink drew last, which is older where characters took its place meanwhile."""
        self._damaged = True
        """Whether something else was written over the sink's cells since they were drawn."""
        self._cells: CellPicture | None = None
        self._cells_version = -1
        self._repeated: Drawn | None = None
        self._on_screen = False
        """Whether the sink's picture lies somewhere on the screen."""
        self._burst: Burst | None = None
        self._painting: asyncio.Task[None] | None = None

    # --- what it is told ---------------------------------------------------------------------------------------------

    def show_frame(self, frame: Frame) -> None:
        """Show a frame of a picture that forms, in as many bytes as the line carries. One that is not whole is passed over."""
        self._path = None
        self._take(frame, still=False)

    def show_file(self, path: Path) -> None:
        """Show a picture file in full quality; `Failed` is posted when it cannot be read."""
        self._path = path
        self.run_worker(self._read(path), group="read", exclusive=True, exit_on_error=False)

    def show_still(self, frame: Frame) -> None:
        """Show a picture from memory in full quality."""
        self._path = None
        self._take(frame, still=True)

    def clear(self) -> None:
        """Show nothing."""
        self._path = self._frame = self._cells = self._drawn = self._held = None
        self._take_away()
        self.refresh()

    def wanted_px(self, columns: int, rows: int) -> int:
        """The longer side of a frame beyond which more pixels could not be seen in so many cells."""
        sink = self._own_sink()
        return max(_LEAST_PX, sink.wanted_px(columns, rows) if sink is not None else min(512, columns, rows * 2))

    def room_px(self) -> tuple[int, int]:
        """Width and height of a still that would fill the widget, pixel by pixel; 0 by 0 while it has no size."""
        return self._display.room_px(*self.size)

    @property
    def is_drawn(self) -> bool:
        """Whether the newest picture is on the screen, or on its way there."""
        return self._drawn is not None and self._drawn.version == self._version

    @property
    def is_coarse(self) -> bool:
        """Whether it was drawn as one of many, and could be seen better."""
        return self._drawn is not None and self._drawn.view.by_sink and not self._drawn.full

    def prepare(self) -> None:
        """Load what drawing needs. Takes tenths of a second: call it in a thread, before the first frame comes."""
        self._display.prepare()

    def line_figures(self) -> tuple[int, float] | None:
        """Bytes a frame and frames a second that went to the terminal lately; None where none did."""
        return self._display.figures()

    def _take(self, frame: Frame, *, still: bool) -> None:
        if frame.is_whole:
            self._frame, self._still = frame, still
            self._version += 1
            self._wake()

    async def _read(self, path: Path) -> None:
        try:
            frame = await asyncio.to_thread(read_picture, path)
        except (OSError, ValueError) as error:
            self.post_message(self.Failed(safe_text(path.name), safe_text(str(error))))
            return
        if self._path == path:  # nothing newer came meanwhile
            self._take(frame, still=True)

    # --- what happens around it --------------------------------------------------------------------------------------

    def on_mount(self) -> None:
        """Find out what the terminal can show."""
        display = getattr(self.app, "terminal_display", None)
        if isinstance(display, Display):
            self._display = display
        self._display.add(self)

    def on_unmount(self) -> None:
        """Leave nothing in the terminal."""
        if self._painting is not None:
            self._painting.cancel()
        if self._sink is not None:
            self._display.retire(self._sink)

    def on_hide(self) -> None:
        """Others draw where the picture was."""
        self._lose()
        self._take_away()

    def on_show(self) -> None:
        """Draw it again."""
        self._wake()

    def put_away(self) -> None:
        """Another screen takes the whole terminal: it does not draw over what lies above or below its text."""
        self._lose()
        self._take_away()

    @property
    def _is_put_away(self) -> bool:
        """Whether another screen takes all of the terminal: one of its own stack, or one that lies over it and is no dialog."""
        stack = self.app.screen_stack
        return self.screen not in stack or any(not screen.is_modal for screen in stack[stack.index(self.screen) + 1 :])

    def on_resize(self) -> None:
        """A picture for another size is no use."""
        self._wake()

    def display_changed(self) -> None:
        """Another font, another protocol, or a terminal that was given away and came back."""
        if self._sink is not None and not self._display.knows(self._sink):
            self._sink = None
        self._lose()
        if self.is_attached:
            self.refresh()
            self._wake()

    def _lose(self) -> None:
        """What the sink drew is not there any more."""
        self._drawn = self._held = None
        self._damaged = True
        if self._burst is not None:
            self._display.drop(self._burst)

    def _take_away(self) -> None:
        """Have the sink's picture off the screen, where it is on it."""
        if self._on_screen and self._sink is not None:
            self._on_screen = False
            self._display.command(self._sink.hide())

    # --- where it belongs --------------------------------------------------------------------------------------------

    def _own_sink(self) -> ImageSink | None:
        if self._sink is None and self.is_attached:
            self._sink = self._display.make_sink()
        return self._sink

    def _view(self) -> View | None:
        """Where the picture belongs now; None where there is no picture or no room."""
        frame, (columns, rows) = self._frame, self.size
        if frame is None or columns < 1 or rows < 1 or not self.is_attached:
            return None
        found = exposure(self)
        if found is None:
            return None
        wide, high = fit(frame.width_px, frame.height_px, columns, rows, self._display.cell)
        left, top = (columns - wide) // 2, (rows - high) // 2
        spot = Spot(found.region.x + left, found.region.y + top, wide, high)
        there = Region(spot.column, spot.row, wide, high)
        covers = tuple(cover for cover in found.covers if cover.region.overlaps(there))
        active = self.app.screen is self.screen
        by_sink = active and self._sink_draws(spot, found.whole, covers)
        return View(spot, left, top, by_sink, () if by_sink else covers, active)

    def _sink_draws(self, spot: Spot, whole: bool, covers: tuple[Cover, ...]) -> bool:
        sink = self._own_sink()
        if sink is None or not whole:
            return False
        if covers and (not sink.lies_below_text or any(self._display.shows_through(cover.rgb) for cover in covers)):
            return False
        return not (sink.needs_row_below and spot.row + spot.rows >= self.screen.size.height)

    # --- drawing -----------------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        if self.is_attached and (self._painting is None or self._painting.done()):
            self._painting = asyncio.create_task(self._paint())

    async def _paint(self) -> None:
        """Draw until what is drawn is the newest picture, at its place. A mistake costs the picture, not the app."""
        try:
            while self._todo() is not None:
                async with self._display.turn():
                    if (todo := self._todo()) is not None:
                        await (self._paint_by_sink(todo) if todo.view.by_sink else self._paint_cells(todo))
        except Exception as error:
            self._frame = None
            self.post_message(self.Failed("", f"{type(error).__name__}: {safe_text(str(error))}"))

    def _todo(self) -> Drawn | None:
        """What is to be drawn; None while all is as it should be."""
        view = self._view()
        if view is None or self._display.is_pending:
            return None
        drawn = self._drawn
        current = drawn is not None and drawn.version == self._version and drawn.view == view
        if not view.by_sink:
            frozen = not view.active and self._cells is not None and self._cells.columns == view.spot.columns
            return None if (current or frozen) else Drawn(self._version, view, full=True)
        if not current:
            small_first = self._still and not self._is_close_to_it() and self._display.pacer.is_slow_for(_STILL_BYTES)
            return Drawn(self._version, view, full=self._still and not small_first)
        assert drawn is not None  # noqa: S101  (current says so)
        if drawn.full < self._still:
            return drawn._replace(full=True)
        return drawn if self._damaged else None

    def _is_close_to_it(self) -> bool:
        """Whether this very picture is on the screen already, in whatever quality."""
        return self._drawn is not None and self._drawn.version == self._version

    async def _paint_by_sink(self, todo: Drawn) -> None:
        sink, frame, before = self._own_sink(), self._frame, self._drawn
        if sink is None or frame is None:
            return
        moved_only = self._held is not None and _same_picture(self._held, todo)
        budget = None if todo.full else self._display.pacer.budget_bytes()
        if moved_only:
            parts = sink.place(todo.view.spot)
        else:
            parts = await asyncio.to_thread(sink.show, frame, todo.view.spot, budget_bytes=budget)
        if (not sink.lies_below_text or self._is_put_away) and self._view() != todo.view:
            # It would be drawn over something else. The sink believes that it is sent, so it begins anew; the loop looks again.
            self._display.command(sink.close())
            self._held, self._on_screen = None, False
            return
        if self._sink is not sink:
            return
        newly_placed = self._damaged or before is None or before.view != todo.view
        self._damaged, self._on_screen = False, True
        self._drawn = self._held = todo
        self._burst, done = self._display.burst(parts, divisible=sink.is_divisible, live=not self._still)
        if newly_placed and sink.lies_below_text:
            self.refresh()  # the cells before it are emptied
        await self._display.settle(done)
        if sink.may_be_lost and self._repeated != todo:
            self.set_timer(_REPEAT_S, partial(self._repeat, todo))

    def _repeat(self, drawn: Drawn) -> None:
        """Send a picture that may have been lost once more, if no other has taken its place."""
        if self._drawn == drawn:
            self._repeated = drawn
            self._held, self._damaged = None, True
            self._wake()

    async def _paint_cells(self, todo: Drawn) -> None:
        frame, spot = self._frame, todo.view.spot
        if frame is None:
            return
        budget = None if self._still else self._display.pacer.budget_bytes()
        cells, size_bytes = await asyncio.to_thread(_in_characters, frame, spot, self._display.kind, budget)
        if self._frame is None:
            return
        self._cells, self._cells_version = cells, todo.version
        self._drawn = todo
        self.refresh()
        _, done = self._display.burst([], live=not self._still, beside_bytes=size_bytes)
        await self._display.settle(done)

    # --- what Textual asks for ---------------------------------------------------------------------------------------

    def render_line(self, y: int) -> Strip:
        """One line with the picture in characters."""
        view = self._view()
        width = self.size.width
        return Strip(self._line(y, view, "cells", width, self._mat()).segments(0, width), width)

    def render_lines(self, crop: Region) -> list[Strip]:
        """The lines of `crop`, without what the sink has drawn and will draw."""
        view = self._view()
        middle = self._middle(view)
        if middle == "cells" and any(isinstance(line_filter, Monochrome | NoColor) for line_filter in self.get_line_filters()):
            return super().render_lines(crop)
        left, right = crop.column_span
        width, mat = self.size.width, self._mat()
        return [LineStrip(self._line(y, view, middle, width, mat), left, right) for y in crop.line_range]

    def _middle(self, view: View | None) -> Middle:
        """What shows the picture in its cells; notes when the sink's cells are written over, and has them drawn again."""
        here = view is not None and self._drawn is not None and self._drawn.view == view
        if view is not None and view.by_sink and here and not self._damaged and self._sink is not None:
            return "blank" if self._sink.lies_below_text else "skip"
        self._damaged = True
        if self._burst is not None and not here:
            self._display.drop(self._burst)
        if view is not None and not view.by_sink:
            self._take_away()
        if self._todo() is not None:
            self._wake()
        return "cells"

    def _line(self, y: int, view: View | None, middle: Middle, width: int, mat: Color) -> PictureLine:
        row = y - view.top if view is not None else -1
        if view is None or not 0 <= row < view.spot.rows:
            return PictureLine(width, 0, 0, mat, "cells", None)
        cells = self._cells
        fits = cells is not None and cells.columns == view.spot.columns and len(cells.rows) == view.spot.rows
        known = cells is not None and fits and (self._cells_version == self._version or not view.by_sink)
        right = width - view.left - view.spot.columns
        return PictureLine(view.left, view.spot.columns, right, mat, middle, cells.rows[row] if known and cells else None)

    def _mat(self) -> Color:
        return self.background_colors[1].rich_color

    def get_content_width(self, container: Size, viewport: Size) -> int:  # noqa: ARG002  (Textual's signature)
        """As wide as it may be."""
        return container.width


def _in_characters(frame: Frame, spot: Spot, kind: Kind, budget_bytes: int | None) -> tuple[CellPicture, int]:
    """The picture in characters, and about how many bytes they take."""
    from sdtui.terminal.blocks import to_cells

    cells = to_cells(frame, spot.columns, spot.rows, kind, budget_bytes=budget_bytes)
    return cells, sum(len(row.ansi()) for row in cells.rows)


def _same_picture(one: Drawn, other: Drawn) -> bool:
    """Whether two differ in nothing but the place on the screen."""
    before, now = one.view.spot, other.view.spot
    return one[::2] == other[::2] and (before.columns, before.rows) == (now.columns, now.rows)
