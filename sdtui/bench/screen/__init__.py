"""A terminal's screen in memory, which turns what a program wrote back into pixels."""

from __future__ import annotations

from sdtui.bench.screen.model import ALL_GRAPHICS, Graphics, Screen
from sdtui.bench.screen.sequences import Csi, Event, Parser, String

__all__ = ["ALL_GRAPHICS", "Csi", "Event", "Graphics", "Parser", "Screen", "String"]
