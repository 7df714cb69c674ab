"""Pictures in block characters: two colours a cell, and a glyph that says which part of the cell has which.

Half blocks (U+2580) are in every font. Quadrants (U+2596..259F, two by two) and sextants (U+1FB00..1FB3B, two by three;
Unicode 13, Symbols for Legacy Computing) show finer edges where the terminal or its font has them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from sdtui.terminal.picture import USUAL_CELL, CellSize, Frame, Spot
from sdtui.terminal.sink import ImageSink, at, check, resized

if TYPE_CHECKING:
    from PIL.Image import Image

Kind = Literal["half", "quadrant", "sextant"]
KINDS: Final[tuple[Kind, ...]] = ("half", "quadrant", "sextant")
UPPER_HALF: Final = "▀"
GRID: Final[dict[str, tuple[int, int]]] = {"half": (1, 2), "quadrant": (2, 2), "sextant": (2, 3)}
"""Parts of a cell across and down."""
_QUADRANTS: Final = " ▘▝▀▖▌▞▛▗▚▐▜▄▙▟█"
"""By bits: 1 upper left, 2 upper right, 4 lower left, 8 lower right."""
_SEXTANTS_WITHOUT: Final = {0: " ", 0b010101: "▌", 0b101010: "▐", 0b111111: "█"}
"""Patterns that are older characters, and so left out of the block at U+1FB00."""
_CELL_BYTES: Final = 34.0
"""A cell with both of its colours changed."""
_GLYPH_BYTES: Final = 3.0
_COARSER: Final = (1, 2, 4, 8, 16)
"""How many cells across share their colours, from full detail to the smallest."""


class CellRow(msgspec.Struct, frozen=True):
    """One row of cells: a glyph for each, and three bytes a cell for the colour of the glyph and of what is behind it."""

    glyphs: str
    front: bytes
    back: bytes

    def ansi(self, start: int = 0, end: int | None = None) -> str:
        """The characters with their colours, each colour only sent where it changes; ends with colours reset."""
        end = len(self.glyphs) if end is None else end
        parts: list[str] = []
        front = back = b""
        for at_cell in range(start, end):
            at_byte = at_cell * 3
            glyph = self.glyphs[at_cell]
            lower = self.back[at_byte : at_byte + 3]
            if lower != back:
                back = lower
                parts.append(f"\x1b[48;2;{lower[0]};{lower[1]};{lower[2]}m")
            upper = self.front[at_byte : at_byte + 3]
            if upper == lower:
                glyph = " "
            elif upper != front:
                front = upper
                parts.append(f"\x1b[38;2;{upper[0]};{upper[1]};{upper[2]}m")
            parts.append(glyph)
        parts.append("\x1b[0m")
        return "".join(parts)


class CellPicture(msgspec.Struct, frozen=True):
    """A picture at the resolution of cells."""

    columns: int
    rows: tuple[CellRow, ...]


def to_cells(frame: Frame, columns: int, rows: int, kind: Kind = "half", *, budget_bytes: int | None = None) -> CellPicture:
    """`frame` stretched to so many cells. Takes milliseconds. Raises `ValueError`, as sinks do."""
    check(frame, Spot(0, 0, columns, rows))
    coarser = _coarseness(columns * rows, budget_bytes)
    wide = -(-columns // coarser)
    across, down = GRID[kind]
    small = resized(frame.image(), wide * across, rows * down)
    made = _half_rows(small) if kind == "half" else _two_colour_rows(small, kind)
    if coarser > 1:
        made = (_widened(row, coarser, columns) for row in made)
    return CellPicture(columns, tuple(made))


def _coarseness(cells: int, budget_bytes: int | None) -> int:
    if budget_bytes is None:
        return 1
    return next((n for n in _COARSER if cells * (_CELL_BYTES / n + _GLYPH_BYTES) <= budget_bytes), _COARSER[-1])


def _widened(row: CellRow, by: int, columns: int) -> CellRow:
    """Each cell of `row` `by` times; glyphs would repeat their shape, so only upper and lower colour are kept."""
    front = b"".join(row.front[at_byte : at_byte + 3] * by for at_byte in range(0, len(row.front), 3))
    back = b"".join(row.back[at_byte : at_byte + 3] * by for at_byte in range(0, len(row.back), 3))
    return CellRow("".join(glyph * by for glyph in row.glyphs)[:columns], front[: columns * 3], back[: columns * 3])


def _half_rows(image: Image) -> Iterable[CellRow]:
    pixels, stride = image.tobytes(), image.width * 3
    for top in range(0, len(pixels), stride * 2):
        yield CellRow(UPPER_HALF * image.width, pixels[top : top + stride], pixels[top + stride : top + stride * 2])


def _two_colour_rows(image: Image, kind: Kind) -> Iterable[CellRow]:
    """For each cell the glyph and the two colours that come nearest to its pixels, in the sum of squared differences."""
    import numpy

    across, down = GRID[kind]
    parts = across * down
    columns, rows = image.width // across, image.height // down
    pixels = numpy.asarray(image, dtype=numpy.float32).reshape(rows, down, columns, across, 3)
    cells = pixels.transpose(0, 2, 1, 3, 4).reshape(rows * columns, parts, 3)
    masks, shares = _masks(parts, numpy)
    inside = numpy.einsum("mp,cpk->cmk", masks, cells)
    outside = cells.sum(axis=1)[:, None, :] - inside
    # The squared error of two groups around their means is a constant less |sum|^2 / count of each group.
    gain = (inside**2).sum(-1) / shares + (outside**2).sum(-1) / numpy.maximum(parts - shares, 1)
    best = gain.argmax(axis=1)
    picked = numpy.arange(len(best))
    front = inside[picked, best] / shares[best][:, None]
    back = outside[picked, best] / numpy.maximum(parts - shares[best], 1)[:, None]
    glyphs = [_glyph(bits + 1, kind) for bits in range((1 << parts) - 1)]
    chosen = [glyphs[index] for index in best.tolist()]
    fore, behind = _bytes(front, numpy), _bytes(back, numpy)
    for row in range(rows):
        cut = slice(row * columns * 3, (row + 1) * columns * 3)
        yield CellRow("".join(chosen[row * columns : (row + 1) * columns]), fore[cut], behind[cut])


def _masks(parts: int, numpy: Any) -> tuple[Any, Any]:
    """Every way to fill a cell but the empty one, (2^parts - 1, parts) of 0 and 1, and how many parts each fills."""
    bits = numpy.arange(1, 1 << parts)[:, None] >> numpy.arange(parts)[None, :] & 1
    masks = bits.astype(numpy.float32)
    return masks, masks.sum(axis=1)


def _bytes(colours: Any, numpy: Any) -> bytes:
    return bytes(numpy.rint(colours).clip(0, 255).astype(numpy.uint8).tobytes())


def _glyph(bits: int, kind: Kind) -> str:
    """The character that fills these parts; bit 0 is the upper left one, bit 1 the one right of it."""
    if kind == "quadrant":
        return _QUADRANTS[bits]
    if bits in _SEXTANTS_WITHOUT:
        return _SEXTANTS_WITHOUT[bits]
    return chr(0x1FB00 + bits - 1 - (bits > 0b010101) - (bits > 0b101010))


class BlockSink(ImageSink):
    """Writes characters: works wherever there are colours, and keeps what it wrote for `place`."""

    def __init__(self, kind: Kind = "half", cell: CellSize = USUAL_CELL) -> None:
        super().__init__(cell)
        self.kind: Kind = kind
        self._drawn: CellPicture | None = None

    @property
    def name(self) -> str:  # type: ignore[override]
        """Which characters."""
        return self.kind

    def show(self, frame: Frame, spot: Spot, *, budget_bytes: int | None) -> list[bytes]:
        """Write the cells; see `ImageSink`."""
        check(frame, spot)
        self._drawn = to_cells(frame, spot.columns, spot.rows, self.kind, budget_bytes=budget_bytes)
        return self.place(spot)

    def place(self, spot: Spot) -> list[bytes]:
        """Write the last picture again, at this spot."""
        if self._drawn is None:
            return []
        return [
            at(Spot(spot.column, spot.row + number, spot.columns, 1), row.ansi().encode())
            for number, row in enumerate(self._drawn.rows)
        ]

    def inline(self, frame: Frame, columns: int, rows: int) -> bytes:
        """The picture at the cursor, line by line."""
        lines = to_cells(frame, columns, rows, self.kind).rows
        return b"".join(row.ansi().encode() + b"\r\n" for row in lines)

    def wanted_px(self, columns: int, rows: int) -> int:
        """As many pixels as there are parts of cells along the side that is filled first."""
        across, down = GRID[self.kind]
        return max(64, min(512, columns * across, rows * down))
