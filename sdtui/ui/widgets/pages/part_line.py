"""The strip on top of the page: its parts, and which of them is shown."""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content
from textual.events import Click
from textual.message import Message
from textual.widget import Widget

_GAP = 2


class PartLine(Widget):
    """Names side by side; the mouse chooses one."""

    class Chosen(Message):
        """Another part is to be shown."""

        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

    def __init__(self, names: Sequence[str], *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._names = names
        self._number = 0

    def point(self, number: int) -> None:
        """Mark the part that is shown."""
        self._number = number
        self.refresh()

    def render(self) -> Content:
        """The names, the one that is shown in the accent colour."""
        parts: list[tuple[str, str]] = []
        for number, name in enumerate(self._names):
            parts += [(name, "$accent underline" if number == self._number else "$muted"), (" " * _GAP, "")]
        return Content.assemble(*parts)

    def on_click(self, event: Click) -> None:
        """Show the part whose name was clicked."""
        at = self.gutter.left
        for number, name in enumerate(self._names):
            if at <= event.x < at + len(name):
                self.post_message(self.Chosen(number))
            at += len(name) + _GAP
