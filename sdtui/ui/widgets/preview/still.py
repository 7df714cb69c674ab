"""Finished pictures in pixels, drawn by textual-image. Importing this asks the terminal: see `graphics`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual_image.widget import Image

from sdtui.text import safe_text
from sdtui.ui.widgets.preview.scaling import fit, read_picture
from sdtui.ui.widgets.preview.surface import Frame, Surface


class StillSurface(Surface):
    """Each picture costs up to half a second of the event loop, so only finished ones are shown."""

    live: ClassVar[bool] = False
    DEFAULT_CSS = """
    StillSurface { width: 1fr; height: 1fr; align: center middle; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._path: Path | None = None
        self._shown: Frame | None = None
        self._image = Image()

    def compose(self) -> ComposeResult:
        """textual-image's widget, in the middle."""
        yield self._image

    def show_frame(self, frame: Frame) -> None:
        """Show a picture from memory."""
        from PIL import Image as Pictures

        self._shown = frame
        self._fit()
        self._image.image = Pictures.frombytes("RGB", (frame.width_px, frame.height_px), frame.rgb)

    def show_file(self, path: Path) -> None:
        """Show a finished picture."""
        self._path = path
        self.run_worker(self._read(path), exclusive=True, exit_on_error=False)

    async def _read(self, path: Path) -> None:
        try:
            frame = await asyncio.to_thread(read_picture, path)
        except (OSError, ValueError) as error:
            self.post_message(self.Failed(path, safe_text(str(error))))
            return
        if self._path == path:
            self.show_frame(frame)

    def clear(self) -> None:
        """Show nothing."""
        self._path = self._shown = None
        self._image.image = None

    def wanted_px(self, columns: int, rows: int) -> int:
        """Pixels of the smaller side, with a common cell of 8 x 16."""
        return max(64, min(columns * 8, rows * 16))

    def on_resize(self) -> None:
        """As large as it fits."""
        self._fit()

    def _fit(self) -> None:
        if self._shown is None or not self.size.area:
            return
        columns, rows = fit(self._shown.width_px, self._shown.height_px, *self.size)
        self._image.styles.width, self._image.styles.height = columns, rows
