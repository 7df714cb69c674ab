"""The fourteen objects, each drawn in one colour with a rim, in a square from -1 to 1 with y downwards."""

import math
from collections.abc import Callable, Sequence
from typing import Final

from PIL import ImageDraw

Rgb = tuple[int, int, int]
Points = Sequence[tuple[float, float]]

PAINT: Final[dict[str, Rgb]] = {
    "red": (214, 30, 34),
    "orange": (250, 136, 16),
    "yellow": (252, 226, 44),
    "green": (30, 150, 52),
    "blue": (32, 84, 220),
    "purple": (128, 36, 168),
    "pink": (252, 140, 190),
    "brown": (122, 70, 30),
    "white": (250, 250, 250),
    "black": (22, 22, 26),
}


class Pen:
    """Draws polygons and ellipses given in the object's own square; `mirror` swaps its left and right."""

    def __init__(
        self, draw: ImageDraw.ImageDraw, centre_px: tuple[float, float], radius_px: float, *, paint: Rgb, mirror: bool
    ) -> None:
        self._draw = draw
        self._centre_px = centre_px
        self._radius_px = radius_px
        self._sign = -1.0 if mirror else 1.0
        self.paint = paint
        dark = max(paint) < 60
        self.rim: Rgb = (150, 150, 158) if dark else _scaled(paint, 0.5)
        self.shade: Rgb = (70, 70, 78) if dark else _scaled(paint, 0.72)
        self._rim_px = max(1, round(radius_px * 0.07))

    def polygon(self, points: Points, fill: Rgb | None = None) -> None:
        """A filled polygon with a rim."""
        pixels = [self._place(x, y) for x, y in points]
        self._draw.polygon(pixels, fill=fill or self.paint)
        self._draw.line([*pixels, pixels[0], pixels[1]], fill=self.rim, width=self._rim_px, joint="curve")

    def ellipse(self, x: float, y: float, rx: float, ry: float, *, fill: Rgb | None = None, rim: bool = True) -> None:
        """A filled ellipse around (x, y)."""
        (x0, y0), (x1, y1) = self._place(x - rx, y - ry), self._place(x + rx, y + ry)
        box = (min(x0, x1), y0, max(x0, x1), y1)
        self._draw.ellipse(box, fill=fill or self.paint, outline=self.rim if rim else None, width=self._rim_px)

    def line(self, points: Points, width: float, fill: Rgb | None = None) -> None:
        """An open line; the width is a share of the object's radius."""
        pixels = [self._place(x, y) for x, y in points]
        self._draw.line(pixels, fill=fill or self.rim, width=max(1, round(width * self._radius_px)), joint="curve")

    def _place(self, x: float, y: float) -> tuple[float, float]:
        cx, cy = self._centre_px
        return cx + self._sign * x * self._radius_px, cy + y * self._radius_px


def _scaled(rgb: Rgb, factor: float) -> Rgb:
    red, green, blue = (int(value * factor) for value in rgb)
    return red, green, blue


def _arc(
    centre: tuple[float, float], radii: tuple[float, float], degrees: tuple[float, float], count: int = 24
) -> list[tuple[float, float]]:
    """Points of an ellipse's arc; 0 degrees is to the right, 90 below."""
    (x, y), (rx, ry), (start, end) = centre, radii, degrees
    angles = (math.radians(start + (end - start) * i / (count - 1)) for i in range(count))
    return [(x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles]


def cat(pen: Pen) -> None:
    """A sitting cat from the front: ears, head, body, tail."""
    pen.line(_arc((0.45, 0.5), (0.42, 0.42), (80, -60)), 0.2)
    pen.line(_arc((0.45, 0.5), (0.42, 0.42), (80, -60)), 0.11, pen.paint)
    pen.ellipse(0, 0.5, 0.48, 0.5)
    pen.polygon([(-0.55, -0.35), (-0.6, -1.0), (-0.1, -0.65)])
    pen.polygon([(0.55, -0.35), (0.6, -1.0), (0.1, -0.65)])
    pen.ellipse(0, -0.3, 0.6, 0.46)
    for x in (-0.24, 0.24):
        pen.ellipse(x, -0.36, 0.11, 0.13, fill=(240, 250, 200), rim=False)
        pen.ellipse(x, -0.36, 0.05, 0.11, fill=(10, 10, 10), rim=False)
    pen.ellipse(0, -0.12, 0.09, 0.06, fill=(235, 130, 140), rim=False)


def fish(pen: Pen) -> None:
    """A fish swimming to the left: oval, tail fin, eye."""
    pen.polygon([(0.35, 0.0), (0.98, -0.52), (0.82, 0.0), (0.98, 0.52)])
    pen.polygon([(-0.3, -0.4), (0.1, -0.75), (0.35, -0.3)])
    pen.ellipse(-0.2, 0, 0.74, 0.48)
    pen.line(_arc((-0.75, 0), (0.4, 0.5), (-40, 40)), 0.07)
    pen.ellipse(-0.6, -0.1, 0.11, 0.11, fill=(255, 255, 255), rim=False)
    pen.ellipse(-0.62, -0.1, 0.06, 0.06, fill=(10, 10, 10), rim=False)


def bird(pen: Pen) -> None:
    """A standing bird from the side: round head, beak, wing, tail, two legs."""
    for x in (-0.12, 0.14):
        pen.line([(x, 0.5), (x, 0.95), (x - 0.18, 0.95)], 0.08, (226, 140, 40))
    pen.polygon([(-0.66, -0.62), (-1.0, -0.42), (-0.62, -0.34)], (245, 170, 40))
    pen.polygon([(0.35, -0.02), (1.0, -0.3), (0.95, 0.08), (0.4, 0.42)])
    pen.ellipse(0.05, 0.18, 0.6, 0.46)
    pen.ellipse(-0.4, -0.46, 0.36, 0.36)
    pen.polygon(_arc((0.16, 0.06), (0.42, 0.38), (0, 180)), pen.shade)
    pen.ellipse(-0.48, -0.52, 0.08, 0.08, fill=(255, 255, 255), rim=False)
    pen.ellipse(-0.49, -0.52, 0.045, 0.045, fill=(10, 10, 10), rim=False)


def tree(pen: Pen) -> None:
    """A leafy tree: three round clumps in the colour on a brown trunk."""
    pen.polygon([(-0.15, 0.1), (0.15, 0.1), (0.22, 0.98), (-0.22, 0.98)], (106, 66, 36))
    pen.ellipse(-0.42, -0.05, 0.46, 0.4)
    pen.ellipse(0.42, -0.05, 0.46, 0.4)
    pen.ellipse(0, -0.48, 0.56, 0.5)


def house(pen: Pen) -> None:
    """A house: coloured walls and darker roof, a door, two windows."""
    pen.polygon([(0.35, -0.9), (0.58, -0.9), (0.58, -0.3), (0.35, -0.3)], pen.shade)
    pen.polygon([(-0.72, -0.15), (0.72, -0.15), (0.72, 0.92), (-0.72, 0.92)])
    pen.polygon([(-0.98, -0.1), (0, -0.95), (0.98, -0.1)], pen.shade)
    pen.polygon([(-0.16, 0.38), (0.16, 0.38), (0.16, 0.92), (-0.16, 0.92)], pen.rim)
    for x in (-0.46, 0.46):
        pen.polygon([(x - 0.15, 0.1), (x + 0.15, 0.1), (x + 0.15, 0.4), (x - 0.15, 0.4)], (255, 240, 170))


def boat(pen: Pen) -> None:
    """A sailing boat: hull and two sails in the colour, a mast."""
    pen.line([(0, -0.98), (0, 0.42)], 0.1, (90, 60, 40))
    pen.polygon([(0.1, -0.92), (0.1, 0.28), (0.86, 0.28)])
    pen.polygon([(-0.1, -0.7), (-0.1, 0.28), (-0.68, 0.28)], pen.shade)
    pen.polygon([(-0.98, 0.42), (0.98, 0.42), (0.64, 0.92), (-0.64, 0.92)])


def car(pen: Pen) -> None:
    """A car from the side: body, cabin with windows, two wheels."""
    pen.polygon([(-0.56, 0.02), (-0.36, -0.48), (0.3, -0.48), (0.56, 0.02)])
    pen.polygon([(-0.4, -0.02), (-0.27, -0.35), (-0.04, -0.35), (-0.04, -0.02)], (196, 230, 246))
    pen.polygon([(0.06, -0.02), (0.06, -0.35), (0.23, -0.35), (0.4, -0.02)], (196, 230, 246))
    pen.polygon([(-0.98, 0.42), (-0.98, 0.1), (-0.8, 0.0), (0.8, 0.0), (0.98, 0.14), (0.98, 0.42)])
    for x in (-0.54, 0.54):
        pen.ellipse(x, 0.44, 0.26, 0.26, fill=(40, 40, 44))
        pen.ellipse(x, 0.44, 0.11, 0.11, fill=(200, 200, 204), rim=False)


def mushroom(pen: Pen) -> None:
    """A mushroom: a coloured cap with pale spots on a cream stalk."""
    pen.polygon([(-0.2, 0.0), (0.2, 0.0), (0.3, 0.95), (-0.3, 0.95)], (244, 230, 200))
    pen.polygon(_arc((0, 0.12), (0.92, 0.98), (180, 360)))
    for x, y, r in ((-0.46, -0.22, 0.14), (0.05, -0.5, 0.16), (0.5, -0.18, 0.13)):
        pen.ellipse(x, y, r, r, fill=(255, 246, 220), rim=False)


def flower(pen: Pen) -> None:
    """A flower: six petals around a yellow heart, on a green stalk with a leaf."""
    pen.line([(0, 0), (0, 0.98)], 0.13, (40, 120, 50))
    pen.ellipse(0.26, 0.72, 0.26, 0.12, fill=(60, 150, 60), rim=False)
    for i in range(6):
        angle = math.radians(60 * i + 30)
        pen.ellipse(0.4 * math.cos(angle), -0.32 + 0.4 * math.sin(angle), 0.27, 0.27)
    pen.ellipse(0, -0.32, 0.24, 0.24, fill=(250, 206, 60))


def star(pen: Pen) -> None:
    """A star with five points."""
    radii = (1.0, 0.46)
    angles = (math.radians(-90 + 36 * i) for i in range(10))
    pen.polygon([(radii[i % 2] * math.cos(a), 0.05 + radii[i % 2] * math.sin(a)) for i, a in enumerate(angles)])


def heart(pen: Pen) -> None:
    """The curve x = 16 sin^3 t, y = 13 cos t - 5 cos 2t - 2 cos 3t - cos 4t."""
    points = []
    for i in range(60):
        t = math.tau * i / 60
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((0.92 * math.sin(t) ** 3, -y / 17 - 0.08))
    pen.polygon(points)


def ball(pen: Pen) -> None:
    """A ball with two curved seams and a highlight."""
    pen.ellipse(0, 0, 0.82, 0.82)
    pen.line(_arc((-1.0, 0), (0.72, 0.9), (-52, 52)), 0.08)
    pen.line(_arc((1.0, 0), (0.72, 0.9), (128, 232)), 0.08)


def umbrella(pen: Pen) -> None:
    """An open umbrella: a scalloped dome over a hooked stick."""
    pen.line([(0, -0.2), (0, 0.74), *_arc((0.18, 0.74), (0.18, 0.2), (180, 20), 10)], 0.11, (90, 66, 50))
    rim = [point for x in (0.66, 0.0, -0.66) for point in _arc((x, 0.08), (0.33, 0.2), (360, 180), 8)]
    pen.polygon(_arc((0, 0.08), (0.99, 0.98), (180, 360)) + rim)
    pen.line([(-0.33, 0.06), (0, -0.88), (0.33, 0.06)], 0.06)


def cup(pen: Pen) -> None:
    """A mug with a handle to the right and a dark drink at its brim."""
    pen.line(_arc((0.5, 0.05), (0.42, 0.36), (-90, 90)), 0.26)
    pen.line(_arc((0.5, 0.05), (0.42, 0.36), (-90, 90)), 0.14, pen.paint)
    pen.polygon([(-0.72, -0.55), (0.56, -0.55), (0.46, 0.72), *_arc((-0.08, 0.72), (0.54, 0.16), (0, 180), 10), (-0.62, 0.72)])
    pen.ellipse(-0.08, -0.55, 0.64, 0.18, fill=(84, 52, 36))


DRAWINGS: Final[dict[str, Callable[[Pen], None]]] = {
    "cat": cat,
    "fish": fish,
    "bird": bird,
    "tree": tree,
    "house": house,
    "boat": boat,
    "car": car,
    "mushroom": mushroom,
    "flower": flower,
    "star": star,
    "heart": heart,
    "ball": ball,
    "umbrella": umbrella,
    "cup": cup,
}
