"""From pixels to half cells: each cell shows two pixels, the upper half block's foreground and its background."""

from __future__ import annotations

from pathlib import Path

import msgspec

from sdtui.ui.widgets.preview.surface import Frame

UPPER_HALF = "▀"


class HalfCells(msgspec.Struct, frozen=True):
    """A picture at cell resolution. `top[y]` and `bottom[y]` hold `columns * 3` bytes of RGB; `ansi[y]` draws the row."""

    columns: int
    rows: int
    top: tuple[bytes, ...]
    bottom: tuple[bytes, ...]
    ansi: tuple[str, ...]


def prepare() -> None:
    """Load the imaging library, which takes a tenth of a second, before the first preview needs it."""
    from PIL import Image

    Image.init()


def fit(width_px: int, height_px: int, columns: int, rows: int) -> tuple[int, int]:
    """Columns and rows of the largest picture of this aspect ratio; a cell is taken as twice as high as wide."""
    scale = min(columns / width_px, 2 * rows / height_px)
    return max(1, min(columns, round(width_px * scale))), max(1, min(rows, round(height_px * scale / 2)))


def to_half_cells(frame: Frame, columns: int, rows: int) -> HalfCells:
    """Scale `frame` to fit `columns` x `rows` cells and bake the bytes. Takes milliseconds: not for the event loop."""
    from PIL import Image

    columns, rows = fit(frame.width_px, frame.height_px, columns, rows)
    image = Image.frombytes("RGB", (frame.width_px, frame.height_px), frame.rgb)
    larger = columns >= frame.width_px
    resample = Image.Resampling.BILINEAR if larger else Image.Resampling.LANCZOS
    pixels = image.resize((columns, rows * 2), resample).tobytes()
    stride = columns * 3
    lines = [pixels[start : start + stride] for start in range(0, len(pixels), stride)]
    top, bottom = tuple(lines[::2]), tuple(lines[1::2])
    return HalfCells(columns, rows, top, bottom, tuple(map(_bake_row, top, bottom)))


def _bake_row(top: bytes, bottom: bytes) -> str:
    """The bytes that draw one row of cells; a colour is only sent where it changes."""
    parts: list[str] = []
    upper = lower = (-1, -1, -1)
    triples = zip(top[::3], top[1::3], top[2::3], bottom[::3], bottom[1::3], bottom[2::3], strict=True)
    for r1, g1, b1, r2, g2, b2 in triples:
        if (r1, g1, b1) != upper:
            upper = (r1, g1, b1)
            parts.append(f"\x1b[38;2;{r1};{g1};{b1}m")
        if (r2, g2, b2) != lower:
            lower = (r2, g2, b2)
            parts.append(f"\x1b[48;2;{r2};{g2};{b2}m")
        parts.append(UPPER_HALF)
    parts.append("\x1b[0m")
    return "".join(parts)


def read_picture(path: Path, limit_px: int = 1024) -> Frame:
    """A picture file as RGB, reduced to at most `limit_px` on its longer side. Raises `OSError`, `ValueError`."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.draft("RGB", (limit_px, limit_px))
            picture = image.convert("RGB")
    except Image.DecompressionBombError as error:
        raise ValueError(str(error)) from error
    picture.thumbnail((limit_px, limit_px), Image.Resampling.LANCZOS)
    return Frame(picture.width, picture.height, picture.tobytes())
