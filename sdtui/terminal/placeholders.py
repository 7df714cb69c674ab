"""Unicode placeholders: characters that stand for parts of an image which kitty's protocol has placed virtually.

sw.kovidgoyal.net/kitty/graphics-protocol, "Unicode placeholders". The foreground colour is the image's id, combining marks
say which row and column of the image a cell shows; a cell without marks shows the column after its left neighbour's.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import cache
from typing import Final

PLACEHOLDER: Final = "\U0010eeee"
_COMPOSING: Final = frozenset((*range(0x300, 0x305), *range(0x306, 0x30D), 0x30F, 0x311, 0x313, 0x314, 0x342, 0x653, 0x654))
"""Marks that merge with a letter into one character when text is normalised, and so are left out."""
_YOUNGER: Final = (
    (0x0898, 0x08FF), (0x09FE, 0x09FE), (0x1AB0, 0x1AFF), (0x1CF4, 0x1CF9), (0x1DE7, 0x1DF5), (0x1DFB, 0x1DFB),
    (0xA674, 0xA67B), (0xA69E, 0xA69F), (0xFE27, 0xFE2F),
)  # fmt: skip
"""Added after Unicode 6.0, on which the protocol's numbering is built."""
_LAST: Final = 0xFFFF


@cache
def marks() -> str:
    """The combining marks that number rows and columns, by number: those of class 230 without a decomposition."""
    return "".join(
        chr(code)
        for code in range(0x300, _LAST)
        if unicodedata.combining(chr(code)) == 230
        and not unicodedata.decomposition(chr(code))
        and unicodedata.category(chr(code)) == "Mn"
        and code not in _COMPOSING
        and not any(first <= code <= last for first, last in _YOUNGER)
    )


def placeholder_rows(image_id: int, columns: int, rows: int) -> Iterator[str]:
    """The text of each row of cells. Raises `ValueError` for an id of more than 24 bits or more than 255 cells a side."""
    if not 0 < image_id < 1 << 24:
        raise ValueError(f"A foreground colour cannot hold the image id {image_id}: it must be from 1 to 16777215.")
    if max(columns, rows) > 255:
        raise ValueError(f"Placeholders number at most 255 cells a side, not {columns}x{rows}.")
    colour = f"\x1b[38;2;{image_id >> 16};{image_id >> 8 & 255};{image_id & 255}m"
    for row in range(rows):
        # tmux repaints parts of lines, so every cell says where it belongs.
        cells = "".join(f"{PLACEHOLDER}{marks()[row]}{marks()[column]}" for column in range(columns))
        yield f"{colour}{cells}\x1b[39m"
