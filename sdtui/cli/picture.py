"""Pictures on the terminal for commands: half cells through rich, and the finished still in the terminal's own way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.color import Color
from rich.console import Console, ConsoleOptions
from rich.segment import Segment
from rich.style import Style

if TYPE_CHECKING:
    from PIL import Image

_ROWS_LEFT: Final = 4
"""Rows below a picture that stay free for the bar and the shell's prompt."""
_MAX_ROWS: Final = 32
"""More rows cost more bytes a frame than a slow link carries; 32 rows are 64 pixels."""


class HalfCells:
    """A picture of two pixels a cell: the upper one in the foreground of `▀`, the lower one in the background."""

    def __init__(self, image: Image.Image) -> None:
        self._image = image.convert("RGB")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        """The picture as large as the terminal allows, its sides in proportion."""
        rows = max(1, min(_MAX_ROWS, console.size.height - _ROWS_LEFT))
        width, height = fit(self._image.size, options.max_width, rows * 2)
        pixels = self._image.resize((width, height), resample=_filter(self._image.size, (width, height))).tobytes()
        stride = width * 3
        for row in range(0, height, 2):
            for column in range(width):
                upper = row * stride + column * 3
                lower = upper + stride
                yield Segment("▀", _style(pixels[upper : upper + 3], pixels[lower : lower + 3]))
            yield Segment.line()


def _filter(source: tuple[int, int], target: tuple[int, int]) -> Image.Resampling:
    """Averaging when the picture gets smaller, smooth when it gets larger."""
    from PIL.Image import Resampling

    return Resampling.BOX if target[0] < source[0] else Resampling.BICUBIC


def _style(upper: bytes, lower: bytes) -> Style:
    return Style(color=Color.from_rgb(*upper), bgcolor=Color.from_rgb(*lower))


def fit(size: tuple[int, int], max_width: int, max_height: int) -> tuple[int, int]:
    """The largest width and even height in the picture's proportions within these limits."""
    scale = min(max_width / size[0], max_height / size[1])
    width = max(1, round(size[0] * scale))
    height = max(2, round(size[1] * scale / 2) * 2)
    return min(width, max_width), min(height, max(2, max_height))


def can_show(console: Console) -> bool:
    """Whether half cells would be a picture here: a terminal with more than the 16 colours."""
    return console.is_terminal and console.color_system in ("truecolor", "256") and console.encoding.startswith("utf")


def show_still(path: Path, console: Console) -> None:
    """Print a finished picture: by the terminal's own graphics where textual-image finds them, else in half cells."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            image.load()
            if not _print_pixels(image, console):
                console.print(HalfCells(image))
    except (OSError, UnidentifiedImageError):
        return  # the picture is shown for pleasure; its path is the result


def _print_pixels(image: Image.Image, console: Console) -> bool:
    """Print by textual-image where the terminal draws pixels; False where half cells must do."""
    from sdtui.ui.widgets.preview.graphics import still_surface

    if still_surface() is None:
        return False
    rows = max(1, min(_MAX_ROWS, console.size.height - _ROWS_LEFT))
    width, height = fit(image.size, console.size.width, rows * 2)
    try:
        from textual_image.renderable import Image as Renderable

        console.print(Renderable(image, width=width, height=height // 2))
    except Exception:  # it fails in many ways on odd terminals, and half cells are there
        return False
    return True
