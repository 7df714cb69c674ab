"""The facts of a step as aligned lines, of one job or of two side by side."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Final, NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.geometry import Size
from textual.strip import Strip
from textual.widget import Widget

Rows = Sequence[tuple[str, str]]
_NAME_CELLS: Final = 9


class _Styles(NamedTuple):
    """Made once for each theme."""

    ground: Style
    muted: Style
    alone: Style
    sides: tuple[Style, Style]


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

    def render_line(self, y: int) -> Strip:
        """One fact, as segments: as `Content` the lines would cost twice as much, at each step."""
        width, names = self.size.width, self._names
        if y >= len(names):
            return Strip.blank(width, self._styles.ground)
        room = max(1, (width - _NAME_CELLS) // len(self._sides))
        hues = self._styles.sides if len(self._sides) > 1 else (self._styles.alone,)
        segments = [Segment(names[y].ljust(width - room * len(self._sides)), self._styles.muted)]
        for side, hue in zip(self._sides, hues, strict=False):
            segments.append(Segment(_right(dict(side).get(names[y], "–"), room), hue))
        return Strip(segments).adjust_cell_length(width, self._styles.ground).crop(0, width)

    def notify_style_update(self) -> None:
        """A theme was chosen: colours changed."""
        super().notify_style_update()
        self.__dict__.pop("_styles", None)

    @cached_property
    def _styles(self) -> _Styles:
        found, ground = self.app.theme_variables, self.rich_style
        muted, one, other = (
            ground + Style(color=Color.parse(found[name]).rich_color) for name in ("muted", "accent", "secondary")
        )
        return _Styles(ground, muted, ground, (one, other))


def _right(text: str, cells: int) -> str:
    """Right-aligned in exactly so many cells; of a mean and a deviation that do not fit, the deviation."""
    if cell_len(text) >= cells and " ± " in text:
        text = text[text.index("±") :]
    if cell_len(text) >= cells:
        text = set_cell_size(text, max(0, cells - 2)) + "…"
    return " " * (cells - cell_len(text)) + text
