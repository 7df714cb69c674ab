"""Pictures at the cursor of a terminal, in one of the ways it knows."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from typing import IO, TYPE_CHECKING, Final

from sdtui.cli.picture import Asked, HalfCells, chosen_sink, room_for
from sdtui.terminal.capabilities import window_size
from sdtui.terminal.picture import USUAL_CELL, Frame, fit
from sdtui.text import safe_text

if TYPE_CHECKING:
    from sdtui.terminal.sink import ImageSink

WAYS: Final = {
    "kitty": "kitty's protocol",
    "iterm2": "iTerm2's protocol",
    "sixel": "sixel",
    "sextant": "sextants",
    "quadrant": "quadrants",
    "half": "half cells",
}
_USUAL_SIZE: Final = (80, 24)
"""Where the window does not say."""
_ROWS_LEFT: Final = 2
"""The line below the picture, and the shell's prompt."""
_MOST_PLACEHOLDERS: Final = 255
"""kitty's placeholders number no more cells a side."""
_CUT: Final = b"\x18\x1b\\\x1b[0m"
"""Ends whatever sequence was cut in the middle: CAN the most, ST strings, where CAN is taken for a part of them."""
_COLOURS: Final = {"16": "standard", "256": "256"}


class Inline:
    """Draws pictures one below the other. Each method writes at once, and raises `BrokenPipeError` when the terminal is gone."""

    def __init__(self, asked: Asked, requested: str = "auto", file: IO[str] | None = None) -> None:
        """`requested`: `auto` or the name of a way. `file` leads to the terminal that was asked; None is stdout."""
        self._file = sys.stdout if file is None else file
        self._verdict = asked.verdict
        self._sink, self.complaint = chosen_sink(requested, asked.verdict)
        """A sentence, where it is drawn in another way than wanted."""
        self.name = _name(self._sink)
        way = asked.verdict.way("half")
        self.cannot = way.why if self.name == "half" and not way.usable else ""
        """Why no picture can be drawn at all."""
        behind = asked.report.answers.background
        self.background: tuple[int, int, int] = (0, 0, 0) if behind is None else (behind[0] >> 8, behind[1] >> 8, behind[2] >> 8)
        """The terminal's, where it says."""
        self._encoding = "utf-8" if asked.report.capabilities.utf8 else "ascii"

    @property
    def cell(self) -> tuple[float, float]:
        """Width and height of a cell in pixels."""
        cell = self._verdict.cell or USUAL_CELL
        return cell.width_px, cell.height_px

    @property
    def columns(self) -> int:
        """How wide the terminal is now."""
        return window_size(self._file.fileno())[1] or _USUAL_SIZE[0]

    @property
    def rows(self) -> int:
        """How high it is."""
        return window_size(self._file.fileno())[0] or _USUAL_SIZE[1]

    def room(self, width_px: int, height_px: int, columns: int | None = None, rows: int | None = None) -> tuple[int, int]:
        """Columns and rows for a picture of this shape, within these limits and the screen."""
        cell = self._verdict.cell or USUAL_CELL
        if columns is None and rows is None:
            wide, high = room_for(Frame(width_px, height_px, b""), self.columns, self.rows, cell)
        else:
            wide, high = min(columns or self.columns, self.columns), min(rows or self.rows, self.rows - _ROWS_LEFT)
        if self.name == "kitty" and self._verdict.placement == "placeholder":
            wide, high = min(wide, _MOST_PLACEHOLDERS), min(high, _MOST_PLACEHOLDERS)
        if self.name == "sixel" and self._verdict.sixel_limit_px is not None:
            most_wide, most_high = self._verdict.sixel_limit_px
            wide, high = min(wide, int(most_wide / cell.width_px)), min(high, int(most_high / cell.height_px))
        return fit(width_px, height_px, max(1, wide), max(1, high), cell)

    def draw(self, frame: Frame, columns: int, rows: int) -> None:
        """The picture, stretched to so many cells; the cursor is below it afterwards. Raises `ValueError`, as sinks do."""
        if self._sink is None:
            self._send(self._half_cells(frame, columns, rows))
        else:
            self._send(self._sink.inline(frame, columns, rows))

    def say(self, text: str = "") -> None:
        """One line, made safe, and cut where the screen ends."""
        from rich.cells import cell_len, set_cell_size

        text = safe_text(text)
        if cell_len(text) >= self.columns:
            text = set_cell_size(text, self.columns - 2).rstrip() + "…"
        self._send(text.encode(self._encoding, "replace") + b"\r\n")

    def _half_cells(self, frame: Frame, columns: int, rows: int) -> bytes:
        """By rich, which finds the nearest of few colours."""
        from rich.console import Console

        text = io.StringIO()
        colours = _COLOURS.get(self._verdict.colours, "standard")
        console = Console(file=text, force_terminal=True, color_system=colours, width=columns, no_color=False)  # type: ignore[arg-type]
        console.print(HalfCells(frame, (columns, rows)), end="")
        return text.getvalue().replace("\n", "\r\n").encode()

    def _send(self, data: bytes) -> None:
        """Write all of it; when the user interrupts, end what was begun."""
        try:
            self._write(data)
        except KeyboardInterrupt:
            rest = b"".join(self._sink.abort()) if self._sink is not None else b""
            self._write(_CUT + rest + b"\r\x1b[J")
            raise

    def _write(self, data: bytes) -> None:
        """At once and whole, also where another program has left the terminal in a mode that does not wait."""
        self._file.flush()
        descriptor = self._file.fileno()
        while data:
            try:
                data = data[os.write(descriptor, data) :]
            except BlockingIOError:
                select.select([], [descriptor], [])
            except OSError as error:
                if error.errno == errno.EIO:  # the terminal was hung up
                    raise BrokenPipeError from error
                raise


def _name(sink: ImageSink | None) -> str:
    from sdtui.terminal.blocks import BlockSink

    if sink is None:
        return "half"
    return sink.kind if isinstance(sink, BlockSink) else sink.name
