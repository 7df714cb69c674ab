"""What a terminal answers, in words: the forms of the answers and what they mean. Pure.

Forms: ECMA-48, xterm's ctlseqs.txt, kitty's graphics-protocol.rst, iTerm2's "Proprietary Escape Codes".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

Rgb = tuple[int, int, int]

QUERY_ID: Final = 1935963001
"""kitty's pictures have numbers that all programs of a terminal share; a large one is nobody else's."""
PLACEHOLDER_ID: Final = QUERY_ID + 1
FRAME_ID: Final = QUERY_ID + 2


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """What a terminal said; None where it did not."""

    device_attributes: tuple[int, ...] | None = None
    """DA1; 4 is sixel."""
    outer_attributes: tuple[int, ...] | None = None
    """DA1 of the terminal around tmux."""
    secondary: tuple[int, ...] | None = None
    """DA2: kind, version, hardware."""
    name: str | None = None
    """XTVERSION, as in `kitty(0.26.5)`."""
    kitty_query: str | None = None
    """`OK` or an error, for `a=q`."""
    kitty_placeholder: str | None = None
    """The same for `a=p,U=1`."""
    kitty_frame: str | None = None
    """The same for `a=f`."""
    cell_px: tuple[int, int] | None = None
    """Width and height, from `CSI 16 t`."""
    window_px: tuple[int, int] | None = None
    """Width and height of the text area, from `CSI 14 t`."""
    synchronized: int | None = None
    """DECRQM 2026: 0 unknown, 1 set, 2 reset, 3 always, 4 never."""
    sgr: str | None = None
    """DECRQSS for SGR after a 24-bit background was set; empty where the terminal refused."""
    foreground: Rgb | None = None
    """OSC 10, 16 bits a channel."""
    background: Rgb | None = None
    """OSC 11, 16 bits a channel."""
    sixel_registers: int | None = None
    sixel_limit_px: tuple[int, int] | None = None
    iterm2_cell: tuple[float, float, float] | None = None
    """Width and height in points, and how many pixels a point has (1 where it is not said)."""
    cursors: tuple[tuple[int, int], ...] = ()
    """Row and column, from 1, before and after what a simple terminal would print (DECXCPR)."""
    status: bool = False
    """Whether `CSI 5 n` was answered."""


class StatusReport(msgspec.Struct, frozen=True):
    """`CSI 0 n`: everything sent before `CSI 5 n` has been read by the terminal."""


class GraphicsAnswer(msgspec.Struct, frozen=True):
    """kitty's word on a picture: `OK`, or an error such as `ENOENT:...`."""

    image_id: int
    message: str


class CellSizeAnswer(msgspec.Struct, frozen=True):
    """`CSI 6 ; height ; width t`, in pixels."""

    width_px: int
    height_px: int


class WindowSizeAnswer(msgspec.Struct, frozen=True):
    """`CSI 4 ; height ; width t`: the text area, in pixels."""

    width_px: int
    height_px: int


Event = StatusReport | GraphicsAnswer | CellSizeAnswer | WindowSizeAnswer

_NUMBER: Final = r"(\d{1,10})"
_COLOUR: Final = re.compile(r"rgba?:([0-9a-f]{1,4})/([0-9a-f]{1,4})/([0-9a-f]{1,4})", re.IGNORECASE)
_KITTY_FIELDS: Final = {QUERY_ID: "kitty_query", PLACEHOLDER_ID: "kitty_placeholder", FRAME_ID: "kitty_frame"}
_KITTY: Final = re.compile(rf"\x1b_G(?:[^;]*,)?i={_NUMBER}[^;]*;([^\x1b]*)")


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(";") if part.isdecimal() and len(part) < 10)


def _swapped(match: re.Match[str]) -> tuple[int, int]:
    """Terminals say the height first."""
    return int(match[2]), int(match[1])


def _rgb(match: re.Match[str]) -> Rgb | None:
    """xterm's `rgb:ffff/8080/0000`, with one to four digits a channel, in 16 bits a channel."""
    colour = _COLOUR.search(match[1])
    if colour is None:
        return None
    red, green, blue = (int(part, 16) * 0xFFFF // (16 ** len(part) - 1) for part in colour.groups())
    return red, green, blue


def _iterm2_cell(match: re.Match[str]) -> tuple[float, float, float] | None:
    try:
        height, width, *scale = (float(part) for part in match[1].split(";"))
    except ValueError:
        return None
    return width, height, scale[0] if scale else 1.0


_FORMS: Final[tuple[tuple[str, str, Callable[[re.Match[str]], Any]], ...]] = (
    ("secondary", r"\x1b\[>([\d;]*)c", lambda match: _numbers(match[1])),
    ("name", r"\x1bP>\|([^\x1b]*)", lambda match: match[1]),
    ("cell_px", rf"\x1b\[6;{_NUMBER};{_NUMBER}t", _swapped),
    ("window_px", rf"\x1b\[4;{_NUMBER};{_NUMBER}t", _swapped),
    ("synchronized", r"\x1b\[\?2026;(\d)\$y", lambda match: int(match[1])),
    ("sgr", r"\x1bP1\$r([^\x1b]*)m\x1b", lambda match: match[1]),
    ("sgr", r"\x1bP[02]?\$r()", lambda match: match[1]),
    ("foreground", r"\x1b\]10;([^\x1b\x07]*)", _rgb),
    ("background", r"\x1b\]11;([^\x1b\x07]*)", _rgb),
    ("sixel_registers", rf"\x1b\[\?1;0;{_NUMBER}S", lambda match: int(match[1])),
    ("sixel_limit_px", rf"\x1b\[\?2;0;{_NUMBER};{_NUMBER}S", lambda match: (int(match[1]), int(match[2]))),
    ("iterm2_cell", r"\x1b\]1337;ReportCellSize=([^\x1b\x07]*)", _iterm2_cell),
    ("status", r"\x1b\[0n", lambda _: True),
)
"""Compiled when they are first needed, by `re` itself."""
_DA1: Final = re.compile(r"\x1b\[\?([\d;]*)c")
_CURSOR: Final = re.compile(rf"\x1b\[\?{_NUMBER};{_NUMBER}(?:;\d+)?R")


def read_answers(sequences: Iterable[bytes]) -> Answers:
    """The meaning of whole answers in the order they came. What has no meaning is left out; the first of two counts."""
    found: dict[str, Any] = {}
    for sequence in sequences:
        text = sequence.decode("utf-8", "replace")
        if (cursor := _CURSOR.fullmatch(text)) is not None:
            found["cursors"] = (*found.get("cursors", ()), (int(cursor[1]), int(cursor[2])))
        elif (attributes := _DA1.fullmatch(text)) is not None:
            found.setdefault("outer_attributes" if "device_attributes" in found else "device_attributes", _numbers(attributes[1]))
        elif (kitty := _KITTY.match(text)) is not None:
            field = _KITTY_FIELDS.get(int(kitty[1]))
            if field is not None:
                found.setdefault(field, kitty[2])
        else:
            _read_form(text, found)
    return Answers(**found)


def _read_form(text: str, found: dict[str, Any]) -> None:
    for field, pattern, read in _FORMS:
        match = re.match(pattern, text)
        if match is not None:
            value = read(match)
            if value is not None:
                found.setdefault(field, value)
            return


def read_event(sequence: bytes) -> Event | None:
    """What an answer to something asked later tells; None for every other."""
    text = sequence.decode("utf-8", "replace")
    if text == "\x1b[0n":
        return StatusReport()
    if (kitty := _KITTY.match(text)) is not None:
        return GraphicsAnswer(int(kitty[1]), kitty[2])
    size = re.fullmatch(rf"\x1b\[([46]);{_NUMBER};{_NUMBER}t", text)
    if size is None:
        return None
    kind = CellSizeAnswer if size[1] == "6" else WindowSizeAnswer
    return kind(width_px=int(size[3]), height_px=int(size[2]))
