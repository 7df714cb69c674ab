"""Every use of a name that Textual keeps private, in one place, with the version it was read in: 8.2.8."""

from __future__ import annotations

from collections.abc import Callable

from rich.segment import Segment
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widget import Widget


def grow(view: ScrollView, height: int) -> None:
    """Say how many lines a view has, without a layout of the whole screen, which setting `virtual_size` would ask for.

    Right for views that are never as high as their content and always show their scrollbar.
    """
    size = Size(view.virtual_size.width, height)
    had_to_scroll = view.virtual_size.height > view.size.height
    view.set_reactive(Widget.virtual_size, size)
    if had_to_scroll or height > view.size.height:  # else the scrollbar stays as it is
        view._scroll_update(size)


class BakedStrip(Strip):
    """A strip whose terminal bytes are ready; its segments are only made when something asks for them.

    A picture has a colour pair in every cell, so making a Segment and a Style for each and rendering them again costs
    about six times the bytes themselves. Cutting, filtering and screenshots still work: they read `_segments`.
    """

    def __init__(self, make_segments: Callable[[], list[Segment]], cell_length: int, ansi: str) -> None:
        super().__init__((), cell_length)
        self._make_segments = make_segments
        self._made: list[Segment] | None = None
        self._render_cache = ansi

    @property
    def _segments(self) -> list[Segment]:
        if self._made is None:
            self._made = self._make_segments()
        return self._made

    @_segments.setter
    def _segments(self, segments: list[Segment]) -> None:
        self._made = segments or None  # the parent's constructor sets an empty list

    def __bool__(self) -> bool:
        return bool(self.cell_length)
