"""Curves over the steps, as many side by side as there is room for, with the shown step marked in each.

plotext draws each curve beside the event loop when its values change; the mark is laid over what was drawn, so that moving
through the steps draws nothing anew.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from rich.cells import cell_len
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual.color import Color
from textual.strip import Strip
from textual.timer import Timer
from textual.widget import Widget

from sdtui.text import safe_text
from sdtui.ui.widgets.pages.beside import run_beside
from sdtui.ui.widgets.pages.plots import plotext_lock, tick_text

if TYPE_CHECKING:
    from textual_plotext import Plot

_COLUMN_CELLS: Final = 30
"""From which a curve beside another one is readable."""
_ROW_LINES: Final = 7
"""Of a curve above another one: its title, some lines, and one between."""
_LEAST_CELLS, _LEAST_LINES = 12, 3
_GAP: Final = 3
_MARK_S: Final = 0.04
"""While a key is held the marks move no more often: drawing them takes longer than all else that a step changes."""
_FLOOR: Final = 1e-9
"""Of the greatest value: what is less is nought but for rounding, and would take all of a logarithmic scale."""


class Curve(NamedTuple):
    """The values of one job over its steps."""

    values: tuple[float | None, ...]
    """None, and what is no finite number, leaves a gap."""
    total: int
    """How many there will be: the curve takes that share of the width."""


class Chart(NamedTuple):
    """One quantity, of one job or of two that are compared."""

    name: str
    curves: tuple[Curve, ...]
    is_log: bool = False


class _Colours(NamedTuple):
    """Of the theme, as bytes of red, green and blue."""

    ground: tuple[int, int, int]
    curves: tuple[tuple[int, int, int], tuple[int, int, int]]


class _Wish(NamedTuple):
    charts: tuple[Chart, ...]
    width: int
    height: int
    colours: _Colours


class _Styles(NamedTuple):
    """Made once for each drawing: a style takes as long as a line."""

    ground: Style
    mark: Style
    muted: Style
    curves: tuple[Style, Style]


class _Plotted(NamedTuple):
    """A chart's drawing."""

    chart: Chart
    lines: list[Strip]
    range_text: str


class Curves(Widget):
    """Shows as many charts as fit, from the chosen one on; what was shown stays until the next is drawn."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._charts: tuple[Chart, ...] = ()
        self._first = 0
        self._steps: tuple[int, ...] = ()
        self._wished: _Wish | None = None
        self._plotted: list[_Plotted] = []
        self._styles = _Styles(Style(), Style(), Style(), (Style(), Style()))
        self._is_drawing = False
        self._marking: Timer | None = None

    # --- what it is told --------------------------------------------------------------------------------------------

    def show(self, charts: Sequence[Chart]) -> None:
        """Show these; none shows nothing."""
        self._charts = tuple(charts)
        if not self._charts:
            self._plotted, self._wished = [], None
            self.refresh()
        self._wake()

    def point(self, steps: tuple[int, ...]) -> None:
        """Mark these steps, one for each job; less than 0 is none. A moment later, so that the picture comes first."""
        if steps != self._steps:
            self._steps = steps
            if self._marking is None:
                self._marking = self.set_timer(_MARK_S, self._mark)

    def _mark(self) -> None:
        self._marking = None
        self.refresh()

    def turn(self, by: int) -> None:
        """Begin with another chart."""
        if self._charts:
            self._first = (self._first + by) % len(self._charts)
            self._wake()

    @property
    def is_drawn(self) -> bool:
        """Whether it shows what it was told to, as far as it has room."""
        return self._wish() in (None, self._wished) and not self._is_drawing

    @property
    def shown(self) -> tuple[str, ...]:
        """The names of the charts in view."""
        return tuple(plotted.chart.name for plotted in self._plotted)

    # --- drawing ----------------------------------------------------------------------------------------------------

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

    def _grid(self) -> tuple[int, int]:
        """How many charts are side by side, and how many one above the other."""
        width, height = self.size
        columns = max(1, (width + _GAP) // (_COLUMN_CELLS + _GAP))
        rows = max(1, (height + 1) // _ROW_LINES)
        count = max(1, len(self._charts))
        rows = min(rows, math.ceil(count / min(columns, count)))
        return min(columns, math.ceil(count / rows)), rows

    def _wish(self) -> _Wish | None:
        width, height = self.size
        if not self._charts or width < _LEAST_CELLS or height < _LEAST_LINES:
            return None
        columns, rows = self._grid()
        shown = min(len(self._charts), columns * rows)
        charts = tuple(self._charts[(self._first + at) % len(self._charts)] for at in range(shown))
        return _Wish(charts, (width - (columns - 1) * _GAP) // columns, (height + 1) // rows - 2, self._colours())

    def _colours(self) -> _Colours:
        found = self.app.theme_variables
        one, other = (Color.parse(found[name]).rgb for name in ("accent", "secondary"))
        return _Colours(self.background_colors[1].rgb, (one, other))

    def _wake(self) -> None:
        if self.is_attached and not self._is_drawing and self._wish() not in (None, self._wished):
            self._is_drawing = True
            run_beside(self, self._draw, "curves")

    async def _draw(self) -> None:
        """Draw until what is seen is what is wished for."""
        try:
            while (wish := self._wish()) is not None and wish != self._wished:
                self._wished = wish
                plotted = await asyncio.to_thread(_plot_all, wish, self.app.console)
                if self._charts:
                    self._plotted, self._styles = plotted, self._made_styles()
                    self.refresh()
        finally:
            self._is_drawing = False

    def _made_styles(self) -> _Styles:
        found, ground = self.app.theme_variables, self.rich_style
        muted, one, other = (
            ground + Style(color=Color.parse(found[name]).rich_color) for name in ("muted", "accent", "secondary")
        )
        return _Styles(ground, Style(bgcolor=Color.parse(found["accent-muted"]).rich_color), muted, (one, other))

    # --- what it shows ----------------------------------------------------------------------------------------------

    def render_line(self, y: int) -> Strip:
        """One line of every chart in its row of charts."""
        width, wish, ground = self.size.width, self._wished, self._styles.ground
        if wish is None or not self._plotted:
            return Strip.blank(width, self.rich_style)
        columns, _ = self._grid()
        row, line = divmod(y, wish.height + 2)
        parts: list[Strip] = []
        for plotted in self._plotted[row * columns : (row + 1) * columns]:
            parts += [self._chart_line(plotted, line, wish), Strip.blank(_GAP, ground)]
        return Strip.join(parts).adjust_cell_length(width, ground).crop(0, width)

    def _chart_line(self, plotted: _Plotted, line: int, wish: _Wish) -> Strip:
        if line == 0:
            return self._title(plotted, wish)
        drawn = plotted.lines[line - 1] if line - 1 < len(plotted.lines) and line <= wish.height else None
        if drawn is None:
            return Strip.blank(wish.width, self._styles.ground)
        for curve, step in zip(plotted.chart.curves, self._steps, strict=False):
            if step >= 0:
                at = column_of(step, curve.total, wish.width)
                cell = Strip(
                    Segment.apply_style(drawn.crop(at, at + 1), post_style=self._styles.mark)
                )  # over the ground that was drawn
                drawn = Strip.join([drawn.crop(0, at), cell, drawn.crop(at + 1, wish.width)])
        return drawn

    def _title(self, plotted: _Plotted, wish: _Wish) -> Strip:
        """The name, the values at the marks, and the ends of the scale."""
        ground, _, muted, hues = self._styles
        segments = [Segment(plotted.chart.name, muted)]
        for curve, step, hue in zip(plotted.chart.curves, self._steps, hues, strict=False):
            value = curve.values[step] if 0 <= step < len(curve.values) else None
            segments.append(Segment(f"  {figure_text(value)}", hue))
        used = sum(cell_len(segment.text) for segment in segments)
        if used + 2 + len(plotted.range_text) <= wish.width:
            segments.append(Segment(plotted.range_text.rjust(wish.width - used), muted))
        return Strip(segments).adjust_cell_length(wish.width, ground).crop(0, wish.width)


def figure_text(value: float | None) -> str:
    """A figure with four digits; a dash for none."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return f"{value:.3f}" if 0.01 <= abs(value) < 100 else f"{value:.4g}"


def column_of(step: int, total: int, width: int) -> int:
    """In which cell plotext draws a step: the first is the leftmost, the last the rightmost."""
    return min(width - 1, round(place_of(step, total) * (2 * width - 1)) // 2)  # a cell of it is two dots wide


def place_of(step: int, total: int) -> float:
    """Where a step is, from 0 to 1."""
    return step / (total - 1) if total > 1 else 0.0


def _plot_all(wish: _Wish, console: Console) -> list[_Plotted]:
    """Every chart; some milliseconds each."""
    return [_plot(chart, wish, console) for chart in wish.charts]


def _plot(chart: Chart, wish: _Wish, console: Console) -> _Plotted:
    scaled = [_scaled(curve, chart) for curve in chart.curves]
    finite = [value for values in scaled for value in values if value is not None]
    if not finite:
        return _Plotted(chart, [], "")
    low, high = min(finite), max(finite)
    pairs = [pair for curve, values in zip(chart.curves, scaled, strict=True) for pair in zip(curve.values, values, strict=True)]
    kept = [value for value, drawn in pairs if value is not None and drawn is not None]
    ends = min(kept), max(kept)
    span = ends[1] - ends[0]
    range_text = tick_text(ends[0], 0.0) if not span else " – ".join(tick_text(end, span) for end in ends)
    try:
        text = _drawn(chart, scaled, (low, high), wish)
    except Exception as error:  # plotext raises whatever it comes upon; it costs the plot alone
        text = Text(f"It cannot be drawn: {safe_text(str(error), limit=200)}")
    lines = [Strip(line.render(console)) for line in text.split("\n")]
    return _Plotted(chart, [_as_wide(line, wish.width) for line in lines], range_text)


def _as_wide(line: Strip, width: int) -> Strip:
    return Strip([segment for segment in line if segment.text]).adjust_cell_length(width).crop(0, width)


def _scaled(curve: Curve, chart: Chart) -> list[float | None]:
    """The values as they are drawn; None where there is nothing to draw."""
    finite = [value for value in curve.values if value is not None and math.isfinite(value)]
    if not chart.is_log:
        return [value if value is not None and math.isfinite(value) else None for value in curve.values]
    floor = max(finite, default=0.0) * _FLOOR
    return [math.log10(value) if value is not None and math.isfinite(value) and value > floor else None for value in curve.values]


def _drawn(chart: Chart, scaled: list[list[float | None]], ends: tuple[float, float], wish: _Wish) -> Text:
    from textual_plotext import Plot  # late: plotext takes longer to import than the app takes to start

    with plotext_lock:
        plot = Plot()
        plot.plotsize(wish.width, wish.height)
        plot._set_size(wish.width, wish.height)  # as its widget does: without it the first size stays
        plot.canvas_color(wish.colours.ground)
        plot.axes_color(wish.colours.ground)
        plot.frame(False)
        plot.xticks([])
        plot.yticks([])
        for curve, values, colour in reversed(list(zip(chart.curves, scaled, wish.colours.curves, strict=False))):
            _add(plot, curve, values, colour)
        plot.xlim(0, 1)
        margin = (ends[1] - ends[0]) * 0.02 or 1.0
        plot.ylim(ends[0] - margin, ends[1] + margin)
        return Text.from_ansi(plot.build())


def _add(plot: Plot, curve: Curve, values: list[float | None], colour: tuple[int, int, int]) -> None:
    """Each run of values without a gap is a line; one value alone is a point."""
    run: list[tuple[float, float]] = []
    for step, value in enumerate((*values, None)):
        if value is not None:
            run.append((place_of(step, curve.total), value))
        elif run:
            places, heights = zip(*run, strict=True)
            plot.plot(list(places), list(heights), marker="braille" if len(run) > 1 else "hd", color=colour)
            run = []
