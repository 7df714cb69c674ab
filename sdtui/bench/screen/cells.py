"""The characters on a screen: where the cursor is, what is written, erased and scrolled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from rich.cells import get_character_cell_size

from sdtui.bench.screen.colours import Pen

Cell = tuple[str, Pen]
PLACEHOLDER: Final = "\U0010eeee"
"""A cell of a picture in kitty's graphics protocol."""
_TAB: Final = 8


class Cells:
    """A grid of cells with a cursor. `erased` is told which cells of a row are written anew, `scrolled` how far all moved up."""

    def __init__(self, columns: int, rows: int, erased: Callable[[int, int, int], None], scrolled: Callable[[int], None]) -> None:
        self.columns, self.rows = columns, rows
        self.pen = Pen()
        self.lines = [self._blank() for _ in range(rows)]
        self.row = self.column = 0
        self.wraps = True
        self.wraps_next = False
        """A character stands in the last column: the next one begins a new line."""
        self.erased, self.scrolled = erased, scrolled
        self._saved = (0, 0, Pen(), False)

    def _blank(self) -> list[Cell]:
        return [(" ", Pen(background=self.pen.background))] * self.columns

    def write(self, text: str) -> None:
        """Put characters at the cursor."""
        if text.isascii():
            self._write_narrow(text)
            return
        for character in text:
            width = 1 if character == PLACEHOLDER else get_character_cell_size(character)
            if width == 0:
                self._join(character)
            elif width == 2:
                self._write_wide(character)
            else:
                self._write_narrow(character)

    def _write_narrow(self, text: str) -> None:
        """Characters of one cell each."""
        while text:
            if self.wraps_next:
                self.column = 0
                self.feed_line()
            part = text[: self.columns - self.column]
            self.lines[self.row][self.column : self.column + len(part)] = [(character, self.pen) for character in part]
            self.erased(self.row, self.column, self.column + len(part))
            text = text[len(part) :]
            self.column += len(part)
            if self.column == self.columns:
                self.column -= 1
                self.wraps_next = self.wraps
                if not self.wraps and text:
                    text = text[-1]  # every further character takes the last cell

    def _write_wide(self, character: str) -> None:
        if self.column == self.columns - 1:
            self._write_narrow(" ")
            if not self.wraps:
                return
        self._write_narrow(character)
        self._write_narrow(" ")
        at = self.column - (not self.wraps_next)
        self.lines[self.row][at] = ("", self.pen)

    def _join(self, character: str) -> None:
        """A combining character goes to the cell before the cursor."""
        column = self.column if self.wraps_next else self.column - 1
        if column >= 0:
            text, pen = self.lines[self.row][column]
            self.lines[self.row][column] = (text + character, pen)

    def move(self, row: int, column: int) -> None:
        """Put the cursor somewhere, at the edge of the screen at most."""
        self.row = max(0, min(self.rows - 1, row))
        self.column = max(0, min(self.columns - 1, column))
        self.wraps_next = False

    def feed_line(self) -> None:
        """One line down; at the bottom everything moves up."""
        self.wraps_next = False
        if self.row < self.rows - 1:
            self.row += 1
        else:
            self.scroll(1)

    def scroll(self, count: int) -> None:
        """Move everything up."""
        count = min(count, self.rows)
        del self.lines[:count]
        self.lines.extend(self._blank() for _ in range(count))
        self.scrolled(count)

    def tab(self) -> None:
        """On to the next stop."""
        self.move(self.row, (self.column // _TAB + 1) * _TAB)

    def erase(self, row: int, start: int, stop: int) -> None:
        """Make the cells from column `start` to before `stop` blank, with the pen's background."""
        stop = min(stop, self.columns)
        if stop > start:
            self.lines[row][start:stop] = [(" ", Pen(background=self.pen.background))] * (stop - start)
            self.erased(row, start, stop)

    def erase_line(self, which: int) -> None:
        """EL."""
        self.erase(self.row, 0 if which else self.column, self.column + 1 if which == 1 else self.columns)

    def erase_display(self, which: int) -> None:
        """ED, without scrollback."""
        if which < 2:
            self.erase_line(which)
        first, last = {0: (self.row + 1, self.rows), 1: (0, self.row)}.get(which, (0, self.rows))
        for row in range(first, last):
            self.erase(row, 0, self.columns)

    def save(self) -> None:
        """DECSC."""
        self._saved = (self.row, self.column, self.pen, self.wraps_next)

    def restore(self) -> None:
        """DECRC."""
        row, column, self.pen, wraps_next = self._saved
        self.move(row, column)
        self.wraps_next = wraps_next

    def resize(self, columns: int, rows: int) -> None:
        """Another size; lines are cut or filled, not wrapped anew."""
        self.columns, self.rows = columns, rows
        blank = (" ", Pen())
        self.lines = [(line + [blank] * columns)[:columns] for line in self.lines[:rows]]
        self.lines += [[blank] * columns for _ in range(rows - len(self.lines))]
        self.move(self.row, self.column)

    def text(self, row: int) -> str:
        """What is written in a row, without blanks at its end."""
        return "".join(text for text, _ in self.lines[row]).rstrip()
