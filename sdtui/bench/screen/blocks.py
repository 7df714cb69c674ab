"""Characters that are pictures: the share of a cell's pixels that the foreground covers (Unicode's block elements, sextants)."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.float32]
_QUADRANTS: Final = "▖▗▘▙▚▛▜▝▞▟"
_QUADRANT_BITS: Final = (0b0100, 0b1000, 0b0001, 0b1101, 0b1001, 0b0111, 0b1011, 0b0010, 0b0110, 0b1110)
"""Upper left, upper right, lower left, lower right, from the lowest bit."""
_SEXTANT: Final = 0x1FB00
_LEFT_HALF, _RIGHT_HALF = 0b010101, 0b101010
_TEXT_INSET: Final = 4
"""Other characters are a box this part of a cell away from its sides: it is seen that something is there, not what."""


@lru_cache(maxsize=4096)
def mask(character: str, width: int, height: int) -> Mask:
    """(height, width), 0 to 1: how much of each pixel is foreground."""
    code = ord(character[0]) if character else 0x20
    covered = np.zeros((height, width), np.float32)
    if code in (0x20, 0xA0):
        return covered
    if code == 0x2580:
        covered[: height // 2] = 1
    elif 0x2581 <= code <= 0x2588:
        covered[height - _part(height, code - 0x2580, 8) :] = 1
    elif 0x2589 <= code <= 0x258F:
        covered[:, : _part(width, 0x2590 - code, 8)] = 1
    elif code == 0x2590:
        covered[:, width // 2 :] = 1
    elif 0x2591 <= code <= 0x2593:
        covered[:] = (code - 0x2590) / 4
    elif code == 0x2594:
        covered[: _part(height, 1, 8)] = 1
    elif code == 0x2595:
        covered[:, width - _part(width, 1, 8) :] = 1
    elif character[0] in _QUADRANTS:
        _tiles(covered, _QUADRANT_BITS[_QUADRANTS.index(character[0])], 2)
    elif _SEXTANT <= code < _SEXTANT + 60:
        _tiles(covered, sextant_bits(code), 3)
    else:
        across, down = max(1, width // _TEXT_INSET), max(1, height // _TEXT_INSET)
        covered[down : height - down, across : width - across] = 1
    return covered


def sextant_bits(code: int) -> int:
    """The six bits of a sextant, upper left first: all numbers in a row, but for empty, full and the two halves."""
    bits = code - _SEXTANT + 1
    bits += bits >= _LEFT_HALF
    return bits + (bits >= _RIGHT_HALF)


def _tiles(covered: Mask, bits: int, rows: int) -> None:
    height, width = covered.shape
    for tile in range(2 * rows):
        if bits >> tile & 1:
            row, column = divmod(tile, 2)
            top, bottom = _part(height, row, rows), _part(height, row + 1, rows)
            covered[top:bottom, slice(width // 2, width) if column else slice(0, width // 2)] = 1


def _part(length: int, numerator: int, denominator: int) -> int:
    return length * numerator // denominator
