"""Pictures by iTerm2's inline image protocol (iterm2.com/documentation-images.html), as JPEG.

Also spoken by WezTerm, konsole, mlterm, mintty and terminals made of xterm.js.
"""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, ClassVar, Final

from sdtui.terminal.picture import CellSize, Frame, Spot
from sdtui.terminal.sink import ImageSink, at, check, resized, row_slices, spot_px

if TYPE_CHECKING:
    from PIL.Image import Image

_LIVE: Final = ((1.0, 75), (0.75, 70), (0.5, 70), (0.35, 65), (0.25, 60), (0.12, 50))
"""From the best to the smallest: share of the spot's pixels on each side, and JPEG quality."""
_LIVE_LIMIT_BYTES: Final = 70_000
"""A live frame is seen for a fifth of a second; more bytes could not be told apart."""
_STILL_QUALITY: Final = 92
_SLICE_BYTES: Final = 48_000
"""A finished picture goes in bands of about this size, so that text can go between them on a slow line."""


class Iterm2Sink(ImageSink):
    """Draws over the cells; text that is written there later erases it."""

    name: ClassVar[str] = "iterm2"
    needs_row_below: ClassVar[bool] = True

    def __init__(self, cell: CellSize) -> None:
        super().__init__(cell)
        self._drawn: list[tuple[Spot, bytes]] = []
        """What was sent last: bands relative to the spot, and their files."""

    def show(self, frame: Frame, spot: Spot, *, budget_bytes: int | None) -> list[bytes]:
        """Encode for this spot; see `ImageSink`."""
        check(frame, spot)
        image = frame.image()
        if budget_bytes is None:
            self._drawn = self._bands(resized(image, *spot_px(spot, self.cell)), spot)
        else:
            whole = Spot(0, 0, spot.columns, spot.rows)
            self._drawn = [(whole, _live(image, spot_px(spot, self.cell), min(budget_bytes, _LIVE_LIMIT_BYTES)))]
        return self.place(spot)

    def place(self, spot: Spot) -> list[bytes]:
        """Send the last picture again, at this spot."""
        parts = []
        for band, file in self._drawn:
            there = Spot(spot.column + band.column, spot.row + band.row, band.columns, band.rows)
            parts.append(at(there, _sequence(file, band.columns, band.rows)))
        return parts

    def inline(self, frame: Frame, columns: int, rows: int) -> bytes:
        """The picture at the cursor."""
        spot = Spot(0, 0, columns, rows)
        check(frame, spot)
        file = _jpeg(resized(frame.image(), *spot_px(spot, self.cell)), _STILL_QUALITY)
        # Terminals differ in where they leave the cursor: room is made first, then everything is relative to its end.
        room = b"\n" * rows + b"\x1b[%dA\r" % rows
        return room + b"\x1b7" + _sequence(file, columns, rows) + b"\x1b8" + b"\x1b[%dB\r" % rows

    def _bands(self, image: Image, spot: Spot) -> list[tuple[Spot, bytes]]:
        whole = _jpeg(image, _STILL_QUALITY)
        home = Spot(0, 0, spot.columns, spot.rows)
        if len(whole) <= _SLICE_BYTES:
            return [(home, whole)]
        bands = row_slices(home, self.cell, -(-len(whole) // _SLICE_BYTES))
        return [(band, _jpeg(image.crop((0, upper, image.width, lower)), _STILL_QUALITY)) for band, upper, lower in bands]


def _live(image: Image, size_px: tuple[int, int], budget_bytes: int) -> bytes:
    """The best file that fits the budget in base64; the smallest there is, if none does."""
    file = b""
    for share, quality in _LIVE:
        size = round(size_px[0] * share), round(size_px[1] * share)
        file = _jpeg(resized(image, *size), quality)
        if len(file) * 4 // 3 <= budget_bytes:
            break
    return file


def _jpeg(image: Image, quality: int) -> bytes:
    """A JPEG file; above quality 90 with colours at full resolution."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling=0 if quality > 90 else 2)
    return buffer.getvalue()


def _sequence(file: bytes, columns: int, rows: int) -> bytes:
    head = b"\x1b]1337;File=inline=1;size=%d;width=%d;height=%d;preserveAspectRatio=0;doNotMoveCursor=1:"
    return head % (len(file), columns, rows) + base64.b64encode(file) + b"\x07"
