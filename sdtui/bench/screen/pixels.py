"""The pixels that sixel and iTerm2 pictures leave on a screen: they belong to cells, and go when those are written."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Rgba = npt.NDArray[np.uint8]
"""(height, width, 4); alpha 0 shows what is behind."""


class Pixels:
    """A layer over the characters."""

    def __init__(self, columns: int, rows: int, cell_px: tuple[int, int]) -> None:
        self.columns, self.rows, self._cell_px = columns, rows, cell_px
        self.rgba: Rgba = np.zeros((rows * cell_px[1], columns * cell_px[0], 4), np.uint8)
        self.cells: set[tuple[int, int]] = set()
        """Row and column of each cell that has pixels."""

    def paint(self, row: int, column: int, picture: Rgba) -> None:
        """Put a picture with its upper left corner in a cell; transparent pixels change nothing, what hangs over is cut."""
        width, height = self._cell_px
        top, left = row * height, column * width
        target = self.rgba[top : top + picture.shape[0], left : left + picture.shape[1]]
        if target.size == 0:
            return
        picture = picture[: target.shape[0], : target.shape[1]]
        solid = picture[..., 3] > 0
        target[solid] = picture[solid]
        rows, columns = -(-target.shape[0] // height), -(-target.shape[1] // width)
        self.cells.update((row + down, column + across) for down in range(rows) for across in range(columns))

    def erase(self, row: int, start: int, stop: int) -> None:
        """Cells of a row are written: their pixels are gone."""
        if not self.cells:
            return
        gone = {(row, column) for column in range(start, stop)} & self.cells
        if gone:
            width, height = self._cell_px
            self.rgba[row * height : (row + 1) * height, start * width : stop * width] = 0
            self.cells -= gone

    def scroll(self, count: int) -> None:
        """Everything moves up by so many rows."""
        if self.cells:
            moved = count * self._cell_px[1]
            self.rgba[: len(self.rgba) - moved] = self.rgba[moved:].copy()
            self.rgba[len(self.rgba) - moved :] = 0
            self.cells = {(row - count, column) for row, column in self.cells if row >= count}
