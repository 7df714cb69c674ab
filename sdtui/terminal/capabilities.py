"""What can be known of a terminal without asking it: whether it is one, its size, and what the environment says.

Nothing is written to the terminal and nothing read from it, so no key press can be lost.
"""

from __future__ import annotations

import fcntl
import os
import struct
import sys
import termios
from collections.abc import Mapping
from typing import Final, Literal

import msgspec

Colours = Literal["none", "16", "256", "truecolor"]
_TRUECOLOR_TERMS: Final = ("kitty", "ghostty", "alacritty", "foot", "wezterm", "contour", "direct")
_UTF8: Final = ("utf8", "utf-8")


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """A terminal as its size and environment describe it; a program that asks may find out more."""

    is_terminal: bool
    width_cells: int
    height_cells: int
    width_px: int
    """0 where the terminal does not say, as is usual over ssh with older servers."""
    height_px: int
    colours: Colours
    colours_from: str
    """Which variable decided."""
    utf8: bool
    term: str
    program: str
    multiplexer: Literal["", "tmux", "screen"]
    over_ssh: bool


def capabilities(descriptor: int | None = None, environ: Mapping[str, str] = os.environ) -> Capabilities:
    """What is known of the terminal behind a file descriptor, stdout's if none is given."""
    if descriptor is None:
        descriptor = sys.__stdout__.fileno() if sys.__stdout__ is not None else -1
    height, width, width_px, height_px = window_size(descriptor)
    colours, origin = _colours(environ)
    return Capabilities(
        is_terminal=descriptor >= 0 and os.isatty(descriptor),
        width_cells=width,
        height_cells=height,
        width_px=width_px,
        height_px=height_px,
        colours=colours,
        colours_from=origin,
        utf8=_is_utf8(environ),
        term=environ.get("TERM", ""),
        program=environ.get("TERM_PROGRAM", ""),
        multiplexer="tmux" if environ.get("TMUX") else "screen" if environ.get("STY") else "",
        over_ssh=bool(environ.get("SSH_CONNECTION") or environ.get("SSH_TTY")),
    )


def window_size(descriptor: int) -> tuple[int, int, int, int]:
    """Rows, columns, width and height in pixels, by TIOCGWINSZ; zeros where there is no terminal."""
    try:
        answer = fcntl.ioctl(descriptor, termios.TIOCGWINSZ, bytes(8))
    except (OSError, ValueError):
        return 0, 0, 0, 0
    rows, columns, width_px, height_px = struct.unpack("HHHH", answer)
    return rows, columns, width_px, height_px


def _colours(environ: Mapping[str, str]) -> tuple[Colours, str]:
    term = environ.get("TERM", "")
    if environ.get("NO_COLOR"):
        return "none", "NO_COLOR"
    if term in ("", "dumb", "unknown"):
        return "none", "TERM"
    if environ.get("COLORTERM", "").lower() in ("truecolor", "24bit"):
        return "truecolor", "COLORTERM"
    if any(name in term for name in _TRUECOLOR_TERMS):
        return "truecolor", "TERM"
    return ("256" if "256color" in term else "16"), "TERM"


def _is_utf8(environ: Mapping[str, str]) -> bool:
    """Whether the locale says UTF-8; the first of these variables that is set counts (POSIX, 8.2)."""
    locale = next((environ[name] for name in ("LC_ALL", "LC_CTYPE", "LANG") if environ.get(name)), "")
    return locale.lower().endswith(_UTF8)
