"""What the field of the initial image names, found and taken in by a thread. No Textual here."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from sdtui.settings import initial_dir
from sdtui.terminal.picture import Frame
from sdtui.text import format_bytes

if TYPE_CHECKING:
    from sdtui.initial_image import Resize, TakenIn

_SHOWN_PX: Final = 1024
"""On the longer side: no terminal has room for more."""
TITLE: Final = "initial image"
_FETCHED_LATER: Final = "F5 fetches it."


class Look(NamedTuple):
    """What is looked at: the text in the field, and the size that the picture gets; 0 where that is not known yet."""

    text: str
    width_px: int
    height_px: int
    resize: Resize
    multiple_px: int


class Found(NamedTuple):
    """What is known then."""

    note: str = ""
    error: str = ""
    title: str = ""
    frame: Frame | None = None
    size: tuple[int, int] | None = None
    """In pixels, where the picture's own proportions decide it."""


class Taking:
    """An initial image on its way into the store, as its thread tells."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()
        self.done_bytes = self.total_bytes = 0

    def progress(self, done: int, total: int) -> None:
        """So many bytes are there, of so many; 0 where nobody knows."""
        self.done_bytes, self.total_bytes = done, total

    @property
    def words(self) -> str:
        """How far it is."""
        done = format_bytes(self.done_bytes)
        return f"on its way: {done} of {format_bytes(self.total_bytes)}" if self.total_bytes else f"on its way: {done}"


def taken_in(text: str, taking: Taking, fetched: tuple[str, TakenIn] | None, allow_private: bool) -> TakenIn:
    """The source in the store; what was fetched from the same address before is there already. Raises `InitialImageError`."""
    from sdtui.initial_image import found_source, is_url, take_in

    if fetched is not None and fetched[0] == text and is_url(found_source(text)) and fetched[1].path.is_file():
        return fetched[1]
    return take_in(text, initial_dir(), allow_private=allow_private, cancelled=taking.cancelled.is_set, progress=taking.progress)


def find(look: Look, fetched: TakenIn | None) -> Found:
    """Read the file and bring it to its size, as the worker will. An address is not asked while one types."""
    from PIL import Image

    from sdtui.initial_image import InitialImageError, found_source, is_url, read_initial_image, resized

    try:
        source = found_source(look.text)
        if is_url(source):
            if fetched is None:
                return Found(note=_FETCHED_LATER)
            path = fetched.path
        else:
            path = Path(source)
        picture = read_initial_image(path)
        own = f"{picture.width}×{picture.height}"
        known = bool(look.width_px and look.height_px)
        shown = resized(picture, *look[1:]) if known else picture
        size = shown.size
        shown.thumbnail((_SHOWN_PX, _SHOWN_PX), Image.Resampling.LANCZOS)
    except InitialImageError as error:
        return Found(error=str(error))
    note = f"{size[0]}×{size[1]} px from {own}" if known else f"{own} px"
    title = f"{TITLE} {size[0]}×{size[1]} px"
    return Found(note, "", title, Frame.of(shown), size if known and look.resize == "fit" else None)
