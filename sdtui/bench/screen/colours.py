"""SGR: what the characters are drawn with. A colour is an integer: 24 bits of RGB, a negative palette index, or the default."""

from __future__ import annotations

from typing import Final, NamedTuple

DEFAULT: Final = -1
_PALETTE_BASE: Final = -2
"""Index n of the palette is -2 - n: kitty's placeholders tell an index from the same number as RGB."""
_SIXTEEN: Final = (
    *((0, 0, 0), (205, 0, 0), (0, 205, 0), (205, 205, 0), (0, 0, 238), (205, 0, 205), (0, 205, 205), (229, 229, 229)),
    *((127, 127, 127), (255, 0, 0), (0, 255, 0), (255, 255, 0), (92, 92, 255), (255, 0, 255), (0, 255, 255), (255, 255, 255)),
)
"""xterm's."""
_LEVELS: Final = (0, 95, 135, 175, 215, 255)


class Pen(NamedTuple):
    """How a character is drawn."""

    foreground: int = DEFAULT
    background: int = DEFAULT
    underline: int = DEFAULT
    """Its colour; kitty's placeholders carry the placement in it."""
    reverse: bool = False


def palette(index: int) -> int:
    """Entry `index`, 0 to 255, as a colour of a pen."""
    return _PALETTE_BASE - index


def palette_index(colour: int) -> int | None:
    """The palette entry a pen's colour names."""
    return _PALETTE_BASE - colour if colour <= _PALETTE_BASE else None


def rgb(colour: int, default: tuple[int, int, int]) -> tuple[int, int, int]:
    """A pen's colour as red, green and blue."""
    if colour >= 0:
        return colour >> 16, colour >> 8 & 255, colour & 255
    if colour == DEFAULT:
        return default
    index = _PALETTE_BASE - colour
    if index < 16:
        return _SIXTEEN[index]
    if index >= 232:
        grey = 8 + 10 * (index - 232)
        return grey, grey, grey
    index -= 16
    return _LEVELS[index // 36], _LEVELS[index // 6 % 6], _LEVELS[index % 6]


def apply_sgr(pen: Pen, params: bytes) -> Pen:
    """The pen after `CSI params m`. Raises `ValueError` for what is no SGR."""
    if not params:
        return Pen()
    codes = _codes(params)
    at = 0
    while at < len(codes):
        code = codes[at]
        at += 1
        if code in (38, 48, 58):
            colour, at = _extended(codes, at)
            pen = _with(pen, code - 38, colour)
        else:
            pen = _simple(pen, code)
    return pen


def _codes(params: bytes) -> list[int]:
    """Numbers; a group with colons (ISO 8613-6) as if it had semicolons."""
    if b":" not in params:
        return [int(part or b"0") for part in params.split(b";")]
    codes: list[int] = []
    for group in params.split(b";"):
        parts = group.split(b":")
        if parts[0] == b"4":
            codes.append(24 if parts[1:] == [b"0"] else 4)  # 4:3 is a curly underline
            continue
        if parts[0] in (b"38", b"48", b"58") and parts[1:2] == [b"2"] and len(parts) == 6:
            del parts[2]  # the colour space, usually left out
        codes.extend(int(part or b"0") for part in parts)
    return codes


def _extended(codes: list[int], at: int) -> tuple[int, int]:
    kind = codes[at] if at < len(codes) else None
    if kind == 5 and at + 1 < len(codes) and codes[at + 1] <= 255:
        return palette(codes[at + 1]), at + 2
    if kind == 2 and at + 3 < len(codes) and max(codes[at + 1 : at + 4]) <= 255:
        red, green, blue = codes[at + 1 : at + 4]
        return red << 16 | green << 8 | blue, at + 4
    raise ValueError("an extended colour that is none")


def _simple(pen: Pen, code: int) -> Pen:
    if code == 0:
        return Pen()
    if code in (7, 27):
        return pen._replace(reverse=code == 7)
    if code in (39, 49, 59):
        return _with(pen, code - 39, DEFAULT)
    for which in (0, 10):
        if 30 + which <= code < 38 + which:
            return _with(pen, which, palette(code - which - 30))
        if 90 + which <= code < 98 + which:
            return _with(pen, which, palette(code - which - 90 + 8))
    if code in (1, 2, 3, 4, 5, 6, 8, 9, 21, 22, 23, 24, 25, 28, 29, 53, 55):
        return pen
    raise ValueError(f"SGR {code} is not known")


def _with(pen: Pen, which: int, colour: int) -> Pen:
    """`which` is how far the codes are from those of the foreground: 10 for the background, 20 for the underline."""
    if which == 0:
        return pen._replace(foreground=colour)
    return pen._replace(background=colour) if which == 10 else pen._replace(underline=colour)
