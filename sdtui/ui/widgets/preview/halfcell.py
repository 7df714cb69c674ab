"""The picture in half cells, through Textual's line API: works in every terminal with colours."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Final

from rich.color import Color
from rich.segment import Segment
from rich.style import Style
from textual.filter import Monochrome, NoColor
from textual.geometry import Region, Size
from textual.strip import Strip

from sdtui.text import safe_text
from sdtui.ui.private import BakedStrip
from sdtui.ui.widgets.preview.scaling import UPPER_HALF, HalfCells, read_picture, to_half_cells
from sdtui.ui.widgets.preview.surface import Frame, Surface

_LEAST_PX: Final = 64
"""Also while the picture is hidden or tiny: it may be shown or grow before the job is over. 12 kB a frame."""


class HalfCellSurface(Surface):
    """Scales in a thread, latest wins, and keeps the result until picture or size change."""

    DEFAULT_CSS = """
    HalfCellSurface { width: 1fr; height: 1fr; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._frame: Frame | None = None
        self._cells: HalfCells | None = None
        self._scaling: asyncio.Task[None] | None = None
        self._stale = False
        self._path: Path | None = None
        self._baked: list[Strip] = []
        self._baked_for: tuple[HalfCells | None, Size, Color] | None = None

    def show_frame(self, frame: Frame) -> None:
        """Show a preview."""
        self._path = None
        self._frame = frame
        self._rescale()

    def show_file(self, path: Path) -> None:
        """Show a finished picture."""
        self._path = path
        self.run_worker(self._read(path), group="read", exclusive=True, exit_on_error=False)

    def clear(self) -> None:
        """Show nothing."""
        self._path = self._frame = self._cells = None
        self.refresh()

    def wanted_px(self, columns: int, rows: int) -> int:
        """Half cells across or down, whichever is less: the picture is drawn whole."""
        return max(_LEAST_PX, min(512, columns, rows * 2))

    async def _read(self, path: Path) -> None:
        try:
            frame = await asyncio.to_thread(read_picture, path)
        except (OSError, ValueError) as error:
            self.post_message(self.Failed(path, safe_text(str(error))))
            return
        if self._path == path:  # nothing newer came meanwhile
            self._frame = frame
            self._rescale()

    def on_resize(self) -> None:
        """A picture for another size is no use."""
        self._rescale()

    def _rescale(self) -> None:
        self._stale = True
        if self._scaling is None or self._scaling.done():
            self._scaling = asyncio.create_task(self._scale_until_fresh())

    async def _scale_until_fresh(self) -> None:
        while self._stale and self._frame is not None:
            self._stale = False
            frame, (columns, rows) = self._frame, self.size
            if columns < 1 or rows < 1:
                return
            cells = await asyncio.to_thread(to_half_cells, frame, columns, rows)
            if self._frame is not None:
                self._cells = cells
                self.refresh()

    def render_line(self, y: int) -> Strip:
        """One line as segments, background around the picture."""
        return self._line(y, self.size, self._mat(), baked=False)

    def render_lines(self, crop: Region) -> list[Strip]:
        """The lines of `crop`; as ready bytes where the terminal takes 24-bit colours, kept until something changes."""
        if not self._takes_baked():
            return super().render_lines(crop)
        mat = self._mat()
        key = (self._cells, self.size, mat)
        if self._baked_for != key:
            self._baked_for = key
            self._baked = [self._line(y, self.size, mat, baked=True) for y in range(self.size.height)]
        left, right = crop.column_span
        return [strip.crop(left, right) for strip in self._baked[crop.y : crop.bottom]]

    def _mat(self) -> Color:
        return self.background_colors[1].rich_color

    def _takes_baked(self) -> bool:
        colourless = any(isinstance(line_filter, Monochrome | NoColor) for line_filter in self.get_line_filters())
        return self.app.console.color_system == "truecolor" and not colourless

    def _line(self, y: int, size: Size, mat: Color, *, baked: bool) -> Strip:
        cells = self._cells
        blank = Style(bgcolor=mat)
        if cells is None or cells.columns > size.width or cells.rows > size.height:
            return Strip.blank(size.width, blank)
        row = y - (size.height - cells.rows) // 2
        if not 0 <= row < cells.rows:
            return Strip.blank(size.width, blank)
        left = (size.width - cells.columns) // 2
        right = size.width - cells.columns - left
        make = partial(_segments, cells, row, left, right, blank)
        if not baked:
            return Strip(make(), size.width)
        pad = "\x1b[" + ";".join(mat.get_ansi_codes(foreground=False)) + "m"
        ansi = f"{pad}{' ' * left}{cells.ansi[row]}{pad}{' ' * right}\x1b[0m"
        return BakedStrip(make, size.width, ansi)


def _segments(cells: HalfCells, row: int, left: int, right: int, blank: Style) -> list[Segment]:
    top, bottom = cells.top[row], cells.bottom[row]
    middle = [
        Segment(UPPER_HALF, Style(color=Color.from_rgb(*top[at : at + 3]), bgcolor=Color.from_rgb(*bottom[at : at + 3])))
        for at in range(0, cells.columns * 3, 3)
    ]
    ends = (Segment(" " * left, blank), Segment(" " * right, blank))
    return [segment for segment in (ends[0], *middle, ends[1]) if segment.text]
