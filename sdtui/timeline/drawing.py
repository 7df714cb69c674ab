"""One frame of an export: a step's view at the wanted size, with its caption in a strip below."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sdtui.timeline.views import Pixels, View, frame
from sdtui.timeline.wanted import Export, size_of
from sdtui.trajectory import INITIAL, Trajectory

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont
    from PIL.ImageFont import ImageFont as BitmapFont

SMOOTH: Final[frozenset[View]] = frozenset({"denoised", "latents", "vae"})
"""Views that stand for pictures are enlarged by cubic curves. The others show measured values, one for each latent pixel: they
are enlarged to squares, since curves between them would show values that nobody measured."""
_STRIP: Final = (16, 16, 20)
_INK: Final = (232, 232, 232)
_FONT_PER_PX: Final = 1 / 30
"""Of the picture's shorter side: 17 px of 512, which can be read when the picture is shown at half its size."""
_LEAST_FONT_PX: Final = 9
"""The smallest size at which Pillow's font can still be read."""


class Drawing:
    """Frames of one export, all of one size. Used by one thread at a time."""

    def __init__(self, trajectory: Trajectory, wanted: Export, steps: Sequence[int], *, even: bool = False) -> None:
        """`even` rounds both sides of the picture up to even numbers."""
        self._trajectory, self._wanted = trajectory, wanted
        width, height = size_of(trajectory, wanted)
        if even:
            width, height = width + width % 2, height + height % 2
        self._picture_px = width, height
        texts = {step: _parts(trajectory, step) for step in steps} if wanted.caption else {}
        self._caption = _Caption(texts, width, min(width, height)) if texts else None
        self.width_px = width
        self.height_px = height + (self._caption.height_px if self._caption else 0)

    def draw(self, step: int) -> Image.Image:
        """RGB, `width_px` x `height_px`. Raises `InspectedError`."""
        wanted = self._wanted
        picture = enlarged(
            frame(self._trajectory, step, wanted.view, picture=wanted.picture, channel=wanted.channel),
            self._picture_px,
            smooth=wanted.view in SMOOTH,
        )
        if self._caption is None:
            return picture
        whole = Image.new("RGB", (self.width_px, self.height_px), _STRIP)
        whole.paste(picture)
        self._caption.draw(whole, step, picture.height)
        return whole


def enlarged(pixels: Pixels, size: tuple[int, int], *, smooth: bool) -> Image.Image:
    """(h, w, 3) at another width and height: by cubic curves, or as squares; squares that get smaller are averaged."""
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    if picture.size == size:
        return picture
    if smooth:
        return picture.resize(size, Image.Resampling.BICUBIC)
    larger = size[0] >= picture.width and size[1] >= picture.height
    return picture.resize(size, Image.Resampling.NEAREST if larger else Image.Resampling.BOX)


def _parts(trajectory: Trajectory, step: int) -> tuple[str, str, str]:
    """`step 8/20`, `t 781`, `sigma 9.74`, as the log has them: Pillow's font has no Greek letters. Step 0 is the beginning."""
    if step == INITIAL:
        return f"step 0/{trajectory.total}", "", ""
    facts = trajectory.steps[step]
    sigma = f"{facts.ratio:.3g}" if math.isfinite(facts.ratio) else "infinite"
    return f"step {step + 1}/{facts.total}", f"t {facts.timestep:.0f}", f"sigma {sigma}"


class _Caption:
    """A strip of one line, or of three where the picture is narrow. Each part has a place of its own, so that nothing jumps."""

    def __init__(self, texts: dict[int, tuple[str, str, str]], width_px: int, shorter_px: int) -> None:
        self._texts = texts
        wanted = max(_LEAST_FONT_PX, round(shorter_px * _FONT_PER_PX))
        for size in range(wanted, _LEAST_FONT_PX - 1, -1):
            self._set(size)
            if self._right <= width_px:
                break
        self._stacked = self._right > width_px
        lines = 3 if self._stacked else 1
        height = math.ceil(lines * self._line_px + self._gap_px)
        self.height_px = height + height % 2

    def _set(self, size_px: int) -> None:
        self._font: FreeTypeFont | BitmapFont = ImageFont.load_default(size_px)
        widest = [max(self._font.getlength(text) for text in column) for column in zip(*self._texts.values(), strict=True)]
        self._line_px, self._gap_px = size_px * 1.3, size_px * 0.5
        self._lefts = [self._gap_px]
        for width in widest:
            self._lefts.append(self._lefts[-1] + width + size_px)
        self._right = self._lefts.pop() - size_px + self._gap_px

    def draw(self, whole: Image.Image, step: int, top: int) -> None:
        """Write a step's caption below this row."""
        pen = ImageDraw.Draw(whole)
        for number, text in enumerate(self._texts[step]):
            left, down = (self._gap_px, number * self._line_px) if self._stacked else (self._lefts[number], 0.0)
            pen.text((left, top + self._gap_px / 2 + down), text, fill=_INK, font=self._font)
