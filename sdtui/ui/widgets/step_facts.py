"""The facts of a step as aligned lines, of one job or of two side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.cells import cell_len, set_cell_size
from textual.content import Content
from textual.geometry import Size
from textual.widget import Widget

Rows = Sequence[tuple[str, str]]
_NAME_CELLS: Final = 9
_HUES: Final = ("$accent", "$secondary")


class StepFacts(Widget):
    """Names at the left, values right-aligned; what does not fit below is left out, the last first."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._sides: tuple[Rows, ...] = ()

    def show(self, *sides: Rows) -> None:
        """Show the facts of these; none shows nothing."""
        if sides != self._sides:
            before, self._sides = len(self._names), sides
            self.refresh(layout=len(self._names) != before)

    @property
    def _names(self) -> list[str]:
        return list(dict.fromkeys(name for side in self._sides for name, _ in side))

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:  # noqa: ARG002  (Textual's signature)
        """A line for each fact."""
        return max(1, len(self._names))

    def render(self) -> Content:
        """The lines."""
        if not self._sides:
            return Content("")
        hues = _HUES if len(self._sides) > 1 else ("$foreground",)
        columns = [dict(side) for side in self._sides]
        room = max(1, (self.size.width - _NAME_CELLS) // len(columns))
        lines = []
        for name in self._names[: max(1, self.size.height)]:
            parts = [(name.ljust(self.size.width - room * len(columns)), "$muted")]
            parts += [(_right(side.get(name, "–"), room), hue) for side, hue in zip(columns, hues, strict=True)]
            lines.append(Content.assemble(*parts))
        return Content("\n").join(lines)


def _right(text: str, cells: int) -> str:
    """Right-aligned in exactly so many cells; of a mean and a deviation that do not fit, the deviation."""
    if cell_len(text) >= cells and " ± " in text:
        text = text[text.index("±") :]
    if cell_len(text) >= cells:
        text = set_cell_size(text, max(0, cells - 2)) + "…"
    return " " * (cells - cell_len(text)) + text
