"""From a verdict to a sink."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdtui.terminal.blocks import BlockSink
from sdtui.terminal.iterm2 import Iterm2Sink
from sdtui.terminal.kitty import KittySink
from sdtui.terminal.picture import CellSize
from sdtui.terminal.sixel import SixelSink

if TYPE_CHECKING:
    from sdtui.terminal.sink import ImageSink
    from sdtui.terminal.verdict import SinkName, Verdict


def make_sink(name: SinkName, verdict: Verdict, cell: CellSize) -> ImageSink:
    """A sink for one picture, as this terminal needs it."""
    in_tmux = verdict.tmux_limit_bytes is not None
    match name:
        case "kitty":
            modern = verdict.layer == "below"
            return KittySink(
                cell,
                edits=verdict.frames == "edit",
                below=modern,
                smooth=modern or in_tmux,  # placeholders came later than smooth enlarging
                in_tmux=in_tmux,
                limit_bytes=verdict.tmux_limit_bytes,
            )
        case "iterm2":
            return Iterm2Sink(cell)
        case "sixel":
            registers = verdict.sixel_registers or 256
            return SixelSink(cell, registers=registers, synchronized=verdict.synchronized, in_tmux=in_tmux)
        case _:
            return BlockSink(name, cell)


def prepare(name: SinkName) -> None:
    """Load the imaging libraries that this way needs, which takes a tenth of a second each, before the first frame does."""
    from PIL import Image

    Image.init()
    if name in ("sixel", "quadrant", "sextant"):
        import numpy  # noqa: F401
