"""The eight backgrounds: a sky gradient, a ground, and one or two large marks that tell the place."""

import random
from collections.abc import Callable
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

Rgb = tuple[int, int, int]


def gradient(size_px: int, top: Rgb, bottom: Rgb) -> Image.Image:
    """A square image that fades from the top colour to the bottom colour."""
    weight = np.linspace(0.0, 1.0, size_px)[:, None, None]
    rows = np.asarray(top) * (1 - weight) + np.asarray(bottom) * weight
    return Image.fromarray(np.broadcast_to(rows, (size_px, size_px, 3)).astype(np.uint8).copy())


class Ground:
    """A canvas measured from 0 to 1, with hills."""

    def __init__(self, image: Image.Image, rng: random.Random) -> None:
        self.draw = ImageDraw.Draw(image)
        self.rng = rng
        self._size_px = image.width

    def hill(self, height: float, bend: float, colour: Rgb) -> None:
        """Everything below a parabola through `height` at both edges, `bend` higher in its middle, shifted at random."""
        shift = self.rng.uniform(-0.3, 0.3)
        xs = np.linspace(-0.05, 1.05, 40)
        ys = height - bend * (1 - 4 * (xs - 0.5 - shift) ** 2)
        self.polygon([*zip(xs.tolist(), ys.tolist(), strict=True), (1.05, 1.05), (-0.05, 1.05)], colour)

    def polygon(self, points: list[tuple[float, float]], colour: Rgb) -> None:
        self.draw.polygon([(x * self._size_px, y * self._size_px) for x, y in points], fill=colour)

    def box(self, x0: float, y0: float, x1: float, y1: float, colour: Rgb) -> None:
        s = self._size_px
        self.draw.rectangle((x0 * s, y0 * s, x1 * s, y1 * s), fill=colour)

    def disc(self, x: float, y: float, radius: float, colour: Rgb) -> None:
        s = self._size_px
        self.draw.ellipse(((x - radius) * s, (y - radius) * s, (x + radius) * s, (y + radius) * s), fill=colour)


def desert(size_px: int, rng: random.Random) -> Image.Image:
    image = gradient(size_px, (255, 214, 150), (255, 240, 205))
    ground = Ground(image, rng)
    ground.disc(rng.uniform(0.1, 0.9), 0.16, 0.09, (255, 250, 225))
    ground.hill(rng.uniform(0.55, 0.62), 0.12, (226, 178, 110))
    ground.hill(rng.uniform(0.72, 0.78), -0.06, (212, 160, 92))
    return image


def forest(size_px: int, rng: random.Random) -> Image.Image:
    image = gradient(size_px, (36, 84, 56), (74, 124, 76))
    ground = Ground(image, rng)
    start = rng.uniform(-0.08, 0.02)
    for i in range(5):
        x = start + 0.24 * i + rng.uniform(-0.03, 0.03)
        ground.box(x, -0.1, x + rng.uniform(0.07, 0.1), 0.85, (62, 54, 40))
    ground.hill(rng.uniform(0.74, 0.8), 0.03, (46, 76, 40))
    return image


def sea(size_px: int, rng: random.Random) -> Image.Image:
    image = gradient(size_px, (170, 214, 240), (226, 242, 250))
    ground = Ground(image, rng)
    horizon = rng.uniform(0.5, 0.58)
    ground.box(-0.1, horizon, 1.1, 1.1, (38, 134, 170))
    ground.box(-0.1, horizon + 0.14, 1.1, 1.1, (26, 112, 152))
    ground.box(-0.1, horizon + 0.3, 1.1, 1.1, (18, 92, 132))
    return image


def snow(size_px: int, rng: random.Random) -> Image.Image:
    image = gradient(size_px, (158, 176, 204), (214, 222, 236))
    ground = Ground(image, rng)
    ground.hill(rng.uniform(0.56, 0.62), 0.1, (226, 234, 244))
    ground.hill(rng.uniform(0.72, 0.78), -0.05, (240, 245, 251))
    for _ in range(9):
        ground.disc(rng.random(), rng.uniform(0.02, 0.5), 0.018, (250, 252, 255))
    return image


def night(size_px: int, rng: random.Random) -> Image.Image:
    image = gradient(size_px, (10, 14, 48), (44, 52, 104))
    ground = Ground(image, rng)
    x = rng.choice((rng.uniform(0.1, 0.3), rng.uniform(0.7, 0.9)))
    ground.disc(x, 0.15, 0.1, (244, 240, 204))
    ground.disc(x + 0.045, 0.125, 0.085, (14, 18, 54))
    ground.hill(rng.uniform(0.76, 0.82), 0.06, (18, 28, 44))
    return image


def meadow(size_px: int, rng: random.Random) -> Image.Image:
    image = gradient(size_px, (104, 182, 246), (186, 226, 252))
    ground = Ground(image, rng)
    x = rng.uniform(0.1, 0.9)
    for dx, radius in ((-0.08, 0.055), (0.0, 0.08), (0.09, 0.06)):
        ground.disc(x + dx, 0.17, radius, (246, 250, 254))
    ground.hill(rng.uniform(0.6, 0.66), 0.08, (140, 204, 92))
    ground.hill(rng.uniform(0.74, 0.8), -0.05, (122, 190, 74))
    return image


def city(size_px: int, rng: random.Random) -> Image.Image:
    image = gradient(size_px, (214, 196, 206), (240, 224, 214))
    ground = Ground(image, rng)
    x = rng.uniform(-0.1, 0.0)
    while x < 1.0:
        width, top = rng.uniform(0.15, 0.22), rng.uniform(0.12, 0.42)
        ground.box(x, top, x + width, 0.85, rng.choice(((128, 124, 138), (148, 142, 152), (112, 110, 126))))
        for row in range(4):
            y = top + 0.05 + 0.12 * row
            ground.box(x + 0.04, y, x + 0.075, y + 0.055, (240, 222, 160))
            ground.box(x + width - 0.075, y, x + width - 0.04, y + 0.055, (240, 222, 160))
        x += width
    ground.box(-0.1, rng.uniform(0.77, 0.81), 1.1, 1.1, (82, 82, 90))
    ground.box(-0.1, 0.9, 1.1, 0.925, (206, 204, 196))
    return image


def space(size_px: int, rng: random.Random) -> Image.Image:
    image = gradient(size_px, (6, 4, 14), (38, 14, 54))
    ground = Ground(image, rng)
    for _ in range(14):
        ground.disc(rng.random(), rng.random(), rng.uniform(0.009, 0.015), (226, 226, 240))
    x = rng.choice((rng.uniform(0.05, 0.25), rng.uniform(0.75, 0.95)))
    ground.disc(x, 0.14, 0.13, (196, 120, 84))
    ground.disc(x - 0.03, 0.11, 0.09, (214, 146, 104))
    ground.hill(1.0, 0.16, (96, 84, 120))
    return image


PLACES: Final[dict[str, Callable[[int, random.Random], Image.Image]]] = {
    "desert": desert,
    "forest": forest,
    "sea": sea,
    "snow": snow,
    "night": night,
    "meadow": meadow,
    "city": city,
    "space": space,
}
