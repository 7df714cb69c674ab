"""The words of a prompt, or the steps of a job, with a bar for the share of each: drawn lines with a cursor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.cells import cell_len, set_cell_size
from textual.content import Content
from textual.events import Click, MouseScrollDown, MouseScrollUp
from textual.message import Message
from textual.widget import Widget

_BAR: Final = " ▏▎▍▌▋▊▉█"
_BAR_CELLS: Final = 6
_LEAST_TEXT: Final = 10
"""With less room for the text there is no bar."""


class WordList(Widget):
    """Shows lines; whoever has it moves the cursor."""

    class Chosen(Message):
        """A line was clicked, or the wheel moved the cursor."""

        def __init__(self, index: int) -> None:
            super().__init__()
            self.index = index

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._head = ("", "")
        self.texts: Sequence[str] = ()
        self.shares: Sequence[float] = ()
        self._figures: Sequence[str] = ()
        self._cursor = 0
        self._hues: dict[int, str] = {}
        self._first = 0

    # --- what it is told --------------------------------------------------------------------------------------------

    def show(self, head: tuple[str, str], texts: Sequence[str]) -> None:
        """Other lines; `texts` are safe. Their shares come later."""
        if (head, texts) != (self._head, self.texts):
            self._head, self.texts, self.shares, self._figures = head, texts, (), ()
            self.refresh()

    def measure(self, shares: Sequence[float], figures: Sequence[str]) -> None:
        """How long the bars are, the longest of which is whole, and what stands behind them."""
        if (shares, figures) != (self.shares, self._figures):
            self.shares, self._figures = shares, figures
            self.refresh()

    def point(self, cursor: int, hues: dict[int, str]) -> None:
        """The cursor's line, and the colours (#rrggbb) of those that are seen in the picture."""
        if (cursor, hues) != (self._cursor, self._hues):
            self._cursor, self._hues = cursor, hues
            self.refresh()

    # --- what it shows ----------------------------------------------------------------------------------------------

    def render(self) -> Content:
        """The head, and the lines around the cursor."""
        width, height = self.size
        figure = max(5, *(len(text) for text in self._figures), len(self._head[1])) if self._figures else 5
        room = width - figure - 4  # without the mark and the gaps
        bar = max(_BAR_CELLS, room // 3) if room - _BAR_CELLS >= _LEAST_TEXT else 0
        text = max(1, width - 2 - figure - 1 - (bar + 1 if bar else 0))
        has_head = height > 3
        rows = max(1, height - has_head)
        self._first = max(0, min(self._first, len(self.texts) - rows, self._cursor), self._cursor - rows + 1)
        lines = [self._line(index, text, bar, figure) for index in range(len(self.texts))[self._first : self._first + rows]]
        if has_head:
            head = f"  {_fitted(self._head[0], text)}{' ' * (bar + 1 if bar else 0)} {self._head[1]:>{figure}}"
            lines.insert(0, Content.styled(_fitted(head, width), "$muted"))
        return Content("\n").join(lines)

    def _line(self, index: int, text: int, bar: int, figure: int) -> Content:
        ground = " on $panel" if index == self._cursor else ""
        hue = self._hues.get(index)
        known = index < len(self.shares)
        longest = max(self.shares, default=0.0)
        filled = _bar(self.shares[index] / longest if longest > 0 else 0.0, bar) if known else " " * bar
        parts = [
            ("● " if hue else "  ", f"{hue or '$muted'}{ground}"),
            (_fitted(self.texts[index], text), f"$foreground{ground}"),
            (f" {filled}" if bar else "", f"{hue or '$muted'}{ground}"),
            (f" {self._figures[index] if known else '':>{figure}}", f"$muted{ground}"),
        ]
        return Content.assemble(*parts)

    # --- the mouse --------------------------------------------------------------------------------------------------

    def on_click(self, event: Click) -> None:
        """Go to the line."""
        index = self._first + event.y - self.gutter.top - (self.size.height > 3)
        if self._first <= index < len(self.texts):
            self.post_message(self.Chosen(index))

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        """The next line."""
        event.stop()
        if self._cursor + 1 < len(self.texts):
            self.post_message(self.Chosen(self._cursor + 1))

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        """The line before."""
        event.stop()
        if self._cursor > 0:
            self.post_message(self.Chosen(self._cursor - 1))


def _fitted(text: str, cells: int) -> str:
    """Exactly so many cells wide; what is cut off is marked."""
    if cell_len(text) <= cells:
        return text + " " * (cells - cell_len(text))
    return set_cell_size(text, cells - 1) + "…" if cells > 0 else ""


def _bar(share: float, cells: int) -> str:
    eighths = round(max(0.0, min(1.0, share)) * cells * 8)
    whole, rest = divmod(eighths, 8)
    return ("█" * whole + (_BAR[rest] if rest else "")).ljust(cells)
