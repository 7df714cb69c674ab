"""Pictures on the terminal for commands: the one that forms by rich, the finished one as the terminal shows it best."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from rich.color import Color
from rich.console import Console, ConsoleOptions
from rich.segment import Segment
from rich.style import Style

from sdtui.cli.output import note
from sdtui.terminal.picture import USUAL_CELL, CellSize, Frame, fit, read_picture

if TYPE_CHECKING:
    from sdtui.terminal.report import Report
    from sdtui.terminal.sink import ImageSink
    from sdtui.terminal.verdict import Verdict

_ROWS_LEFT: Final = 4
"""Rows below a picture that stay free for the bar and the shell's prompt."""
_MAX_ROWS: Final = 32
"""More rows cost more bytes a frame than a slow line carries; 32 rows are 64 pixels."""


class HalfCells:
    """A picture of two pixels a cell, for rich: as large as the terminal allows, its sides in proportion."""

    def __init__(self, frame: Frame, size: tuple[int, int] | None = None) -> None:
        """`size`: columns and rows, where they are known."""
        self._frame = frame
        self._size = size

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        """Rows of half blocks."""
        from sdtui.terminal.blocks import to_cells

        columns, rows = self._size or room_for(self._frame, options.max_width, console.size.height)
        for row in to_cells(self._frame, columns, rows).rows:
            for at, glyph in enumerate(row.glyphs):
                yield Segment(glyph, Style(color=_colour(row.front, at), bgcolor=_colour(row.back, at)))
            yield Segment.line()


def _colour(colours: bytes, at: int) -> Color:
    return Color.from_rgb(*colours[at * 3 : at * 3 + 3])


def room_for(frame: Frame, columns: int, rows: int, cell: CellSize = USUAL_CELL) -> tuple[int, int]:
    """Columns and rows of a picture on a terminal of this size, with room left for what follows."""
    return fit(frame.width_px, frame.height_px, max(1, columns), max(1, min(_MAX_ROWS, rows - _ROWS_LEFT)), cell)


def can_show(console: Console) -> bool:
    """Whether half cells would be a picture here: a terminal with more than the 16 colours."""
    return console.is_terminal and console.color_system in ("truecolor", "256") and console.encoding.startswith("utf")


class Asked(NamedTuple):
    """A terminal that was asked, for as long as the command runs."""

    report: Report
    verdict: Verdict


@contextmanager
def asked_terminal(writing: int = 1) -> Iterator[Asked]:
    """Ask the terminal; at the end its modes are as before, no answer is left in its input, and what was typed is put back.

    A command waits for late answers anyway, so it can as well go by them.
    """
    from sdtui.terminal.probe import PATIENCE_S, start_probe
    from sdtui.terminal.verdict import judge

    with _reading(writing) as reading:
        probe = start_probe(os.environ, reading, writing, for_app=False)
        try:
            report = probe.collect(PATIENCE_S)
            yield Asked(report, judge(report))
        except BaseException:
            probe.restore()
            raise
        echoes = (probe.unread or probe.parser.pending) and not probe.unread.endswith(b"\r")
        lost = probe.finish().decode(errors="replace")
        if echoes:
            os.write(writing, b"\r\n")  # what was put back has been echoed, and a picture begins at the left
        if lost:
            note(f"What you typed meanwhile could not be put back: {lost}")


@contextmanager
def _reading(writing: int) -> Iterator[int]:
    """Stdin; where that is something else, as in a loop over a list of files, the terminal that is written to."""
    own = -1
    if not os.isatty(0):
        with suppress(OSError):
            own = os.open(os.ttyname(writing), os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        yield own if own >= 0 else 0
    finally:
        if own >= 0:
            os.close(own)


def show_still(path: Path, console: Console, requested: str = "auto") -> None:
    """Print a finished picture on stderr's terminal; one that cannot be read is passed over, as its path is the result."""
    from sdtui.cli.inline import Inline

    try:
        frame = read_picture(path)
    except (OSError, ValueError):
        return
    with asked_terminal(console.file.fileno()) as asked:
        inline = Inline(asked, requested, console.file)
    if not inline.cannot:
        inline.draw(frame, *inline.room(frame.width_px, frame.height_px))


def chosen_sink(requested: str, verdict: Verdict) -> tuple[ImageSink | None, str]:
    """The sink for `--image-protocol`, and a complaint where it is another than wanted; None where rich must find colours."""
    from sdtui.terminal.blocks import BlockSink
    from sdtui.terminal.sinks import make_sink
    from sdtui.terminal.verdict import choose

    name, complaint = choose(requested, verdict)
    sink = make_sink(name, verdict, verdict.cell or USUAL_CELL)
    few_colours = isinstance(sink, BlockSink) and verdict.colours != "truecolor"
    if few_colours and requested == name != "half":
        complaint = f"{name.capitalize()} cells need 24-bit colours, half cells are shown."
    return (None if few_colours else sink), complaint
