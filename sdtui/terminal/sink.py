"""What draws a picture on a terminal: one interface, whatever the protocol."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Final

from sdtui.terminal.picture import USUAL_CELL, CellSize, Frame, Spot

if TYPE_CHECKING:
    from PIL.Image import Image

SAVE_CURSOR: Final = b"\x1b7"
RESTORE_CURSOR: Final = b"\x1b8"
"""DECSC and DECRC: position and colours, so that whoever else writes to the terminal notices nothing."""


class ImageSink(ABC):
    """Keeps one picture on the screen.

    A sink only makes bytes; the caller writes them, in order. Each part of a list is one or more whole control sequences,
    so other output may go between parts. Encoding takes milliseconds to a tenth of a second: call it in a thread, one call
    at a time. Every method raises `ValueError` for a frame that is not whole or a spot without cells.
    """

    name: ClassVar[str]
    lies_below_text: ClassVar[bool] = False
    """Whether text with a background hides the picture and blank cells bring it back, without a byte from the sink."""
    needs_row_below: ClassVar[bool] = False
    """Whether a picture that reaches the last line of the screen could scroll it."""

    is_divisible: ClassVar[bool] = True
    """Whether parts may be left out, as when the picture has no place any more; else the rest is worth nothing."""

    may_be_lost: ClassVar[bool] = False
    """Whether somebody on the way drops a picture now and then without a word, so that a last one is better sent twice."""

    def __init__(self, cell: CellSize = USUAL_CELL) -> None:
        self.cell = cell
        """May be changed at any time, as when the user picks a larger font; the next `show` minds it."""

    @abstractmethod
    def show(self, frame: Frame, spot: Spot, *, budget_bytes: int | None) -> list[bytes]:
        """Put `frame` at `spot`, stretched to it, in about so many bytes; None asks for full quality."""

    @abstractmethod
    def place(self, spot: Spot) -> list[bytes]:
        """The same picture at `spot`, also where it was written over; nothing while there is none."""

    def hide(self) -> list[bytes]:
        """Take the picture off the screen; the caller writes over the cells anyway."""
        return []

    def abort(self) -> list[bytes]:
        """End a picture that was cut in the middle of its parts."""
        return []

    def close(self) -> list[bytes]:
        """Free what the terminal holds for the picture."""
        return []

    def forget(self) -> None:  # noqa: B027  (most sinks leave nothing in the terminal)
        """The terminal has lost everything it held, as after a reset."""

    @abstractmethod
    def inline(self, frame: Frame, columns: int, rows: int) -> bytes:
        """The picture at the cursor, in full quality; the cursor is at the start of the line below it afterwards."""

    def wanted_px(self, columns: int, rows: int) -> int:
        """The longer side of a live frame beyond which more pixels could not be seen, or not be sent in time."""
        return 256 if min(columns, rows * 2) > 64 else 128


def check(frame: Frame, spot: Spot) -> None:
    """Raises `ValueError` where there is nothing to draw, or nowhere to draw it."""
    if not frame.is_whole:
        raise ValueError(f"{len(frame.rgb)} bytes are no picture of {frame.width_px}x{frame.height_px} pixels.")
    if spot.columns < 1 or spot.rows < 1 or spot.column < 0 or spot.row < 0:
        raise ValueError(f"A picture cannot lie in {spot.columns}x{spot.rows} cells at column {spot.column}, row {spot.row}.")


def at(spot: Spot, drawing: bytes) -> bytes:
    """`drawing` with the cursor in the spot's first cell before, and where it was after."""
    return b"%b\x1b[%d;%dH%b%b" % (SAVE_CURSOR, spot.row + 1, spot.column + 1, drawing, RESTORE_CURSOR)


def resized(image: Image, width_px: int, height_px: int) -> Image:
    """`image` at this size: averaged when it gets smaller, smooth when it gets larger."""
    from PIL.Image import Resampling

    size = (max(1, width_px), max(1, height_px))
    if image.size == size:
        return image
    smaller = size[0] * size[1] < image.width * image.height
    return image.resize(size, Resampling.BOX if smaller else Resampling.BICUBIC)


def within(image: Image, limit_px: int) -> Image:
    """`image` with neither side above `limit_px`, its proportions kept."""
    longer = max(image.size)
    if longer <= limit_px:
        return image
    return resized(image, round(image.width * limit_px / longer), round(image.height * limit_px / longer))


def spot_px(spot: Spot, cell: CellSize) -> tuple[int, int]:
    """The spot's width and height in whole pixels."""
    return max(1, round(spot.columns * cell.width_px)), max(1, round(spot.rows * cell.height_px))


def row_slices(spot: Spot, cell: CellSize, count: int) -> Sequence[tuple[Spot, int, int]]:
    """`spot` cut into about `count` bands of whole cell rows, each with its first and last pixel row (exclusive)."""
    step = -(-spot.rows // max(1, min(count, spot.rows)))
    bands = []
    for top in range(0, spot.rows, step):
        rows = min(step, spot.rows - top)
        upper, lower = round(top * cell.height_px), round((top + rows) * cell.height_px)
        bands.append((Spot(spot.column, spot.row + top, spot.columns, rows), upper, lower))
    return bands
