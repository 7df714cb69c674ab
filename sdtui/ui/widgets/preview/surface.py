"""What can show a picture. Half cells work everywhere; sinks for kitty, iTerm2 and sixel are further `Surface`s."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import msgspec
from textual.message import Message
from textual.widget import Widget


class Frame(msgspec.Struct, frozen=True):
    """A picture in memory: raw RGB, row by row, `width_px * height_px * 3` bytes."""

    width_px: int
    height_px: int
    rgb: bytes


class Surface(Widget):
    """A widget that shows the newest picture it was given, whole, as large as it fits, aspect ratio kept.

    Both calls return at once. Scaling and encoding happen off the event loop, at most one picture at a time; what arrives
    meanwhile takes the place of what waits.
    """

    live: ClassVar[bool] = True
    """Whether it is quick enough for previews; else it is only given finished pictures."""

    class Failed(Message):
        """A file could not be shown."""

        def __init__(self, path: Path, reason: str) -> None:
            super().__init__()
            self.path = path
            self.reason = reason

    def show_frame(self, frame: Frame) -> None:
        """Show a preview."""
        raise NotImplementedError

    def show_file(self, path: Path) -> None:
        """Show a finished picture; `Failed` is posted when it cannot be read."""
        raise NotImplementedError

    def clear(self) -> None:
        """Show nothing."""
        raise NotImplementedError

    def wanted_px(self, columns: int, rows: int) -> int:
        """The longer side of a preview beyond which more pixels could not be seen in so many cells."""
        raise NotImplementedError
