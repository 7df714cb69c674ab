"""The test card: what a terminal must show well to show pictures well. Made anew for each size, so that no pixel is scaled."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from sdtui.terminal.picture import Frame

if TYPE_CHECKING:
    from PIL.Image import Image

PHOTO: Final = Path(__file__).with_name("card.png")
"""Made by the model that ships: sdtui meta says how."""
SHAPE: Final = (1100, 480)
"""Its usual sides, as a ratio."""
_BACKGROUND: Final = (24, 24, 32)
_INK: Final = (235, 235, 235)
_GAP_SHARE: Final = 40
"""The gap between two fields is this part of the height."""
_PERIODS_PX: Final = (2, 3, 4, 8)
"""From line to line: where pixels are scaled, the finest lines beat."""
_LINES: Final = ((0.44, "sdtui 012345"), (0.28, "Large and small, Il1 O0 8B"), (0.18, "a red boat at sea, seed 5, 30 steps"))
"""How much of the field's height a line of text takes, and the line."""
_LEAST_TEXT_PX: Final = 6


def make_card(width_px: int, height_px: int) -> Frame:
    """The photo at the left; beside it, from above: a grey ramp, all hues, fields of fine lines, text in three sizes."""
    from PIL import Image

    card = Image.new("RGB", (width_px, height_px), _BACKGROUND)
    photo_px = max(1, min(height_px, width_px // 2))
    with Image.open(PHOTO) as photo:
        card.paste(photo.convert("RGB").resize((photo_px, photo_px), Image.Resampling.BICUBIC))
    gap = max(1, height_px // _GAP_SHARE)
    left, wide = photo_px + gap, max(1, width_px - photo_px - 2 * gap)
    high = [height_px * share // 100 for share in (16, 16, 28)]
    fields = (_ramp(wide, high[0]), _hues(wide, high[1]), _lines(wide, high[2]))
    top = gap
    for field in fields:
        card.paste(field, (left, top))
        top += field.height + gap
    card.paste(_text(wide, max(1, height_px - top - gap)), (left, top))
    return Frame.of(card)


def _ramp(width_px: int, height_px: int) -> Image:
    """From black to white."""
    from PIL import Image

    return Image.linear_gradient("L").rotate(90).resize((width_px, max(1, height_px))).convert("RGB")


def _hues(width_px: int, height_px: int) -> Image:
    """All hues from left to right, full at the top and dark at the bottom."""
    from PIL import Image

    size = (width_px, max(1, height_px))
    hue = Image.linear_gradient("L").rotate(90).resize(size)
    value = Image.linear_gradient("L").rotate(180).resize(size)
    return Image.merge("HSV", (hue, Image.new("L", size, 255), value)).convert("RGB")


def _lines(width_px: int, height_px: int) -> Image:
    """A field of one-pixel lines for each distance: upright above, level below."""
    from PIL import Image, ImageDraw

    field = Image.new("RGB", (width_px, max(1, height_px)), (0, 0, 0))
    draw = ImageDraw.Draw(field)
    middle, step = height_px // 2, width_px / len(_PERIODS_PX)
    for number, period in enumerate(_PERIODS_PX):
        first, end = round(number * step), round((number + 1) * step) - 2
        for x in range(first, end, period):
            draw.line((x, 0, x, middle - 2), fill=_INK)
        for y in range(middle, height_px, period):
            draw.line((first, y, end - 1, y), fill=_INK)
    return field


def _text(width_px: int, height_px: int) -> Image:
    from PIL import Image, ImageDraw, ImageFont

    field = Image.new("RGB", (width_px, height_px), _BACKGROUND)
    draw = ImageDraw.Draw(field)
    top = 0
    for share, text in (
        (0.44, "sdtui 012345"),
        (0.28, "Large and small, Il1 O0 8B"),
        (0.18, "a red boat at sea, seed 5, 30 steps"),
    ):
        size = height_px * share
        if size >= _LEAST_TEXT_PX:
            font = ImageFont.load_default(size * 0.85)
            draw.text((0, top), text, fill=_INK, font=font)
        top += round(size * 1.1)
    return field
