"""A table that draws its own lines, under the titles of its columns."""

from __future__ import annotations

from typing import Generic, TypeVar

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widget import Widget

Table = TypeVar("Table", bound=Widget)


class TableHead(Widget):
    """The titles of the columns."""

    def __init__(self) -> None:
        super().__init__()
        self._text = ""

    def show(self, text: str) -> None:
        """Other columns."""
        if text != self._text:
            self._text = text
            self.refresh()

    def render(self) -> Content:
        """One line."""
        return Content.styled(self._text, "$muted")


class TableBox(Generic[Table], Vertical):
    """The table under its titles, which it hands over itself when its columns change."""

    def __init__(self, table: Table, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.head = TableHead()
        self.table = table

    def compose(self) -> ComposeResult:
        """Titles, then lines."""
        yield self.head
        yield self.table
