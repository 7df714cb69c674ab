"""Sixel graphics back to pixels (DEC VT330/VT340 Programmer Reference Manual, volume 2, chapter 14)."""

from __future__ import annotations

import colorsys
import re
from typing import Final

import msgspec
import numpy as np

from sdtui.bench.screen.pixels import Rgba

_TOKEN: Final = re.compile(rb"([?-~]+)|!(\d+)([?-~])|#(\d+)((?:;\d+)*)|(\$)|(-)|\"([\d;]*)|([\r\n ])")
_ROWS: Final = 6
_MOST_REGISTERS: Final = 1024
"""xterm's limit; a VT340 has 16."""
_TOO_LARGE_PX: Final = 10_000


class Sixels(msgspec.Struct, kw_only=True):
    """One sixel picture."""

    pixels: Rgba
    transparent: bool
    """P2 = 1: what is not drawn shows what is behind."""
    registers: int
    late_definitions: int
    """Colours defined after the first pixel: xterm up to 379 and foot 1.13 draw their first run in the old colour."""
    errors: list[str]


class _Drawing:
    """Where the next sixel goes, and all that were drawn so far, in order."""

    def __init__(self) -> None:
        self.palette: dict[int, tuple[int, int, int]] = {}
        self.errors: list[str] = []
        self.size = (0, 0)
        self.late = 0
        self.colour: int | None = None
        self.x = self.band = self.width = 0
        self.runs: list[bytes] = []
        self.places: list[tuple[int, int, int]] = []

    def draw(self, run: bytes) -> None:
        """Sixels from the current place to the right."""
        if self.colour is None:
            if not run.strip(b"?"):
                self.x += len(run)
                return
            self.errors.append("sixels before a colour is chosen")
            self.colour = 0
        self.runs.append(run)
        self.places.append((self.x, self.band, self.colour))
        self.x += len(run)
        self.width = max(self.width, self.x)

    def choose(self, register: int, definition: list[int]) -> None:
        """`#`: define a colour, and draw with it."""
        if register >= _MOST_REGISTERS:
            self.errors.append(f"register {register} of {_MOST_REGISTERS}")
        if definition:
            self.late += bool(self.places)
            self._define(register, definition)
        elif register not in self.palette:
            self.errors.append(f"register {register} is used before it is defined")
        self.colour = register

    def _define(self, register: int, definition: list[int]) -> None:
        if len(definition) != 4 or definition[0] not in (1, 2):
            self.errors.append(f"colour {definition} is none")
            return
        kind, first, second, third = definition
        if max(second, third) > 100 or first > (360 if kind == 1 else 100):
            self.errors.append(f"colour {definition} is out of range")
        if kind == 1:  # DEC's hue begins at blue
            parts = colorsys.hls_to_rgb((first / 360 + 2 / 3) % 1, min(second, 100) / 100, min(third, 100) / 100)
            self.palette[register] = (round(parts[0] * 255), round(parts[1] * 255), round(parts[2] * 255))
        else:
            self.palette[register] = (_level(first), _level(second), _level(third))

    def raster(self, text: bytes) -> None:
        """`"`: aspect of a pixel, and the size of the picture."""
        numbers = [int(number or b"0") for number in text.split(b";")]
        if self.places:
            self.errors.append("raster attributes behind the first sixel")
        if numbers[:2] not in ([1, 1], [1], [0, 0], [0]):
            self.errors.append(f"pixels of {numbers[:2]} are not square")
        if len(numbers) >= 4:
            self.size = (numbers[2], numbers[3])


def _level(percent: int) -> int:
    return (min(percent, 100) * 255 + 50) // 100


def decode(header: bytes, body: bytes) -> Sixels:
    """A picture from the parameters before `q` and the bytes after it; what is wrong with it is in `errors`."""
    drawing = _Drawing()
    parameters = [int(number or b"0") for number in header.split(b";")] if header else []
    at = 0
    while at < len(body):
        match = _TOKEN.match(body, at)
        if match is None:
            drawing.errors.append(f"byte {body[at : at + 1]!r} in sixel data")
            at += 1
            continue
        at = match.end()
        _step(drawing, match)
    transparent = parameters[1:2] == [1]
    pixels = _paint(drawing, transparent)
    return Sixels(
        pixels=pixels,
        transparent=transparent,
        registers=len(drawing.palette),
        late_definitions=drawing.late,
        errors=drawing.errors,
    )


def _step(drawing: _Drawing, match: re.Match[bytes]) -> None:
    kind = match.lastindex
    if kind == 1:
        drawing.draw(match[1])
    elif kind == 3:
        count = int(match[2])
        if count > _TOO_LARGE_PX:
            drawing.errors.append(f"a run of {count} sixels")
        drawing.draw(match[3] * min(count, _TOO_LARGE_PX))
    elif kind == 5:
        drawing.choose(int(match[4]), [int(number) for number in match[5].split(b";")[1:]])
    elif kind == 6:
        drawing.x = 0
    elif kind == 7:
        drawing.x = 0
        drawing.band += 1
    elif kind == 8:
        drawing.raster(match[8])


def _paint(drawing: _Drawing, transparent: bool) -> Rgba:
    """(height, width, 4). Of two sixels in one place the later wins."""
    if not drawing.runs:
        return np.zeros((drawing.size[1], drawing.size[0], 4), np.uint8)
    bands = max(band for _, band, _ in drawing.places) + 1
    bits = np.frombuffer(b"".join(drawing.runs), np.uint8) - 63
    lengths = np.array([len(run) for run in drawing.runs])
    places = np.repeat(np.array(drawing.places), lengths, axis=0)  # (sixels, 3)
    firsts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    columns = places[:, 0] + np.arange(len(bits)) - firsts
    picture = np.full((bands * _ROWS, drawing.width), -1, np.int64)
    for row in range(_ROWS):
        drawn = (bits >> row & 1).astype(bool)
        picture[places[drawn, 1] * _ROWS + row, columns[drawn]] = places[drawn, 2]
    lit = np.flatnonzero((picture >= 0).any(axis=1))
    height = max(drawing.size[1], int(lit[-1]) + 1 if lit.size else 0)
    width = max(drawing.size[0], drawing.width)
    if drawing.size[0] and (width, height) != drawing.size:
        drawing.errors.append(f"{width}x{height} pixels are drawn, {drawing.size[0]}x{drawing.size[1]} were announced")
    full = np.full((height, width), -1, np.int64)
    full[: min(height, len(picture)), : drawing.width] = picture[:height]
    table = np.zeros((max(drawing.palette, default=0) + 3, 4), np.uint8)
    for register, colour in drawing.palette.items():
        table[register] = (*colour, 255)
    used = np.clip(full, -1, len(table) - 2)
    used[full < 0] = len(table) - 1
    table[len(table) - 1] = (0, 0, 0, 0 if transparent else 255)
    return table[used]
