"""Pictures and places: what a sink is given. Pixels and terminal cells never share a name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from PIL.Image import Image


class Frame(msgspec.Struct, frozen=True):
    """A picture in memory: raw RGB, row by row, `width_px * height_px * 3` bytes."""

    width_px: int
    height_px: int
    rgb: bytes

    @property
    def is_whole(self) -> bool:
        """Whether there are pixels, and as many bytes as they need."""
        return self.width_px > 0 and self.height_px > 0 and len(self.rgb) == self.width_px * self.height_px * 3

    def image(self) -> Image:
        """The same as a Pillow image, without a copy of the pixels. Raises `ValueError` when it is not whole."""
        from PIL import Image

        if not self.is_whole:
            raise ValueError(f"{len(self.rgb)} bytes are no picture of {self.width_px}x{self.height_px} pixels.")
        return Image.frombuffer("RGB", (self.width_px, self.height_px), self.rgb, "raw", "RGB", 0, 1)

    @classmethod
    def of(cls, image: Image) -> Frame:
        """A Pillow image as a frame; transparency lies on black."""
        picture = image if image.mode == "RGB" else image.convert("RGB")
        return cls(picture.width, picture.height, picture.tobytes())


class CellSize(msgspec.Struct, frozen=True):
    """How large one character cell is. Not always whole: terminals in a browser have cells of 7.8 pixels."""

    width_px: float
    height_px: float


FORMATS: Final = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""Pillow knows more, but starts Ghostscript for one of them."""
MAX_PIXELS: Final = 89_478_485
"""A quarter of a gigabyte as RGB: Pillow's own limit, from which on it only warns."""
USUAL_CELL: Final = CellSize(8, 16)
"""Where a terminal does not say: nearly all fonts are about twice as high as wide."""


class Spot(msgspec.Struct, frozen=True):
    """A rectangle of cells on the screen; `column` and `row` count from 0."""

    column: int
    row: int
    columns: int
    rows: int


def fit(width_px: int, height_px: int, columns: int, rows: int, cell: CellSize = USUAL_CELL) -> tuple[int, int]:
    """Columns and rows, at least one each, of the largest picture with this aspect ratio in so many cells."""
    scale = min(columns * cell.width_px / width_px, rows * cell.height_px / height_px)
    wide, high = round(width_px * scale / cell.width_px), round(height_px * scale / cell.height_px)
    return max(1, min(columns, wide)), max(1, min(rows, high))


def read_picture(path: Path, limit_px: int = 1024) -> Frame:
    """A picture file as RGB, reduced to at most `limit_px` on its longer side. Raises `OSError`, `ValueError`.

    One of more than `MAX_PIXELS` is refused by what its header says, before anything of it is unpacked.
    """
    from PIL import Image

    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"it has {image.width}x{image.height} pixels; up to {MAX_PIXELS:,} are unpacked")
            image.draft("RGB", (limit_px, limit_px))
            picture = image.convert("RGB")
        picture.thumbnail((limit_px, limit_px), Image.Resampling.LANCZOS)
        return Frame.of(picture)
    except (OSError, ValueError):
        raise
    except Exception as error:  # a damaged file makes Pillow's decoders raise whatever they come upon
        raise ValueError(str(error) or type(error).__name__) from error
