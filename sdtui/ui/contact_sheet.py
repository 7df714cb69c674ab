"""Channels of a module's output as one picture: as many as can be told apart in the room that there is, as large as they fit.

This imports numpy and Pillow when it is asked: import it where it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sdtui.terminal.picture import Frame

if TYPE_CHECKING:
    import numpy as np

    Sheet = np.ndarray[Any, np.dtype[np.uint8]]

LEAST_PX: Final = 8
"""The longer side of a channel below which nothing is to be seen in it, where a pixel is half a cell."""
_FINE_PX: Final = 300
"""Of the room's longer side, from which on pixels are so small that channels must have more of them."""
_LEAST_FINE_PX: Final = 40


class Layout(NamedTuple):
    """How many channels stand across and down, how large each is, and how far apart they are."""

    across: int
    down: int
    width_px: int
    height_px: int
    gap_px: int

    @property
    def room(self) -> int:
        """How many there is room for."""
        return self.across * self.down


def lay_out(shape: tuple[int, int, int], room: tuple[int, int]) -> Layout:
    """The layout for a sheet of (channels, h, w) in a room of width and height in pixels: of as many channels as it can."""
    fine = max(room) >= _FINE_PX
    least, gap = (_LEAST_FINE_PX, 2) if fine else (LEAST_PX, 1)
    for count in range(shape[0], 0, -1):
        found = max((_fit(shape, room, across, -(-count // across), gap) for across in range(1, count + 1)), key=_area)
        if max(found.width_px, found.height_px) >= least:
            return found
    return _fit(shape, room, 1, 1, gap)


def _area(layout: Layout) -> int:
    return layout.width_px * layout.height_px


def _fit(shape: tuple[int, int, int], room: tuple[int, int], across: int, down: int, gap: int) -> Layout:
    _, height, width = shape
    scale = min((room[0] - gap * (across - 1)) / (across * width), (room[1] - gap * (down - 1)) / (down * height))
    return Layout(across, down, max(1, int(width * scale)), max(1, int(height * scale)), gap)


def contact_sheet(sheet: Sheet, first: int, room: tuple[int, int], ground: tuple[int, int, int]) -> Frame:
    """The picture, which fills the room: channels from the `first` on, each grey by grey as it is in the sheet.

    sheet: (channels, h, w) uint8. Pixels are enlarged as they are; where there are too many they are averaged.
    """
    from PIL import Image

    layout = lay_out(sheet.shape, room)
    picture = Image.new("RGB", room, ground)
    step_x, step_y = layout.width_px + layout.gap_px, layout.height_px + layout.gap_px
    left = (room[0] - layout.across * step_x + layout.gap_px) // 2
    top = (room[1] - layout.down * step_y + layout.gap_px) // 2
    smaller = layout.width_px < sheet.shape[2] or layout.height_px < sheet.shape[1]
    how = Image.Resampling.BOX if smaller else Image.Resampling.NEAREST
    for place, channel in enumerate(sheet[first : first + layout.room]):
        tile = Image.fromarray(channel, "L").resize((layout.width_px, layout.height_px), how)
        down, across = divmod(place, layout.across)
        picture.paste(tile.convert("RGB"), (left + across * step_x, top + down * step_y))
    return Frame.of(picture)
