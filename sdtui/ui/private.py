"""Every use of a name that Textual keeps private, in one place, with the version it was read in: 8.2.8."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

from rich.console import Console
from rich.segment import Segment
from textual._xterm_parser import XTermParser
from textual.app import App
from textual.events import Key
from textual.geometry import Region, Size
from textual.screen import Screen
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widget import Widget

__all__ = ["Cover", "Exposure", "KeyParser", "Line", "LineStrip", "exposure", "grow", "is_styled_when_mounted"]


class KeyParser(XTermParser):
    """Reads ESC and a digit as alt and that digit, as most terminals and tmux send it.

    Textual takes it for the character that the Option key and the digit make on a Mac: alt+5 would type an infinity sign.
    """

    def _sequence_to_key_events(self, sequence: str, alt: bool = False) -> Iterable[Key]:
        if len(sequence) == 2 and sequence[0] == "\x1b" and sequence[1] in "0123456789":
            return (Key(f"alt+{sequence[1]}", None),)
        return super()._sequence_to_key_events(sequence, alt)


def grow(view: ScrollView, height: int) -> None:
    """Say how many lines a view has, without a layout of the whole screen, which setting `virtual_size` would ask for.

    Right for views that are never as high as their content and always show their scrollbar.
    """
    size = Size(view.virtual_size.width, height)
    had_to_scroll = view.virtual_size.height > view.size.height
    view.set_reactive(Widget.virtual_size, size)
    if had_to_scroll or height > view.size.height:  # else the scrollbar stays as it is
        view._scroll_update(size)


def is_styled_when_mounted(screen: Screen[Any], app: App[Any]) -> None:
    """Say that a screen that is made while the app runs needs no parsing of all rules and no styling of every other widget.

    Textual compares how often the rules changed with what the screen knows, and a new screen knows nothing.
    """
    screen._css_update_count = app._css_update_count


class Line(Protocol):
    """One line of a widget that knows the bytes that draw it."""

    def segments(self, start: int, end: int) -> list[Segment]:
        """Columns `start` to `end` (exclusive), for screenshots, filters and screens that shine through a dialog."""

    def ansi(self, start: int, end: int, console: Console) -> str:
        """The same as bytes for the terminal, starting and ending with no style."""


class LineStrip(Strip):
    """A part of a `Line`; its segments are only made when something asks for them.

    A picture has a colour pair in every cell, so making a Segment and a Style for each and rendering them again costs
    about six times the bytes themselves.
    """

    def __init__(self, line: Line, start: int, end: int) -> None:
        super().__init__((), end - start)
        self._line = line
        self._start = start
        self._end = end
        self._made: list[Segment] | None = None

    @property
    def _segments(self) -> list[Segment]:
        if self._made is None:
            self._made = self._line.segments(self._start, self._end)
        return self._made

    @_segments.setter
    def _segments(self, segments: list[Segment]) -> None:
        self._made = segments or None  # the parent's constructor sets an empty list

    def __bool__(self) -> bool:
        return bool(self.cell_length)

    def crop(self, start: int, end: int | None = None) -> Strip:
        """Columns `start` to `end` of this strip."""
        last = self._end if end is None else min(self._end, self._start + end)
        return LineStrip(self._line, min(self._start + start, last), last)

    def divide(self, cuts: Iterable[int]) -> list[Strip]:
        """The strip in pieces that end at each of these columns."""
        ends = [min(self._end, self._start + cut) for cut in cuts]
        starts = [self._start, *ends[:-1]]
        return [LineStrip(self._line, start, end) for start, end in zip(starts, ends, strict=True)]

    def render(self, console: Console) -> str:
        """The bytes for the terminal."""
        if self._render_cache is None:
            self._render_cache = self._line.ansi(self._start, self._end, console)
        return self._render_cache


class Cover(NamedTuple):
    """A part of a widget that another one lies over, and what is behind that one's text."""

    region: Region
    rgb: tuple[int, int, int]


class Exposure(NamedTuple):
    """Where a widget is on the screen, and what may lie over it."""

    region: Region
    """On the screen, in cells."""
    whole: bool
    """Whether no container cuts a part off."""
    covers: tuple[Cover, ...]
    """What other widgets, such as toasts and menus, hide of it."""


def exposure(widget: Widget) -> Exposure | None:
    """How much of a widget is to be seen; None while it is not laid out."""
    visible = widget.screen._compositor.visible_widgets  # in painting order, the foremost first
    if widget not in visible:
        return None
    region, clip = visible[widget]
    shown = region.intersection(clip)
    covers = []
    for other, (its_region, its_clip) in visible.items():
        if other is widget:
            break
        hidden = its_region.intersection(its_clip).intersection(shown)
        if hidden:
            covers.append(Cover(hidden, other.background_colors[1].rgb))
    return Exposure(region, shown == region, tuple(covers))
