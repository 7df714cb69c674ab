"""Finished pictures where colours are few: textual-image draws them in shades of block characters.

Importing textual-image asks the terminal, and fails where that is none, has no size, or is not ours at the moment; in a running
app the answer would be typed into the prompt. So it is imported with a standard output that is no terminal.
"""

from __future__ import annotations

import asyncio
import io
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from textual.app import ComposeResult
from textual.containers import Vertical

from sdtui.terminal.picture import Frame, fit, read_picture
from sdtui.ui.display import Display


def import_widgets() -> Any:
    """The module `textual_image.widget`, imported without a word to the terminal."""
    if "textual_image.widget" not in sys.modules:
        stdout, sys.__stdout__ = sys.__stdout__, io.StringIO()  # type: ignore[misc,assignment]
        try:
            import_module("textual_image.widget")
        finally:
            sys.__stdout__ = stdout  # type: ignore[misc]
    return sys.modules["textual_image.widget"]


class StillPicture(Vertical):
    """Shows a picture in characters of different weight, as large as it fits, its proportions kept."""

    DEFAULT_CSS = """
    StillPicture { width: 1fr; height: 1fr; align: center middle; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._image = import_widgets().UnicodeImage()
        self._frame: Frame | None = None

    def compose(self) -> ComposeResult:
        """textual-image's widget, in the middle."""
        yield self._image

    def show_file(self, path: Path) -> None:
        """Show a picture file; one that cannot be read is passed over, since `LivePicture` was given it too and tells."""
        self.run_worker(self._read(path), exclusive=True, exit_on_error=False)

    async def _read(self, path: Path) -> None:
        with suppress(OSError, ValueError):
            self.show_still(await asyncio.to_thread(read_picture, path))

    def show_still(self, frame: Frame) -> None:
        """Show a picture from memory; one that is not whole is passed over."""
        if frame.is_whole:
            self._frame = frame
            self._fit()
            self._image.image = frame.image()

    def on_resize(self) -> None:
        """As large as it fits."""
        self._fit()

    def _fit(self) -> None:
        if self._frame is None or not self.size.area:
            return
        display = getattr(self.app, "terminal_display", None)
        cell = display.cell if isinstance(display, Display) else Display().cell
        columns, rows = fit(self._frame.width_px, self._frame.height_px, *self.size, cell)
        self._image.styles.width, self._image.styles.height = columns, rows
