"""Text with tones that scrolls. It draws lines of its own: a widget for its text would have the screen laid out anew with each
key that moves the selection.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from rich.console import Console
from rich.containers import Lines
from rich.style import Style
from rich.text import Text
from textual.binding import BindingType
from textual.geometry import Region
from textual.scroll_view import ScrollView
from textual.strip import Strip

from sdtui.ui.private import grow
from sdtui.ui.rows import Span


class SpanView(ScrollView, can_focus=True):
    """Shows spans, wrapped."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "span-view--text",
        "span-view--muted",
        "span-view--accent",
        "span-view--secondary",
        "span-view--success",
        "span-view--warning",
        "span-view--error",
    }
    BINDINGS: ClassVar[list[BindingType]] = []

    def __init__(self, spans: Iterable[Span] = (), *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._spans: list[Span] = list(spans)
        self._lines: Lines | Sequence[Text] = []

    @property
    def text(self) -> str:
        """All of it, not wrapped."""
        return "".join(text for text, _ in self._spans)

    def set_spans(self, spans: Iterable[Span], *, from_top: bool) -> None:
        """Other text; its lines end with newlines, and what is in it is safe."""
        self._spans = list(spans)
        if from_top and self.scroll_offset.y:
            self.scroll_to(y=0, animate=False, immediate=True, force=True)
        self._wrap()

    def tones(self) -> dict[str, Style]:
        """The theme's style of each tone."""
        kinds = {name.rpartition("--")[2] for name in SpanView.COMPONENT_CLASSES}
        return {kind: self.get_component_rich_style(f"span-view--{kind}", partial=True) for kind in kinds}

    @property
    def room(self) -> int:
        """Cells of a line."""
        return max(1, self.scrollable_content_region.width - 1)

    def _wrap(self) -> None:
        if not self.size.width:
            return
        tones = {tone: self.get_component_rich_style(f"span-view--{tone}", partial=True) for tone in {t for _, t in self._spans}}
        text = Text.assemble(*((text, tones[tone]) for text, tone in self._spans), end="")
        text.rstrip()
        self.set_lines(self.break_lines(text, self.app.console, self.room))

    def break_lines(self, text: Text, console: Console, room: int) -> Lines | Sequence[Text]:
        """The text in lines of at most so many cells."""
        return text.wrap(console, room, overflow="fold")

    def set_lines(self, lines: Lines | Sequence[Text]) -> None:
        """Show lines that are broken already, and draw no more than what changed."""
        before = len(self._lines)
        self._lines = lines
        grow(self, len(lines))
        changed = Region(0, 0, self.size.width, max(before, len(lines)) - self.scroll_offset.y)
        self.refresh(changed.intersection(self.size.region))

    def on_resize(self) -> None:
        """Lines break elsewhere."""
        self._wrap()

    def notify_style_update(self) -> None:
        """A theme was chosen: colours changed."""
        super().notify_style_update()
        if self.is_attached:
            self.call_after_refresh(self._wrap)  # the styles of the tones follow the widget's own

    def render_line(self, y: int) -> Strip:
        """A line of the window."""
        line = y + self.scroll_offset.y
        if line >= len(self._lines):
            return Strip.blank(self.size.width, self.rich_style)
        segments = self._lines[line].render(self.app.console)
        return Strip(segments).adjust_cell_length(self.size.width).apply_style(self.rich_style)
