"""Terminal answers told apart from the user's keys, byte by byte. Pure: reads and writes nothing.

Forms of the answers: ECMA-48, xterm's ctlseqs.txt, kitty's graphics-protocol.rst, iTerm2's proprietary escape codes.
"""

from __future__ import annotations

import msgspec

Rgb = tuple[int, int, int]


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
    """Height and width in points, and the scale from points to pixels (1 where it is not said)."""
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
