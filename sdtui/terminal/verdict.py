"""From a report to what can be shown, and why. Pure: the same report always gives the same verdict."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Literal

import msgspec

from sdtui.terminal.capabilities import Colours
from sdtui.terminal.picture import CellSize
from sdtui.terminal.report import Report

SinkName = Literal["kitty", "iterm2", "sixel", "sextant", "quadrant", "half"]
Placement = Literal["classic", "placeholder"]
Frames = Literal["edit", "swap"]


class Way(msgspec.Struct, frozen=True):
    """One way to show a picture: whether this terminal can, and a sentence that says how that is known."""

    name: SinkName
    usable: bool
    why: str


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a terminal can show, and what to set to get more."""

    terminal: str
    """As in `kitty 0.26.5`; empty where it is unknown."""
    ways: tuple[Way, ...]
    """Every way, the best first."""
    best: SinkName
    placement: Placement = "classic"
    """Of kitty's pictures; placeholders only inside tmux."""
    frames: Frames = "swap"
    """Of kitty's pictures: edited in place, or a new picture for each frame."""
    cell: CellSize | None
    cell_from: str
    """Who told the size of a cell, as `CSI 16 t`."""
    colours: Colours
    colours_from: str
    synchronized: bool
    """Whether mode 2026 makes an update appear at once."""
    acknowledges: bool
    """Whether `CSI 5 n` is answered: the time until then measures the line."""
    sixel_registers: int
    """How many colours a sixel picture may have; 0 where unknown."""
    sixel_limit_px: tuple[int, int] | None
    """Width and height of the largest sixel picture, where the terminal tells."""
    advice: tuple[str, ...]

    def way(self, name: SinkName) -> Way:
        """The way with this name."""
        return next(way for way in self.ways if way.name == name)


def judge(report: Report) -> Verdict:
    """What the terminal of this report can show."""
    raise NotImplementedError


def choose(requested: str, verdict: Verdict) -> tuple[SinkName, str]:
    """The sink for `--image-protocol` (`auto` or a sink's name), and a sentence of complaint where it is another than wanted."""
    raise NotImplementedError


def settle_colorterm(report: Report, environ: MutableMapping[str, str]) -> bool:
    """Set COLORTERM where it was lost on the way but the terminal has 24-bit colours; whether it was set."""
    raise NotImplementedError
