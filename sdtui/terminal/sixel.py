"""Pictures in sixels (DEC STD 070, chapter 9; VT330/VT340 Programmer Reference Manual, volume 2, chapter 14).

All colours are defined before the first of them is used: xterm and foot paint the first run of a colour wrongly that is
defined between sixels. Every pixel is painted, so that a frame is drawn over the one before and nothing flickers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from sdtui.terminal.picture import CellSize, Frame, Spot
from sdtui.terminal.sink import ImageSink, at, check, resized, row_slices, spot_px, within

if TYPE_CHECKING:
    from PIL.Image import Image

    Indices = Any
    """A numpy array (H, W) of uint8: which colour each pixel has."""

BAND_PX: Final = 6
"""A sixel is a column of six pixels."""
LIVE_COLOURS: Final = 64
_LIVE_LIMIT_BYTES: Final = 68_000
_LIVE: Final = (
    (2, 64),
    (3, 64),
    (4, 64),
    (6, 64),
    (8, 64),
    (8, 48),
    (8, 32),
    (12, 32),
    (16, 32),
    (24, 24),
    (32, 16),
    (64, 16),
    (128, 8),
)
"""From the finest to the smallest: width of a block of pixels, and colours. A block is one sixel high: less saves nothing."""
_SAMPLE_PX: Final = 64
_RUN_BYTES: Final = 8.5
"""A run of a colour and the gap before it, measured on previews; only guides where to begin."""
_OCTREE_COLOURS: Final = 128
"""From so many on, an octree and dither are nearer to the picture than a median cut, which loses rare bright colours."""
_SLICE_BYTES: Final = 48_000
_SYNC_BEGIN: Final = b"\x1b[?2026h"
_SYNC_END: Final = b"\x1b[?2026l"


class SixelSink(ImageSink):
    """Draws over the cells; text that is written there later erases it."""

    name: ClassVar[str] = "sixel"
    needs_row_below: ClassVar[bool] = True

    def __init__(self, cell: CellSize, *, registers: int = 256, synchronized: bool = False, in_tmux: bool = False) -> None:
        """`registers`: colours the terminal keeps (XTSMGRAPHICS); `synchronized`: whether it has private mode 2026."""
        super().__init__(cell)
        self._in_tmux = in_tmux
        self._registers = max(2, min(256, registers))
        self._synchronized = synchronized
        self._drawn: list[tuple[Spot, bytes]] = []
        """What was sent last: bands relative to the spot, and their sixels."""

    def show(self, frame: Frame, spot: Spot, *, budget_bytes: int | None) -> list[bytes]:
        """Encode for this spot; see `ImageSink`. Full quality uses as many colours as the terminal has."""
        check(frame, spot)
        home = Spot(0, 0, spot.columns, spot.rows)
        size_px = self._size_px(spot)
        if budget_bytes is None:
            self._drawn = self._still(frame.image(), home, size_px)
        else:
            sixels = live_sixels(frame.image(), size_px, min(budget_bytes, _LIVE_LIMIT_BYTES), self._registers)
            self._drawn = [(home, sixels)]
        return self.place(spot)

    def place(self, spot: Spot) -> list[bytes]:
        """Send the last picture again, at this spot."""
        parts = []
        for band, sixels in self._drawn:
            there = Spot(spot.column + band.column, spot.row + band.row, band.columns, band.rows)
            drawing = at(there, sixels)
            parts.append(_SYNC_BEGIN + drawing + _SYNC_END if self._synchronized else drawing)
        return parts

    def inline(self, frame: Frame, columns: int, rows: int) -> bytes:
        """The picture at the cursor."""
        spot = Spot(0, 0, columns, rows)
        check(frame, spot)
        indices, palette = _indexed(resized(frame.image(), *self._size_px(spot)), self._registers)
        # Terminals differ in where they leave the cursor: room is made first, then everything is relative to its end.
        room = b"\n" * rows + b"\x1b[%dA\r" % rows
        return room + b"\x1b7" + sequence(indices, palette) + b"\x1b8" + b"\x1b[%dB\r" % rows

    def _size_px(self, spot: Spot) -> tuple[int, int]:
        """tmux 3.5 fills up the last band, and draws a picture of broken bands one cell too high: there it ends before that."""
        width_px, height_px = spot_px(spot, self.cell)
        return width_px, max(BAND_PX, height_px - height_px % BAND_PX) if self._in_tmux else height_px

    def _still(self, image: Image, home: Spot, size_px: tuple[int, int]) -> list[tuple[Spot, bytes]]:
        indices, palette = _indexed(resized(image, *size_px), self._registers)
        whole = sequence(indices, palette)
        if len(whole) <= _SLICE_BYTES or self._in_tmux:
            return [(home, whole)]
        bands = row_slices(home, self.cell, -(-len(whole) // _SLICE_BYTES))
        return [(band, sequence(indices[upper:lower], palette)) for band, upper, lower in bands]


def live_sixels(image: Image, size_px: tuple[int, int], budget_bytes: int, registers: int = 256) -> bytes:
    """Blocks of one colour, as fine as the budget allows; the coarsest there are, if none is small enough."""
    import numpy

    width_px, height_px = size_px
    bands = -(-height_px // BAND_PX)
    for number, (block_px, colours) in enumerate(_LIVE):
        last = number == len(_LIVE) - 1
        columns = max(1, -(-width_px // block_px))
        blocks, palette = _live_indexed(resized(image, columns, bands), min(colours, LIVE_COLOURS, registers))
        runs = int(numpy.count_nonzero(numpy.diff(blocks, axis=1))) + bands
        if not last and runs * _RUN_BYTES > budget_bytes * 1.5:
            continue
        sixels = _blocks_sequence(blocks, palette, width_px, height_px, block_px)
        if last or len(sixels) <= budget_bytes:
            return sixels
    raise AssertionError("the last level is always taken")


def _live_indexed(image: Image, colours: int) -> tuple[Indices, list[int]]:
    """As `_indexed`, without dithering. Pillow stops the whole process while it looks for colours: it is given few pixels."""
    import numpy
    from PIL import Image as Pictures

    few = within(image, _SAMPLE_PX).quantize(colours, method=Pictures.Quantize.MEDIANCUT)
    mapped = image.quantize(colours, palette=few, dither=Pictures.Dither.NONE)
    return numpy.asarray(mapped), list(few.getpalette() or [])[: colours * 3]


def _indexed(image: Image, colours: int) -> tuple[Indices, list[int]]:
    """The picture in at most so many colours: indices (H, W), and the palette as R, G, B, R, ... from 0 to 255."""
    import numpy
    from PIL import Image as Pictures

    method = Pictures.Quantize.FASTOCTREE if colours >= _OCTREE_COLOURS else Pictures.Quantize.MEDIANCUT
    few = image.quantize(colours, method=method)
    if image.width * image.height > colours:
        few = image.quantize(colours, palette=few, dither=Pictures.Dither.FLOYDSTEINBERG)
    return numpy.asarray(few), list(few.getpalette() or [])[: colours * 3]


def _head(indices: Indices, palette: list[int], size_px: tuple[int, int]) -> tuple[bytes, Indices]:
    """The introducer (P2 = 1: what is not painted stays), the raster attributes, and every used colour in percent.

    The colours are numbered anew without gaps, for which tmux 3.5 would define colours of its own; with the indices so.
    """
    import numpy

    used, numbered = numpy.unique(indices, return_inverse=True)
    colours = b"".join(
        b"#%d;2;%d;%d;%d" % (register, *(round(value * 100 / 255) for value in palette[colour * 3 : colour * 3 + 3]))
        for register, colour in enumerate(used.tolist())
    )
    return b'\x1bP0;1;0q"1;1;%d;%d%b' % (*size_px, colours), numbered.reshape(indices.shape).astype(numpy.uint8)


def sequence(indices: Indices, palette: list[int]) -> bytes:
    """Sixels for each pixel of `indices` (H, W)."""
    import numpy

    height_px, width_px = indices.shape
    head, indices = _head(indices, palette, (width_px, height_px))
    bands = (_band(indices[top : top + BAND_PX], numpy) for top in range(0, height_px, BAND_PX))
    return b"".join((head, *bands, b"\x1b\\"))


def _band(rows: Indices, numpy: Any) -> bytes:
    """One band: for each of its colours a line of sixels over the whole width, by runs."""
    height_px, width_px = rows.shape
    colours = numpy.unique(rows)
    bits = (1 << numpy.arange(height_px, dtype=numpy.uint8))[None, :, None]
    lines = ((rows[None, :, :] == colours[:, None, None]) * bits).sum(axis=1, dtype=numpy.uint8)  # (colours, W)
    parts: list[bytes] = []
    for colour, line in zip(colours.tolist(), lines, strict=True):
        starts = numpy.concatenate(([0], numpy.flatnonzero(numpy.diff(line)) + 1, [width_px]))
        values = line[starts[:-1]].tolist()
        lengths = numpy.diff(starts).tolist()
        if values[-1] == 0:  # nothing follows
            values.pop()
        parts.append(b"#%d" % colour + b"".join(map(_run, values, lengths)))
    return b"$".join(parts) + b"-"


def _run(bits: int, count: int) -> bytes:
    """`count` times the same sixel; the repeat introducer pays from four on."""
    sixel = bytes((63 + bits,))
    return sixel * count if count < 4 else b"!%d%b" % (count, sixel)


def _blocks_sequence(blocks: Indices, palette: list[int], width_px: int, height_px: int, block_px: int) -> bytes:
    """Sixels for blocks (bands, columns), each one sixel high and `block_px` wide.

    The most frequent colour of a band is painted over its whole width first, the others over that.
    """
    import numpy

    head, blocks = _head(blocks, palette, (width_px, height_px))
    parts = [head]
    for number, band in enumerate(blocks):
        full = (1 << min(BAND_PX, height_px - number * BAND_PX)) - 1
        starts = [0, *(numpy.flatnonzero(numpy.diff(band)) + 1).tolist()]
        ends = [*starts[1:], len(band)]
        runs: dict[int, list[tuple[int, int]]] = {}
        for colour, first, end in zip(band[starts].tolist(), starts, ends, strict=True):
            runs.setdefault(colour, []).append((first * block_px, min(end * block_px, width_px)))
        parts.append(_painted_over(runs, full, width_px))
    return b"".join(parts) + b"\x1b\\"


def _painted_over(runs: dict[int, list[tuple[int, int]]], full: int, width_px: int) -> bytes:
    ground = max(runs, key=lambda colour: len(runs[colour]))
    lines = [b"#%d%b" % (ground, _run(full, width_px))]
    for colour, spans in runs.items():
        if colour == ground:
            continue
        line = [b"#%d" % colour]
        at_px = 0
        for first, end in spans:
            if first > at_px:
                line.append(_run(0, first - at_px))
            line.append(_run(full, end - first))
            at_px = end
        lines.append(b"".join(line))
    return b"$".join(lines) + b"-"
