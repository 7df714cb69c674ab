"""One line of a picture's widget: background around the picture, and in the middle what shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from rich.color import Color
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

if TYPE_CHECKING:
    from sdtui.terminal.blocks import CellRow

Middle = Literal["cells", "blank", "skip"]
"""Characters; cells without a background, through which a picture below the text shows; or cells that stay as they are."""
_RESET: Final = "\x1b[0m"


@dataclass(frozen=True, slots=True)
class PictureLine:
    """`left` cells of background, `width` cells of picture, `right` cells of background."""

    left: int
    width: int
    right: int
    mat: Color
    middle: Middle
    cells: CellRow | None
    """The picture in characters, also where something better draws it: for screenshots and dimmed screens."""

    def segments(self, start: int, end: int) -> list[Segment]:
        """Columns `start` to `end` with the picture in characters."""
        blank = Style(bgcolor=self.mat)
        before, first, last, after = self._cut(start, end)
        row = self.cells
        if row is None:
            return [Segment(" " * (end - start), blank)]
        middle = (
            Segment(row.glyphs[at], Style(color=_colour(row.front, at), bgcolor=_colour(row.back, at)))
            for at in range(first, last)
        )
        parts = (Segment(" " * before, blank), *middle, Segment(" " * after, blank))
        return [segment for segment in parts if segment.text]

    def ansi(self, start: int, end: int, console: Console) -> str:
        """The same as bytes for the terminal."""
        before, first, last, after = self._cut(start, end)
        return self._pad(before, console) + self._middle_ansi(first, last, console) + self._pad(after, console)

    def _middle_ansi(self, first: int, last: int, console: Console) -> str:
        count = last - first
        if not count:
            return ""
        if self.middle == "skip":
            return f"\x1b[{count}C"
        if self.middle == "blank":
            return f"{_RESET}\x1b[{count}X\x1b[{count}C"
        if self.cells is None:
            return self._pad(count, console)
        if console.color_system == "truecolor":
            return self.cells.ansi(first, last)
        return Strip(self.segments(self.left + first, self.left + last)).render(console)

    def _pad(self, count: int, console: Console) -> str:
        return Strip.blank(count, Style(bgcolor=self.mat)).render(console) if count else ""

    def _cut(self, start: int, end: int) -> tuple[int, int, int, int]:
        """Cells of background before, first and last (exclusive) cell of the picture, cells of background after."""
        edge = self.left + self.width
        before = max(0, min(end, self.left) - start)
        first = min(max(start - self.left, 0), self.width)
        last = max(first, min(end - self.left, self.width))
        return before, first, last, max(0, end - max(start, edge))


def _colour(colours: bytes, at: int) -> Color:
    return Color.from_rgb(*colours[at * 3 : at * 3 + 3])
