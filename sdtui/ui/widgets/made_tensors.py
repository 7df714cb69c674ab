"""What a line made: tensors and values as text, and their pictures, each number of a tiny one as a square."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from textual import on
from textual.app import ComposeResult
from textual.containers import Container, Vertical
from textual.content import Content
from textual.getters import query_one
from textual.message import Message
from textual.widgets import Static

from sdtui.protocol import TensorPicture
from sdtui.terminal.picture import Frame
from sdtui.text import safe_text
from sdtui.ui.rows import Span
from sdtui.ui.widgets.pages.beside import run_beside
from sdtui.ui.widgets.pages.span_view import SpanView
from sdtui.ui.widgets.preview.live import LivePicture

PLACES: Final = 2
"""Pictures beside each other: what the U-Net says without the prompt, and with it."""
_LONGEST_PX: Final = 512
_TINY_PX: Final = 96
"""Up to here, latents of 768 pixels, each pixel is a square; larger ones are pictures of something and are drawn smoothly."""


class Pictured(NamedTuple):
    """A tensor's picture, and what is said under it; `caption` is safe."""

    picture: TensorPicture
    caption: str


class PicturePlace(Vertical):
    """One picture over its caption."""

    class Resized(Message):
        """There is more room for the picture, or less."""

    live = query_one(LivePicture)
    caption = query_one(Static)

    def compose(self) -> ComposeResult:
        """Picture and words."""
        yield LivePicture()
        yield Static(markup=False, classes="caption")

    def on_resize(self) -> None:
        """More of the picture can be seen, or less; also when it is shown for the first time."""
        self.call_after_refresh(self.post_message, self.Resized())  # its parts are laid out after it


class MadeTensors(Container):
    """Text above, pictures below, or beside it where the screen says so. The pictures stay until others are given."""

    view = query_one("#made-text", SpanView)

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, classes="-bare")
        self._make: Callable[[int], Sequence[Span]] = lambda _: ()
        self._wanted: tuple[Pictured, ...] = ()
        self._painted: tuple[object, ...] = ()
        self._still = True
        self._is_painting = False

    def compose(self) -> ComposeResult:
        """The text, and a place for each picture."""
        yield SpanView(id="made-text")
        with Container(id="made-pictures"):
            for at in range(PLACES):
                yield PicturePlace(id=f"made-{at}")

    def on_mount(self) -> None:
        """Load what drawing needs."""
        run_beside(self, self._prepare, "prepare")

    async def _prepare(self) -> None:
        await asyncio.to_thread(self.places[0].live.prepare)

    @property
    def places(self) -> list[PicturePlace]:
        """Where pictures can be."""
        return list(self.query(PicturePlace))

    def show_text(self, make: Callable[[int], Sequence[Span]]) -> None:
        """Other text, made for so many cells; what is in it is safe."""
        self._make = make
        self.view.set_spans(make(self.view.room), from_top=True)

    def show_pictures(self, pictures: Sequence[Pictured], *, still: bool) -> None:
        """Other pictures, as many as there are places for; `still`: they will stay for a while."""
        self._wanted, self._still = tuple(pictures[:PLACES]), still
        self.set_class(not self._wanted, "-bare")
        for at, place in enumerate(self.places):
            place.display = at < max(1, len(self._wanted))
            if at < len(self._wanted):
                place.caption.update(Content(self._wanted[at].caption))
        self._wake()

    def put_away(self) -> None:
        """Another screen takes the terminal."""
        for place in self.places:
            place.live.put_away()

    def on_resize(self) -> None:
        """Text is laid out for the room there is."""
        self.call_after_refresh(lambda: self.view.set_spans(self._make(self.view.room), from_top=False))

    @on(PicturePlace.Resized)
    def _place_resized(self, message: PicturePlace.Resized) -> None:
        message.stop()
        self._wake()

    # --- painting ----------------------------------------------------------------------------------------------------

    def _wish(self) -> tuple[object, ...]:
        sizes = tuple(place.live.size for place in self.places[: len(self._wanted)])
        return (self._wanted, self._still, sizes) if all(size.area for size in sizes) else self._painted

    @property
    def is_painted(self) -> bool:
        """Whether the pictures are those that are wished for."""
        return not self._is_painting and self._wish() == self._painted

    def _wake(self) -> None:
        if not self.is_painted and not self._is_painting:
            self._is_painting = True
            run_beside(self, self._paint, "paint")

    async def _paint(self) -> None:
        """Paint until what is seen is what is wished for."""
        try:
            while (wish := self._wish()) != self._painted:
                wanted, still = self._wanted, self._still
                frames = []
                for place, pictured in zip(self.places, wanted, strict=False):
                    px = min(_LONGEST_PX, place.live.wanted_px(*place.live.size))
                    frames.append(await asyncio.to_thread(enlarged, pictured.picture, px))
                self._painted = wish
                if wanted == self._wanted:
                    self._draw(frames, still)
        finally:
            self._is_painting = False

    def _draw(self, frames: Sequence[Frame | None], still: bool) -> None:
        for place, frame in zip(self.places, [*frames, *[None] * PLACES], strict=False):
            if frame is None:
                place.live.clear()
            elif still:
                place.live.show_still(frame)
            else:
                place.live.show_frame(frame)


def enlarged(picture: TensorPicture, px: int) -> Frame | None:
    """A tiny picture with squares for pixels, its longer side at least `px`; None where bytes are missing."""
    frame = Frame(picture.width_px, picture.height_px, picture.rgb)
    if not frame.is_whole:
        return None
    longer = max(picture.width_px, picture.height_px)
    times = -(-px // longer)
    if times <= 1 or longer > _TINY_PX:
        return frame
    from PIL.Image import Resampling

    return Frame.of(frame.image().resize((picture.width_px * times, picture.height_px * times), Resampling.NEAREST))


def captioned(name: str, picture: TensorPicture, more: str = "") -> Pictured:
    """A picture with its name and what is seen of it."""
    parts = (safe_text(name, limit=60), more, safe_text(picture.what, limit=200))
    return Pictured(picture, " · ".join(part for part in parts if part))
