"""Histograms and curves, drawn by plotext beside the event loop: the larger ones take it a tenth of a second."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from rich.console import RenderableType
from rich.text import Text
from textual.color import Color
from textual.widget import Widget

from sdtui.text import safe_text
from sdtui.ui.widgets.pages.beside import run_beside

if TYPE_CHECKING:
    from textual_plotext import Plot

_LEAST_CELLS, _LEAST_LINES = 12, 3
_WIDE: Final = 50
"""Cells from which there is room for more figures below the plot."""
_STEEP: Final = 50.0
"""A curve whose greatest value is so many times its least is drawn with a logarithmic scale."""
_FLOOR: Final = 1e-9
"""Of the greatest value: what is less is nought but for rounding, and would take all of a logarithmic scale."""
_MOST_DIGITS: Final = 9
"""What lies close together far from 0 is told apart by so many."""
plotext_lock = threading.Lock()
"""plotext keeps some things in its modules."""


class Histogram(NamedTuple):
    """Counts in bins of equal width."""

    counts: Sequence[int]
    low: float
    high: float


class Curve(NamedTuple):
    """Values that fall, from the first on."""

    values: Sequence[float]


class Colours(NamedTuple):
    """Of the theme, as bytes of red, green and blue."""

    ground: tuple[int, int, int]
    text: tuple[int, int, int]
    plot: tuple[int, int, int]


class _Wish(NamedTuple):
    what: Histogram | Curve
    width: int
    height: int
    colours: Colours


class PlotView(Widget):
    """Shows one plot as large as it is; what was shown stays until the next is drawn."""

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._what: Histogram | Curve | None = None
        self._text = Text("")
        self._drawn: _Wish | None = None
        self._is_drawing = False

    @property
    def text(self) -> str:
        """The plot without its colours."""
        return self._text.plain

    @property
    def is_drawn(self) -> bool:
        """Whether it is the plot that is wished for."""
        return self._wish() == self._drawn and not self._is_drawing

    def plot(self, what: Histogram | Curve | None) -> None:
        """Show this; None shows nothing."""
        self._what = what
        if what is None:
            self._drawn = None
            self._text = Text("")
            self.refresh()
        self._wake()

    def render(self) -> RenderableType:
        """The plot, as it was drawn."""
        return self._text

    def on_resize(self) -> None:
        """There is more room, or less."""
        self._wake()

    def on_show(self) -> None:
        """It can be seen."""
        self._wake()

    def notify_style_update(self) -> None:
        """A theme was chosen: colours changed."""
        super().notify_style_update()
        if self.is_attached:
            self._wake()

    def _wish(self) -> _Wish | None:
        width, height = self.size
        if self._what is None or width < _LEAST_CELLS or height < _LEAST_LINES:
            return None
        return _Wish(self._what, width, height, self._colours())

    def _colours(self) -> Colours:
        ground = self.background_colors[1].rgb
        found = self.app.theme_variables
        return Colours(ground, Color.parse(found["muted"]).rgb, Color.parse(found["accent"]).rgb)

    def _wake(self) -> None:
        if not self._is_drawing and self._wish() not in (None, self._drawn):
            self._is_drawing = True
            run_beside(self, self._draw, "plot")

    async def _draw(self) -> None:
        """Draw until what is seen is what is wished for."""
        try:
            while (wish := self._wish()) is not None and wish != self._drawn:
                self._drawn = wish
                try:
                    text = await asyncio.to_thread(draw, *wish)
                except Exception as error:  # plotext raises whatever it comes upon; it costs the plot alone
                    text = Text(f"It cannot be drawn: {safe_text(str(error), limit=200)}")
                if self._what is wish.what:
                    self._text = text
                    self.refresh()
        finally:
            self._is_drawing = False


def draw(what: Histogram | Curve, width: int, height: int, colours: Colours) -> Text:
    """The plot in so many cells; takes tenths of a second."""
    if isinstance(what, Curve) and not what.values:
        return Text("")
    from textual_plotext import Plot  # late: plotext takes longer to import than the app takes to start

    with plotext_lock:
        plot = Plot()
        plot.plotsize(width, height)
        plot._set_size(width, height)  # as its widget does: without it the first size stays
        plot.canvas_color(colours.ground)
        plot.axes_color(colours.ground)
        plot.ticks_color(colours.text)
        plot.frame(False)
        if isinstance(what, Histogram):
            _draw_histogram(plot, what, width, colours)
        else:
            _draw_curve(plot, what, colours)
        return Text.from_ansi(plot.build())


def _draw_histogram(plot: Plot, what: Histogram, width: int, colours: Colours) -> None:
    bins = max(1, len(what.counts))  # they are the scale: plotext cannot count from -1e308 to 1e308, nor near 1e16
    for first, last in _filled(what.counts):  # what is empty stays so: an area has a line below it
        edges = [edge for number in range(first, last) for edge in (number, number + 1)]
        heights = [count for count in what.counts[first:last] for _ in range(2)]
        plot.plot(edges, heights, fillx=True, marker="hd", color=colours.plot)
    plot.xlim(0, bins)
    plot.ylim(0, max(what.counts, default=1) or 1)
    places, ticks = _ticks(what, width)
    plot.xticks([place * bins for place in places], ticks)
    plot.yticks([])


def _ticks(what: Histogram, width: int) -> tuple[list[float], list[str]]:
    """Where figures stand below a histogram, from 0 at its left end to 1 at its right, and the figures."""
    low, high = what.low, what.high
    if low == high:  # all of it is in the first bin
        return [0.0], [tick_text(low, 0.0)]
    span = high / 2 - low / 2  # half of it: the whole may be too large for a number
    zero = -low / 2 / span
    places = [quarter / 4 for quarter in range(5)] if width >= _WIDE else [0.0, 0.5, 1.0]
    if 0.2 < zero < 0.8:  # it is far enough from the ends for their figures
        places = [0.0, zero, 1.0]
    values = [0.0 if place == zero else low * (1 - place) + high * place for place in places]
    return places, [tick_text(value, 2 * span) for value in values]


def _filled(counts: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The first and the one behind the last of bins that lie together and are not empty."""
    start = None
    for number, count in enumerate((*counts, 0)):
        if count and start is None:
            start = number
        elif not count and start is not None:
            yield start, number
            start = None


def _draw_curve(plot: Plot, what: Curve, colours: Colours) -> None:
    values = what.values
    least = min((value for value in values if value > values[0] * _FLOOR), default=0.0)
    if least and values[0] > least * _STEEP:
        kept = [math.log10(max(value, least)) for value in values]
        ends = (kept[0], math.log10(least))
    else:
        kept, ends = list(values), (values[0], 0.0)
    numbers = list(range(1, len(kept) + 1))
    plot.plot(numbers, kept, marker="braille" if len(kept) > 1 else "hd", color=colours.plot)
    plot.xticks([1, len(kept)], ["1", f"{len(kept):,}"])
    if ends[0] > ends[1]:
        top, bottom = ends
        plot.ylim(bottom, top)
        middle = (top + bottom) / 2
        ticks = [bottom, middle, top]
        shown = [10**tick for tick in ticks] if least and values[0] > least * _STEEP else ticks
        plot.yticks(ticks, [f"{value:.3g}" for value in shown])


def tick_text(value: float, span: float) -> str:
    """A figure with as many digits as matter on a scale of this length."""
    if span < math.inf and abs(value) < span * _FLOOR:
        return "0"
    digits = 3
    if 0 < span < math.inf and value:
        digits = max(3, min(_MOST_DIGITS, 2 + math.ceil(math.log10(abs(value)) - math.log10(span))))
    return f"{value:.{digits}g}"
