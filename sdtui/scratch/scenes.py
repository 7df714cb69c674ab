"""Scenes: what can be drawn, which combinations are held out, and the drawing itself."""

import random
import zlib
from dataclasses import dataclass

from PIL import Image, ImageDraw

from sdtui.scratch.places import PLACES
from sdtui.scratch.shapes import DRAWINGS, PAINT, Pen
from sdtui.scratch.words import COLOURS, OBJECTS, SCENES

IMAGE_PX = 128
SUPERSAMPLING = 3  # drawn three times as large, then averaged: soft edges are what a small autoencoder can learn
HELD_OUT_SHARE = 10  # one combination of object, colour and place in ten is never drawn for training


@dataclass(frozen=True)
class Thing:
    kind: str
    colour: str
    position: str  # "left", "centre" or "right"


@dataclass(frozen=True)
class Scene:
    """One thing, or two from left to right, at a place."""

    things: tuple[Thing, ...]
    place: str


def is_held_out(kind: str, colour: str, place: str) -> bool:
    """Whether this combination belongs to the test, the same on every machine (CRC-32 of its words)."""
    return zlib.crc32(f"{colour} {kind} {place}".encode()) % HELD_OUT_SHARE == 0


def held_out_combinations() -> list[tuple[str, str, str]]:
    """All (kind, colour, place) that training never sees."""
    return [(k, c, p) for k in OBJECTS for c in COLOURS for p in SCENES if is_held_out(k, c, p)]


def sample_scene(rng: random.Random, two_share: float = 0.2) -> Scene:
    """A scene for training: uniform over what is not held out; one in five with two things of different kind and colour."""
    place = rng.choice(list(SCENES))
    two = rng.random() < two_share
    positions = ("left", "right") if two else (rng.choice(("left", "centre", "right")),)
    while True:
        kinds = rng.sample(list(OBJECTS), len(positions))
        colours = rng.sample(list(COLOURS), len(positions))
        if not any(is_held_out(k, c, place) for k, c in zip(kinds, colours, strict=True)):
            break
    things = tuple(Thing(*parts) for parts in zip(kinds, colours, positions, strict=True))
    return Scene(things, place)


def draw(scene: Scene, rng: random.Random) -> Image.Image:
    """The scene as a 128x128 RGB image; sizes, places, tilts and the background's details come from `rng`."""
    size_px = IMAGE_PX * SUPERSAMPLING
    image = PLACES[scene.place](size_px, rng)
    pen_tip = ImageDraw.Draw(image)
    alone = len(scene.things) == 1
    for thing in scene.things:
        radius = rng.uniform(0.265, 0.305) if alone else rng.uniform(0.2, 0.225)
        x = {"left": 0.3, "centre": 0.5, "right": 0.7}[thing.position] + rng.uniform(-0.025, 0.025)
        y = 0.6 + rng.uniform(-0.05, 0.05)
        centre_px = (x * size_px, y * size_px)
        pen = Pen(pen_tip, centre_px, radius * size_px, paint=PAINT[thing.colour], mirror=rng.random() < 0.5)
        DRAWINGS[thing.kind](pen)
    return image.resize((IMAGE_PX, IMAGE_PX), Image.Resampling.BOX)
