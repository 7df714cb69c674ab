"""Where kitty's images are on the screen, and which of them a command deletes."""

from __future__ import annotations

from collections.abc import Callable

import msgspec


class Placement(msgspec.Struct, kw_only=True):
    """An image on the screen, or for placeholders; 0 rows or columns follow from the pixels."""

    image: int
    id: int
    row: int
    column: int
    columns: int
    rows: int
    source: tuple[int, int, int, int]
    """Left, top, width and height of the part that is shown, in pixels of the image."""
    offset: tuple[int, int]
    z: int
    virtual: bool

    def covers(self, row: int, column: int, cell_px: tuple[int, int]) -> bool:
        """Whether a cell shows a part of it."""
        columns, rows = self.size(cell_px)
        return self.row <= row < self.row + rows and self.column <= column < self.column + columns

    def size(self, cell_px: tuple[int, int]) -> tuple[int, int]:
        """Columns and rows, those that were left out reckoned from the pixels."""
        width, height = self.source[2], self.source[3]
        across, down = cell_px
        if not self.columns and not self.rows:
            return -(-(width + self.offset[0]) // across), -(-(height + self.offset[1]) // down)
        columns = self.columns or -(-width * self.rows * down // (height * across))
        rows = self.rows or -(-height * self.columns * across // (width * down))
        return columns, rows


class Placements:
    """All placements of one screen."""

    def __init__(self) -> None:
        self.all: list[Placement] = []

    def put(self, placement: Placement) -> None:
        """Add one; one with the same number for the same image moves."""
        if placement.id:
            self._drop(lambda old: (old.image, old.id) == (placement.image, placement.id))
        self.all.append(placement)

    def remove_image(self, image: int, placement_id: int = 0) -> None:
        """Those of an image, or the one with this number."""
        self._drop(lambda old: old.image == image and placement_id in (0, old.id))

    def remove_visible(self, is_meant: Callable[[Placement], bool] = lambda _: True) -> set[int]:
        """Those that are no base for placeholders; the images of what was removed."""
        return self._drop(lambda old: not old.virtual and is_meant(old))

    def _drop(self, is_meant: Callable[[Placement], bool]) -> set[int]:
        gone = {old.image for old in self.all if is_meant(old)}
        self.all = [old for old in self.all if not is_meant(old)]
        return gone

    @property
    def images(self) -> set[int]:
        """The images that have a placement."""
        return {placement.image for placement in self.all}

    def scroll(self, count: int) -> None:
        """Everything moves up."""
        for placement in self.all:
            placement.row -= 0 if placement.virtual else count
