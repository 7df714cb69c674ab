"""A screen as one picture: backgrounds, characters, and the pictures under, between and over them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from sdtui.bench.screen.blocks import mask
from sdtui.bench.screen.cells import PLACEHOLDER, Cell, Cells
from sdtui.bench.screen.colours import DEFAULT, Pen, palette_index, rgb
from sdtui.bench.screen.diacritics import NUMBERS
from sdtui.bench.screen.kitty import KittyGraphics, KittyImage
from sdtui.bench.screen.kitty_placements import Placement

if TYPE_CHECKING:
    from sdtui.bench.screen.model import Screen

Canvas = npt.NDArray[np.float32]
"""(height, width, 3)."""
_BELOW_BACKGROUNDS: Final = -(1 << 30)
"""kitty draws a placement with a lower z under cells whose background is not the default."""


def paint(screen: Screen) -> Image.Image:
    """The whole screen as RGB."""
    canvas = np.empty((screen.rows * screen.cell_px[1], screen.columns * screen.cell_px[0], 3), np.float32)
    canvas[:] = screen.default_background
    colours = _CellColours(screen)
    placed = sorted((one for one in screen.kitty.placements.all if not one.virtual), key=lambda one: one.z)
    for placement in placed:
        if placement.z < _BELOW_BACKGROUNDS:
            _draw(canvas, screen, placement)
    colours.draw_backgrounds(canvas)
    for placement in placed:
        if _BELOW_BACKGROUNDS <= placement.z < 0:
            _draw(canvas, screen, placement)
    _draw_placeholders(canvas, screen)
    colours.draw_characters(canvas)
    for placement in placed:
        if placement.z >= 0:
            _draw(canvas, screen, placement)
    if screen.pixels.cells:
        _blend(canvas, screen.pixels.rgba, 0, 0)
    return Image.fromarray(np.rint(canvas).astype(np.uint8), "RGB")


class _CellColours:
    """Each cell's two colours and the shape of its character, as arrays."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        pens: dict[Pen, int] = {}
        shapes: dict[str, int] = {}
        pen_of = np.empty((screen.rows, screen.columns), np.int32)
        shape_of = np.empty((screen.rows, screen.columns), np.int32)
        for row, line in enumerate(screen.cells.lines):
            pen_of[row] = [pens.setdefault(pen, len(pens)) for _, pen in line]
            shape_of[row] = [shapes.setdefault("" if text[:1] == PLACEHOLDER else text[:1], len(shapes)) for text, _ in line]
        looks = [_look(pen, screen) for pen in pens]
        self._foregrounds = np.array([look[0] for look in looks], np.float32)[pen_of]  # (rows, columns, 3)
        self._backgrounds = np.array([look[1] for look in looks], np.float32)[pen_of]
        self._opaque = np.array([look[2] for look in looks])[pen_of]
        self._masks = np.stack([mask(text, *screen.cell_px) for text in shapes])[shape_of]  # (rows, columns, h, w)
        self._drawn = np.array([bool(text.strip()) for text in shapes])[shape_of]

    def draw_backgrounds(self, canvas: Canvas) -> None:
        """Those that are not the default."""
        cells = _by_cell(canvas, self._screen)
        cells[self._opaque] = self._backgrounds[self._opaque][:, None, None, :]

    def draw_characters(self, canvas: Canvas) -> None:
        """Every character that is no blank."""
        cells = _by_cell(canvas, self._screen)
        share = self._masks[self._drawn][..., None]
        inks = self._foregrounds[self._drawn][:, None, None, :]
        cells[self._drawn] = share * inks + (1 - share) * cells[self._drawn]


def _by_cell(canvas: Canvas, screen: Screen) -> npt.NDArray[np.float32]:
    """A view of the canvas as (rows, columns, cell height, cell width, 3)."""
    width, height = screen.cell_px
    return canvas.reshape(screen.rows, height, screen.columns, width, 3).swapaxes(1, 2)


def _look(pen: Pen, screen: Screen) -> tuple[tuple[int, int, int], tuple[int, int, int], bool]:
    """Foreground, background, and whether that is drawn at all."""
    ink = rgb(pen.foreground, screen.default_foreground)
    paper = rgb(pen.background, screen.default_background)
    return (paper, ink, True) if pen.reverse else (ink, paper, pen.background != DEFAULT)


def _draw(canvas: Canvas, screen: Screen, placement: Placement) -> None:
    image = screen.kitty.images.get(placement.image)
    if image is None:
        return
    left, top, width, height = placement.source
    part = image.frames[image.shown][top : top + height, left : left + width]
    across, down = screen.cell_px
    if placement.columns or placement.rows:
        columns, rows = placement.size(screen.cell_px)
        part = _resized(part, columns * across - placement.offset[0], rows * down - placement.offset[1])
    _blend(canvas, part, placement.row * down + placement.offset[1], placement.column * across + placement.offset[0])


def _resized(rgba: npt.NDArray[np.uint8], width: int, height: int) -> npt.NDArray[np.uint8]:
    if rgba.shape[:2] == (height, width):
        return rgba
    return np.asarray(Image.fromarray(rgba, "RGBA").resize((max(1, width), max(1, height)), Image.Resampling.BILINEAR))


def _blend(canvas: Canvas, rgba: npt.NDArray[np.uint8], top: int, left: int) -> None:
    """Lay a picture on the canvas; what hangs over is cut."""
    above, before = max(0, -top), max(0, -left)
    target = canvas[max(0, top) : max(0, top + rgba.shape[0]), max(0, left) : max(0, left + rgba.shape[1])]
    part = rgba[above : above + target.shape[0], before : before + target.shape[1]]
    share = part[..., 3:].astype(np.float32) / 255
    target[:] = part[..., :3] * share + target * (1 - share)


def _draw_placeholders(canvas: Canvas, screen: Screen) -> None:
    across, down = screen.cell_px
    scaled: dict[int, npt.NDArray[np.uint8]] = {}
    for row in range(screen.rows):
        for column, (identity, tile_row, tile_column) in placeholders(screen.cells, row).items():
            placement = virtual_placement(screen.kitty, identity)
            if placement is None:
                continue
            if identity not in scaled:
                scaled[identity] = _fitted(screen.kitty.images[identity], placement, screen)
            tile = scaled[identity][tile_row * down : (tile_row + 1) * down, tile_column * across : (tile_column + 1) * across]
            _blend(canvas, tile, row * down, column * across)


def virtual_placement(kitty: KittyGraphics, identity: int) -> Placement | None:
    """What placeholders of this image are drawn by."""
    return next((one for one in kitty.placements.all if one.virtual and one.image == identity), None)


def placeholders(cells: Cells, row: int) -> dict[int, tuple[int, int, int]]:
    """By column: image, row and column of its tile. What a cell leaves out, it takes from the one to its left."""
    found: dict[int, tuple[int, int, int]] = {}
    before: tuple[Pen, int, int, int] | None = None
    for column, cell in enumerate(cells.lines[row]):
        if cell[0][:1] != PLACEHOLDER:
            before = None
            continue
        before = _tile(cell, before)
        found[column] = before[1:]
    return found


def _tile(cell: Cell, before: tuple[Pen, int, int, int] | None) -> tuple[Pen, int, int, int]:
    text, pen = cell
    numbers = [NUMBERS.get(character, 0) for character in text[1:4]]
    low = palette_index(pen.foreground)
    low = max(0, pen.foreground) if low is None else low
    if before is not None and before[0] == pen and len(numbers) < 3:
        _, identity, row, column = before
        if not numbers or (numbers[0] == row and (len(numbers) == 1 or numbers[1] == column + 1)):
            return pen, identity, row, column + 1
    row, column, high = (*numbers, 0, 0, 0)[:3]
    return pen, low | high << 24, row, column


def _fitted(image: KittyImage, placement: Placement, screen: Screen) -> npt.NDArray[np.uint8]:
    """The image in the middle of its box of cells, aspect ratio kept."""
    columns, rows = placement.size(screen.cell_px)
    width, height = columns * screen.cell_px[0], rows * screen.cell_px[1]
    frame = image.frames[image.shown]
    scale = min(width / frame.shape[1], height / frame.shape[0])
    part = _resized(frame, round(frame.shape[1] * scale), round(frame.shape[0] * scale))
    box = np.zeros((height, width, 4), np.uint8)
    top, left = (height - part.shape[0]) // 2, (width - part.shape[1]) // 2
    box[top : top + part.shape[0], left : left + part.shape[1]] = part[:height, :width]
    return box
